"""The operations of a traced module that ONNX graphs are written from: an allow-list.

A rule ``rule(writer, node, *arguments)`` takes the arguments of torch's operation, with names
of values of the graph for tensors, and returns the name of its output, or a list of names.
"""

from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from . import elementwise as ew
from . import layers as layers
from . import moves as moves
from . import nonlinearities as nl
from .elementwise import Rule, binary, bitwise, compare, filled, position, reduce, same
from .recurrent import recurrent
from .writer import Writer, kind_of


def apply(w: Writer, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Write an operation.

    Raises
    ------
    ValueError
        If it is not understood, or its arguments are not; the message names them.
    """
    name = kind_of(node)
    rule = RULES.get(name)
    if rule is None and name.endswith("_"):
        rule = RULES.get(name.removesuffix("_"))
        _check_overwritten(node)
    if rule is None:
        raise ValueError(
            f"the operation {name} is not among those that are written as ONNX. Use others in the"
            " module's forward"
        )
    try:
        return rule(w, node, *args, **kwargs)
    except ValueError:
        raise
    except Exception as error:  # rules take fewer arguments, and of fewer types, than torch does
        given = [*map(str, node.args), *(f"{key}={x}" for key, x in node.kwargs.items())]
        raise ValueError(
            f"the operation {name} is not written as ONNX with the arguments ({', '.join(given)})."
            " Use others in the module's forward"
        ) from error


def _check_overwritten(node: Node) -> None:
    """Refuse an operation in place on a value that is read again, itself or as a view.

    Tracing follows names: those that were given before it would still mean the old numbers.
    """
    memory = _memory(node.args[0])
    before = (other for other in node.graph.nodes if other < node and memory & _memory(other))
    if any(node < reader for other in before for reader in other.users):
        raise ValueError(
            f"{kind_of(node)} changes {node.args[0]} in place, and that is read again later. Use"
            " the operation that returns a new tensor"
        )


def _memory(node: Any) -> set[int]:
    """Return what tells the memory of a traced value; views share it."""
    tensors = [x for x in tree_leaves(node.meta.get("val")) if isinstance(x, Tensor)]
    memory = {tensor.untyped_storage()._cdata for tensor in tensors}
    if node.op == "call_function" and kind_of(node) in _DROPOUTS:
        # In evaluation mode it gives its input, and a traced one does not show that.
        return memory | _memory(node.args[0])
    return memory


# Operations that ONNX has, too: torch's name and ONNX's.
_SAME = {
    "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "exp": "Exp", "log": "Log",
    "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "sin": "Sin", "cos": "Cos", "erf": "Erf",
    "reciprocal": "Reciprocal", "sign": "Sign", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "selu": "Selu", "mish": "Mish", "hardswish": "HardSwish",
    "softsign": "Softsign", "logical_not": "Not",
}  # fmt: skip
# What does nothing in evaluation mode.
_DROPOUTS = ["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"]
_IDENTITIES = ["contiguous", "clone", "detach", "alias", "lift_fresh_copy"]
RULES: dict[str, Rule] = {
    **{name: same(op) for name, op in _SAME.items()},
    "hardsigmoid": same("HardSigmoid", alpha=1 / 6, beta=0.5),
    "relu6": nl.relu6, "leaky_relu": nl.leaky_relu, "elu": nl.elu, "celu": nl.celu,
    "gelu": nl.gelu, "silu": nl.silu, "softplus": nl.softplus, "log_sigmoid": nl.log_sigmoid,
    "prelu": nl.prelu, "glu": nl.glu, "rsqrt": ew.rsqrt, "square": ew.square,
    "hardtanh": nl.hardtanh, "clamp": ew.clamp, "clamp_max": ew.clamp_max,
    "clamp_min": ew.clamp, "clip": ew.clamp,
    "add": binary("Add"), "sub": binary("Sub"), "mul": binary("Mul"), "pow": binary("Pow"),
    "rsub": ew.reversed_subtraction, "div": ew.division,
    "true_divide": ew.division,
    "maximum": binary("Max"), "minimum": binary("Min"),
    "eq": compare("Equal"), "ne": compare("Equal", negate=True), "lt": compare("Less"),
    "le": compare("LessOrEqual"), "gt": compare("Greater"), "ge": compare("GreaterOrEqual"),
    "logical_and": binary("And"), "logical_or": binary("Or"),
    **dict.fromkeys(("bitwise_and", "__and__"), bitwise("And")),
    **dict.fromkeys(("bitwise_or", "__or__"), bitwise("Or")), "bitwise_not": bitwise("Not"),
    **dict.fromkeys(("bitwise_xor", "__xor__"), bitwise("Xor")), "isnan": ew.is_nan,
    "mean": reduce("ReduceMean"), "sum": reduce("ReduceSum"), "amax": reduce("ReduceMax"),
    "amin": reduce("ReduceMin"), "max": reduce("ReduceMax", "ArgMax"),
    "min": reduce("ReduceMin", "ArgMin"), "logsumexp": reduce("ReduceLogSumExp"),
    "prod": reduce("ReduceProd"), "argmax": position("ArgMax"), "argmin": position("ArgMin"),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), nl.softmax),
    **dict.fromkeys(("to", "_to_copy", "type_as"), ew.cast),
    "where": ew.where, "masked_fill": ew.masked_fill,
    **dict.fromkeys(("matmul", "bmm", "mm"), ew.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), ew.addmm),
    "einsum": ew.einsum,
    "zeros": filled(0, like=False), "ones": filled(1, like=False), "full": filled(None, like=False),
    "new_zeros": filled(0, like=False), "new_ones": filled(1, like=False),
    "new_full": filled(None, like=False), "zeros_like": filled(0, like=True),
    "ones_like": filled(1, like=True), "full_like": filled(None, like=True),
    "arange": ew.arange,
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
    **dict.fromkeys(_DROPOUTS, nl.dropout),
    **dict.fromkeys(_IDENTITIES, ew.identity),
    "_assert_tensor_metadata": ew.nothing, "sym_size": ew.size, "getitem": ew.take,
    "floordiv": binary("Div"),
}  # fmt: skip
