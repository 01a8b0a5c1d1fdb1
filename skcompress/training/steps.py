"""Optimizer steps: through a net's own ``train_step``, or a short cut with the same bits."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
    callbacks,
)
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator
from torch import Tensor, nn

from .joined import ELEMENTWISE, JoinedParameters, joined
from .shapes import ShapeSetter
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
# Methods that only call the module or the criterion, but for NLLLoss, on rows that are where the
# net is.
_INFER = (NeuralNet.infer,)
_GET_LOSS = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
# Nets and callbacks without code of the user's that could look at the optimizer or copy the net
# while it trains.
_NETS = (NeuralNet, NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor)
_CALLBACKS = (
    callbacks.EarlyStopping, callbacks.EpochScoring, callbacks.EpochTimer,
    callbacks.GradientNormClipping, callbacks.PassthroughScoring, callbacks.PrintLog,
    SampleWeights, ShapeSetter,
)  # fmt: skip


@contextlib.contextmanager
def steps(net: NeuralNet) -> Iterator[Step]:
    """Give a function that makes one step on a batch.

    The net needs an optimizer that has made no step yet.
    """
    if not _steps_as_skorch(net):
        yield net.train_step
        return
    with joined(net.optimizer_) as parameters:
        yield ShortStep(net, parameters)


@contextlib.contextmanager
def fit_steps(net: NeuralNet) -> Iterator[None]:
    """Let the ``fit`` of a net that is not initialized yet make short steps inside.

    Only a net of skorch's own does, and only with callbacks that look at no optimizer.
    """
    changed = any(callable(getattr(type(net), name, None)) for name in vars(net))
    if type(net) not in _NETS or changed or not all(map(_is_harmless, _callbacks(net))):
        yield
        return
    with contextlib.ExitStack() as stack:
        made: list[Step] = []

        def train_step(batch: Any) -> dict[str, Tensor]:
            if not made:  # the first: there is an optimizer now
                del vars(net)["train_step"]
                made.append(stack.enter_context(steps(net)))
                vars(net)["train_step"] = train_step
            return made[0](batch)

        vars(net)["train_step"] = train_step
        stack.callback(vars(net).pop, "train_step", None)
        yield


def _callbacks(net: NeuralNet) -> list[Any]:
    """Return the callbacks that an uninitialized net will have, each an instance or a type."""
    if net.callbacks == "disable":
        return []
    given = [*net.get_default_callbacks(), *(net.callbacks or [])]
    named = [n for n in vars(net) if n.startswith("callbacks__")]
    # What is set for a callback may be code as well, such as what to score by.
    given += [vars(net)[n] for n in named if vars(net)[n] is not None]
    return [item[1] if isinstance(item, tuple) else item for item in given]


def _is_harmless(callback: Any) -> bool:
    kind = callback if isinstance(callback, type) else type(callback)
    scoring = getattr(callback, "scoring", None) if kind is callbacks.EpochScoring else None
    return kind in _CALLBACKS and (scoring is None or isinstance(scoring, str))


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


def _is_one_of(net: NeuralNet, name: str, methods: tuple[Callable, ...]) -> bool:
    return getattr(type(net), name) in methods and name not in vars(net)


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
        on_cpu = torch.device(net.device or "cpu").type == "cpu"
        self._calls_module = on_cpu and _is_one_of(net, "infer", _INFER)
        self._calls_criterion = on_cpu and _is_one_of(net, "get_loss", _GET_LOSS)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Update the net on one batch; return the loss and the output before the update."""
        net = self.net
        self.parameters.zero_grad()
        self._set_training()
        Xi, yi = unpack_data(batch)
        with torch.enable_grad():
            y_pred = self._infer(Xi)
            loss = self._loss(y_pred, Xi, yi)
            loss.backward()
        named = TeeGenerator(net.get_all_learnable_params())
        net.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self.parameters.step()
        return {"loss": loss, "y_pred": y_pred}

    def _infer(self, Xi: Any) -> Any:
        if self._calls_module and type(Xi) is Tensor and Xi.is_cpu:
            return self.net.module_(Xi)
        return self.net.infer(Xi)

    def _loss(self, y_pred: Any, Xi: Any, yi: Any) -> Tensor:
        net = self.net
        there = type(yi) is Tensor and yi.is_cpu
        if self._calls_criterion and there and not isinstance(net.criterion_, nn.NLLLoss):
            return net.criterion_(y_pred, yi)
        return net.get_loss(y_pred, yi, X=Xi, training=True)

    def _set_training(self) -> None:
        """Switch to training mode if anything has left it; scores are taken without dropout."""
        if [m.training for m in self._modules] != self._modes:
            self.net._set_training(True)
            self._modes = [m.training for m in self._modules]
