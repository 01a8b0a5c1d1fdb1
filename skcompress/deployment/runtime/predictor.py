"""Deployed nets: fitted estimators that predict by onnxruntime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_array

from ...prediction import winners
from ...rows import cast


@dataclass(frozen=True)
class Content:
    """What a deployed net predicts with: plain values, that pickle.

    Parameters
    ----------
    model : bytes
        An ONNX graph with one output: probabilities, or a regressor's predictions.
    inputs : dict of (shape, dtype)
        What a row of each input looks like.
    classes : ndarray or None
        Labels of a classifier.
    threshold : float or None
        Above which probability the second of two classes is predicted; None: the likeliest is.
    feature_names : ndarray or None
        Columns of a frame.
    """

    # Kilobytes, that no one wants printed.
    model: bytes = field(repr=False)
    inputs: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    classes: np.ndarray | None
    threshold: float | None
    feature_names: np.ndarray | None


class Deployed(BaseEstimator):
    """A fitted predictor on onnxruntime, which ``deploy`` makes; it pickles, copies and clones.

    Parameters
    ----------
    content : Content
        The graph, and what its output means.
    n_threads : int, default=1
        Threads of a call.
    """

    def __init__(self, content: Content, n_threads: int = 1) -> None:
        self.content = content
        self.n_threads = n_threads
        self._start()

    def _start(self) -> None:
        """Start a session, which can be neither pickled nor copied."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.n_threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            self.content.model, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._name = next(iter(self.content.inputs))
        self._shape, self._dtype = self.content.inputs[self._name]
        self._alone = len(self.content.inputs) == 1
        self._one_array = self._alone and self._dtype.kind != "O"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in SESSION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()

    def fit(self, X: Any, y: Any = None) -> Self:
        """Refuse: a deployed net is not trained.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "A deployed net is not trained. Fit the estimator that it was made from, and call"
            " deploy again; or wrap it in FrozenEstimator where it is to stay as it is."
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def n_features_in_(self) -> int:
        """Number of features of an array, or of columns."""
        return self._shape[0] if self._alone else len(self.content.inputs)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of the frame that the estimator was fitted on."""
        if self.content.feature_names is None:
            raise AttributeError("The estimator was fitted on rows without names.")
        return self.content.feature_names

    def _call(self, X: Any) -> np.ndarray:
        """Run rows through the graph; an array that needs no conversion goes straight there."""
        # Anything infinite or missing makes the sum of squares so, and that is one call of BLAS, by
        # vdot without a warning where it overflows; large finite values make it infinite, too, and
        # are looked at one by one.
        if (
            type(X) is np.ndarray
            and X.dtype == self._dtype
            and X.shape[1:] == self._shape
            and X.size
            and self._one_array
            and isfinite(np.vdot(X, X))
        ):
            return self._session.run(self._outputs, {self._name: X})[0]
        return self._session.run(self._outputs, self.feed(X))[0]

    def feed(self, X: Any) -> dict[str, np.ndarray]:
        """Check rows, and convert them to what the graph takes."""
        if isinstance(X, Mapping) or (hasattr(X, "columns") and not self._alone):
            if set(X.keys()) != set(self.content.inputs):
                raise ValueError(
                    f"X has {sorted(map(str, X.keys()))}, and the inputs of the net are"
                    f" {sorted(self.content.inputs)}."
                )
            return {name: self._input(name, np.asarray(X[name])) for name in self.content.inputs}
        if not self._alone:
            raise TypeError(
                f"X is a {type(X).__name__}, and the inputs of the net are"
                f" {sorted(self.content.inputs)}. Pass a dict or frame with these."
            )
        names = list(getattr(X, "columns", ()))
        expected = self.content.feature_names
        if names and expected is not None and names != list(expected):
            raise ValueError(
                f"The feature names should match those that were passed during fit: X has {names},"
                f" and in fit it had {list(expected)}."
            )
        return {self._name: self._input(self._name, X)}

    def _input(self, name: str, values: Any) -> np.ndarray:
        shape, dtype = self.content.inputs[name]
        if dtype.kind == "O":
            return np.asarray(values, dtype=object).reshape(-1, *shape)
        values = check_array(values, ensure_2d=False, allow_nd=True, input_name=name)
        if values.ndim == 1 and shape == (1,) and not self._alone:
            values = values.reshape(-1, 1)  # a column of a frame
        if values.shape[1:] != shape:
            raise ValueError(
                f"X has shape {values.shape}, and the net takes {('n_samples', *shape)}. Reshape"
                " your data, or choose the features that it was fitted on."
            )
        return cast(values, dtype, name)


# What a session is, which starts anew in another process.
SESSION = ("_session", "_outputs", "_name", "_shape", "_dtype", "_alone", "_one_array")


class DeployedClassifier(ClassifierMixin, Deployed):
    """A classifier on onnxruntime; see :class:`Deployed`."""

    @property
    def classes_(self) -> np.ndarray:
        """Labels, in the order of the columns of ``predict_proba``."""
        assert self.content.classes is not None
        return self.content.classes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or dict of arrays

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return self._call(X)

    def predict(self, X: Any) -> np.ndarray:
        """Predict class labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or dict of arrays

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self.classes_[winners(self._call(X), self.content.threshold)]


class DeployedRegressor(RegressorMixin, Deployed):
    """A regressor on onnxruntime; see :class:`Deployed`."""

    def predict(self, X: Any) -> np.ndarray:
        """Predict numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or dict of arrays

        Returns
        -------
        predictions : ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        return self._call(X)
