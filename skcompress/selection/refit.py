"""Rules for ``GridSearchCV(refit=...)``: the smallest net that is good enough."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count, takewhile
from numbers import Real
from typing import Any

import numpy as np

Margin = Callable[[Mapping[str, Any], str, int], float]


def smallest_within_one_se(score: str = "accuracy", size: str = "size") -> Callable[..., int]:
    """Choose the smallest candidate within one standard error of the best one.

    The standard error is that of the best candidate's mean over the folds, the standard deviation
    of its fold scores (with one degree of freedom less) over the root of their number. Among
    candidates of equal size the higher score wins, then the earlier one. Candidates without a
    finite score and size (their fit failed) are left out.

    Folds share training rows, so their scores are not independent and the standard error is an
    underestimate; the rule is a convention for parsimony, not a test.

    Parameters
    ----------
    score : str, default="accuracy"
        Name of the metric in the search's `scoring` that must stay high.
    size : str, default="size"
        Name of the metric to choose by. As in every scorer greater is better, so the smallest
        candidate is the one whose negative bytes are highest: see
        :func:`~skcompress.selection.size_scorer`. A latency scorer serves as well.

    Returns
    -------
    rule : callable
        Takes ``cv_results_`` and returns the index of the chosen candidate; it pickles.

    Raises
    ------
    ValueError
        When the rule is called: if a metric is missing, no candidate has a finite score and size,
        or there is only one split.

    References
    ----------
    L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and Regression Trees", 1984,
    section 3.4.3.

    Examples
    --------
    >>> from skcompress.selection import smallest_within_one_se
    >>> cv_results = {
    ...     "split0_test_accuracy": [0.90, 0.89, 0.70], "split1_test_accuracy": [0.94, 0.92, 0.72],
    ...     "mean_test_accuracy": [0.92, 0.905, 0.71], "mean_test_size": [-4000, -900, -100]}
    >>> smallest_within_one_se()(cv_results)
    1
    """
    return partial(_choose, margin=_standard_error, score=score, size=size)


def smallest_within(
    tolerance: float, score: str = "accuracy", size: str = "size"
) -> Callable[..., int]:
    """Choose the smallest candidate whose mean score is at most `tolerance` below the best one.

    Ties and failed candidates are handled as in :func:`smallest_within_one_se`.

    Parameters
    ----------
    tolerance : float
        How much of the score may be given up, in units of the score, at least 0: 0.01 is one
        percentage point of accuracy.
    score : str, default="accuracy"
        Name of the metric in the search's `scoring` that must stay high.
    size : str, default="size"
        Name of the metric to choose by, greater is better.

    Returns
    -------
    rule : callable
        Takes ``cv_results_`` and returns the index of the chosen candidate; it pickles.

    Raises
    ------
    ValueError
        If `tolerance` is no number of at least 0. When the rule is called: if a metric is missing
        or no candidate has a finite score and size.

    Examples
    --------
    >>> from skcompress.selection import smallest_within
    >>> cv_results = {"mean_test_accuracy": [0.92, 0.91, 0.71],
    ...               "mean_test_size": [-4000, -900, -100]}
    >>> smallest_within(0.01)(cv_results)
    1
    """
    if not isinstance(tolerance, Real) or not 0 <= tolerance < np.inf:
        raise ValueError(
            f"tolerance must be a finite number of at least 0, in units of the score; got"
            f" {tolerance!r}."
        )
    return partial(_choose, margin=partial(_fixed, float(tolerance)), score=score, size=size)


def _choose(cv_results: Mapping[str, Any], *, margin: Margin, score: str, size: str) -> int:
    scores = mean_scores(cv_results, score)
    sizes = mean_scores(cv_results, size)
    usable = np.flatnonzero(np.isfinite(scores) & np.isfinite(sizes))
    if not len(usable):
        raise ValueError(
            f"None of the {len(scores)} candidates has a finite {score!r} and {size!r}: every fit"
            " or score failed. Set error_score='raise' in the search to see why."
        )
    best = usable[np.argmax(scores[usable])]
    # Means of folds carry rounding errors: exactly at the margin still counts as within.
    lowest = scores[best] - margin(cv_results, score, best) - 1e-12
    within = usable[scores[usable] >= lowest]
    # lexsort is stable and its last key comes first: largest (negative) size, then best score.
    return int(within[np.lexsort((-scores[within], -sizes[within]))[0]])


def _standard_error(cv_results: Mapping[str, Any], score: str, best: int) -> float:
    folds = fold_scores(cv_results, score)[:, best]
    if len(folds) < 2:
        raise ValueError(
            f"One split has no standard error; got {len(folds)} split(s) of {score!r}. Use more"
            " folds, or smallest_within(tolerance)."
        )
    return float(np.std(folds, ddof=1) / np.sqrt(len(folds)))


def _fixed(tolerance: float, cv_results: Mapping[str, Any], score: str, best: int) -> float:
    return tolerance


def mean_scores(cv_results: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return the mean test scores of a metric, one per candidate.

    Raises
    ------
    ValueError
        If the search did not score by `metric`.
    """
    column = f"mean_test_{metric}"
    if column not in cv_results:
        names = [key.removeprefix("mean_test_") for key in cv_results if key.startswith("mean_te")]
        raise ValueError(
            f"cv_results_ has no column {column!r}; its metrics are {names}. Name one of them, or"
            f" give the search scoring={{..., {metric!r}: ...}}, for example"
            " {'accuracy': 'accuracy', 'size': size_scorer}."
        )
    return np.asarray(cv_results[column], dtype=float)


def fold_scores(cv_results: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return the test scores of a metric, of shape (n_splits, n_candidates)."""
    columns = (f"split{fold}_test_{metric}" for fold in count())
    present = takewhile(cv_results.__contains__, columns)
    return np.array([cv_results[column] for column in present], dtype=float)
