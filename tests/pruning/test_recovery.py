"""What becomes of the weights that stay: nothing, or training at a falling rate."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning.recovery import DEFAULT_EPOCHS, FINE_TUNE_RATE, NORMALIZING, fine_tune_rate
from skcompress.training.loop import cosine
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
