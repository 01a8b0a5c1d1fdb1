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
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.helper import SliceDict
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


@contextlib.contextmanager
def weighted_loss(net: NeuralNet) -> Iterator[None]:
    """Make an initialized net's criterion the weighted mean over rows of :func:`attach_weights`.

    A criterion that sums goes on summing. Rows without weights count as ever.

    Raises
    ------
    ValueError
        If the criterion has no ``reduction`` to switch off, or if the net's loss never called
        the criterion, so that the weights had no effect.
    """
    criterion = net.criterion_
    current: dict[str, Tensor | None] = {}
    if not hasattr(criterion, "reduction"):
        raise ValueError(
            f"sample_weight needs a criterion with a `reduction` attribute, as torch's own have;"
            f" got {type(criterion).__name__}. Give it one that honours reduction='none', or"
            " leave sample_weight out."
        )

    def take_weights(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        kwargs = dict(kwargs)
        current["weight"] = kwargs.pop(_WEIGHT, None)
        return ((kwargs.pop(_X),) if _X in kwargs else args), kwargs

    def weighted_mean(module: nn.Module, args: tuple, losses: Tensor) -> Tensor:
        current["reduced"] = losses
        weight = current["weight"]
        weight = losses.new_ones(len(losses)) if weight is None else weight
        weight = weight.reshape(-1, *[1] * (losses.dim() - 1)).expand_as(losses)
        total = (losses * weight).sum()
        return total if reduction == "sum" else total / _norm(criterion, args[1], weight)

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
    if "weight" in current and "reduced" not in current:
        raise ValueError(
            f"sample_weight has no effect: get_loss of {type(net).__name__} never calls"
            " criterion_. Compute its loss through self.criterion_, or leave sample_weight out."
        )


def mean_divisor(criterion: nn.Module, Xi: Any, yi: Tensor) -> float:
    """Return what the mean loss of a batch is divided by: its rows, by all of their weights."""
    given = isinstance(Xi, Mapping) and _WEIGHT in Xi
    weight = Xi[_WEIGHT] if given else torch.ones(len(yi))
    each = weight.reshape(-1, *[1] * (yi.dim() - 1)).expand(yi.shape)
    return float(_norm(criterion, yi, each))


def _norm(criterion: nn.Module, y: Tensor, weight: Tensor) -> Tensor:
    """Sum what the mean divides by; torch counts a row by the weight of its class, if any."""
    if isinstance(criterion, (nn.NLLLoss, nn.CrossEntropyLoss)) and not y.is_floating_point():
        counts = y != criterion.ignore_index
        weight = weight * counts.to(weight.device)
        if criterion.weight is not None:
            weight = weight * criterion.weight[y * counts].to(weight.device)
    return weight.sum()


class SampleWeights(Callback):
    """Keep :func:`weighted_loss` switched on while a net trains."""

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Switch the weighted loss on."""
        self.context_ = weighted_loss(net)
        self.context_.__enter__()

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Switch it off."""
        self.context_.__exit__(None, None, None)
        del self.context_
