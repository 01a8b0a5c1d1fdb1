"""Nets in skl2onnx: parsers and converters of scikit-learn's own exporter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from skl2onnx import update_registered_converter
from skl2onnx.common import data_types
from skl2onnx.common.data_types import guess_numpy_type
from sklearn.base import BaseEstimator
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor

from ...distillation import DistilledNet
from ...pruning import PrunedNet
from ...quantization import QuantizedNet
from . import ROWS
from .fitted import Fitted, fitted
from .model import named, net_to_onnx, used, write_net, writer
from .writer import OPSET, TYPES, Writer

# skl2onnx's types by the numbers of ONNX's: labels may be of any of them.
_NAMES = {"FLOAT": "Float", "DOUBLE": "Double", "STRING": "String", "BOOL": "Boolean"}
_NAMES |= {f"{u}INT{bits}": f"{u}Int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)}
TENSORS: dict[int, Any] = {
    getattr(onnx.TensorProto, name): getattr(data_types, f"{theirs}TensorType")
    for name, theirs in _NAMES.items()
}
ALIAS = "skcompress"


@dataclass(eq=False)
class Step(BaseEstimator):
    """A net as a step of a Pipeline that skl2onnx converts.

    Parameters
    ----------
    net : Fitted
    labels : bool
        Whether a classifier's graph gives labels, beside probabilities.
    rows : bool
        Whether the graph also gives the rows that come to the net.
    narrowest : int
        Fewest bits that integers may be stored in; those of opset 21 have 4.
    """

    net: Fitted
    labels: bool = True
    rows: bool = False
    narrowest: int = 4


def register_nets() -> None:
    """Teach skl2onnx all classes of nets; see ``register_converters``."""
    compressed = PrunedNet, QuantizedNet, DistilledNet
    for kind in (*compressed, NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor):
        _register(kind, _step)


def register_steps() -> None:
    """Teach skl2onnx the class that stands for a net in Pipelines that are exported from here."""
    _register(Step, lambda step, inputs: step)


def _step(model: Any, inputs: list) -> Step:
    """Take a net apart, of which skorch's own know the shape of their rows by what precedes."""
    rows = None
    shape = inputs[0].type.shape[1:]
    known = len(inputs) == 1 and shape and all(isinstance(size, int) for size in shape)
    if isinstance(model, NeuralNet) and known:
        rows = np.zeros((2, *shape), guess_numpy_type(inputs[0].type))
    net = fitted(model, rows)
    net_to_onnx(net)  # which checks it
    return Step(net)


def _register(kind: type, step_of: Callable[[Any, list], Step]) -> None:
    """Register a class, which ``step_of(estimator, inputs)`` makes a step of."""

    def parse(scope: Any, model: Any, inputs: list, custom_parsers: Any = None) -> list:
        operator = scope.declare_local_operator(alias, step_of(model, inputs))
        operator.inputs.extend(inputs)
        for info in _written(operator, ALIAS)[1]:
            name = info.name.removeprefix(ALIAS)
            operator.outputs.append(scope.declare_local_variable(name, _type(info)))
        return operator.outputs

    def convert(scope: Any, operator: Any, container: Any) -> None:
        if not isinstance(operator.raw_operator, Step):  # which others declared, as ensembles do
            operator.raw_operator = step_of(operator.raw_operator, operator.inputs)
        _check_opset(container.target_opset)
        # The slash keeps names of one net apart from those of the next, which may begin alike.
        prefix = scope.get_unique_operator_name(ALIAS) + "/"
        w, outputs = _written(operator, prefix)
        nodes, initializers = used(w, [info.name for info in outputs])
        container.nodes.extend(nodes)
        # Without which a graph of nothing else would get the newest opset of all.
        container.node_domain_version_pair_sets.add(("", container.target_opset))
        container.initializers.extend(initializers)
        for info, variable in zip(outputs, operator.outputs, strict=True):
            container.nodes.append(helper.make_node("Identity", [info.name], [variable.full_name]))

    alias = ALIAS + kind.__name__
    options = {"zipmap": [False]}  # probabilities are a table in any case
    update_registered_converter(
        kind, alias, lambda operator: None, convert, parser=parse, options=options
    )


def _check_opset(opset: int) -> None:
    """Refuse an opset that lacks operations that are written here."""
    if opset < OPSET:
        raise ValueError(
            f"skcompress writes operations of opset {OPSET}; got target_opset={opset}. Pass"
            f" target_opset={OPSET} or later."
        )


def _written(operator: Any, prefix: str) -> tuple[Writer, list]:
    """Write the net of an operator of skl2onnx; return its outputs, too."""
    step = operator.raw_operator
    w = writer(step.net, prefix, step.narrowest)
    joined = _joined(w, step.net, [variable.full_name for variable in operator.inputs])
    outputs = write_net(w, step.net, [joined], labels=step.labels)
    if step.rows:
        (((shape, dtype)),) = step.net.rows.values()
        outputs.append(named(w, joined, ROWS, TYPES[getattr(torch, dtype)], list(shape)))
    return w, outputs


def _joined(w: Writer, net: Fitted, names: list[str]) -> str:
    """Join columns into one table, in the type that the module takes."""
    ((_, dtype),) = net.rows.values()
    columns = [w.cast(name, getattr(torch, dtype)) for name in names]
    return w.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]


def _type(info: onnx.ValueInfoProto) -> Any:
    """Return the type of an output as skl2onnx declares it."""
    tensor = info.type.tensor_type
    return TENSORS[tensor.elem_type]([d.dim_value or None for d in tensor.shape.dim])
