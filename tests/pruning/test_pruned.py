import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.helper import SliceDict
from torch import nn

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning.criteria import CRITERIA
from tests.pruning_modules import (
    IMAGE,
    MLP,
    MODULES,
    SEQUENCE,
    TABLE,
    TOKENS,
    Encoder,
    Tied,
    classification,
    classifier,
    n_weights,
    regression,
    regressor,
)


@functools.cache
def digits(shape):
    """Return training and test rows of digits in the form that a module takes."""
    X, y = load_digits(return_X_y=True)
    X = X[:700].astype(np.float32) / 16
    forms = {
        TABLE: X,
        IMAGE: X.reshape(-1, 1, 8, 8),
        SEQUENCE: X.reshape(-1, 8, 8),
        TOKENS: (X[:, 8:56:3] * 16).astype(np.int64),
    }
    return train_test_split(forms[shape], y[:700], test_size=200, random_state=0, stratify=y[:700])


def digits_net(name):
    """Return a net around a module of the shared ones, as wide as digits ask for."""
    kind, params, shape = MODULES[name]
    widths = {TABLE: {"n_inputs": 64}, IMAGE: {}, SEQUENCE: {"n_inputs": 8},
              TOKENS: {"n_tokens": 17, "length": 16}}[shape]  # fmt: skip
    if kind.__name__ in ("MLP", "NormalizedMLP", "Tied"):
        widths = widths | {"hidden": 24}
    named = {f"module__{n}": value for n, value in (params | widths | {"n_outputs": 10}).items()}
    return classifier(
        kind, optimizer=torch.optim.Adam, lr=0.01, max_epochs=8, batch_size=50, **named
    )


KINDS = [
    "mlp", "mlp, batch norm", "cnn", "cnn, one-dimensional", "cnn, grouped", "rnn", "gru",
    "gru, bidirectional", "lstm, bidirectional", "attention", "encoder, padding", "branches",
    "tied",
]  # fmt: skip


@pytest.mark.parametrize("granularity", ["weight", "unit", "2:4"])
@pytest.mark.parametrize("name", KINDS)
def test_end_to_end(name, granularity):
    """On digits: as sparse as asked for, masks that agree with the module, better than chance."""
    X, X_test, y, y_test = digits(MODULES[name][2])
    torch.manual_seed(0)
    pruned = PrunedNet(
        digits_net(name), granularity=granularity, retrain_epochs=6,
        retrain_lr=0.01, random_state=0,
    ).fit(X, y)  # fmt: skip
    module, dense = pruned.net_.module_, pruned.estimator_.module_
    weights = weight_matrices(module)
    assert list(pruned.masks_) == list(weights)
    for key, weight in weights.items():
        assert torch.equal(weight != 0, pruned.masks_[key])
    left = sum(int(weight.count_nonzero()) for weight in weights.values())
    assert pruned.sparsity_ == pytest.approx(1 - left / n_weights(dense))
    if granularity == "unit":
        assert left == n_weights(module) < n_weights(dense)
        assert pruned.unremovable_
    else:
        assert n_weights(module) == n_weights(dense)
    if granularity == "weight":
        assert left == n_weights(dense) - round(0.5 * n_weights(dense))
    assert pruned.score(X_test, y_test) > 0.25
    again = pickle.loads(pickle.dumps(pruned))
    np.testing.assert_array_equal(again.predict_proba(X_test), pruned.predict_proba(X_test))


class TestSmallerArchitecture:
    """The widths that fit, trained from scratch."""

    @pytest.mark.parametrize("name", ["mlp", "cnn", "lstm, bidirectional"])
    @pytest.mark.parametrize("recovery", ["scratch", "fine-tune"])
    def test_max_weights(self, name, recovery):
        X, X_test, y, y_test = digits(MODULES[name][2])
        dense = n_weights(digits_net(name).initialize().module_)
        pruned = PrunedNet(
            digits_net(name), granularity="unit", recovery=recovery, max_weights=dense // 2,
            schedule="one-shot", retrain_epochs=12, retrain_lr=0.01,
            random_state=0,
        ).fit(X, y)  # fmt: skip
        left = n_weights(pruned.net_.module_)
        assert 0.35 * dense < left <= dense // 2
        assert pruned.sparsity_ == pytest.approx(1 - left / dense)
        assert pruned.score(X_test, y_test) > 0.3


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


class Untrainable(NeuralNetClassifier):
    """A net that must not be trained."""

    def train_step(self, batch, **fit_params):
        raise AssertionError("this is known before any training")


class HardCoded(nn.Module):
    """A width written as a number."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 4, 3), nn.Linear(16, 3)

    def forward(self, X):
        return self.head(torch.relu(self.conv(X[:, None])).view(-1, 16))


class Branching(MLP):
    """Control flow that depends on values."""

    def forward(self, X):
        return super().forward(X if X.sum() > 0 else -X)


class Scaled(MLP):
    """A number of units among the numbers that are computed with."""

    def forward(self, X):
        hidden = torch.relu(self.first(X))
        return self.last(torch.tanh(self.second(hidden)) / hidden.shape[1])


class LearnedStart(nn.Module):
    """A recurrent layer with a learned initial state, which begins at zero."""

    def __init__(self):
        super().__init__()
        self.state = nn.Parameter(torch.zeros(1, 1, 5))
        self.gru, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, X):
        state = self.state.expand(-1, X.shape[0], -1).contiguous()
        return self.head(self.gru(X[:, None], state)[1][0])


class FirstUnit(MLP):
    """Reads a hidden unit by its place."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(1, 3)

    def forward(self, X):
        hidden = torch.relu(self.first(X))
        return self.last(torch.tanh(self.second(hidden))) + self.extra(hidden[:, :1])


