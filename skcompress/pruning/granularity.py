"""What goes: single weights, two of every four, or whole units.

Each granularity turns scores of weights into masks of weights, for any progress of a schedule.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from skorch import NeuralNet
from torch import Tensor

from ..activations import example_inputs
from ..graph import trace
from ..training.loop import Data
from .budgets import Budget, Masks, Scores, n_of_m, select
from .removal import consumer_masks
from .units import Units, find_units

Choose = Callable[[Scores, float], Masks]


def choose_weights(budget: Budget, scope: str) -> Choose:
    """Choose single weights."""
    return lambda scores, progress: select(scores, budget, scope, progress)


def choose_two_of_four(transposed: Mapping[str, int] = MappingProxyType({})) -> Choose:
    """Choose the better two of every four neighbours along the input.

    Parameters
    ----------
    transposed : mapping of int
        Groups of transposed convolutions, whose weights lie the other way, by name.
    """

    def choose(scores: Scores, progress: float) -> Masks:
        turned = {n: _inputs_second(s, transposed.get(n)) for n, s in scores.items()}
        masks = n_of_m(turned, 2, 4, progress)
        return {n: _inputs_first(mask, transposed.get(n)) for n, mask in masks.items()}

    return choose


def _inputs_second(score: Tensor, groups: int | None) -> Tensor:
    """Lay (inputs, outputs of a group, ...) out as (outputs, inputs of a group, ...)."""
    if groups is None:
        return score
    return score.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _inputs_first(mask: Tensor, groups: int | None) -> Tensor:
    """Undo :func:`_inputs_second`, which does the same with inputs and outputs exchanged."""
    return _inputs_second(mask, groups).contiguous()


@dataclass
class ChooseUnits:
    """Choose units, and mask the weights that read those that go.

    Parameters
    ----------
    units : Units
    budget : Budget
        ``sparsity`` counts units, ``max_weights`` weights.
    scope : {"global", "layer", "lamp"}
        ``"global"`` ranks all units by their scores relative to the mean of their layer: the sums
        of layers that are read by more weights are larger throughout.
    average : bool, default=False
        The score of a unit is the mean over the weights that read it instead of the sum.

    Attributes
    ----------
    alive : bool Tensor of shape (n_units,)
        The choice made last.
    """

    units: Units
    budget: Budget
    scope: str
    average: bool = False

    def __post_init__(self) -> None:
        self.alive = torch.ones(self.units.n_units, dtype=torch.bool)

    def __call__(self, scores: Scores, progress: float) -> Masks:
        """Choose by the scores of weights, and return masks of weights."""
        shapes = {name: score.shape for name, score in scores.items()}
        members, by_layer = self._groups(unit_scores(scores, self.units, self.average))
        if self.scope == "global" and self.budget.threshold is None:
            by_layer = {name: relative(score) for name, score in by_layer.items()}
        budget = self.budget
        if budget.max_weights is not None:
            budget = self._within(by_layer, members, shapes)
        elif budget.sparsity is not None and self.units.siblings:
            budget = self._nearest(by_layer, members)
        self.alive = self._alive(by_layer, members, budget, progress)
        return consumer_masks(self.units, self.alive, shapes)

    def trials(self) -> Iterator[Masks]:
        """Yield choices of units by layer that a module should stand, if it stands any.

        Every second unit stays, all but the first, all but the last, and twice a random part.
        """
        _, by_layer = self._groups(torch.zeros(self.units.n_units))
        generator = torch.Generator().manual_seed(0)
        choices: list[Callable[[int], Tensor]] = [
            lambda n: torch.arange(n) % 2 == 0,
            lambda n: torch.arange(n) > 0,
            lambda n: torch.arange(n) < n - 1,
            *[lambda n: torch.rand(n, generator=generator) < 0.5] * 2,
        ]
        for choice in choices:
            masks = {name: choice(len(score)) for name, score in by_layer.items()}
            yield {n: m if m.any() else torch.ones_like(m) for n, m in masks.items()}

    def spread(self, masks: Masks) -> Tensor:
        """Tell which units are alive under masks of layers; those of other layers all are."""
        group, _ = self._groups(torch.zeros(self.units.n_units))
        return self._spread(masks, group)

    def _groups(self, scores: Tensor) -> tuple[Tensor, Scores]:
        """Join the hidden units of equal rank in a recurrent module's layers and directions.

        Returns the group of each unit, and the mean score of the groups by layer.
        """
        group = torch.arange(self.units.n_units)
        for parts in self.units.siblings:
            order = scores[parts].argsort(dim=1, stable=True)
            ranked = parts.gather(1, order)
            group[ranked] = ranked[0].expand_as(ranked)
        sums = torch.zeros_like(scores).index_add_(0, group, scores)
        means = sums / group.bincount(minlength=len(group)).clamp(min=1)
        firsts = group == torch.arange(len(group))
        self._columns = {n: u[firsts[u]] for n, u in self.units.layers.items() if firsts[u].any()}
        return group, {name: means[u] for name, u in self._columns.items()}

    def _alive(self, by_layer: Scores, group: Tensor, budget: Budget, progress: float) -> Tensor:
        return self._spread(select(by_layer, budget, self.scope, progress), group)

    def _spread(self, masks: Masks, group: Tensor) -> Tensor:
        """Let the first of each group decide for the others."""
        leader = torch.ones(len(group), dtype=torch.bool)
        for name, mask in masks.items():
            leader[self._columns[name]] = mask
        return leader[group]

    def _within(self, by_layer: Scores, group: Tensor, shapes: dict) -> Budget:
        """Find the least removal of units that leaves few enough weights."""

        def left(budget: Budget) -> int:
            return weights_left(self.units, self._alive(by_layer, group, budget, 1.0), shapes)

        most, budgets = self.budget.max_weights, _budgets(by_layer)
        assert most is not None
        if left(budgets[-1]) > most:
            raise ValueError(
                f"max_weights={most} cannot be met by removing units: one unit in each layer still"
                f" takes {left(budgets[-1])} weights. Allow at least that many, or use"
                " granularity='weight'."
            )
        return budgets[bisect_left(budgets, True, key=lambda budget: left(budget) <= most)]

    def _nearest(self, by_layer: Scores, group: Tensor) -> Budget:
        """Find the removal of groups, some of several units, that is nearest to the sparsity."""

        def gone(budget: Budget) -> int:
            return int((~self._alive(by_layer, group, budget, 1.0)).sum())

        n_units, budgets = self.units.n_units, _budgets(by_layer)
        goal, most = self.budget.n_removed(n_units), gone(budgets[-1])
        if goal > most:
            raise ValueError(
                f"The budget removes {goal} of {n_units} units, but each of the {len(by_layer)}"
                f" layers must keep at least one, so that at most {most} can go. Remove fewer."
            )
        place = bisect_left(budgets, goal, key=gone)
        below, above = budgets[max(place - 1, 0)], budgets[place]
        return below if goal - gone(below) < gone(above) - goal else above


def _budgets(by_layer: Scores) -> list[Budget]:
    """Return all removals that leave each layer something, the least first."""
    total = sum(score.numel() for score in by_layer.values())
    return [Budget(sparsity=removed / total) for removed in range(total - len(by_layer) + 1)]


def choose_units(
    net: NeuralNet, data: Data, budget: Budget, scope: str, average: bool
) -> ChooseUnits:
    """Find the units of a net's module, to choose among them."""
    args, kwargs = example_inputs(net, data)
    units = find_units(trace(net.module_, args, kwargs, any_batch=False), args, kwargs)
    return ChooseUnits(units, budget, scope, average)


