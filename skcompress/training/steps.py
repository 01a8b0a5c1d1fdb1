"""Optimizer steps: through a net's own ``train_step``, or a short cut with the same bits."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator
from torch import Tensor, nn, optim

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
# They treat every number alike, whatever tensor it is in.
_ELEMENTWISE = (optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.RMSprop)
_ALIGNMENT = 64


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
        and (type(net.optimizer_) in _ELEMENTWISE)
    )


class ShortStep:
    """A step of a net whose ``train_step`` is skorch's own, without the detours.

    Parameters
    ----------
    net : NeuralNet
    parameters : JoinedParameters
        What its optimizer updates.
    """

    def __init__(self, net: NeuralNet, parameters: "JoinedParameters") -> None:
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


@contextlib.contextmanager
def joined(optimizer: optim.Optimizer) -> Iterator["JoinedParameters"]:
    """Join the parameters of an optimizer inside, and give each its own memory again."""
    parameters = JoinedParameters(optimizer)
    try:
        yield parameters
    finally:
        parameters.split()


class JoinedParameters:
    """Parameters laid end to end, one vector for each group, for an optimizer to update at once.

    An optimizer spends most of its time in Python, for each operation on each tensor. The module
    goes on using its own parameters, which are views of the vector meanwhile.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Elementwise, so that the numbers come out the same; it has made no step yet.
    """

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._given = [(group, list(group["params"])) for group in optimizer.param_groups]
        self._vectors = [_Vector(group) for group in optimizer.param_groups if _can_join(group)]

    def zero_grad(self) -> None:
        """Forget gradients, as ``optimizer.zero_grad`` would."""
        for _, params in self._given:
            for parameter in params:
                parameter.grad = None

    def step(self) -> None:
        """Let the optimizer make a step."""
        # Without a gradient a parameter has to be left alone, so it cannot be part of a vector.
        if not all(vector.intact() for vector in self._vectors):
            self.split()
        for vector in self._vectors:
            vector.gather()
        self.optimizer.step()

    def split(self) -> None:
        """Give each parameter its own memory and its part of the optimizer's state."""
        for vector in self._vectors:
            vector.split(self.optimizer)
        for group, params in self._given:
            group["params"] = params
        self._vectors = []


def _can_join(group: dict[str, Any]) -> bool:
    members = [p for p in group["params"] if p.requires_grad]
    return (
        {p.dtype for p in members} in ({torch.float32}, {torch.float64})
        and all(p.device.type == "cpu" and p.is_contiguous() for p in members)
        and not any(group.get(setting) for setting in ("fused", "differentiable", "capturable"))
    )


class _Vector:
    """The trainable parameters of one group as a single parameter."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.members = [p for p in group["params"] if p.requires_grad]
        frozen = [p for p in group["params"] if not p.requires_grad]
        # Each begins where an allocated tensor could: matrix products may depend on that.
        unit = _ALIGNMENT // self.members[0].element_size()
        self.sizes = [-(-p.numel() // unit) * unit for p in self.members]
        self.vector = nn.Parameter(self.members[0].detach().new_zeros(sum(self.sizes)))
        self.vector.grad = torch.zeros_like(self.vector)
        self.pieces = self._cut(self.vector.detach())
        self.grads = self._cut(self.vector.grad)
        for parameter, piece in zip(self.members, self.pieces, strict=True):
            piece.copy_(parameter.detach())
            parameter.data = piece
        group["params"] = [self.vector, *frozen]

    def _cut(self, vector: Tensor) -> list[Tensor]:
        cuts = zip(vector.split(self.sizes), self.members, strict=True)
        return [piece[: p.numel()].view(p.shape) for piece, p in cuts]

    def intact(self) -> bool:
        """Tell whether every parameter has a plain gradient and is still a view."""
        return all(
            p.grad is not None
            and p.grad.layout is torch.strided
            and p.data_ptr() == piece.data_ptr()
            for p, piece in zip(self.members, self.pieces, strict=True)
        )

    def gather(self) -> None:
        """Collect the parameters' gradients."""
        for grad, parameter in zip(self.grads, self.members, strict=True):
            grad.copy_(parameter.grad)

    def split(self, optimizer: optim.Optimizer) -> None:
        """Undo what was done to parameters and state."""
        state = optimizer.state.pop(self.vector, {})
        for parameter, piece in zip(self.members, self.pieces, strict=True):
            if parameter.data_ptr() == piece.data_ptr():
                parameter.data = piece.clone()
            if state:
                optimizer.state[parameter] = {}
        for name, value in state.items():
            for parameter, part in zip(self.members, self._parts(value), strict=True):
                optimizer.state[parameter][name] = part

    def _parts(self, value: Any) -> list[Any]:
        """Divide what an optimizer remembers: a number for each weight, or one for all."""
        if not isinstance(value, Tensor):
            return [value] * len(self.members)
        whole = value.shape == self.vector.shape
        parts = self._cut(value) if whole else [value] * len(self.members)
        return [part.clone() for part in parts]
