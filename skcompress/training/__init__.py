"""Training: the dense fit, the compression phase and what they need."""

from .batches import ArrayBatches
from .shapes import ShapeSetter

__all__ = ["ArrayBatches", "ShapeSetter"]
