"""Deployment: what ships, as one file and as a fast predictor."""

from .onnx import export_onnx
from .runtime import deploy

__all__ = ["deploy", "export_onnx"]
