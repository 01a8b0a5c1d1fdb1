"""What happens to the weights that stay: learning rates, rewinding, starting anew."""

from typing import Any

import numpy as np
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch import nn, optim

from ..inputs import take_rows
from ..training.loop import Rate, cosine
from ..training.nets import dense_net, is_frozen
from ..training.shapes import listed_callbacks

DEFAULT_EPOCHS = 10
# First rate of fine-tuning relative to the optimizer's own, where steps do not grow with the
# gradient: with a lower one, a very sparse net does not recover in a few epochs. Elsewhere the
# optimizer's own rate is often close to the largest one that is stable. Measured in
# docs/benchmarks/retrain_rate.md.
FINE_TUNE_RATE = 5.0
# Optimizers that divide by the size of the gradient.
NORMALIZING = (
    optim.Adadelta,
    optim.Adafactor,
    optim.Adagrad,
    optim.Adam,
    optim.Adamax,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
)


def fine_tune_rate(net: NeuralNet) -> float:
    """Return the default first rate of fine-tuning, relative to that of a net's optimizer."""
    optimizers = [getattr(net, name + "_") for name in net._optimizers]
    return FINE_TUNE_RATE if all(isinstance(o, NORMALIZING) for o in optimizers) else 1.0


def n_epochs(given: int | None, recovery: str, net: NeuralNet) -> int:
    """Return how long to retrain: as was asked for, or as suits the kind of recovery."""
    if given is not None:
        return given
    return net.max_epochs if recovery == "scratch" else DEFAULT_EPOCHS


def learning_rate(
    recovery: str, lr: float | None, estimator: Any, epochs: int, default: float = 1.0
) -> Rate:
    """Return the course of the learning rate over the compression phase.

    Parameters
    ----------
    recovery : str
    lr : float or None
        The first rate, if it is given.
    estimator : estimator
        Fitted; its rates are replayed by ``"rewind"``.
    epochs : int
    default : float
        First rate of ``"fine-tune"``, relative to the optimizer's own, if it is not given.

    Raises
    ------
    ValueError
        If ``"rewind"`` finds that the dense fit's rate was constant.
    """
    if recovery == "fine-tune" and lr is None:
        return lambda progress: default * cosine(progress)
    if recovery != "rewind":
        return cosine
    net = dense_net(estimator)
    rates = recorded_rates(net)
    if len({rate for epoch in rates for rate in epoch}) < 2:
        raise ValueError(CONSTANT_RATE)
    last = np.concatenate(rates[-epochs:]) / _first_rate(net)
    # The progress is a quotient of integers: rounding must not fall back into the last epoch.
    return lambda progress: float(last[int(progress * len(last) + 1e-6)])


def _first_rate(net: NeuralNet) -> float:
    """Return the unscheduled rate of the parameter group whose rates are recorded, the first."""
    params = net.get_params()
    groups = params.get("optimizer__param_groups") or [("*", {})]
    return groups[0][1].get("lr", params.get("optimizer__lr", net.lr))


CONSTANT_RATE = (
    "recovery='rewind' replays the learning-rate schedule of the dense fit, and the net has a"
    " constant rate. Give the net an LRScheduler callback, or use recovery='fine-tune'."
)


def recorded_rates(net: NeuralNet) -> list[list[float]]:
    """Return the learning rates that skorch's LRScheduler noted, epoch by epoch."""
    epochs = []
    for epoch in getattr(net, "history_", None) or []:
        if "event_lr" in epoch:
            epochs.append([epoch["event_lr"]])
        else:
            batches = epoch.get("batches", [])
            epochs.append([batch["event_lr"] for batch in batches if "event_lr" in batch])
    return [rates for rates in epochs if rates]


def has_schedule(estimator: Any, net: NeuralNet) -> bool:
    """Tell whether the dense fit follows a schedule, as far as is known before it."""
    if is_frozen(estimator):
        rates = recorded_rates(dense_net(estimator))
        return len({rate for epoch in rates for rate in epoch}) > 1
    callbacks = [item[1] if isinstance(item, tuple) else item for item in listed_callbacks(net)]
    return any(cb is LRScheduler or isinstance(cb, LRScheduler) for cb in callbacks)


def start_anew(net: NeuralNet, X: Any) -> None:
    """Give a net new initial weights in place, but for frozen ones, which were never trained.

    Parameters
    ----------
    net : skorch.NeuralNet
    X : array, SliceDict or SliceDataset
        Rows to show to the new module, whose lazy layers have no weights before.
    """
    fresh = clone(net).set_params(verbose=0).initialize()
    if any(nn.parameter.is_lazy(p) for p in fresh.module_.parameters()):
        fresh.forward(take_rows(X, np.arange(1)))
    named = net.module_.named_parameters(remove_duplicate=False)
    frozen = {name: p.detach() for name, p in named if not p.requires_grad}
    net.module_.load_state_dict({**fresh.module_.state_dict(), **frozen})
