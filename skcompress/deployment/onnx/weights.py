"""Weights in ONNX: integers in the file, and the operations that decode them."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from ...quantization import FORMATS, QuantizedTensor
from .writer import Stored, Writer, dtype_of

SIGNED = {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16}
UNSIGNED = {
    2: TensorProto.UINT2, 4: TensorProto.UINT4, 8: TensorProto.UINT8, 16: TensorProto.UINT16,
}  # fmt: skip
EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class Codes:
    """The integers of a weight, and the numbers that each run of them shares.

    Parameters
    ----------
    codes : ndarray of shape (n_outputs, n_inputs)
        Integers times a scale, or with a codebook positions in it.
    kind : int
        ONNX type that holds them.
    scale, zero : Tensor of shape (n_outputs, n_runs)
        A weight is ``scale * (code - zero)``; zero only where codes are unsigned integers.
    size : int
        Inputs in a run; the last run may be shorter.
    book : Tensor of shape (n_levels,) or None
        What codes stand for, if not for themselves.
    shape : torch.Size
        Of the weight.
    """

    codes: np.ndarray
    kind: int
    scale: Tensor
    zero: Tensor | None
    size: int
    book: Tensor | None
    shape: torch.Size

    def rows(self, order: Tensor) -> Self:
        """Take the outputs in another order."""
        zero = None if self.zero is None else self.zero[order]
        shape = torch.Size([len(order), *self.shape[1:]])
        codes = self.codes[order.numpy()]
        return replace(self, codes=codes, scale=self.scale[order], zero=zero, shape=shape)


def to_codes(tensor: QuantizedTensor, narrowest: int = 2) -> Codes:
    """Read a quantized weight, with what the mask removes at a code that stands for zero.

    Parameters
    ----------
    tensor : QuantizedTensor
    narrowest : int
        Fewest bits of the types to choose from.
    """
    shape, grid = tensor.mask.shape, tensor.grid
    levels, mask, codes = grid.levels.cpu(), tensor.mask.cpu().flatten(1), tensor.codes.cpu()
    codes = codes.flatten(1)
    scale, zero = _by_run(tensor, grid.scale), _by_run(tensor, grid.zero_point)
    size = -(-codes.shape[1] // scale.shape[1])
    if isinstance(tensor.granularity, int):
        size = tensor.granularity
    if not FORMATS[tensor.format].is_integer:
        codes, levels = _with_zero(codes, levels, mask)
        kind = UNSIGNED[_width(len(levels) - 1, narrowest)]
        return Codes(codes.numpy(), kind, scale, None, size, levels, shape)
    if tensor.format == "affine":
        zeros = zero.repeat_interleave(size, 1)[:, : codes.shape[1]].long()
        codes = torch.where(mask, codes, zeros)
        kind = UNSIGNED[_width(2**tensor.bits - 1, narrowest)]
        return Codes(codes.numpy(), kind, scale, zero, size, None, shape)
    codes = torch.where(mask, levels[codes].long(), 0)
    kind = SIGNED[_width(2**tensor.bits - 1, narrowest)]
    return Codes(codes.numpy(), kind, scale, None, size, None, shape)


def _by_run(tensor: QuantizedTensor, column: Tensor) -> Tensor:
    """Lay numbers of groups out by output."""
    n_outputs, column = tensor.mask.shape[0], column.cpu()
    if tensor.granularity == "tensor":
        return column.reshape(1, 1).expand(n_outputs, 1)
    return column.reshape(n_outputs, -1)


def _with_zero(codes: Tensor, levels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Point what was pruned at a level of zero, a new one if there is none."""
    if mask.all():
        return codes, levels
    zeros = (levels == 0).nonzero()
    if not len(zeros):
        levels = torch.cat([levels, levels.new_zeros(1)])
    where = int(zeros[0]) if len(zeros) else len(levels) - 1
    return torch.where(mask, codes, where), levels


def _width(largest: int, narrowest: int) -> int:
    """Bits of the smallest ONNX type for integers from zero up."""
    return next(n for n in (2, 4, 8, 16) if n >= narrowest and largest < 2**n)


