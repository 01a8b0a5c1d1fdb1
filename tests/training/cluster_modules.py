"""A search in which a worker is killed."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from tests.training.cache_modules import Counted, counted, counted_net, entries, is_dense, n_fits

# Enough rows for joblib to treat them, and the rows of each fold, as large on Dask.
X, Y = make_blobs(300, centers=3, n_features=4, random_state=1)
X = X.astype(np.float32)
SPLITS = [(train.tolist(), test.tolist()) for train, test in StratifiedKFold(5).split(X, Y)]
# Batches of one dense fit: 3 epochs of 240 rows, in batches of 32.
DENSE = 3 * 8


class Mortal(Counted):
    """Kills its process at a batch of training, once three dense fits have begun.

    It takes away the file `fate`, so that this happens once.
    """

    def __init__(self, log, fate, batch):
        super().__init__(log)
        self.fate, self.batch, self.n_batches = fate, batch, 0

    def forward(self, X):
        result = super().forward(X)
        self.n_batches += self.training
        if self.n_batches == self.batch and n_fits(self.log) >= 3:
            with contextlib.suppress(FileNotFoundError):
                Path(self.fate).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return result


def mortal(folder, batch):
    """Return an unfitted estimator with a cache, one fit of which kills its process."""
    (folder / "fate").touch()
    parts = {"module__fate": str(folder / "fate"), "module__batch": batch}
    return counted(net=counted_net(folder / "log", module=Mortal, **parts), memory=folder / "cache")


def scores(estimator, **settings):
    """Return the test scores of a search over five folds, candidate by candidate."""
    grid = {"sparsity": [0.5, 0.7, 0.9]}
    search = GridSearchCV(estimator, grid, cv=SPLITS, refit=False, error_score="raise", **settings)
    results = search.fit(X, Y).cv_results_
    return np.stack([results[f"split{fold}_test_score"] for fold in range(5)])


def n_dense(memory):
    """Count the dense nets in a cache."""
    return sum(map(is_dense, entries(memory)))
