"""How many weights a budget leaves, and which, by scope."""

import copy

import pytest
import torch
from torch.nn.utils import prune

from skcompress.layers import weight_matrices
from skcompress.pruning.budgets import FLOOR, Budget, lamp, select
from tests.pruning_modules import build

SPARSITIES = [0.0, 0.1, 0.37, 0.5, 0.8]
SCOPES = ["global", "layer", "lamp"]


def random_scores(seed):
    """Return scores of layers of different scale, size and shape."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (7, 5), "b": (4, 7), "c": (2, 4, 3), "d": (1, 9)}
    return {
        name: torch.rand(shape, generator=generator) * 4.0 ** (seed % 3 * i)
        for i, (name, shape) in enumerate(shapes.items())
    }


def count(masks):
    """Count what stays."""
    return sum(int(mask.sum()) for mask in masks.values())


def owners_of(module):
    """Return the prunable weights as torch.nn.utils.prune names them."""
    split = (name.rpartition(".") for name in weight_matrices(module))
    return [(module.get_submodule(owner), attribute) for owner, _, attribute in split]


def normal(name):
    """Return a module whose layers have weights of one scale, so that no floor is in the way."""
    module = build(name)
    with torch.no_grad():
        for weight in weight_matrices(module).values():
            weight.normal_()
    return module


def torch_masks(module):
    """Return torch's masks by parameter name."""
    buffers = dict(module.named_buffers())
    return {
        name.removesuffix("_mask"): mask.bool()
        for name, mask in buffers.items() if name.endswith("_mask")
    }  # fmt: skip


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn, transposed", "lstm, bidirectional"])
class TestAgainstTorch:
    """One-shot masks are those of ``torch.nn.utils.prune``."""

    def test_global(self, name, sparsity):
        module = normal(name)
        masks = select(magnitudes(module), Budget(sparsity=sparsity), "global")
        theirs = copy.deepcopy(module)
        prune.global_unstructured(
            owners_of(theirs), pruning_method=prune.L1Unstructured, amount=sparsity
        )
        expected = torch_masks(theirs)
        assert set(masks) == set(expected)
        assert all(torch.equal(masks[n], expected[n]) for n in masks)

    def test_by_layer(self, name, sparsity):
        module = normal(name)
        masks = select(magnitudes(module), Budget(sparsity=sparsity), "layer")
        theirs = copy.deepcopy(module)
        for owner, attribute in owners_of(theirs):
            prune.l1_unstructured(owner, attribute, amount=sparsity)
        expected = torch_masks(theirs)
        assert set(masks) == set(expected)
        assert all(torch.equal(masks[n], expected[n]) for n in masks)


def magnitudes(module):
    """Score by absolute value."""
    return {n: w.detach().abs() for n, w in weight_matrices(module).items()}


class TestLamp:
    """The LAMP score, against its definition."""

    @pytest.mark.parametrize("seed", range(4))
    def test_brute_force(self, seed):
        score = random_scores(seed)["a"].double()
        expected = torch.empty_like(score)
        for index, value in enumerate(score.flatten()):
            tail = score[score >= value].square().sum()
            expected.view(-1)[index] = value.square() / tail
        torch.testing.assert_close(lamp(score), expected)

    @pytest.mark.parametrize("seed", range(4))
    def test_masks_by_sorting(self, seed):
        """Masks are those of a sort of all LAMP scores."""
        scores = random_scores(seed)
        masks = select(scores, Budget(sparsity=0.6), "lamp")
        ranked = torch.cat([lamp(score).flatten() for score in scores.values()])
        kept = torch.cat([mask.flatten() for mask in masks.values()])
        assert ranked[kept].min() > ranked[~kept].max()
        assert kept.sum() == round(0.4 * len(kept))

    def test_no_scale(self):
        """Multiplying a layer's scores changes no mask, unlike a global ranking."""
        scores = random_scores(1)
        scaled = {name: score * (100 if name == "b" else 1) for name, score in scores.items()}
        budget = Budget(sparsity=0.5)
        first, second = select(scores, budget, "lamp"), select(scaled, budget, "lamp")
        assert all(torch.equal(first[n], second[n]) for n in scores)
        assert not torch.equal(
            select(scores, budget, "global")["b"], select(scaled, budget, "global")["b"]
        )

    def test_each_layer_keeps_its_best(self):
        """The largest weight of a layer has the score one, by definition."""
        for score in random_scores(2).values():
            assert lamp(score).max() == 1

    def test_what_is_gone_and_zeros(self):
        """What is gone stays below zeros, and zeros below all else."""
        score = torch.tensor([-1.0, 0.0, 0.0, 2.0])
        assert lamp(score).tolist() == [-1, 0, 0, 1]
        assert lamp(torch.zeros(3)).tolist() == [0, 0, 0]


