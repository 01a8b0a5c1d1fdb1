import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC

from skcompress import DistilledNet, PrunedNet
from skcompress.distillation.refusals import REFUSALS
from skcompress.training.nets import wrapped_net
from tests.contract_modules import CNN, Classifier, Regressor, blobs, classifier, line, regressor
from tests.naming import steady

X, Y = blobs()


class Untrainable(RandomForestClassifier):
    """A teacher that must not be fitted."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a refusal comes before any training")


class UntrainableRegressor(RandomForestRegressor):
    """Likewise."""

    fit = Untrainable.fit


def asking(estimator=None, teacher=None, **settings):
    """Return a distilled net, neither part of which can be trained."""
    estimator = classifier(Classifier) if estimator is None else estimator
    return DistilledNet(estimator, Untrainable() if teacher is None else teacher, **settings)


def of_numbers(**settings):
    """Likewise, for numbers."""
    return DistilledNet(regressor(Regressor), UntrainableRegressor(), **settings)


def frozen():
    """Return a frozen teacher."""
    return FrozenEstimator(RandomForestClassifier(2).fit(X, Y))


CASES = {
    "a net with compile=True": [lambda: asking(classifier(Classifier, compile=True))],
    "a frozen student": [lambda: asking(FrozenEstimator(classifier().fit(X.astype("f"), Y)))],
    "a student with a teacher of its own": [
        lambda: asking(asking()),
        lambda: asking(PrunedNet(asking())),
    ],
    "a student with distill": [lambda: asking(PrunedNet(classifier(Classifier), distill=0.5))],
    "loss='kl' with a regressor": [lambda: of_numbers(loss="kl")],
    "temperature with loss='mse' or a regressor": [
        lambda: of_numbers(temperature=2.0),
        lambda: asking(temperature=2.0, loss="mse"),
    ],
    "splits with frozen teachers": [
        lambda: asking(teacher=frozen(), cv=KFold(3)),
        lambda: asking(teacher=[frozen(), frozen()], cv=[([0, 1, 2], [3])]),
    ],
    "baseline with cv='in-sample'": [lambda: asking(baseline=True, cv="in-sample")],
    "hint_weight without hints": [lambda: asking(hint_weight=2.0)],
    "hints of a teacher that is no net": [
        lambda: asking(hints={"layers.0": "layers.0"}),
        lambda: asking(teacher=[classifier(Classifier)], hints={"layers.0": "layers.0"}),
    ],
}


def test_every_refusal_has_a_case():
    """And no combination or message stands in the table twice."""
    combinations = [refusal.combination for refusal in REFUSALS]
    assert combinations == list(CASES)
    assert len({refusal.message for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize(
    ("refusal", "make"),
    [(refusal, make) for refusal in REFUSALS for make in CASES.get(refusal.combination, [])],
    ids=lambda value: getattr(value, "combination", ""),
)
def test_refused_before_any_training(refusal, make):
    """Exactly the message of the table, of which exactly one entry applies."""
    estimator = make()
    net = wrapped_net(estimator)
    asked = [r.combination for r in REFUSALS if r.applies(estimator, net)]
    assert asked == [refusal.combination]
    with pytest.raises(ValueError, match=r".") as error:
        estimator.fit(*(line() if refusal is REFUSALS[4] else blobs()))
    assert str(error.value) == refusal.message


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.combination)
def test_messages_say_what_to_do(refusal):
    """Each names a way out, and ends in a full stop."""
    assert refusal.message.endswith(".")
    assert any(word in refusal.message for word in ("Set ", "Leave ", "Give ", "Pass ", "Wrap "))


@pytest.mark.parametrize(
    ("teacher", "match"),
    [
        (RandomForestClassifier, "must be a scikit-learn estimator"),
        ("forest", "must be a scikit-learn estimator"),
        (RandomForestRegressor(), "is a classifier, and the teacher RandomForestRegressor is none"),
        (LinearSVC(), "LinearSVC has no predict_proba"),
        ([], "teacher is an empty list"),
    ],
    ids=steady,
)
def test_what_cannot_teach(teacher, match):
    """A teacher is an estimator of the student's type, with probabilities."""
    with pytest.raises(TypeError, match=match):
        DistilledNet(classifier(Classifier), teacher).fit(X, Y)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"alpha": 0.0}, "'alpha' parameter"),
        ({"temperature": 0.0}, "'temperature' parameter"),
        ({"loss": "huber"}, "'loss' parameter"),
        ({"cv": 1}, "'cv' parameter"),
        ({"cv": "prefit"}, "'cv' parameter"),
        ({"augment": -1}, "'augment' parameter"),
    ],
    ids=steady,
)
def test_parameters_out_of_range(settings, match):
    """Values without meaning are named."""
    with pytest.raises(ValueError, match=match):
        asking(**settings).fit(X, Y)


@pytest.mark.parametrize("cv", [None, 2, KFold(2)], ids=steady)
def test_no_teacher_is_no_frozen_one(cv):
    """An empty list is told to be empty, whatever the folds."""
    with pytest.raises(TypeError, match="teacher is an empty list"):
        asking(teacher=[], cv=cv).fit(X, Y)


def test_what_cv_may_be_is_said_once():
    """The range of the number of folds is not repeated."""
    with pytest.raises(ValueError, match=r"'cv' parameter") as error:
        asking(cv=1).fit(X, Y)
    assert str(error.value).count("[2, inf)") == 1


def test_layers_that_are_not_there():
    """Hints that name unknown layers are shown what there is, on either side."""
    teacher = classifier(Classifier)
    with pytest.raises(ValueError, match=r"layers \['hidden'\] of the student, which has \['l"):
        asking(teacher=teacher, hints={"hidden": "layers.0"}).fit(X, Y)
    with pytest.raises(ValueError, match=r"layers \['hidden'\] of the teacher, which has \['l"):
        asking(teacher=teacher, hints={"layers.0": "hidden"}).fit(X, Y)


def test_errors_of_the_student_come_before_the_teacher_is_fitted():
    """A student that cannot be pruned as asked stops everything."""
    student = PrunedNet(classifier(Classifier), sparsity=0.5, threshold=0.1)
    with pytest.raises(ValueError, match="Give one budget only"):
        asking(student).fit(X, Y)


@pytest.mark.parametrize(
    ("more", "match"),
    [(X[:5, :3], "3 features"), ({"X": X[:5]}, "X_unlabeled must be of the form of X")],
    ids=["width", "dict"],
)
def test_unlabelled_rows_of_another_form(more, match):
    """Unlabelled rows look like the others."""
    with pytest.raises(ValueError, match=match):
        asking().fit(X, Y, X_unlabeled=more)


def test_synthetic_rows_of_no_table():
    """Rows are made of tables only."""
    images = np.zeros((len(Y), 1, 8, 8))
    with pytest.raises(ValueError, match="augment= makes rows of a table"):
        asking(classifier(Classifier, module=CNN, callbacks=None), augment=1).fit(images, Y)
