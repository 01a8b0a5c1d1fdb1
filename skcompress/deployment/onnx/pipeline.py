"""Pipelines in ONNX: scikit-learn's steps by skl2onnx, nets by a converter registered there."""

from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
    guess_data_type,
)
from sklearn.pipeline import Pipeline

from .converters import Step, register_steps
from .fitted import Fitted, fitted, steps_of, transformed
from .model import finished, metadata, net_to_onnx
from .session import run
from .tables import as_feed, check_rows, table_of_numbers, with_columns, without_rows
from .writer import OPSET

Types = list[tuple[str, Any]]


def pipeline_to_onnx(
    pipeline: Pipeline,
    X: Any = None,
    *,
    labels: bool = True,
    floats: bool = False,
    rows: bool = False,
) -> onnx.ModelProto:
    """Return the ONNX model of a fitted Pipeline that ends in a net.

    Parameters
    ----------
    pipeline : Pipeline
    X : array-like, default=None
        A few rows; a frame gives the graph an input for each column, with the column's type.
    labels, floats, rows : bool
        As ``to_onnx`` takes them.

    Raises
    ------
    ValueError
        If skl2onnx does not know a step, or needs a few rows.
    """
    *steps, last = steps_of(pipeline)
    taken = transformed(steps, X)
    net = fitted(last, taken, floats=floats)
    net_to_onnx(net, taken)  # which checks it
    table = table_of_numbers(X, steps)
    types = _unseen(steps, net) if X is None else _seen(X if table is None else table)
    named = [(f"step{i}", step) for i, step in enumerate(steps)]
    plain = Pipeline([*named, ("net", Step(net, labels, rows=True, narrowest=2))])
    register_steps()
    opsets = {"": OPSET, "ai.onnx.ml": 3}
    try:
        model = convert_sklearn(plain, initial_types=types, target_opset=opsets)
    except ValueError:
        raise
    except Exception as error:  # skl2onnx raises errors of many kinds
        raise ValueError(f"skl2onnx does not convert the Pipeline: {error}{_hint(X)}") from error
    model = model if table is None else with_columns(model, X)
    try:
        model = finished(model, metadata(net, pipeline))
        found = None if X is None else run(model, as_feed(X, model))
    except ValueError as error:
        raise ValueError(f"{error}{_hint(X)}") from error
    if found is not None:
        check_rows(found, taken)
    return model if rows else without_rows(model)


def _hint(X: Any) -> str:
    """Say with which rows a Pipeline might convert."""
    if X is None:
        return " Pass a few rows as X, a frame if fit was given one."
    types = set(X.dtypes) if hasattr(X, "columns") else {np.asarray(X).dtype}
    if types <= {np.dtype("float32")}:
        return ""
    return " Some steps are only known in single precision: try X of float32."


def _unseen(steps: list[Any], net: Fitted) -> Types:
    """Say what a graph's input is, of a Pipeline that only tells the number of columns."""
    if not steps:
        (((shape, _),)) = net.rows.values()
        return [("X", FloatTensorType([None, *shape]))]
    n_features = getattr(steps[0], "n_features_in_", None)
    if n_features is None:
        raise ValueError(
            f"{type(steps[0]).__name__}, the first step, does not tell how many columns it takes."
            " Pass a few rows as X."
        )
    return [("X", FloatTensorType([None, n_features]))]


def _seen(X: Any) -> Types:
    """Say what a graph's inputs are, from a few rows.

    Raises
    ------
    ValueError
        If they are no table, or an array of which ONNX has no type.
    """
    if hasattr(X, "columns"):
        try:
            return guess_data_type(X)
        except NotImplementedError as error:  # whose message is skl2onnx's own
            types = sorted({str(dtype) for dtype in X.dtypes})
            raise ValueError(
                f"X has columns of {', '.join(types)}, not all of which ONNX has types for. Turn"
                " categories into strings or numbers, and times into numbers."
            ) from error
    X = np.asarray(X)
    if X.ndim < 2:
        raise ValueError(
            f"The graph of a Pipeline takes tables, and X has shape {X.shape}. Pass one with rows"
            " and columns; steps that take texts one by one are not written as ONNX."
        )
    if X.dtype.kind == "O" and not all(isinstance(value, str) for value in X.flat):
        raise ValueError(
            "X is an array of objects, which are not all strings, and ONNX has no such type. Pass"
            " a frame, whose columns have types of their own."
        )
    kinds = {"b": BooleanTensorType, "i": Int64TensorType, "u": Int64TensorType}
    kinds |= dict.fromkeys("OU", StringTensorType)
    floating = DoubleTensorType if X.dtype == np.float64 else FloatTensorType
    return [("X", kinds.get(X.dtype.kind, floating)([None, *X.shape[1:]]))]
