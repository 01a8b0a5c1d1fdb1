"""Soft labels of teachers: out of fold, or by teachers that are fitted on all of the rows."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, r2_score

from ..inputs import take_rows
from ..training.cache import cached_array
from ..training.folder import CacheFolder
from ..training.isolation import stage_seed
from ..training.soft import DEFAULT_TEMPERATURE, SoftTargets
from .given import Rows
from .splits import Splits
from .teachers import answers, fitted, unwrapped


def fit_all(teachers: Iterable[Any], rows: Rows, seed: int) -> list[Any]:
    """Fit clones of the teachers on the rows that count."""
    rows = rows.take(np.flatnonzero(rows.counted))
    return [
        fitted(teacher, rows.X, rows.y, rows.weights, stage_seed(seed, f"teacher {number}"))
        for number, teacher in enumerate(teachers)
    ]


def average(teachers: list[Any], X: Any, classes: np.ndarray | None) -> np.ndarray:
    """Average what fitted teachers answer."""
    return np.mean([answers(teacher, X, classes) for teacher in teachers], axis=0)


def out_of_fold(
    teachers: list[Any],
    rows: Rows,
    splits: Splits,
    seed: int,
    folder: CacheFolder | None = None,
) -> np.ndarray:
    """Ask about each row teachers that were not fitted on it.

    Parameters
    ----------
    teachers : list of estimator
        Not fitted; their answers are averaged.
    rows : Rows
    splits : list of (train, test)
        A row that is tested several times gets the average; one that never is gets NaN.
    seed : int
    folder : CacheFolder or None, default=None
        Where the answers are kept.

    Returns
    -------
    values : ndarray of shape (n_samples, n_classes) or that of ``rows.y``
    """
    key = "answers", teachers, rows, splits, seed
    return cached_array(folder, key, lambda: _out_of_fold(teachers, rows, splits, seed))


def _out_of_fold(teachers: list[Any], rows: Rows, splits: Splits, seed: int) -> np.ndarray:
    shape = rows.y.shape if rows.classes is None else (len(rows.y), len(rows.classes))
    values, counts = np.zeros(shape), np.zeros((len(rows.y), *[1] * (len(shape) - 1)))
    for fold, (train, test) in enumerate(splits):
        try:
            known = fit_all(teachers, rows.take(train), stage_seed(seed, f"fold {fold}"))
        except Exception as error:
            names = " or ".join(type(unwrapped(teacher)).__name__ for teacher in teachers)
            where = f"on the training rows of fold {fold + 1} of cv="
            error.add_note(f"{names}, {where}, is what failed.")
            raise
        given = average(known, take_rows(rows.X, test), rows.classes)
        values[test] += given.reshape(values[test].shape)
        counts[test] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(values / np.where(counts > 0, counts, np.nan))


def answered(values: np.ndarray) -> np.ndarray:
    """Tell which rows have an answer."""
    return ~np.isnan(values.reshape(len(values), -1)).any(1)


def score(values: np.ndarray, rows: Rows) -> float:
    """Return the accuracy or the coefficient of determination of answers, on rows that have one."""
    kept = rows.counted & answered(values)
    y, values = rows.y[kept], values[kept]
    weights = None if rows.weights is None else rows.weights[kept]
    if rows.classes is not None:
        labels = rows.classes[values.argmax(1)]
        return float(accuracy_score(y, labels, sample_weight=weights))
    return float(r2_score(y, values, sample_weight=weights)) if len(y) > 1 else float("nan")


def warn_if_no_better(teacher: float, student: float) -> None:
    """Say it where the student needs no teacher."""
    if teacher <= student:
        warnings.warn(
            f"The teacher is no better than the student alone: it scores {teacher:.4f}, the"
            f" student {student:.4f} on the same folds. Give a better teacher, or train the"
            " student without one.",
            UserWarning,
            stacklevel=2,
        )


def as_soft(
    values: np.ndarray,
    shape: tuple[int, ...],
    kind: str,
    alpha: float,
    temperature: float | None,
) -> SoftTargets:
    """Turn answers into soft targets; a row without an answer has its label alone.

    Raises
    ------
    ValueError
        If no row has one.
    """
    told = answered(values)
    if not told.any():
        raise ValueError(
            "The splits of cv= test none of the rows, so none has a soft label. Give splits"
            " whose test rows are among those of positive weight."
        )
    if kind == "values":
        values = np.nan_to_num(values).reshape(shape)
    else:
        values = np.where(told[:, None], values, 1 / values.shape[1])
    temperature = DEFAULT_TEMPERATURE if temperature is None else temperature
    return SoftTargets(values, np.where(told, alpha, 0.0), temperature, kind)
