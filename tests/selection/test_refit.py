import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skcompress.selection import smallest_within, smallest_within_one_se


def results(folds, sizes):
    """Return what `cv_results_` says of candidates with these fold scores and sizes."""
    folds = np.array(folds, dtype=float)
    cv_results = {f"split{k}_test_accuracy": column for k, column in enumerate(folds.T)}
    # A metric whose name ends like the other's must not be taken for it.
    cv_results |= {f"split{k}_test_test_accuracy": column - 9 for k, column in enumerate(folds.T)}
    return cv_results | {
        "mean_test_accuracy": folds.mean(axis=1),
        "std_test_accuracy": folds.std(axis=1),
        "mean_test_size": -np.array(sizes, dtype=float),
    }


# The best candidate's folds have a standard deviation of 0.02 (one degree of freedom less), so
# with four folds a standard error of 0.01.
BEST = [0.90 + 0.02 * np.sqrt(0.75) * sign for sign in (-1, -1, 1, 1)]


@pytest.mark.parametrize(("mean", "chosen"), [(0.8902, 1), (0.8898, 0)])
def test_one_standard_error_is_the_margin(mean, chosen):
    """A smaller candidate is chosen just inside the margin and not just outside it."""
    assert smallest_within_one_se()(results([BEST, [mean] * 4], [1000, 10])) == chosen


@pytest.mark.parametrize(("tolerance", "chosen"), [(0, 0), (0.01, 1), (0.05, 2), (1, 3)])
def test_tolerance_is_the_margin(tolerance, chosen):
    """The smallest candidate is chosen whose score is at most `tolerance` lower, inclusive."""
    folds = [[score] * 3 for score in (0.95, 0.94, 0.90, 0.10)]
    assert smallest_within(tolerance)(results(folds, [1000, 500, 100, 10])) == chosen


@pytest.mark.parametrize(
    ("scores", "sizes", "chosen"),
    [
        ([0.90, 0.91, 0.90], [50, 50, 50], 1),
        ([0.90, 0.90, 0.90], [50, 50, 60], 0),
        ([0.91, 0.90, 0.90], [60, 50, 50], 1),
    ],
    ids=["higher score", "all equal", "earlier of the smallest"],
)
def test_ties_go_to_the_higher_score_then_the_earlier(scores, sizes, chosen):
    """Of equally small candidates the more accurate is chosen, of equal ones the first."""
    assert smallest_within(0.1)(results([[score] * 2 for score in scores], sizes)) == chosen


@pytest.mark.parametrize("rule", [smallest_within(0.5), smallest_within_one_se()])
def test_failed_candidates_are_left_out(rule):
    """A candidate without a score or without a size is never the best nor the chosen one."""
    folds = [[np.nan, 0.99], BEST[1:3], BEST[1:3]]
    assert rule(results(folds, [1, 100, np.nan])) == 1


@pytest.mark.parametrize("rule", [smallest_within(0.5), smallest_within_one_se()])
def test_all_candidates_failed(rule):
    """Without any candidate to choose the error says how to see the cause."""
    with pytest.raises(ValueError, match=r"None of the 2 candidates .* error_score='raise'"):
        rule(results([[np.nan] * 2] * 2, [1, 2]))


@pytest.mark.parametrize(
    "rule", [smallest_within(0.5, score="f1"), smallest_within_one_se(size="f1")]
)
def test_missing_metrics_are_named(rule):
    """A metric that the search did not measure is named, beside those that it did."""
    with pytest.raises(ValueError, match=r"no column 'mean_test_f1'.*\['accuracy', 'size'\]"):
        rule(results([[0.9] * 2], [1]))


def test_one_split_has_no_standard_error():
    """The one-standard-error rule asks for more folds, or for a tolerance."""
    with pytest.raises(ValueError, match=r"got 1 split.* Use more folds, or smallest_within"):
        smallest_within_one_se()(results([[0.9], [0.8]], [2, 1]))


@pytest.mark.parametrize("tolerance", [-0.1, np.nan, np.inf, "0.1", None])
def test_bad_tolerances_are_refused(tolerance):
    """A tolerance is a finite number of at least zero."""
    with pytest.raises(ValueError, match="tolerance must be a finite number of at least 0"):
        smallest_within(tolerance)


@pytest.mark.parametrize("rule", [smallest_within(0.02), smallest_within_one_se()])
def test_rules_pickle_and_serve_a_search(rule):
    """A rule survives pickling and cloning, and picks the candidate that a search refits."""
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        LogisticRegression(max_iter=1000),
        {"C": [1e-3, 1.0, 100.0]},
        # The strongest penalty stands for the smallest candidate.
        scoring={"accuracy": "accuracy", "size": lambda estimator, X, y: -estimator.C},
        refit=pickle.loads(pickle.dumps(rule)),
    )
    search = clone(search).fit(X, y)
    assert search.best_index_ == rule(search.cv_results_) == 1
    assert search.best_estimator_.C == 1.0
