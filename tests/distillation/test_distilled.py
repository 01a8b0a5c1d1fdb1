"""What DistilledNet teaches: its parameters, hints and baseline, in stages and in workers."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from skcompress import DistilledNet, QuantizedNet
from skcompress.training.loop import Data, dense_fit
from skcompress.training.soft import SoftTargets
from tests.contract_modules import MLP, assert_same_state, blobs, classifier, pruned, state
from tests.naming import steady

X, Y = blobs()
ROWS = X.astype(np.float32)
WORDS = np.array(["low", "mid", "top"])[Y]
WELL_ABOVE_CHANCE = 0.75


def distilled(student=None, teacher=None, **settings):
    """Return a distilled net with a seed and few folds."""
    student = classifier() if student is None else student
    teacher = GaussianNB() if teacher is None else teacher
    return DistilledNet(student, teacher, **{"random_state": 0, "cv": 3} | settings)


FOREST = RandomForestClassifier(5)


def test_the_student_is_trained_as_by_hand():
    """Soft labels of a teacher on all rows, in one fit of skorch."""
    soft = SoftTargets(GaussianNB().fit(X, Y).predict_proba(X), 0.6, 3.0)
    # The seeds of the stages are not public; without randomness, fits agree.
    module = MLP().eval()
    net = classifier(module=module, callbacks=None)
    by_hand = dense_fit(clone(net), Data(ROWS, Y, None, soft)).module_.state_dict()
    taught = distilled(net, cv="in-sample", alpha=0.6, temperature=3.0).fit(X, Y)
    assert_same_state(state(taught), dict(by_hand))


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.2}, {"alpha": 1.0}, {"temperature": 5.0}, {"loss": "mse"}, {"cv": 4},
     {"cv": "in-sample"}, {"augment": 1}, {"random_state": 1},
     {"teacher": KNeighborsClassifier()}],
    ids=steady,
)  # fmt: skip
def test_every_parameter_matters(settings):
    """Each changes the bits of the student."""
    first, second = distilled().fit(X, Y), distilled(**settings).fit(X, Y)
    assert not torch.equal(state(first)["layers.0.weight"], state(second)["layers.0.weight"])


def test_compressed_students_are_taught_in_both_phases(monkeypatch):
    """The dense fit and the retraining of the inner stage see the same soft targets."""
    seen = []
    original = SoftTargets.columns
    monkeypatch.setattr(SoftTargets, "columns", lambda s: seen.append(len(s.values)) or original(s))
    estimator = distilled(pruned(schedule="one-shot", sparsity=0.6)).fit(X, Y)
    # The first two look at two rows, before training.
    assert seen[-2:] == [120, 120]
    assert estimator.estimator_.masks_
    zeros = sum((w == 0).sum() for n, w in state(estimator).items() if n.endswith("weight"))
    assert zeros == sum((~mask).sum() for mask in estimator.estimator_.masks_.values())


def test_a_pruned_distilled_net():
    """Outside, pruning takes the taught net as any other."""
    estimator = pruned(distilled(), sparsity=0.5).fit(X, WORDS)
    assert estimator.score(X, WORDS) > WELL_ABOVE_CHANCE
    assert isinstance(estimator.estimator_, DistilledNet)


def test_nested_names_search_the_teacher():
    """The teacher's parameters are hyperparameters of the whole."""
    search = GridSearchCV(
        pruned(distilled(teacher=RandomForestClassifier(2), cv=2)),
        {"estimator__teacher__n_estimators": [1, 5], "estimator__alpha": [0.3, 0.9]},
        cv=2,
    )
    assert search.fit(X, Y).best_score_ > WELL_ABOVE_CHANCE


def test_a_search_may_have_a_frozen_teacher_among_others():
    """A number of folds is for those that are fitted."""
    teachers = [GaussianNB(), FrozenEstimator(GaussianNB().fit(X, Y))]
    search = GridSearchCV(distilled(cv=2), {"teacher": teachers}, cv=2, error_score="raise")
    assert (search.fit(X, Y).cv_results_["mean_test_score"] > WELL_ABOVE_CHANCE).all()


