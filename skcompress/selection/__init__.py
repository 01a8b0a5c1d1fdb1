"""Choosing among fitted nets: metrics and scorers, rules for refit, tables and plots."""

from .displays import CompressionDisplay
from .metrics import latency, latency_scorer, size_in_bytes, size_scorer
from .refit import smallest_within, smallest_within_one_se
from .report import compression_report

__all__ = [
    "CompressionDisplay",
    "compression_report",
    "latency",
    "latency_scorer",
    "size_in_bytes",
    "size_scorer",
    "smallest_within",
    "smallest_within_one_se",
]
