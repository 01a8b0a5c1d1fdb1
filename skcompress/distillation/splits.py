"""The folds of soft labels."""

import warnings
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

from .given import Rows

Splits = list[tuple[np.ndarray, np.ndarray]]
DEFAULT_FOLDS = 5
IN_A_SEARCH = "Inside a search the rows are those of a training fold: give a splitter there."


def make_splits(cv: Any, rows: Rows, seed: int) -> Splits | None:
    """Split rows as scikit-learn does; a number of folds shuffles them.

    Parameters
    ----------
    cv : None, int, splitter or iterable of (train, test)
        A number, or None, splits the rows of positive weight, so that each fold has its share of
        them. What the user splits counts all rows.
    rows : Rows
    seed : int

    Returns
    -------
    splits : list of (train, test), or None where the rows are too few, with a warning

    Raises
    ------
    ValueError
        If `cv` cannot split the rows, or no teacher can be fitted on a part of them.
    """
    if cv is None or isinstance(cv, Integral):
        return _folds(DEFAULT_FOLDS if cv is None else int(cv), rows, seed)
    splitter = check_cv(cv, rows.y, classifier=rows.classes is not None)
    try:
        splits = list(_split(splitter, rows))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cv={cv!r} cannot split the rows: {error} A splitter that needs more than rows and"
            " labels is given as its splits: cv=list(GroupKFold(3).split(X, y, groups))."
        ) from error
    if not splits:
        raise ValueError(
            "cv= gives no splits. A generator is used up by one fit: give a list of (train, test)."
        )
    return [_checked(split, number, rows) for number, split in enumerate(splits, 1)]


def _split(splitter: Any, rows: Rows) -> Iterable[tuple[Any, Any]]:
    return splitter.split(np.zeros(len(rows.y)), rows.y)


def _folds(n_folds: int, rows: Rows, seed: int) -> Splits | None:
    """Shuffle the rows of positive weight into folds, or warn that they are too few."""
    counted = np.flatnonzero(rows.counted)
    y, seed = rows.y[counted], seed % 2**32
    most = len(y) if rows.classes is None else np.unique(y, return_counts=True)[1].max()
    if most >= n_folds:
        kind = KFold if rows.classes is None else StratifiedKFold
        folds = kind(n_folds, shuffle=True, random_state=seed).split(counted, y)
        splits = [(counted[train], counted[test]) for train, test in folds]
        if not any(_lack(train, rows) for train, _ in splits):
            return splits
    warnings.warn(
        f"{len(y)} rows are too few for {n_folds} folds"
        + ("" if most < n_folds else ", one of which would leave one class only to train on")
        + ": the teacher's labels are those of the rows that it was fitted on, and too sure of"
        " themselves. Give fewer folds, cv=2 at least, or more rows. There is no baseline_score_"
        " either.",
        UserWarning,
        stacklevel=2,
    )
    return None


def _lack(train: np.ndarray, rows: Rows) -> str | None:
    """Say why no teacher can be fitted on these rows."""
    labels = rows.y[train][rows.counted[train]]
    if not len(labels):
        return "no row of positive weight"
    return "one class only" if rows.classes is not None and len(np.unique(labels)) < 2 else None


def _checked(split: Any, number: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return a split of the user's as numbers of rows; refuse one that cannot be used."""
    where, n_rows = f"Split {number} of cv=", len(rows.y)
    train, test = (_numbers(part, where, n_rows) for part in split)
    lack = _lack(train, rows)
    if lack is not None:
        raise ValueError(
            f"The training rows of split {number} of cv= hold {lack}. Give a number of folds,"
            " which spreads labels and rows of positive weight, or other splits."
        )
    both = np.intersect1d(train, test)
    if len(both):
        raise ValueError(
            f"{where} tests row {both[0]}, which it also trains on, so that its soft label would"
            " be in-sample. Leave it out of one of the two, or set cv='in-sample'."
        )
    return train, test


def _numbers(part: Any, where: str, n_rows: int) -> np.ndarray:
    """Return the numbers of rows, which may be given as a mask."""
    part = np.asarray(part)
    if part.dtype == bool:
        if part.shape != (n_rows,):
            raise ValueError(
                f"{where} has a mask of {len(part)} rows, and there are {n_rows} rows."
                f" {IN_A_SEARCH}"
            )
        return np.flatnonzero(part)
    if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
        raise ValueError(
            f"{where} has rows of shape {part.shape} and type {part.dtype}. Give the numbers of"
            " rows as integers, or a mask of booleans."
        )
    beyond = part[(part < 0) | (part >= n_rows)]
    if len(beyond):
        raise ValueError(
            f"{where} has row {beyond[0]}, and there are {n_rows} rows, from 0 on. {IN_A_SEARCH}"
        )
    return part.astype(np.int64)
