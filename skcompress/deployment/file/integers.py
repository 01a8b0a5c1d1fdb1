"""Quantized weights as integers around zero, and back."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...quantization.formats import FORMATS, Grid, symmetric_levels
from ...quantization.groups import from_rows, to_rows
from ...quantization.tensors import QuantizedTensor, pack
from .errors import check


@dataclass
class Numbers:
    """What a file holds of a quantized weight.

    Parameters
    ----------
    integers : int64 ndarray of the weight's shape
        Zero where a weight is pruned.
    extra : ndarray of shape (n,)
        The scales, and the zero points or the codebook where there are any.
    """

    integers: np.ndarray
    extra: np.ndarray


def describe(tensor: QuantizedTensor) -> list:
    """Say how a weight is quantized: what :func:`from_numbers` needs beside the numbers."""
    pruned = int(not tensor.mask.all())
    how = ["q", tensor.bits, tensor.format, tensor.granularity, pruned]
    return [*how, len(tensor.grid.levels)] if tensor.format == "codebook" else how


def n_groups(how: list, shape: list[int]) -> int:
    """Count the groups of weights that share a scale."""
    granularity = how[3]
    if granularity == "tensor":
        return 1
    return shape[0] * (1 if granularity == "channel" else -(-math.prod(shape[1:]) // granularity))


def n_extra(how: list, shape: list[int]) -> int:
    """Count the numbers beside the integers."""
    if how[2] == "codebook":
        return how[5]
    return n_groups(how, shape) * (2 if how[2] == "affine" else 1)


def padded_size(how: list, shape: list[int]) -> int:
    """Count the elements of whole groups."""
    size = math.prod(shape)
    return size if isinstance(how[3], str) else max(size, n_groups(how, shape) * how[3])


def to_numbers(tensor: QuantizedTensor, how: list) -> Numbers:
    """Turn the codes of a weight into integers.

    A weight that was kept and rounded to zero cannot be told from a pruned one: no prediction
    does, and masks would take a good part of the room.
    """
    grid, kept = tensor.grid, tensor.mask.cpu()
    if tensor.format == "codebook":
        extra = grid.levels
    else:
        shifts = grid.zero_point if tensor.format == "affine" else grid.scale[:0]
        extra = torch.cat([grid.scale.flatten(), shifts.flatten()])
    integers = tensor.codes.cpu() - _middle(how, grid, list(kept.shape))
    if _lacks_zero(how):
        # No level is zero, which is left for what is pruned.
        integers = torch.where(integers >= 0, integers + 1, integers)
    return Numbers((integers * kept).numpy(), extra.cpu().numpy())


def from_numbers(numbers: Numbers, how: list) -> QuantizedTensor:
    """Undo :func:`to_numbers`."""
    _, bits, name, granularity, pruned = how[:5]
    shape = list(numbers.integers.shape)
    grid = _grid(how, torch.from_numpy(numbers.extra), shape)
    integers = torch.from_numpy(numbers.integers)
    mask = integers != 0 if pruned else torch.ones(shape, dtype=torch.bool)
    if _lacks_zero(how):
        check(pruned or bool((integers != 0).all()), "a weight has no level")
        integers = torch.where(integers > 0, integers - 1, integers)
    codes = torch.where(mask, integers + _middle(how, grid, shape), 0)
    n_levels = len(grid.levels)
    in_range = codes.numel() == 0 or bool(((codes >= 0) & (codes < n_levels)).all())
    check(in_range, "a weight is none of its format's levels")
    return QuantizedTensor(pack(codes[mask], bits), bits, name, granularity, grid, mask)


def _lacks_zero(how: list) -> bool:
    """Tell whether no level stands for zero exactly."""
    return how[2] == "codebook" or (how[2] == "symmetric" and how[1] == 1)


def _middle(how: list, grid: Grid, shape: list[int]) -> Tensor | int:
    """Return the number of the level that is zero, or from which levels are counted."""
    if how[2] != "affine":
        return len(grid.levels) // 2
    zero = grid.zero_point.to(torch.int64).cpu()
    rows = zero.expand(-1, to_rows(torch.empty(shape, device="meta"), how[3]).shape[1])
    return from_rows(rows, torch.Size(shape), how[3])


def _grid(how: list, extra: Tensor, shape: list[int]) -> Grid:
    _, bits, name, *_ = how
    if name == "codebook":
        groups = torch.ones(n_groups(how, shape), 1, dtype=extra.dtype)
        return Grid(extra, groups, torch.zeros_like(groups))
    scale = extra[: n_groups(how, shape)].reshape(-1, 1)
    levels = _levels(name, bits).to(extra.dtype)
    if name != "affine":
        return Grid(levels, scale, torch.zeros_like(scale))
    zero = extra[len(scale) :].reshape(-1, 1)
    check(bool(((zero >= 0) & (zero < len(levels))).all()), "a zero point is none of the levels")
    return Grid(levels, scale, zero)


def _levels(name: str, bits: int) -> Tensor:
    """Return the levels of a format, which depend on the bits alone."""
    if name == "affine":
        return torch.arange(2.0**bits)
    if name == "symmetric":
        return symmetric_levels(bits)
    powers = 2.0 ** torch.arange(2 ** (bits - 1) - 1)
    return torch.cat([-powers.flip(0), torch.zeros(1), powers])


def check_description(how: list, shape: list[int]) -> None:
    """Refuse a description of a quantized weight that no :class:`QuantizedTensor` has."""
    good = len(how) in (5, 6) and how[2] in FORMATS and type(how[1]) is int
    good = good and how[1] in FORMATS[how[2]].widths and how[4] in (0, 1) and len(shape) > 1
    check(good, "a weight is quantized in no known way")
    granularity = how[3]
    grouped = type(granularity) is int and 2 <= granularity < 1 << 31
    check(granularity in ("tensor", "channel") or grouped, "scales are shared in no known way")
    if how[2] == "codebook":
        good = len(how) == 6 and type(how[5]) is int and 1 <= how[5] <= 2 ** how[1]
        check(good, "a codebook has no size")
