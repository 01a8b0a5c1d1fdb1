"""Arithmetic, logic, reductions and comparisons in ONNX."""

from collections.abc import Callable
from typing import Any

import torch
from onnx import helper
from torch.fx import Node

from .weights import value
from .writer import TYPES, Stored, Writer, dtype_of, kind_of, meta

Rule = Callable[..., Any]


def same(op: str, **attributes: Any) -> Rule:
    """Write an operation of one tensor that ONNX has, too, in the type of the result."""

    def rule(w: Writer, node: Node, x: Any) -> str:
        return w.add(op, value(w, x, node.args[0], dtype_of(node)), **attributes)

    return rule


def binary(op: str) -> Rule:
    """Write arithmetic on two operands, in the type of the result."""

    def rule(w: Writer, node: Node, a: Any, b: Any, alpha: float = 1) -> str:
        dtype = dtype_of(node)
        first, second = (value(w, v, n, dtype) for v, n in zip((a, b), node.args[:2], strict=True))
        if alpha != 1:
            second = w.add("Mul", second, w.constant(alpha, dtype))
        return w.add(op, first, second)

    return rule


def bitwise(op: str) -> Rule:
    """Write logic on each bit of one or two operands; booleans have but one."""

    def rule(w: Writer, node: Node, *operands: Any) -> str:
        dtype = dtype_of(node)
        pairs = zip(operands, node.args, strict=True)
        name = op if dtype == torch.bool else f"Bitwise{op}"
        return w.add(name, *(value(w, x, n, dtype) for x, n in pairs))

    return rule


def is_nan(w: Writer, node: Node, x: Any) -> str:
    """Write where a tensor has no number."""
    return w.add("IsNaN", value(w, x))


def compare(op: str, *, negate: bool = False) -> Rule:
    """Write a comparison, in the type that both operands fit in."""

    def rule(w: Writer, node: Node, a: Any, b: Any) -> str:
        dtype = torch.result_type(*[_example(n) for n in node.args[:2]])
        out = w.add(op, *(value(w, v, n, dtype) for v, n in zip((a, b), node.args, strict=True)))
        return w.add("Not", out) if negate else out

    return rule


def _example(node: Any) -> Any:
    """Return what torch promotes types by."""
    traced = meta(node)
    return traced if isinstance(traced, (torch.Tensor, bool, int, float)) else 1


def reversed_subtraction(w: Writer, node: Node, a: Any, b: Any, alpha: float = 1) -> str:
    """Write ``b - alpha * a``."""
    dtype = dtype_of(node)
    a, b = value(w, a, node.args[0], dtype), value(w, b, node.args[1], dtype)
    return w.add("Sub", b, a if alpha == 1 else w.add("Mul", a, w.constant(alpha, dtype)))


def division(w: Writer, node: Node, a: Any, b: Any, *, rounding_mode: str | None = None) -> str:
    """Write a quotient, rounded down or not."""
    if rounding_mode == "trunc":
        raise ValueError("division that rounds towards zero is not written as ONNX")
    if rounding_mode and not dtype_of(node).is_floating_point:
        raise ValueError("division of integers that rounds down is not written as ONNX")
    quotient = binary("Div")(w, node, a, b)
    return quotient if rounding_mode is None else w.add("Floor", quotient)


def clamp(w: Writer, node: Node, x: Any, low: Any = None, high: Any = None) -> str:
    """Write a clipping to numbers, or to tensors."""
    dtype = dtype_of(node)
    x = value(w, x, node.args[0], dtype)
    given = [*node.args, None, None][1:3]
    if not any(isinstance(bound, Node) for bound in given):
        return w.add("Clip", x, *(None if b is None else w.constant(b, dtype) for b in (low, high)))
    for op, bound, n in zip(("Max", "Min"), (low, high), given, strict=True):
        x = x if bound is None else w.add(op, x, value(w, bound, n, dtype))
    return x


def clamp_max(w: Writer, node: Node, x: Any, high: Any) -> str:
    """Write a clipping from above."""
    dtype = dtype_of(node)
    bounds = (value(w, v, n, dtype) for v, n in zip((x, high), node.args, strict=True))
    return w.add("Min", *bounds)


def rsqrt(w: Writer, node: Node, x: str) -> str:
    """Write ``1 / sqrt(x)``."""
    return w.add("Reciprocal", w.add("Sqrt", x))


def square(w: Writer, node: Node, x: str) -> str:
    """Write ``x * x``."""
    return w.add("Mul", x, x)


