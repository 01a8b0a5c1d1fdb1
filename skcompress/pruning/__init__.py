"""Pruning: what is important, how much stays, when, and what is removed."""

from .criteria import CRITERIA
from .pruned import PrunedNet

__all__ = ["CRITERIA", "PrunedNet"]
