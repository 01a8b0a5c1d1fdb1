"""Soft labels come from teachers that have not seen the row, and from rows of the fold alone."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import (
    KFold,
    RepeatedStratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB

from skcompress import DistilledNet
from skcompress.distillation.augment import munge
from skcompress.distillation.given import Rows
from skcompress.distillation.splits import make_splits
from skcompress.distillation.targets import as_soft, out_of_fold, score
from tests.contract_modules import blobs, classifier, line, regressor

FEATURES, Y = blobs(60)
# Every row carries its number.
X = np.column_stack([np.arange(60), FEATURES])
CALLS = []


class Recording(ClassifierMixin, BaseEstimator):
    """A teacher that writes down what it is fitted on and asked about, with the weights."""

    def fit(self, X, y, sample_weight=None):
        np.testing.assert_array_equal(Y[X[:, 0].astype(int)], y)
        self.classes_ = np.unique(y)
        self.rows_ = set(X[:, 0].astype(int).tolist())
        CALLS.append(("fit", self.rows_, sample_weight))
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X):
        asked = set(X[:, 0].astype(int).tolist())
        CALLS.append(("ask", asked, self.rows_))
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


@pytest.fixture(autouse=True)
def forget():
    """Each test begins with an empty record."""
    CALLS.clear()


def student(**settings):
    """Return a net that trains for a moment."""
    return classifier(max_epochs=1, **settings)


def fitted_rows():
    """Return the sets of rows that teachers were fitted on."""
    return [rows for what, rows, _ in CALLS if what == "fit"]


def distilled(teacher=None, **settings):
    """Return a distilled net with a seed."""
    return DistilledNet(
        student(), Recording() if teacher is None else teacher, **{"random_state": 0} | settings
    )


def test_no_teacher_has_seen_the_rows_that_it_labels():
    """Each row is labelled once, by the teacher of the other folds."""
    estimator = distilled(cv=4).fit(X, Y)
    asked = [(rows, known) for what, rows, known in CALLS if what == "ask"]
    assert all(rows.isdisjoint(known) for rows, known in asked)
    assert sorted(row for rows, _ in asked for row in rows) == list(range(60))
    assert len(asked) == 4
    assert not hasattr(estimator, "teacher_")


@pytest.mark.parametrize("settings", [{}, {"augment": 1}, {"cv": "in-sample"}], ids=str)
def test_only_rows_of_the_outer_fold_are_seen(settings):
    """Cross-validation shows the teacher nothing of the fold that is scored."""
    cross_validate(distilled(**settings), X, Y, cv=KFold(2), error_score="raise")
    allowed = [set(range(30)), set(range(30, 60))]
    assert fitted_rows()
    for rows in fitted_rows():
        assert any(rows <= half for half in allowed)


def test_rows_of_zero_weight_leave_after_the_split():
    """The folds are those of all rows; teachers are fitted on those that count."""
    weights = np.where(np.arange(60) < 20, 0.0, 2.0)
    folds = [*KFold(3).split(X[:45]), (np.arange(45), np.arange(45, 60))]
    distilled(cv=folds).fit(X, Y, sample_weight=weights)
    expected = [set(train[weights[train] > 0].tolist()) for train, _ in folds]
    assert fitted_rows() == expected
    assert all((given == 2).all() for what, _, given in CALLS if what == "fit")


@pytest.mark.parametrize("teacher", [Recording(), GaussianNB()], ids=["own", "bayes"])
def test_in_sample(teacher):
    """Asked for, the teacher of all rows labels them."""
    estimator = distilled(teacher, cv="in-sample").fit(X, Y)
    if isinstance(teacher, Recording):
        assert fitted_rows() == [set(range(60))]
    assert estimator.teacher_score_ == estimator.teacher_.score(X, Y)


def test_a_frozen_teacher_is_not_fitted():
    """It labels the rows as it is."""
    teacher = Recording().fit(X, Y)
    CALLS.clear()
    estimator = distilled(FrozenEstimator(teacher)).fit(X, Y)
    assert fitted_rows() == []
    assert estimator.teacher_.estimator is teacher


def test_too_few_rows_are_labelled_in_sample_with_a_warning():
    """Where there are more folds than rows of a class, the labels are in-sample."""
    rows = np.r_[0:2, 20:22, 40:42]
    order = np.argsort(Y, kind="stable")[rows]
    with pytest.warns(UserWarning, match="6 rows are too few for 5 folds"):
        distilled().fit(X[order], Y[order])
    assert fitted_rows() == [set(order.tolist())]


def rows_of(X, y, classes=None, weights=None):
    """Return rows as they are given to teachers."""
    return Rows(X, y, weights, classes)


def test_out_of_fold_is_cross_val_predict():
    """For a partition, the labels are what scikit-learn's own function gives."""
    rows, folds = rows_of(FEATURES, Y, np.arange(3)), KFold(4)
    values = out_of_fold([LogisticRegression()], rows, list(folds.split(FEATURES)), 0)
    expected = cross_val_predict(
        LogisticRegression(), FEATURES, Y, cv=folds, method="predict_proba"
    )
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert score(values, rows) == (expected.argmax(1) == Y).mean()


