"""DistilledNet with all kinds of students and teachers."""

import numpy as np
import pytest
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skcompress import PrunedNet
from tests import pruning_modules
from tests.contract_modules import (
    assert_same_state,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)
from tests.distillation.test_distilled import ROWS, WELL_ABOVE_CHANCE, WORDS, X, Y, distilled

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
