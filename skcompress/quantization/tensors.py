"""QuantizedTensor: the integers that a weight is stored as, and what they stand for."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .formats import Grid
from .groups import Granularity, from_rows, to_rows


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight as packed integers.

    Parameters
    ----------
    packed : uint8 Tensor of shape (n_bytes,)
        The codes of the weights that `mask` keeps, one after the other, `bits` bits each, the
        highest first.
    bits : int
        From 1 to 16.
    format : str
        A key of ``skcompress.quantization.FORMATS``.
    granularity : "tensor", "channel" or int
        Which weights share a scale.
    grid : Grid
        What the codes stand for.
    mask : bool Tensor
        Of the weight's shape; what it does not keep is exactly zero.

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization import quantize
    >>> weight = torch.tensor([[0.1, -0.5, 1.0]])
    >>> quantized = quantize(weight, bits=4)
    >>> quantized.codes.tolist(), quantized.packed.numel()
    ([[8, 3, 14]], 2)
    >>> bool((quantized.dequantize() - weight).abs().max() < 0.08)
    True
    """

    packed: Tensor
    bits: int
    format: str
    granularity: Granularity
    grid: Grid
    mask: Tensor

    @property
    def codes(self) -> Tensor:
        """Numbers of levels, an int64 Tensor of the weight's shape; 0 where the mask is off."""
        codes = torch.zeros(self.mask.shape, dtype=torch.int64)
        codes[self.mask.cpu()] = unpack(self.packed, self.bits, int(self.mask.sum()))
        return codes.to(self.mask.device)

    def dequantize(self) -> Tensor:
        """Return the weight that the codes stand for."""
        rows = self.grid.decode(to_rows(self.codes, self.granularity))
        return from_rows(rows, self.mask.shape, self.granularity) * self.mask

    def integers(self) -> tuple[Tensor, Tensor]:
        """Return integers and scales of which a weight is the product.

        Only for integer formats whose scale belongs to the tensor or the channel.

        Returns
        -------
        integers : Tensor
            Of the weight's shape.
        scale : Tensor of shape (n_outputs,)
        """
        grid, shape = self.grid, self.mask.shape
        rows = grid.levels[to_rows(self.codes, self.granularity)] - grid.zero_point
        scale = from_rows(grid.scale, shape, self.granularity).flatten(1)[:, 0]
        return from_rows(rows, shape, self.granularity) * self.mask, scale

    @property
    def n_bytes(self) -> int:
        """Bytes of the codes, the scales, the zero points and the codebook.

        Where weights were pruned, a bit mask and the codes of the rest, or the codes of all,
        whichever is less. A zero point takes as many bits as a code.
        """
        total, kept = self.mask.numel(), int(self.mask.sum())
        codes = math.ceil(total * self.bits / 8)
        if kept < total:
            codes = min(codes, math.ceil(total / 8) + math.ceil(kept * self.bits / 8))
        scale = self.grid.scale
        size = scale.element_size()
        if self.format == "codebook":
            return codes + len(self.grid.levels) * size
        shifted = scale.numel() if self.format == "affine" else 0
        return codes + scale.numel() * size + math.ceil(shifted * self.bits / 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integers from 0 to ``2 ** bits - 1`` into bytes, the highest bit first.

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.tensors import pack, unpack
    >>> pack(torch.tensor([1, 2, 3]), 4).tolist()  # 0001 0010, 0011 0000
    [18, 48]
    >>> unpack(pack(torch.tensor([1, 2, 3]), 4), 4, 3).tolist()
    [1, 2, 3]
    """
    places = np.arange(bits - 1, -1, -1)
    digits = (codes.cpu().numpy().reshape(-1, 1) >> places) & 1
    return torch.from_numpy(np.packbits(digits.astype(np.uint8)))


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Undo :func:`pack` for `count` integers."""
    digits = np.unpackbits(packed.cpu().numpy(), count=count * bits).reshape(count, bits)
    return torch.from_numpy(digits.astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1)))
