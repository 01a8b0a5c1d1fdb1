import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Freezer, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning import pruned as pruned_module
from skcompress.pruning.recovery import (
    DEFAULT_EPOCHS,
    FINE_TUNE_RATE,
    NORMALIZING,
    fine_tune_rate,
    has_schedule,
    learning_rate,
    recorded_rates,
    start_anew,
)
from skcompress.training.loop import cosine
from skcompress.training.nets import dense_net
from tests.pruning_modules import MLP, NormalizedMLP, classification, classifier

RATES = []


class Recording(NeuralNetClassifier):
    """Note the learning rates of every step, group by group."""

    def train_step(self, batch, **fit_params):
        RATES.append([group["lr"] for group in self.optimizer_.param_groups])
        return super().train_step(batch, **fit_params)


def recording(module=MLP, **params):
    """Return a net that notes its rates; 60 rows make three batches."""
    RATES.clear()
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "lr": 0.1,
                "batch_size": 20, "max_epochs": 4}  # fmt: skip
    return Recording(module, **(settings | params))


def fit(net, **params):
    """Fit a PrunedNet and return it."""
    X, y = classification()
    settings = {"schedule": "one-shot", "random_state": 0}
    return PrunedNet(net, **(settings | params)).fit(X, y)


def weights_of(net):
    """Return copies of the prunable weights."""
    return {n: w.detach().clone() for n, w in weight_matrices(net.module_).items()}


class TestNone:
    """What stays is the dense net's, bit for bit."""

    @pytest.mark.parametrize("criterion", ["magnitude", "gradient", "fisher", "wanda", "random"])
    def test_weights(self, criterion):
        pruned = fit(classifier(MLP), recovery="none", criterion=criterion)
        dense = pruned.estimator_.module_.state_dict()
        for name, tensor in pruned.net_.module_.state_dict().items():
            mask = pruned.masks_.get(name, torch.tensor(True))
            assert torch.equal(tensor, dense[name] * mask)
        assert not pruned.masks_["first.weight"].all()

    def test_frozen(self):
        """Also the running statistics, and the frozen net keeps its own."""
        X, y = classification()
        net = classifier(NormalizedMLP).fit(X, y)
        before = {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}
        pruned = fit(FrozenEstimator(net), recovery="none")
        for name, tensor in pruned.net_.module_.state_dict().items():
            assert torch.equal(tensor, before[name] * pruned.masks_.get(name, torch.tensor(True)))
            assert torch.equal(net.module_.state_dict()[name], before[name])

    def test_units(self):
        """The smaller tensors are parts of the dense net's."""
        pruned = fit(classifier(MLP), recovery="none", granularity="unit")
        dense, smaller = pruned.estimator_.module_, pruned.net_.module_
        assert smaller.first.weight.shape[0] < 8
        rows = (smaller.first.weight[:, None] == dense.first.weight[None]).all(-1)
        assert rows.any(1).all()

    def test_obs_moves_what_stays(self):
        """The exact criterion makes up for what goes; it is the one that changes weights."""
        pruned = fit(classifier(MLP), recovery="none", criterion="obs")
        dense = weights_of(pruned.estimator_)
        for name, weight in weights_of(pruned.net_).items():
            mask = pruned.masks_[name]
            assert torch.equal(weight != 0, mask)
            assert not torch.equal(weight[mask], dense[name][mask])

    def test_no_step_is_made(self):
        net = recording()
        fit(net, recovery="none")
        assert len(RATES) == 4 * 3


