"""Round a net layer after layer, and what stays in floating point."""

from collections.abc import Callable

import torch
from skorch import NeuralNet
from torch import Tensor

from ..activations import first_rows
from ..layers import weight_matrices
from ..moments import second_moments
from ..training.loop import Data
from .straight_through import Quantized, set_weights
from .tensors import QuantizedTensor

# A sign and an exponent, as in float32: what is left of the bits is the fraction's.
_SIGN_AND_EXPONENT = 9


def round_layers(
    net: NeuralNet,
    data: Data,
    choose: Callable[[str, Tensor | None], QuantizedTensor],
    reconstruct: bool,
) -> Quantized:
    """Quantize layer after layer; the net's weights end as they were.

    Parameters
    ----------
    net : skorch.NeuralNet
    data : Data
        Rows whose activations reconstruction looks at.
    choose : callable
        ``choose(name, moment)`` quantizes a weight; `moment` holds the second moments of the
        layer's inputs, or None without `reconstruct`.
    reconstruct : bool
        Go through the layers in the order in which they run, and measure what enters each.
    """
    weights = weight_matrices(net.module_)
    dense = {name: weight.detach().clone() for name, weight in weights.items()}
    quantized: Quantized = {}
    # A module may have registered its layers in another order than it runs them in.
    for name in second_moments(net, first_rows(data)) if reconstruct else weights:
        # The layers before this one are rounded by now, as they will be in prediction.
        moment = second_moments(net, data, {name})[name] if reconstruct else None
        quantized[name] = choose(name, moment)
        set_weights(net, {name: quantized[name]})
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(dense[name])
    return {name: quantized[name] for name in weights}


@torch.no_grad()
def round_floats(net: NeuralNet, quantized: Quantized, bits: int) -> None:
    """Round, in place, parameters and buffers that stay in floating point.

    Parameters
    ----------
    net : skorch.NeuralNet
    quantized : dict of QuantizedTensor
        The weights that have integers, by name; they are left alone.
    bits : int
        From 10 to 32; see :func:`round_fraction`.
    """
    matrices = weight_matrices(net.module_)
    integers = {id(matrices[name]) for name in quantized}
    for tensor in (*net.module_.parameters(), *net.module_.buffers()):
        if tensor.is_floating_point() and id(tensor) not in integers:
            tensor.copy_(round_fraction(tensor, bits))


def round_fraction(tensor: Tensor, bits: int) -> Tensor:
    """Round to floating point of fewer bits, of which a sign and eight of exponent stay.

    What has no number near it in so few bits stays as it is: infinities, NaN, and the largest of
    all, which stand in masks of attention.

    Parameters
    ----------
    tensor : Tensor
    bits : int
        From 10 to 32. 16 is the format bfloat16, and 19 the format TF32.

    Returns
    -------
    rounded : Tensor of the same type

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.layerwise import round_fraction
    >>> round_fraction(torch.tensor([1.1, -3.3, 0.0]), bits=11).tolist()
    [1.0, -3.5, 0.0]
    """
    # In double precision no power of two of a narrower type overflows.
    fraction, exponent = torch.frexp(tensor.double())
    steps = 2.0 ** (bits - _SIGN_AND_EXPONENT + 1)  # the leading one is not stored
    rounded = torch.ldexp((fraction * steps).round() / steps, exponent).to(tensor.dtype)
    return torch.where(rounded.isfinite(), rounded, tensor)
