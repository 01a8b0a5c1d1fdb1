"""Pipelines in ONNX: scikit-learn's steps by skl2onnx, nets by a converter registered there."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
    guess_data_type,
)
from sklearn.pipeline import Pipeline

from .fitted import fitted, unwrapped
from .onnx_model import finished, metadata, used, write_net, writer
from .onnx_writer import OPSET, TYPES

TENSORS = {
    onnx.TensorProto.FLOAT: FloatTensorType,
    onnx.TensorProto.DOUBLE: DoubleTensorType,
    onnx.TensorProto.INT64: Int64TensorType,
    onnx.TensorProto.STRING: StringTensorType,
    onnx.TensorProto.BOOL: BooleanTensorType,
}
ALIAS = "skcompress"


def pipeline_to_onnx(pipeline: Pipeline, X: Any = None) -> onnx.ModelProto:
    """Return the ONNX model of a fitted Pipeline that ends in a net.

    Parameters
    ----------
    pipeline : Pipeline
    X : array-like, default=None
        A few rows; a frame gives the graph an input for each column, with the column's type.
    """
    *steps, (name, last) = pipeline.steps
    last = unwrapped(last)
    net = fitted(last)
    register(type(last))
    plain = Pipeline([*steps, (name, last)])
    if X is None or not hasattr(X, "columns"):
        n_features = pipeline.n_features_in_ if X is None else np.shape(X)[1]
        types = [("X", FloatTensorType([None, n_features]))]
    else:
        types = guess_data_type(X)
    model = convert_sklearn(plain, initial_types=types, target_opset={"": OPSET, "ai.onnx.ml": 3})
    return finished(model, metadata(net, pipeline))


def register(kind: type) -> None:
    """Teach skl2onnx to convert a class of nets, wherever it stands in an estimator.

    Parameters
    ----------
    kind : type
        PrunedNet, QuantizedNet, DistilledNet, or a class of skorch's nets.
    """
    update_registered_converter(
        kind, ALIAS + kind.__name__, _shapes, _convert, parser=_parse, overwrite=True
    )


def _parse(scope: Any, model: Any, inputs: list, custom_parsers: Any = None) -> list:
    """Declare the outputs of a net."""
    operator = scope.declare_local_operator(ALIAS + type(model).__name__, model)
    operator.inputs.extend(inputs)
    for info in _write(model, ALIAS, [i.onnx_name for i in inputs])[1]:
        tensor = info.type.tensor_type
        shape = [d.dim_value or None for d in tensor.shape.dim]
        name = info.name.removeprefix(ALIAS)
        kind = TENSORS[tensor.elem_type](shape)
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _shapes(operator: Any) -> None:
    """Leave the types that were declared."""


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the graph of a net."""
    names = [variable.full_name for variable in operator.inputs]
    prefix = scope.get_unique_operator_name(ALIAS) + "."
    w, outputs = _write(operator.raw_operator, prefix, names)
    nodes, initializers = used(w, [info.name for info in outputs])
    container.nodes.extend(nodes)
    container.initializers.extend(initializers)
    for info, variable in zip(outputs, operator.outputs, strict=True):
        container.nodes.append(helper.make_node("Identity", [info.name], [variable.full_name]))


def _write(model: Any, prefix: str, names: list[str]) -> tuple[Any, list]:
    """Write a net that reads the joined columns of its inputs."""
    net = fitted(model)
    w = writer(net, prefix)
    joined = w.add("Concat", *names, axis=1) if len(names) > 1 else names[0]
    ((_, dtype),) = net.rows.values()
    cast = w.add("Cast", joined, to=TYPES[getattr(torch, dtype)])
    return w, write_net(w, net, [cast])
