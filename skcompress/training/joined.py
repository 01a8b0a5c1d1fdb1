"""Parameters laid end to end, so that an optimizer updates them all at once."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn, optim

# Optimizers that treat every number alike, whatever tensor it is in.
ELEMENTWISE = (optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.RMSprop)
_ALIGNMENT = 64
# Numbers of a parameter that is left alone: collecting its gradient takes longer than Python does.
LARGE = 2**15


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
    members = _members(group)
    return (
        {p.dtype for p in members} in ({torch.float32}, {torch.float64})
        and all(p.device.type == "cpu" and p.is_contiguous() for p in members)
        and not any(group.get(setting) for setting in ("fused", "differentiable", "capturable"))
    )


def _members(group: dict[str, Any]) -> list[Any]:
    return [p for p in group["params"] if p.requires_grad and p.numel() <= LARGE]


class _Vector:
    """The trainable parameters of one group, but for large ones, as a single parameter."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.members = _members(group)
        others = [p for p in group["params"] if all(p is not m for m in self.members)]
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
        group["params"] = [self.vector, *others]

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
