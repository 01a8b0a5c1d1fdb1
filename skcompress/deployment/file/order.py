"""The order of hidden units is free: sort them so that the zeros of a weight lie together."""

from dataclasses import replace

import torch
from torch import Tensor

from ...pruning.units import Units
from ...quantization.formats import Grid
from ...quantization.tensors import QuantizedTensor, pack
from .contents import Entry

Orders = dict[tuple[str, int], Tensor]


def alike(units: Units) -> list[Tensor]:
    """Group units that stand in the same slots, equally often: their order is free."""
    places: dict[int, list] = {unit: [] for unit in range(units.n_units)}
    for slot, labels in units.slots.items():
        values, counts = labels[labels >= 0].unique(return_counts=True)
        for unit, count in zip(values.tolist(), counts.tolist(), strict=True):
            places[unit].append((slot, count))
    groups: dict[tuple, list[int]] = {}
    for unit, where in places.items():
        groups.setdefault(tuple(where), []).append(unit)
    return [torch.tensor(members) for members in groups.values()]


def sort_units(entries: list[Entry], units: Units) -> list[Entry]:
    """Put units with many weights before those with few; clear the vectors of unread ones.

    The module computes the same, up to the order in which sums are rounded.
    """
    by_name = {entry.name: entry for entry in entries}
    slots = {slot: labels for slot, labels in units.slots.items() if slot[0] in by_name}
    counts = _counts(slots, units.n_units, by_name)
    unread = _counts({s: v for s, v in slots.items() if s in units.consumers}, units.n_units,
                     by_name) == 0  # fmt: skip
    takes_place_of = torch.arange(units.n_units)
    for members in alike(units):
        if not any(_fixed(by_name[n], dim) and torch.isin(labels, members).any()
                   for (n, dim), labels in slots.items()):  # fmt: skip
            takes_place_of[members] = members[counts[members].argsort(descending=True, stable=True)]
    result = []
    for entry in entries:
        for (name, dim), labels in slots.items():
            if name != entry.name:
                continue
            if entry.quantized is None and entry.tensor.dim() == 1:
                dead = (labels >= 0) & unread[labels]
                entry = replace(entry, tensor=entry.tensor.masked_fill(dead, 0))
            entry = _taken(entry, dim, _positions(labels, takes_place_of))
        result.append(entry)
    return result


def _counts(slots: Orders, n_units: int, by_name: dict[str, Entry]) -> Tensor:
    """Count the weights of each unit, along all dimensions of matrices where it stands."""
    counts = torch.zeros(n_units, dtype=torch.int64)
    for (name, dim), labels in slots.items():
        tensor = by_name[name].tensor
        if tensor.dim() > 1:
            along = (tensor != 0).movedim(dim, 0).flatten(1).sum(1)
            counts.index_add_(0, labels[labels >= 0], along.cpu()[labels >= 0])
    return counts


def _fixed(entry: Entry, dim: int) -> bool:
    """Tell whether groups of inputs share a scale, so that their order matters."""
    return entry.quantized is not None and dim > 0 and isinstance(entry.quantized.granularity, int)


def _positions(labels: Tensor, takes_place_of: Tensor) -> Tensor:
    """Return which position each position takes its values from."""
    places: dict[int, list[int]] = {}
    for position, unit in enumerate(labels.tolist()):
        places.setdefault(unit, []).append(position)
    order = torch.arange(len(labels))
    for unit, positions in places.items():
        if unit >= 0:
            order[positions] = torch.tensor(places[int(takes_place_of[unit])])
    return order


def _taken(entry: Entry, dim: int, order: Tensor) -> Entry:
    """Reorder an entry along a dimension."""
    mask = None if entry.mask is None else entry.mask.cpu().index_select(dim, order)
    quantized = entry.quantized
    if quantized is not None:
        quantized = _taken_quantized(quantized, dim, order)
    return Entry(entry.name, entry.tensor.cpu().index_select(dim, order), mask, quantized)


def _taken_quantized(tensor: QuantizedTensor, dim: int, order: Tensor) -> QuantizedTensor:
    codes, mask = (x.cpu().index_select(dim, order) for x in (tensor.codes, tensor.mask))
    grid = tensor.grid
    if dim == 0 and tensor.granularity != "tensor":
        scale, zero = (
            x.cpu().view(len(order), -1)[order].view(-1, 1) for x in (grid.scale, grid.zero_point)
        )
        grid = Grid(grid.levels, scale, zero)
    return replace(tensor, packed=pack(codes[mask], tensor.bits), grid=grid, mask=mask)
