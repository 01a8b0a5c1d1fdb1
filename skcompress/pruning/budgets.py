"""How much stays: a budget turns scores into masks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Masks = dict[str, Tensor]
Scores = dict[str, Tensor]

# A layer keeps at least this part of its share, so that a global ranking cannot empty it.
# A guard that was not tuned.
FLOOR = 0.1


@dataclass(frozen=True)
class Budget:
    """How much goes; exactly one field is set.

    Parameters
    ----------
    sparsity : float in [0, 1) or None
        Fraction that goes.
    threshold : float or None
        Whatever scores below it goes.
    max_weights : int or None
        At most as many weights stay.
    """

    sparsity: float | None = None
    threshold: float | None = None
    max_weights: int | None = None

    def n_removed(self, n_total: int) -> int:
        """Count what goes out of `n_total`."""
        if self.max_weights is not None:
            return max(0, n_total - self.max_weights)
        assert self.sparsity is not None
        return round(self.sparsity * n_total)


def select(scores: Scores, budget: Budget, scope: str, progress: float = 1.0) -> Masks:
    """Mark what stays.

    Parameters
    ----------
    scores : dict of Tensor
        By layer; negative scores mark what is already gone.
    budget : Budget
        The final budget.
    scope : {"global", "layer", "lamp"}
        Rank over all layers, within each, or over all by the LAMP score.
    progress : float in [0, 1]
        Part of the removal to do now, for gradual schedules.

    Returns
    -------
    masks : dict of bool Tensor
        True stays. A layer is never emptied by a ranking; ties go by position.

    Raises
    ------
    ValueError
        If a threshold empties a layer, or fewer weights than layers may stay.
    """
    if budget.threshold is not None:
        return _above(scores, budget.threshold * progress)
    total = sum(score.numel() for score in scores.values())
    goal = budget.n_removed(total)
    if total - goal < len(scores):
        raise ValueError(
            f"The budget leaves {total - goal} of {total}, but each of the {len(scores)} layers"
            " must keep at least one. Allow more, or make the net smaller."
        )
    if scope == "layer":
        fraction = goal / total if budget.sparsity is None else budget.sparsity
        at_most = budget.max_weights if progress == 1.0 else None
        return _by_layer(scores, fraction * progress, at_most)
    ranked = {n: lamp(s) for n, s in scores.items()} if scope == "lamp" else scores
    return _globally(ranked, round(goal * progress))


def lamp(score: Tensor) -> Tensor:
    """Divide each squared score by the sum of those at least as large: the LAMP score.

    Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from skcompress.pruning.budgets import lamp
    >>> lamp(torch.tensor([1.0, 2.0, 2.0]))
    tensor([0.1111, 0.5000, 1.0000])
    """
    ordered, order = score.flatten().sort(stable=True)
    squares = ordered.clamp(min=0).double().square()
    tails = squares.flip(0).cumsum(0).flip(0)
    # Scores of zero only: the order decides.
    relative = torch.where(tails > 0, squares / tails.clamp(min=1e-300), 0.0)
    relative = torch.where(ordered < 0, -1.0, relative).to(score.dtype)
    return torch.empty_like(relative).scatter_(0, order, relative).view_as(score)


def n_of_m(scores: Scores, n: int, m: int, progress: float = 1.0) -> Masks:
    """Keep the `n` best of every `m` weights that follow each other along the input.

    A rest of fewer than `m` inputs stays as it is, since hardware does not take it.

    Raises
    ------
    ValueError
        If no weight has `m` inputs.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021.
    """
    if all(score.shape[1] < m for score in scores.values()):
        raise ValueError(
            f"No weight has {m} inputs or more, so {n}:{m} sparsity removes nothing; the shapes are"
            f" {[tuple(score.shape) for score in scores.values()]}. Use granularity='weight'."
        )
    loss, masks = {}, {}
    for name, score in scores.items():
        inputs = score.movedim(1, -1)
        groups = inputs[..., : inputs.shape[-1] // m * m].unflatten(-1, (-1, m))
        order = groups.argsort(dim=-1, descending=True, stable=True)
        kept = torch.zeros_like(groups, dtype=torch.bool)
        kept.scatter_(-1, order[..., :n], True)
        mask = torch.ones_like(inputs, dtype=torch.bool)
        mask[..., : kept.shape[-2] * m] = kept.flatten(-2)
        masks[name] = mask.movedim(-1, 1).contiguous()
        loss[name] = torch.where(masks[name], torch.inf, score)
    if progress == 1.0:
        return masks
    going = sum(int((~mask).sum()) for mask in masks.values())
    return _lowest(loss, round(going * progress))


def _above(scores: Scores, threshold: float) -> Masks:
    masks = {name: score >= threshold for name, score in scores.items()}
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"threshold={threshold:g} empties {name!r}, whose scores go up to"
                f" {scores[name].max().item():g}. Choose a lower threshold, or sparsity=, which"
                " keeps part of every layer."
            )
    return masks


def _by_layer(scores: Scores, fraction: float, at_most: int | None) -> Masks:
    """Remove the same fraction of every layer; rounding must not exceed a number of weights."""
    masks: Masks = {}
    for name, score in scores.items():
        removed = min(round(fraction * score.numel()), score.numel() - 1)
        masks |= _lowest({name: score}, removed)
    if at_most is None or sum(count(mask) for mask in masks.values()) <= at_most:
        return masks
    kept = {name: torch.where(masks[name], score, -1.0) for name, score in scores.items()}
    total = sum(score.numel() for score in scores.values())
    return _globally(kept, total - at_most, floor=0.0)


def _globally(scores: Scores, removed: int, floor: float = FLOOR) -> Masks:
    """Remove the lowest of all layers together, but leave each layer its floor."""
    total = sum(score.numel() for score in scores.values())
    density = 1 - removed / total
    floors = {n: max(1, int(floor * density * s.numel())) for n, s in scores.items()}
    masks = _lowest(scores, removed)
    if all(count(masks[name]) >= least for name, least in floors.items()):
        return masks
    # What is already gone counts for no floor.
    floors = {n: min(least, max(1, count(scores[n] >= 0))) for n, least in floors.items()}
    if sum(floors.values()) > total - removed:
        floors = dict.fromkeys(floors, 1)
    if all(count(masks[name]) >= least for name, least in floors.items()):
        return masks
    protected = {}
    for name, score in scores.items():
        top = score.flatten().topk(floors[name]).indices
        protected[name] = score.flatten().index_fill(0, top, torch.inf).view_as(score)
    return _lowest(protected, removed)


def count(mask: Tensor) -> int:
    """Count what a mask keeps, several times faster than torch does."""
    return int(np.count_nonzero(mask.cpu().numpy()))


def _lowest(scores: Scores, removed: int) -> Masks:
    """Mask exactly `removed` entries of lowest score; among equal ones the first go."""
    together = torch.cat([score.flatten() for score in scores.values()])
    flat = together.cpu().numpy()
    keep = np.ones(flat.shape, dtype=bool)
    if removed:
        # Selecting takes less than sorting, and numpy's several times less than torch's.
        limit = np.partition(flat, removed - 1)[removed - 1]
        keep = flat > limit
        equal = np.flatnonzero(flat == limit)
        n_lower = flat.size - np.count_nonzero(keep) - equal.size
        keep[equal[removed - n_lower :]] = True
    parts = torch.from_numpy(keep).to(together.device).split([s.numel() for s in scores.values()])
    return {n: part.view_as(s) for (n, s), part in zip(scores.items(), parts, strict=True)}
