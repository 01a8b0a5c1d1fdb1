"""Shipping a fitted net: the file."""

from .artifact import load, save
from .errors import FileError

__all__ = ["FileError", "load", "save"]
