"""Tables as the graph of a Pipeline takes them, and what its steps make of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper
from sklearn.compose import ColumnTransformer

from . import ROWS
from .model import names_read

# Rows that a graph is compared with its Pipeline on.
N_ROWS = 1000
_OUTPUTS = {"labels", "probabilities", "predictions", ROWS}


def table_of_numbers(X: Any, steps: Sequence[Any]) -> np.ndarray | None:
    """Return a frame of numbers as the steps see it, as one array; None for any other input.

    skl2onnx joins columns in the type of the first one, and truncates others if that is integer.
    """
    if not hasattr(X, "columns") or not steps or _chooses_columns(steps[0]):
        return None
    types, names = list(X.dtypes), list(X.columns)
    if not all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in types):
        return None
    if not all(isinstance(name, str) and name not in _OUTPUTS for name in names):
        return None
    return X.to_numpy(np.result_type(*types))


def _chooses_columns(step: Any) -> bool:
    inside = step.get_params(deep=True).values() if hasattr(step, "get_params") else ()
    return any(isinstance(part, ColumnTransformer) for part in (step, *inside))


def with_columns(model: onnx.ModelProto, X: Any) -> onnx.ModelProto:
    """Give a graph of one table an input for each column of a frame."""
    # No column may have the name of a value inside.
    model = compose.add_prefix(model, "skcompress/", rename_outputs=False)
    (table,) = model.graph.input
    inputs, casts = [], []
    for name, dtype in zip(X.columns, X.dtypes, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, [None, 1]))
        to = table.type.tensor_type.elem_type
        casts.append(helper.make_node("Cast", [name], [f"skcompress/{name}/number"], to=to))
    parts = [node.output[0] for node in casts]
    nodes = [*casts, helper.make_node("Concat", parts, [table.name], axis=1), *model.graph.node]
    del model.graph.input[:], model.graph.node[:]
    model.graph.input.extend(inputs)
    model.graph.node.extend(nodes)
    return model


def as_feed(X: Any, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return rows as a graph takes them, whose inputs may have other names than columns."""
    columns = [X[[name]].to_numpy() for name in X] if hasattr(X, "columns") else [np.asarray(X)]
    return {
        info.name: values[:N_ROWS].astype(_dtype(info.type.tensor_type.elem_type))
        for info, values in zip(model.graph.input, columns, strict=True)
    }


def check_rows(found: np.ndarray, expected: Any) -> None:
    """Compare the rows that a graph's steps give its net with those that the Pipeline's give.

    Raises
    ------
    ValueError
        If they differ by more than single precision explains.
    """
    expected = np.asarray(expected, dtype=np.float64)[:N_ROWS]
    finite = np.isfinite(expected)
    largest = np.abs(np.where(finite, expected, 0)).max(axis=0)
    with np.errstate(invalid="ignore"):
        near = np.abs(found - expected) <= 1e-3 * largest + 1e-6
    # Nothing is near what is not finite.
    far = ~np.where(finite, near, (found == expected) | (np.isnan(found) & np.isnan(expected)))
    if far.any():
        n_rows = far.reshape(len(far), -1).any(axis=1).sum()
        raise ValueError(
            f"The graph's steps give the net other numbers than the Pipeline's in {n_rows} of"
            f" {len(far)} rows: skl2onnx writes some in single precision, where large numbers lose"
            " their last digits and values at the edge of a bin their side, and a row of zeros has"
            " no norm. Try X of float64, as an array or a frame, or other steps."
        )


def _dtype(kind: int) -> Any:
    return object if kind == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind)


def without_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the rows that come to the net out of a graph's outputs, in place."""
    outputs = [output for output in model.graph.output if output.name != ROWS]
    needed, nodes = {output.name for output in outputs}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(names_read(node))
    del model.graph.output[:], model.graph.node[:]
    model.graph.output.extend(outputs)
    model.graph.node.extend(reversed(nodes))
    return model
