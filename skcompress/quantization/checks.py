"""What can be known of a module and a way to quantize it before any training."""

from typing import Any

from skorch import NeuralNet
from torch.fx import Node

from ..activations import (
    CONVOLUTIONS,
    RECURRENT,
    example_inputs,
    first_rows,
    operation,
    visit_inputs,
    whole_weight,
)
from ..graph import Graph, trace_once
from ..layers import weight_matrices
from ..training.loop import Data
from ..training.nets import stages
from .allocation import check_bytes
from .formats import FORMATS
from .rounding import quantize

REMEDY = "Set activations=None, which rounds the weights alone."


def check_size(q: Any, net: NeuralNet) -> None:
    """See that a net can be as small as ``q.max_bytes``, as far as shapes tell.

    Where a stage inside prunes, they do not.

    Raises
    ------
    ValueError
        If it takes more with the fewest bits in every layer.
    """
    if any(hasattr(stage, "sparsity") for stage in stages(q)):
        return
    settings = {"bits": min(FORMATS[q.format].widths), "format": q.format}
    weights = weight_matrices(net.module_)
    narrowest = {n: quantize(w, granularity=q.granularity, **settings) for n, w in weights.items()}
    check_bytes(net, narrowest, q.max_bytes)


def check_products(net: NeuralNet, data: Data) -> None:
    """See that integers can take the place of each weight matrix wherever it is used.

    Raises
    ------
    ValueError
        If one is used in another operation than those that are computed in integers.
    """
    visit_inputs(net, first_rows(data), lambda *_: None, parts=True, remedy=REMEDY)
    graph = trace_once(net.module_, *example_inputs(net, data))
    others = other_users(graph, set(weight_matrices(net.module_)))
    if others:
        found = ", ".join(f"{name!r} ({', '.join(users)})" for name, users in others.items())
        raise ValueError(
            f"Activations can be rounded only where weights are those of linear, convolutional and"
            f" recurrent operations; the forward pass also uses {found} in others. {REMEDY}"
        )


def other_users(graph: Graph, names: set[str]) -> dict[str, list[str]]:
    """Return the operations that use a weight, or rows of it, otherwise than as their weight."""
    others: dict[str, list[str]] = {}
    for node in graph.program.graph.nodes:
        for weight in dict.fromkeys(node.all_input_nodes):
            name = graph.parameter_nodes.get(whole_weight(weight).name)
            takes_rows = whole_weight(node) is not node
            if name in names and not takes_rows and not _is_product(node, weight):
                others.setdefault(name, []).append(operation(node))
    return others


def _is_product(node: Node, weight: Node) -> bool:
    kind = operation(node)
    if kind in RECURRENT:
        weights = node.args[2] if isinstance(node.args[2], (list, tuple)) else node.args[3]
        return weight in weights  # type: ignore[operator]
    if kind == "linear.default" or kind in CONVOLUTIONS:
        return node.args[1] is weight and node.args[0] is not weight
    return False
