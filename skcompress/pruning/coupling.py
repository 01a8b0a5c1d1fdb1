"""Labels for tensors, and which of them stand for the same unit.

Every position along a dimension of a parameter gets a label. Walking the graph, activations
carry the labels of the weights that produced them, and an operation couples the labels that
can only leave together. The classes that result are the units.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NONE = -1
Slot = tuple[str, int]


@dataclass
class Labelled:
    """A tensor with a label for every element; NONE where it belongs to no unit.

    Parameters
    ----------
    value : Tensor
        The tensor itself, on example rows.
    labels : int64 Tensor of the same shape
    name : str or None
        Name of the parameter or buffer, where it is one.
    """

    value: Any
    labels: Tensor
    name: str | None = None


@dataclass
class Coupling:
    """Classes of labels (union-find), and where in the parameters they stand.

    Attributes
    ----------
    slots : dict of Tensor
        Labels along a dimension of a parameter, by (name, dimension).
    consumers : set of Slot
        The slots along which a weight reads units.
    pinned : dict
        Why the class of a label cannot leave.
    siblings : list of list of Tensor
        Labels of recurrent layers that must lose equally many units.
    unknown : dict of str
        Why no unit of a parameter can leave, by its name.
    """

    parent: list[int] = field(default_factory=list)
    slots: dict[Slot, Tensor] = field(default_factory=dict)
    consumers: set[Slot] = field(default_factory=set)
    pinned: dict[int, str] = field(default_factory=dict)
    siblings: list[list[Tensor]] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    def slot(self, tensor: Labelled, dim: int, *, consumer: bool = False) -> Tensor:
        """Return the labels along a dimension of a parameter, made at first use."""
        assert tensor.name is not None
        key = (tensor.name, dim)
        if key not in self.slots:
            start, size = len(self.parent), tensor.value.shape[dim]
            self.parent.extend(range(start, start + size))
            self.slots[key] = torch.arange(start, start + size)
        if consumer:
            self.consumers.add(key)
        return self.slots[key]

    def root(self, label: int) -> int:
        """Return the representative of a label's class."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def couple(self, first: Tensor, second: Tensor, reason: str) -> None:
        """Join labels one by one; where one side has none, pin the other."""
        pairs = torch.stack([first.flatten(), second.flatten()]).unique(dim=1).T.tolist()
        for a, b in pairs:
            if a == NONE or b == NONE:
                self.pin(torch.tensor([a, b]), reason)
                continue
            a, b = sorted((self.root(a), self.root(b)))
            if a != b:
                self.parent[b] = a
                if b in self.pinned:
                    self.pinned.setdefault(a, self.pinned.pop(b))

    def pin(self, labels: Tensor, reason: str) -> None:
        """Mark the classes of labels as ones that cannot leave."""
        for label in labels.unique().tolist():
            if label != NONE:
                self.pinned.setdefault(self.root(label), reason)

    def roots(self, labels: Tensor) -> Tensor:
        """Replace labels by the representatives of their classes."""
        return torch.tensor([NONE if v == NONE else self.root(v) for v in labels.tolist()])


def nothing(shape: Any) -> Tensor:
    """Labels of a tensor that belongs to no unit."""
    return torch.full(tuple(shape), NONE)


def varies(labels: Tensor, dim: int) -> bool:
    """Tell whether labels change along a dimension."""
    return bool((labels != labels.narrow(dim, 0, 1)).any())


def along(coupling: Coupling, labels: Tensor, dim: int, reason: str) -> Tensor:
    """Return the labels along one dimension; pin them if they change along any other."""
    rows = labels.movedim(dim, -1).reshape(-1, labels.shape[dim])
    if (rows != rows[0]).any():
        coupling.pin(labels, reason)
        return nothing(rows[0].shape)
    return rows[0]


def spread(labels: Tensor, dim: int, shape: Any) -> Tensor:
    """Expand labels along one dimension to a whole tensor."""
    view = [1] * len(shape)
    view[dim] = len(labels)
    return labels.view(view).expand(tuple(shape))
