"""Deployment: what ships, as one file, as an ONNX graph and as a fast predictor."""

from .file.artifact import load, save
from .file.errors import FileError
from .file.predictor import LoadedClassifier, LoadedRegressor
from .onnx.export import export_onnx, register_converters
from .runtime.deploy import deploy

__all__ = [
    "FileError",
    "LoadedClassifier",
    "LoadedRegressor",
    "deploy",
    "export_onnx",
    "load",
    "register_converters",
    "save",
]
