"""Rows of a torch Dataset: checked once, and cast as they are read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils import assert_all_finite
from skorch.helper import SliceDataset
from skorch.utils import to_numpy

# The type to cast to, by the kind of a numpy type: one of "b", "i", "u" and "f".
Types = dict[str, np.dtype]


def cast(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Convert finite numbers to a type, writable and contiguous; refuse what it cannot hold."""
    if values.dtype != dtype:
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(dtype)
            assert_all_finite(values, input_name=name)
    return np.require(values, requirements=["C", "W"])


def cast_rows(X: SliceDataset, alone: Types, named: Types) -> SliceDataset:
    """Read every row once, before any training; where types differ, cast rows as they are read.

    Parameters
    ----------
    X : SliceDataset
    alone, named : dict of numpy types
        For rows that are arrays, and for the arrays in rows that are dicts.

    Raises
    ------
    ValueError
        If there is no row, or one is not numeric or not finite in its type.
    """
    if not len(X):
        raise ValueError("Found array with 0 sample(s): X is a SliceDataset without rows.")
    same = True
    for i in range(len(X)):
        row = X[i]
        same = (_types(row) == _types(cast_row(row, i, alone, named))) and same
    return X if same else SliceDataset(CastRows(X, alone, named))


def cast_row(row: Any, i: int, alone: Types, named: Types) -> Any:
    """Cast row `i` of a Dataset: an array, a tensor, a number, or a dict of them."""
    if isinstance(row, Mapping):
        return {n: _cast_item(v, named, f"{n} in row {i}") for n, v in row.items()}
    return _cast_item(row, alone, f"row {i}")


class CastRows(torch.utils.data.Dataset):
    """Rows of a SliceDataset in other types; see :func:`cast_rows`."""

    def __init__(self, X: SliceDataset, alone: Types, named: Types) -> None:
        self.X, self.alone, self.named = X, alone, named

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, i: int) -> tuple[Any]:
        return (cast_row(self.X[i], i, self.alone, self.named),)


def _cast_item(item: Any, types: Types, where: str) -> Any:
    values = to_numpy(item) if isinstance(item, torch.Tensor) else np.asarray(item)
    if values.dtype.kind not in types:
        raise ValueError(
            f"Rows of a Dataset must be numbers, in tensors or arrays; {where} of X is a"
            f" {type(item).__name__} of dtype {values.dtype}. Convert it in the Dataset."
        )
    assert_all_finite(values, input_name=f"X, {where},")
    values = cast(values, types[values.dtype.kind], f"X, {where},")
    return torch.as_tensor(values) if isinstance(item, torch.Tensor) else values


def _types(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {name: _types(value) for name, value in item.items()}
    return str(getattr(item, "dtype", type(item))).removeprefix("torch.")
