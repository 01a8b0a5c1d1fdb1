"""Convolutions with as many channels as onnxruntime computes at a time."""

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

# onnxruntime lays channels out in blocks of so many numbers, the widest vector of the processor,
# and computes convolutions of other widths by a slower way.
BLOCK = 16
# Operations that keep a channel of zeros one, and read no other channel.
_CHANNELWISE = ("Relu", "LeakyRelu", "Tanh", "MaxPool", "AveragePool")


def pad_channels(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Add channels of zeros between convolutions, up to a multiple of :data:`BLOCK`.

    They compute the same, and where units were removed often faster.

    Parameters
    ----------
    model : onnx.ModelProto
        With floating-point weights; left as it is.

    Returns
    -------
    padded : onnx.ModelProto or None
        None if there is nothing to add.
    """
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in padded.graph.initializer}
    readers = Counter(name for node in padded.graph.node for name in node.input)
    readers.update(output.name for output in padded.graph.output)
    found = False
    for first in padded.graph.node:
        second = _next_convolution(padded.graph, first, readers)
        if second is None or not all(_can_change(n, weights, readers) for n in (first, second)):
            continue
        missing = -weights[first.input[1]].dims[0] % BLOCK
        if missing:
            found = True
            for name in first.input[1:]:
                _append_zeros(weights[name], missing, axis=0)
            _append_zeros(weights[second.input[1]], missing, axis=1)
    del padded.graph.value_info[:]  # shapes that may be others now
    return padded if found else None


def _next_convolution(
    graph: onnx.GraphProto, node: onnx.NodeProto, readers: Counter
) -> onnx.NodeProto | None:
    """Return the convolution that alone reads another, through operations on each channel."""
    if node.op_type != "Conv":
        return None
    while readers[node.output[0]] == 1:
        following = [n for n in graph.node if node.output[0] in n.input]
        if following and following[0].op_type == "Conv":
            return following[0]
        if not following or following[0].op_type not in _CHANNELWISE:
            return None
        node = following[0]
    return None


def _can_change(node: onnx.NodeProto, weights: dict, readers: Counter) -> bool:
    """Tell whether a convolution has weights of its own, and one group."""
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    own = all(name in weights and readers[name] == 1 for name in node.input[1:])
    return own and settings.get("group", 1) == 1


def _append_zeros(tensor: onnx.TensorProto, n: int, axis: int) -> None:
    values = numpy_helper.to_array(tensor)
    widths = [(0, n if i == axis else 0) for i in range(values.ndim)]
    tensor.CopyFrom(numpy_helper.from_array(np.pad(values, widths), tensor.name))
