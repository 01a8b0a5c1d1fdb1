"""Seeds and threads: given to the inside, given back to the outside."""

import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import ParallelBackendBase
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import cross_val_score

from skcompress import DistilledNet
from skcompress.training.isolation import (
    draw_seed,
    fair_threads,
    isolated,
    seed_generators,
    stage_seed,
)
from tests.contract_modules import assert_same_state, blobs, classifier, pruned, state


def draw():
    """Draw a number from each global generator."""
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_isolated_gives_back_the_generators():
    """What is drawn inside is not missing outside, also after an error."""
    seed_generators(0)
    expected = draw(), draw()
    seed_generators(0)
    with isolated():
        draw()
    first = draw()
    with pytest.raises(RuntimeError, match="inside"):
        seed_and_raise()
    assert (first, draw()) == expected


@isolated()
def seed_and_raise():
    """Disturb the generators, and fail."""
    seed_generators(9)
    raise RuntimeError("inside")


@pytest.mark.parametrize(("n_threads", "inside"), [(2, 2), (None, 1)])
def test_isolated_sets_threads(n_threads, inside):
    """The number of threads is set inside and restored outside; None leaves it alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with isolated(n_threads):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_seed_generators():
    """One seed fixes all three generators."""
    with isolated():
        seed_generators(3)
        first = draw()
        seed_generators(3)
        assert draw() == first
        seed_generators(4)
        assert not set(draw()) & set(first)


def test_draw_seed():
    """An integer is its own seed; a RandomState and numpy's generator are drawn from."""
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7
    rng = np.random.RandomState(0)
    assert draw_seed(rng) != draw_seed(rng)
    assert draw_seed(np.random.RandomState(0)) == draw_seed(np.random.RandomState(0))
    with isolated():
        seed_generators(1)
        first = draw_seed(None)
        seed_generators(1)
        assert draw_seed(None) == first
        assert draw_seed(None) != first


def test_stage_seed():
    """Stages and seeds give seeds of their own, the same on every machine."""
    seeds = {stage_seed(seed, stage) for seed in range(20) for stage in ("dense", "prune")}
    assert len(seeds) == 40
    assert stage_seed(0, "dense") == 425966876


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_isolated_gives_back_the_gpus_generators():
    """Each GPU's generator is restored as well."""
    before = torch.cuda.get_rng_state()
    with isolated():
        seed_generators(3)
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def seeded_draws(seed):
    """Draw many numbers from each generator, slowly enough for threads to take turns."""
    with isolated():
        seed_generators(seed)
        return [draw() for _ in range(2000)]


def test_threads_take_turns():
    """Of several threads one at a time is isolated, so that each draws its own numbers."""
    alone = [seeded_draws(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(seeded_draws, range(4))) == alone


def test_the_threading_backend_gives_the_same_nets():
    """Fits in threads are those of a sequential run, bit for bit."""
    X, y = blobs()
    estimators = [pruned(n_threads=1, random_state=seed) for seed in range(4)]
    alone = [state(estimator.fit(X, y)) for estimator in estimators]
    with joblib.parallel_config(backend="threading", n_jobs=4):
        fits = joblib.Parallel()(joblib.delayed(e.fit)(X, y) for e in estimators)
    for one, other in zip(alone, fits, strict=True):
        assert_same_state(one, state(other))


def test_a_teacher_within_a_fit_starts_no_threads():
    """Nets that teach a net, in an ensemble that would fit them in threads, do not wait for it."""
    X, y = blobs()
    teacher = VotingClassifier([("a", pruned()), ("b", pruned())], voting="soft", n_jobs=2)
    student = DistilledNet(classifier(), teacher, cv=2, random_state=0, n_threads=1)
    alone = state(student.fit(X, y))
    with joblib.parallel_config(backend="threading"):
        assert_same_state(alone, state(student.fit(X, y)))


class ElsewhereBackend(ParallelBackendBase):
    """A backend that joblib does not know, such as Dask's."""

    def effective_n_jobs(self, n_jobs):
        return n_jobs

    def submit(self, func, callback=None):
        raise AssertionError("no job is sent")


@pytest.mark.parametrize(
    ("backend", "n_jobs"), [("loky", 2), ("multiprocessing", 2), ("threading", 1), ("elsewhere", 1)]
)
def test_jobs_inside_run_in_processes_or_in_turn(backend, n_jobs, monkeypatch):
    """Only backends with processes for nothing else have several jobs at once within a fit."""
    monkeypatch.setitem(joblib.parallel.BACKENDS, "elsewhere", ElsewhereBackend)
    with joblib.parallel_config(backend=backend, n_jobs=2), isolated():
        assert joblib.effective_n_jobs(2) == n_jobs
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert joblib.effective_n_jobs(2) == 2


def threads_inside(n_threads):
    """Return torch's threads inside, after asking for four of them outside."""
    torch.set_num_threads(4)
    with fair_threads(n_threads):
        return torch.get_num_threads()


def test_forked_workers_have_one_thread_each(monkeypatch):
    """Only where nobody else has set a number, and the user has not."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(threads_inside, (None,)) == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(threads_inside, (None,)) == 1
        assert pool.apply(threads_inside, (2,)) == 2


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_workers_do_not_oversubscribe_the_cores(backend, monkeypatch):
    """The threads of two workers that fit at once are no more than the cores."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    # joblib would reuse the workers of another test, started where the variable was set.
    get_reusable_executor().shutdown()
    X, y = blobs()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        threads = cross_val_score(pruned(), X, y, cv=2, scoring=n_threads_of_a_fit)
    at_once = 1 if backend == "threading" else 2
    assert max(threads) * at_once <= max(joblib.cpu_count(), at_once)


def n_threads_of_a_fit(estimator, X, y):
    """Score an estimator by the number of threads that a fit of it has."""
    with isolated(estimator.n_threads):
        return torch.get_num_threads()
