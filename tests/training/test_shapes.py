"""Widths that only fit knows."""

import numpy as np
import pytest
import torch
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from skorch.callbacks import InputShapeSetter
from torch import nn

from skcompress.training import ShapeSetter
from skcompress.training.shapes import set_shapes, without_shape_setters
from tests.contract_modules import (
    Recurrent,
    TwoInputs,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
)

X, Y = blobs()
ROWS = X.astype(np.float32)


def widths(net):
    """Return the input and output width of an MLP."""
    return net.module_.layers[0].in_features, net.module_.layers[-1].out_features


def test_inside_skorch_alone():
    """The callback needs nothing but a skorch net."""
    assert widths(classifier().fit(ROWS[:, :2], Y)) == (2, 3)
    assert widths(binary_classifier().fit(ROWS, (Y > 0).astype(np.float32))) == (4, 1)
    targets = np.column_stack([ROWS[:, 0], ROWS[:, 1]])
    assert widths(regressor().fit(ROWS, targets)) == (4, 2)
    assert widths(regressor().fit(ROWS, targets[:, :1])) == (4, 1)


@pytest.mark.parametrize(
    ("estimator", "y", "expected"),
    [
        (pruned(), np.array(["a", "b", "c"])[Y], (4, 3)),
        (pruned(), Y > 0, (4, 2)),
        (pruned(binary_classifier()), Y > 0, (4, 1)),
        (pruned(regressor()), X[:, 0], (4, 1)),
        (pruned(regressor()), X[:, :3], (4, 3)),
    ],
    ids=["classes", "two classes", "binary net", "target", "targets"],
)
def test_inside_a_compressed_net(estimator, y, expected):
    """The dense net and the compressed one have the widths of the data."""
    estimator.fit(X, y)
    assert widths(estimator.estimator_) == widths(estimator.net_) == expected


def test_steps_before_the_net_decide():
    """A search over steps that make or drop columns gives nets of other widths."""
    constant = np.hstack([X, np.ones((len(X), 1))])
    pipeline = make_pipeline(PolynomialFeatures(), VarianceThreshold(), pruned())
    grid = {"polynomialfeatures__degree": [1, 2], "polynomialfeatures__include_bias": [False]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(constant, Y)
    assert search.best_score_ > 0.75
    degree = search.best_params_["polynomialfeatures__degree"]
    assert widths(search.best_estimator_[-1].net_)[0] == {1: 4, 2: 18}[degree]


def test_skorchs_own_setter():
    """InputShapeSetter is served in the same way, with weights and without."""
    setter = InputShapeSetter(param_name="n_inputs")
    estimator = pruned(classifier(callbacks=[setter]))
    assert widths(estimator.fit(X[:, :2], Y).net_) == (2, 3)
    assert widths(estimator.fit(X[:, :3], Y, sample_weight=np.ones(len(X))).net_) == (3, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [ShapeSetter]},
        {"callbacks": [("own", ShapeSetter("x"))], "callbacks__own__input_param": "n_inputs"},
    ],
    ids=["class", "nested parameter"],
)  # fmt: skip
def test_other_ways_to_give_a_callback(settings):
    """Classes and nested parameters work as for any callback of skorch."""
    assert widths(pruned(classifier(**settings)).fit(X[:, :2], Y).net_) == (2, 3)


def test_names_of_ones_own():
    """Other names of parameters, and None for a width that is fixed."""

    class Named(nn.Module):
        def __init__(self, wide):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(wide, 3))

        def forward(self, X):
            return self.layers(X)

    net = classifier(module=Named, callbacks=[ShapeSetter("wide", None)])
    assert widths(pruned(net).fit(X, Y).net_) == (4, 3)


def test_sequences_have_their_width_last():
    """The last dimension is the width."""
    rows = np.random.default_rng(0).normal(size=(len(Y), 5, 7))
    estimator = pruned(classifier(module=Recurrent)).fit(rows, Y)
    assert estimator.net_.module_.gru.input_size == 7


def test_dicts_have_no_width():
    """For a dict the output alone can be set; the message says so."""
    data = {"numbers": X, "tokens": Y[:, None]}
    with pytest.raises(ValueError, match=r"got SliceDict.*ShapeSetter\(input_param=None\)"):
        pruned(classifier(module=TwoInputs)).fit(data, Y)
    only_output = classifier(module=TwoInputs, callbacks=[ShapeSetter(None)])
    estimator = pruned(only_output).fit(data, Y > 0)
    assert estimator.net_.module_.layers[-1].out_features == 2


def test_one_dimension_has_no_width():
    """A net of skorch alone hands over rows of any shape."""
    with pytest.raises(ValueError, match="needs an array of at least two dimensions"):
        classifier().fit(ROWS[:, 0], Y)


class Counted(nn.Module):
    """A module that counts how often it is built."""

    built = 0

    def __init__(self, n_inputs=1, n_outputs=1):
        super().__init__()
        type(self).built += 1
        self.layers = nn.Sequential(nn.Linear(n_inputs, n_outputs))

    def forward(self, X):
        return self.layers(X)


def test_the_module_is_built_once_for_trying_and_once_for_fitting():
    """Setting shapes ahead of fit spares building the module twice."""
    Counted.built = 0
    pruned(classifier(module=Counted)).fit(X, Y)
    assert Counted.built == 2


def test_shape_setters_are_told_from_other_callbacks():
    """Only shape setters act ahead of fit; only they are left out of weighted fits."""
    own = ("own", torch.optim.lr_scheduler)
    net = classifier(callbacks=[ShapeSetter(), InputShapeSetter, ("named", ShapeSetter())])
    assert without_shape_setters(net) == []
    net = classifier(callbacks=[own, ShapeSetter])
    assert without_shape_setters(net) == [own]
    net = classifier()
    set_shapes(net, *line())
    assert net.module__n_inputs == 4
    assert not net.initialized_
