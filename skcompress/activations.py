"""What reaches a layer: statistics of the inputs of every weight matrix."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.utils import multi_indexing
from torch import Tensor
from torch.fx import Node

from . import graph as graphs
from .graph import Graph
from .layers import weight_matrices
from .row_axes import Piece, along, batch_weights, equal_weights, pieces, row_axis, rows_known
from .training.loop import Data, batches

CONVOLUTIONS = {
    "conv1d.default",
    "conv2d.default",
    "conv3d.default",
    "conv1d.padding",
    "conv2d.padding",
    "conv3d.padding",
}
RECURRENT = {"lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"}

Visit = Callable[[str, Tensor, int, Node], None]

# What to do where inputs cannot be observed, said by whoever needs them.
NEEDS_NONE = "Use a criterion that needs no activations, such as 'magnitude' or 'fisher'."


def operation(node: Node) -> str:
    """Name of an operation with its overload, such as ``"linear.default"``."""
    return str(node.target).removeprefix("aten.")


def whole_weight(node: Node) -> Node:
    """Return the weight that a node is, or of which it is some of the rows.

    Attention between different sequences takes its projections apart like that.
    """
    while operation(node) == "<built-in function getitem>" or _takes_rows(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _takes_rows(node: Node) -> bool:
    """Tell whether an operation gives runs of neighbours along the first dimension."""
    kinds = {"chunk.default": 2, "split.Tensor": 2, "split_with_sizes.default": 2}
    place = kinds.get(operation(node))
    return place is not None and node.args[place:] in ((), (0,)) and not node.kwargs


def visit_inputs(
    net: NeuralNet,
    data: Data,
    visit: Callable[..., None],
    *,
    parts: bool = False,
    remedy: str = NEEDS_NONE,
) -> None:
    """Run the rows through the module and show what enters each weight matrix.

    ``visit(name, x, axis, node, weight)`` gets the parameter's name, its input, the axis that
    the weight contracts, the traced operation, and the sample weights of the rows in `x`, as a
    tensor to multiply it with.

    Parameters
    ----------
    net : skorch.NeuralNet
    data : Data
    visit : callable
    parts : bool
        Whether to show inputs that enter only some rows of a weight matrix, too.
    remedy : str
        What to do where inputs cannot be observed; ends the error.

    Raises
    ------
    ValueError
        If a weight matrix is never the weight of a linear, convolutional or recurrent
        operation, so that it has no inputs to speak of.
    """
    missing = set(weight_matrices(net.module_))

    def visit_known(name: str | None, x: Tensor, *rest: Any) -> None:
        if name in weights:
            missing.discard(name)
            visit(name, x, *rest)

    weights = frozenset(missing)
    for args, kwargs, row_weights in _observed(net, data):
        graph = graphs.trace_once(net.module_, args, kwargs)
        _visit_batch(graph, args, kwargs, visit_known, row_weights, parts)
    if missing:
        raise ValueError(
            f"The inputs of {sorted(missing)} cannot be observed: the forward pass uses these"
            " weights in no linear, convolutional or recurrent operation that is understood, or"
            f" not as wholes. {remedy}"
        )


def first_rows(data: Data) -> Data:
    """Keep two rows, enough to see how a module works; a single row stands twice."""
    rows = np.array([0, min(1, len(data.y) - 1)])
    return Data(multi_indexing(data.X, rows), data.y[rows])


def example_inputs(net: NeuralNet, data: Data) -> tuple[tuple, dict[str, Any]]:
    """Return two rows as the module takes them."""
    return graphs.module_inputs(net, next(batches(net, first_rows(data), batch_size=2)))


def _observed(net: NeuralNet, data: Data) -> Iterator[Piece]:
    """Yield all rows, batch by batch, with weights that can be told apart in every layer."""
    if data.sample_weight is None:
        # Without soft labels, which a batch would hand to the module.
        for batch in batches(net, Data(data.X, data.y)):
            yield *graphs.module_inputs(net, batch), torch.ones(1)
        return
    graph = graphs.trace_once(net.module_, *example_inputs(net, data))
    for part in [data] if rows_known(graph, _operations(graph)) else equal_weights(data):
        start = 0
        for batch in batches(net, Data(part.X, part.y)):
            args, kwargs = graphs.module_inputs(net, batch)
            graph = graphs.trace_once(net.module_, args, kwargs)
            weights = batch_weights(part, start, (args, kwargs))
            yield from pieces(args, kwargs, weights, rows_known(graph, _operations(graph)))
            start += len(weights)


def _operations(graph: Graph) -> list[Node]:
    """List the operations whose inputs are shown."""
    kinds = {"linear.default", *CONVOLUTIONS, *RECURRENT}
    return [node for node in graph.program.graph.nodes if operation(node) in kinds]


def _visit_batch(
    graph: Graph, args: tuple, kwargs: dict, visit: Callable, weights: Tensor, parts: bool
) -> None:
    names = graph.parameter_nodes

    def weigh(node: Node, x: Tensor) -> Tensor:
        axis = 0 if len(weights) == 1 else row_axis(graph, node.args[0])  # type: ignore[arg-type]
        assert axis is not None
        return along(weights, x, axis)

    def apply(node: Node, node_args: list[Any], node_kwargs: dict[str, Any]) -> Any:
        name = operation(node)
        if name == "linear.default" or name in CONVOLUTIONS:
            matrix: Any = whole_weight(node.args[1]) if parts else node.args[1]  # type: ignore[arg-type]
            axis = -1 if name == "linear.default" else 1
            visit(names.get(matrix.name), node_args[0], axis, node, weigh(node, node_args[0]))
        elif name in RECURRENT:
            for parameter, x in recurrent_inputs(node, node_args, names):
                # The axes of every layer are those of the first one's input.
                visit(parameter, x, -1, node, weigh(node, x))
        return graphs.run(node, node_args, node_kwargs)

    with torch.no_grad():
        graph.walk(args, kwargs, lambda name, tensor: tensor, apply)


def recurrent_inputs(
    node: Node, args: list[Any], names: dict[str, str]
) -> Iterator[tuple[str | None, Tensor]]:
    """Run a recurrent operation layer by layer; yield what enters each of its weights.

    The inputs of ``weight_ih`` are those of the layer, the inputs of ``weight_hh`` the states
    before each step.
    """
    x, states, weights, biases, n_layers, _, _, bidirectional, batch_first = args
    directions = 1 + bidirectional
    # A projected LSTM has one more, whose inputs do not come to light.
    per_direction = len(weights) // (n_layers * directions)
    time = 1 if batch_first else 0
    is_lstm = isinstance(states, (list, tuple))
    for layer in range(n_layers):
        first = layer * directions * per_direction
        rows = slice(layer * directions, (layer + 1) * directions)
        state = [s[rows] for s in states] if is_lstm else states[rows]
        part = weights[first : first + directions * per_direction]
        settings = (biases, 1, 0.0, False, bidirectional, batch_first)
        output = node.target(x, state, part, *settings)[0]  # type: ignore[operator]
        hidden: Any = state[0] if is_lstm else state
        hidden = hidden.movedim(0, -2)
        for direction, out in enumerate(output.chunk(directions, dim=-1)):
            before = _shifted(out, hidden[..., direction, :].unsqueeze(time), time, direction)
            start = first + direction * per_direction
            nodes: Any = node.args[2]
            yield names.get(nodes[start].name), x
            yield names.get(nodes[start + 1].name), before
        x = output


def _shifted(states: Tensor, start: Tensor, time: int, backward: int) -> Tensor:
    """Move states by one step, so that each step shows the state that it starts from."""
    length = states.shape[time]
    if backward:
        return torch.cat([states.narrow(time, 1, length - 1), start], dim=time)
    return torch.cat([start, states.narrow(time, 0, length - 1)], dim=time)


def input_means(
    net: NeuralNet, data: Data, function: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Average a function of the inputs of each weight matrix, input by input.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net whose module can be traced.
    data : Data
        The rows to average over, by their sample weights.
    function : callable
        Elementwise, such as ``torch.abs``.

    Returns
    -------
    means : dict of Tensor of shape (n_inputs,)
        By parameter name; a grouped convolution's inputs are averaged over its groups.
    """
    weights = weight_matrices(net.module_)
    sums: dict[str, Tensor] = {}
    totals: dict[str, float] = dict.fromkeys(weights, 0.0)

    def add(name: str, x: Tensor, axis: int, node: Node, weight: Tensor) -> None:
        n_columns = weights[name].shape[1]
        rows = (function(x) * weight).movedim(axis, -1)
        sums[name] = sums.get(name, 0) + rows.reshape(-1, n_columns).sum(0)
        totals[name] += float(weight.double().mean()) * (x.numel() // n_columns)

    visit_inputs(net, data, add)
    return {name: sums[name] / totals[name] for name in weights}


def input_ranges(net: NeuralNet, data: Data) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest input of each weight matrix, by parameter name."""
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, x: Tensor, *rest: Any) -> None:
        low, high = ranges.get(name, (float("inf"), float("-inf")))
        ranges[name] = min(low, float(x.min())), max(high, float(x.max()))

    visit_inputs(net, data, widen, parts=True)
    return ranges
