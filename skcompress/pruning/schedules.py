"""When weights go: at once, along a ramp, or in turns with dense training."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from skorch import NeuralNet
from torch import nn

from ..layers import weight_matrices
from ..training.loop import Data
from .budgets import Masks, count
from .criteria import Criterion, as_function, score
from .granularity import Choose
from .running import follow

# RAMP and START were chosen on digits and on rows of MNIST, apart from those that the benchmark
# reports; no rows of that choice are kept.
# The part of the phase in which masks change; the rest trains what stays.
RAMP = 0.5
# A short gradual schedule begins at the final density to this power: weights that are safely small
# go before the first, fast steps blur the ranking of the dense net.
START = 0.75
# A phase of more steps than this is long: it has the time to begin with fewer weights gone, in
# proportion, so that the ranking can follow the training.
LONG = 1000
# A gradual schedule sets its masks anew at least as often as the first, and in a long phase once
# in so many steps, up to the last.
N_UPDATES, STEPS_BETWEEN, MAX_UPDATES = 10, 40, 100
# How many rounds of dense and sparse training a projected schedule makes.
N_ROUNDS = 4
# Integers of as many bytes as a weight: -1 has all bits, 0 has none.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Pruner:
    """The masks of a net under compression.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialized; its weights are masked in place.
    data : Data
    criterion : str or callable
    choose : callable
        From scores and progress to masks.
    inherited : dict of bool Tensor
        What an earlier stage pruned, which never comes back.
    """

    net: NeuralNet
    data: Data
    criterion: str | Criterion
    choose: Choose
    inherited: Masks
    masks: Masks = field(init=False)

    def __post_init__(self) -> None:
        # Found once: masks are applied after every step.
        self._weights = weight_matrices(self.net.module_)
        self._squares = follow(as_function(self.criterion), self._weights)
        whole = {n: torch.ones_like(w, dtype=torch.bool) for n, w in self._weights.items()}
        self._set({name: self.inherited.get(name, mask) for name, mask in whole.items()})

    def _set(self, masks: Masks) -> None:
        self.masks = masks
        self._bits = {
            name: -masks[name].to(weight.device, _INTEGERS[weight.element_size()])
            for name, weight in self._weights.items()
        }

    def update(self, progress: float = 1.0, *, regrow: bool = False) -> None:
        """Choose masks anew; without `regrow`, what is gone ranks below all that is left."""
        chosen = self._choose(progress, self.inherited if regrow else self.masks)
        masks = {
            name: mask.cpu() & self.inherited.get(name, torch.tensor(True))
            for name, mask in chosen.items()
        }
        self._set(masks)
        self.apply()

    def density(self) -> float:
        """Return the part of the weights that the whole budget would leave by today's scores."""
        masks = self._choose(1.0, self.masks)
        n_weights = sum(mask.numel() for mask in masks.values())
        return 1 - masked_fraction(masks, n_weights)

    def _choose(self, progress: float, masks: Masks) -> Masks:
        means = None if self._squares is None else self._squares.values()
        scores = score(self.criterion, self.net, self.data, means)
        for name, mask in masks.items():
            scores[name] = torch.where(mask.to(scores[name].device), scores[name], -1.0)
        return self.choose(scores, progress)

    def watch(self) -> None:
        """Take up the gradients of a training step, if the criterion asks for them."""
        if self._squares is not None:
            self._squares.add()

    @torch.no_grad()
    def apply(self, progress: float = 1.0) -> None:
        """Zero what is masked."""
        # By its bits, all or none: masked_fill_ takes ten times as long, a sixth of a step.
        for name, bits in self._bits.items():
            self._weights[name].detach().view(bits.dtype).bitwise_and_(bits)


def cubic_ramp(progress: float, start: float = 0.0) -> float:
    """Part of the removal that is done: rises from `start` to 1 within the ramp, fast at first.

    Source: Zhu and Gupta, "To prune, or not to prune", 2017.

    Examples
    --------
    >>> from skcompress.pruning.schedules import cubic_ramp
    >>> cubic_ramp(0.0), cubic_ramp(0.25), cubic_ramp(0.25, start=0.5), cubic_ramp(0.9)
    (0.0, 0.875, 0.9375, 1.0)
    """
    return 1 - (1 - start) * (1 - min(progress / RAMP, 1.0)) ** 3


def first_part(density: float, n_steps: int = 0) -> float:
    """Part of the removal that a gradual schedule begins with, for the density it ends at.

    Examples
    --------
    >>> from skcompress.pruning.schedules import first_part
    >>> round(first_part(0.01), 3)  # 1% stays in the end, 0.01 ** 0.75 = 3.2% at first
    0.978
    >>> round(first_part(0.01, n_steps=15_000), 3)  # 0.01 ** 0.05 = 79% at first
    0.208
    """
    power = START * min(1.0, LONG / max(n_steps, 1))
    return (1 - density**power) / (1 - density) if density < 1 else 1.0


def gradual(pruner: Pruner, n_steps: int) -> Callable[[float], None]:
    """Prune a part at once and the rest along a cubic ramp while training goes on.

    Nothing grows back.
    """
    start, done = first_part(pruner.density(), n_steps), 0
    often = min(int(RAMP * n_steps) // STEPS_BETWEEN, MAX_UPDATES)
    n_updates = max(N_UPDATES, often)
    pruner.update(start)

    def after_step(progress: float) -> None:
        nonlocal done
        pruner.watch()
        update = min(int(progress / RAMP * n_updates), n_updates)
        if update > done:
            done = update
            pruner.update(cubic_ramp(RAMP * update / n_updates, start))
        else:
            pruner.apply()

    return after_step


def projected(pruner: Pruner, n_steps: int) -> Callable[[float], None]:
    """Alternate dense phases with phases projected after each step; end with fixed masks.

    A projection keeps the k largest weights, whichever they are by then: iterative hard
    thresholding.

    Source: Blumensath and Davies, "Iterative hard thresholding for compressed sensing", 2009;
    Peste et al., "AC/DC: alternating compressed/decompressed training", NeurIPS 2021.
    """
    fixed = False

    def after_step(progress: float) -> None:
        nonlocal fixed
        if fixed:
            pruner.apply()
        elif progress >= RAMP:
            pruner.update(regrow=True)
            fixed = True
        elif int(progress / RAMP * 2 * N_ROUNDS) % 2:
            pruner.update(regrow=True)

    return after_step


SCHEDULES: dict[str, Callable[[Pruner, int], Callable[[float], None]]] = {
    "gradual": gradual,
    "projected": projected,
}


def zero_fraction(module: nn.Module, n_weights: int) -> float:
    """Fraction of `n_weights` that are zero in a module or gone from it, for whatever reason."""
    left = sum(count(weight.detach() != 0) for weight in weight_matrices(module).values())
    return 1 - left / n_weights


def masked_fraction(masks: Masks, n_weights: int) -> float:
    """Fraction of `n_weights` that masks do not keep."""
    kept = sum(count(mask) for mask in masks.values())
    return 1 - kept / n_weights
