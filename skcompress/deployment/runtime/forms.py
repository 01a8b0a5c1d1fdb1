"""The forms in which onnxruntime may run a net: floating point or integers, padded or not."""

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

from .linear import with_own_weights, with_ranges
from .padding import pad_channels

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
) -> dict[str, Callable[[], onnx.ModelProto]]:
    """Return how to make each form of a floating-point graph, by its name.

    Parameters
    ----------
    plain : onnx.ModelProto
    feed : dict of ndarray
        Rows as the graph takes them.
    """
    makers = {
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
    return makers


def _linear(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    return with_ranges(_dynamic(model, LINEAR), next(Rows(feed).batches))


def _dynamic(model: onnx.ModelProto, operations: Sequence[str]) -> onnx.ModelProto:
    """Quantize operations by onnxruntime, with ranges of each batch."""
    settings = {"op_types_to_quantize": list(operations), "per_channel": True}
    return _through_files(
        model, lambda *paths: quantize_dynamic(*paths, weight_type=QuantType.QInt8, **settings)
    )


def _static(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Quantize a graph by onnxruntime, with ranges from rows."""
    return _through_files(
        model,
        lambda *paths: quantize_static(
            *paths, Rows(feed), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=list(STATIC), activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        ),
    )  # fmt: skip


def _through_files(
    model: onnx.ModelProto, convert: Callable[[Path, Path], None]
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(with_own_weights(model, LINEAR), before)
        convert(before, after)
        return onnx.load(after)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime from advising on the root logger."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
