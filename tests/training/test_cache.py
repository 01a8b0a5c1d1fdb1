"""A search trains each dense net once, and its results are those without a cache."""

import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from skcompress import DistilledNet, PrunedNet, QuantizedNet
from skcompress.training import CacheFolder
from tests.contract_modules import assert_same_state, classifier, state
from tests.training.cache_modules import counted, counted_net, entries, is_dense, n_fits, rows

X, Y = rows()
GRID = {"sparsity": [0.5, 0.7, 0.9]}


def search(estimator, grid=None, **settings):
    """Return the test scores of a search over five folds, candidate by candidate."""
    found = GridSearchCV(
        estimator, grid or GRID, cv=5, refit=False, error_score="raise", **settings
    )
    results = found.fit(X, Y).cv_results_
    return np.stack([results[f"split{fold}_test_score"] for fold in range(5)])


@pytest.fixture(scope="module")
def plain_scores():
    """Return the scores of the search without a cache, in a fresh process."""
    code = (
        "from tests.training.test_cache import search; from tests.training.cache_modules import *;"
        "print(search(counted()).tolist())"
    )
    root = Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return np.array(eval(output.stdout))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_trains_once_for_each_fold(n_jobs, tmp_path, plain_scores):
    """Cells share the dense fit of their fold, in one process and in two."""
    log = tmp_path / "log"
    scores = search(counted(log, tmp_path / "cache"), n_jobs=n_jobs)
    assert n_fits(log) == 5
    np.testing.assert_array_equal(scores, plain_scores)
    np.testing.assert_array_equal(search(counted(log, tmp_path / "cache")), plain_scores)
    assert n_fits(log) == 5


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_other_backends_train_once_for_each_fold(backend, tmp_path, plain_scores):
    """Threads and forked processes share dense fits, and give the same scores."""
    log = tmp_path / "log"
    with joblib.parallel_config(backend=backend):
        scores = search(counted(log, tmp_path / "cache"), n_jobs=2)
    assert n_fits(log) == 5
    np.testing.assert_array_equal(scores, plain_scores)


def test_a_grid_over_bits_shares_the_pruned_net(tmp_path):
    """Only new sparsities are pruned, and nothing is trained twice."""
    log, memory = tmp_path / "log", tmp_path / "cache"
    estimator = QuantizedNet(counted(log), random_state=0, n_threads=1, memory=memory)
    grid = {"bits": [2, 4, 8], "estimator__sparsity": [0.5, 0.9]}
    scores = search(estimator, grid)
    assert n_fits(log) == 5
    n_dense, n_pruned, n_quantized = 5, 5 * 2, 5 * 2 * 3
    assert len(entries(memory)) == n_dense + n_pruned + n_quantized
    np.testing.assert_array_equal(scores, search(estimator.set_params(memory=None), grid))


