"""Wrapped estimators, parameters and calls that have no meaning, with what would work."""

import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from tests.contract_modules import MLP, Classifier, blobs, classifier, line, pruned, regressor

X, Y = blobs(30)


NO_NETS = {
    "pipeline": make_pipeline(StandardScaler(), classifier()),
    "search": GridSearchCV(classifier(), {"lr": [0.1]}),
    "linear model": LogisticRegression(),
    "class": NeuralNetClassifier,
    "module": MLP(),
    "None": None,
}


@pytest.mark.parametrize("estimator", NO_NETS.values(), ids=NO_NETS)
def test_no_net_inside(estimator):
    """Only skorch nets, alone or compressed or frozen, can be wrapped."""
    model = pruned()
    model.estimator = estimator
    with pytest.raises(TypeError, match=r"must be a skorch net.*make_pipeline\(StandardScaler"):
        model.fit(X, Y)


class Unfittable(NeuralNet):
    pass


def test_a_net_without_a_type():
    """A net of skorch's base class says neither that it classifies nor that it regresses."""
    with pytest.raises(TypeError, match="needs a classifier or a regressor; got Unfittable"):
        pruned(Unfittable(MLP, criterion=nn.MSELoss)).fit(X, Y)


def test_compiled_nets():
    """A compiled module cannot be taken apart."""
    with pytest.raises(ValueError, match=r"compile=True is not supported.*Set compile=False"):
        pruned(classifier(Classifier, compile=True)).fit(X, Y)


def test_partial_fit():
    """There is no partial_fit, and asking for it says what to do."""
    assert not hasattr(pruned(), "partial_fit")
    with pytest.raises(AttributeError, match=r"does not support partial_fit.*FrozenEstimator"):
        pruned().partial_fit(X, Y)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_unfitted(method):
    """Predicting comes after fit."""
    arguments = (X, Y) if method == "score" else (X,)
    with pytest.raises(NotFittedError, match="This PrunedNet instance is not fitted yet"):
        getattr(pruned(), method)(*arguments)


def test_regressors_have_no_probabilities():
    """Around a regressor there is no predict_proba, fitted or not."""
    estimator = pruned(regressor(max_epochs=1)).fit(*line())
    assert not hasattr(pruned(regressor()), "predict_proba")
    assert not hasattr(estimator, "predict_proba")
    assert not hasattr(estimator, "classes_")


BAD_PARAMETERS = {
    "random_state": ["seed", -1, 0.5],
    "n_threads": [0, 1.5, "all"],
    "verbose": ["yes", -1],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in BAD_PARAMETERS.items() for value in values],
)
def test_bad_common_parameters(name, value):
    """The parameters that every technique shares are checked in fit, not in the constructor."""
    estimator = clone(pruned(classifier(Classifier)).set_params(**{name: value}))
    with pytest.raises(ValueError, match=f"The '{name}' parameter of PrunedNet must be"):
        estimator.fit(X, Y)


def test_unfitted_net_frozen():
    """Freezing does not fit."""
    with pytest.raises(NotFittedError, match="holds a NeuralNetClassifier that is not fitted"):
        pruned(FrozenEstimator(classifier())).fit(X, Y)
    with pytest.raises(NotFittedError, match="holds a PrunedNet that is not fitted yet"):
        pruned(FrozenEstimator(pruned())).fit(X, Y)
