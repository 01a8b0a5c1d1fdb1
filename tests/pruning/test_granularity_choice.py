"""Which units go, by their scores, the scope and the budget."""

import copy

import pytest
import torch
from torch import nn

from skcompress.pruning.budgets import Budget
from skcompress.pruning.granularity import ChooseUnits, unit_scores, weights_left
from skcompress.pruning.removal import remove_units
from tests.pruning_modules import ConvNet, n_weights
from tests.pruning_units import setting, shapes_of, units_of

CHAINS = ["mlp", "mlp, batch norm", "cnn", "branches", "tied"]
SIBLINGS = ["lstm, bidirectional", "gru, h_n"]
SCOPES = ["global", "layer", "lamp"]


def relative_scores(scores, units):
    """Return the scores of units, relative to the mean of their layer."""
    found = unit_scores(scores, units)
    for layer in units.layers.values():
        found[layer] /= found[layer].mean()
    return found


class TestChoice:
    """Which units go."""

    @pytest.mark.parametrize("name", CHAINS)
    @pytest.mark.parametrize("scope", ["global", "lamp"])
    @pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5])
    def test_sparsity_counts_units(self, name, scope, sparsity):
        _, units, scores = setting(name)
        choose = ChooseUnits(units, Budget(sparsity=sparsity), scope)
        choose(scores, 1.0)
        assert int((~choose.alive).sum()) == round(sparsity * units.n_units)

    @pytest.mark.parametrize("name", [*CHAINS, *SIBLINGS])
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_every_layer_keeps_a_unit(self, name, scope, seed):
        """However different the scores of the layers are."""
        _, units, scores = setting(name, seed)
        scores = {n: s * 10.0**-i for i, (n, s) in enumerate(scores.items())}
        choose = ChooseUnits(units, Budget(sparsity=0.6), scope)
        choose(scores, 1.0)
        assert all(choose.alive[layer].any() for layer in units.layers.values())

    def test_the_lowest_go(self):
        """Relative to the mean of their layer, whatever the scale of its scores."""
        _, units, scores = setting("mlp")
        scores["last.weight"] *= 1000.0
        choose = ChooseUnits(units, Budget(sparsity=0.5), "global")
        choose(scores, 1.0)
        found = relative_scores(scores, units)
        assert found[choose.alive].min() > found[~choose.alive].max()

    def test_masks_are_those_of_what_reads(self):
        """A mask has a column of zeros for each unit that goes, and nothing else."""
        _, units, scores = setting("mlp")
        choose = ChooseUnits(units, Budget(sparsity=0.5), "layer")
        masks = choose(scores, 1.0)
        assert masks["first.weight"].all()
        for name, alive in (("second.weight", choose.alive[:8]), ("last.weight", choose.alive[8:])):
            assert torch.equal(masks[name], alive.expand_as(masks[name]))
            assert alive.sum() == 4

    @pytest.mark.parametrize("scope", SCOPES)
    def test_nothing_comes_back(self, scope):
        """With what is gone marked, more progress keeps fewer units of the same."""
        _, units, scores = setting("cnn")
        choose = ChooseUnits(units, Budget(sparsity=0.7), scope)
        alive = choose.alive
        for seed, progress in enumerate((0.2, 0.5, 0.9, 1.0)):
            masks = choose(scores, progress)
            assert (choose.alive <= alive).all()
            alive = choose.alive
            torch.manual_seed(seed)
            scores = {n: torch.rand_like(s).masked_fill(~masks[n], -1) for n, s in scores.items()}
        assert 0 < int(alive.sum()) < units.n_units / 2

    def test_threshold(self):
        """Raw sums are compared."""
        _, units, scores = setting("mlp")
        found = unit_scores(scores, units)
        threshold = float(found.median())
        choose = ChooseUnits(units, Budget(threshold=threshold), "global")
        choose(scores, 1.0)
        assert torch.equal(choose.alive, found >= threshold)

    def test_threshold_that_empties_a_layer(self):
        _, units, scores = setting("mlp")
        choose = ChooseUnits(units, Budget(threshold=100.0), "global")
        with pytest.raises(ValueError, match=r"threshold=100 empties 'first\.weight'"):
            choose(scores, 1.0)

    def test_scopes_differ(self):
        _, units, scores = setting("mlp")
        scores["last.weight"] *= 1.5
        found = []
        for scope in SCOPES:
            choose = ChooseUnits(units, Budget(sparsity=0.4), scope)
            choose(scores, 1.0)
            found.append(tuple(choose.alive.tolist()))
        assert len(set(found)) == 3


class TestSiblings:
    """Hidden units of a recurrent module."""

    @pytest.mark.parametrize("name", SIBLINGS)
    @pytest.mark.parametrize("sparsity", [0.2, 0.4, 0.6])
    def test_the_lowest_of_each_layer_go(self, name, sparsity):
        """As many in each layer and direction, those of lowest score there."""
        _, units, scores = setting(name)
        choose = ChooseUnits(units, Budget(sparsity=sparsity), "global")
        choose(scores, 1.0)
        found, (parts,) = unit_scores(scores, units), units.siblings
        for part in parts:
            going = part[~choose.alive[part]]
            assert len(going) == round(sparsity * len(part))
            assert found[going].max() < found[part[choose.alive[part]]].min()


