"""Searches on Dask and Ray, and by Optuna, train each dense net once and score the same.

A worker that is killed costs its cell on Dask; on Ray and loky the search is started again.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import cross_val_score

from skcompress import DistilledNet
from tests.training import cluster_modules
from tests.training.cache_modules import counted, counted_net, entries, n_fits, rows
from tests.training.cluster_modules import DENSE, mortal, n_dense, scores
from tests.training.test_cache import search
from tests.training.test_isolation import n_threads_of_a_fit

# What these libraries warn of is not ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
X, Y = rows()
# A batch in the middle of the dense fit, and the first one of retraining.
DEATHS = pytest.mark.parametrize("batch", [DENSE // 2, DENSE + 1], ids=["dense", "retraining"])


@contextlib.contextmanager
def dask(threads_per_worker=1):
    """Start a Dask cluster of two workers, and let joblib use it."""
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": threads_per_worker}
    with (
        distributed.LocalCluster(**settings, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(sys.path.insert, 0, str(ROOT))
        with joblib.parallel_config(backend="dask"):
            yield client


@contextlib.contextmanager
def ray(n_cpus=2):
    """Start a Ray cluster of two workers, and let joblib use it."""
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=n_cpus, include_dashboard=False, runtime_env=environment)
    try:
        with joblib.parallel_config(backend="ray", n_jobs=n_cpus):
            yield
    finally:
        ray.shutdown()


@pytest.fixture
def _no_openmp(monkeypatch):
    """Start workers as users do, who set no number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def sequential(function, *args):
    """Call a function outside of the cluster."""
    with joblib.parallel_config(backend="sequential"):
        return function(*args)


def assert_same_search(folder):
    """Compare a search by the current backend with a sequential one without a cache."""
    found = search(counted(folder / "log", folder / "cache"))
    assert n_fits(folder / "log") == 5
    assert str(os.getpid()) not in (folder / "log").read_text().split()
    np.testing.assert_array_equal(found, sequential(search, counted()))


def taught_scores():
    """Score a student of two nets, which joblib may fit at once."""
    teacher = VotingClassifier([("a", counted()), ("b", counted())], voting="soft")
    student = DistilledNet(counted_net(), teacher, cv=2, random_state=0, n_threads=1)
    return cross_val_score(student, X, Y, cv=4)


def assert_one_thread():
    """Two workers on at least one core have one thread each."""
    found = cross_val_score(counted(n_threads=None), X, Y, cv=4, scoring=n_threads_of_a_fit)
    assert found.tolist() == [1] * 4


@pytest.mark.usefixtures("_no_openmp")
@pytest.mark.parametrize("threads_per_worker", [1, 2])
def test_dask(threads_per_worker, tmp_path):
    """Workers of a Dask cluster share a folder, also those of two threads, which take turns."""
    with dask(threads_per_worker):
        assert_same_search(tmp_path)
        assert_one_thread()
        np.testing.assert_array_equal(taught_scores(), sequential(taught_scores))


@DEATHS
def test_a_killed_worker_costs_its_cell_on_dask(batch, tmp_path):
    """The search ends with the same scores; only the fit that was cut off is begun again."""
    arrays = [cluster_modules.X, cluster_modules.Y]
    with dask() as client:
        client.amm.stop()
        with joblib.parallel_config(backend="dask", scatter=arrays):
            found = scores(mortal(tmp_path, batch))
    assert not (tmp_path / "fate").exists()
    assert n_fits(tmp_path / "log") == 5 + (batch < DENSE)
    assert len(entries(tmp_path / "cache")) == 5 + 15
    np.testing.assert_array_equal(found, scores(counted()))


def assert_goes_on(folder, batch):
    """Search until a worker is killed, then again: no stage is repeated that was completed."""
    with pytest.raises(Exception, match=r"(?i)terminated|died"):
        scores(mortal(folder, batch), n_jobs=2)
    assert not (folder / "fate").exists()
    done = {path: path.stat().st_ino for path in entries(folder / "cache")}
    n_before, n_missing = n_fits(folder / "log"), 5 - n_dense(folder / "cache")
    assert 0 < len(done) < 5 + 15
    (folder / "fate").touch()  # it is no part of the key whether the file is there
    estimator = mortal(folder, batch)
    (folder / "fate").unlink()
    found = scores(estimator, n_jobs=2)
    # A worker that outlived the other may have gone on until the search was over.
    assert n_fits(folder / "log") - n_before <= n_missing
    after = {path: path.stat().st_ino for path in entries(folder / "cache")}
    assert done.items() <= after.items()
    assert len(after) == 5 + 15
    np.testing.assert_array_equal(found, sequential(scores, counted()))


@pytest.mark.usefixtures("_no_openmp")
def test_ray(tmp_path):
    """Workers of a Ray cluster share a folder."""
    with ray():
        assert_same_search(tmp_path)
        assert_one_thread()
        np.testing.assert_array_equal(taught_scores(), sequential(taught_scores))


@DEATHS
def test_a_search_on_ray_goes_on_after_a_death(batch, tmp_path):
    """A killed worker ends the search with an error, and the next one completes it."""
    with ray():
        assert_goes_on(tmp_path, batch)


@DEATHS
def test_a_search_on_loky_goes_on_after_a_death(batch, tmp_path):
    """As on Ray, in processes of this machine."""
    get_reusable_executor().shutdown()
    assert_goes_on(tmp_path, batch)


def test_optuna(tmp_path):
    """All trials of a study share the dense nets of the folds."""
    optuna = pytest.importorskip("optuna")

    def objective(trial):
        settings = {"sparsity": trial.suggest_float("sparsity", 0.3, 0.9)}
        settings["criterion"] = trial.suggest_categorical("criterion", ["magnitude", "random"])
        candidate = counted(tmp_path / "log", tmp_path / "cache", **settings)
        return cross_val_score(candidate, X, Y, cv=3).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=4)
    assert n_fits(tmp_path / "log") == 3
    plain = cross_val_score(counted(**study.best_params), X, Y, cv=3)
    assert study.best_value == plain.mean()


@pytest.mark.usefixtures("_no_openmp")
@pytest.mark.parametrize(("library", "n_nets"), [("distributed", 4), ("ray", 4), ("optuna", 3)])
def test_scripts_of_the_guide(library, n_nets, tmp_path):
    """What the guide shows runs as a script, with a dense net for each fold and for all rows."""
    pytest.importorskip(library)
    page = (ROOT / "docs/user_guide/search.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (module,) = [block for block in blocks if 'memory="/shared/cache"' in block]
    (script,) = [
        block for block in blocks if re.search(f"^(import|from) {library}\\b", block, re.M)
    ]
    module = module.replace("/shared/cache", str(tmp_path / "cache"))
    (tmp_path / "my_search.py").write_text(module)
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'sparsity': " in done.stdout
    assert n_dense(tmp_path / "cache") == n_nets
