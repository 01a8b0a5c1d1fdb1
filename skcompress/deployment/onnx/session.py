"""Whether a graph can be run."""

import re

import onnx


def check_runs(model: onnx.ModelProto) -> None:
    """Start onnxruntime with a graph, if it is installed: what is written should load.

    That takes some hundredths of a second, as it is not told to optimize the graph.

    Raises
    ------
    ValueError
        If it cannot, because it lacks an operation for a type, for example.
    """
    try:
        import onnxruntime
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails is raised, and need not be logged
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        onnxruntime.InferenceSession(content, options, providers=providers)
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
