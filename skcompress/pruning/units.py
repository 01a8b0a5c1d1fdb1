"""The units of a module: neurons, channels, hidden units and heads that can leave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_map

from .. import graph as graphs
from ..graph import Graph
from ..layers import weight_matrices
from .coupling import NONE, Coupling, Labelled, Slot, nothing
from .rules import MOVES, RULES, kind, other

IN_PARTS = "the module uses parts of it, as attention does whose query is not its key and value"


@dataclass(frozen=True)
class Units:
    """Where the removable units of a module stand.

    Parameters
    ----------
    n_units : int
        Number of removable units, numbered from zero.
    slots : dict of int64 Tensor
        The unit at each position along a dimension of a parameter or buffer, or -1, by
        (name, dimension).
    consumers : set of (name, dimension)
        The slots whose weights read units: zero these, and the unit is masked.
    layers : dict of int64 Tensor
        Units by the name of the weight that produces them.
    siblings : list of int64 Tensor of shape (n_parts, n_hidden)
        Hidden units by layer and direction of a recurrent module, which keeps as many in each.
    stays : dict of str
        Why the units of a layer cannot leave, by the name of its weight.
    """

    n_units: int
    slots: dict[Slot, Tensor]
    consumers: frozenset[Slot]
    layers: dict[str, Tensor]
    siblings: list[Tensor]
    stays: dict[str, str]


def find_units(graph: Graph, args: tuple, kwargs: dict[str, Any]) -> Units:
    """Find what can be removed from a module, and what leaves with it.

    Parameters
    ----------
    graph : Graph
        The module's operations.
    args, kwargs
        Example inputs of two rows.

    Raises
    ------
    ValueError
        If no unit can be removed; the message says why, layer by layer.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skcompress.graph import trace
    >>> from skcompress.pruning.units import find_units
    >>> module, rows = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(2, 4)
    >>> units = find_units(trace(module, (rows,), {}), (rows,), {})
    >>> units.n_units, units.slots["2.weight", 1].tolist()
    (3, [0, 1, 2])
    >>> units.stays
    {'2.weight': 'it is an output of the module'}
    """
    coupling = Coupling()
    with torch.no_grad():
        outputs = graph.walk(args, kwargs, _binder(coupling), _applier(coupling))
    for output in tree_leaves(outputs, is_leaf=_is_labelled):
        if _is_labelled(output):
            coupling.pin(output.labels, "it is an output of the module")
    weights = weight_matrices(graph.module)
    for node in graph.program.graph.nodes:
        name = graph.parameter_nodes.get(node.name)
        if node.users and name is not None:
            coupling.unknown.setdefault(name, IN_PARTS)
    units = _number(coupling, weights)
    if not units.n_units:
        reasons = "; ".join(f"{name!r} stays because {why}" for name, why in units.stays.items())
        raise ValueError(
            f"No unit of {type(graph.module).__name__} can be removed: {reasons}."
            " Use granularity='weight'."
        )
    return units


def _is_labelled(value: Any) -> bool:
    return isinstance(value, Labelled)


def _binder(c: Coupling) -> Callable[[str | None, Any], Any]:
    def bind(name: str | None, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        labelled = Labelled(tensor, nothing(tensor.shape), name)
        if name is not None and tensor.dim() == 1:
            labelled.labels = c.slot(labelled, 0)
        return labelled

    return bind


def _applier(c: Coupling) -> graphs.Apply:
    def apply(node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        name = kind(node.target)
        if name == "getitem":
            return args[0][args[1]]
        values, value_kwargs = _pick(args, "value"), _pick(kwargs, "value")
        out = graphs.run(node, values, value_kwargs)
        if not isinstance(out, (Tensor, tuple, list)):
            return out
        # Labels live on the CPU, wherever the module is.
        if name in MOVES:
            labels = _moved(node, args, kwargs)
        elif any(map(_is_labelled, tree_leaves(kwargs, is_leaf=_is_labelled))):
            labels = other(c, name, [*args, *kwargs.values()], out)
        elif any(map(_is_labelled, tree_leaves(args, is_leaf=_is_labelled))):
            labels = RULES.get(name, other)(c, name, args, out)
        else:
            labels = other(c, name, [], out)
        if isinstance(out, Tensor):
            return Labelled(out, labels)
        return [Labelled(o, part) for o, part in zip(out, labels, strict=True)]

    return apply


def _moved(node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Move labels as an operation moves elements."""
    # Labels that were expanded are not contiguous where the tensor itself is.
    is_view = kind(node.target) in ("view", "_unsafe_view")
    target = torch.ops.aten.reshape.default if is_view else node.target
    return target(*_pick(args, "labels"), **_pick(kwargs, "labels"))  # type: ignore[operator]


