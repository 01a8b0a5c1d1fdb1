import copy

import pytest
import torch
from torch import nn

from skcompress.pruning.equivalence import check_unchanged, output, try_removal
from tests.pruning_modules import MLP
from tests.pruning_units import random_choice, units_of

X = torch.rand(2, 6)


class Pair(MLP):
    """Returns its output first, and something else."""

    def forward(self, X):
        return super().forward(X), X


class Fixed(MLP):
    """Insists on a hidden width of eight."""

    def forward(self, X):
        return self.last(torch.relu(self.second(torch.relu(self.first(X)))).view(-1, 8))


def test_output():
    """The first output, in evaluation mode, without gradients."""
    module = Pair().train()
    found = output(module, (X,), {})
    assert torch.equal(found, module(X)[0])
    assert not found.requires_grad
    assert not module.training


def test_inputs_stay():
    """A forward pass that changes its inputs in place changes copies of them."""

    class InPlace(MLP):
        def forward(self, X):
            X -= 0.5
            return super().forward(X)

    module, rows = InPlace(), X.clone()
    first = output(module, (rows,), {})
    assert torch.equal(rows, X)
    assert torch.equal(output(module, (), {"X": rows}), first)
    units = units_of(MLP(), X)
    assert try_removal(module, units, random_choice(module, units)[1], (rows,), {}) is None


class TestCheckUnchanged:
    """A smaller module must compute what the masked one computed."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rounding_is_allowed(self, dtype):
        module = MLP().to(dtype)
        before = output(module, (X.to(dtype),), {})
        noise = 1e-6 if dtype == torch.float32 else 1e-12
        check_unchanged(module, before + noise, (X.to(dtype),), {}, ["first.weight"])
        with pytest.raises(ValueError, match="computes something else"):
            check_unchanged(module, before + 1e-3, (X.to(dtype),), {}, ["first.weight"])

    def test_another_shape(self):
        module = MLP()
        before = output(module, (X,), {})[:, :2]
        with pytest.raises(ValueError, match="computes something else"):
            check_unchanged(module, before, (X,), {}, ["first.weight"])

    def test_a_failing_forward(self):
        """The reason, the layers that became smaller, and the usual cause."""
        module = Fixed()
        before = output(module, (X,), {})
        module.second = nn.Linear(8, 5)
        changed = ["second.weight", "second.bias", "last.weight"]
        match = (
            r"Removing units of \['last', 'second'\] from Fixed is not possible: its forward pass"
            r" fails \(shape .*\)\. Does forward hold a width as a number.*granularity='weight'"
        )
        with pytest.raises(ValueError, match=match):
            check_unchanged(module, before, (X,), {}, changed)


@pytest.mark.parametrize("kind", [MLP, Fixed])
def test_trying_leaves_the_module_as_it_is(kind):
    """What works and what does not is found on a copy."""
    module = kind().train()
    before = copy.deepcopy(module.state_dict())
    units = units_of(module, X)
    _, alive = random_choice(module, units)
    if kind is MLP:
        assert try_removal(module, units, alive, (X,), {}) is None
    else:
        with pytest.raises(ValueError, match="its forward pass fails"):
            try_removal(module, units, alive, (X,), {})
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
