"""The masks of a net under compression, and the fractions that are counted from them."""

import pytest
import torch

from skcompress.layers import weight_matrices
from skcompress.pruning.budgets import Budget
from skcompress.pruning.granularity import choose_weights
from skcompress.pruning.schedules import Pruner, masked_fraction, zero_fraction
from skcompress.training.loop import Data
from tests.pruning_modules import MLP, classification, classifier


class TestPruner:
    """The masks of a net under compression."""

    @staticmethod
    def make(inherited=None, sparsity=0.5, criterion="magnitude"):
        torch.manual_seed(0)
        net = classifier(MLP).initialize()
        data = Data(*classification())
        choose = choose_weights(Budget(sparsity=sparsity), "global")
        return Pruner(net, data, criterion, choose, inherited or {})

    def test_it_begins_with_what_is_inherited(self):
        inherited = {"first.weight": torch.rand(8, 6) > 0.3}
        pruner = self.make(inherited)
        assert torch.equal(pruner.masks["first.weight"], inherited["first.weight"])
        assert pruner.masks["second.weight"].all()
        assert pruner.masks["last.weight"].all()

    @pytest.mark.parametrize("regrow", [True, False])
    def test_what_is_inherited_never_comes_back(self, regrow):
        """Not even in a dense phase; and it counts towards the budget."""
        inherited = {"first.weight": torch.rand(8, 6) > 0.3}
        pruner = self.make(inherited)
        pruner.update(regrow=regrow)
        assert (pruner.masks["first.weight"] <= inherited["first.weight"]).all()
        assert masked_fraction(pruner.masks, 136) == 0.5

    def test_regrowth(self):
        """Only with `regrow` a weight that was pruned may be chosen again."""
        pruner = self.make()
        pruner.update()
        first = {name: mask.clone() for name, mask in pruner.masks.items()}
        with torch.no_grad():
            for weight in weight_matrices(pruner.net.module_).values():
                weight.copy_(torch.rand_like(weight))
        pruner.update()
        assert all(torch.equal(pruner.masks[name], first[name]) for name in first)
        with torch.no_grad():
            for weight in weight_matrices(pruner.net.module_).values():
                weight.copy_(torch.rand_like(weight))
        pruner.update(regrow=True)
        assert not all((pruner.masks[name] <= first[name]).all() for name in first)

    def test_apply(self):
        pruner = self.make()
        pruner.update()
        with torch.no_grad():
            for weight in weight_matrices(pruner.net.module_).values():
                weight.fill_(1.0)
        pruner.apply()
        for name, weight in weight_matrices(pruner.net.module_).items():
            assert torch.equal(weight, pruner.masks[name].float())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_what_is_masked_is_plain_zero(self, dtype):
        """Whatever the weight was: negative, infinite or not a number; the rest keeps its bits."""
        pruner = self.make()
        pruner.net.module_.to(dtype)
        pruner.update()
        for name, weight in weight_matrices(pruner.net.module_).items():
            values = torch.tensor([-1.0, float("inf"), float("nan"), -0.0, 1e-3], dtype=dtype)
            before = values[torch.arange(weight.numel()) % 5].view(weight.shape)
            weight.data.copy_(before)
            pruner.apply()
            bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
            kept = before.view(bits).masked_fill(~pruner.masks[name], 0)
            assert torch.equal(weight.detach().view(bits), kept)

    def test_density_looks_ahead(self):
        """What the whole budget would leave is known before any of it goes."""
        pruner = self.make(sparsity=0.75)
        assert pruner.density() == pytest.approx(0.25)
        assert all(mask.all() for mask in pruner.masks.values())


def test_zero_fraction():
    """Zeros count, whoever set them, and what a module lacks of the weights it once had."""
    module = MLP()
    total = sum(weight.numel() for weight in weight_matrices(module).values())
    assert zero_fraction(module, total) == 0.0
    with torch.no_grad():
        module.second.weight[::2] = 0.0
    assert zero_fraction(module, total) == pytest.approx(32 / total)
    assert zero_fraction(module, 2 * total) == pytest.approx(0.5 + 16 / total)


def test_masked_fraction():
    """What the masks do not keep, gone weights included."""
    masks = {"a": torch.tensor([True, False, False]), "b": torch.tensor([True])}
    assert masked_fraction(masks, 4) == 0.5
    assert masked_fraction(masks, 8) == 0.75