def write_codes(w: Writer, codes: Codes, hint: str, *, transpose: bool = False) -> str:
    """Add a weight to a graph as integers and what decodes them; return the decoded weight.

    Parameters
    ----------
    w : Writer
    codes : Codes
    hint : str
        Name of the weight.
    transpose : bool
        Whether to give it with inputs along the first of two dimensions.
    """
    # Without rounded activations, a runtime computes the products in floating point, so that plain
    # arithmetic, done once when the graph is loaded, says it better: onnxruntime 1.31 turns
    # DequantizeLinear of 4-bit weights before a MatMul into a kernel that rounds activations.
    ranges = w.integers.ranges if w.integers else None
    if ranges is None or codes.scale.dtype != torch.float32:
        weight = w.reshape(_look_up(w, codes, hint), codes.shape)
        return w.add("Transpose", weight, perm=[1, 0]) if transpose else weight
    integers = codes.codes.T if transpose else codes.codes.reshape(codes.shape)
    stored = w.store_integers(integers, codes.kind, hint)
    # Kernels of 8-bit integers want a type of theirs, and a zero point also where that is zero.
    dtype = torch.int8 if codes.zero is None else torch.uint8
    stored = stored if codes.kind in EIGHT_BITS else w.cast(stored, dtype)
    scale = codes.scale[:, 0]
    zero = torch.zeros(len(scale)) if codes.zero is None else codes.zero[:, 0]
    return w.add(
        "DequantizeLinear", stored, w.constant(scale), w.constant(zero, dtype),
        axis=1 if transpose else 0,
    )  # fmt: skip


def _look_up(w: Writer, codes: Codes, hint: str) -> str:
    """Decode by operations that take any type: of shape (n_outputs, n_inputs)."""
    stored = w.store_integers(codes.codes, codes.kind, hint)
    if codes.book is None:
        values = w.cast(stored, codes.scale.dtype)
    else:
        values = w.add("Gather", w.constant(codes.book), w.cast(stored, torch.int32))
    if codes.zero is not None:
        values = w.add("Sub", values, _spread(w, codes.zero, codes))
    if bool((codes.scale == 1).all()):
        return values
    return w.add("Mul", values, _spread(w, codes.scale, codes))


def _spread(w: Writer, numbers: Tensor, codes: Codes) -> str:
    """Repeat the numbers of runs at run time, where an output has several."""
    n_outputs, n_runs = numbers.shape
    stored = w.constant(numbers)
    if n_runs == 1:
        return stored
    apart = w.add("Unsqueeze", stored, w.indices([2]))
    repeated = w.add("Expand", apart, w.indices([1, 1, codes.size]))
    flat = w.reshape(repeated, [n_outputs, n_runs * codes.size])
    ends = w.indices([codes.codes.shape[1]])
    return w.add("Slice", flat, w.indices([0]), ends, w.indices([1]))


def weight(w: Writer, stored: Stored, *, transpose: bool = False) -> str:
    """Return a parameter in a graph, decoded if it is quantized, with two dimensions swapped."""
    codes = w.codes.get(stored.name)
    if codes is None:
        return w.constant(stored.tensor.T if transpose else stored.tensor, hint=stored.name)
    key = stored.name, transpose
    if key not in w.root.known:
        assert stored.name
        w.root.known[key] = write_codes(w.root, codes, stored.name, transpose=transpose)
    return w.root.known[key]


def value(w: Writer, x: Any, node: Any = None, dtype: torch.dtype | None = None) -> str:
    """Return anything that an operation takes as a value of the graph, of a type if one is given.

    Parameters
    ----------
    w : Writer
    x : str, Stored, number or None
    node : Node or number
        What was traced in its place; only needed with a type.
    dtype : torch.dtype or None
    """
    if isinstance(x, Stored):
        if dtype not in (None, x.tensor.dtype):
            return w.constant(x.tensor.to(dtype))
        return weight(w, x)
    if not isinstance(x, str):
        return w.constant(x, dtype)
    return x if dtype in (None, dtype_of(node)) else w.cast(x, dtype)
