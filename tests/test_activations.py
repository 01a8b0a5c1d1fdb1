"""Inputs of layers: their means, which are observed, and examples of them."""

import numpy as np
import pytest
import torch
from skorch.helper import SliceDict
from torch import nn
from torch.nn import functional

from skcompress.activations import example_inputs, first_rows, input_means, visit_inputs
from skcompress.pruning.criteria import CRITERIA
from skcompress.training.loop import Data
from tests.pruning_modules import (
    IMAGE,
    MLP,
    SEQUENCE,
    Attention,
    ConvNet,
    Recurrent,
    Tied,
    Transposed,
    classification,
    classifier,
)


def problem(module, shape, n_rows=11, batch_size=4, **params):
    """Return an initialized float64 net and rows."""
    torch.manual_seed(0)
    named = {f"module__{name}": value for name, value in params.items()}
    net = classifier(module, batch_size=batch_size, **named).initialize()
    net.module_.double().eval()
    X, y = classification(n_rows, shape)
    return net, Data(X.astype(np.float64), y)


def layer_inputs(net, data, layers):
    """Run all rows at once and return what enters each of some layers."""
    seen = {}
    handles = [
        layer.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
        for name, layer in net.module_.named_modules() if name in layers
    ]  # fmt: skip
    with torch.no_grad():
        net.module_(torch.as_tensor(data.X))
    for handle in handles:
        handle.remove()
    return seen


def test_convolutions():
    """Means over rows and places, channel by channel; the depthwise one shares a single mean."""
    net, data = problem(ConvNet, IMAGE)
    names = ["stem", "inner", "outer", "depthwise", "pointwise", "head"]
    seen = layer_inputs(net, data, names)
    for function in (torch.abs, torch.square):
        means = input_means(net, data, function)
        assert list(means) == [f"{name}.weight" for name in names]
        for name in ("stem", "inner", "outer", "pointwise"):
            expected = function(seen[name]).mean((0, 2, 3))
            torch.testing.assert_close(means[f"{name}.weight"], expected)
        expected = function(seen["depthwise"]).mean().reshape(1)
        torch.testing.assert_close(means["depthwise.weight"], expected)
        torch.testing.assert_close(means["head.weight"], function(seen["head"]).mean(0))


def test_grouped_convolution():
    """Inputs at the same place of their group share a mean, as they share a column."""

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.grouped = nn.Conv1d(6, 4, 2, groups=2)
            self.head = nn.Linear(4, 3)

        def forward(self, X):
            return self.head(self.grouped(X).mean(2))

    net, data = problem(Grouped, (6, 5))
    means = input_means(net, data, torch.abs)["grouped.weight"]
    by_channel = abs(data.X).mean((0, 2))
    np.testing.assert_allclose(means.numpy(), (by_channel[:3] + by_channel[3:]) / 2)


def test_attention():
    """The projections of queries, keys and values see the same rows; the last one the heads."""
    net, data = problem(Attention, SEQUENCE)
    means = input_means(net, data, torch.abs)
    embedded = net.module_.embed(torch.as_tensor(data.X))
    expected = embedded.abs().mean((0, 1))
    torch.testing.assert_close(means["attention.in_proj_weight"], expected.detach())
    assert means["attention.out_proj.weight"].shape == (8,)


def test_a_weight_used_twice_sees_both():
    """The mean of a tied weight goes over all its uses."""
    net, data = problem(Tied, (6,))
    means = input_means(net, data, torch.abs)
    seen = layer_inputs(net, data, ["first", "second"])
    both = torch.cat([seen["first"], seen["second"]])
    assert set(means) == {"embed.weight", "first.weight", "head.weight"}
    torch.testing.assert_close(means["first.weight"], both.abs().mean(0))


def test_weights_that_are_not_prunable_are_not_visited():
    """A head tied to an embedding has inputs too, which nobody asks for."""

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(3, 4), nn.Linear(4, 4)

        def forward(self, X):
            return functional.linear(self.mix(self.embed(X).mean(1)), self.embed.weight)

    net = classifier(Language).initialize()
    data = Data(np.random.default_rng(0).integers(0, 3, (9, 5)), np.arange(9) % 3)
    assert set(input_means(net, data, torch.abs)) == {"mix.weight"}


