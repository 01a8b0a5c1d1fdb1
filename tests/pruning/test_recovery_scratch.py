"""Training from scratch, of the structure that was found."""

import copy

import pytest
import torch
from skorch.callbacks import Freezer
from torch import nn

from skcompress.layers import weight_matrices
from skcompress.pruning import pruned as pruned_module
from skcompress.pruning.recovery import start_anew
from tests.pruning.test_recovery import RATES, fit, recording, weights_of
from tests.pruning_modules import MLP, classification, classifier


class Constant(MLP):
    """Begins with the same number everywhere."""

    def __init__(self, value=0.125, n_inputs=6):
        super().__init__(n_inputs)
        self.norm = nn.BatchNorm1d(n_inputs)
        for weight in weight_matrices(self).values():
            nn.init.constant_(weight, value)

    def forward(self, X):
        return super().forward(self.norm(X))


class TestScratch:
    """The structure found is trained anew."""

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
    @pytest.mark.parametrize("granularity", ["weight", "unit", "2:4"])
    def test_it_begins_with_initial_weights(self, schedule, granularity, monkeypatch):
        """Every weight that stays has its initial value, and no statistics are taken over."""
        starts, retrain = [], pruned_module.retrain

        def logged(net, data, **kwargs):
            state = net.module_.state_dict()
            starts.append({name: tensor.clone() for name, tensor in state.items()})
            retrain(net, data, **kwargs)

        monkeypatch.setattr(pruned_module, "retrain", logged)
        pruned = fit(
            classifier(Constant), recovery="scratch", schedule=schedule, granularity=granularity
        )
        assert len(starts) == (1 if schedule == "one-shot" else 2)
        last, dense = starts[-1], pruned.estimator_.module_.state_dict()
        for name in ("first.weight", "second.weight", "last.weight"):
            assert set(last[name].unique().tolist()) <= {0.0, 0.125}
            assert not set(dense[name].unique().tolist()) & {0.0, 0.125}
        assert (last["second.weight"] == 0).any()
        assert torch.equal(last["norm.running_mean"], torch.zeros(6))
        assert dense["norm.running_mean"].any()
        for name, weight in weights_of(pruned.net_).items():
            assert torch.equal(weight != 0, pruned.masks_[name])
            assert not set(weight.unique().tolist()) <= {0.0, 0.125}, "and then they are trained"

    def test_number_of_epochs(self):
        """As many as the net's own, unless given; a schedule before it takes its own time."""
        fit(recording(), recovery="scratch")
        assert len(RATES) == (4 + 4) * 3
        fit(recording(), recovery="scratch", retrain_epochs=6)
        assert len(RATES) == (4 + 6) * 3
        fit(recording(), recovery="scratch", retrain_epochs=6, schedule="gradual")
        assert len(RATES) == (4 + 6 + 6) * 3

    def test_start_anew(self):
        """Same parameters, new weights, not those of the net; frozen ones were never trained."""
        X, y = classification()
        net = recording(module__hidden=5).fit(X, y)
        net.module_.last.weight.requires_grad_(False)
        before = copy.deepcopy(net.module_.state_dict())
        torch.manual_seed(0)
        start_anew(net, X)
        torch.manual_seed(0)
        fresh = MLP(hidden=5).state_dict()
        assert net.module_.first.weight.shape == (5, 6)
        for name, weight in net.module_.state_dict().items():
            frozen = name == "last.weight"
            assert torch.equal(weight, fresh[name]) != frozen
            assert torch.equal(weight, before[name]) == frozen

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
    def test_masks_are_those_of_fine_tuning(self, schedule):
        """The search for them is the same, whatever comes after it."""
        net = classifier(MLP, max_epochs=3, optimizer=torch.optim.Adam, lr=0.01)
        params = {"schedule": schedule, "sparsity": 0.8}
        tuned, anew = fit(net, **params), fit(net, recovery="scratch", **params)
        for name, mask in tuned.masks_.items():
            assert torch.equal(anew.masks_[name], mask)
        assert not torch.equal(anew.net_.module_.last.weight, tuned.net_.module_.last.weight)

    def test_new_weights_have_a_seed_of_their_own(self, monkeypatch):
        """They depend on no draw of the criterion, nor on the length of the search."""
        starts = []

        def noted(net, X):
            start_anew(net, X)
            starts.append(net.module_.first.weight.detach().clone())

        monkeypatch.setattr(pruned_module, "start_anew", noted)
        for params in ({}, {"criterion": "random"}, {"schedule": "gradual", "retrain_epochs": 2}):
            fit(classifier(MLP), recovery="scratch", **params)
        fit(classifier(MLP), recovery="scratch", random_state=1)
        assert torch.equal(starts[0], starts[1])
        assert torch.equal(starts[0], starts[2])
        assert not torch.equal(starts[0], starts[3])

    @pytest.mark.parametrize("granularity", ["weight", "unit"])
    def test_lazy_layers(self, granularity):
        """Layers that take their width from the rows have new weights of that width."""

        class Lazy(nn.Sequential):
            def __init__(self):
                super().__init__(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 3))

        pruned = fit(classifier(Lazy), recovery="scratch", granularity=granularity)
        assert pruned.net_.module_[0].weight.shape[1] == 6
        assert pruned.sparsity_ > 0.4

    def test_frozen_parameters(self):
        """What a Freezer froze keeps the values of the dense net, but for those pruned."""
        net = recording(callbacks=[Freezer("first.*")])
        pruned = fit(net, recovery="scratch", retrain_epochs=1)
        dense = pruned.estimator_.module_.first.weight
        kept = pruned.masks_["first.weight"]
        assert torch.equal(pruned.net_.module_.first.weight[kept], dense[kept])

    def test_widths_from_the_data(self):
        """A module whose widths are set in ``fit`` is built anew with those."""
        from skcompress.training import ShapeSetter

        net = classifier(MLP, callbacks=[ShapeSetter()], module__n_inputs=99, module__n_outputs=99)
        pruned = fit(net, recovery="scratch", retrain_epochs=1)
        assert pruned.net_.module_.first.weight.shape == (8, 6)
        assert pruned.net_.module_.last.weight.shape == (3, 8)
