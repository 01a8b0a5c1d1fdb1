"""The operations of a traced module that ONNX graphs are written from: an allow-list.

A rule ``rule(writer, node, *arguments)`` takes the arguments of torch's operation, with names
of values of the graph for tensors, and returns the name of its output, or a list of names.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnx import helper
from torch.fx import Node

from . import onnx_layers as layers
from . import onnx_moves as moves
from .onnx_recurrent import recurrent
from .onnx_weights import value
from .onnx_writer import TYPES, Writer, dtype_of, meta

Rule = Callable[..., Any]


def kind(node: Node) -> str:
    """Name of an operation without its overload, such as ``"linear"``."""
    target: Any = node.target
    return target._schema.name.split("::")[1] if hasattr(target, "_schema") else target.__name__


def apply(w: Writer, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Write an operation.

    Raises
    ------
    ValueError
        If it is not understood; the message names it.
    """
    name = kind(node)
    rule = RULES.get(name)
    if rule is None and name.endswith("_"):
        rule = RULES.get(name.removesuffix("_"))
        _check_overwritten(node)
    if rule is None:
        raise ValueError(
            f"the operation {name} is not among those that are written as ONNX:"
            f" {', '.join(sorted(RULES))}"
        )
    return rule(w, node, *args, **kwargs)


def _check_overwritten(node: Node) -> None:
    """Refuse an operation in place on a value that is read again."""
    source = node.args[0]
    if isinstance(source, Node) and any(node < user for user in source.users):
        raise ValueError(
            f"{kind(node)} changes {source.name} in place, and that is read again later. Use the"
            " operation that returns a new tensor"
        )


