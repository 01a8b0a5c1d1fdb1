"""Check and convert what users pass to `fit` and `predict`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)
from skorch.helper import SliceDataset, SliceDict
from skorch.utils import multi_indexing, to_numpy
from torch import nn

from ._sklearn import check_sample_weight
from .rows import Types, cast, cast_rows

CHECKS = {"dtype": "numeric", "allow_nd": True}


def check_inputs(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Validate `X` as scikit-learn does; dicts are validated value by value.

    Returns
    -------
    X : ndarray of shape (n_samples, ...), SliceDict or SliceDataset

    Raises
    ------
    TypeError
        If `X` is a torch Dataset, whose rows scikit-learn cannot index.
    """
    if isinstance(X, torch.utils.data.Dataset):
        raise TypeError(
            f"X is a torch {type(X).__name__}, which scikit-learn cannot split. Pass"
            " X=SliceDataset(dataset, idx=0) and y=SliceDataset(dataset, idx=1), from"
            " skorch.helper."
        )
    # Some sparse matrices are dicts.
    named = isinstance(X, Mapping) and not issparse(X)
    check_names(estimator, sorted(map(str, X)) if named else None, reset=reset)
    if named:
        return check_dict(X)
    if isinstance(X, SliceDataset):
        return X
    return validate_data(estimator, X, reset=reset, **CHECKS)


def check_names(estimator: Any, names: list[str] | None, *, reset: bool) -> None:
    """Remember the names of the inputs in ``fit``, and refuse others later.

    Raises
    ------
    ValueError
        If a dict has other names than in ``fit``, or stands in the place of an array.
    """
    if reset:
        estimator._input_names = names
        for attribute in ("n_features_in_", "feature_names_in_"):
            # Arrays set them anew; other inputs have none.
            estimator.__dict__.pop(attribute, None)
    elif names != estimator._input_names:
        kinds = [
            "an array or SliceDataset" if n is None else f"a dict of {', '.join(n)}"
            for n in (names, estimator._input_names)
        ]
        raise ValueError(f"X is {kinds[0]}, but in fit it was {kinds[1]}. Pass the same inputs.")


def check_dict(X: Mapping) -> SliceDict:
    """Validate a dict of arrays, each for an argument of the module's ``forward``."""
    if not X:
        raise ValueError("X is an empty dict; it needs an array for each input of the module.")
    values = {
        name: check_array(value, ensure_2d=False, input_name=name, **CHECKS)
        for name, value in X.items()
    }
    check_consistent_length(*values.values())
    return SliceDict(**values)


def check_labels(y: Any) -> np.ndarray:
    """Validate class labels: one column, discrete, of one type.

    Raises
    ------
    ValueError
        For missing, continuous or multilabel targets.
    """
    y = as_target(y)
    assert_all_finite(y, input_name="y")
    if getattr(getattr(y, "dtype", None), "kind", None) == "O":
        check_sortable(np.ravel(y))
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind.startswith("multilabel") or kind.endswith("multioutput"):
        raise ValueError(
            f"Multilabel and multi-output classification is not supported; got y of shape"
            f" {np.shape(y)}. Pass one label per row, or wrap one estimator per column in"
            " sklearn.multioutput.MultiOutputClassifier."
        )
    if kind not in ("binary", "multiclass"):
        check_classification_targets(y)
    return column_or_1d(y, warn=True)


def check_sortable(labels: np.ndarray) -> None:
    """Refuse labels of types that have no order among each other."""
    try:
        np.unique(labels)
    except TypeError as error:
        types = sorted({type(label).__name__ for label in labels})
        raise TypeError(f"Labels must be of one type; y mixes {' and '.join(types)}.") from error


