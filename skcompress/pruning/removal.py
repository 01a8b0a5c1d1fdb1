"""Take units out of a module, so that what is left is smaller and computes the same."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..layers import weight_matrices
from .attention import keep_heads
from .units import Units


@torch.no_grad()
def remove_units(module: nn.Module, units: Units, alive: Tensor) -> dict[str, Tensor]:
    """Remove units from a module in place.

    Parameters
    ----------
    module : torch.nn.Module
        A module of the class that the units were found in.
    units : Units
    alive : bool Tensor of shape (n_units,)
        False goes.

    Returns
    -------
    masks : dict of bool Tensor
        What stays of each tensor that became smaller, by name, in its old shape.
    """
    kept = kept_positions(units, alive)
    masks: dict[str, Tensor] = {}
    changed: set[int] = set()
    for name in dict.fromkeys(name for name, _ in kept):
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        tensor = getattr(owner, attribute)
        mask = torch.ones(tensor.shape, dtype=torch.bool)
        smaller = tensor.detach()
        for (slot, dim), positions in kept.items():
            if slot == name:
                mask &= positions.view([-1 if d == dim else 1 for d in range(tensor.dim())])
                index = positions.nonzero().flatten().to(tensor.device)
                smaller = smaller.index_select(dim, index)
        smaller = smaller.contiguous()
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller, requires_grad=tensor.requires_grad)
        changed |= _replace(module, tensor, smaller)
        masks[name] = mask
    for owner in module.modules():
        if id(owner) in changed or id(getattr(owner, "out_proj", None)) in changed:
            _set_widths(owner)
    return masks


def kept_positions(units: Units, alive: Tensor) -> dict[tuple[str, int], Tensor]:
    """Mark the positions that stay along each dimension that loses some."""
    # Position -1 (no unit) reads the last entry, which always stays.
    stays = torch.cat([alive.cpu(), torch.tensor([True])])
    kept = {slot: stays[labels] for slot, labels in units.slots.items()}
    return {slot: positions for slot, positions in kept.items() if not positions.all()}


def consumer_masks(units: Units, alive: Tensor, shapes: dict[str, Any]) -> dict[str, Tensor]:
    """Mask the weights that read units which are not alive."""
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for (name, dim), positions in kept_positions(units, alive).items():
        if (name, dim) in units.consumers:
            view = [-1 if d == dim else 1 for d in range(len(shapes[name]))]
            masks[name] &= positions.view(view)
    return masks


def _replace(module: nn.Module, old: Tensor, new: Tensor) -> set[int]:
    """Put a tensor in the place of another, wherever it is shared; return the owners' ids."""
    owners = set()
    for owner in module.modules():
        for attribute, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
            if tensor is old:
                setattr(owner, attribute, new)
                owners.add(id(owner))
    return owners


def _set_widths(layer: nn.Module) -> None:
    """Bring a layer's attributes in line with its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _ConvNd):
        _set_channels(layer)
    elif isinstance(layer, _BatchNorm):
        kept = layer.weight if layer.weight is not None else layer.running_mean
        assert kept is not None
        layer.num_features = len(kept)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.RNNBase):
        layer.input_size = layer.get_parameter("weight_ih_l0").shape[1]
        layer.hidden_size = layer.get_parameter("weight_hh_l0").shape[1]
        layer.flatten_parameters()
    # With kdim or vdim its heads stay, and the rows of out_proj are its own affair.
    elif isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
        keep_heads(layer)


def _set_channels(layer: _ConvNd) -> None:
    rows, columns = layer.weight.shape[:2]
    if layer.transposed:
        rows, columns = columns, rows
    if layer.groups > 1:
        layer.groups = layer.in_channels = layer.out_channels = rows
    else:
        layer.out_channels, layer.in_channels = rows, columns


def remaining_masks(
    module: nn.Module, inherited: dict[str, Tensor], kept: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the masks of a smaller module: all stays but what an earlier stage pruned.

    Parameters
    ----------
    module : torch.nn.Module
        After :func:`remove_units`.
    inherited : dict of bool Tensor
        What an earlier stage left of each weight, in its old shape.
    kept : dict of bool Tensor
        What :func:`remove_units` returned.
    """
    masks = {}
    for name, weight in weight_matrices(module).items():
        stays = inherited.get(name)
        if stays is None:
            masks[name] = torch.ones(weight.shape, dtype=torch.bool)
        else:
            masks[name] = stays[kept[name]].view(weight.shape) if name in kept else stays
    return masks
