"""Recurrent layers that run over spans of their steps, one after the other."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

# onnxruntime first computes what the inputs give to the gates at all steps, and then comes back to
# it step by step: for a batch of long sequences that is more than the caches hold.
SPANS = 8
# In shorter spans, starting an operator costs more than the caches give.
MIN_STEPS = 4
# How many states a layer has.
_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


def split_steps(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Divide recurrent layers into spans of steps, each of which goes on from the last one's end.

    They compute the same, and for batches of rows often faster.

    Parameters
    ----------
    model : onnx.ModelProto
        Left as it is.

    Returns
    -------
    split : onnx.ModelProto or None
        None if there is nothing to divide.
    """
    split = onnx.shape_inference.infer_shapes(model)
    infos = [*split.graph.value_info, *split.graph.input]
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in infos}
    nodes: list[onnx.NodeProto] = []
    for node in split.graph.node:
        n_steps = shapes.get(node.input[0], [0])[0] if _goes_forward(node) else 0
        whole = n_steps < SPANS * MIN_STEPS
        nodes.extend([node] if whole else _spans(split.graph, node, n_steps))
    found = len(nodes) > len(split.graph.node)
    del split.graph.node[:], split.graph.value_info[:]
    split.graph.node.extend(nodes)
    return split if found else None


def _goes_forward(node: onnx.NodeProto) -> bool:
    """Tell whether a node is a layer of one direction, over all the steps of every row."""
    if node.op_type not in _STATES:
        return False
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    direction, lengths = settings.get("direction", b"forward"), [*node.input[4:5]]
    return direction == b"forward" and not settings.get("layout") and not any(lengths)


def _spans(graph: onnx.GraphProto, node: onnx.NodeProto, n_steps: int) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that take the place of a layer."""
    x, *weights = node.input[:4]
    n_states = _STATES[node.op_type]
    states = ([*node.input[5:], "", ""])[:n_states]
    steps, *ends = ([*node.output, "", ""])[: 1 + n_states]
    name = next(filter(None, node.output))
    lengths = [len(part) for part in np.array_split(np.arange(n_steps), SPANS)]
    graph.initializer.append(numpy_helper.from_array(np.array(lengths), f"{name}.lengths"))
    inputs, outputs = ([f"{name}.{kind}.{i}" for i in range(SPANS)] for kind in ("x", "steps"))
    yield helper.make_node("Split", [x, f"{name}.lengths"], inputs, axis=0)
    for i in range(SPANS):
        span = onnx.NodeProto()
        span.CopyFrom(node)
        span.input[:] = [inputs[i], *weights, *[""] * (4 - len(weights)), *states]
        states = [f"{name}.state.{i}.{k}" for k in range(n_states)]
        if i == SPANS - 1:
            states = [end or state for end, state in zip(ends, states, strict=True)]
        span.output[:] = [outputs[i] if steps else "", *states]
        yield span
    if steps:
        yield helper.make_node("Concat", outputs, [steps], axis=0)
