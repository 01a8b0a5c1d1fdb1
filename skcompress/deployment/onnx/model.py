"""The ONNX graph of a fitted net, from the operations that were traced."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..._version import __version__
from ...graph import takes_any_batch
from .agreement import check_agreement, check_graph
from .fitted import Fitted, fitted, unwrapped
from .operations import apply
from .session import check_runs
from .weights import to_codes
from .writer import IR_VERSIONS, NARROW, OPSET, OPSET_OF_2_BITS, TYPES, Stored, Writer


def to_onnx(
    estimator: Any,
    X: Any = None,
    *,
    labels: bool = True,
    floats: bool = False,
    rows: bool = False,
) -> onnx.ModelProto:
    """Return the ONNX model of a fitted estimator; see ``export_onnx``.

    Parameters
    ----------
    estimator : object
    X : array-like or dict of arrays, default=None
    labels : bool
        Whether a classifier's graph gives labels, beside probabilities.
    floats : bool
        Whether to store decoded weights, and leave activations as they are.
    rows : bool
        Whether the graph of a Pipeline also gives what its steps make of X.
    """
    inner = unwrapped(estimator)
    if isinstance(inner, Pipeline):
        try:
            from .pipeline import pipeline_to_onnx
        except ImportError as error:
            raise ImportError(
                "Pipelines need the package skl2onnx: pip install 'skcompress[onnx]'"
            ) from error
        return pipeline_to_onnx(inner, X, labels=labels, floats=floats, rows=rows)
    return net_to_onnx(fitted(inner, X, floats=floats), X, labels=labels)


def net_to_onnx(net: Fitted, X: Any = None, *, labels: bool = True) -> onnx.ModelProto:
    """Return the ONNX model of a net, which gives what the net gives for a few rows.

    Parameters
    ----------
    net : Fitted
    X : array-like or dict of arrays, default=None
        Rows as the net takes them.
    labels : bool
        As ``to_onnx`` takes them.
    """
    check_agreement(net, X)
    w = writer(net)
    inputs = {name or "X": row for name, row in net.rows.items()}
    outputs = write_net(w, net, list(inputs), labels=labels)
    infos = [
        helper.make_tensor_value_info(name, TYPES[getattr(torch, dtype)], ["rows", *shape])
        for name, (shape, dtype) in inputs.items()
    ]
    nodes, initializers = used(w, [info.name for info in outputs])
    graph = helper.make_graph(nodes, "skcompress", infos, outputs, initializers)
    model = finished(helper.make_model(graph), metadata(net, net.estimator))
    if net.integers is None:
        check_graph(model, net, X)
    else:
        # Numbers at the edge of two steps fall to either: what is compared is without the steps.
        net_to_onnx(replace(net, integers=None), X)
    return model


def finished(model: onnx.ModelProto, facts: dict[str, str]) -> onnx.ModelProto:
    """Set a model's versions and metadata, and check that it can be run."""
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    opset = OPSET_OF_2_BITS if kinds & NARROW else OPSET
    others = [o for o in model.opset_import if o.domain]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset), *others])
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = "skcompress", __version__
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    check_runs(model)
    return model


def writer(net: Fitted, prefix: str = "", narrowest: int = 2) -> Writer:
    """Return a writer that knows a net's quantized weights, in types of no fewer bits."""
    codes = {name: to_codes(tensor, narrowest) for name, tensor in net.quantized.items()}
    return Writer(prefix, codes, net.integers)


def write_net(
    w: Writer, net: Fitted, inputs: list[str], *, labels: bool = True
) -> list[onnx.ValueInfoProto]:
    """Write all that a net does to its inputs; return its outputs.

    Raises
    ------
    ValueError
        If the module fixes the number of rows, or uses an operation that is not understood.
    """
    graph, name = net.graph, type(net.module).__name__
    if not takes_any_batch(graph.program):
        raise ValueError(
            f"{name} fixes the number of rows while it is traced, as len(x) does. Use x.shape[0]"
            " in its forward, and no condition on it."
        )

    def bind(parameter: str | None, given: Any) -> Any:
        if isinstance(given, str):
            return given
        return Stored(parameter and parameter.removeprefix("module."), given)

    try:
        (predicted,) = graph.walk(tuple(inputs), {}, bind, lambda *operation: apply(w, *operation))
    except ValueError as error:
        raise ValueError(f"{name} cannot be written as ONNX: {error}.") from error
    (output,) = graph.program.graph.output_node().args[0]
    return _outputs(w, net, predicted, output.meta["val"], labels=labels)


