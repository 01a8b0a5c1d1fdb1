"""Nonlinear functions in ONNX."""

from typing import Any

from torch.fx import Node

from .elementwise import clamp
from .weights import value
from .writer import Writer, dtype_of, kind_of, meta


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
    """Write ``log(1 + exp(beta * x)) / beta``, or `x` where ``beta * x`` is above `threshold`."""
    dtype = dtype_of(node)
    factor = w.constant(beta, dtype)
    scaled = x if beta == 1 else w.add("Mul", x, factor)
    soft = w.add("Softplus", scaled)
    soft = soft if beta == 1 else w.add("Div", soft, factor)
    if threshold >= 20:  # where both are the same, to the precision of float32
        return soft
    return w.add("Where", w.add("Greater", scaled, w.constant(threshold, dtype)), x, soft)


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


def softmax(w: Writer, node: Node, x: str, dim: int, kind: Any = None) -> str:
    """Write a softmax, or its logarithm; the traced type says what `kind` asks for."""
    op = "LogSoftmax" if "log" in kind_of(node) else "Softmax"
    return w.add(op, value(w, x, node.args[0], dtype_of(node)), axis=dim)


def dropout(w: Writer, node: Node, x: Any, p: float, train: bool) -> Any:
    """Leave out what drops values in training only."""
    if train and p > 0:
        raise ValueError(
            "dropout that is not told the mode drops values in predictions, too. Use nn.Dropout, or"
            " functional.dropout(x, training=self.training)"
        )
    return x
