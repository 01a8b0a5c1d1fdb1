"""Running means of what training shows anyway, for criteria that use it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

KEYWORD = "mean_squares"


class RunningSquares:
    """Running means of squared gradients over the steps of training.

    Parameters
    ----------
    weights : dict of Parameter
        By name.
    decay : float in [0, 1)
        What a step leaves of the mean before it.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights, self.decay, self.n_steps = weights, decay, 0
        self.means = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    @torch.no_grad()
    def add(self) -> None:
        """Take up the gradients of the step that was just made."""
        self.n_steps += 1
        for name, weight in self.weights.items():
            self.means[name].mul_(self.decay)
            if weight.grad is not None:
                self.means[name].addcmul_(weight.grad, weight.grad, value=1 - self.decay)

    def values(self) -> dict[str, Tensor] | None:
        """Return the means, corrected for their start at zero; None before they are settled."""
        if round(self.n_steps * (1 - self.decay), 9) < 1:
            return None
        correction = 1 - self.decay**self.n_steps
        return {name: mean / correction for name, mean in self.means.items()}


def follow(criterion: Callable[..., Any], weights: Mapping[str, Tensor]) -> RunningSquares | None:
    """Return running means for a criterion that takes them, as a keyword, and None for others.

    Examples
    --------
    >>> from skcompress.pruning.criteria import magnitude, tempered_fisher
    >>> from skcompress.pruning.running import follow
    >>> follow(magnitude, {}) is None, follow(tempered_fisher, {}).decay
    (True, 0.998)
    """
    parameters = inspect.signature(criterion).parameters
    if KEYWORD not in parameters:
        return None
    return RunningSquares(weights, parameters["decay"].default)
