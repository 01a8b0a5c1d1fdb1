"""Bits for each layer: few where rounding costs little, as many as needed elsewhere."""

from collections.abc import Callable

import torch
from skorch import NeuralNet

from ..layers import weight_matrices
from ..training.loop import Data, batch_losses
from .straight_through import Quantized, set_weights
from .tensors import QuantizedTensor

Choices = dict[str, dict[int, QuantizedTensor]]


@torch.no_grad()
def mean_loss(net: NeuralNet, data: Data) -> float:
    """Return the net's loss, averaged over the rows in evaluation mode."""
    total, weights = 0.0, 0.0
    for loss, weight in batch_losses(net, data):
        total += float(loss) * weight
        weights += weight
    return total / weights


def total_bytes(net: NeuralNet, quantized: Quantized) -> int:
    """Count the bytes of a net's parameters and buffers, with these weights in place of its own.

    Examples
    --------
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress.quantization.allocation import total_bytes
    >>> net = NeuralNetClassifier(nn.Linear, module__in_features=4, module__out_features=3)
    >>> total_bytes(net.initialize(), {})  # 12 weights and 3 biases of 4 bytes
    60
    """
    replaced = {id(weight) for n, weight in weight_matrices(net.module_).items() if n in quantized}
    tensors = [*net.module_.parameters(), *net.module_.buffers()]
    rest = sum(t.numel() * t.element_size() for t in tensors if id(t) not in replaced)
    return rest + sum(tensor.n_bytes for tensor in quantized.values())


def sensitivities(
    net: NeuralNet, data: Data, choices: Choices
) -> tuple[float, dict[tuple[str, int], float]]:
    """Measure the loss with no layer quantized, and what each alone at each width adds to it."""
    weights = weight_matrices(net.module_)
    dense, added = mean_loss(net, data), {}
    for name, by_bits in choices.items():
        before = weights[name].detach().clone()
        for bits, tensor in by_bits.items():
            set_weights(net, {name: tensor})
            added[name, bits] = mean_loss(net, data) - dense
        with torch.no_grad():
            weights[name].copy_(before)
    return dense, added


def steps_down(choices: Choices, added: dict[tuple[str, int], float]) -> list[tuple[str, int]]:
    """Order the narrower widths by what each costs in loss for every byte that it saves.

    Source: Yao et al., "HAWQ-V3: dyadic neural network quantization", ICML 2021, in the form of
    a greedy choice.

    Returns
    -------
    steps : list of (name, bits)
        Each layer's widths fall along the list.
    """
    current = {name: max(by_bits) for name, by_bits in choices.items()}
    steps = []
    while options := [
        (_price(choices[n], added, n, bits, lower), n, lower)
        for n, bits in current.items()
        for lower in choices[n]
        if lower < bits
    ]:
        _, name, bits = min(options)
        current[name] = bits
        steps.append((name, bits))
    return steps


def _price(
    by_bits: dict[int, QuantizedTensor],
    added: dict[tuple[str, int], float],
    name: str,
    bits: int,
    lower: int,
) -> float:
    """Loss for each byte saved; noise that looks like a gain is none."""
    saved = by_bits[bits].n_bytes - by_bits[lower].n_bytes
    return max(added[name, lower] - added[name, bits], 0.0) / max(saved, 1)


def allocate(
    net: NeuralNet,
    data: Data,
    choose: Callable[[str, int], QuantizedTensor],
    widths: tuple[int, ...],
    max_bytes: int | None,
    max_loss: float | None,
) -> dict[str, int]:
    """Choose the bits of each layer.

    Parameters
    ----------
    net : skorch.NeuralNet
        Dense; left as it is.
    data : Data
        Rows to measure the loss on.
    choose : callable
        ``choose(name, bits)`` gives a quantized weight.
    widths : tuple of int
        Bits to choose from.
    max_bytes : int or None
        What the net's parameters and buffers may take in all.
    max_loss : float or None
        How much the mean loss on the rows may rise.

    Raises
    ------
    ValueError
        If the fewest bits take more than `max_bytes`, or the most bits cost more than `max_loss`.
    """
    choices = {n: {b: choose(n, b) for b in widths} for n in weight_matrices(net.module_)}
    dense, added = sensitivities(net, data, choices)
    bits = dict.fromkeys(choices, max(widths))
    steps = steps_down(choices, added)
    if max_bytes is not None:
        return _within_bytes(net, choices, bits, steps, max_bytes)
    assert max_loss is not None
    return _within_loss(net, data, choices, bits, steps, dense + max_loss)


def check_bytes(net: NeuralNet, narrowest: Quantized, max_bytes: int) -> None:
    """See that a net can be small enough.

    Raises
    ------
    ValueError
        If it is not with the fewest bits in every layer.
    """
    least = total_bytes(net, narrowest)
    if least > max_bytes:
        bits = min(tensor.bits for tensor in narrowest.values())
        raise ValueError(
            f"max_bytes={max_bytes} cannot be met: with {bits} bits in every layer the net still"
            f" takes {least} bytes. Allow more, prune first, or wrap a smaller net."
        )


def _within_bytes(
    net: NeuralNet,
    choices: Choices,
    bits: dict[str, int],
    steps: list[tuple[str, int]],
    max_bytes: int,
) -> dict[str, int]:
    """Go down until the net is small enough."""

    def n_bytes() -> int:
        return total_bytes(net, _chosen(choices, bits))

    undo = []
    while n_bytes() > max_bytes:
        if not steps:
            check_bytes(net, _chosen(choices, bits), max_bytes)
        name, lower = steps.pop(0)
        undo.append((name, bits[name]))
        bits[name] = lower
    # The last step may have gone further than needed: give back what still fits.
    for name, wider in reversed(undo):
        narrow, bits[name] = bits[name], wider
        if n_bytes() > max_bytes:
            bits[name] = narrow
    return bits


def _within_loss(
    net: NeuralNet,
    data: Data,
    choices: Choices,
    bits: dict[str, int],
    steps: list[tuple[str, int]],
    highest: float,
) -> dict[str, int]:
    """Go down as far as the loss of the whole quantized net allows, by bisection."""

    def after(n_steps: int) -> dict[str, int]:
        return bits | dict(steps[:n_steps])

    def fits(n_steps: int) -> bool:
        return _loss_with(net, data, _chosen(choices, after(n_steps))) <= highest

    if not fits(0):
        raise ValueError(
            f"max_loss cannot be met: {max(bits.values())} bits in every layer already raise the"
            f" loss above {highest:g}. Allow more, or set bits=16 with format='symmetric' and"
            " activations=None."
        )
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return after(low)


def _chosen(choices: Choices, bits: dict[str, int]) -> Quantized:
    return {name: choices[name][width] for name, width in bits.items()}


def _loss_with(net: NeuralNet, data: Data, quantized: Quantized) -> float:
    """Measure the loss of the quantized net; the net keeps its own weights."""
    weights = weight_matrices(net.module_)
    before = {name: weights[name].detach().clone() for name in quantized}
    set_weights(net, quantized)
    loss = mean_loss(net, data)
    with torch.no_grad():
        for name, weight in before.items():
            weights[name].copy_(weight)
    return loss
