"""Products of rounded activations in ONNX: what ``IntegerModule`` computes."""

from typing import Any

import torch
from onnx import TensorProto

from .weights import Codes, value, weight
from .writer import Stored, Writer

# Types that products of 8-bit integers take, by those that integers are stored in.
PRODUCT_TYPES: dict[int, torch.dtype] = {
    TensorProto.INT2: torch.int8,
    TensorProto.INT4: torch.int8,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT2: torch.uint8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.UINT8: torch.uint8,
}


def rounds(w: Writer, matrix: Any) -> bool:
    """Tell whether what a weight is multiplied with is rounded."""
    return w.integers is not None and isinstance(matrix, Stored) and matrix.name in w.codes


def linear_of_integers(w: Writer, x: str, rank: int, matrix: Stored, bias: Any) -> str:
    """Write a linear function of rounded inputs with `rank` dimensions."""
    if w.integers.ranges is not None:
        x = static(w, x, matrix)
        if rank == 2:
            return w.add("Gemm", x, weight(w, matrix), *_biases(w, matrix, bias), transB=1)
        y = w.add("MatMul", x, weight(w, matrix, transpose=True))
        return y if bias is None else w.add("Add", y, *_biases(w, matrix, bias))
    q, scale = dynamic(w, x, [-1], matrix.tensor.dtype)
    codes = w.codes[matrix.name]
    # A single factor, the product of both scales, would be taken for that of a whole batch:
    # onnxruntime 1.31 fuses it into MatMulIntegerToFloat, which knows no scale for each row.
    y = w.add("Mul", _sums(w, q, codes, matrix), w.constant(codes.scale[:, 0]))
    y = w.add("Mul", y, scale)
    return y if bias is None else w.add("Add", y, value(w, bias))


def convolution_of_integers(
    w: Writer, x: str, kernel: Stored, bias: Any, settings: dict[str, Any]
) -> str:
    """Write a convolution of rounded inputs.

    With a scale for each row, floating-point numbers hold the integers and their sums: exact up
    to 2**24, and faster in onnxruntime than its convolution of integers.
    """
    if w.integers.ranges is not None:
        biases = _biases(w, kernel, bias)
        return w.add("Conv", static(w, x, kernel), weight(w, kernel), *biases, **settings)
    rank, dtype, codes = kernel.tensor.dim(), kernel.tensor.dtype, w.codes[kernel.name]
    q, scale = dynamic(w, x, list(range(1, rank)), dtype)
    sums = w.add(
        "Conv", q, w.reshape(_as_floats(w, codes, kernel), kernel.tensor.shape), **settings
    )
    shape = (1, -1, *[1] * (rank - 2))
    y = w.add("Mul", sums, w.add("Mul", scale, w.constant(codes.scale[:, 0].reshape(shape))))
    return y if bias is None else w.add("Add", y, w.constant(bias.tensor.reshape(shape)))


def static(w: Writer, x: str, matrix: Stored) -> str:
    """Round a value to the range that its weight's inputs had in ``fit``."""
    scale, zero_point = step(w, matrix)
    scales, zero = w.constant(scale, torch.float32), w.constant(zero_point, torch.uint8)
    return w.add("DequantizeLinear", w.add("QuantizeLinear", x, scales, zero), scales, zero)


def step(w: Writer, matrix: Stored) -> tuple[float, int]:
    """Return the scale and zero point of what a weight is multiplied with."""
    low, high = w.integers.ranges[matrix.name]
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, round(-low / scale)


def _biases(w: Writer, matrix: Stored, bias: Any) -> tuple[str, ...]:
    """Return a bias as kernels of integers take it: in the unit of their sums, if it fits."""
    if bias is None:
        return ()
    codes = w.codes[matrix.name]
    scale = step(w, matrix)[0] * codes.scale[:, 0]
    integers = (bias.tensor / scale).round() if isinstance(bias, Stored) else None
    if integers is None or scale.dtype != torch.float32 or integers.abs().max() > 2**30:
        return (value(w, bias),)
    stored = w.constant(integers.to(torch.int32), hint=bias.name)
    return (w.add("DequantizeLinear", stored, w.constant(scale), axis=0),)


def dynamic(w: Writer, x: str, axes: list[int], dtype: torch.dtype) -> tuple[str, str]:
    """Round each row of a value to integers; return them, as floats, and the scales."""
    largest = w.add("ReduceMax", w.add("Abs", x), w.indices(axes))
    scale = w.add("Div", largest, w.constant(127.0, dtype))
    positive = w.add("Greater", scale, w.constant(0.0, dtype))
    scale = w.add("Where", positive, scale, w.constant(1.0, dtype))
    return w.add("Round", w.add("Div", x, scale)), scale


def _sums(w: Writer, q: str, codes: Codes, matrix: Stored) -> str:
    """Multiply the integers of activations with those of a weight."""
    dtype = PRODUCT_TYPES.get(codes.kind)
    if dtype is None:
        turned = w.root.add("Transpose", _as_floats(w, codes, matrix), perm=[1, 0])
        return w.add("MatMul", q, turned)
    key = matrix.name, "integers"
    if key not in w.root.known:
        stored = w.store_integers(codes.codes.T, codes.kind, str(matrix.name))
        w.root.known[key] = w.root.cast(stored, dtype)
    zero = None if codes.zero is None else w.constant(codes.zero[:, 0], dtype)
    sums = w.add("MatMulInteger", w.cast(q, torch.int8), w.root.known[key], None, zero)
    return w.cast(sums, matrix.tensor.dtype)


def _as_floats(w: Writer, codes: Codes, matrix: Stored) -> str:
    """Return the integers of a weight, of shape (n_outputs, n_inputs), as floats."""
    key = matrix.name, "floats"
    if key not in w.root.known:
        stored = w.store_integers(codes.codes, codes.kind, str(matrix.name))
        values = w.root.cast(stored, matrix.tensor.dtype)
        if codes.zero is not None:
            values = w.root.add("Sub", values, w.constant(codes.zero))
        w.root.known[key] = values
    return w.root.known[key]
