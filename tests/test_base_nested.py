"""Stages in stages."""

import numpy as np
import pytest
import torch

from tests.contract_modules import MLP, blobs, classifier, line, pruned, regressor

X, Y = blobs()
# Of three classes.
WELL_ABOVE_CHANCE = 0.75


def test_nested_estimators_prune_further():
    """A compressed net around a compressed net keeps the inner masks."""
    inner = pruned(sparsity=0.5)
    outer = pruned(inner, sparsity=0.7).fit(X, np.array(["a", "b", "c"])[Y])
    assert outer.estimator_.sparsity_ == pytest.approx(0.5, abs=0.01)
    assert outer.sparsity_ == pytest.approx(0.7, abs=0.01)
    for name, mask in outer.estimator_.masks_.items():
        assert not (outer.masks_[name] & ~mask).any()
        assert not outer.net_.module_.state_dict()[name][~mask].any()
    assert set(outer.predict(X)) <= {"a", "b", "c"}


def test_nested_around_a_module_instance():
    """A slimmed net around an instance, whose class cannot be built alone, is pruned again."""

    class NeedsArguments(MLP):
        def __init__(self, hidden):
            super().__init__(hidden=hidden)

    torch.manual_seed(0)  # the instance draws its weights here, outside of fit
    net = classifier(module=NeedsArguments(16), callbacks=None)
    outer = pruned(pruned(net), sparsity=0.7).fit(X, Y)
    assert outer.sparsity_ == pytest.approx(0.7, abs=0.01)
    assert outer.score(X, Y) > WELL_ABOVE_CHANCE


@pytest.mark.parametrize("n_targets", [1, 2])
def test_nested_regressors(n_targets):
    """The inner stage is given targets of the user's shape, about which nothing warns."""
    X_line, y = line()
    y = y if n_targets == 1 else np.column_stack([y, -y])
    outer = pruned(pruned(regressor(max_epochs=30))).fit(X_line, y)
    assert outer.predict(X_line).shape == y.shape
    assert outer.score(X_line, y) > 0.5


def test_units_of_nested_estimators():
    """Units are removed from a net whose units were removed before."""
    settings = {"granularity": "unit", "sparsity": 0.5}
    outer = pruned(pruned(**settings), **settings).fit(X, Y)
    assert outer.estimator_.net_.module_.layers[0].out_features == 8
    assert outer.net_.module_.layers[0].out_features == 4
    assert outer.predict(X).shape == Y.shape
