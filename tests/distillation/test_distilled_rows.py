"""Rows that are unlabelled, named or weighted, on their way to student and teacher."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.contract_modules import EXACT, TwoInputs, assert_same_state, classifier, state
from tests.distillation.test_distilled import WELL_ABOVE_CHANCE, WORDS, X, Y, distilled


def test_unlabelled_rows():
    """The teacher labels more rows, which help where there are few labels."""
    few = np.r_[0:15]
    teacher = FrozenEstimator(GaussianNB().fit(X, Y))
    alone, helped = (distilled(teacher=teacher, cv=None) for _ in range(2))
    alone.fit(X[few], Y[few])
    helped.fit(X[few], Y[few], X_unlabeled=X[15:])
    assert helped.score(X, Y) > alone.score(X, Y)
    weighted = distilled(teacher=teacher, cv=None)
    weighted.fit(X[few], Y[few], sample_weight=np.ones(15), X_unlabeled=X[15:])
    np.testing.assert_allclose(
        weighted.predict_proba(X), helped.predict_proba(X), rtol=1e-2, atol=1e-3
    )


def test_unlabelled_rows_are_routed():
    """A search hands unlabelled rows to every fold as they are."""
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = distilled(cv=2).set_fit_request(X_unlabeled=True)
        search = GridSearchCV(estimator, {"alpha": [0.5]}, cv=2, error_score="raise")
        assert search.fit(X, Y, X_unlabeled=X[:7]).best_score_ > WELL_ABOVE_CHANCE


def test_unlabelled_rows_of_dicts():
    """Named inputs are appended by name; the teacher is a net that takes them."""
    tokens = np.random.default_rng(0).integers(0, 10, (120, 3))
    rows = {"numbers": X, "tokens": tokens}
    net = classifier(module=TwoInputs, callbacks=None)
    estimator = distilled(net, net).fit(rows, Y, X_unlabeled={n: v[:9] for n, v in rows.items()})
    assert estimator.score(rows, Y) > WELL_ABOVE_CHANCE


def test_frames_reach_the_teacher_as_they_are():
    """A teacher may choose columns by name, also for synthetic rows."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    columns = make_column_transformer((StandardScaler(), ["a", "b"]), ("passthrough", ["c"]))
    teacher = make_pipeline(columns, GaussianNB())
    estimator = distilled(teacher=teacher, augment=1).fit(frame, WORDS, X_unlabeled=frame[:5])
    assert estimator.score(frame, WORDS) > WELL_ABOVE_CHANCE
    assert estimator.feature_names_in_.tolist() == list("abcd")


def test_weights_reach_student_and_teacher():
    """Integer weights equal repeated rows, when no row's copies are in two folds."""
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    owner = np.repeat(np.arange(len(X)), counts)
    folds = list(KFold(3).split(X))
    copies = [tuple(np.flatnonzero(np.isin(owner, part)) for part in fold) for fold in folds]
    teacher = LogisticRegression(tol=1e-10, max_iter=1000)
    weighted = distilled(classifier(**EXACT), teacher, cv=folds).fit(X, Y, sample_weight=counts)
    repeated = distilled(classifier(**EXACT), teacher, cv=copies).fit(X[owner], Y[owner])
    assert weighted.teacher_score_ == pytest.approx(repeated.teacher_score_)
    np.testing.assert_allclose(
        weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-4, atol=1e-6
    )


def test_teachers_that_take_no_weights():
    """It is said, not passed over; a Pipeline's last step takes them."""
    weights = np.arange(len(X)) % 3
    with pytest.warns(UserWarning, match="KNeighborsClassifier takes no sample_weight"):
        distilled(teacher=KNeighborsClassifier()).fit(X, Y, sample_weight=weights)
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    first = distilled(teacher=pipeline).fit(X, Y, sample_weight=1 + weights)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            GaussianNB().set_fit_request(sample_weight=True),
        )
        second = distilled(teacher=pipeline).fit(X, Y, sample_weight=1 + weights)
    assert_same_state(state(first), state(second))