@pytest.mark.parametrize("batch_size", [1, 3, 128, -1])
def test_batches_of_any_size(batch_size):
    """Means do not depend on the size of the batches, a last single row included."""
    net, data = problem(Recurrent, SEQUENCE, n_rows=10, batch_size=batch_size)
    whole, _ = problem(Recurrent, SEQUENCE, n_rows=10, batch_size=10)
    expected = input_means(whole, data, torch.abs)
    for name, value in input_means(net, data, torch.abs).items():
        torch.testing.assert_close(value, expected[name])


def test_a_module_that_asks_for_the_number_of_rows():
    """``len(x)`` in a forward pass is no obstacle, though it fixes the batch of a trace."""

    class Counting(MLP):
        def forward(self, X):
            return super().forward(X.reshape(len(X), -1) + torch.zeros(len(X), 1))

    net, data = problem(Counting, (6,))
    means = input_means(net, data, torch.abs)["first.weight"]
    np.testing.assert_allclose(means.numpy(), abs(data.X).mean(0))


@pytest.mark.parametrize("criterion", ["activation", "wanda", "obs"])
class TestUnseen:
    """Layers whose inputs cannot be observed are named."""

    def test_transposed_convolution(self, criterion):
        net, data = problem(Transposed, IMAGE)
        with pytest.raises(ValueError, match=r"\['decode.weight'\] cannot be observed"):
            CRITERIA[criterion](net, data.X, data.y, None)

    def test_cell(self, criterion):
        class Steps(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell, self.head = nn.LSTMCell(4, 3), nn.Linear(3, 3)

            def forward(self, X):
                return self.head(self.cell(X[:, 0])[0])

        net, data = problem(Steps, SEQUENCE)
        match = (
            r"\['cell.weight_hh', 'cell.weight_ih'\] cannot be observed.*'magnitude' or 'fisher'"
        )
        with pytest.raises(ValueError, match=match):
            CRITERIA[criterion](net, data.X, data.y, None)

    def test_projection_of_an_lstm(self, criterion):
        class Projected(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(4, 5, 2, proj_size=3, bidirectional=True, batch_first=True)
                self.head = nn.Linear(6, 3)

            def forward(self, X):
                return self.head(self.lstm(X)[0][:, -1])

        net, data = problem(Projected, SEQUENCE)
        match = r"\['lstm.weight_hr_l0', 'lstm.weight_hr_l0_reverse', 'lstm.weight_hr_l1',"
        with pytest.raises(ValueError, match=match):
            CRITERIA[criterion](net, data.X, data.y, None)


class TestExamples:
    """Two rows to see how a module works."""

    def test_rows(self):
        data = first_rows(Data(np.arange(5), np.arange(5), np.ones(5)))
        assert data.X.tolist() == data.y.tolist() == [0, 1]
        assert data.sample_weight is None

    def test_a_single_row_stands_twice(self):
        assert first_rows(Data(np.arange(1), np.arange(1))).X.tolist() == [0, 0]

    def test_inputs(self):
        net, data = problem(MLP, (6,))
        (X,), kwargs = example_inputs(net, data)
        np.testing.assert_array_equal(X.numpy(), data.X[:2])
        assert kwargs == {}

    def test_dict(self):
        net, data = problem(MLP, (6,))
        args, kwargs = example_inputs(net, Data(SliceDict(a=data.X, b=data.X[:, :2]), data.y))
        assert args == ()
        assert {name: tuple(value.shape) for name, value in kwargs.items()} == {
            "a": (2, 6), "b": (2, 2),
        }  # fmt: skip


def test_visits_show_weights_axes_and_operations():
    """Every use of a weight is one visit for each batch."""
    net, data = problem(ConvNet, IMAGE, batch_size=6)
    visits = []
    visit_inputs(net, data, lambda *visit: visits.append(visit))
    assert len(visits) == 2 * 6
    by_name = {name: (x, axis, node, weight) for name, x, axis, node, weight in visits}
    assert by_name["stem.weight"][1] == 1
    assert by_name["head.weight"][1] == -1
    assert str(by_name["head.weight"][2].target) == "aten.linear.default"
    assert all(weight == 1.0 for *_, weight in by_name.values())
    assert sum(len(x) for name, x, *_ in visits if name == "stem.weight") == 11
