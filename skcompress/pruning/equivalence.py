"""Check that a module which became smaller still computes the same."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..layers import weight_matrices
from .removal import consumer_masks, remove_units
from .units import Units


def output(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Run a module in evaluation mode and return its first output; the inputs stay as they are."""
    module.eval()
    args, kwargs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (args, kwargs))
    with torch.no_grad():
        result = module(*args, **kwargs)
    return result[0] if isinstance(result, tuple) else result


def try_removal(
    module: nn.Module, units: Units, alive: Tensor, args: tuple, kwargs: dict[str, Any]
) -> None:
    """Mask units of a copy of a module and remove them, to see that this works.

    Raises
    ------
    ValueError
        As :func:`check_unchanged` does.
    """
    module = copy.deepcopy(module)
    weights = weight_matrices(module)
    with torch.no_grad():
        masks = consumer_masks(units, alive, {name: w.shape for name, w in weights.items()})
        for name, weight in weights.items():
            weight.masked_fill_(~masks[name].to(weight.device), 0.0)
    remove_checked(module, units, alive, args, kwargs)


def remove_checked(
    module: nn.Module, units: Units, alive: Tensor, args: tuple, kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    """Remove masked units in place, and check that nothing else has changed.

    Returns
    -------
    masks : dict of bool Tensor
        What :func:`~skcompress.pruning.removal.remove_units` returns.
    """
    before = output(module, args, kwargs)
    kept = remove_units(module, units, alive)
    check_unchanged(module, before, args, kwargs, kept)
    return kept


def check_unchanged(
    module: nn.Module,
    before: Tensor,
    args: tuple,
    kwargs: dict[str, Any],
    changed: Iterable[str],
) -> None:
    """Refuse a removal after which the module fails or computes something else.

    Parameters
    ----------
    module : torch.nn.Module
        The module without the units.
    before : Tensor
        What it computed while they were only masked.
    args, kwargs
        The inputs of `before`.
    changed : iterable of str
        Names of the parameters that became smaller.

    Raises
    ------
    ValueError
        Naming the layers that became smaller.
    """
    problem = None
    try:
        after = output(module, args, kwargs)
    except Exception as error:  # whatever the user's forward raises is the reason
        problem = f"its forward pass fails ({error})"
    else:
        # The two sum in another order.
        tolerance = 1e-4 if before.dtype == torch.float32 else 1e-8
        if after.shape != before.shape or not torch.allclose(
            after, before, rtol=tolerance, atol=tolerance
        ):
            problem = "its forward pass computes something else"
    if problem:
        layers = sorted({name.rpartition(".")[0] for name in changed})
        raise ValueError(
            f"Removing units of {layers} from {type(module).__name__} is not possible: {problem}."
            " Does forward hold a width as a number, such as x.view(-1, 64)? Write x.flatten(1)"
            " or x.view(len(x), -1) instead, or use granularity='weight'."
        )
