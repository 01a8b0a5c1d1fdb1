"""Exact optimal brain surgeon, layer by layer: the weights that stay make up for those that go.

For each output of a layer, weights w are removed one at a time, always the one whose removal
adds least to ``E[((w - v) x)^2]`` after the remaining weights v have been adjusted optimally.

Source: Hassibi and Stork, "Optimal brain surgeon", 1993; Frantar and Alistarh, "Optimal brain
compression", NeurIPS 2022.
"""

from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn

from ..activations import first_rows
from ..layers import weight_matrices
from ..moments import second_moments
from ..training.loop import Data

Scores = dict[str, Tensor]

# Outputs times inputs cubed: about a minute on one core, bound by its memory.
MAX_OPERATIONS = 3e10
# Numbers that one chunk of inverse Hessians may hold, so that it stays in a core's cache.
CHUNK = 200_000


def obs(net: NeuralNet, X: Any, y: Any, sample_weight: Any) -> Scores:
    """Increase of the layer's squared error when a weight goes, in the order of removal.

    Scores rise along each output's order of removal, so that a weight is never removed before
    those that made it cheap.

    Raises
    ------
    ValueError
        If a layer is too large, or not one whose inputs can be unfolded.
    """
    weights = weight_matrices(net.module_)
    check_affordable(weights)
    moments = second_moments(net, Data(X, y, sample_weight))
    scores = {}
    for name, weight in weights.items():
        rows = weight.detach().double().flatten(1)
        scores[name] = removal_costs(rows, moments[name]).to(weight.dtype).view_as(weight)
    return scores


def check_layers(net: NeuralNet, data: Data) -> None:
    """Refuse layers that would take minutes or cannot be unfolded, before any training."""
    check_affordable(weight_matrices(net.module_))
    second_moments(net, first_rows(data))


def check_affordable(weights: dict[str, nn.Parameter]) -> None:
    """Refuse layers that would take minutes."""
    for name, weight in weights.items():
        n_inputs = weight[0].numel()
        if weight.shape[0] * n_inputs**3 > MAX_OPERATIONS:
            raise ValueError(
                f"criterion='obs' is not affordable for {name!r}: {weight.shape[0]} outputs times"
                f" {n_inputs} inputs cubed exceeds {MAX_OPERATIONS:g}. Use criterion='fisher',"
                " 'wanda' or 'magnitude'."
            )


def removal_costs(weight: Tensor, moment: Tensor) -> Tensor:
    """Cost of removing each weight, row by row, each after those cheaper than it.

    Parameters
    ----------
    weight : double Tensor of shape (n_outputs, n_inputs)
    moment : double Tensor of shape (n_inputs, n_inputs)
        Positive definite.

    Returns
    -------
    costs : Tensor of shape (n_outputs, n_inputs)
    """
    inverse = torch.linalg.inv(moment)
    size = max(1, CHUNK // inverse.numel())
    return torch.cat([_chunk_costs(rows, inverse) for rows in weight.split(size)])


def _chunk_costs(weight: Tensor, inverse: Tensor) -> Tensor:
    n_rows, n_left = weight.shape
    costs = torch.zeros_like(weight)
    w, H = weight.clone(), inverse.expand(n_rows, -1, -1).clone()
    left = torch.arange(n_left, device=weight.device).expand(n_rows, -1)
    gone = torch.zeros_like(w, dtype=torch.bool)
    row = torch.arange(n_rows, device=weight.device)
    highest = torch.zeros(n_rows, dtype=w.dtype, device=w.device)
    for removed in range(n_left):
        diagonal = H.diagonal(dim1=1, dim2=2)
        cost = torch.where(gone, torch.inf, w.square() / diagonal)
        lowest, p = cost.min(dim=1)
        highest = torch.maximum(highest, lowest)
        costs[row, left[row, p]] = highest
        column = H[row, p]
        pivot = diagonal[row, p, None].clone()
        w -= w[row, p, None] / pivot * column
        H -= (column / pivot)[:, :, None] * column[:, None, :]
        # The eliminated row and column are zero now; a pivot of one keeps the quotient finite.
        H[row, p, p] = 1.0
        gone[row, p] = True
        if n_left - removed - 1 < 0.8 * w.shape[1]:
            w, H, left, gone = _compacted(w, H, left, gone)
    return costs


def _compacted(w: Tensor, H: Tensor, left: Tensor, gone: Tensor) -> tuple[Tensor, ...]:
    """Drop eliminated weights, as many in each row."""
    stays = gone.logical_not().nonzero()[:, 1].view(len(w), -1)
    n = stays.shape[1]
    H = H.gather(1, stays[:, :, None].expand(-1, -1, H.shape[2]))
    H = H.gather(2, stays[:, None, :].expand(-1, n, -1))
    return w.gather(1, stays), H, left.gather(1, stays), gone.gather(1, stays)


@torch.no_grad()
def compensate(net: NeuralNet, data: Data, dense: Scores, masks: dict[str, Tensor]) -> None:
    """Set the weights that stay to their optimum for each layer, in place.

    The optimum over a given mask is where the one-at-a-time updates of the method end.

    Parameters
    ----------
    net : skorch.NeuralNet
    data : Data
    dense : dict of Tensor
        The weights before anything was removed.
    masks : dict of bool Tensor
    """
    weights = weight_matrices(net.module_)
    for name, weight in weights.items():
        weight.copy_(dense[name])
    moments = second_moments(net, data)
    for name, weight in weights.items():
        rows = weight.double().flatten(1)
        for row, mask in zip(rows, masks[name].flatten(1), strict=True):
            if mask.any() and not mask.all():
                kept = moments[name][mask]
                row[mask] = torch.linalg.solve(kept[:, mask], kept @ row)
        weight.copy_(rows.to(weight.dtype).view_as(weight) * masks[name])
