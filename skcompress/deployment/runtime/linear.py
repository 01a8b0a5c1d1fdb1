"""Linear layers in 8-bit integers beside layers in floating point."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


def with_ranges(dynamic: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Give linear layers whose inputs are rounded in the range of each batch the range of rows.

    What else the graph computes stays as it is, as convolutions, for which onnxruntime is faster in
    floating point.

    Parameters
    ----------
    dynamic : onnx.ModelProto
        As onnxruntime's dynamic quantization gives it; left as it is.
    feed : dict of ndarray
        Rows to measure ranges on.
    """
    model = onnx.ModelProto()
    model.CopyFrom(dynamic)
    scales = _measured(model, feed)
    nodes = [new for node in model.graph.node for new in _rounded(node, scales)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    one = numpy_helper.from_array(np.array(1, np.float32), "int8.one")
    model.graph.initializer.extend([one, *map(numpy_helper.from_array, scales.values(), scales)])
    return model


def with_own_weights(model: onnx.ModelProto, operations: Collection[str]) -> onnx.ModelProto:
    """Give operations copies of weights that others read as well.

    onnxruntime's quantization changes a weight in place, once for each operation that has it.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copied.graph.initializer}
    readers = Counter(name for node in copied.graph.node for name in node.input)
    for node in copied.graph.node:
        # A recurrent layer has two, for its inputs and for its states.
        places = {"LSTM": (1, 2)}.get(node.op_type, (1,)) if node.op_type in operations else ()
        for place in places:
            name = node.input[place]
            if name in weights and readers[name] > 1:
                readers[name] -= 1
                node.input[place] = f"{name}.{readers[name]}"
                own = copied.graph.initializer.add()
                own.CopyFrom(weights[name])
                own.name = node.input[place]
    return copied


def _measured(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return steps, their inverses and zeros of all ranges, by their names in the graph."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    ranges = [n.output[1:] for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"]
    names = [name for pair in ranges for name in pair]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(names, dict(feed)), strict=True))
    return values | {_inverse(step): np.asarray(1 / values[step]) for step, _ in ranges}


def _inverse(step: str) -> str:
    return step + ".inverse"


def _rounded(node: onnx.NodeProto, scales: Mapping[str, np.ndarray]) -> Iterator[onnx.NodeProto]:
    """Yield a node, or what takes its place where it measures a range."""
    if node.op_type != "DynamicQuantizeLinear":
        yield node
        return
    rounded, step, zero = node.output
    scaled = rounded + ".scaled"
    # A product of its own: onnxruntime moves a rounding with another step to before the pooling
    # and reshaping that it follows, whose integers are slower than floats.
    yield helper.make_node("Mul", [node.input[0], _inverse(step)], [scaled])
    yield helper.make_node("QuantizeLinear", [scaled, "int8.one", zero], [rounded])
