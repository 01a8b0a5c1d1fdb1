"""PrunedNet around nets of other kinds, frozen ones and other PrunedNets."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetRegressor
from skorch.helper import SliceDict
from torch import nn

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning.criteria import CRITERIA
from tests.pruning_modules import (
    MLP,
    Encoder,
    Tied,
    classification,
    classifier,
    n_weights,
    regression,
    regressor,
)


def fit(estimator, data=None, **params):
    """Fit a PrunedNet in a moment."""
    X, y = classification() if data is None else data
    settings = {"schedule": "one-shot", "retrain_epochs": 1, "random_state": 0}
    return PrunedNet(estimator, **(settings | params)).fit(X, y)


class TestOtherNets:
    """Units of binary classifiers and regressors, whose outputs have one column or none."""

    @pytest.mark.parametrize("criterion", ["magnitude", "gradient", "activation"])
    def test_binary(self, criterion):
        class Binary(MLP):
            def __init__(self):
                super().__init__(n_outputs=1)

            def forward(self, X):
                return super().forward(X).squeeze(-1)

        net = NeuralNetBinaryClassifier(Binary, train_split=None, max_epochs=5, lr=0.5, verbose=0)
        X, y = classification(n_classes=2)
        y = np.array(["no", "yes"])[y]
        pruned = fit(net, (X, y), granularity="unit", criterion=criterion)
        assert pruned.net_.module_.last.weight.shape[1] < 8
        assert pruned.score(X, y) > 0.8

    @pytest.mark.parametrize("granularity", ["weight", "unit", "2:4"])
    @pytest.mark.parametrize("n_outputs", [1, 2])
    def test_regressor(self, granularity, n_outputs):
        X, y = regression()
        y = y if n_outputs == 1 else np.stack([y, -y], 1)
        net = regressor(MLP, module__n_outputs=n_outputs, max_epochs=30, lr=0.05)
        pruned = fit(
            net, (X, y), granularity=granularity, sparsity=None if granularity == "2:4" else 0.25,
            retrain_epochs=20, retrain_lr=0.05,
        )  # fmt: skip
        assert isinstance(pruned.net_, NeuralNetRegressor)
        assert pruned.predict(X).shape == y.shape
        assert pruned.score(X, y) > 0.3
        assert pruned.sparsity_ > 0.2

    @pytest.mark.parametrize("granularity", ["weight", "unit"])
    @pytest.mark.parametrize("criterion", ["magnitude", "wanda", "fisher"])
    def test_dict_inputs(self, granularity, criterion):
        """Several inputs by name, in another order than in ``forward``."""

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 8), nn.Linear(2, 8)
                self.head = nn.Linear(8, 3)

            def forward(self, left, right):
                return self.head(torch.relu(self.a(left) + self.b(right)))

        X, y = classification()
        given = SliceDict(right=X[:, 4:], left=X[:, :4])
        pruned = fit(classifier(Two), (given, y), granularity=granularity, criterion=criterion)
        assert pruned.predict(given).shape == (60,)
        assert pruned.sparsity_ >= 0.4

    def test_tied_weights_count_once(self):
        """Half of what is there, a shared weight being there once, and shared it stays."""
        pruned = fit(classifier(Tied), sparsity=0.5)
        module = pruned.net_.module_
        assert set(pruned.masks_) == {"embed.weight", "first.weight", "head.weight"}
        total = 6 * 8 + 8 * 8 + 8 * 3
        assert sum(int(mask.sum()) for mask in pruned.masks_.values()) == total // 2
        assert module.second.weight is module.first.weight
        assert torch.equal(module.second.weight != 0, pruned.masks_["first.weight"])

    @pytest.mark.parametrize("criterion", CRITERIA)
    def test_sample_weights(self, criterion):
        """Weighted rows are scored and trained with, for each criterion."""
        X, y = classification()
        weight = np.where(y == 0, 4.0, 0.5)
        granularity = "unit" if criterion == "activation" else "weight"
        pruned = PrunedNet(
            classifier(MLP), criterion=criterion, granularity=granularity, schedule="one-shot",
            retrain_epochs=1, random_state=0,
        )  # fmt: skip
        weighted = pruned.fit(X, y, sample_weight=weight).predict_proba(X)
        assert not np.array_equal(weighted, pruned.fit(X, y).predict_proba(X))


class TestNested:
    """What an inner PrunedNet removed stays away, whatever the two remove."""

    @pytest.mark.parametrize("inner", ["weight", "unit", "2:4"])
    @pytest.mark.parametrize("outer", ["weight", "unit", "2:4"])
    @pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
    def test_stages(self, inner, outer, schedule):
        net = classifier(MLP, module__hidden=16)
        first = PrunedNet(
            net, granularity=inner, schedule="one-shot", recovery="none",
            sparsity=None if inner == "2:4" else 0.3,
        )  # fmt: skip
        second = fit(
            first, granularity=outer, schedule=schedule, retrain_epochs=4,
            sparsity=None if outer == "2:4" else 0.5,
        )  # fmt: skip
        before, module = second.estimator_, second.net_.module_
        weights = weight_matrices(module)
        left = sum(int(weight.count_nonzero()) for weight in weights.values())
        assert left == sum(int(mask.sum()) for mask in second.masks_.values())
        for name, weight in weights.items():
            assert torch.equal(weight != 0, second.masks_[name])
            if outer != "unit":
                assert (second.masks_[name] <= before.masks_[name]).all()
        dense = n_weights(before.estimator_.module_)
        assert second.sparsity_ == pytest.approx(1 - left / dense)
        assert second.sparsity_ >= before.sparsity_ > 0
        assert (second.sparsity_ > before.sparsity_) == ((inner, outer) != ("2:4", "2:4"))
        assert (n_weights(module) < dense) == ("unit" in (inner, outer))

    def test_budgets_count_what_is_gone(self):
        """Half of the weights in all, not half of those that were left."""
        first = PrunedNet(classifier(MLP), sparsity=0.4, schedule="one-shot", recovery="none")
        second = fit(first, sparsity=0.5)
        assert second.sparsity_ == 0.5

    def test_frozen(self):
        """A frozen PrunedNet is taken as it is, and left as it is."""
        X, y = classification()
        first = fit(classifier(MLP), sparsity=0.4)
        before = pickle.dumps(first.net_.module_.state_dict())
        second = PrunedNet(FrozenEstimator(first), sparsity=0.7, random_state=0).fit(X, y)
        assert pickle.dumps(first.net_.module_.state_dict()) == before
        for name, mask in second.masks_.items():
            assert (mask <= first.masks_[name]).all()
        assert second.sparsity_ == pytest.approx(0.7, abs=0.01)


class TestThreshold:
    """Everything whose score is below goes, and nothing below is left."""

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual"])
    @pytest.mark.parametrize("recovery", ["fine-tune", "scratch"])
    def test_clipping(self, schedule, recovery):
        """Weights that retraining made small are clipped in the end."""
        pruned = fit(
            classifier(MLP, lr=0.5), threshold=0.15, schedule=schedule, recovery=recovery,
            retrain_epochs=5,
        )  # fmt: skip
        for name, weight in weight_matrices(pruned.net_.module_).items():
            assert weight[weight != 0].abs().min() >= 0.15
            assert torch.equal(weight != 0, pruned.masks_[name])
        assert 0 < pruned.sparsity_ < 1

    def test_units(self):
        """The sum of what reads a unit that is left is at least the threshold."""
        pruned = fit(classifier(MLP, lr=0.5), threshold=0.8, granularity="unit", retrain_epochs=5)
        module = pruned.net_.module_
        assert module.second.weight.abs().sum(0).min() >= 0.8
        assert module.last.weight.abs().sum(0).min() >= 0.8


def test_zeros_of_a_frozen_net_count():
    """``sparsity_`` is what is zero, whoever set it."""
    X, y = classification()
    net = classifier(MLP).fit(X, y)
    with torch.no_grad():
        net.module_.first.weight[::2] = 0.0
    frozen = FrozenEstimator(net)
    pruned = fit(frozen, sparsity=0.0, recovery="none", retrain_epochs=None)
    assert pruned.sparsity_ == pytest.approx(24 / 136)


def test_units_that_stay_are_explained():
    """The reasons are kept, layer by layer."""
    X, y = np.random.default_rng(0).integers(1, 7, (40, 5)), np.arange(40) % 3
    pruned = fit(classifier(Encoder), (X, y), granularity="unit")
    assert pruned.unremovable_["head.weight"] == "it is an output of the module"
    assert "encoder.layers.0.linear2.weight" in pruned.unremovable_
    assert "encoder.layers.0.linear1.weight" not in pruned.unremovable_
