"""Nets as teachers, alone and inside other estimators, whatever labels a fold lacks."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from skcompress import DistilledNet, PrunedNet
from skcompress.distillation.net_teacher import NetTeacher, as_estimator
from skcompress.distillation.teachers import answers, fitted
from tests.contract_modules import (
    MLP,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
)
from tests.distillation.test_distilled import WELL_ABOVE_CHANCE, WORDS, X, Y, distilled

LABELS = [np.arange(3), np.array([0, 2, 5]), np.array(["low", "mid", "top"])]
FIXED = {"callbacks": None}


def fixed(**settings):
    """Return a net that has an output for each of three classes, whatever the rows hold."""
    return classifier(**FIXED | settings)


INSIDE = {
    "net": lambda net: net,
    "pruned": lambda net: pruned(net, random_state=None),
    "pipeline": lambda net: make_pipeline(StandardScaler(), net),
    "pipeline of pruned": lambda net: make_pipeline(StandardScaler(), pruned(net)),
    "voting": lambda net: VotingClassifier([("net", net), ("nb", GaussianNB())], voting="soft"),
    "voting of pruned": lambda net: VotingClassifier([("net", pruned(net))], voting="soft"),
    "voting of pipelines": lambda net: VotingClassifier(
        [("net", make_pipeline(StandardScaler(), net))], voting="soft"
    ),
    "bagging": lambda net: BaggingClassifier(net, n_estimators=2),
    "calibrated": lambda net: CalibratedClassifierCV(net, cv=2),
    "search": lambda net: GridSearchCV(net, {"lr": [0.02], "module__hidden": [8, 16]}, cv=2),
}


@pytest.mark.parametrize("make", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("labels", LABELS, ids=["numbers", "gaps", "words"])
def test_nets_anywhere_in_a_teacher_answer_by_label(make, labels):
    """From float64 rows, of whatever labels, also where these lack the one in the middle."""
    teacher = as_estimator(make(fixed()), labels)
    for rows in (np.arange(120), np.flatnonzero(Y != 1)):
        known = fitted(teacher, X[rows], labels[Y[rows]], None, 0)
        given = answers(known, X, labels)
        assert given.shape == (120, 3)
        np.testing.assert_allclose(given.sum(1), 1, rtol=1e-6)
        assert (given.argmax(1) == Y)[rows].mean() > WELL_ABOVE_CHANCE
    assert (given[:, 1] == 0).all()
    assert known.predict(X[:3]).dtype == labels.dtype


def test_the_users_teacher_is_not_changed():
    """Nets are wrapped in a copy, and only those that are not wrapped already."""
    net = fixed()
    pipeline = make_pipeline(StandardScaler(), net)
    wrapped = as_estimator(pipeline, np.arange(3))
    assert pipeline[-1] is net
    assert isinstance(wrapped[-1], NetTeacher)
    assert isinstance(wrapped[-1].estimator, NeuralNetClassifier)
    again = as_estimator(wrapped[-1], np.arange(4))
    assert isinstance(again.estimator, NeuralNetClassifier)
    assert again.classes.tolist() == [0, 1, 2, 3]
    for other in (GaussianNB(), FrozenEstimator(pipeline), make_pipeline(GaussianNB())):
        assert as_estimator(other, np.arange(3)) is other


@pytest.mark.parametrize("teacher", [fixed(), GaussianNB()], ids=["net", "bayes"])
@pytest.mark.parametrize("student", [fixed(), pruned(fixed())], ids=["net", "pruned"])
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.filterwarnings("ignore:The teacher is no better")
def test_folds_that_miss_a_class(student, teacher):
    """Neither a teacher nor the baseline fails on them."""
    y = np.where(Y == 2, 0, Y)
    y[7] = 2
    estimator = distilled(student, teacher, baseline=True, cv=2).fit(X, y)
    assert estimator.teacher_score_ > WELL_ABOVE_CHANCE
    assert estimator.baseline_score_ > WELL_ABOVE_CHANCE
    weights = np.where(np.arange(len(X)) < 90, 1.0, 0.0)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    assert weighted.teacher_score_ > WELL_ABOVE_CHANCE


@pytest.mark.parametrize(
    "wrap",
    [clone, lambda net: PrunedNet(net, sparsity=0.0, schedule="one-shot", recovery="none")],
    ids=["net", "pruned"],
)
def test_a_missing_class_is_left_out_and_no_more(wrap):
    """The net is trained with all outputs; its answers are those of a net that names classes."""
    rows = np.flatnonzero(Y != 1)
    net = fixed(module=MLP().eval())  # without randomness, fits agree
    teacher = NetTeacher(wrap(net), classes=np.arange(3), random_state=0).fit(X[rows], Y[rows])
    by_hand = clone(net).set_params(classes=[0, 1, 2]).fit(X[rows].astype("f"), Y[rows])
    expected = by_hand.predict_proba(X.astype("f"))[:, [0, 2]]
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(teacher.predict_proba(X), expected, rtol=1e-5)
    assert teacher.classes_.tolist() == [0, 2]
    np.testing.assert_array_equal(teacher.predict(X), np.array([0, 2])[expected.argmax(1)])
    assert teacher.fit(X, Y).predict_proba(X).shape == (120, 3)
    assert teacher.classes_.tolist() == [0, 1, 2]


def test_nets_as_wide_as_the_part_of_the_labels_that_they_see():
    """Nets of two outputs tell one class from the rest, and shape setters follow the rows."""
    for net in (classifier(module__n_outputs=2, **FIXED), classifier(), binary_classifier()):
        teacher = as_estimator(OneVsRestClassifier(net), np.arange(3))
        known = fitted(teacher, X, Y, None, 0)
        assert (answers(known, X, np.arange(3)).argmax(1) == Y).mean() > WELL_ABOVE_CHANCE


def test_errors_say_which_fold_and_whose():
    """The student is as wide as it should be; the teacher's net is not."""
    with pytest.raises(ValueError, match=r"gives outputs .* 4\), but y has 3 classes") as error:
        distilled(teacher=fixed(module__n_outputs=4)).fit(X, Y)
    note = "NeuralNetClassifier, on the training rows of fold 1 of cv=, is what failed."
    assert error.value.__notes__ == [note]