def same(op: str, **attributes: Any) -> Rule:
    """Write an operation of one tensor that ONNX has, too."""

    def rule(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> str:
        return w.add(op, value(w, x), **attributes)

    return rule


def binary(op: str) -> Rule:
    """Write arithmetic on two operands, in the type of the result."""

    def rule(w: Writer, node: Node, a: Any, b: Any, alpha: float = 1, **_: Any) -> str:
        dtype = dtype_of(node)
        first, second = (
            value(w, v, n, dtype) for v, n in zip((a, b), node.args[:2], strict=True)
        )
        if alpha != 1:
            second = w.add("Mul", second, w.constant(alpha, dtype))
        return w.add(op, first, second)

    return rule


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
    quotient = binary("Div")(w, node, a, b)
    return quotient if rounding_mode is None else w.add("Floor", quotient)


def clamp(w: Writer, node: Node, x: str, low: Any = None, high: Any = None) -> str:
    """Write a clipping to numbers."""
    bounds = [None if b is None else w.constant(b, dtype_of(node)) for b in (low, high)]
    return w.add("Clip", x, *bounds)


def clamp_max(w: Writer, node: Node, x: str, high: float) -> str:
    """Write a clipping from above."""
    return clamp(w, node, x, None, high)


def hardtanh(w: Writer, node: Node, x: str, low: float = -1.0, high: float = 1.0) -> str:
    """Write a clipping to [-1, 1], or another interval."""
    return clamp(w, node, x, low, high)


def relu6(w: Writer, node: Node, x: str) -> str:
    """Write a clipping to [0, 6]."""
    return clamp(w, node, x, 0.0, 6.0)


def leaky_relu(w: Writer, node: Node, x: str, slope: float = 0.01) -> str:
    """Write a ReLU with a slope below zero."""
    return w.add("LeakyRelu", x, alpha=slope)


def elu(w: Writer, node: Node, x: str, alpha: float = 1.0) -> str:
    """Write an exponential linear unit."""
    return w.add("Elu", x, alpha=alpha)


def celu(w: Writer, node: Node, x: str, alpha: float = 1.0) -> str:
    """Write a continuously differentiable exponential linear unit."""
    return w.add("Celu", x, alpha=alpha)


def gelu(w: Writer, node: Node, x: str, *, approximate: str = "none") -> str:
    """Write a Gaussian error linear unit."""
    return w.add("Gelu", x, approximate=approximate)


def silu(w: Writer, node: Node, x: str) -> str:
    """Write ``x * sigmoid(x)``."""
    return w.add("Mul", x, w.add("Sigmoid", x))


def softplus(w: Writer, node: Node, x: str, beta: float = 1.0, threshold: float = 20.0) -> str:
    """Write ``log(1 + exp(beta * x)) / beta``."""
    if beta == 1:
        return w.add("Softplus", x)
    factor = w.constant(beta, dtype_of(node))
    return w.add("Div", w.add("Softplus", w.add("Mul", x, factor)), factor)


def log_sigmoid(w: Writer, node: Node, x: str) -> str:
    """Write ``log(sigmoid(x))``."""
    return w.add("Neg", w.add("Softplus", w.add("Neg", x)))


def prelu(w: Writer, node: Node, x: str, slope: Any) -> str:
    """Write a ReLU with slopes for channels."""
    given = value(w, slope)
    inner = meta(node.args[0]).dim() - 2
    if inner > 0 and meta(node.args[1]).numel() > 1:
        given = w.add("Unsqueeze", given, w.indices(list(range(1, 1 + inner))))
    return w.add("PRelu", x, given)


def glu(w: Writer, node: Node, x: str, dim: int = -1) -> str:
    """Write a gated linear unit: one half times the sigmoid of the other."""
    half, gate = w.add_many("Split", 2, x, axis=dim, num_outputs=2)
    return w.add("Mul", half, w.add("Sigmoid", gate))


def rsqrt(w: Writer, node: Node, x: str) -> str:
    """Write ``1 / sqrt(x)``."""
    return w.add("Reciprocal", w.add("Sqrt", x))


def square(w: Writer, node: Node, x: str) -> str:
    """Write ``x * x``."""
    return w.add("Mul", x, x)


def softmax(w: Writer, node: Node, x: str, dim: int, *_: Any) -> str:
    """Write a softmax, or its logarithm."""
    op = "LogSoftmax" if "log" in kind(node) else "Softmax"
    return w.add(op, value(w, x, node.args[0], dtype_of(node)), axis=dim)


def reduce(op: str, position: str | None = None) -> Rule:
    """Write a reduction over dimensions; `position` names what finds the place of a maximum."""

    def rule(
        w: Writer, node: Node, x: str, dims: Any = None, keepdim: bool = False, **_: Any
    ) -> Any:
        if isinstance(dims, str):  # the other operand of an elementwise maximum
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

    def rule(w: Writer, node: Node, x: str, dim: int, keepdim: bool = False) -> str:
        return w.add(op, x, axis=dim, keepdims=int(keepdim))

    return rule


def cast(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> str:
    """Write a conversion to the type of the result."""
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
    return w.add("Add", product, added if beta == 1 else w.add("Mul", added, w.constant(beta, dtype)))


def einsum(w: Writer, node: Node, equation: str, operands: list, **_: Any) -> str:
    """Write a sum of products."""
    return w.add("Einsum", *(value(w, x) for x in operands), equation=equation.replace(" ", ""))


def filled(number: float | None, *, like: bool) -> Rule:
    """Write a tensor of one number, of given sizes or those of another tensor."""

    def rule(w: Writer, node: Node, given: Any, *rest: Any, **_: Any) -> str:
        new = kind(node).startswith("new_")
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


def identity(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    """Leave out what does nothing in evaluation mode."""
    return x


_ONNX_NAMES = (
    "relu Relu tanh Tanh sigmoid Sigmoid exp Exp log Log sqrt Sqrt abs Abs neg Neg sin Sin cos Cos"
    " erf Erf reciprocal Reciprocal sign Sign floor Floor ceil Ceil round Round selu Selu mish Mish"
    " hardswish HardSwish softsign Softsign logical_not Not bitwise_not Not isnan IsNaN"
).split()
RULES: dict[str, Rule] = {
    **{name: same(op) for name, op in zip(_ONNX_NAMES[::2], _ONNX_NAMES[1::2], strict=True)},
    "hardsigmoid": same("HardSigmoid", alpha=1 / 6, beta=0.5),
    **{f.__name__: f for f in (relu6, leaky_relu, elu, celu, gelu, silu, softplus, log_sigmoid)},
    **{f.__name__: f for f in (prelu, glu, rsqrt, square, hardtanh, clamp, clamp_max)},
    "clamp_min": clamp, "clip": clamp,
    "add": binary("Add"), "sub": binary("Sub"), "mul": binary("Mul"), "pow": binary("Pow"),
    "rsub": reversed_subtraction, "div": division, "true_divide": division,
    "maximum": binary("Max"), "minimum": binary("Min"),
    "eq": compare("Equal"), "ne": compare("Equal", negate=True), "lt": compare("Less"),
    "le": compare("LessOrEqual"), "gt": compare("Greater"), "ge": compare("GreaterOrEqual"),
    "logical_and": binary("And"), "logical_or": binary("Or"),
    "bitwise_and": binary("And"), "bitwise_or": binary("Or"), "__and__": binary("And"),
    "__or__": binary("Or"),
    "mean": reduce("ReduceMean"), "sum": reduce("ReduceSum"), "amax": reduce("ReduceMax"),
    "amin": reduce("ReduceMin"), "max": reduce("ReduceMax", "ArgMax"),
    "min": reduce("ReduceMin", "ArgMin"), "logsumexp": reduce("ReduceLogSumExp"),
    "prod": reduce("ReduceProd"), "argmax": position("ArgMax"), "argmin": position("ArgMin"),
    "softmax": softmax, "_softmax": softmax, "log_softmax": softmax, "_log_softmax": softmax,
    "to": cast, "_to_copy": cast, "type_as": cast, "where": where, "masked_fill": masked_fill,
    "matmul": matmul, "bmm": matmul, "mm": matmul, "addmm": addmm, "baddbmm": addmm,
    "einsum": einsum,
    "zeros": filled(0, like=False), "ones": filled(1, like=False), "full": filled(None, like=False),
    "new_zeros": filled(0, like=False), "new_ones": filled(1, like=False),
    "new_full": filled(None, like=False), "zeros_like": filled(0, like=True),
    "ones_like": filled(1, like=True), "full_like": filled(None, like=True), "arange": arange,
    "linear": layers.linear, "embedding": layers.embedding,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolution),
    **{f"conv_transpose{n}d": layers.transposed_convolution for n in (1, 2, 3)},
    "batch_norm": layers.batch_norm, "layer_norm": layers.layer_norm,
    "group_norm": layers.group_norm,
    **{f"max_pool{n}d": layers.max_pool for n in (1, 2, 3)},
    **{f"avg_pool{n}d": layers.avg_pool for n in (1, 2, 3)},
    **{f"adaptive_{op}_pool{n}d": layers.adaptive_pool for n in (1, 2, 3) for op in ("avg", "max")},
    "scaled_dot_product_attention": layers.attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **moves.RULES,
    **dict.fromkeys(
        "dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach alias"
        " lift_fresh_copy".split(),
        identity,
    ),
    "sym_size": size, "getitem": take, "floordiv": binary("Div"),
}  # fmt: skip
