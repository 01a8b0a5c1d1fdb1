"""What a fitted compressed net does: predict and score."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from . import inputs
from .probe import describe
from .training.isolation import fair_threads
from .training.iterators import for_prediction


def _is_classifier(self: "PredictionMixin") -> bool:
    """Only classifiers have ``predict_proba``."""
    return is_classifier(self)


def winners(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return the numbers of the predicted classes.

    Parameters
    ----------
    probabilities : ndarray of shape (n_samples, n_classes)
    threshold : float or None
        Above which probability the second of two classes wins; None: the likeliest does.
    """
    if threshold is None:
        return probabilities.argmax(axis=1)
    return (probabilities[:, 1] > threshold).astype(np.int64)


class PredictionMixin:
    """Predict with ``net_``, in the terms of the rows that ``fit`` was given."""

    net_: NeuralNet
    classes_: np.ndarray
    target_ndim_: int
    _input_shapes: str

    def predict(self, X: Any) -> np.ndarray:
        """Predict with the compressed net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Class labels as they were given to ``fit``, or numbers.
        """
        predicted = self._forward(X, "predict")
        if is_classifier(self):
            return self.classes_[predicted.astype(np.int64)]
        return predicted.ravel() if self.target_ndim_ == 1 else predicted

    @available_if(_is_classifier)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities with the compressed net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._forward(X, "predict_proba")

    def _forward(self, X: Any, method: str) -> np.ndarray:
        """Run new rows through a method of the net."""
        check_is_fitted(self)
        X = inputs.check_inputs(self, X, reset=False)
        X = inputs.to_dtype(X, self.net_.module_)
        try:
            with fair_threads():
                return getattr(for_prediction(self.net_, X), method)(X)
        except Warning:  # the user's filters turned it into an error
            raise
        except Exception as error:  # whatever the user's forward raises is the reason
            raise ValueError(
                f"The net does not take X of {describe(X)}: {error}. In fit, X was of"
                f" {self._input_shapes}."
            ) from error

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or a regressor's coefficient of determination.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            What `X` should give.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        score : float
            At most 1.
        """
        metric = accuracy_score if is_classifier(self) else r2_score
        return float(metric(inputs.as_target(y), self.predict(X), sample_weight=sample_weight))
