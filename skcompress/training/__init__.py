"""Training: the dense fit, the compression phase and what they need."""

from .batches import ArrayBatches
from .folder import CacheFolder
from .shapes import ShapeSetter

__all__ = ["ArrayBatches", "CacheFolder", "ShapeSetter"]