HINTS = {"hints": {"layers.0": "layers.1", "layers.2": "layers.2"}}


@pytest.mark.parametrize(
    "teacher",
    [
        classifier(module__hidden=24),
        pruned(classifier(module__hidden=24)),
        QuantizedNet(classifier(module__hidden=24), activations="dynamic"),
        FrozenEstimator(QuantizedNet(classifier(), activations="static").fit(X, Y)),
    ],
    ids=["net", "pruned", "integers", "frozen integers"],
)
def test_hints(teacher):
    """Layers of other widths are compared, and their weight matters."""
    given = {"teacher": teacher, "cv": None if isinstance(teacher, FrozenEstimator) else 3}
    plain = distilled(**given).fit(X, Y)
    hinted = distilled(**given, **HINTS).fit(X, Y)
    strong = distilled(**given, hint_weight=10.0, **HINTS).fit(X, Y)
    states = [state(e)["layers.0.weight"] for e in (plain, hinted, strong)]
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])
    assert hinted.score(X, Y) > WELL_ABOVE_CHANCE


def test_the_baseline_says_whether_the_teacher_helps():
    """On the same folds, and with a warning where the teacher is no better."""
    useless = KNeighborsClassifier(n_neighbors=75)
    with pytest.warns(UserWarning, match="The teacher is no better than the student alone"):
        estimator = distilled(teacher=useless, baseline=True).fit(X, Y)
    assert estimator.teacher_score_ <= estimator.baseline_score_
    weak = classifier(max_epochs=1, lr=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taught = distilled(weak, baseline=True).fit(X, Y)
    assert taught.baseline_score_ < taught.teacher_score_
    assert not hasattr(taught.set_params(baseline=False).fit(X, Y), "baseline_score_")


def test_the_baseline_is_the_student_alone():
    """Its score is that of the student's own cross-validation."""
    net = classifier(module=MLP().eval(), callbacks=None)
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        estimator = distilled(net, cv=folds, baseline=True).fit(X, Y)
    hits = [(clone(net).fit(ROWS[a], Y[a]).predict(ROWS[b]) == Y[b]).sum() for a, b in folds]
    assert estimator.baseline_score_ == pytest.approx(sum(hits) / len(Y))


def test_internal_validation():
    """Early stopping watches the loss with the teacher's part."""
    net = classifier(train_split=ValidSplit(4), callbacks=[EarlyStopping()], max_epochs=3)
    net.set_params(module__n_inputs=4)
    estimator = distilled(net, augment=1).fit(X, Y)
    assert len(estimator.estimator_.history_[:, "valid_loss"]) > 0


def test_workers_give_the_same_bits():
    """One process and two give the same nets, whatever the global seeds."""
    results = []
    for n_jobs in (1, 2):
        torch.manual_seed(n_jobs)
        estimator = distilled(teacher=[FOREST, classifier()], n_threads=1)
        run = cross_validate(estimator, X, Y, cv=2, n_jobs=n_jobs, return_estimator=True)
        results.append(run["estimator"])
    for alone, worker in zip(*results, strict=True):
        assert_same_state(state(alone), state(worker))


def test_a_fitted_student_pickles_small():
    """Neither the teacher nor the targets go with it."""
    big = RandomForestClassifier(100)
    estimator = distilled(teacher=big).fit(X, Y)
    dump = pickle.dumps(estimator)
    assert len(dump) < 60_000
    np.testing.assert_array_equal(pickle.loads(dump).predict(X), estimator.predict(X))


class Ignoring(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return nn.functional.cross_entropy(y_pred, y_true)


def test_students_that_cannot_be_taught():
    """Found out before the teacher is fitted."""
    teacher = FOREST.__class__(max_depth=-1)  # would fail as soon as it is fitted
    with pytest.raises(ValueError, match="get_loss of Ignoring never calls criterion_"):
        distilled(classifier(Ignoring), teacher).fit(X, Y)
    with pytest.raises(ValueError, match="criterion=MultiMarginLoss takes"):
        distilled(classifier(criterion=nn.MultiMarginLoss), teacher).fit(X, Y)