class TestCounts:
    """How many stay."""

    @pytest.mark.parametrize("scope", ["global", "lamp"])
    @pytest.mark.parametrize("seed", range(3))
    def test_sparsity_is_exact(self, scope, seed):
        scores = random_scores(seed)
        total = sum(score.numel() for score in scores.values())
        for sparsity in (0.0, 0.123, 0.5, 0.77, 0.9):
            masks = select(scores, Budget(sparsity=sparsity), scope)
            assert count(masks) == total - round(sparsity * total)

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_max_weights_is_never_exceeded(self, scope, seed):
        scores = random_scores(seed)
        total = sum(score.numel() for score in scores.values())
        for k in (4, 5, 11, 30, 50, total - 1, total, 10 * total):
            kept = count(select(scores, Budget(max_weights=k), scope))
            assert kept <= k
            if scope != "layer":
                assert kept == min(k, total)

    def test_by_layer_rounds_within_max_weights(self):
        """Where rounding by layer keeps too many, the least important of all go as well."""
        scores = {name: torch.arange(1.0, 4) + i for i, name in enumerate("abc")}
        masks = select(scores, Budget(max_weights=5), "layer")
        assert count(masks) == 5
        assert masks["a"].tolist() == [False, False, True]
        assert masks["b"].tolist() == masks["c"].tolist() == [False, True, True]

    @pytest.mark.parametrize("seed", range(3))
    def test_by_layer_removes_the_same_fraction(self, seed):
        scores = random_scores(seed)
        masks = select(scores, Budget(sparsity=0.5), "layer")
        for name, score in scores.items():
            assert int((~masks[name]).sum()) == round(0.5 * score.numel())

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("seed", range(6))
    def test_no_layer_is_emptied(self, scope, seed):
        """However different the scores of the layers are."""
        scores = random_scores(seed)
        scores["d"] = scores["d"] * 1e-6
        for k in (4, 6, 20, 60):
            masks = select(scores, Budget(max_weights=k), scope)
            assert all(mask.any() for mask in masks.values())


class TestFloors:
    """A layer keeps part of its share."""

    def test_floor(self):
        scores = {"small": torch.rand(100) * 1e-3, "large": torch.rand(100) + 1}
        masks = select(scores, Budget(sparsity=0.5), "global")
        assert int(masks["small"].sum()) == int(FLOOR * 0.5 * 100) == 5
        assert count(masks) == 100

    def test_floor_keeps_the_best(self):
        scores = {"small": torch.arange(100.0) * 1e-6, "large": torch.rand(100) + 1}
        masks = select(scores, Budget(sparsity=0.5), "global")
        assert masks["small"].nonzero().flatten().tolist() == [95, 96, 97, 98, 99]

    def test_what_is_gone_counts_for_no_floor(self):
        """A floor is no reason to keep what an earlier stage removed, or to remove more."""
        gone = torch.full((100,), -1.0)
        gone[0] = 1e-6
        scores = {"nearly gone": gone, "other": torch.rand(100) + 1}
        masks = select(scores, Budget(sparsity=0.6), "global")
        assert masks["nearly gone"].nonzero().flatten().tolist() == [0]
        assert count(masks) == 80


class TestNesting:
    """More of the same removal takes away more, and brings nothing back."""

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_progress(self, scope, seed):
        scores = random_scores(seed)
        masks = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
        for progress in (0.0, 0.1, 0.35, 0.8, 1.0):
            left = {n: s.masked_fill(~masks[n], -1) for n, s in scores.items()}
            chosen = select(left, Budget(sparsity=0.8), scope, progress)
            assert all((chosen[n] <= masks[n]).all() for n in scores)
            masks = chosen
        total = sum(score.numel() for score in scores.values())
        assert abs(count(masks) - 0.2 * total) <= (2 if scope == "layer" else 0.5)

    @pytest.mark.parametrize("scope", SCOPES)
    def test_what_is_gone_goes_first(self, scope):
        scores = {"a": torch.tensor([-1.0, -1, 0, 5]), "b": torch.tensor([3.0, 4, -1, 0])}
        masks = select(scores, Budget(sparsity=0.5), scope)
        assert [mask.tolist() for mask in masks.values()] in (
            [[False, False, True, True], [True, True, False, False]],
            [[False, False, False, True], [True, True, False, True]],
        )

    def test_ties_go_by_position(self):
        masks = select({"a": torch.ones(2, 3)}, Budget(sparsity=0.5), "global")
        assert masks["a"].tolist() == [[False] * 3, [True] * 3]


class TestThreshold:
    """Raw scores, compared."""

    @pytest.mark.parametrize("seed", range(3))
    def test_exact(self, seed):
        scores = random_scores(seed)
        masks = select(scores, Budget(threshold=0.3), "global")
        assert all(torch.equal(masks[n], scores[n] >= 0.3) for n in scores)

    def test_equal_stays(self):
        masks = select(
            {"a": torch.tensor([0.5, 0.499999, 0.500001])}, Budget(threshold=0.5), "global"
        )
        assert masks["a"].tolist() == [True, False, True]

    def test_zero_removes_only_what_is_gone(self):
        masks = select({"a": torch.tensor([0.0, -1.0, 2.0])}, Budget(threshold=0.0), "global")
        assert masks["a"].tolist() == [True, False, True]

    def test_rises_with_progress(self):
        scores = {"a": torch.tensor([0.2, 0.6, 1.0])}
        masks = select(scores, Budget(threshold=1.0), "global", progress=0.5)
        assert masks["a"].tolist() == [False, True, True]

    def test_emptying_a_layer_is_an_error(self):
        scores = {"a": torch.tensor([2.0, 3.0]), "b": torch.tensor([0.25, 0.5])}
        match = r"threshold=1 empties 'b', whose scores go up to 0\.5\. Choose a lower threshold"
        with pytest.raises(ValueError, match=match):
            select(scores, Budget(threshold=1.0), "global")


@pytest.mark.parametrize("budget", [Budget(sparsity=0.9), Budget(max_weights=2)])
@pytest.mark.parametrize("scope", SCOPES)
def test_fewer_weights_than_layers(budget, scope):
    """The error says how many the budget leaves, and how many are needed."""
    scores = {name: torch.rand(7) for name in "abc"}
    with pytest.raises(ValueError, match="leaves 2 of 21, but each of the 3 layers must keep"):
        select(scores, budget, scope)
