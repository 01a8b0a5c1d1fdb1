"""The forms in which onnxruntime may run a net: floating point or integers, whole or in spans."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from ..onnx import ROWS
from .linear import with_own_weights, with_ranges
from .padding import pad_channels
from .spans import split_steps

# Rows that the ranges of activations are measured on.
CALIBRATION_ROWS = 512
STATIC = ("Conv", "Gemm", "MatMul", "Relu", "MaxPool", "Add", "Mul", "AveragePool", "Concat")
LINEAR = ("Gemm", "MatMul")
DYNAMIC = (*LINEAR, "LSTM")


class Rows(CalibrationDataReader):
    """Rows for onnxruntime to measure ranges on, all in one batch."""

    def __init__(self, feed: Mapping[str, np.ndarray]) -> None:
        n_rows = len(next(iter(feed.values())))
        chosen = np.linspace(0, n_rows - 1, min(n_rows, CALIBRATION_ROWS)).astype(int)
        self.batches = iter([{name: x[chosen] for name, x in feed.items()}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the batch, then None."""
        return next(self.batches, None)


def forms(
    plain: onnx.ModelProto, feed: Mapping[str, np.ndarray]
) -> dict[str, Callable[[], onnx.ModelProto | None]]:
    """Return how to make each form of a floating-point graph, by its name.

    A maker returns None where no layer would compute in integers.

    Parameters
    ----------
    plain : onnx.ModelProto
    feed : dict of ndarray
        Rows as the graph takes them.
    """
    makers: dict[str, Callable[[], onnx.ModelProto | None]] = {
        "fp32": lambda: plain,
        "int8 dynamic": lambda: _dynamic(plain, DYNAMIC),
        "int8 static": lambda: _static(plain, feed),
    }
    weights = {tensor.name for tensor in plain.graph.initializer}
    has_linear = any(n.op_type in LINEAR and n.input[1] in weights for n in plain.graph.node)
    beside = has_linear and any(node.op_type == "Conv" for node in plain.graph.node)
    if beside:
        makers["int8 linear"] = lambda: _linear(plain, feed)
    padded = pad_channels(plain)
    if padded is not None:
        makers["fp32 padded"] = lambda: padded
        makers["int8 dynamic padded"] = lambda: _dynamic(padded, DYNAMIC)
        if beside:
            makers["int8 linear padded"] = lambda: _linear(padded, feed)
    in_spans = split_steps(plain)
    if in_spans is not None:
        makers["fp32 in spans"] = lambda: in_spans
    return makers


def _linear(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
    quantized = _dynamic(model, LINEAR)
    return None if quantized is None else with_ranges(quantized, next(Rows(feed).batches))


def _dynamic(model: onnx.ModelProto, operations: Sequence[str]) -> onnx.ModelProto | None:
    """Quantize operations by onnxruntime, with ranges of each batch."""
    settings = {"op_types_to_quantize": list(operations), "per_channel": True}
    # Of values that operations of skl2onnx give, of which onnx does not infer types.
    settings["extra_options"] = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    return _through_files(
        model, lambda *paths: quantize_dynamic(*paths, weight_type=QuantType.QInt8, **settings)
    )


def _static(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
    """Quantize a graph by onnxruntime, with ranges from rows."""
    quantized = _through_files(
        model,
        lambda *paths: quantize_static(
            *paths, Rows(feed), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=list(STATIC), activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        ),
    )  # fmt: skip
    return quantized and _with_rows_as_they_were(quantized)


def _with_rows_as_they_were(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the rows that are looked at be those before the net rounds them."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        while ROWS in node.output and _rounds(makers.get(node.input[0])):
            node.input[0] = makers[node.input[0]].input[0]
    return model


def _rounds(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear")


def _through_files(
    model: onnx.ModelProto, convert: Callable[[Path, Path], None]
) -> onnx.ModelProto | None:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(with_own_weights(model, DYNAMIC), before)
        convert(before, after)
        quantized = onnx.load(after)
    kinds = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    weights = [t for t in quantized.graph.initializer if t.data_type in kinds and len(t.dims) > 1]
    return quantized if weights else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime from advising on the root logger."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
