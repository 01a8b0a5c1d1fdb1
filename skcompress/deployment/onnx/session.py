"""Whether a graph can be run, and what it gives."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx


def check_runs(model: onnx.ModelProto) -> None:
    """Start onnxruntime with a graph, if it is installed: what is written should load.

    That takes some hundredths of a second, as it is not told to optimize the graph.

    Raises
    ------
    ValueError
        If it cannot, because it lacks an operation for a type, for example.
    """
    _session(model)


def run(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the last output of a graph, or None if onnxruntime is not installed.

    Raises
    ------
    ValueError
        If it cannot be run with these rows.
    """
    session = _session(model)
    if session is None:
        return None
    try:
        outputs: list[np.ndarray] = session.run(None, feed)
        return outputs[-1]
    except Exception as error:
        raise ValueError(f"onnxruntime does not run the graph: {error}") from error


def _session(model: onnx.ModelProto) -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails is raised, and need not be logged
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # its errors have no common class
        raise ValueError(_reason(model, str(error))) from error


def _reason(model: onnx.ModelProto, message: str) -> str:
    """Say why a graph cannot be run, and what would help."""
    missing = re.search(r"(?:implementation for |Type Error:.* operator \()(\w+)", message)
    if not missing:
        return f"onnxruntime does not load the graph: {message}"
    stored = {tensor.data_type for tensor in model.graph.initializer}
    if onnx.TensorProto.DOUBLE in stored:
        return (
            f"onnxruntime has no {missing[1]} in double precision. Build the module in float32, and"
            " fit it anew."
        )
    return f"onnxruntime has no {missing[1]} for the types of this graph: {message}"