class Shuffled(nn.Module):
    """Channels in two halves, which must stay equal."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, X):
        X = torch.relu(self.conv(X[:, None]))
        X = X.unflatten(1, (2, X.shape[1] // 2)).transpose(1, 2).flatten(1, 2)
        return self.head(torch.relu(self.mix(X)).mean(2))


class Squeezed(MLP):
    """Loses the dimension of the rows where there is one."""

    def forward(self, X):
        return super().forward(X).squeeze()


def rewriting(change):
    """Return a criterion of the user's own, of changed magnitudes."""

    def criterion(net, X, y, sample_weight):
        scores = {n: w.detach().abs() for n, w in weight_matrices(net.module_).items()}
        return change(scores)

    return criterion


class TestBeforeTraining:
    """What can be known of a module is known before it is trained."""

    @pytest.mark.parametrize(
        ("module", "params", "match"),
        [
            (HardCoded, {"granularity": "unit"},
             r"Removing units of \['conv', 'head'\] from HardCoded.*view\(-1, 64\)"),
            (Scaled, {"granularity": "unit"}, "its forward pass computes something else"),
            (LearnedStart, {"granularity": "unit"}, r"Removing units of \['gru', 'head'\]"),
            (HardCoded, {"granularity": "unit", "threshold": 0.5}, "Removing units of"),
            (Branching, {"granularity": "unit"}, "Branching cannot be traced by torch.export"),
            (Branching, {"criterion": "wanda"}, "Branching cannot be traced by torch.export"),
            (Branching, {"criterion": "obs", "schedule": "one-shot"}, "cannot be traced"),
            (FirstUnit, {"granularity": "unit"}, r"units of \['extra', 'first', 'second'\]"),
            (Shuffled, {"granularity": "unit"}, r"Removing units of \['conv', 'mix'\]"),
            (Squeezed, {"criterion": "fisher"}, r"Squeezed or its loss .* Write x.squeeze\(-1\)"),
            (MLP, {"criterion": rewriting(lambda s: {"x": 1})}, r"exactly .*; got \['x'\]"),
            (MLP, {"criterion": rewriting(lambda s: {n: v[:1] for n, v in s.items()})},
             r"must be a tensor of shape \(8, 6\); got \(1, 6\)"),
            (MLP, {"criterion": rewriting(lambda s: {n: -v for n, v in s.items()})},
             "must be finite and non-negative"),
            (nn.Linear, {"granularity": "unit"}, "'weight' stays because it is an output"),
            (nn.Bilinear, {}, "has no layer to prune or quantize; found Bilinear"),
            (MLP, {"max_weights": 2}, "leaves 2 of 136, but each of the 3 layers must keep"),
            (MLP, {"sparsity": 0.99}, "leaves 1 of 136, but each of the 3 layers must keep"),
            (MLP, {"max_weights": 9, "granularity": "unit"}, "still takes 10 weights"),
        ],
    )  # fmt: skip
    def test_refused(self, module, params, match):
        widths = {}
        if module is nn.Linear:
            widths = {"module__in_features": 6, "module__out_features": 3}
        if module is nn.Bilinear:
            widths = {"module__in1_features": 2, "module__in2_features": 4,
                      "module__out_features": 3}  # fmt: skip

            class Pair(nn.Bilinear):
                def forward(self, X):
                    return super().forward(X[:, :2], X[:, 2:])

            Pair.__name__, module = "Bilinear", Pair
        net = Untrainable(
            module, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, **widths
        )
        with pytest.raises(ValueError, match=match):
            PrunedNet(net, **params).fit(*classification())

    def test_arguments_of_a_criterion(self):
        """A function that takes others is told what a criterion takes."""
        net = Untrainable(MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0)
        match = r"called as criterion\(net, X, y, sample_weight\).*too many positional arguments"
        with pytest.raises(TypeError, match=match):
            PrunedNet(net, criterion=lambda net, X, y: {}).fit(*classification())

    def test_two_of_four_of_three_inputs(self):
        X, y = classification()
        net = Untrainable(MLP, module__n_inputs=3, module__hidden=2, train_split=None, verbose=0)
        with pytest.raises(ValueError, match="No weight has 4 inputs or more"):
            PrunedNet(net, granularity="2:4").fit(X[:, :3], y)

    @pytest.mark.parametrize("criterion", ["wanda", "obs"])
    def test_unseen_inputs(self, criterion):
        class Transposed(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.head = nn.ConvTranspose1d(1, 2, 3), nn.Linear(16, 3)

            def forward(self, X):
                return self.head(self.layer(X[:, None]).flatten(1))

        net = Untrainable(Transposed, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0)
        with pytest.raises(ValueError, match=r"\['layer.weight'\] cannot be observed"):
            PrunedNet(net, criterion=criterion, schedule="one-shot").fit(*classification())

    def test_values_decide_nothing_where_no_graph_is_needed(self):
        """Weights of a module that cannot be traced can be pruned all the same."""
        assert fit(classifier(Branching), criterion="fisher").sparsity_ == 0.5

    def test_a_trial_changes_no_frozen_net(self):
        """Whether units can be removed is tried on a copy."""
        X, y = classification()
        net = classifier(MLP).fit(X, y)
        before = copy.deepcopy(net.module_.state_dict())
        training = [m.training for m in net.module_.modules()]
        fit(FrozenEstimator(net), granularity="unit")
        assert net.module_.first.out_features == 8
        assert [m.training for m in net.module_.modules()] == training
        for name, tensor in net.module_.state_dict().items():
            assert torch.equal(tensor, before[name])


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