@pytest.mark.parametrize("n_targets", [1, 2])
def test_out_of_fold_for_regressors(n_targets):
    """Predictions keep the shape of the targets."""
    X, y = line(40)
    y = y if n_targets == 1 else np.column_stack([y, -y])
    values = out_of_fold([LinearRegression()], rows_of(X, y), list(KFold(4).split(X)), 0)
    expected = cross_val_predict(LinearRegression(), X, y, cv=KFold(4))
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_repeated_folds_are_averaged():
    """A row that is tested twice has the mean of both labels."""
    rows = rows_of(FEATURES, Y, np.arange(3))
    cv = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    splits = list(cv.split(FEATURES, Y))
    both = out_of_fold([LogisticRegression()], rows, splits, 0)
    halves = [out_of_fold([LogisticRegression()], rows, s, 0) for s in (splits[:3], splits[3:])]
    np.testing.assert_allclose(both, np.mean(halves, axis=0), rtol=1e-12)


def test_teachers_are_averaged():
    """A list gives the mean of the probabilities."""
    rows, splits = rows_of(FEATURES, Y, np.arange(3)), list(KFold(3).split(FEATURES))
    kinds = [LogisticRegression(), LogisticRegression(C=0.01)]
    both = out_of_fold(kinds, rows, splits, 0)
    each = [out_of_fold([kind], rows, splits, 0) for kind in kinds]
    np.testing.assert_allclose(both, np.mean(each, axis=0), rtol=1e-12)


def test_rows_never_tested_have_their_label_alone():
    """Under a split by time, nobody can label the first rows out of fold."""
    rows = rows_of(FEATURES, Y, np.arange(3))
    splits = make_splits(TimeSeriesSplit(3), rows, 0)
    values = out_of_fold([LogisticRegression()], rows, splits, 0)
    soft = as_soft(values, (60,), "kl", 0.7, None)
    np.testing.assert_array_equal(soft.alpha, np.r_[np.zeros(15), np.full(45, 0.7)])
    assert np.isfinite(soft.values).all()
    assert distilled(cv=TimeSeriesSplit(3)).fit(X, Y).teacher_score_ > 0


def test_splits_that_test_nothing():
    """Without any soft label there is no distillation."""
    with pytest.raises(ValueError, match="test none of the rows"):
        as_soft(np.full((4, 2), np.nan), (4,), "kl", 0.5, None)


def test_a_class_that_a_fold_has_not_seen():
    """Columns are aligned by label: the class that is missing has probability zero."""
    order = np.argsort(Y, kind="stable")
    rows = rows_of(FEATURES[order], Y[order], np.arange(3))
    values = out_of_fold([LogisticRegression()], rows, list(KFold(3).split(FEATURES)), 0)
    for label in range(3):
        assert (values[Y[order] == label, label] == 0).all()
    np.testing.assert_allclose(values.sum(1), 1)


def test_a_teacher_of_other_labels():
    """A frozen teacher must know at least one of the classes."""
    teacher = FrozenEstimator(LogisticRegression().fit(X, np.where(Y > 0, "yes", "no")))
    with pytest.raises(ValueError, match=r"knows the classes \['no', 'yes'\], and y has \[0, 1"):
        distilled(teacher).fit(X, Y)


def test_seeds_reach_the_teacher():
    """The seed decides the folds and what the teacher draws, and the global one does not."""
    found = []
    for global_seed, seed in [(0, 5), (1, 5), (0, 6)]:
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        teacher = RandomForestClassifier(3)
        estimator = DistilledNet(student(), teacher, cv="in-sample", random_state=seed)
        found.append(estimator.fit(X, Y).teacher_.predict_proba(X))
        assert teacher.random_state is None
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_a_seed_of_the_teachers_own_is_kept():
    """Only what is None gets a seed."""
    estimator = distilled(RandomForestClassifier(3, random_state=7), cv="in-sample").fit(X, Y)
    assert estimator.teacher_.random_state == 7


def test_munge_stays_between_neighbours():
    """New rows take whole numbers from a row or its neighbour, and others near either."""
    rng = np.random.RandomState(0)
    table = np.column_stack([rng.randint(0, 3, 50), rng.normal(size=50)]).astype(float)
    made = munge(table, 3, seed=0)
    assert made.shape == (150, 2)
    assert set(made[:, 0]) <= {0.0, 1.0, 2.0}
    assert len(np.unique(made[:, 1])) > 60
    np.testing.assert_array_equal(made, munge(table, 3, seed=0))
    assert (made != munge(table, 3, seed=1)).any()


def test_regressors_are_scored_out_of_fold():
    """The score of a regressor's teacher is its coefficient of determination."""
    rows, y = line(60)
    estimator = DistilledNet(regressor(max_epochs=1), LinearRegression(), cv=KFold(3))
    expected = cross_val_predict(LinearRegression(), rows, y, cv=KFold(3))
    expected = 1 - ((y - expected) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert estimator.fit(rows, y).teacher_score_ == pytest.approx(expected, rel=1e-9)
