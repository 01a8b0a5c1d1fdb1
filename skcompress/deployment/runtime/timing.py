"""How fast each form of a deployed net is on this machine, and which one to keep."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch.dataset import get_len
from skorch.utils import multi_indexing

# By how much another form must be faster than "fp32", the simplest, to be kept: what lies below is
# within the noise of such measurements.
MARGIN = 0.98


def measure(
    calls: Mapping[str, Callable[[Any], Any]],
    X: Any,
    batch_sizes: list[int],
    n_repeats: int,
    n_threads: int,
) -> pd.DataFrame:
    """Time predictions in turns, so that what else runs on the machine disturbs all alike.

    The order is random: whoever came after torch each time would find the caches as it left them.

    Parameters
    ----------
    calls : dict of callable
        What predicts, by the name of its form; the first is what speed is measured against.
    X : array, dict of arrays or frame
    batch_sizes : list of int
    n_repeats, n_threads : int

    Returns
    -------
    report : DataFrame
        Columns ``form``, ``batch_size``, ``microseconds`` (medians) and ``speed_up``.
    """
    before, records, reference = torch.get_num_threads(), [], next(iter(calls))
    rng = np.random.default_rng(0)
    torch.set_num_threads(n_threads)
    try:
        for size in batch_sizes:
            rows = multi_indexing(X, np.arange(size) % get_len(X))
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(n_repeats):
                for name in rng.permutation(list(calls)):
                    times[name].append(seconds(calls[name], rows))
            medians = {name: float(np.median(t)) for name, t in times.items()}
            records += [
                {"form": n, "batch_size": size, "microseconds": 1e6 * t,
                 "speed_up": medians[reference] / t}
                for n, t in medians.items()
            ]  # fmt: skip
    finally:
        torch.set_num_threads(before)
    return pd.DataFrame(records)


def seconds(call: Callable[[Any], Any], rows: Any) -> float:
    """Time a call, after one that brings its weights to the cache."""
    call(rows)
    start = time.perf_counter()
    call(rows)
    return time.perf_counter() - start


def mean_speed_up(report: pd.DataFrame) -> pd.Series:
    """Return the speed-up of each form: geometric means over batch sizes."""
    return np.exp(np.log(report.set_index("form")["speed_up"]).groupby(level=0).mean())


def fastest(report: pd.DataFrame) -> str:
    """Return the form to keep; the first form of the report is the estimator itself."""
    speed = mean_speed_up(report).drop(report["form"].iloc[0])
    best = str(speed.idxmax())
    keeps_floats = "fp32" in speed and speed["fp32"] >= MARGIN * speed[best]
    return "fp32" if keeps_floats else best
