"""Shipping a fitted net: the file."""

from .artifact import load, save
from .errors import FileError
from .predictor import LoadedClassifier, LoadedRegressor

__all__ = ["FileError", "LoadedClassifier", "LoadedRegressor", "load", "save"]
