"""The rows given to ``fit``, as teachers are given them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from .. import inputs
from ..inputs import take_rows


@dataclass(frozen=True)
class Rows:
    """The rows given to ``fit``, as they were given.

    Parameters
    ----------
    X : array, frame, dict of arrays or SliceDataset
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Labels of the user's own, or numbers.
    weights : ndarray of shape (n_samples,) or None
        Non-negative; a row of no weight is never trained on.
    classes : ndarray of shape (n_classes,) or None
        None for a regressor.
    """

    X: Any
    y: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray | None

    @property
    def counted(self) -> np.ndarray:
        """Which rows have a weight."""
        return np.ones(len(self.y), dtype=bool) if self.weights is None else self.weights > 0

    def take(self, rows: np.ndarray) -> "Rows":
        """Keep some rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Rows(take_rows(self.X, rows), self.y[rows], weights, self.classes)


def as_given(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Rows:
    """Return all rows as the teacher is given them: frames as they are, y as it was.

    Parameters
    ----------
    estimator : DistilledNet
        It has seen them, and knows their classes.
    """
    X = X if hasattr(X, "iloc") else inputs.check_inputs(estimator, X, reset=False)
    y = np.asarray(inputs.as_target(y))
    classification = is_classifier(estimator)
    if classification or estimator.target_ndim_ == 1:
        y = y.ravel()
    weights = inputs.check_weights(sample_weight, len(y))
    return Rows(X, y, weights, estimator.classes_ if classification else None)
