"""The only place that trains: the dense fit, the compression phase, and losses to score by."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import get_len, unpack_data
from skorch.utils import multi_indexing
from torch import Tensor

from . import progress
from .finite import check_retrained
from .isolation import interruptible
from .iterators import array_iterators
from .progress import net_epochs
from .shapes import set_shapes, without_shape_setters
from .soft import SoftTargets
from .steps import fit_steps, steps
from .weights import SampleWeights, attach_weights, loss_reduction, mean_divisor, weighted_loss

Rate = Callable[[float], float]


@dataclass(frozen=True)
class Data:
    """What a stage may see: the rows given to ``fit``, in the form that the net takes.

    Parameters
    ----------
    X : array of shape (n_samples, ...), dict of arrays or Dataset
        Inputs, in the module's floating type.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Encoded targets.
    sample_weight : ndarray of shape (n_samples,) or None
        Positive weights of the rows, in the module's floating type.
    soft : SoftTargets or None
        What a teacher says of the rows, in the module's floating type.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None
    soft: SoftTargets | None = None

    @property
    def inputs(self) -> Any:
        """`X` for the net, with weights and soft targets attached where there are any."""
        return attach_weights(self.X, self.sample_weight, self.soft)

    @property
    def plain(self) -> bool:
        """Whether the net's own loss is all there is to the rows."""
        return self.sample_weight is None and self.soft is None

    def take(self, rows: np.ndarray) -> "Data":
        """Keep some rows, with all that belongs to them."""
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        soft = None if self.soft is None else self.soft.take(rows)
        return Data(multi_indexing(self.X, rows), self.y[rows], weights, soft)


def evenly_spaced(data: Data, n_rows: int) -> Data:
    """Keep at most `n_rows` rows, spread over all of them."""
    n_samples = get_len(data.X)
    if n_samples <= n_rows:
        return data
    return data.take(np.linspace(0, n_samples - 1, n_rows).astype(np.int64))


def dense_fit(net: NeuralNet, data: Data) -> NeuralNet:
    """Fit a skorch net in place by its own ``fit``, with weights and a teacher if there are any.

    Batches come from the arrays where a DataLoader would give the same ones, and steps where only
    skorch's own code sees them are shortened, with the same bits.
    """
    set_shapes(net, data.X, data.y)
    if data.plain:
        with array_iterators(net), fit_steps(net), net_epochs(net), interruptible():
            return net.fit(data.X, data.y)
    if net.callbacks == "disable":
        for name, _ in net.get_default_callbacks():
            setattr(net, f"callbacks__{name}", None)
    # The shapes are set, and a shape setter would not find them in weighted inputs.
    net.callbacks = [*without_shape_setters(net), ("skcompress_weights", SampleWeights(data.soft))]
    with array_iterators(net), fit_steps(net), net_epochs(net), interruptible():
        return net.fit(data.inputs, data.y)


def cosine(progress: float) -> float:
    """Learning rate as a fraction of the first one: cosine annealing to zero.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * progress))


def retrain(
    net: NeuralNet,
    data: Data,
    *,
    epochs: int,
    lr: float | None,
    rate: Rate = cosine,
    after_step: Callable[[float], None],
    verbose: int = 0,
) -> None:
    """Train an initialized net in place with a fresh optimizer.

    A subclass's loss and step are kept, and callbacks hear ``on_grad_computed`` (gradient
    clipping) and nothing else. Steps that are skorch's own are shortened, with the same bits.

    Parameters
    ----------
    epochs : int
        Passes over `data`, at least 1.
    lr : float or None
        First learning rate; None takes the optimizer's own. Parameter groups keep their ratios.
    rate : callable
        Factor on the learning rate as a function of the progress through the phase, in [0, 1).
    after_step : callable
        Called after each optimizer step with the progress made, in (0, 1]; it projects weights.

    Raises
    ------
    ValueError
        If the net's iterator drops all the rows, so that there would be no step, or if the loss
        or the weights are not finite after an epoch.
    """
    net.initialize_optimizer()
    optimizers = [getattr(net, name + "_") for name in net._optimizers]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    # Groups of their own come first, so the rate of groups[0] may not be the net's.
    scale = 1.0 if lr is None else lr / optimizers[0].defaults["lr"]
    first_rates = [group["lr"] * scale for group in groups]
    iterator = training_batches(net, data)
    n_steps, step = epochs * len(iterator), 0
    if not n_steps:
        raise ValueError(
            f"The net's training iterator makes no batch of {get_len(data.X)} rows. Set a smaller"
            " batch_size, or leave iterator_train__drop_last out."
        )
    with (
        maybe_weighted(net, data),
        steps(net) as make_step,
        progress.epochs("retraining", epochs) as done,
    ):
        for epoch in range(epochs):
            losses = []
            for batch in iterator:
                for group, first in zip(groups, first_rates, strict=True):
                    group["lr"] = first * rate(step / n_steps)
                losses.append(make_step(batch)["loss"].detach())
                step += 1
                after_step(step / n_steps)
            check_retrained(net, losses, f"epoch {epoch + 1} of {epochs}")
            done()
            if verbose:
                loss = torch.stack(losses).mean().item()
                print(f"compression epoch {epoch + 1}/{epochs}: training loss {loss:.4f}")


def training_batches(net: NeuralNet, data: Data) -> Any:
    """Return the net's training iterator over rows; its length is the steps of an epoch."""
    with array_iterators(net):
        return net.get_iterator(net.get_dataset(data.inputs, data.y), training=True)


def maybe_weighted(net: NeuralNet, data: Data) -> contextlib.AbstractContextManager[None]:
    """Weigh the loss and add the teacher's, if `data` has sample weights or soft targets."""
    return contextlib.nullcontext() if data.plain else weighted_loss(net, data.soft)


def batches(net: NeuralNet, data: Data, batch_size: int | None = None) -> Iterator[Any]:
    """Iterate over rows in order, by the net's validation iterator."""
    settings = net.get_params_for("iterator_valid")
    settings.setdefault("batch_size", net.batch_size)
    if batch_size is not None:
        settings["batch_size"] = batch_size
    if settings["batch_size"] == -1:
        settings["batch_size"] = get_len(data.X)
    with array_iterators(net):
        return iter(net.iterator_valid(net.get_dataset(data.inputs, data.y), **settings))


def batch_losses(
    net: NeuralNet, data: Data, batch_size: int | None = None
) -> Iterator[tuple[Tensor, float]]:
    """Yield each batch's mean loss, in evaluation mode, and what it was divided by.

    Weighted with that, the means of batches of any size give the mean over all rows, which may
    have sample weights and weights of their classes. A criterion that sums is averaged, too. The
    module stays in evaluation mode while the caller differentiates, so dropout and batch
    statistics play no part in a score.
    """
    sums = loss_reduction(net.criterion_) == "sum"
    # cuDNN's recurrent layers differentiate in training mode only.
    with maybe_weighted(net, data), torch.backends.cudnn.flags(enabled=False):
        for batch in batches(net, data, batch_size):
            Xi, yi = unpack_data(batch)
            net._set_training(False)
            loss = net.get_loss(net.infer(Xi), yi, X=Xi, training=False)
            divisor = mean_divisor(net.criterion_, Xi, yi)
            # Rows of classes without weight have no mean loss, and no part in one.
            if divisor:
                yield loss / divisor if sums else loss, divisor
