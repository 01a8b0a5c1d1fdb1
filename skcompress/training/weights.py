"""Sample weights and soft targets for a skorch net, which has neither of its own.

They travel with the rows, as more inputs of the module, so that any iterator, shuffling or
internal split keeps them aligned. A hook takes them out again before the module sees them, and
another turns the unreduced loss into the weighted mean, with the soft part where there is one.
Any skorch subclass that calls ``self.criterion_`` in ``get_loss`` is served.
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

from .soft import ALPHA, HINT, TARGET, SoftTargets, similarity_loss

_OURS = "skcompress_"
_X = _OURS + "X"
_WEIGHT = _OURS + "sample_weight"


def attach_weights(
    X: Any, sample_weight: np.ndarray | None, soft: SoftTargets | None = None
) -> Any:
    """Put weights and soft targets beside the rows; with neither, return `X` itself.

    Parameters
    ----------
    X : array of shape (n_samples, ...), dict of arrays or Dataset
        What the module takes.
    sample_weight : ndarray of shape (n_samples,) or None
        Positive weights, in the module's floating type.
    soft : SoftTargets or None, default=None
        In the module's floating type.

    Returns
    -------
    X or SliceDict
        Inputs for a net inside :func:`weighted_loss`.
    """
    if sample_weight is None and soft is None:
        return X
    inputs = dict(X) if isinstance(X, Mapping) else {_X: X}
    beside = {} if sample_weight is None else {_WEIGHT: sample_weight}
    return SliceDict(**inputs, **beside, **({} if soft is None else soft.columns()))


@contextlib.contextmanager
def weighted_loss(net: NeuralNet, soft: SoftTargets | None = None) -> Iterator[None]:
    """Make an initialized net's criterion the weighted mean over rows of :func:`attach_weights`.

    A criterion that sums goes on summing. Rows without weights count as ever, and rows without
    soft targets, such as those of a validation set of the user's own, have their hard loss alone.

    Parameters
    ----------
    soft : SoftTargets or None, default=None
        How the soft targets that travel with the rows are compared; None where none do.

    Raises
    ------
    ValueError
        If the criterion has no ``reduction`` to switch off, or if the net's loss never called
        the criterion, so that weights and targets had no effect.
    """
    criterion, rows = net.criterion_, _RowLosses(soft)
    if _active(criterion) is not None:
        # Weights are scored while the net retrains: the hooks are there already.
        yield
        return
    if not hasattr(criterion, "reduction"):
        raise ValueError(
            f"{rows.what} needs a criterion with a `reduction` attribute, as torch's own have;"
            f" got {type(criterion).__name__}. Give it one that honours reduction='none', or"
            f" {rows.without}."
        )
    layers = [] if soft is None else list(soft.hints)
    handles = [
        net.module_.register_forward_pre_hook(rows.take_columns, with_kwargs=True),
        criterion.register_forward_hook(rows.reduce),
        *(net.module_.get_submodule(n).register_forward_hook(rows.remember(n)) for n in layers),
    ]
    rows.reduction, criterion.reduction = criterion.reduction, "none"
    try:
        yield
    finally:
        criterion.reduction = rows.reduction
        for handle in handles:
            handle.remove()
    if rows.entered and not rows.reduced:
        raise ValueError(
            f"{rows.what} has no effect: get_loss of {type(net).__name__} never calls"
            f" criterion_. Compute its loss through self.criterion_, or {rows.without}."
        )


def loss_reduction(criterion: nn.Module) -> str:
    """Return how a criterion joins the losses of rows, also inside :func:`weighted_loss`."""
    active = _active(criterion)
    return getattr(criterion, "reduction", "mean") if active is None else active.reduction


def _active(criterion: nn.Module) -> "_RowLosses | None":
    owners = (getattr(hook, "__self__", None) for hook in criterion._forward_hooks.values())
    return next((owner for owner in owners if isinstance(owner, _RowLosses)), None)


class _RowLosses:
    """What the hooks of :func:`weighted_loss` hand each other: the columns of the batch."""

    def __init__(self, soft: SoftTargets | None) -> None:
        self.soft = soft
        self.columns: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.reduction = "mean"
        self.entered = self.reduced = False
        taught = soft is not None
        self.what = "The teacher" if taught else "sample_weight"
        self.without = "train it without a teacher" if taught else "leave sample_weight out"

    def take_columns(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Take out what travels with the rows, before the module sees them."""
        self.entered = True
        self.columns = {name: v for name, v in kwargs.items() if name.startswith(_OURS)}
        left = {name: value for name, value in kwargs.items() if name not in self.columns}
        return ((self.columns.pop(_X),) if _X in self.columns else args), left

    def remember(self, layer: str) -> Any:
        """Return a hook that keeps the output of a layer; of several passes, the last."""

        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            self.outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def reduce(self, criterion: nn.Module, args: tuple, losses: Tensor) -> Tensor:
        """Average or sum what the criterion gives for each row."""
        self.reduced = True
        weight = self.columns.get(_WEIGHT)
        weight = losses.new_ones(len(losses)) if weight is None else weight
        if self.soft is not None and TARGET in self.columns:
            return self._mixed(criterion, args, losses, weight)
        weight = _beside(weight, losses)
        total = (losses * weight).sum()
        if self.reduction == "sum":
            return total
        return total / _norm(criterion, args[1], weight)

    def _mixed(self, criterion: nn.Module, args: tuple, losses: Tensor, weight: Tensor) -> Tensor:
        """Mix hard and soft losses by alpha, row by row."""
        assert self.soft is not None
        soft = self.soft.losses(criterion, args[0], self.columns[TARGET])
        alpha = self.columns[ALPHA].to(losses.dtype)
        for_hard = _beside(weight * (1 - alpha), losses)
        for_soft = _beside(weight * alpha, soft)
        hard_total, soft_total = (losses * for_hard).sum(), (soft * for_soft).sum()
        hints = self._hints(weight)
        if self.reduction == "sum":
            return hard_total + soft_total + weight.sum() * hints
        # Each part is a mean of its own, so that weights of classes change no proportions.
        # No row may have a hard loss: zero divided by something is zero.
        norm = _norm(criterion, args[1], for_hard).clamp_min(torch.finfo(losses.dtype).tiny)
        hard = hard_total * (for_hard.sum() / norm) / _beside(weight, losses).sum()
        return hard + soft_total / _beside(weight, soft).sum() + hints

    def _hints(self, weight: Tensor) -> Tensor:
        assert self.soft is not None
        total = weight.new_zeros(())
        for layer in self.soft.hints:
            own = self.outputs[layer]
            taught = self.columns[HINT + layer].to(own.dtype)
            total = total + similarity_loss(own, taught, weight)
        return self.soft.hint_weight * total


def _beside(weight: Tensor, losses: Tensor) -> Tensor:
    """Repeat a weight for each of the losses that a row has."""
    return weight.reshape(-1, *[1] * (losses.dim() - 1)).expand_as(losses)


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

    def __init__(self, soft: SoftTargets | None = None) -> None:
        self.soft = soft

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Switch the weighted loss on."""
        self.context_ = weighted_loss(net, self.soft)
        self.context_.__enter__()

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Switch it off."""
        self.context_.__exit__(None, None, None)
        del self.context_
        # A copy of the net's callbacks need not copy all the targets.
        self.soft = None
