"""Quantization: weights, and activations, of a few bits."""

from .formats import FORMATS
from .quantized import QuantizedNet
from .rounding import quantize
from .tensors import QuantizedTensor

__all__ = ["FORMATS", "QuantizedNet", "QuantizedTensor", "quantize"]
