"""Rows that only the teacher labels: unlabelled ones of the user's, and synthetic ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from skorch.dataset import get_len
from skorch.helper import SliceDataset, SliceDict

from ..inputs import check_inputs
from ..rows import cast
from ..training.loop import Data
from ..training.soft import SoftTargets


def check_unlabeled(estimator: Any, X: Any, X_unlabeled: Any) -> Any:
    """Validate unlabelled rows; a frame stays one, for the teacher.

    Raises
    ------
    ValueError
        If they are not of the form of the rows in `X`.
    """
    if X_unlabeled is None:
        return None
    same_kind = isinstance(X, Mapping) == isinstance(X_unlabeled, Mapping)
    checked = check_inputs(estimator, X_unlabeled, reset=False) if same_kind else X_unlabeled
    first, second = _form(X), _form(checked)
    if first != second or isinstance(checked, SliceDataset):
        raise ValueError(
            f"X_unlabeled must be of the form of X, an array or a dict of arrays; X is {first},"
            f" X_unlabeled is {second}."
        )
    return X_unlabeled if hasattr(X_unlabeled, "iloc") else checked


def check_table(X: Any) -> None:
    """Refuse to make synthetic rows of anything but a table of numbers."""
    if len(getattr(X, "shape", ())) != 2 or isinstance(X, SliceDataset) or len(X) < 2:
        raise ValueError(
            f"augment= makes rows of a table, an array or pandas DataFrame with two dimensions"
            f" and at least two rows; X is {_form(X)}. Leave augment=0, or pass rows of your own"
            " as X_unlabeled."
        )


def _form(X: Any) -> str:
    if isinstance(X, Mapping):
        return ", ".join(f"{name}: {_form(value)}" for name, value in sorted(X.items()))
    if isinstance(X, SliceDataset):
        return "a SliceDataset"
    return f"rows of shape {np.shape(X)[1:]}"


def add_rows(data: Data, X: Any, values: np.ndarray, weights: np.ndarray) -> Data:
    """Append rows whose loss is the teacher's alone.

    Their label, which nothing but a callable criterion or an epoch's accuracy looks at, is the
    teacher's.

    Parameters
    ----------
    data : Data
        With soft targets.
    X : array or dict of arrays
    values : ndarray of shape (n_rows, n_classes) or (n_rows, ...)
        What the teacher says of them.
    weights : ndarray of shape (n_rows,)
        Sample weights, for the case that the others have some.
    """
    soft = data.soft
    assert soft is not None
    assert isinstance(soft.alpha, np.ndarray)
    labels = values if soft.kind == "values" else values.argmax(1)
    y = np.concatenate([data.y, labels.reshape(-1, *data.y.shape[1:]).astype(data.y.dtype)])
    own = data.sample_weight
    joint = None if own is None else np.concatenate([own, weights.astype(own.dtype)])
    values = np.concatenate([soft.values, values.reshape(-1, *soft.values.shape[1:])])
    alpha = np.concatenate([soft.alpha, np.ones(len(labels))])
    return replace(
        data,
        X=_append(data.X, X),
        y=y,
        sample_weight=joint,
        soft=SoftTargets(values, alpha, soft.temperature, soft.kind),
    )


def _append(X: Any, more: Any) -> Any:
    """Append rows to those of the student, in the student's types."""
    if isinstance(X, Mapping):
        return SliceDict(**{name: _append(X[name], more[name]) for name in X})
    more = cast(np.asarray(more), X.dtype, "X_unlabeled")
    return np.concatenate([X, more.reshape(get_len(more), *X.shape[1:])])
