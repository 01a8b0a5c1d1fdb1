"""Sample weights for a skorch net, which has none of its own.

The weights travel with the rows, as one more input of the module, so that any iterator,
shuffling or internal split keeps them aligned. A hook takes them out again before the module
sees them, and another turns the unreduced loss into the weighted mean. Any skorch subclass
that calls ``self.criterion_`` in ``get_loss`` is served.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.helper import SliceDict
from skorch.dataset import get_len
from torch import Tensor, nn

_X = "skcompress_X"
_WEIGHT = "skcompress_sample_weight"


def attach_weights(X: Any, sample_weight: np.ndarray | None) -> Any:
    """Put the weights beside the rows; without weights, return `X` itself.

    Parameters
    ----------
    X : array of shape (n_samples, ...), dict of arrays or Dataset
        What the module takes.
    sample_weight : ndarray of shape (n_samples,) or None
        Positive weights, in the module's floating type.

    Returns
    -------
    X or SliceDict
        Inputs for a net inside :func:`weighted_loss`.
    """
    if sample_weight is None:
        return X
    inputs = dict(X) if isinstance(X, Mapping) else {_X: X}
    return SliceDict(**inputs, **{_WEIGHT: sample_weight})


def batch_weight(Xi: Any) -> float:
    """Sum of the sample weights in a batch, or its number of rows."""
    if isinstance(Xi, Mapping) and _WEIGHT in Xi:
        return float(Xi[_WEIGHT].sum())
    return float(get_len(Xi))


@contextlib.contextmanager
def weighted_loss(net: NeuralNet) -> Iterator[None]:
    """Make an initialized net's criterion the weighted mean over rows of :func:`attach_weights`.

    Raises
    ------
    ValueError
        If the criterion has no ``reduction`` to switch off.
    """
    criterion, current = net.criterion_, {}
    if not hasattr(criterion, "reduction"):
        raise ValueError(
            f"sample_weight needs a criterion with a `reduction` attribute, as torch's own have;"
            f" got {type(criterion).__name__}. Give it one that honours reduction='none', or"
            " leave sample_weight out."
        )

    def take_weights(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if _WEIGHT not in kwargs:
            return None
        kwargs = dict(kwargs)
        current["weight"] = kwargs.pop(_WEIGHT)
        return ((kwargs.pop(_X),) if _X in kwargs else args), kwargs

    def weighted_mean(module: nn.Module, args: tuple, losses: Tensor) -> Tensor:
        weight = current["weight"].reshape(-1, *[1] * (losses.dim() - 1)).expand_as(losses)
        return (losses * weight).sum() / weight.sum()

    handles = [
        net.module_.register_forward_pre_hook(take_weights, with_kwargs=True),
        criterion.register_forward_hook(weighted_mean),
    ]
    reduction, criterion.reduction = criterion.reduction, "none"
    try:
        yield
    finally:
        criterion.reduction = reduction
        for handle in handles:
            handle.remove()


class SampleWeights(Callback):
    """Keep :func:`weighted_loss` switched on while a net trains."""

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.context_ = weighted_loss(net)
        self.context_.__enter__()

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.context_.__exit__(None, None, None)
        del self.context_
