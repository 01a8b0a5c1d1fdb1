"""Deployment: what ships, as one file and as a fast predictor."""

from .onnx import export_onnx

__all__ = ["export_onnx"]
