"""Choice of weights and of two in four, and what a unit is worth."""

import pytest
import torch
from sklearn.frozen import FrozenEstimator

from skcompress import PrunedNet
from skcompress.pruning.budgets import Budget, select
from skcompress.pruning.criteria import CRITERIA
from skcompress.pruning.granularity import choose_two_of_four, choose_weights, relative, unit_scores
from tests.pruning_modules import MLP, classification, classifier
from tests.pruning_units import setting, units_of


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("progress", [0.5, 1.0])
def test_two_of_four_of_transposed_convolutions(groups, progress):
    """Along the inputs of an output, as in the convolution with the same weights turned around."""
    score = torch.rand(8, 6, 3, generator=torch.Generator().manual_seed(0))
    # Input i of a group reaches output o of that group.
    rows = [score[g * 8 // groups : (g + 1) * 8 // groups].transpose(0, 1) for g in range(groups)]
    expected = choose_two_of_four()({"c": torch.cat(rows)}, progress)["c"]
    found = choose_two_of_four({"c": groups})({"c": score}, progress)["c"]
    assert found.shape == score.shape
    for g, mask in enumerate(expected.chunk(groups)):
        assert torch.equal(found[g * 8 // groups : (g + 1) * 8 // groups], mask.transpose(0, 1))
    if progress == 1.0:
        assert (found.view(-1, 4, 6, 3).sum(1) == 2).all()


def test_two_of_four_in_a_module():
    """The names and groups come from the module's layers."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.ConvTranspose1d(8, 6, 1)
            self.head = torch.nn.Linear(6, 3)

        def forward(self, X):
            return self.head(self.up(X[:, :, None]).flatten(1))

    X, y = classification(shape=(8,))
    pruned = PrunedNet(classifier(Net), granularity="2:4", retrain_epochs=1).fit(X, y)
    assert (pruned.masks_["up.weight"].view(2, 4, 6).sum(1) == 2).all()
    assert (pruned.masks_["head.weight"][:, :4].sum(1) == 2).all()


class TestWeights:
    """Single weights and two of four are chosen by the budgets."""

    def test_weights(self):
        scores = {"a": torch.rand(4, 5), "b": torch.rand(3, 4)}
        budget = Budget(sparsity=0.5)
        for progress in (0.3, 1.0):
            chosen = choose_weights(budget, "lamp")(scores, progress)
            expected = select(scores, budget, "lamp", progress)
            assert all(torch.equal(chosen[n], expected[n]) for n in scores)

    def test_two_of_four(self):
        mask = choose_two_of_four()({"a": torch.tensor([[1.0, 4, 3, 2]])}, 1.0)["a"]
        assert mask.tolist() == [[False, True, True, False]]


class Flattened(torch.nn.Module):
    """Channels of which each is read by six columns."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv1d(1, 8, 1), torch.nn.Linear(48, 3)

    def units(self, X):
        return torch.relu(self.conv(X[:, None]))

    def forward(self, X):
        return self.head(self.units(X).flatten(1))


class TwoReaders(torch.nn.Module):
    """Units that two layers of different width read."""

    def __init__(self):
        super().__init__()
        self.first, self.left = torch.nn.Linear(6, 4), torch.nn.Linear(4, 9)
        self.right, self.head = torch.nn.Linear(4, 2), torch.nn.Linear(11, 3)

    def units(self, X):
        return torch.relu(self.first(X))

    def forward(self, X):
        hidden = self.units(X)
        return self.head(torch.cat([torch.relu(self.left(hidden)), self.right(hidden)], 1))


class TestUnitScores:
    """What a unit is worth: the sum over what reads it."""

    def test_chain(self):
        _, units, scores = setting("mlp")
        expected = torch.cat([scores["second.weight"].sum(0), scores["last.weight"].sum(0)])
        torch.testing.assert_close(unit_scores(scores, units), expected)

    def test_several_readers(self):
        """A channel of the residual stream is read by a block, and by what comes after it."""
        _, units, scores = setting("cnn")
        found = unit_scores(scores, units)
        stream = units.slots["stem.weight", 0]
        expected = scores["inner.weight"].sum((0, 2, 3)) + scores["pointwise.weight"].sum((0, 2, 3))
        torch.testing.assert_close(found[stream], expected)
        flat = scores["head.weight"].sum(0).view(7, 4).sum(1)
        torch.testing.assert_close(found[units.slots["pointwise.weight", 0]], flat)

    def test_what_is_gone(self):
        """A unit of which no weight is left ranks below all; what is left of others counts."""
        _, units, scores = setting("mlp")
        scores["second.weight"][:, 2] = -1
        scores["second.weight"][1:, 3] = -1
        found = unit_scores(scores, units)
        assert found[2] == -1
        assert found[3] == pytest.approx(float(scores["second.weight"][0, 3]))
        assert (found >= 0).sum() == len(found) - 1

    def test_mean_activation(self):
        """The score of the activation criterion is the mean absolute activation of the unit."""
        net, (X, y) = classifier(MLP).initialize(), classification()
        scores = CRITERIA["activation"](net, X, y, None)
        module = net.module_
        found = unit_scores(scores, units_of(module, torch.as_tensor(X[:2])), average=True)
        with torch.no_grad():
            first = torch.relu(module.first(torch.as_tensor(X)))
            second = torch.tanh(module.second(first))
        expected = torch.cat([first.abs().mean(0), second.abs().mean(0)]).double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", [Flattened, TwoReaders])
    def test_mean_activation_of_columns_and_readers(self, kind):
        """However many columns and layers read a unit, and whatever is left of the weights."""
        net, (X, y) = classifier(kind).initialize(), classification()
        module = net.module_
        scores = CRITERIA["activation"](net, X, y, None)
        scores["head.weight"][0, :] = -1.0
        found = unit_scores(scores, units_of(module, torch.as_tensor(X[:2])), average=True)
        with torch.no_grad():
            activations = module.units(torch.as_tensor(X)).abs().transpose(0, 1)
        expected = activations.flatten(1).mean(1).double()
        torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-5, atol=1e-6)

    def test_a_threshold_compares_activations(self):
        """A unit that is quieter than the threshold goes, and no other."""
        X, y = classification()
        pruned = PrunedNet(
            FrozenEstimator(classifier(Flattened).fit(X, y)), criterion="activation",
            granularity="unit", threshold=0.3, schedule="one-shot", recovery="none",
        ).fit(X, y)  # fmt: skip
        with torch.no_grad():
            loud = pruned.estimator_.module_.units(torch.as_tensor(X)).mean((0, 2)) >= 0.3
        assert 0 < loud.sum() < 8
        assert pruned.net_.module_.conv.out_channels == loud.sum()


class TestRelative:
    """Scores that can be compared between layers."""

    def test_the_mean_is_one(self):
        assert relative(torch.tensor([1.0, 2.0, 5.0])).tolist() == [0.375, 0.75, 1.875]

    def test_what_is_gone(self):
        """It stays below all, and counts for no mean."""
        assert relative(torch.tensor([-1.0, 2.0, 6.0])).tolist() == [-1, 0.5, 1.5]

    def test_nothing_left(self):
        assert relative(torch.tensor([-1.0, -1.0])).tolist() == [-1, -1]
        assert relative(torch.tensor([-1.0, 0.0, 0.0])).tolist() == [-1, 0, 0]