def unit_scores(scores: Scores, units: Units, average: bool = False) -> Tensor:
    """Sum the scores of the weights that read each unit; -1 where all of them are gone.

    Removing a unit is the same as zeroing what reads it, so this is the score of the removal.

    Parameters
    ----------
    scores : dict of Tensor
        Scores of weights, -1 for those that are gone.
    units : Units
    average : bool
        Whether to divide the sum by the number of weights that are left.

    Returns
    -------
    scores : double Tensor of shape (n_units,)
    """
    total = torch.zeros(units.n_units + 1, dtype=torch.double)
    counts = torch.zeros_like(total)
    for name, dim in sorted(units.consumers):
        columns = scores[name].detach().cpu().double().movedim(dim, 0).flatten(1)
        # Position -1 (no unit) writes to the last entry.
        labels = units.slots[name, dim] % len(total)
        total.index_add_(0, labels, columns.clamp(min=0).sum(1))
        counts.index_add_(0, labels, (columns >= 0).double().sum(1))
    found = total / counts.clamp(min=1) if average else total
    return torch.where(counts == 0, -1.0, found)[:-1]


def relative(score: Tensor) -> Tensor:
    """Divide the scores of a layer by the mean of those that are not gone.

    Source: Fang et al., "DepGraph: towards any structural pruning", CVPR 2023.
    """
    left = score[score >= 0]
    mean = left.mean() if len(left) and left.any() else torch.tensor(1.0)
    return torch.where(score < 0, -1.0, score / mean)


def weights_left(units: Units, alive: Tensor, shapes: dict[str, torch.Size]) -> int:
    """Count the prunable weights of the module without the units that are not alive."""
    stays = torch.cat([alive, torch.tensor([True])])
    count = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        for dim, length in enumerate(shape):
            if (name, dim) in units.slots:
                size = size // length * int(stays[units.slots[name, dim]].sum())
        count += size
    return count
