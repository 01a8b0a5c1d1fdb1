"""Deployment: what ships, as one file, as an ONNX graph and as a fast predictor."""

from .artifact import load, save
from .errors import FileError
from .onnx import export_onnx
from .predictor import LoadedClassifier, LoadedRegressor
from .runtime import deploy

__all__ = [
    "FileError",
    "LoadedClassifier",
    "LoadedRegressor",
    "deploy",
    "export_onnx",
    "load",
    "save",
]