def _outputs(
    w: Writer, net: Fitted, predicted: str, traced: Tensor, *, labels: bool
) -> list[onnx.ValueInfoProto]:
    """Write what is made of a net's output, and name it."""
    kind, shape = TYPES[traced.dtype], list(traced.shape[1:])
    if not is_classifier(net.estimator):
        if net.flat:
            predicted, shape = w.reshape(predicted, [-1]), []
        return [named(w, predicted, "predictions", kind, shape)]
    outputs = [named(w, predicted, "probabilities", kind, shape)]
    if not labels:
        return outputs
    classes = np.arange(shape[0]) if net.classes is None else net.classes
    stored = numpy_helper.from_array(_storable(classes))
    found = w.add("Gather", w.store(stored, "classes"), _winners(w, predicted, net.threshold, kind))
    return [named(w, found, "labels", stored.data_type, []), *outputs]


def _winners(w: Writer, probabilities: str, threshold: float | None, kind: int) -> str:
    """Write the number of the class that is predicted."""
    if threshold is None:
        return w.add("ArgMax", probabilities, axis=1, keepdims=0)
    second = w.add("Gather", probabilities, w.indices(1), axis=1)
    dtype = next(dtype for dtype, number in TYPES.items() if number == kind)
    return w.cast(w.add("Greater", second, w.constant(threshold, dtype)), torch.int64)


def _storable(classes: np.ndarray) -> np.ndarray:
    """Return labels in a type that ONNX, skl2onnx and their readers have."""
    if classes.dtype.kind in "OU":
        return classes.astype(str).astype(object)
    return classes.astype(np.float32) if classes.dtype == np.float16 else classes


def named(w: Writer, value: str, name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
    """Give a value the name of an output."""
    w.nodes.append(helper.make_node("Identity", [value], [w.prefix + name]))
    return helper.make_tensor_value_info(w.prefix + name, kind, ["rows", *shape])


def used(w: Writer, outputs: list[str]) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Return the nodes and stored tensors that outputs depend on."""
    needed, nodes = set(outputs), []
    for node in reversed(w.nodes):
        if needed.intersection(node.output):
            _drop_outputs(node, needed)
            nodes.append(node)
            needed.update(names_read(node))
    return nodes[::-1], [tensor for tensor in w.initializers if tensor.name in needed]


def _drop_outputs(node: onnx.NodeProto, needed: set[str]) -> None:
    """Leave out what a recurrent layer would give in vain: its outputs at all the steps."""
    if node.op_type not in ("LSTM", "GRU", "RNN"):
        return
    names = [name if name in needed else "" for name in node.output]
    while not names[-1]:
        names.pop()
    node.output[:] = names


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, also in the body of a loop."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from names_read(inner)


def metadata(net: Fitted, outer: Any) -> dict[str, str]:
    """Return what the file of an estimator says about itself, values as JSON."""
    estimator = net.estimator
    facts = {
        "skcompress_version": __version__,
        "estimator": type(estimator).__name__,
        "module": type(net.module).__name__,
        "classes": None if net.classes is None else net.classes.tolist(),
        "feature_names": getattr(outer, "feature_names_in_", np.empty(0)).tolist() or None,
        "sparsity": getattr(estimator, "sparsity_", None),
        "bits": {name: tensor.bits for name, tensor in net.quantized.items()} or None,
        "formats": {name: tensor.format for name, tensor in net.quantized.items()} or None,
        "activations": _activations(net.integers),
    }
    return {key: json.dumps(fact) for key, fact in facts.items() if fact is not None}


def _activations(integers: Any) -> str | None:
    """Say how what enters a layer is rounded."""
    if integers is None:
        return None
    return "dynamic" if integers.ranges is None else "static"
