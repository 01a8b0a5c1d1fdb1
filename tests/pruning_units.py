"""Removable units of the shared modules, and choices among them."""

import copy
import functools

import torch

from skcompress.graph import trace
from skcompress.layers import weight_matrices
from skcompress.pruning.budgets import Budget
from skcompress.pruning.granularity import ChooseUnits
from skcompress.pruning.removal import remove_units
from skcompress.pruning.units import find_units
from tests.pruning_modules import build, rows


def units_of(module, *inputs, **named):
    """Return the removable units of a module."""
    return find_units(trace(module, inputs, named, any_batch=False), inputs, named)


@functools.cache
def known_units(name):
    """Return the removable units of a module of :data:`MODULES`."""
    return units_of(build(name), rows(name, 2))


def shapes_of(module):
    """Return the shapes of prunable weights by name."""
    return {name: weight.shape for name, weight in weight_matrices(module).items()}


def random_choice(module, units, sparsity=0.5, scope="global", seed=0):
    """Choose units by random scores; return which stay, and the masks of the weights."""
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(s, generator=generator) for n, s in shapes_of(module).items()}
    choose = ChooseUnits(units, Budget(sparsity=sparsity), scope)
    return choose(scores, 1.0), choose.alive


@torch.no_grad()
def mask(module, masks):
    """Zero the masked weights of a module in place."""
    for name, weight in weight_matrices(module).items():
        weight.masked_fill_(~masks[name], 0.0)
    return module


def setting(name, seed=0):
    """Return a module, its units and random scores of its weights."""
    module = build(name, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        n: torch.rand(s, generator=generator, dtype=torch.double)
        for n, s in shapes_of(module).items()
    }
    return module, known_units(name), scores


def assert_removable(module, *inputs, n_units=None, seeds=range(3), **named):
    """Remove random units; the smaller module must compute what the masked one computes."""
    module = module.double().eval()
    units = units_of(module, *inputs, **named)
    if n_units is not None:
        assert units.n_units == n_units
    for seed in seeds:
        masks, alive = random_choice(module, units, seed=seed)
        masked = mask(copy.deepcopy(module), masks)
        smaller = copy.deepcopy(masked)
        assert remove_units(smaller, units, alive)
        with torch.no_grad():
            torch.testing.assert_close(
                smaller(*inputs, **named), masked(*inputs, **named), rtol=1e-9, atol=1e-9
            )
    return units
