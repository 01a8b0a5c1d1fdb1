"""What PrunedNet refuses before any training."""

import copy

import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from tests.pruning.test_pruned import fit
from tests.pruning_modules import MLP, classification, classifier


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
