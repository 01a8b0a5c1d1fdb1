"""Layers in ONNX: products with weights, normalization, pooling, attention."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from .integers import convolution_of_integers, linear_of_integers, rounds
from .weights import value, weight
from .writer import Stored, Writer, meta


def linear(w: Writer, node: Node, x: str, matrix: Any, bias: Any = None) -> str:
    """Write ``x W^T + b``."""
    rank = meta(node.args[0]).dim()
    if rounds(w, matrix):
        return linear_of_integers(w, x, rank, matrix, bias)
    if rank == 2 and isinstance(matrix, Stored):
        biases = () if bias is None else (value(w, bias),)
        return w.add("Gemm", x, weight(w, matrix), *biases, transB=1)
    return multiply(w, x, matrix, bias)


def multiply(w: Writer, x: str, matrix: Any, bias: Any) -> str:
    """Write a linear function of the last of any number of dimensions."""
    if isinstance(matrix, Stored):
        turned = weight(w, matrix, transpose=True)
    else:
        turned = w.add("Transpose", matrix, perm=[1, 0])
    y = w.add("MatMul", x, turned)
    return y if bias is None else w.add("Add", y, value(w, bias))


def each(numbers: Any, n: int) -> list[int]:
    """Repeat a number, or a list of one, for each of `n` dimensions."""
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    return numbers * n if len(numbers) == 1 else numbers


def pads(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return what is added before and after each dimension."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    return each(padding, len(kernel)) * 2


def convolution(
    w: Writer, node: Node, x: str, kernel: Any, bias: Any = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> str:  # fmt: skip
    """Write a convolution of one to three dimensions."""
    shape = list(meta(node.args[1]).shape[2:])
    dilations = each(dilation, len(shape))
    settings = {
        "kernel_shape": shape,
        "strides": each(stride, len(shape)),
        "pads": pads(padding, shape, dilations),
        "dilations": dilations,
        "group": groups,
    }
    if rounds(w, kernel):
        return convolution_of_integers(w, x, kernel, bias, settings)
    return w.add("Conv", x, value(w, kernel), None if bias is None else value(w, bias), **settings)


def transposed_convolution(
    w: Writer, node: Node, x: str, kernel: Any, bias: Any = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> str:  # fmt: skip
    """Write a transposed convolution."""
    n = meta(node.args[1]).dim() - 2
    return w.add(
        "ConvTranspose", x, value(w, kernel), None if bias is None else value(w, bias),
        strides=each(stride, n), pads=each(padding, n) * 2, dilations=each(dilation, n),
        output_padding=each(output_padding, n), group=groups,
    )  # fmt: skip


def _filled(w: Writer, node: Node, vector: Any, size: int, fill: float) -> str:
    """Return a vector of parameters, or the one that changes nothing."""
    if vector is not None:
        return value(w, vector)
    return w.constant(torch.full((size,), fill, dtype=meta(node.args[0]).dtype))


def batch_norm(
    w: Writer, node: Node, x: str, scale: Any, shift: Any, mean: Any, var: Any,
    training: bool, momentum: float, eps: float, cudnn: bool = False,
) -> str:  # fmt: skip
    """Write batch normalization by running statistics."""
    if mean is None or training:
        raise ValueError(
            "batch normalization without running statistics takes them from the batch, so that"
            " a row's prediction depends on its company. Build it with track_running_stats=True"
        )
    n = meta(node.args[0]).shape[1]
    vectors = _filled(w, node, scale, n, 1.0), _filled(w, node, shift, n, 0.0)
    return w.add("BatchNormalization", x, *vectors, value(w, mean), value(w, var), epsilon=eps)


def layer_norm(
    w: Writer, node: Node, x: str, shape: Sequence[int], scale: Any = None, shift: Any = None,
    eps: float = 1e-5, cudnn: bool = False,
) -> str:  # fmt: skip
    """Write layer normalization."""
    ones = torch.ones(list(shape), dtype=meta(node.args[0]).dtype)
    scale = w.constant(ones) if scale is None else value(w, scale)
    shift = None if shift is None else value(w, shift)
    return w.add("LayerNormalization", x, scale, shift, axis=-len(shape), epsilon=eps)


def group_norm(
    w: Writer, node: Node, x: str, groups: int, scale: Any = None, shift: Any = None,
    eps: float = 1e-5, cudnn: bool = False,
) -> str:  # fmt: skip
    """Write normalization of groups of channels, as that of instances of a single channel."""
    given, n = meta(node.args[0]), meta(node.args[0]).shape[1]
    ones, zeros = (torch.full((groups,), f, dtype=given.dtype) for f in (1.0, 0.0))
    joined = w.add("Reshape", x, w.indices([0, groups, -1]))
    y = w.add("InstanceNormalization", joined, w.constant(ones), w.constant(zeros), epsilon=eps)
    y = w.reshape(y, given.shape)
    axes = w.indices(list(range(1, given.dim() - 1)))
    for op, vector in (("Mul", scale), ("Add", shift)):
        if vector is not None:
            y = w.add(op, y, w.add("Unsqueeze", _filled(w, node, vector, n, 1.0), axes))
    return y


def max_pool(
    w: Writer, node: Node, x: str, kernel: Any, stride: Any = None, padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False,
) -> str:  # fmt: skip
    """Write pooling by the maximum."""
    n = meta(node.args[0]).dim() - 2
    kernel, dilations = each(kernel, n), each(dilation, n)
    return w.add(
        "MaxPool", x, kernel_shape=kernel, strides=each(stride or kernel, n),
        pads=pads(padding, kernel, dilations), dilations=dilations, ceil_mode=int(ceil_mode),
    )  # fmt: skip


def avg_pool(
    w: Writer, node: Node, x: str, kernel: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor: int | None = None,
) -> str:  # fmt: skip
    """Write pooling by the mean."""
    n = meta(node.args[0]).dim() - 2
    kernel = each(kernel, n)
    if ceil_mode and divisor is not None:
        raise ValueError(
            "average pooling with ceil_mode and divisor_override has windows of unequal size that"
            " are divided by the same number. Leave one of the two out"
        )
    y = w.add(
        "AveragePool", x, kernel_shape=kernel, strides=each(stride or kernel, n),
        pads=each(padding, n) * 2, ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad or divisor is not None),
    )  # fmt: skip
    if divisor is None:
        return y
    return w.add("Mul", y, w.constant(math.prod(kernel) / divisor, meta(node).dtype))


def adaptive_pool(w: Writer, node: Node, x: str, sizes: Any) -> Any:
    """Write pooling to a given size, where its windows are all alike."""
    name = str(node.target)
    given = meta(node.args[0]).shape[2:]
    sizes = [g if s is None else s for g, s in zip(given, each(sizes, len(given)), strict=True)]
    if any(g % s for g, s in zip(given, sizes, strict=True)):
        raise ValueError(
            f"adaptive pooling of {tuple(given)} to {tuple(sizes)} has windows of unequal size."
            " Choose sizes that divide those of the input"
        )
    kernel = [g // s for g, s in zip(given, sizes, strict=True)]
    op = "AveragePool" if "avg" in name else "MaxPool"
    y = w.add(op, x, kernel_shape=kernel, strides=kernel)
    # Those of maxima come with the places of the maxima, which nothing here reads.
    return y if isinstance(meta(node), torch.Tensor) else [y, None]


def embedding(w: Writer, node: Node, table: Any, indices: str, *_: Any) -> str:
    """Write the look-up of rows; the other arguments are for training."""
    # ONNX counts from the end below zero, where torch has no row: nor shall the graph.
    dtype = meta(node.args[1]).dtype
    table, n_rows = value(w, table), w.constant(meta(node.args[0]).shape[0], dtype)
    is_negative = w.add("Less", indices, w.constant(0, dtype))
    return w.add("Gather", table, w.add("Where", is_negative, n_rows, indices))


def attention(
    w: Writer, node: Node, q: str, k: str, v: str, mask: Any = None, dropout: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> str:  # fmt: skip
    """Write ``softmax(q k^T / sqrt(d) + mask) v``."""
    query, key = meta(node.args[0]), meta(node.args[1])
    if enable_gqa:
        raise ValueError("attention with fewer heads of keys than of queries is not understood")
    factor = w.constant(query.shape[-1] ** -0.5 if scale is None else scale, query.dtype)
    axes = [*range(key.dim() - 2), key.dim() - 1, key.dim() - 2]
    scores = w.add("MatMul", w.add("Mul", q, factor), w.add("Transpose", k, perm=axes))
    if is_causal:
        mask = w.constant(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril())
    if mask is not None:
        mask = value(w, mask)
        if is_causal or meta(node.args[3]).dtype == torch.bool:
            lowest = w.constant(-torch.inf, query.dtype)
            scores = w.add("Where", mask, scores, lowest)
        else:
            scores = w.add("Add", scores, mask)
    return w.add("MatMul", w.add("Softmax", scores, axis=-1), v)
