"""Deployed nets: fitted estimators that predict by onnxruntime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from ...prediction import winners
from ..onnx import ROWS
from .inputs import InputSpec, as_arrays

# Rows of a call of the runtime. What a layer makes of so many stays in the caches, and memory is
# bounded.
MAX_ROWS = 128


@dataclass(frozen=True, eq=False)
class Content:
    """What a deployed net predicts with: plain values, that pickle.

    Parameters
    ----------
    model : bytes
        An ONNX graph with the output ``probabilities``, or a regressor's ``predictions``; and that
        of a Pipeline with the rows that its steps give the net.
    inputs : dict of InputSpec
        What a row of each input looks like.
    classes : ndarray or None
        Labels of a classifier.
    threshold : float or None
        Above which probability the second of two classes is predicted; None: the likeliest is.
    feature_names : ndarray or None
        Columns of a frame.
    max_rows : int
        Rows of a call of the runtime; with one, no row has a part in another's prediction.
    form, report, message : str, DataFrame, str
        What ``deploy`` found out.
    """

    # Kilobytes, that no one wants printed.
    model: bytes = field(repr=False)
    inputs: Mapping[str, InputSpec]
    classes: np.ndarray | None
    threshold: float | None
    feature_names: np.ndarray | None
    max_rows: int = MAX_ROWS
    form: str = ""
    report: pd.DataFrame | None = field(default=None, repr=False)
    message: str = ""


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

    def _start(self) -> Any:
        """Start a session, which can be neither pickled nor copied; return its ``run``."""
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "A deployed net needs the package onnxruntime: pip install 'skcompress[onnx]'"
            ) from error
        if not isinstance(self.n_threads, (int, np.integer)) or self.n_threads < 1:
            raise ValueError(f"n_threads is {self.n_threads!r}; give a whole number, at least 1.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.n_threads, 1
        options.log_severity_level = 4  # what fails is raised, and need not be logged
        session = onnxruntime.InferenceSession(
            self.content.model, options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        self._outputs = [n for n in names if n != ROWS] + [n for n in names if n == ROWS]
        self._name, spec = next(iter(self.content.inputs.items()))
        self._shape, self._dtype = spec.shape, spec.dtype
        # Integers may be indices, whose range is checked.
        self._is_direct = len(self.content.inputs) == 1 and spec.dtype.kind == "f"
        self._run = session.run
        return self._run

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k not in SESSION}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; the next prediction starts anew with them."""
        super().set_params(**params)
        for name in SESSION:
            self.__dict__.pop(name, None)
        return self

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
    def form_(self) -> str:
        """The form that was kept."""
        return self.content.form

    @property
    def report_(self) -> pd.DataFrame | None:
        """What was measured."""
        return self.content.report

    @property
    def message_(self) -> str:
        """What was found out, in words."""
        return self.content.message

    @property
    def n_features_in_(self) -> int:
        """Number of features of an array, or of columns."""
        specs = list(self.content.inputs.values())
        return specs[0].shape[0] if len(specs) == 1 else len(specs)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of the frame that the estimator was fitted on."""
        if self.content.feature_names is None:
            raise AttributeError("The estimator was fitted on rows without names.")
        return self.content.feature_names

    def _call(self, X: Any) -> np.ndarray:
        """Run rows through the graph; an array that needs no conversion goes straight there."""
        try:
            run = self._run
        except AttributeError:
            run = self._start()
        # Anything infinite or missing makes the sum of squares so, and that is one call of BLAS, by
        # vdot without a warning where it overflows; large finite values make it infinite, too, and
        # are looked at one by one.
        if (
            self._is_direct
            and type(X) is np.ndarray
            and X.dtype == self._dtype
            and X.shape[1:] == self._shape
            and X.size
            and isfinite(np.vdot(X, X))
        ):
            feed = {self._name: X}
            if len(X) <= self.content.max_rows:
                return _predictions(run(self._outputs, feed))
            return self._in_parts(feed)
        return self._in_parts(as_arrays(X, self.content.inputs, self.content.feature_names))

    def _in_parts(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        run = getattr(self, "_run", None) or self._start()
        n_rows, step = len(next(iter(feed.values()))), self.content.max_rows
        parts = []
        for start in range(0, n_rows, step):
            rows = {name: values[start : start + step] for name, values in feed.items()}
            try:
                found = run(self._outputs, rows)
            except Exception as error:  # onnxruntime has classes of its own for each failure
                raise ValueError(f"The graph does not take these rows: {error}") from error
            parts.append(_predictions(found))
        return np.concatenate(parts)


def _predictions(outputs: list[np.ndarray]) -> np.ndarray:
    """Return a graph's predictions; integers would show nothing of what is not finite."""
    for rows in outputs[1:]:
        if not isfinite(np.vdot(rows, rows)) and not np.isfinite(rows).all():
            raise ValueError(
                "Input X contains NaN that no step before the net replaces, or a value too large"
                f" for {rows.dtype} after them."
            )
    return outputs[0]


# What a session is, which starts anew in another process.
SESSION = ("_run", "_outputs", "_name", "_shape", "_dtype", "_is_direct")


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
