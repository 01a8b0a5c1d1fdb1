"""What happens to the weights that stay: learning rates, rewinding, starting anew."""

from typing import Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from sklearn.base import clone

from ..training.loop import Rate, cosine
from ..training.nets import is_frozen
from ..training.shapes import listed_callbacks


def learning_rate(recovery: str, estimator: Any, epochs: int) -> Rate:
    """Return the course of the learning rate over the compression phase.

    Raises
    ------
    ValueError
        If ``"rewind"`` finds that the dense fit's rate was constant.
    """
    if recovery != "rewind":
        return cosine
    dense = estimator
    while not isinstance(dense, NeuralNet):
        dense = dense.estimator if is_frozen(dense) else dense.estimator_
    rates = recorded_rates(dense)
    if len({rate for epoch in rates for rate in epoch}) < 2:
        raise ValueError(CONSTANT_RATE)
    first = dense.get_params().get("optimizer__lr", dense.lr)
    last = np.concatenate(rates[-epochs:]) / first
    return lambda progress: float(last[int(progress * len(last))])


CONSTANT_RATE = (
    "recovery='rewind' replays the learning-rate schedule of the dense fit, and the net has a"
    " constant rate. Give the net an LRScheduler callback, or use recovery='fine-tune'."
)


def recorded_rates(net: NeuralNet) -> list[list[float]]:
    """Return the learning rates that skorch's LRScheduler noted, epoch by epoch."""
    epochs = []
    for epoch in getattr(net, "history_", []):
        if "event_lr" in epoch:
            epochs.append([epoch["event_lr"]])
        else:
            batches = epoch.get("batches", [])
            epochs.append([batch["event_lr"] for batch in batches if "event_lr" in batch])
    return [rates for rates in epochs if rates]


def has_schedule(estimator: Any, net: NeuralNet) -> bool:
    """Tell whether the dense fit follows a schedule, as far as is known before it."""
    if is_frozen(estimator):
        return len({rate for epoch in recorded_rates(net) for rate in epoch}) > 1
    callbacks = [item[1] if isinstance(item, tuple) else item for item in listed_callbacks(net)]
    return any(cb is LRScheduler or isinstance(cb, LRScheduler) for cb in callbacks)


def initial_net(net: NeuralNet) -> NeuralNet:
    """Build a net of the same parameters with new initial weights."""
    return clone(net).set_params(verbose=0).initialize()