def check_targets(y: Any) -> np.ndarray:
    """Validate regression targets of shape (n_samples,) or (n_samples, n_targets)."""
    y = check_array(
        as_target(y), ensure_2d=False, dtype="numeric", input_name="y", ensure_all_finite=True
    )
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def as_target(y: Any) -> Any:
    """Collect the targets of a SliceDataset or tensor into an array."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    if isinstance(y, SliceDataset):
        return np.stack([np.asarray(as_target(item)) for item in y])
    return to_numpy(y) if isinstance(y, torch.Tensor) else y


def check_weights(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    """Validate sample weights: one per row, finite, non-negative, not all zero."""
    if sample_weight is None:
        return None
    rows = np.empty((n_samples, 1))
    weights = check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; at least one must be positive.")
    return weights


def cast_weights(weights: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Cast positive weights; refuse those that would vanish."""
    converted = cast(weights, dtype, "sample_weight")
    if not converted.all():
        raise ValueError(
            f"sample_weight has values down to {weights.min():g}, which are zero in {dtype}, the"
            " type of the module. Multiply all of them by the same number: only ratios count."
        )
    return converted


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Index rows of an array, SliceDict or SliceDataset."""
    return multi_indexing(X, rows)


def to_dtype(X: Any, module: nn.Module) -> Any:
    """Cast inputs to the types that a module computes with.

    Floats take the module's own type. Integers and booleans of a single array become floats as
    well, unless the module embeds integers. In a dict, integers stay integers, as lengths and
    tokens must, and booleans stay booleans, which are masks. Rows of a SliceDataset are checked
    and cast in the same way.
    """
    types = types_alone(module)
    if isinstance(X, Mapping):
        named = types_named(module)
        return SliceDict(**{n: cast(x, type_of(x, named, n), n) for n, x in X.items()})
    if isinstance(X, SliceDataset):
        return cast_rows(X, types, types_named(module))
    return cast(X, type_of(X, types, "X"), "X")


def type_of(values: np.ndarray, types: Types, name: str) -> np.dtype:
    """Return the type to cast an array to.

    Raises
    ------
    ValueError
        If it holds no numbers.
    """
    if values.dtype.kind not in types:
        raise ValueError(
            f"{name} has dtype {values.dtype}, and a net takes numbers. Encode strings and"
            " categories, and turn times into numbers of a unit, before the net."
        )
    return types[values.dtype.kind]


def row_specs(X: Any) -> list[tuple[str | None, str, list[int]]]:
    """Return name, type and shape of what makes up a row; the name of a single array is None.

    Raises
    ------
    ValueError
        If there is no row.
    """
    if isinstance(X, Mapping):
        return [(name, str(x.dtype), list(x.shape[1:])) for name, x in X.items()]
    if not len(X):
        raise ValueError("X has no rows. Pass a few.")
    row = X[0]
    if isinstance(row, Mapping):
        return [(name, str(_array(x).dtype), list(np.shape(x))) for name, x in row.items()]
    return [(None, str(_array(row).dtype), list(np.shape(row)))]


def _array(item: Any) -> np.ndarray:
    return to_numpy(item) if isinstance(item, torch.Tensor) else np.asarray(item)


def types_alone(module: nn.Module) -> Types:
    """Return the types of a single array, which may hold a table of integers, by kind."""
    floating = float_dtype(module)
    embeds = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in module.modules())
    integer = np.dtype(np.int64) if embeds else floating
    return {"b": floating, "i": integer, "u": integer, "f": floating}


def types_named(module: nn.Module) -> Types:
    """Return the types of the arrays in a dict, each of which has a part of its own, by kind."""
    integer = np.dtype(np.int64)
    return {"b": np.dtype(bool), "i": integer, "u": integer, "f": float_dtype(module)}


def float_dtype(module: nn.Module) -> np.dtype:
    """Return the numpy type of a module's first floating-point parameter, or float32.

    Raises
    ------
    ValueError
        If the module computes in half precision, in which scores and small steps get lost.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():
            name = str(parameter.dtype).removeprefix("torch.")
            if name not in ("float32", "float64"):
                raise ValueError(
                    f"The module {type(module).__name__} has parameters of {name}, and"
                    " compression takes float32 or float64: scores and small steps get lost in"
                    " less. Build the module in float32, and convert the fitted net_.module_."
                )
            return np.dtype(name)
    return np.dtype("float32")
