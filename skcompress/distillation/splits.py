"""The folds of soft labels."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

from .given import Rows

Splits = list[tuple[np.ndarray, np.ndarray]]
DEFAULT_FOLDS = 5


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
