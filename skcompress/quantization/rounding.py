"""How weights get their codes: the nearest, or layer by layer with an eye to the activations."""

import torch
from torch import Tensor

from .formats import FORMATS, OF_ZEROS, Grid, fixed_scale, middles
from .groups import Granularity, from_rows, to_rows
from .tensors import QuantizedTensor, pack


def default_granularity(name: str) -> Granularity:
    """Return one codebook for a tensor, and a scale for each output in the other formats."""
    return "tensor" if name == "codebook" else "channel"


def quantize(
    weight: Tensor,
    *,
    bits: int,
    format: str = "symmetric",
    granularity: Granularity | None = None,
    scale: float | None = None,
    mask: Tensor | None = None,
    moment: Tensor | None = None,
) -> QuantizedTensor:
    """Quantize a weight matrix.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, ...)
    bits : int
        One of the format's widths.
    format : {"symmetric", "affine", "codebook", "power-of-two"}, default="symmetric"
    granularity : "tensor", "channel" or int >= 2, default=None
        Which weights share a scale; None means the tensor for a codebook, else the channel.
    scale : float > 0, default=None
        Fixed scale of the symmetric format.
    mask : bool Tensor, default=None
        What stays, of the weight's shape; the rest is exactly zero. None keeps all.
    moment : Tensor of shape (n_inputs, n_inputs), default=None
        Second moments of the layer's inputs; with them, rounding makes up for its own errors.

    Returns
    -------
    quantized : QuantizedTensor

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization import quantize
    >>> quantize(torch.tensor([[0.3, 0.9]]), bits=2, scale=2.0**-2).dequantize().tolist()
    [[0.25, 0.25]]
    """
    weight = weight.detach()
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.to(weight.device)
    granularity = granularity or default_granularity(format)
    rows, kept = to_rows(weight, granularity), to_rows(mask, granularity)
    if scale is not None:
        grid = fixed_scale(rows, bits, scale)
    elif mask.any():
        grid = FORMATS[format].fit(rows, kept, bits)
    else:
        grid = fixed_scale(rows, 2, OF_ZEROS)
    codes = from_rows(grid.encode(rows), weight.shape, granularity)
    if moment is not None:
        codes = reconstruct(weight, codes, grid, granularity, mask, moment)
    return QuantizedTensor(pack(codes[mask], bits), bits, format, granularity, grid, mask)


def reconstruct(
    weight: Tensor,
    nearest: Tensor,
    grid: Grid,
    granularity: Granularity,
    mask: Tensor,
    moment: Tensor,
) -> Tensor:
    """Choose codes that keep a layer's outputs, input by input.

    The error that rounding one input's weights makes is spread over the weights of the inputs
    that are not rounded yet. An output for which that ends worse keeps the nearest codes.

    Source: Frantar et al., "GPTQ", ICLR 2023.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, ...)
    nearest : int64 Tensor of the same shape
        Codes of the nearest levels.
    grid : Grid
    granularity : "tensor", "channel" or int
    mask : bool Tensor of the same shape
    moment : double Tensor of shape (n_inputs, n_inputs)
        Positive definite.

    Returns
    -------
    codes : int64 Tensor of the same shape
    """
    scale, zero = (
        from_rows(x, weight.shape, granularity).flatten(1).double()
        for x in (grid.scale, grid.zero_point)
    )
    kept, levels, dense = mask.flatten(1), grid.levels.double(), weight.flatten(1).double()
    order = moment.diagonal().argsort(descending=True)
    # Row j tells how the weights of later inputs make up for an error in input j.
    spread = torch.linalg.cholesky(torch.linalg.inv(moment[order][:, order]), upper=True)
    ends = middles(levels)
    left, codes = dense[:, order].clone(), torch.zeros_like(nearest).flatten(1)
    for j, column in enumerate(order.tolist()):
        s, z = scale[:, column], zero[:, column]
        code = torch.bucketize((left[:, j] / s + z).contiguous(), ends)
        value = s * (levels[code] - z) * kept[:, column]
        error = (left[:, j] - value) / spread[j, j]
        left[:, j + 1 :] -= error[:, None] * spread[j, j + 1 :]
        codes[:, column] = code
    nearest = nearest.flatten(1)

    def loss(codes: Tensor) -> Tensor:
        error = dense - scale * (levels[codes] - zero) * kept
        return ((error @ moment) * error).sum(1, keepdim=True)

    return torch.where(loss(codes) < loss(nearest), codes, nearest).view_as(weight)
