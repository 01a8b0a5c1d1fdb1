"""Splitting, scoring and searching with scikit-learn's own tools."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.contract_modules import blobs, classifier, line, pruned, regressor

X, Y = blobs()
GROUPS = np.arange(len(X)) % 5
# A guess would score 0.33, the mean of a regressor's targets 0.
WELL_ABOVE_CHANCE = 0.75


@pytest.mark.parametrize(
    ("splitter", "groups", "n_scores"),
    [
        (StratifiedShuffleSplit(3, test_size=0.3, random_state=0), None, 3),
        (KFold(3, shuffle=True, random_state=0), None, 3),
        (StratifiedKFold(3), None, 3),
        (RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0), None, 4),
        (GroupKFold(3), GROUPS, 3),
        (LeaveOneGroupOut(), GROUPS, 5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_splitters(splitter, groups, n_scores):
    """Every way to split gives a score per split, each well above chance."""
    scores = cross_val_score(pruned(), X, Y, cv=splitter, groups=groups)
    assert len(scores) == n_scores
    assert scores.min() > WELL_ABOVE_CHANCE


def test_regressors_are_scored_by_r2():
    """Around a regressor the default score is the coefficient of determination."""
    X, y = line(120)
    scores = cross_val_score(pruned(regressor(max_epochs=20)), X, y, cv=3)
    named = cross_val_score(pruned(regressor(max_epochs=20)), X, y, cv=3, scoring="r2")
    assert scores.min() > WELL_ABOVE_CHANCE
    np.testing.assert_allclose(scores, named)


def test_cross_validate_returns_folds_with_their_own_classes_and_masks():
    """Each fold's estimator knows its classes, and has its own masks of the asked sparsity."""
    names = np.array(["a", "b", "c"])[Y]
    scoring = {"accuracy": "accuracy", "loss": "neg_log_loss"}
    estimator = pruned(sparsity=0.6)
    result = cross_validate(estimator, X, names, cv=3, scoring=scoring, return_estimator=True)
    assert result["test_accuracy"].min() > WELL_ABOVE_CHANCE
    assert result["test_loss"].min() > -np.log(3)
    for fold in result["estimator"]:
        assert fold.classes_.tolist() == ["a", "b", "c"]
        assert fold.sparsity_ == pytest.approx(0.6, abs=0.01)


def test_cross_val_predict_gives_probabilities():
    """Out-of-fold probabilities are rows that sum to one."""
    probabilities = cross_val_predict(pruned(), X, Y, cv=3, method="predict_proba")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == Y).mean() > WELL_ABOVE_CHANCE


def test_grid_search_sets_nested_names():
    """A parameter of the module inside the net inside the pipeline is searched by its name."""
    name = "prunednet__estimator__module__hidden"
    pipeline = make_pipeline(StandardScaler(), pruned())
    grid = {name: [1, 16], "prunednet__sparsity": [0.0, 0.5]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, Y)
    assert search.best_params_[name] == 16
    assert search.best_score_ > WELL_ABOVE_CHANCE
    best = search.best_estimator_[-1]
    assert best.net_.module_.layers[0].out_features == 16
    assert best.sparsity_ == pytest.approx(search.best_params_["prunednet__sparsity"], abs=0.01)
    assert pipeline[-1].estimator.get_params().get("module__hidden") is None


def test_randomized_search_draws_candidates():
    """Candidates are drawn from lists, and the best one is refitted."""
    distributions = {"sparsity": np.linspace(0.1, 0.9, 20), "scope": ["global", "layer", "lamp"]}
    search = RandomizedSearchCV(pruned(), distributions, n_iter=3, cv=2, random_state=0).fit(X, Y)
    assert len(search.cv_results_["params"]) == 3
    assert search.best_estimator_.sparsity == search.best_params_["sparsity"]
    assert search.score(X, Y) > WELL_ABOVE_CHANCE


def test_halving_over_rows():
    """Successive halving gives later candidates more rows."""
    grid = {"sparsity": [0.3, 0.6, 0.9, 0.95]}
    search = HalvingGridSearchCV(pruned(), grid, cv=2, min_resources=30, random_state=0).fit(X, Y)
    assert search.n_resources_ == [30, 90]
    assert search.best_score_ > WELL_ABOVE_CHANCE


def test_halving_over_retrain_epochs():
    """Successive halving gives later candidates more epochs of retraining."""
    search = HalvingGridSearchCV(
        pruned(retrain_epochs=None),
        {"sparsity": [0.5, 0.8, 0.9, 0.95]},
        resource="retrain_epochs",
        min_resources=1,
        max_resources=4,
        factor=2,
        cv=2,
        random_state=0,
    ).fit(X, Y)
    assert search.n_resources_ == [1, 2, 4]
    assert search.best_estimator_.retrain_epochs == 4
    assert search.best_score_ > WELL_ABOVE_CHANCE


def test_learning_curve():
    """Scores on held-out rows rise from few rows to many."""
    sizes, _, scores = learning_curve(
        pruned(classifier(max_epochs=4)),
        X,
        Y,
        train_sizes=[6, 80],
        cv=3,
        shuffle=True,
        random_state=0,
    )
    assert sizes.tolist() == [6, 80]
    assert scores[1].mean() > max(WELL_ABOVE_CHANCE, scores[0].mean())


def test_validation_curve():
    """Accuracy falls when nearly everything is pruned and nothing retrained."""
    estimator = pruned(schedule="one-shot", recovery="none", retrain_epochs=None)
    _, scores = validation_curve(
        estimator, X, Y, param_name="sparsity", param_range=[0.0, 0.95], cv=3
    )
    assert scores[0].mean() > WELL_ABOVE_CHANCE
    assert scores[1].mean() < scores[0].mean() - 0.1


def test_permutation_importance():
    """A column of noise matters least."""
    noise = np.random.default_rng(0).normal(size=(len(X), 1))
    with_noise = np.hstack([X, noise])
    estimator = pruned().fit(with_noise, Y)
    result = permutation_importance(estimator, with_noise, Y, n_repeats=5, random_state=0)
    assert result.importances_mean.max() > 0.05
    assert result.importances_mean[-1] < result.importances_mean[:-1].max() / 2


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
def test_calibration(method):
    """A calibrated classifier keeps the classes and gives probabilities."""
    calibrated = CalibratedClassifierCV(pruned(), method=method, cv=3).fit(X, Y + 5)
    assert calibrated.classes_.tolist() == [5, 6, 7]
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    assert calibrated.score(X, Y + 5) > WELL_ABOVE_CHANCE


@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_voting(voting):
    """Two pruned nets and a linear model vote."""
    names = np.array(["a", "b", "c"])[Y]
    members = [
        ("half", pruned(sparsity=0.5)),
        ("most", pruned(sparsity=0.9)),
        ("linear", LogisticRegression()),
    ]
    vote = VotingClassifier(members, voting=voting).fit(X, names)
    assert vote.predict(X[:1])[0] in {"a", "b", "c"}
    assert vote.score(X, names) > WELL_ABOVE_CHANCE