class TwoLayers(nn.Module):
    """A bidirectional LSTM of two layers, whose hidden units go by fours, between linear layers."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(4, 10), nn.Linear(20, 3)
        self.lstm = nn.LSTM(10, 10, 2, bidirectional=True, batch_first=True)

    def forward(self, X):
        return self.after(self.lstm(torch.relu(self.before(X)))[0][:, -1])


class TestSparsityOfSiblings:
    """The fraction counts units, also where several go together."""

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("low", ["before.weight", "lstm"])
    @pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.8])
    def test_fraction(self, scope, low, sparsity):
        """As near as four units at a time allow, whichever layer has the lowest scores."""
        torch.manual_seed(0)
        module = TwoLayers()
        units = units_of(module, torch.rand(2, 5, 4))
        assert units.n_units == 50
        scores = {n: torch.rand(s, dtype=torch.double) for n, s in shapes_of(module).items()}
        scores = {n: s + 10 * (not n.startswith(low)) * s for n, s in scores.items()}
        choose = ChooseUnits(units, Budget(sparsity=sparsity), scope)
        choose(scores, 1.0)
        assert abs(int((~choose.alive).sum()) - round(50 * sparsity)) <= 2

    def test_too_many(self):
        """One unit of each layer stays, with those that go with it."""
        units = units_of(TwoLayers(), torch.rand(2, 5, 4))
        scores = {n: torch.ones(s) for n, s in shapes_of(TwoLayers()).items()}
        with pytest.raises(ValueError, match=r"removes 48 of 50 units.*at most 45 can go"):
            ChooseUnits(units, Budget(sparsity=0.96), "global")(scores, 1.0)


class TestMaxWeights:
    """``max_weights`` counts weights, where units go too."""

    @pytest.mark.parametrize("name", [*CHAINS, *SIBLINGS, "attention", "encoder"])
    @pytest.mark.parametrize("scope", SCOPES)
    def test_never_exceeded(self, name, scope):
        module, units, scores = setting(name)
        total = n_weights(module)
        for part in (0.5, 0.75, 0.9, 1.0):
            choose = ChooseUnits(units, Budget(max_weights=int(part * total)), scope)
            choose(scores, 1.0)
            smaller = copy.deepcopy(module)
            remove_units(smaller, units, choose.alive)
            assert n_weights(smaller) <= part * total
        assert n_weights(smaller) == total

    @pytest.mark.parametrize("seed", range(3))
    def test_no_more_than_needed(self, seed):
        """One unit more would be too many."""
        module, units, scores = setting("mlp", seed)
        shapes, found = shapes_of(module), relative_scores(scores, units)
        for k in range(30, n_weights(module), 9):
            choose = ChooseUnits(units, Budget(max_weights=k), "global")
            choose(scores, 1.0)
            assert weights_left(units, choose.alive, shapes) <= k
            if not choose.alive.all():
                one_more = choose.alive.clone()
                dead = (~one_more).nonzero().flatten()
                one_more[dead[found[dead].argmax()]] = True
                assert weights_left(units, one_more, shapes) > k

    @pytest.mark.parametrize("scope", SCOPES)
    def test_too_small(self, scope):
        """The error says what the smallest module takes."""
        _, units, scores = setting("mlp")
        smallest = 6 * 1 + 1 * 1 + 1 * 3
        match = rf"max_weights=9 cannot be met .* one unit in each layer still takes {smallest} "
        with pytest.raises(ValueError, match=match):
            ChooseUnits(units, Budget(max_weights=9), scope)(scores, 1.0)
        choose = ChooseUnits(units, Budget(max_weights=smallest), scope)
        choose(scores, 1.0)
        assert choose.alive.sum() == 2

    def test_progress(self):
        """Part of the way, fewer units have gone."""
        _, units, scores = setting("cnn")
        choose = ChooseUnits(units, Budget(max_weights=200), "global")
        counts = []
        for progress in (0.0, 0.4, 0.8, 1.0):
            choose(scores, progress)
            counts.append(int(choose.alive.sum()))
        assert counts == sorted(counts, reverse=True)
        assert counts[0] == units.n_units > counts[1] > counts[-1]


class TestTrials:
    """Choices to try removal with, whatever the budget."""

    @pytest.mark.parametrize("name", [*CHAINS, *SIBLINGS, "attention", "cnn, grouped"])
    def test_choices(self, name):
        """Every second, all but the first, all but the last, and two by lot, the same each time."""
        _, units, _ = setting(name)
        choose = ChooseUnits(units, Budget(threshold=0.0), "global")
        second, first, last, *random = [choose.spread(masks) for masks in choose.trials()]
        assert len(random) == 2
        for layer in units.layers.values():
            n = len(layer)
            assert int(second[layer].sum()) == (n + 1) // 2
            assert all(alive[layer].any() for alive in random)
            if n > 1:
                assert int(first[layer].sum()) == int(last[layer].sum()) == n - 1
        for alive in (second, first, last, *random):
            for parts in units.siblings:
                assert len(alive[parts].sum(1).unique()) == 1
        again = [choose.spread(masks) for masks in choose.trials()]
        assert all(map(torch.equal, again, [second, first, last, *random]))

    def test_one_layer(self):
        """Units of other layers are alive."""
        _, units, _ = setting("mlp")
        choose = ChooseUnits(units, Budget(threshold=0.0), "global")
        masks = {"first.weight": torch.arange(8) > 2}
        assert choose.spread(masks).tolist() == [False] * 3 + [True] * 13


def test_weights_left_by_hand():
    """Both sides of a weight shrink, and a channel counts for each of its places."""
    module = ConvNet()
    units = units_of(module, torch.rand(2, 1, 8, 8))
    alive = torch.ones(units.n_units, dtype=torch.bool)
    assert weights_left(units, alive, shapes_of(module)) == n_weights(module)
    alive[units.slots["inner.weight", 0][:2]] = False
    alive[units.slots["pointwise.weight", 0][:3]] = False
    expected = 6 * 9 + 3 * 6 * 9 + 6 * 3 + 6 * 9 + 4 * 6 + 3 * 4 * 4
    assert weights_left(units, alive, shapes_of(module)) == expected
