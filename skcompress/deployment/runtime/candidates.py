"""A fitted estimator as predictors on onnxruntime, one in each form that can be made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from ..onnx import ROWS
from ..onnx.fitted import Fitted, fitted, steps_of, transformed, unwrapped
from .inputs import InputSpec, as_arrays
from .predictor import MAX_ROWS, Content, Deployed, DeployedClassifier, DeployedRegressor

FORMS = (
    "fp32",
    "int8 dynamic",
    "int8 static",
    "int8 linear",
    "fp32 padded",
    "int8 dynamic padded",
    "int8 linear padded",
    "fp32 in spans",
    "int8 as fitted",
)


def candidates(
    estimator: Any, X: Any, forms: Sequence[str] | None, n_threads: int
) -> tuple[dict[str, Deployed], dict[str, str]]:
    """Return predictors in the forms asked for, by name; and why others could not be made.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        from ..onnx.model import to_onnx
        from .forms import forms as makers_of

        plain = to_onnx(estimator, X, labels=False, floats=True, rows=True)
    except ImportError as error:
        raise ImportError(
            "deploy needs the packages onnx, onnxruntime and skl2onnx: pip install"
            " 'skcompress[onnx]'"
        ) from error
    outer = unwrapped(estimator)
    *steps, last = steps_of(outer) if isinstance(outer, Pipeline) else [outer]
    net = fitted(last, transformed(steps, X))
    feed = as_arrays(X, _inputs(plain, outer), getattr(outer, "feature_names_in_", None))
    makers = makers_of(plain, feed)
    if net.integers is not None:
        makers["int8 as fitted"] = lambda: to_onnx(estimator, X, labels=False, rows=True)
    found, failed = {}, {}
    for name in makers if forms is None else [n for n in FORMS if n in forms]:
        try:
            model = makers[name]() if name in makers else None
            if model is None:
                failed[name] = "the net has no layer for it"
                continue
            found[name] = _deployed(model, name, outer, net, n_threads)
            found[name]._in_parts({key: values[:1] for key, values in feed.items()})
        except Exception as error:  # whatever a tool that quantizes, or the runtime, raises
            found.pop(name, None)
            failed[name] = f"onnxruntime fails: {str(error).strip().splitlines()[0]}"
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ValueError(f"No form of the net could be made. {reasons}.")
    return found, failed


def _deployed(model: Any, form: str, outer: Any, net: Fitted, n_threads: int) -> Deployed:
    classes = net.classes
    if is_classifier(net.estimator) and classes is None:
        output = next(o for o in model.graph.output if o.name != ROWS)
        classes = np.arange(output.type.tensor_type.shape.dim[1].dim_value)
    content = Content(
        model.SerializeToString(),
        _inputs(model, outer),
        classes,
        net.threshold,
        getattr(outer, "feature_names_in_", None),
        # Ranges of a whole batch would let a row of extreme values spoil all others.
        max_rows=1 if "dynamic" in form else MAX_ROWS,
        form=form,
    )
    kind = DeployedClassifier if is_classifier(net.estimator) else DeployedRegressor
    return kind(content, n_threads)


def _inputs(model: Any, outer: Any) -> dict[str, InputSpec]:
    """Say what a graph takes."""
    import onnx

    inputs, tables = {}, _tables(model.graph)
    for info in model.graph.input:
        tensor = info.type.tensor_type
        shape = tuple(d.dim_value for d in tensor.shape.dim[1:])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        # A Pipeline may have a step that replaces what is missing.
        may_miss = isinstance(outer, Pipeline) and dtype.kind == "f"
        inputs[info.name] = InputSpec(shape, dtype, may_miss, tables.get(info.name))
    return inputs


def _tables(graph: Any) -> dict[str, int]:
    """Return the rows of the tables that values choose from, such as those of embeddings."""
    from onnx import numpy_helper

    numbers = {t.name: numpy_helper.to_array(t).item() for t in graph.initializer if not t.dims}
    choices = {n.output[0]: n.input for n in graph.node if n.op_type == "Where"}
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type in ("Cast", "Identity")}
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in sizes:
            name = node.input[1]
            # Before an embedding, indices below zero are turned into one that is too large.
            if name in choices and numbers.get(choices[name][1]) == sizes[node.input[0]]:
                name = choices[name][2]
            while name in source:
                name = source[name]
            found[name] = min(sizes[node.input[0]], found.get(name, sizes[node.input[0]]))
    return found
