"""Where a net's DataLoader gives way to ArrayBatches: in fits, and to predict in larger chunks."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from skorch import NeuralNet
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.data import DataLoader

from .batches import ArrayBatches

# Rows whose activations fit the cache of a core, for layers that make few numbers of a row, and
# for those that make many.
ROWS_AT_ONCE = 1024
LARGE_ROWS_AT_ONCE = 128
_LARGE = (_ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Embedding)


class _ArraysFirst:
    """Make ArrayBatches where that does the same as a DataLoader, and else a DataLoader.

    Parameters
    ----------
    kind : type
        The kind of ArrayBatches.
    **defaults : dict
        Settings of the DataLoader that the user's take the place of.
    """

    def __init__(self, kind: type[ArrayBatches], **defaults: Any) -> None:
        self.kind = kind
        self.defaults = defaults

    def __call__(self, dataset: Any, **settings: Any) -> ArrayBatches | DataLoader:
        try:
            return self.kind(dataset, **settings)
        except (TypeError, ValueError, RuntimeError):
            return DataLoader(dataset, **self.defaults | settings)

    def __reduce__(self) -> tuple[Any, ...]:
        # A checkpoint or copy of the net that a callback makes shows what the user gave.
        return copy.copy, (DataLoader,)


class _Seedless(ArrayBatches):
    """Batches to predict, which must draw nothing from the user's global generator."""

    def __iter__(self) -> Iterator[list[Any]]:
        return self._batches()


arrays_first = _ArraysFirst(ArrayBatches)


def _replaceable(net: NeuralNet) -> list[str]:
    """Name the net's iterators that are torch's DataLoader, made by skorch's own method."""
    if type(net).get_iterator is not NeuralNet.get_iterator:
        return []
    names = ("iterator_train", "iterator_valid")
    return [name for name in names if getattr(net, name) is DataLoader]


@contextlib.contextmanager
def array_iterators(net: NeuralNet) -> Iterator[None]:
    """Let a net take its batches from arrays inside, where its iterators are torch's own.

    The net's parameters are what they were on the way out.
    """
    names = _replaceable(net)
    for name in names:
        setattr(net, name, arrays_first)
    try:
        yield
    finally:
        for name in names:
            if getattr(net, name) is arrays_first:
                setattr(net, name, DataLoader)


def rows_at_once(net: NeuralNet, X: Any) -> int:
    """Return how many rows a net predicts at once unless ``iterator_valid__batch_size`` says so.

    1,024, where rows are vectors and the module has no convolution, recurrence, attention or
    embedding; 128 otherwise, or fewer if the net is trained on fewer. On other devices than a
    CPU it is the net's ``batch_size``.
    """
    if torch.device(net.device or "cpu").type != "cpu":
        return int(net.batch_size)
    inputs = X.values() if isinstance(X, Mapping) else [X]
    vectors = all(getattr(values, "ndim", 3) <= 2 for values in inputs)
    if vectors and not any(isinstance(m, _LARGE) for m in net.module_.modules()):
        return ROWS_AT_ONCE
    return min(net.batch_size, LARGE_ROWS_AT_ONCE) if net.batch_size > 0 else LARGE_ROWS_AT_ONCE


def for_prediction(net: NeuralNet, X: Any) -> NeuralNet:
    """Return a net to predict `X` with, quickly and without drawing random numbers.

    It is another view of the same net, so that threads may predict at the same time. A net with
    an iterator of its own is returned as it is.
    """
    if "iterator_valid" not in _replaceable(net):
        return net
    view = object.__new__(type(net))
    vars(view).update(vars(net))
    vars(view)["iterator_valid"] = _ArraysFirst(_Seedless, generator=torch.Generator())
    vars(view).setdefault("iterator_valid__batch_size", rows_at_once(net, X))
    return view
