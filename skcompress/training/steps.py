"""Optimizer steps: through a net's own ``train_step``, or a short cut with the same bits."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator
from torch import Tensor, nn

from .joined import ELEMENTWISE, JoinedParameters, joined

Step = Callable[[Any], Tensor]

# What the short cut does by itself; a net that overrides one of these has its own say.
_SHORTENED = (
    "train_step",
    "train_step_single",
    "get_train_step_accumulator",
    "_set_training",
    "_zero_grad_optimizer",
    "_step_optimizer",
)


@contextlib.contextmanager
def steps(net: NeuralNet) -> Iterator[Step]:
    """Give a function that makes one step on a batch and returns its loss.

    The net needs an optimizer that has made no step yet.
    """
    if not _steps_as_skorch(net):
        yield lambda batch: net.train_step(batch)["loss"].detach()
        return
    with joined(net.optimizer_) as parameters:
        yield ShortStep(net, parameters)


def _steps_as_skorch(net: NeuralNet) -> bool:
    own = all(
        getattr(type(net), name) is getattr(NeuralNet, name) and name not in vars(net)
        for name in _SHORTENED
    )
    return (
        own
        and not net.compile
        and list(net._optimizers) == ["optimizer"]
        and type(net.optimizer_) in ELEMENTWISE
    )


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

    def __call__(self, batch: Any) -> Tensor:
        """Update the net on one batch and return the loss before the update."""
        net = self.net
        self.parameters.zero_grad()
        self._set_training()
        Xi, yi = unpack_data(batch)
        with torch.enable_grad():
            loss = net.get_loss(net.infer(Xi), yi, X=Xi, training=True)
            loss.backward()
        named = TeeGenerator(net.get_all_learnable_params())
        net.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self.parameters.step()
        return loss.detach()

    def _set_training(self) -> None:
        """Switch to training mode if anything has left it; scores are taken without dropout."""
        if [m.training for m in self._modules] != self._modes:
            self.net._set_training(True)
            self._modes = [m.training for m in self._modules]
