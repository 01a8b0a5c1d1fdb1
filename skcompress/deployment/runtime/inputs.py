"""Rows for a deployed net: checked as the estimator checks them, and in the graph's types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length

from ...inputs import type_of
from ...rows import cast


@dataclass(frozen=True)
class InputSpec:
    """What a row of an input looks like.

    Parameters
    ----------
    shape : tuple of int
        Of a row.
    dtype : numpy dtype
    may_miss : bool
        Whether NaN may stand for what is missing, which a step before the net replaces.
    n_indices : int or None
        Rows of the table that these integers choose from; None where they choose from none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    may_miss: bool = False
    n_indices: int | None = None


def as_arrays(
    X: Any, inputs: Mapping[str, InputSpec], feature_names: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Check rows, and convert them to what a graph takes.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...), dict of arrays or frame
    inputs : dict of InputSpec
    feature_names : ndarray or None
        Columns of the frame that the estimator was fitted on.

    Raises
    ------
    ValueError, TypeError
        As the estimator would.
    """
    if isinstance(X, Mapping) or (hasattr(X, "columns") and len(inputs) > 1):
        if set(X.keys()) != set(inputs):
            raise ValueError(
                f"X has {sorted(map(str, X.keys()))}, and the inputs of the net are"
                f" {sorted(inputs)}."
            )
        feed = {
            name: _as_array(name, _column(X[name], spec), spec) for name, spec in inputs.items()
        }
        check_consistent_length(*feed.values())
        return feed
    if len(inputs) > 1:
        raise TypeError(
            f"X is a {type(X).__name__}, and the inputs of the net are {sorted(inputs)}. Pass a"
            " dict or frame with these."
        )
    names = list(getattr(X, "columns", ()))
    if names and feature_names is not None and names != list(feature_names):
        raise ValueError(
            f"The feature names should match those that were passed during fit: X has {names},"
            f" and in fit it had {list(feature_names)}."
        )
    return {name: _as_array(name, X, spec) for name, spec in inputs.items()}


def _column(values: Any, spec: InputSpec) -> np.ndarray:
    """Let a column of a frame be one."""
    values = np.asarray(values)
    return values.reshape(-1, 1) if values.ndim == 1 and spec.shape == (1,) else values


def _as_array(name: str, values: Any, spec: InputSpec) -> np.ndarray:
    if spec.dtype.kind == "O":
        return np.asarray(values, dtype=object).reshape(-1, *spec.shape)
    values = check_array(
        values, ensure_2d=False, allow_nd=True, input_name=name,
        ensure_all_finite="allow-nan" if spec.may_miss else True,
    )  # fmt: skip
    type_of(values, dict.fromkeys("biuf", spec.dtype), name)
    if values.shape[1:] != spec.shape:
        raise ValueError(
            f"X has shape {values.shape}, and the net takes {('n_samples', *spec.shape)}. Reshape"
            " your data, or choose the features that it was fitted on."
        )
    if spec.dtype.kind in "iu":
        _check_integers(name, values, spec)
    elif spec.may_miss:
        with np.errstate(over="ignore"):
            return np.require(values, spec.dtype, ["C"])
    return cast(values, spec.dtype, name)


def _check_integers(name: str, values: np.ndarray, spec: InputSpec) -> None:
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        raise ValueError(f"{name} has fractions, and the net was fitted on integers.")
    if spec.n_indices is not None and not (values.min() >= 0 and values.max() < spec.n_indices):
        raise ValueError(
            f"{name} has values from {values.min()} to {values.max()}, and the net knows 0 to"
            f" {spec.n_indices - 1}."
        )
