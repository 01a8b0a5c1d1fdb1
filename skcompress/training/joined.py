"""Parameters laid end to end, so that an optimizer updates them all at once."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.parameter import is_lazy

# Optimizers that treat every number alike, whatever tensor it is in.
ELEMENTWISE = (optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.RMSprop)
# Numbers of a parameter that is left alone: copying it takes longer than Python does.
LARGE = 2**15


@contextlib.contextmanager
def joined(optimizer: optim.Optimizer) -> Iterator["JoinedParameters"]:
    """Join the parameters of an optimizer inside, and divide what it remembers on the way out."""
    parameters = JoinedParameters(optimizer)
    try:
        yield parameters
    finally:
        parameters.split()


class JoinedParameters:
    """Copies of parameters end to end, one vector for each group, for an optimizer to update.

    An optimizer spends most of its time in Python, for each operation on each tensor. Parameters
    are copied there and back in each step, so that those that share memory with others go on
    sharing it.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Elementwise, so that the numbers come out the same; it has made no step yet.
    """

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        groups = optimizer.param_groups if _is_fresh(optimizer) else []
        self._vectors = [_Vector(group) for group in groups if _can_join(group)]

    def zero_grad(self) -> None:
        """Forget gradients, as ``optimizer.zero_grad`` would."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Let the optimizer make a step."""
        # Without a gradient a parameter has to be left alone, so it cannot be part of a vector.
        if not all(vector.has_gradients() for vector in self._vectors):
            self.split()
        if not self._vectors:
            self.optimizer.step()
            return
        with torch.no_grad():
            for vector in self._vectors:
                vector.gather()
            try:
                self.optimizer.step()
            finally:
                for vector in self._vectors:
                    vector.scatter()

    def split(self) -> None:
        """Divide what the optimizer remembers among the parameters."""
        for vector in self._vectors:
            vector.split(self.optimizer)
        self._vectors = []


def _is_fresh(optimizer: optim.Optimizer) -> bool:
    """Tell whether nothing looks at an optimizer's parameters, and none are changed twice."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if any(is_lazy(p) or p.layout is not torch.strided for p in params):
        return False
    hooks = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    memory = {p.untyped_storage().data_ptr() for p in params}
    return not optimizer.state and not any(hooks) and len(memory) == len(params)


def _can_join(group: dict[str, Any]) -> bool:
    members = _members(group)
    # Plain SGD makes one operation of a parameter, which is no more than copying takes.
    if "dampening" in group and not group["momentum"] and not group["weight_decay"]:
        return False
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
        self.group, self.members = group, _members(group)
        self.given = list(group["params"])
        joined = {id(p) for p in self.members}
        others = [p for p in self.given if id(p) not in joined]
        total = sum(p.numel() for p in self.members)
        self.vector = nn.Parameter(self.members[0].detach().new_zeros(total))
        self.vector.grad = torch.zeros_like(self.vector)
        self.pieces = self._cut(self.vector.detach())
        self.grads = self._cut(self.vector.grad)
        self.joined = [self.vector, *others]

    def _cut(self, vector: Tensor) -> list[Tensor]:
        pieces = vector.split([p.numel() for p in self.members])
        return [piece.view(p.shape) for piece, p in zip(pieces, self.members, strict=True)]

    def has_gradients(self) -> bool:
        """Tell whether every parameter has a plain gradient."""
        return all(p.grad is not None and p.grad.layout is torch.strided for p in self.members)

    def gather(self) -> None:
        """Copy the parameters and their gradients here, and show the optimizer these."""
        self.group["params"] = self.joined
        torch._foreach_copy_(self.pieces, self.members)
        torch._foreach_copy_(self.grads, [p.grad for p in self.members])

    def scatter(self) -> None:
        """Copy what they have become back, and show everyone else the parameters."""
        self.group["params"] = self.given
        torch._foreach_copy_(self.members, self.pieces)

    def split(self, optimizer: optim.Optimizer) -> None:
        """Divide what the optimizer remembers of the vector."""
        state = optimizer.state.pop(self.vector, {})
        for parameter in self.members if state else ():
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
