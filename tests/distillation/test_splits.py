"""Folds of soft labels: shuffled over the rows that count, or as the user splits all rows."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from skcompress.distillation.given import Rows
from skcompress.distillation.splits import make_splits
from tests.contract_modules import blobs

FEATURES, Y = blobs(60)


def rows_of(X, y, classes=None, weights=None):
    """Return rows as they are given to teachers."""
    return Rows(X, y, weights, classes)


BAD_SPLITS = {
    "groups": (GroupKFold(3), r"cv=GroupKFold.*cannot split.*list\(GroupKFold\(3\).split"),
    "used up": (iter(()), "gives no splits. A generator is used up"),
    "beyond": ([(np.arange(20), [60])], "Split 1 of cv= has row 60, and there are 60 rows"),
    "before": ([(np.arange(20), [-1])], "Split 1 of cv= has row -1, and there are 60 rows"),
    "fractions": ([(np.arange(20), [30.5])], r"has rows of shape \(1,\) and type float64"),
    "tables": ([(np.arange(20)[:, None], [30])], r"has rows of shape \(20, 1\) and type int64"),
    "short mask": ([(np.arange(20), np.ones(9, bool))], "a mask of 9 rows, and there are 60"),
    "overlap": ([(np.arange(20, 60), [3]), (np.arange(40), [50, 17])],
                "Split 2 of cv= tests row 17, which it also trains on"),
    "one class": ([(np.flatnonzero(Y == 1), [0])],
                  "split 1 of cv= hold one class only. Give a number of folds"),
    "no weight": ([(np.arange(30, 60), [0]), (np.arange(30), [40])],
                  "split 2 of cv= hold no row of positive weight. Give a number of folds"),
}  # fmt: skip


@pytest.mark.parametrize(("cv", "message"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_splits_that_no_teacher_can_be_fitted_on(cv, message):
    """Told before any teacher is fitted."""
    rows = rows_of(FEATURES, Y, np.arange(3), np.arange(60) >= 30)
    with pytest.raises(ValueError, match=message):
        make_splits(cv, rows, 0)


def test_splits_may_be_masks():
    """As scikit-learn takes them."""
    mask = np.arange(60) < 30
    ((train, test),) = make_splits([(mask, ~mask)], rows_of(FEATURES, Y, np.arange(3)), 0)
    assert train.tolist() == list(range(30))
    assert test.tolist() == list(range(30, 60))


@pytest.mark.parametrize("classes", [np.arange(3), None], ids=["classes", "numbers"])
def test_a_number_of_folds_is_a_shuffled_partition(classes):
    """As scikit-learn's own splitters make it, where every row counts."""
    kind = KFold if classes is None else StratifiedKFold
    expected = kind(4, shuffle=True, random_state=3).split(FEATURES, Y)
    for split, other in zip(
        make_splits(4, rows_of(FEATURES, Y, classes), 3), expected, strict=True
    ):
        np.testing.assert_array_equal(split[0], other[0])
        np.testing.assert_array_equal(split[1], other[1])


@pytest.mark.parametrize("seed", range(6))
def test_folds_share_the_rows_that_count(seed):
    """However few, as many as there are folds give each fold its share, of either class."""
    weights = np.zeros(60)
    weights[np.r_[np.flatnonzero(Y == 0)[:3], np.flatnonzero(Y == 1)[:3]]] = 1
    for train, test in make_splits(3, rows_of(FEATURES, Y, np.arange(2), weights), seed):
        assert np.bincount(Y[train]).tolist() == [2, 2]
        assert np.bincount(Y[test]).tolist() == [1, 1]
        assert weights[train].all()
    weights = np.where(np.arange(60) < 2, 1.0, 0.0)
    splits = make_splits(2, rows_of(FEATURES, FEATURES[:, 0], None, weights), seed)
    assert sorted((*train, *test) for train, test in splits) == [(0, 1), (1, 0)]


def test_too_few_rows_that_count():
    """It is said, and the labels are in-sample."""
    weights = np.where(np.arange(60) < 2, 1.0, 0.0)
    with pytest.warns(UserWarning, match="2 rows are too few for 3 folds: the teacher's labels"):
        assert make_splits(3, rows_of(FEATURES, FEATURES[:, 0], None, weights), 0) is None


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_of_one_row_beside_one_other():
    """The fold that tests it would train on one class: the labels are in-sample instead."""
    y = (np.arange(60) == 7).astype(int)
    with pytest.warns(UserWarning, match="60 rows are too few for 2 folds, one of which would"):
        assert make_splits(2, rows_of(FEATURES, y, np.arange(2)), 0) is None
