"""Distillation: a net that is taught by any scikit-learn estimator."""

from .distilled import DistilledNet

__all__ = ["DistilledNet"]
