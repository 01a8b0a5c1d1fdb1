"""Pipelines in ONNX: scikit-learn's steps by skl2onnx, nets by a converter registered there."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common import data_types
from skl2onnx.common.data_types import FloatTensorType, guess_data_type
from sklearn.pipeline import Pipeline

from .fitted import Fitted, fitted, unwrapped
from .model import finished, metadata, used, write_net, writer
from .writer import OPSET, Writer

# skl2onnx's types by the numbers of ONNX's: labels may be of any of them.
_NAMES = {"FLOAT": "Float", "DOUBLE": "Double", "STRING": "String", "BOOL": "Boolean"}
_NAMES |= {f"{u}INT{bits}": f"{u}Int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)}
TENSORS: dict[int, Any] = {
    getattr(onnx.TensorProto, name): getattr(data_types, f"{theirs}TensorType")
    for name, theirs in _NAMES.items()
}
ALIAS = "skcompress"


def pipeline_to_onnx(
    pipeline: Pipeline, X: Any = None, *, labels: bool = True, floats: bool = False
) -> onnx.ModelProto:
    """Return the ONNX model of a fitted Pipeline that ends in a net.

    Parameters
    ----------
    pipeline : Pipeline
    X : array-like, default=None
        A few rows; a frame gives the graph an input for each column, with the column's type.
    labels, floats : bool
        As ``to_onnx`` takes them.
    """
    *steps, (name, last) = pipeline.steps
    last = unwrapped(last)
    net = fitted(last)
    register(type(last), labels=labels, floats=floats)
    plain = Pipeline([*steps, (name, last)])
    if X is None or not hasattr(X, "columns"):
        n_features = pipeline.n_features_in_ if X is None else np.shape(X)[1]
        types = [("X", FloatTensorType([None, n_features]))]
    else:
        types = guess_data_type(X)
    model = convert_sklearn(plain, initial_types=types, target_opset={"": OPSET, "ai.onnx.ml": 3})
    return finished(model, metadata(net, pipeline))


def register(kind: type, *, labels: bool = True, floats: bool = False) -> None:
    """Teach skl2onnx to convert a class of nets, wherever it stands in an estimator.

    Parameters
    ----------
    kind : type
        PrunedNet, QuantizedNet, DistilledNet, or a class of skorch's nets.
    labels, floats : bool
        As ``to_onnx`` takes them.
    """

    def write(model: Any, prefix: str, names: list[str]) -> tuple[Writer, list]:
        net = fitted(model, floats=floats)
        w = writer(net, prefix)
        return w, write_net(w, net, [_joined(w, net, names)], labels=labels)

    def parse(scope: Any, model: Any, inputs: list, custom_parsers: Any = None) -> list:
        operator = scope.declare_local_operator(alias, model)
        operator.inputs.extend(inputs)
        for info in write(model, ALIAS, [i.onnx_name for i in inputs])[1]:
            name = info.name.removeprefix(ALIAS)
            operator.outputs.append(scope.declare_local_variable(name, _type(info)))
        return operator.outputs

    def convert(scope: Any, operator: Any, container: Any) -> None:
        names = [variable.full_name for variable in operator.inputs]
        w, outputs = write(operator.raw_operator, scope.get_unique_operator_name(ALIAS), names)
        nodes, initializers = used(w, [info.name for info in outputs])
        container.nodes.extend(nodes)
        container.initializers.extend(initializers)
        for info, variable in zip(outputs, operator.outputs, strict=True):
            container.nodes.append(helper.make_node("Identity", [info.name], [variable.full_name]))

    alias = ALIAS + kind.__name__
    update_registered_converter(kind, alias, lambda operator: None, convert, parser=parse)


def _joined(w: Writer, net: Fitted, names: list[str]) -> str:
    """Join columns into one table, in the type that the module takes."""
    joined = w.add("Concat", *names, axis=1) if len(names) > 1 else names[0]
    ((_, dtype),) = net.rows.values()
    return w.cast(joined, getattr(torch, dtype))


def _type(info: onnx.ValueInfoProto) -> Any:
    """Return the type of an output as skl2onnx declares it."""
    tensor = info.type.tensor_type
    return TENSORS[tensor.elem_type]([d.dim_value or None for d in tensor.shape.dim])
