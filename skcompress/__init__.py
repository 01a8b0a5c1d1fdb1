"""Neural-network compression as ordinary scikit-learn estimators."""

from ._version import __version__ as __version__
from .deployment import deploy, export_onnx, load, register_converters, save
from .distillation import DistilledNet
from .pruning import PrunedNet
from .quantization import QuantizedNet
from .selection import CompressionDisplay, compression_report, size_in_bytes

__all__ = [
    "CompressionDisplay",
    "DistilledNet",
    "PrunedNet",
    "QuantizedNet",
    "compression_report",
    "deploy",
    "export_onnx",
    "load",
    "register_converters",
    "save",
    "size_in_bytes",
]