def _pick(values: Any, attribute: str) -> Any:
    return tree_map(
        lambda v: getattr(v, attribute) if _is_labelled(v) else v, values, is_leaf=_is_labelled
    )


def _number(c: Coupling, weights: dict[str, nn.Parameter]) -> Units:
    """Give numbers to the classes that a weight reads, a weight produces, and nothing pins."""
    _pin_unprunable(c, weights)
    for hidden in c.siblings:
        _pin_tangled(c, hidden)
    read = {r for slot in c.consumers for r in c.roots(c.slots[slot]).tolist()}
    numbers: dict[int, int] = {}
    layers: dict[str, Tensor] = {}
    stays: dict[str, str] = {}
    for (name, dim), labels in c.slots.items():
        if name not in weights or (name, dim) in c.consumers:
            continue
        roots = list(dict.fromkeys(c.roots(labels).tolist()))
        for root in roots:
            if root in c.pinned:
                stays.setdefault(name, c.pinned[root])
        new = [r for r in roots if r not in c.pinned and r in read and r not in numbers]
        first = len(numbers)
        numbers.update((root, first + i) for i, root in enumerate(new))
        if new:
            layers[name] = torch.tensor([numbers[root] for root in new])
    for name in weights:
        if not any(slot[0] == name for slot in c.slots):
            stays[name] = c.unknown.get(name, "no operation of the module uses it")
    numbered = {s: _numbered(c, labels, numbers) for s, labels in c.slots.items()}
    slots = {s: units for s, units in numbered.items() if (units != NONE).any()}
    siblings = [torch.stack([_numbered(c, u, numbers) for u in hidden]) for hidden in c.siblings]
    siblings = [parts for parts in siblings if (parts != NONE).all()]
    consumers = frozenset(c.consumers & slots.keys())
    return Units(len(numbers), slots, consumers, layers, siblings, stays)


def _pin_unprunable(c: Coupling, weights: dict[str, nn.Parameter]) -> None:
    """Pin what a weight reads that is not prunable: no mask could silence the unit there."""
    for name, dim in c.consumers:
        if name not in weights:
            c.pin(c.slots[name, dim], f"{name!r}, which is not prunable, reads it")


def _numbered(c: Coupling, labels: Tensor, numbers: dict[int, int]) -> Tensor:
    return torch.tensor([numbers.get(root, NONE) for root in c.roots(labels).tolist()])


def _pin_tangled(c: Coupling, hidden: list[Tensor]) -> None:
    """Pin a recurrent module's units unless every layer and direction can lose as many."""
    parts = {tuple(c.roots(units).tolist()) for units in hidden}
    roots = [root for part in parts for root in part]
    reason = next((c.pinned[root] for root in roots if root in c.pinned), None)
    elsewhere = [u for h in c.siblings if h is not hidden for part in h for u in c.roots(part)]
    if len(set(roots)) < len(roots) or set(roots) & {int(u) for u in elsewhere}:
        reason = reason or "its hidden units are tied to those of another recurrent layer"
    if reason is not None:
        for units in hidden:
            c.pin(units, reason)
