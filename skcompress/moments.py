"""Second moments of what enters each layer: the curvature of the layer's own squared error."""

from collections.abc import Collection
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.fx import Node

from .activations import CONVOLUTIONS, NEEDS_NONE, operation, visit_inputs
from .layers import weight_matrices
from .training.loop import Data

# Relative to the mean second moment of a layer's inputs; keeps the inverse finite.
DAMPING = 1e-2


def second_moments(
    net: NeuralNet,
    data: Data,
    names: Collection[str] | None = None,
    remedy: str = NEEDS_NONE,
) -> dict[str, Tensor]:
    """Average ``x x^T`` over the inputs of each layer, damped.

    Parameters
    ----------
    net : skorch.NeuralNet
    data : Data
    names : collection of str, default=None
        Weights to look at; None means all.
    remedy : str
        What to do where inputs cannot be observed; ends the error.

    Returns
    -------
    moments : dict of double Tensor of shape (n_inputs, n_inputs)
        By name of the weight, in the order in which they are first used; patches are the inputs
        of a convolution.
    """
    weights = weight_matrices(net.module_)
    sums: dict[str, Tensor] = {}
    totals: dict[str, float] = dict.fromkeys(weights, 0.0)

    def add(name: str, x: Tensor, axis: int, node: Node, weight: Tensor) -> None:
        if names is not None and name not in names:
            return
        rows = _rows(name, x, node, weights[name], remedy).double()
        # A convolution is applied many times to each row, a linear layer once along all axes.
        shape = weight.shape if operation(node) in CONVOLUTIONS else (*x.shape[:-1], 1)
        by_row = weight.double().expand(shape).reshape(-1)
        by_row = by_row.repeat_interleave(len(rows) // len(by_row))
        sums[name] = sums.get(name, 0) + (by_row[:, None] * rows).T @ rows
        totals[name] += float(by_row.sum())

    visit_inputs(net, data, add, remedy=remedy)
    moments = {name: sums[name] / totals[name] for name in sums}
    for moment in moments.values():
        diagonal = moment.diagonal()
        diagonal += DAMPING * diagonal.mean() + torch.finfo(torch.double).tiny
    return moments


def _rows(name: str, x: Tensor, node: Node, weight: Tensor, remedy: str) -> Tensor:
    """Lay a layer's inputs out as rows, one for each application of the weight."""
    if operation(node) not in CONVOLUTIONS:
        return x.reshape(-1, x.shape[-1])
    _, _, _, stride, padding, dilation, groups = _convolution(node, weight.dim() - 2)
    if groups != 1 or isinstance(padding, str) or weight.dim() > 4:
        raise ValueError(
            f"The inputs of the convolution {name!r} cannot be laid out as rows (3-d, grouped, or"
            f" with padding given as a string). {remedy}"
        )
    if weight.dim() == 3:
        x = x.unsqueeze(2)
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
    kernel = (1, *weight.shape[2:])[-2:]
    patches = nn.functional.unfold(x, kernel, dilation, padding, stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _convolution(node: Node, n_dims: int) -> list[Any]:
    """Complete a convolution's arguments with their defaults."""
    defaults = [None, None, None, [1] * n_dims, [0] * n_dims, [1] * n_dims, 1]
    return [*node.args, *defaults[len(node.args) :]]