class TestFineTune:
    """What stays is trained on, at a rate that falls as a cosine."""

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
    def test_weights_change(self, schedule):
        pruned = fit(classifier(MLP), schedule=schedule, retrain_epochs=2)
        dense = weights_of(pruned.estimator_)
        for name, weight in weights_of(pruned.net_).items():
            mask = pruned.masks_[name]
            assert not torch.equal(weight[mask], dense[name][mask])
            assert not weight[~mask].any()

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
    @pytest.mark.parametrize(
        ("optimizer", "lr", "first"),
        [
            (torch.optim.SGD, None, 0.1),
            (torch.optim.SGD, 0.3, 0.3),
            (torch.optim.Adam, None, 0.5),
            (torch.optim.Adam, 0.3, 0.3),
        ],
    )
    def test_rates(self, schedule, optimizer, lr, first):
        """From the optimizer's own rate or five times as much, or from `retrain_lr`."""
        net = recording(optimizer=optimizer)
        fit(net, schedule=schedule, retrain_epochs=5, retrain_lr=lr)
        found = [rate for (rate,) in RATES[4 * 3 :]]
        assert found == pytest.approx([first * cosine(step / 15) for step in range(15)])

    @pytest.mark.parametrize(
        ("optimizer", "factor"),
        [
            *((kind, FINE_TUNE_RATE) for kind in NORMALIZING),
            (partial(torch.optim.Adam, eps=1e-6), FINE_TUNE_RATE),
            (torch.optim.SGD, 1.0),
            (partial(torch.optim.SGD, momentum=0.9), 1.0),
            (torch.optim.ASGD, 1.0),
        ],
    )
    def test_default(self, optimizer, factor):
        """Five times the optimizer's own rate only where steps do not grow with the gradient."""
        assert FINE_TUNE_RATE == 5.0
        assert fine_tune_rate(recording(optimizer=optimizer).initialize()) == factor

    def test_an_optimizer_of_the_users_own(self):
        """Nothing is known of it, so its rate is kept; one that inherits from Adam is an Adam."""

        class Own(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, {"lr": lr})

        class Inherited(torch.optim.AdamW):
            pass

        assert fine_tune_rate(recording(optimizer=Own).initialize()) == 1.0
        assert fine_tune_rate(recording(optimizer=Inherited).initialize()) == FINE_TUNE_RATE

    @pytest.mark.parametrize("schedule", ["one-shot", "gradual"])
    def test_a_rate_that_is_high_already(self, schedule):
        """SGD with momentum that trains well goes on to train well."""
        X, y = load_digits(return_X_y=True)
        X, y = X[:600].astype(np.float32) / 16, y[:600]
        net = classifier(
            MLP, module__n_inputs=64, module__hidden=50, module__n_outputs=10, lr=0.3,
            optimizer__momentum=0.9, max_epochs=10, batch_size=32, iterator_train__shuffle=True,
        )  # fmt: skip
        pruned = PrunedNet(net, schedule=schedule, random_state=0, n_threads=1).fit(X, y)
        assert pruned.score(X, y) > 0.9

    def test_groups_keep_their_ratio(self):
        groups = [("first.*", {"lr": 0.02})]
        fit(recording(optimizer__param_groups=groups), retrain_epochs=2, retrain_lr=0.5)
        found = np.array(RATES[4 * 3 :])
        assert found.shape == (6, 2)
        np.testing.assert_allclose(found[:, 0] / found[:, 1], 0.2)
        assert found[0].tolist() == pytest.approx([0.1, 0.5])

    def test_default_number_of_epochs(self):
        fit(recording())
        assert len(RATES) == (4 + DEFAULT_EPOCHS) * 3


SCHEDULERS = {
    "by epoch": LRScheduler(StepLR, step_size=1, gamma=0.5),
    "by batch": LRScheduler(CosineAnnealingLR, T_max=12, step_every="batch"),
    "warm-up": LRScheduler(LambdaLR, lr_lambda=lambda epoch: (epoch + 1) / 4),
}


