"""Soft labels of teachers: out of fold, or by teachers that are fitted on all of the rows."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

from .. import inputs
from ..inputs import take_rows
from ..training.cache import cached_array
from ..training.folder import CacheFolder
from ..training.isolation import stage_seed
from ..training.soft import DEFAULT_TEMPERATURE, SoftTargets
from .teachers import answers, fitted

Splits = list[tuple[np.ndarray, np.ndarray]]
DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class Rows:
    """The rows given to ``fit``, as they were given.

    Parameters
    ----------
    X : array, frame, dict of arrays or SliceDataset
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Labels of the user's own, or numbers.
    weights : ndarray of shape (n_samples,) or None
        Non-negative; a row of no weight is never trained on.
    classes : ndarray of shape (n_classes,) or None
        None for a regressor.
    """

    X: Any
    y: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray | None

    @property
    def counted(self) -> np.ndarray:
        """Which rows have a weight."""
        return np.ones(len(self.y), dtype=bool) if self.weights is None else self.weights > 0

    def take(self, rows: np.ndarray) -> "Rows":
        """Keep some rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Rows(take_rows(self.X, rows), self.y[rows], weights, self.classes)


def as_given(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Rows:
    """Return all rows as the teacher is given them: frames as they are, y as it was.

    Parameters
    ----------
    estimator : DistilledNet
        It has seen them, and knows their classes.
    """
    X = X if hasattr(X, "iloc") else inputs.check_inputs(estimator, X, reset=False)
    y = np.asarray(inputs.as_target(y))
    classification = is_classifier(estimator)
    if classification or estimator.target_ndim_ == 1:
        y = y.ravel()
    weights = inputs.check_weights(sample_weight, len(y))
    return Rows(X, y, weights, estimator.classes_ if classification else None)


def make_splits(cv: Any, rows: Rows, seed: int) -> Splits | None:
    """Split rows as scikit-learn does; a number of folds shuffles them.

    Returns
    -------
    splits : list of (train, test), or None where the rows are too few, with a warning
    """
    if cv is None or isinstance(cv, (int, np.integer)):
        n_folds, y = int(cv or DEFAULT_FOLDS), rows.y[rows.counted]
        most = len(y) if rows.classes is None else np.unique(y, return_counts=True)[1].max()
        if most < n_folds:
            warnings.warn(
                f"{len(y)} rows are too few for {n_folds} folds: the teacher's labels are those"
                " of the rows that it was fitted on, and too sure of themselves. Give fewer"
                " folds, cv=2 at least, or more rows. There is no baseline_score_ either.",
                UserWarning,
                stacklevel=2,
            )
            return None
        kind = KFold if rows.classes is None else StratifiedKFold
        cv = kind(n_folds, shuffle=True, random_state=seed % 2**32)
    splitter = check_cv(cv, rows.y, classifier=rows.classes is not None)
    try:
        splits = [(_numbers(train), _numbers(test)) for train, test in _split(splitter, rows)]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cv={cv!r} cannot split the rows: {error} A splitter that needs more than rows and"
            " labels is given as its splits: cv=list(GroupKFold(3).split(X, y, groups))."
        ) from error
    _check_splits(splits, rows)
    return splits


def _split(splitter: Any, rows: Rows) -> Iterable[tuple[Any, Any]]:
    return splitter.split(np.zeros(len(rows.y)), rows.y)


def _numbers(rows: Any) -> np.ndarray:
    """Return the numbers of rows, which may be given as a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)


def _check_splits(splits: Splits, rows: Rows) -> None:
    """Refuse splits that no teacher can be fitted on."""
    if not splits:
        raise ValueError(
            "cv= gives no splits. A generator is used up by one fit: give a list of (train, test)."
        )
    for number, (train, test) in enumerate(splits, 1):
        most = max(train.max(initial=-1), test.max(initial=-1))
        if most >= len(rows.y):
            raise ValueError(
                f"Split {number} of cv= has row {most}, and there are {len(rows.y)} rows. Inside"
                " a search the rows are those of a training fold: give a splitter there."
            )
        labels = rows.y[train][rows.counted[train]]
        if not len(labels) or (rows.classes is not None and len(np.unique(labels)) < 2):
            raise ValueError(
                f"The training rows of split {number} of cv= hold"
                f" {'one class only' if len(labels) else 'no row of positive weight'}. Shuffle"
                " them, as StratifiedKFold(3, shuffle=True) does."
            )


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
        known = fit_all(teachers, rows.take(train), stage_seed(seed, f"fold {fold}"))
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
