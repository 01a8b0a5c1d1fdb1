"""Pipelines, column transformers, routed sample weights and the output of frames."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.contract_modules import assert_same_state, blobs, pruned, state

X, Y = blobs()
# Of three classes.
WELL_ABOVE_CHANCE = 0.75


@pytest.fixture
def frame():
    """Four columns of numbers and one of words that gives the class away."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    return frame.assign(word=np.array(["red", "green", "blue"])[Y])


def test_column_transformer_in_a_pipeline(frame):
    """Scaled numbers and encoded words meet in one net, which takes their joint width."""
    columns = make_column_transformer(
        (StandardScaler(), ["a", "b"]), (OneHotEncoder(sparse_output=False), ["word"])
    )
    pipeline = make_pipeline(columns, pruned())
    scores = cross_validate(pipeline, frame, Y, cv=3, return_estimator=True)
    assert scores["test_score"].min() > WELL_ABOVE_CHANCE
    assert {fold[-1].n_features_in_ for fold in scores["estimator"]} == {5}


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output_names_the_features(frame, container):
    """With frames between the steps, the net knows the names of its features."""
    scaler = StandardScaler()
    pipeline = make_pipeline(scaler, pruned()).set_output(transform=container)
    pipeline.fit(frame[list("abcd")], Y)
    assert pipeline[-1].feature_names_in_.tolist() == list("abcd")
    assert pipeline.score(frame[list("abcd")], Y) > WELL_ABOVE_CHANCE


def test_global_set_output(frame):
    """The global setting for frames reaches the net as well."""
    with sklearn.config_context(transform_output="pandas"):
        pipeline = make_pipeline(StandardScaler(), pruned()).fit(frame[list("abcd")], Y)
        assert pipeline[-1].feature_names_in_.tolist() == list("abcd")


def test_feature_selection_decides_the_width():
    """A search over the number of selected features gives each candidate a net as wide."""
    pipeline = make_pipeline(StandardScaler(), SelectKBest(), pruned())
    search = GridSearchCV(pipeline, {"selectkbest__k": [1, 3]}, cv=3).fit(X, Y)
    width = search.best_params_["selectkbest__k"]
    assert search.best_estimator_[-1].net_.module_.layers[0].in_features == width
    assert search.best_score_ > 0.6


@pytest.fixture
def routing():
    """Switch metadata routing on, and back afterwards."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def weights_of_class_zero():
    """Return weights that leave only a few rows of class 0."""
    weights = np.ones(len(X))
    weights[np.flatnonzero(Y == 0)[5:]] = 0.0
    return weights


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_a_pipeline():
    """Routed weights give the same net as weights given directly."""
    weights = weights_of_class_zero()
    pipeline = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=False),
        pruned().set_fit_request(sample_weight=True),
    )
    pipeline.fit(X, Y, sample_weight=weights)
    scaled = StandardScaler().fit_transform(X)
    direct = pruned().fit(scaled, Y, sample_weight=weights)
    assert_same_state(state(pipeline[-1]), state(direct))


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_a_search():
    """A search hands every fold the weights of its rows, for fitting and for scoring."""
    request = pruned().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    weights = weights_of_class_zero()
    search = GridSearchCV(request, {"sparsity": [0.2, 0.5]}, cv=3, refit=False)
    routed = search.fit(X, Y, sample_weight=weights).cv_results_
    plain = GridSearchCV(pruned(), {"sparsity": [0.2, 0.5]}, cv=3, refit=False).fit(X, Y)
    assert min(routed["mean_test_score"]) > WELL_ABOVE_CHANCE
    assert routed["mean_test_score"].tolist() != plain.cv_results_["mean_test_score"].tolist()


def asking(**settings):
    """Return a pruned net that asks for sample weights."""
    estimator = pruned(**settings).set_fit_request(sample_weight=True)
    return estimator.set_score_request(sample_weight=True)


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_a_vote():
    """Every member is fitted with the weights that it asks for."""
    weights = weights_of_class_zero()
    members = [("asks", asking()), ("declines", pruned().set_fit_request(sample_weight=False))]
    vote = VotingClassifier(members).fit(X, Y, sample_weight=weights)
    asks, declines = vote.estimators_
    assert_same_state(state(asks), state(pruned().fit(X, Y, sample_weight=weights)))
    assert_same_state(state(declines), state(pruned().fit(X, Y)))


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_a_calibration():
    """The net of each fold is fitted with the weights of its rows."""
    weights = np.linspace(0.2, 2, len(X))
    folds = [(np.arange(0, len(X), 2), np.arange(1, len(X), 2))]
    calibrated = CalibratedClassifierCV(asking(), cv=folds, ensemble=True)
    calibrated.fit(X, Y, sample_weight=weights)
    (member,) = calibrated.calibrated_classifiers_
    rows = folds[0][0]
    direct = pruned().fit(X[rows], Y[rows], sample_weight=weights[rows])
    assert_same_state(state(member.estimator), state(direct))


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_to_nested_nets():
    """The outer stage asks, and hands the weights on to the inner one."""
    weights = weights_of_class_zero()
    scores = cross_validate(
        asking(net=pruned(sparsity=0.2)), X, Y, cv=3, params={"sample_weight": weights},
        return_estimator=True, return_indices=True,
    )  # fmt: skip
    rows = scores["indices"]["train"][0]
    direct = pruned(pruned(sparsity=0.2)).fit(X[rows], Y[rows], sample_weight=weights[rows])
    assert_same_state(state(scores["estimator"][0]), state(direct))
    assert_same_state(state(scores["estimator"][0].estimator_), state(direct.estimator_))


@pytest.mark.usefixtures("routing")
def test_weights_without_a_request_are_refused():
    """As with scikit-learn's own estimators, weights must be asked for."""
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), pruned())
    with pytest.raises(ValueError, match=r"sample_weight.*not explicitly set as requested"):
        pipeline.fit(X, Y, sample_weight=np.ones(len(X)))