class TestRewind:
    """The learning rates of the dense fit, once more."""

    @pytest.mark.parametrize("name", SCHEDULERS)
    @pytest.mark.parametrize("epochs", [1, 2, 4])
    @pytest.mark.parametrize("schedule", ["one-shot", "gradual"])
    def test_the_last_epochs_are_replayed(self, name, epochs, schedule):
        net = recording(callbacks=[("rates", SCHEDULERS[name])])
        fit(net, recovery="rewind", retrain_epochs=epochs, schedule=schedule)
        dense, again = RATES[: 4 * 3], RATES[4 * 3 :]
        assert len({rate for (rate,) in dense}) > 1
        assert len(again) == epochs * 3
        np.testing.assert_allclose(again, dense[-epochs * 3 :], rtol=1e-12)

    def test_more_epochs_than_there_were(self):
        """Then the whole course is stretched."""
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        fit(net, recovery="rewind", retrain_epochs=8)
        again = [rate for (rate,) in RATES[4 * 3 :]]
        assert again == pytest.approx(np.repeat([0.1, 0.05, 0.025, 0.0125], 6).tolist())

    def test_groups_of_parameters(self):
        """Each group replays its own rates, though skorch notes those of the first one only."""
        net = recording(
            callbacks=[("rates", SCHEDULERS["by epoch"])],
            optimizer__param_groups=[("first.*", {"lr": 0.02})],
        )
        fit(net, recovery="rewind", retrain_epochs=4)
        assert np.shape(RATES) == (24, 2)
        np.testing.assert_allclose(RATES[12:], RATES[:12], rtol=1e-12)

    @pytest.mark.parametrize("nested", [False, True])
    def test_frozen(self, nested):
        """A frozen net's own history is replayed, also that of one inside a PrunedNet."""
        X, y = classification()
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        frozen = PrunedNet(net, recovery="none", schedule="one-shot") if nested else net
        frozen.fit(X, y)
        dense = RATES[:12]
        fit(FrozenEstimator(frozen), recovery="rewind", retrain_epochs=4)
        np.testing.assert_allclose(RATES[12:], dense, rtol=1e-12)

    def test_inside_another_pruned_net(self):
        """The schedule is that of the net at the core."""
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        inner = PrunedNet(net, recovery="none", schedule="one-shot")
        fit(inner, recovery="rewind", retrain_epochs=2)
        np.testing.assert_allclose(RATES[12:], RATES[6:12], rtol=1e-12)

    def test_a_scheduler_that_does_nothing(self):
        """A rate that turns out constant is an error, too."""
        constant = LRScheduler(LambdaLR, lr_lambda=lambda epoch: 1.0)
        with pytest.raises(ValueError, match="the net has a constant rate"):
            fit(recording(callbacks=[("rates", constant)]), recovery="rewind")

    def test_rounding_does_not_fall_back(self):
        """A hundred epochs: step 29 of 100 belongs to epoch 29, though 0.29 * 100 < 29."""
        assert int(29 / 100 * 100) == 28
        X, y = classification()
        net = recording(max_epochs=100, callbacks=[("rates", SCHEDULERS["warm-up"])]).fit(X, y)
        rate = learning_rate("rewind", None, net, 100)
        found = [rate(step / 100) for step in range(100)]
        assert found == pytest.approx([(epoch + 1) / 4 for epoch in range(100)])


class TestHistory:
    """What is known of the dense fit's rates."""

    def test_recorded_rates(self):
        X, y = classification()
        by_epoch = recording(callbacks=[("rates", SCHEDULERS["by epoch"])]).fit(X, y)
        assert recorded_rates(by_epoch) == [[0.1], [0.05], [0.025], [0.0125]]
        by_batch = recording(callbacks=[("rates", SCHEDULERS["by batch"])]).fit(X, y)
        expected = [rate for (rate,) in RATES]
        assert np.concatenate(recorded_rates(by_batch)).tolist() == pytest.approx(expected)
        assert recorded_rates(recording().fit(X, y)) == []
        assert recorded_rates(recording()) == []

    @pytest.mark.parametrize(
        ("callbacks", "expected"),
        [
            ([], False),
            ([("rates", SCHEDULERS["by epoch"])], True),
            ([LRScheduler], True),
            ([SCHEDULERS["by batch"]], True),
        ],
        ids=["none", "named", "class", "instance"],
    )
    def test_before_the_dense_fit(self, callbacks, expected):
        net = recording(callbacks=callbacks)
        assert has_schedule(net, net) == expected

    def test_after_it(self):
        """A frozen net has a schedule if its rates have changed."""
        X, y = classification()
        for name, expected in (("by epoch", True), (None, False)):
            callbacks = [("rates", SCHEDULERS[name])] if name else []
            net = recording(callbacks=callbacks).fit(X, y)
            assert has_schedule(FrozenEstimator(net), net) == expected

    def test_the_net_at_the_core(self):
        X, y = classification()
        inner = PrunedNet(recording(), recovery="none", schedule="one-shot").fit(X, y)
        outer = PrunedNet(FrozenEstimator(inner), recovery="none", schedule="one-shot").fit(X, y)
        assert dense_net(outer) is inner.estimator_


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
