"""Searches on Dask and Ray, and by Optuna, train each dense net once and score the same."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from tests.training.cache_modules import counted, n_fits, rows
from tests.training.test_cache import search

# What these libraries warn of is not ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = str(Path(__file__).parents[2])
X, Y = rows()


def assert_same_search(folder):
    """Compare a search by the current backend with a sequential one without a cache."""
    scores = search(counted(folder / "log", folder / "cache"), n_jobs=2)
    assert n_fits(folder / "log") == 5
    with joblib.parallel_config(backend="sequential"):
        np.testing.assert_array_equal(scores, search(counted()))


def test_dask(tmp_path):
    """Workers of a Dask cluster share a folder."""
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(**settings) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(sys.path.insert, 0, ROOT)
        with joblib.parallel_config(backend="dask"):
            assert_same_search(tmp_path)


def test_ray(tmp_path):
    """Workers of a Ray cluster share a folder."""
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    environment = {"env_vars": {"PYTHONPATH": ROOT}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment)
    try:
        with joblib.parallel_config(backend="ray"):
            assert_same_search(tmp_path)
    finally:
        ray.shutdown()


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
