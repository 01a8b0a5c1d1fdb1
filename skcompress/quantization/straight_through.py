"""Training a quantized net: gradients of the rounded weights move the weights behind them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from skorch import NeuralNet
from torch import Tensor

from ..layers import weight_matrices
from .groups import from_rows, to_rows
from .tensors import QuantizedTensor, pack

Quantized = dict[str, QuantizedTensor]


@torch.no_grad()
def set_weights(net: NeuralNet, quantized: Quantized) -> None:
    """Give a net's weight matrices, in place, the values that their codes stand for."""
    weights = weight_matrices(net.module_)
    for name, tensor in quantized.items():
        weights[name].copy_(tensor.dequantize())


class StraightThrough:
    """Keep a net's weights on their levels while it trains.

    The net holds rounded weights, so its gradients are those of the rounded net. After each step
    the change that the optimizer made is added to the weights behind them, which are rounded
    anew: the gradient passes straight through the rounding. Scales stay as they are. In a
    codebook no weight changes its code; weights that share a centre share their mean gradient,
    and move together.

    Source: Bengio et al., "Estimating or propagating gradients through stochastic neurons for
    conditional computation", 2013; Han et al., "Deep compression", ICLR 2016. They add up the
    gradients that weights of a centre have. An optimizer that is indifferent to the size of
    gradients, such as Adam, makes the same steps with the mean; for SGD, the mean is the step of
    the dense net as near as shared weights come to it, so that a rate at which that one trains
    does not diverge.

    Parameters
    ----------
    net : skorch.NeuralNet
        Holds the weights before rounding; they are rounded in place.
    quantized : dict of QuantizedTensor
        Where training starts.
    """

    def __init__(self, net: NeuralNet, quantized: Quantized) -> None:
        self.weights = weight_matrices(net.module_)
        dense = {name: self.weights[name].detach().clone() for name in quantized}
        set_weights(net, quantized)
        self.rounded = {name: self.weights[name].detach().clone() for name in quantized}
        self.behind = {n: self._start(t, dense[n]) for n, t in quantized.items()}
        self.quantized = quantized
        self.codes = {n: t.codes for n, t in quantized.items() if t.format == "codebook"}
        self.centres = {name: quantized[name].grid.levels for name in self.codes}
        self.counts = {
            n: codes[quantized[n].mask].bincount(minlength=len(self.centres[n]))
            for n, codes in self.codes.items()
        }

    @contextlib.contextmanager
    def shared_gradients(self) -> Iterator[None]:
        """Let weights of the same centre have the same gradient inside, their mean one."""
        handles = [self.weights[n].register_hook(partial(self._share, n)) for n in self.codes]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _share(self, name: str, gradient: Tensor) -> Tensor:
        means = self._means(name, gradient)
        return means[self.codes[name]] * self.quantized[name].mask

    def _start(self, tensor: QuantizedTensor, weight: Tensor) -> Tensor:
        """Return a weight that rounds to the codes of a tensor: itself, where it does."""
        rows = tensor.grid.encode(to_rows(weight, tensor.granularity))
        nearest = from_rows(rows, weight.shape, tensor.granularity) == tensor.codes
        return torch.where(nearest, weight, tensor.dequantize())

    @torch.no_grad()
    def __call__(self, progress: float) -> None:
        """Take up the step that was just made."""
        for name, tensor in self.quantized.items():
            weight, rounded = self.weights[name], self.rounded[name]
            if name in self.codes:
                means, used = self._means(name, weight), self.counts[name] > 0
                self.centres[name] = torch.where(used, means, self.centres[name])
                new = self.centres[name][self.codes[name]]
            else:
                behind = self.behind[name].add_(weight - rounded)
                rows = tensor.grid.round(to_rows(behind, tensor.granularity))
                new = from_rows(rows, weight.shape, tensor.granularity)
            rounded.copy_(new * tensor.mask)
            weight.copy_(rounded)

    def result(self) -> Quantized:
        """Return what training ended with."""
        return {name: self._result(name, tensor) for name, tensor in self.quantized.items()}

    def _result(self, name: str, tensor: QuantizedTensor) -> QuantizedTensor:
        if name in self.codes:
            return replace(tensor, grid=replace(tensor.grid, levels=self.centres[name]))
        rows = tensor.grid.encode(to_rows(self.behind[name], tensor.granularity))
        codes = from_rows(rows, tensor.mask.shape, tensor.granularity)
        return replace(tensor, packed=pack(codes[tensor.mask], tensor.bits))

    def _means(self, name: str, values: Tensor) -> Tensor:
        """Average numbers over the weights that have the same code."""
        # In double precision: a mean of equal numbers is that number, however many there are.
        kept = (values.double() * self.quantized[name].mask).flatten()
        sums = kept.new_zeros(len(self.counts[name]))
        sums = sums.index_add(0, self.codes[name].flatten(), kept)
        return (sums / self.counts[name].clamp(min=1)).to(values.dtype)
