"""Tensors in a file: how each is described, and which of two coders it goes to."""

import lzma
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...quantization.tensors import QuantizedTensor
from .coder import Coder
from .errors import MAX_ADAPTIVE_BYTES, MAX_CELLS, MAX_DECISIONS, MAX_ELEMENTS, check
from .integers import Numbers, from_numbers, n_extra, to_numbers
from .matrices import code_matrix, n_decisions
from .text import code_data

# Bytes of one tensor that the adaptive coder takes.
_SMALL = 1 << 12
_FLAG = 10
# What needs more memory to decompress is bounded by this filter, not by what a file says.
_FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}
]
DTYPES = {
    "float32": ">f4", "float64": ">f8", "int64": ">i8", "int32": ">i4", "int16": ">i2",
    "int8": ">i1", "uint8": ">u1", "bool": ">u1", "float16": ">f2",
}  # fmt: skip


class Streams:
    """Where the parts of tensors go: to the adaptive coder, or past it to LZMA.

    Parameters
    ----------
    coder : Coder
    bulk : bytes
        When decoding, what :func:`compress` made.
    """

    def __init__(self, coder: Coder, bulk: bytes = b"") -> None:
        self.coder, self.bulk = coder, bytearray(bulk)
        self.decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        # What is left for the adaptive coder.
        self.bytes, self.decisions = MAX_ADAPTIVE_BYTES, MAX_DECISIONS

    def code(self, data: bytes, width: int, length: int) -> bytes:
        """Code numbers of `width` bytes, `length` bytes in all."""
        if length <= min(_SMALL, self.bytes):
            self.bytes -= length
            return code_data(self.coder, data, width, length)
        planes = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
        planes = self.past(planes, length)
        return np.frombuffer(planes, np.uint8).reshape(width, -1).T.tobytes()

    def past(self, data: bytes, length: int) -> bytes:
        """Pass bytes to LZMA, or take as many from it."""
        if not self.coder.decoding:
            self.bulk += data
            return data
        result = b""
        try:
            while len(result) < length and not self.decompressor.eof:
                given, self.bulk = bytes(self.bulk), bytearray()
                part = self.decompressor.decompress(given, length - len(result))
                check(len(part) > 0, "it ends too early")
                result = result + part if result else part
        except lzma.LZMAError as error:
            check(False, f"its large tensors are damaged ({error})")
        check(len(result) == length, "it ends too early")
        return result


def compress(data: bytes) -> bytes:
    """Compress what went past the adaptive coder."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)


def dtype_name(tensor: Tensor) -> str:
    """Name the type of a tensor; refuse one that a file cannot hold."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"A file holds tensors of {', '.join(DTYPES)}; got {name}.")
    return name


def code_dense(streams: Streams, tensor: Tensor | None, dtype: str, shape: list[int]) -> Tensor:
    """Code a tensor's own bytes."""
    kind = np.dtype(DTYPES[dtype])
    data = b"" if tensor is None else tensor.detach().cpu().numpy().astype(kind).tobytes()
    data = streams.code(data, kind.itemsize, math.prod(shape) * kind.itemsize)
    values = np.frombuffer(data, kind).reshape(shape)
    return torch.from_numpy(values.astype(kind.newbyteorder("=")).copy()).to(getattr(torch, dtype))


def code_masked(
    streams: Streams, tensor: Tensor | None, mask: Tensor | None, dtype: str, shape: list[int]
) -> tuple[Tensor, Tensor]:
    """Code a tensor's mask, and of its values those that stay; return both."""
    integers = None if mask is None else mask.cpu().numpy().astype(np.int64)
    kept = torch.from_numpy(code_integers(streams, integers, shape) != 0)
    values = None if tensor is None else tensor.detach().cpu()[kept]
    values = code_dense(streams, values, dtype, [int(kept.sum())])
    result = torch.zeros(shape, dtype=values.dtype)
    result[kept] = values
    return result, kept


def code_quantized(
    streams: Streams, tensor: QuantizedTensor | None, how: list, dtype: str, shape: list[int]
) -> QuantizedTensor:
    """Code integers, scales, and what else they need to stand for weights."""
    numbers = None if tensor is None else to_numbers(tensor, how)
    extra = None if numbers is None else torch.from_numpy(numbers.extra)
    extra = code_dense(streams, extra, dtype, [n_extra(how, shape)])
    integers = code_integers(streams, None if numbers is None else numbers.integers, shape)
    return from_numbers(Numbers(integers, extra.numpy()), how)


def code_integers(streams: Streams, integers: Any, shape: list[int]) -> np.ndarray:
    """Code an array of integers, adaptively unless that takes too long."""
    rows, columns = shape[0], math.prod(shape[1:])
    if integers is None:
        integers = np.zeros((rows, columns), np.int64)
    matrix = integers.reshape(rows, columns)
    # A decoder is told, and the coder itself bounds what it decides.
    needed = n_decisions(matrix) if matrix.size <= MAX_CELLS else MAX_DECISIONS + 1
    if not streams.coder.bit(int(needed <= streams.decisions), [_FLAG], _FLAG):
        return _code_past(streams, matrix).reshape(shape)
    check(matrix.size <= MAX_CELLS, "a matrix is too large for its coder")
    streams.decisions -= needed
    cells = matrix.tolist()
    code_matrix(streams.coder, cells, _period(shape))
    return np.array(cells, np.int64).reshape(shape)


def _period(shape: list[int]) -> int:
    """Return how far apart columns stand that belong together: a kernel, or a row of pixels."""
    columns = math.prod(shape[1:])
    if len(shape) > 2:
        return math.prod(shape[2:]) if math.prod(shape[2:]) > 1 else columns
    side = math.isqrt(columns)
    return side if side * side == columns and side > 1 else columns


def _code_past(streams: Streams, matrix: np.ndarray) -> np.ndarray:
    """Pass integers to LZMA: which are not zero where few are, and two bytes or one of each."""
    coder, size = streams.coder, matrix.size
    check(size <= MAX_ELEMENTS, f"a tensor has {size} elements")
    flat = matrix.reshape(-1)
    narrow = coder.bit(int(np.abs(flat).max(initial=0) < 128), [_FLAG], _FLAG)
    sparse = coder.bit(int((flat != 0).mean() < 0.25), [_FLAG], _FLAG)
    kind = np.dtype(">i1" if narrow else ">i4")
    if not sparse:
        data = streams.past(flat.astype(kind).tobytes(), size * kind.itemsize)
        return np.frombuffer(data, kind).astype(np.int64)
    used = streams.past(np.packbits(flat != 0).tobytes(), -(-size // 8))
    places = np.unpackbits(np.frombuffer(used, np.uint8), count=size).astype(bool)
    data = flat[places].astype(kind).tobytes() if not coder.decoding else b""
    values = streams.past(data, int(places.sum()) * kind.itemsize)
    result = np.zeros(size, np.int64)
    result[places] = np.frombuffer(values, kind)
    return result