def test_classes_that_the_user_names():
    """They stay as they are, and so do those of a frozen net."""
    named = fixed(classes=["low", "mid", "top"])
    rows = np.flatnonzero(Y != 1)
    teacher = NetTeacher(named, classes=np.unique(WORDS)).fit(X[rows], WORDS[rows])
    assert teacher.classes_.tolist() == ["low", "top"]
    frozen = NetTeacher(FrozenEstimator(fixed().fit(X.astype("f"), Y)), classes=np.arange(3))
    assert frozen.fit(X[rows], Y[rows]).classes_.tolist() == [0, 1, 2]


def test_frames_and_regressors_inside_pipelines():
    """A net in a Pipeline takes what a compressed net takes."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    teacher = make_pipeline(StandardScaler().set_output(transform="pandas"), classifier())
    assert distilled(teacher=teacher).fit(frame, WORDS).teacher_score_ > WELL_ABOVE_CHANCE
    rows, y = line(60)
    teacher = make_pipeline(StandardScaler(), regressor(max_epochs=60))
    assert not is_classifier(teacher)
    assert DistilledNet(regressor(), teacher, random_state=0).fit(rows, y).teacher_score_ > 0.6


def test_a_teacher_from_the_folder_knows_which_classes_it_has_seen(tmp_path):
    """It answers as the one that was trained."""
    rows = np.flatnonzero(Y != 1)
    settings = {"classes": np.arange(3), "random_state": 0, "memory": tmp_path / "cache"}
    first, again = (
        NetTeacher(fixed(), **settings).fit(X[rows], Y[rows]).predict_proba(X) for _ in range(2)
    )
    assert first.shape == (len(X), 2)
    np.testing.assert_array_equal(first, again)


def test_a_search_keeps_the_names_of_a_compressed_net():
    """Its grid speaks of the compressed net's parameters, which is left as it is."""
    search = GridSearchCV(pruned(), {"estimator__lr": [0.02], "sparsity": [0.3]}, cv=2)
    teacher = as_estimator(search, np.arange(3))
    assert teacher is search
    assert fitted(teacher, X, Y, None, 0).score(X, Y) > WELL_ABOVE_CHANCE


class Narrow(LogisticRegression):
    """A teacher that knows fewer classes than it answers for, as a net by itself does."""

    def predict_proba(self, X):
        return np.column_stack([super().predict_proba(X), np.zeros(len(X))])


def test_columns_that_are_not_the_classes():
    """Nobody guesses which is which."""
    with pytest.raises(ValueError, match=r"Narrow gives 4 columns .* knows 3 classes, \[0, 1, 2\]"):
        distilled(teacher=Narrow()).fit(X, Y)
    # A frozen net has columns that a VotingClassifier does not know of.
    net = FrozenEstimator(fixed().fit(X.astype("f"), Y))
    teacher = as_estimator(VotingClassifier([("net", net)], voting="soft"), np.arange(3))
    rows = np.flatnonzero(Y != 1)
    X_, y = blobs(30)
    known = fitted(teacher, X[rows], np.minimum(Y[rows], 1), None, 0)
    with pytest.raises(ValueError, match="gives 3 columns of probabilities and knows 2 classes"):
        answers(known, X_, np.unique(y))
