"""Optimizer steps: through a net's own ``train_step``, or a short cut with the same bits."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import (
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator
from torch import Tensor, nn

from .joined import ELEMENTWISE, JoinedParameters, joined
from .weights import SampleWeights

# Makes a step on a batch; returns its loss and the module's output, as ``train_step`` does.
Step = Callable[[Any], dict[str, Tensor]]

# What the short cut does by itself; a net that overrides one of these has its own say.
_SHORTENED = (
    "train_step",
    "train_step_single",
    "get_train_step_accumulator",
    "_set_training",
    "_zero_grad_optimizer",
    "_step_optimizer",
)
_EVENTS = tuple(name for name in dir(NeuralNet) if name.startswith("on_"))
# Callbacks that do not look at what an optimizer remembers, nor keep parameters.
_HARMLESS = {
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    SampleWeights,
}


@contextlib.contextmanager
def steps(net: NeuralNet) -> Iterator[Step]:
    """Give a function that makes one step on a batch.

    The net needs an optimizer that has made no step yet.
    """
    if not (_has_own(net, _SHORTENED) and _is_elementwise(net)):
        yield net.train_step
        return
    with joined(net.optimizer_) as parameters:
        yield ShortStep(net, parameters)


@contextlib.contextmanager
def fit_steps(net: NeuralNet) -> Iterator[None]:
    """Let the ``fit`` of a net that is not initialized yet make short steps inside.

    A net with callbacks or events that could look at its optimizer meanwhile keeps its steps.
    """
    if not (_has_own(net, _SHORTENED + _EVENTS) and _callback_types(net) <= _HARMLESS):
        yield
        return
    with contextlib.ExitStack() as stack:
        made: list[Step] = []

        def train_step(batch: Any) -> dict[str, Tensor]:
            if not made:  # the first, and there is an optimizer now
                short = _is_elementwise(net)
                made.append(
                    ShortStep(net, stack.enter_context(joined(net.optimizer_)))
                    if short
                    else functools.partial(NeuralNet.train_step, net)
                )
            return made[0](batch)

        vars(net)["train_step"] = train_step
        stack.callback(vars(net).pop, "train_step")
        yield


def _has_own(net: NeuralNet, names: tuple[str, ...]) -> bool:
    """Tell whether methods of a net are skorch's own."""
    kind = type(net)
    return all(getattr(kind, n) is getattr(NeuralNet, n) and n not in vars(net) for n in names)


def _is_elementwise(net: NeuralNet) -> bool:
    return (
        not net.compile
        and list(net._optimizers) == ["optimizer"]
        and type(net.optimizer_) in ELEMENTWISE
    )


def _callback_types(net: NeuralNet) -> set[type]:
    """Return the types of callbacks that an uninitialized net will have."""
    if net.callbacks == "disable":
        return set()
    given = [*net.get_default_callbacks(), *(net.callbacks or [])]
    callbacks = [item[1] if isinstance(item, tuple) else item for item in given]
    named = [n for n in vars(net) if n.startswith("callbacks__") and n.count("__") == 1]
    callbacks += [vars(net)[n] for n in named if vars(net)[n] is not None]
    return {c if isinstance(c, type) else type(c) for c in callbacks}


class ShortStep:
    """A step of a net whose ``train_step`` is skorch's own, without the detours.

    Parameters
    ----------
    net : NeuralNet
    parameters : JoinedParameters
        What its optimizer updates.
    """

    def __init__(self, net: NeuralNet, parameters: JoinedParameters) -> None:
        self.net = net
        self.parameters = parameters
        parts = [getattr(net, name + "_") for name in [*net._modules, *net._criteria]]
        self._modules = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
        self._modes: list[bool] = []

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Update the net on one batch; return the loss and the output before the update."""
        net = self.net
        self.parameters.zero_grad()
        self._set_training()
        Xi, yi = unpack_data(batch)
        with torch.enable_grad():
            y_pred = net.infer(Xi)
            loss = net.get_loss(y_pred, yi, X=Xi, training=True)
            loss.backward()
        named = TeeGenerator(net.get_all_learnable_params())
        net.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self.parameters.step()
        return {"loss": loss, "y_pred": y_pred}

    def _set_training(self) -> None:
        """Switch to training mode if anything has left it; scores are taken without dropout."""
        if [m.training for m in self._modules] != self._modes:
            self.net._set_training(True)
            self._modes = [m.training for m in self._modules]