def test_an_inner_memory_is_its_own(tmp_path):
    """An estimator's own memory is not overridden by that of the one around it."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    estimator = QuantizedNet(counted(memory=inner), random_state=0, memory=outer).fit(X, Y)
    assert (len(entries(inner)), len(entries(outer))) == (2, 1)
    again = QuantizedNet(counted(memory=inner), random_state=0, memory=outer).fit(X, Y)
    assert_same_state(state(again), state(estimator))
    assert (len(entries(inner)), len(entries(outer))) == (2, 1)


ONCE = {"random_state": 0, "n_threads": 1}
SHORT = ONCE | {"retrain_epochs": 2}


def test_a_teacher_is_asked_once(tmp_path):
    """A grid over the weight of the soft loss fits the teacher once for each fold."""
    teacher = counted(tmp_path / "log", sparsity=0.0)
    student = DistilledNet(counted_net(), teacher, cv=2, **ONCE, memory=tmp_path / "cache")
    search(student, {"alpha": [0.3, 0.6, 0.9]})
    assert n_fits(tmp_path / "log") == 5 * 2


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["None", "instance"])
def test_no_integer_seed_is_not_cached(random_state, tmp_path):
    """Fits that cannot be repeated are not kept, with one warning."""
    estimator = counted(memory=tmp_path / "cache", random_state=random_state)
    with pytest.warns(UserWarning, match="random_state is no integer") as warned:
        search(estimator.fit(X, Y), {"sparsity": [0.5, 0.6]})  # and not one for each cell
    assert len(warned) == 1
    assert entries(tmp_path / "cache") == []


def test_no_integer_seed_inside_is_not_cached(tmp_path):
    """Nor are stages inside of stages."""
    inner = counted(memory=tmp_path / "cache", random_state=None)
    with pytest.warns(UserWarning, match="random_state is no integer"):
        PrunedNet(inner, memory=tmp_path / "cache").fit(X, Y)
    assert entries(tmp_path / "cache") == []


def test_a_memory_inside_needs_a_seed_too(tmp_path):
    """A stage whose seed is drawn is not kept, and says so."""
    inner = counted(memory=tmp_path / "cache", random_state=None)
    with pytest.warns(UserWarning, match="random_state is no integer"):
        QuantizedNet(inner).fit(X, Y)
    assert not entries(tmp_path / "cache")


def test_what_cannot_be_looked_into_is_not_cached(tmp_path):
    """A parameter without a content to tell is no key, and the fit goes on with one warning."""
    net = counted_net(module__hidden=Opaque(16))
    with pytest.warns(UserWarning, match="Opaque cannot be looked into") as warned:
        estimator = counted(memory=tmp_path / "cache", net=net).fit(X, Y)
    assert len(warned) == 1
    assert estimator.score(X, Y) > 0.5
    assert entries(tmp_path / "cache") == []


class Opaque(int):
    """A number that does not pickle."""

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle")

    def __deepcopy__(self, memo):
        return self


class Counting(nn.Module):
    """A module with an attribute that grows in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.seen = b""

    def forward(self, X):
        if self.training:
            self.seen = self.seen + b"x"
        return self.layer(X)


def test_what_is_learned_outside_of_tensors_is_not_cached(tmp_path):
    """A module that keeps more than tensors and plain values is trained each time."""
    net = classifier(module=Counting, callbacks=[])
    with pytest.warns(UserWarning, match="bytes is no tensor and no plain value"):
        first = PrunedNet(net, **SHORT, memory=tmp_path / "cache").fit(X, Y)
    assert entries(tmp_path / "cache") == []
    assert_same_state(state(first), state(PrunedNet(net, **SHORT).fit(X, Y)))


def test_an_evicted_inner_stage_is_computed_anew(tmp_path):
    """Without the entry of the dense fit, that of the pruned net is not enough."""
    log = tmp_path / "log"
    first = counted(log, tmp_path / "cache").fit(X, Y)
    (dense,) = filter(is_dense, entries(tmp_path / "cache"))
    dense.unlink()
    second = counted(log, tmp_path / "cache").fit(X, Y)
    assert n_fits(log) == 2
    assert_same_state(state(first), state(second))


def test_memory_of_joblib(tmp_path):
    """The location of a joblib.Memory counts; one without a location keeps nothing."""
    counted(memory=joblib.Memory(tmp_path / "cache", verbose=0)).fit(X, Y)
    assert len(entries(tmp_path / "cache")) == 2
    counted(memory=joblib.Memory(None)).fit(X, Y)


def test_memory_is_cloned_and_scored(tmp_path):
    """Estimators with a memory work in other tools of scikit-learn."""
    estimator = counted(memory=CacheFolder(tmp_path / "cache"))
    assert cross_val_score(estimator, X, Y, cv=2).min() > 0.5


def test_hits_raise_no_warnings(tmp_path):
    """A second fit is silent, and leaves the generators as they were."""
    counted(memory=tmp_path / "cache").fit(X, Y)
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted(memory=tmp_path / "cache").fit(X, Y)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_memory_of_another_type(tmp_path):
    """What is no folder is refused by name."""
    with pytest.raises(ValueError, match="The 'memory' parameter of PrunedNet must be"):
        counted(memory=3).fit(X, Y)
