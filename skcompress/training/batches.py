"""Batches of arrays in memory, the same as a DataLoader's and several times faster.

A DataLoader asks for one row at a time and puts the rows together again. Rows of an array can be
taken by the batch, with the same numbers, order and draws from torch's generators.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
import torch
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

_DEFAULTS = {name: p.default for name, p in inspect.signature(DataLoader).parameters.items()}


class ArrayBatches:
    """Iterate over arrays in batches, bit for bit as torch's DataLoader does.

    For ``iterator_train`` and ``iterator_valid`` of a skorch net. Estimators of this library use
    it by themselves wherever a net has torch's DataLoader and it can do the same.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset, or torch Subset of one
        Holds arrays or tensors, or dicts of them, for `X` and `y`; `y` may be None.
    batch_size : int >= 1, default=1
        Rows of a batch.
    shuffle : bool, default=False
        Take the rows in a new random order each time. As with a DataLoader, a number is drawn
        from torch's global generator each time also without shuffling.
    drop_last : bool, default=False
        Leave out a last batch that is smaller than the others.
    **settings : dict
        Other parameters of a DataLoader, at their default values.

    Raises
    ------
    TypeError
        If the dataset is not skorch's own over arrays, or a parameter is not known.
    ValueError
        If `batch_size` is out of range, another parameter is not at its default, or the arrays
        differ in length.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from skcompress.training import ArrayBatches
    >>> rows = Dataset(np.arange(10).reshape(5, 2), np.arange(5))
    >>> for Xi, yi in ArrayBatches(rows, batch_size=2, drop_last=True):
    ...     print(Xi.tolist(), yi.tolist())
    [[0, 1], [2, 3]] [0, 1]
    [[4, 5], [6, 7]] [2, 3]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool | None = False,
        drop_last: bool = False,
        **settings: Any,
    ) -> None:
        _check_settings(batch_size, settings)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = bool(shuffle)
        self.drop_last = drop_last
        self._rows, whole = _unwrap(dataset)
        self._columns = _columns(whole)

    def __len__(self) -> int:
        """Return the number of batches."""
        n_rows = len(self.dataset)
        return n_rows // self.batch_size if self.drop_last else -(-n_rows // self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        """Iterate over lists of two: inputs and targets of a batch."""
        # A DataLoader draws a seed for its workers at this point, even without workers.
        _draw_seed()
        return self._batches()

    def _batches(self) -> Iterator[list[Any]]:
        order, size = self._order(), self.batch_size
        parts: Iterable[slice | Tensor]
        if order is None:
            parts = (slice(start, start + size) for start in range(0, len(self.dataset), size))
        else:
            parts = order.split(size)
        for rows in islice(parts, len(self)):
            yield [_take(column, rows) for column in self._columns]

    def _order(self) -> Tensor | None:
        """Return the rows in the order of one pass; None means all of them as they are."""
        if not self.shuffle:
            return self._rows
        # As torch's RandomSampler: a generator of its own, seeded from the global one.
        generator = torch.Generator()
        generator.manual_seed(_draw_seed())
        order = torch.randperm(len(self.dataset), generator=generator)
        return order if self._rows is None else self._rows[order]


def _draw_seed() -> int:
    return int(torch.empty((), dtype=torch.int64).random_().item())


def _check_settings(batch_size: Any, settings: dict[str, Any]) -> None:
    if not isinstance(batch_size, Integral) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1; got {batch_size!r}.")
    for name, value in settings.items():
        if name not in _DEFAULTS:
            raise TypeError(f"ArrayBatches has no parameter {name!r}, and neither has DataLoader.")
        if value is not _DEFAULTS[name] and value != _DEFAULTS[name]:
            raise ValueError(
                f"ArrayBatches does not support {name}={value!r}. Leave it out, or use torch's"
                " DataLoader as the net's iterator."
            )


def _unwrap(dataset: Any) -> tuple[Tensor | None, Dataset]:
    """Resolve nested Subsets into the rows of the whole dataset; None means all of them."""
    subsets = []
    while type(dataset) is Subset:
        subsets.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not Dataset:
        raise TypeError(
            "ArrayBatches takes skorch's own Dataset or a torch Subset of one; got"
            f" {type(dataset).__name__}. Use torch's DataLoader as the net's iterator."
        )
    if not subsets:
        return None, dataset
    rows = np.arange(len(dataset))
    for indices in reversed(subsets):
        rows = rows[np.asarray(indices, dtype=np.int64)]
    return torch.from_numpy(rows), dataset


def _columns(dataset: Dataset) -> list[Any]:
    """Return the dataset's X and y as tensors of all rows, of the types that batches have."""
    data = [dataset.X, dataset.y]
    if dataset.y is None:
        # What skorch gives in its place.
        data[1] = torch.zeros(len(dataset), 1)
    for column in data:
        for values in column.values() if isinstance(column, Mapping) else [column]:
            if not isinstance(values, (np.ndarray, Tensor)):
                raise TypeError(
                    "ArrayBatches takes arrays, tensors and dicts of them; got"
                    f" {type(values).__name__}. Convert them, or use torch's DataLoader as the"
                    " net's iterator."
                )
            if len(values) != len(dataset):
                raise ValueError(
                    f"The dataset has {len(dataset)} rows, but one of its arrays has {len(values)}."
                )
    if not len(dataset):
        raise ValueError("ArrayBatches needs at least one row; the dataset is empty.")
    # A batch of one row shows types, and is an error where there is no tensor of such values.
    example = default_collate([dataset[0]])
    return [_tensors(*pair) for pair in zip(data, example, strict=True)]


def _tensors(values: Any, example: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _tensors(column, example[name]) for name, column in values.items()}
    if not isinstance(example, Tensor):
        raise TypeError(f"ArrayBatches takes numbers; got {values.dtype}.")
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)
    return torch.as_tensor(values, dtype=example.dtype).contiguous()


def _take(column: Any, rows: slice | Tensor) -> Any:
    """Copy rows: a module that works in place must not write into the user's arrays."""
    if isinstance(column, dict):
        return {name: _take(values, rows) for name, values in column.items()}
    if isinstance(rows, slice):
        # A fresh tensor also starts at an address that suits vector instructions, as a
        # DataLoader's does; results may depend on that.
        return column[rows].clone(memory_format=torch.contiguous_format)
    rows = rows if rows.device == column.device else rows.to(column.device)
    return column.index_select(0, rows)
