"""DistilledNet with all kinds of students and teachers."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from skcompress import DistilledNet, PrunedNet, QuantizedNet
from skcompress.training.loop import Data, dense_fit
from skcompress.training.soft import SoftTargets
from tests import pruning_modules
from tests.contract_modules import (
    EXACT,
    MLP,
    TwoInputs,
    assert_same_state,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)
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
TEACHERS = {
    "forest": FOREST,
    "boosting": HistGradientBoostingClassifier(max_iter=5),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "voting": VotingClassifier([("nb", GaussianNB()), ("rf", FOREST)], voting="soft"),
    "neighbours": KNeighborsClassifier(),
    "net": classifier(module__hidden=32),
    "net of probabilities": classifier(criterion=nn.NLLLoss, module__softmax=True),
    "pruned": pruned(random_state=None),
    "list": [GaussianNB(), classifier(module__hidden=32)],
    "search": GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5]}, cv=2),
}


@pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)
def test_teachers_of_all_kinds(teacher):
    """Each teaches words from float64 rows, and the same again from the same seed."""
    first, second = (distilled(teacher=teacher).fit(X, WORDS) for _ in range(2))
    assert first.score(X, WORDS) > WELL_ABOVE_CHANCE
    assert first.teacher_score_ > WELL_ABOVE_CHANCE
    assert set(first.predict(X)) == set(WORDS)
    assert_same_state(state(first), state(second))


FROZEN = {
    "forest": lambda: FOREST.fit(X, Y),
    "net": lambda: classifier().fit(ROWS, Y),
    "pruned": lambda: pruned().fit(X, Y),
    "pipeline": lambda: make_pipeline(StandardScaler(), GaussianNB()).fit(X, Y),
}


@pytest.mark.parametrize("make", FROZEN.values(), ids=FROZEN)
def test_frozen_teachers(make):
    """A frozen teacher labels the rows as it is, and is not changed."""
    teacher = make()
    before = teacher.predict(ROWS)
    estimator = distilled(teacher=FrozenEstimator(teacher), cv=None).fit(X, Y)
    assert estimator.score(X, Y) > WELL_ABOVE_CHANCE
    np.testing.assert_array_equal(teacher.predict(ROWS), before)
    np.testing.assert_array_equal(estimator.teacher_.predict(X), before)


@pytest.mark.parametrize("name", pruning_modules.MODULES)
def test_students_of_all_kinds(name):
    """Whatever the module, it is taught, and so it is while it is pruned."""
    module, parameters, shape = pruning_modules.MODULES[name]
    rows, y = pruning_modules.classification(30, shape)
    if shape == pruning_modules.TOKENS:
        rows = np.clip(rows.round() + 3, 1, 6).astype(np.int64)
    net = pruning_modules.classifier(module, **{f"module__{k}": v for k, v in parameters.items()})
    teacher = pruning_modules.classifier(module, max_epochs=1)
    teacher.set_params(**{f"module__{k}": v for k, v in parameters.items()})
    student = PrunedNet(net, retrain_epochs=1)
    estimator = distilled(student, teacher, cv=2).fit(rows, y)
    assert estimator.predict_proba(rows).shape == (30, 3)
    assert estimator.estimator_.sparsity_ == pytest.approx(0.5, abs=0.05)


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


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_binary_nets(loss):
    """A single logit is taught by two probabilities, of whatever labels."""
    X, y = blobs(80, n_classes=2)
    estimator = distilled(binary_classifier(), loss=loss, augment=1).fit(X, np.where(y, "b", "a"))
    assert estimator.score(X, np.where(y, "b", "a")) > 0.9
    taught = distilled(binary_classifier(), binary_classifier(), loss=loss).fit(X, y)
    assert taught.score(X, y) > 0.9


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("teacher", [RandomForestRegressor(5), Ridge(), regressor()], ids=repr)
def test_regressors(teacher, n_targets):
    """Targets of one and of two dimensions."""
    rows, y = line(60)
    y = y if n_targets == 1 else np.column_stack([y, -y])
    student = regressor(max_epochs=60)
    estimator = distilled(student, teacher, augment=1).fit(rows, y, X_unlabeled=rows[:3])
    assert estimator.predict(rows).shape == y.shape
    assert estimator.score(rows, y) > 0.6


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