def reduce(op: str, position: str | None = None) -> Rule:
    """Write a reduction over dimensions; `position` names what finds the place of a maximum."""

    def rule(
        w: Writer, node: Node, x: Any, dims: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Any:
        if isinstance(dims, (str, Stored)):  # the other operand of an elementwise maximum
            return binary(op.removeprefix("Reduce"))(w, node, x, dims)
        out = meta(node)
        pair = isinstance(out, (tuple, list))
        x = value(w, x, node.args[0], (out[0] if pair else out).dtype)
        axes = [dims] if isinstance(dims, int) else list(dims or [])
        reduced = w.add(op, x, w.indices(axes) if axes else None, keepdims=int(keepdim))
        if not pair:
            return reduced
        return [reduced, w.add(str(position), x, axis=axes[0], keepdims=int(keepdim))]

    return rule


def position(op: str) -> Rule:
    """Write the place of a maximum or minimum along a dimension."""

    def rule(w: Writer, node: Node, x: Any, dim: int | None = None, keepdim: bool = False) -> str:
        x = value(w, x)
        if dim is not None:
            return w.add(op, x, axis=dim, keepdims=int(keepdim))
        place = w.add(op, w.reshape(x, [-1]), axis=0, keepdims=0)
        return w.reshape(place, meta(node).shape)

    return rule


def cast(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> str:
    """Write a conversion to the type of the result, which says all that the arguments ask for."""
    return value(w, x, node.args[0], dtype_of(node))


def where(w: Writer, node: Node, mask: str, a: Any, b: Any) -> str:
    """Write a choice by a mask."""
    dtype = dtype_of(node)
    chosen = (value(w, v, n, dtype) for v, n in zip((a, b), node.args[1:], strict=True))
    return w.add("Where", value(w, mask), *chosen)


def masked_fill(w: Writer, node: Node, x: str, mask: Any, fill: Any) -> str:
    """Write a number, or a tensor of one, where a mask is set."""
    dtype = dtype_of(node)
    return w.add("Where", value(w, mask), value(w, fill, node.args[2], dtype), x)


def matmul(w: Writer, node: Node, a: Any, b: Any) -> str:
    """Write a product of matrices."""
    return w.add("MatMul", value(w, a), value(w, b))


def addmm(
    w: Writer, node: Node, c: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
) -> str:
    """Write ``beta * c + alpha * a @ b``."""
    dtype = dtype_of(node)
    product, added = matmul(w, node, a, b), value(w, c)
    if alpha != 1:
        product = w.add("Mul", product, w.constant(alpha, dtype))
    if beta == 0:
        return product
    return w.add(
        "Add", product, added if beta == 1 else w.add("Mul", added, w.constant(beta, dtype))
    )


def einsum(w: Writer, node: Node, equation: str, operands: list, *, path: Any = None) -> str:
    """Write a sum of products."""
    return w.add("Einsum", *(value(w, x) for x in operands), equation=equation.replace(" ", ""))


def filled(number: float | None, *, like: bool) -> Rule:
    """Write a tensor of one number, of given sizes or those of another tensor."""

    def rule(w: Writer, node: Node, given: Any, *rest: Any, **_: Any) -> str:
        new = kind_of(node).startswith("new_")
        sizes = rest[0] if new else given
        fill = number if number is not None else rest[-1]
        shape = w.add("Shape", value(w, given)) if like else w.shape(sizes)
        content = helper.make_tensor("fill", TYPES[dtype_of(node)], [1], [fill])
        out = w.add("ConstantOfShape", shape, value=content)
        if fill == 0:
            w.zeros.add(out)
        return out

    return rule


def arange(w: Writer, node: Node, *limits: Any, **_: Any) -> str:
    """Write consecutive numbers."""
    dtype = dtype_of(node)
    start, end, step = {1: (0, *limits, 1), 2: (*limits, 1)}.get(len(limits), limits)
    return w.add("Range", *(value(w, v, 1, dtype) for v in (start, end, step)))


def size(w: Writer, node: Node, x: str, dim: int) -> Any:
    """Write the size of a dimension, which may depend on the rows."""
    known = meta(node)
    if isinstance(known, int):
        return known
    dim %= meta(node.args[0]).dim()
    return w.add("Squeeze", w.add("Shape", x, start=dim, end=dim + 1))


def take(w: Writer, node: Node, values: Any, index: int) -> Any:
    """Take one of several outputs."""
    return values[index]


def nothing(w: Writer, node: Node, *_: Any, **__: Any) -> None:
    """Leave out what only checks."""


def identity(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    """Leave out what does nothing in evaluation mode."""
    return x
