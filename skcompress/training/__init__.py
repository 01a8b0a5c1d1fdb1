"""Training: the dense fit, the compression phase and what they need."""

from .shapes import ShapeSetter

__all__ = ["ShapeSetter"]
