"""Which units an operation lets go, and where they stand."""

import pytest
import torch
from torch import nn

from skcompress.pruning.rules import MOVES, RULES
from tests.pruning_modules import Attention, build, rows
from tests.pruning_units import assert_removable, units_of


class Forward(nn.Module):
    """Two linear layers, and whatever `between` does."""

    def __init__(self, between, hidden=8, width=None, **tensors):
        super().__init__()
        self.between = between
        self.first = nn.Linear(3, hidden)
        self.last = nn.Linear(width or hidden, 2)
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor))

    def forward(self, X):
        return self.last(self.between(self, self.first(X)))


X = torch.randn(4, 3, dtype=torch.float64)
STEPS = torch.randn(4, 5, 3, dtype=torch.float64)


PASSING = {
    "scale": (lambda m, x: x * m.p, 8, {"p": torch.randn(8)}),
    "scale of two dimensions": (lambda m, x: x * m.p, 8, {"p": torch.randn(1, 8)}),
    "scale through a view": (lambda m, x: x * m.p.view(1, -1), 8, {"p": torch.randn(8)}),
    "one scale for all": (lambda m, x: x * m.p, 8, {"p": torch.randn(1)}),
    "number": (lambda m, x: 2 ** (1 - 3 * x), 8, {}),
    "power of units": (lambda m, x: (x.abs() + 1) ** torch.sigmoid(x), 8, {}),
    "clamped by units": (lambda m, x: torch.clamp(x, max=2 * x), 8, {}),
    "where": (lambda m, x: torch.where(torch.ones(8, dtype=torch.bool)[0], x, -x), 8, {}),
    "gated by chunks": (lambda m, x: (lambda a, b: a * b.sigmoid())(*x.chunk(2, -1)), 4, {}),
    "view by len": (lambda m, x: x.view(len(x), -1), 8, {}),
    "written out": (lambda m, x: torch.stack([row * 2 for row in x]), 8, {}),
    "reversed": (lambda m, x: x.flip(-1), 8, {}),
    "repeated": (lambda m, x: (lambda a, b: a * b)(*x.repeat(1, 2).chunk(2, -1)), 8, {}),
    "picked rows": (lambda m, x: x[torch.tensor([1, 0, 1, 1])], 8, {}),
    "softmax over rows": (lambda m, x: torch.softmax(x, dim=0, dtype=torch.float64), 8, {}),
    "in place": (lambda m, x: x.clone().mul_(2).add_(x), 8, {}),
    "constant": (lambda m, x: x * torch.tensor(3.0), 8, {}),
    "detached": (lambda m, x: x + x.detach(), 8, {}),
}


@pytest.mark.parametrize("name", PASSING)
def test_units_pass(name):
    """Operations through which every unit of the layer before can be removed."""
    between, width, tensors = PASSING[name]
    torch.manual_seed(0)
    # Gating in halves couples each unit of the first half with one of the second.
    assert_removable(Forward(between, width=width, **tensors), X, n_units=width)


@pytest.mark.parametrize("name", sorted({*RULES, *MOVES}))
def test_rules_are_for_operations_that_exist(name):
    """A rule for a name that torch does not have would never be used."""
    assert hasattr(torch.ops.aten, name)


PINNING = {
    "softmax over units": (lambda m, x: x.softmax(-1), "passes through softmax"),
    "mean over units": (lambda m, x: x - x.mean(-1, keepdim=True), "passes through mean"),
    "norm": (lambda m, x: x / x.norm(dim=-1, keepdim=True), "passes through linalg_vector_norm"),
    "cumulative": (lambda m, x: x.cumsum(-1), "passes through cumsum"),
    "layer norm": (lambda m, x: nn.functional.layer_norm(x, (8,)), "passes through layer_norm"),
    "constant for each": (lambda m, x: x * torch.arange(8.0), "mul joins it with something that"),
    "joined with the input": (
        lambda m, x: x + torch.cat([X, X, X[:, :2]], 1)[: len(x)], "add joins it with something",
    ),
    "times a matrix": (lambda m, x: x @ torch.eye(8, dtype=x.dtype), "passes through matmul"),
    "rolled": (lambda m, x: x.roll(3, -1), "passes through roll"),
    "mixed by a view": (lambda m, x: x.t().reshape(len(x), 8), "mixed with other dimensions"),
    "pooled without channels": (
        lambda m, x: nn.functional.avg_pool1d(x, 3, stride=1, padding=1), "avg_pool1d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PINNING)
def test_units_stay(name):
    """Operations that need all units; the error gives the reason for each layer."""
    between, reason = PINNING[name]
    module = Forward(between).double()
    with pytest.raises(ValueError, match="No unit of Forward can be removed: ") as error:
        units_of(module, X[:2])
    message = str(error.value)
    assert "'first.weight' stays because" in message
    assert reason in message
    assert "'last.weight' stays because it is an output of the module" in message
    assert message.endswith("Use granularity='weight'.")


class TestSlots:
    """What stands where."""

    def test_gates_stand_one_block_after_the_other(self):
        units = units_of(build("gru"), rows("gru"))
        for slot in (("layer.weight_ih_l0", 0), ("layer.weight_hh_l0", 0), ("layer.bias_hh_l0", 0)):
            assert units.slots[slot].tolist() == list(range(5)) * 3
        assert units.slots["layer.weight_hh_l0", 1].tolist() == list(range(5))
        assert ("layer.weight_ih_l0", 1) not in units.slots  # inputs of the module

    def test_heads(self):
        units = units_of(Attention(), STEPS.new_zeros(2, 5, 4).float())
        heads = units.slots["attention.in_proj_weight", 0].view(3, 4, 2)
        assert (heads == heads[0, :, :1]).all()
        assert units.slots["attention.out_proj.weight", 1].tolist() == heads[0].flatten().tolist()
        assert ("attention.out_proj.weight", 1) in units.consumers

    def test_channels_in_a_flattened_image(self):
        units = units_of(build("cnn"), rows("cnn"))
        columns = units.slots["head.weight", 1].view(7, 4)
        assert (columns == columns[:, :1]).all()
        assert len(columns[:, 0].unique()) == 7

    def test_consumers_read_and_producers_do_not(self):
        units = units_of(build("mlp"), rows("mlp"))
        assert units.consumers == {("second.weight", 1), ("last.weight", 1)}
        assert list(units.layers) == ["first.weight", "second.weight"]
        assert units.layers["second.weight"].tolist() == list(range(8, 16))

    def test_tied_weights_count_once(self):
        units = units_of(build("tied"), rows("tied"))
        assert units.n_units == 8
        assert not any(name.startswith("second.weight") for name, _ in units.slots)
        assert units.slots["second.bias", 0].tolist() == units.slots["first.bias", 0].tolist()
