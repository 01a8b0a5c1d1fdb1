import numpy as np
import pytest
import torch
from skorch.helper import SliceDict
from torch import nn
from torch.nn import functional

from skcompress.activations import (
    example_inputs,
    first_rows,
    input_means,
    visit_inputs,
)
from skcompress.moments import second_moments
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


def second_moments_of(net, data):
    """Return the second moments, where convolutions of groups do not forbid them."""
    grouped = any(getattr(m, "groups", 1) != 1 for m in net.module_.modules())
    return {} if grouped else second_moments(net, data)


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


def cell(kind, layer, suffix, x, state):
    """Compute one step of a recurrent layer by its textbook formula."""
    w = {
        part: getattr(layer, f"{part}_{suffix}")
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    into = functional.linear(x, w["weight_ih"], w["bias_ih"])
    h = state[0] if kind == "lstm" else state
    back = functional.linear(h, w["weight_hh"], w["bias_hh"])
    if kind == "rnn":
        return torch.tanh(into + back)
    if kind == "gru":
        (ri, zi, ni), (rh, zh, nh) = into.chunk(3, -1), back.chunk(3, -1)
        z = torch.sigmoid(zi + zh)
        return (1 - z) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh) + z * h
    i, f, g, o = (into + back).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def recurrent_inputs_by_hand(kind, layer, x):
    """Return what enters each weight, step by step, for (n, time, features) inputs."""
    seen, hidden = {}, layer.hidden_size
    for index in range(layer.num_layers):
        outputs = []
        for direction in range(1 + layer.bidirectional):
            suffix = f"l{index}" + "_reverse" * direction
            zeros = x.new_zeros(len(x), hidden)
            state, before, after = (zeros, zeros) if kind == "lstm" else zeros, [], []
            steps = x.unbind(1)[::-1] if direction else x.unbind(1)
            for step in steps:
                before.append(state[0] if kind == "lstm" else state)
                state = cell(kind, layer, suffix, step, state)
                after.append(state[0] if kind == "lstm" else state)
            seen[f"layer.weight_ih_{suffix}"] = x
            seen[f"layer.weight_hh_{suffix}"] = torch.stack(before, 1)
            outputs.append(torch.stack(after[::-1] if direction else after, 1))
        x = torch.cat(outputs, -1)
    return seen


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers(kind, bidirectional, batch_first):
    """Two layers, recomputed by hand, whichever way they lie."""
    params = {"kind": kind, "layers": 2, "bidirectional": bidirectional, "batch_first": batch_first}
    net, data = problem(Recurrent, SEQUENCE, **params)
    with torch.no_grad():
        seen = recurrent_inputs_by_hand(kind, net.module_.layer, torch.as_tensor(data.X))
    for function in (torch.abs, torch.square):
        means = input_means(net, data, function)
        assert set(means) == {*seen, "head.weight"}
        for name, x in seen.items():
            torch.testing.assert_close(means[name], function(x).mean((0, 1)))


def test_a_recurrent_layer_with_a_state_of_its_own():
    """The first state counts among the inputs of the recurrent weight."""

    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, X):
            states, _ = self.gru(X, torch.full((1, X.shape[0], 3), 100.0, dtype=X.dtype))
            return self.head(states[:, -1])

    net, data = problem(Started, SEQUENCE)
    means = input_means(net, data, torch.abs)["gru.weight_hh_l0"]
    with torch.no_grad():
        start = torch.full((1, 11, 3), 100.0).double()
        states, _ = net.module_.gru(torch.as_tensor(data.X), start)
    expected = torch.cat([start.transpose(0, 1), states[:, :-1]], 1).abs().mean((0, 1))
    torch.testing.assert_close(means, expected)


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


WEIGHTED = {
    "mlp": (MLP, (6,), {}),
    "cnn": (ConvNet, IMAGE, {}),
    "gru": (Recurrent, SEQUENCE, {"kind": "gru", "layers": 2, "bidirectional": True}),
    "lstm, time first": (Recurrent, SEQUENCE, {"batch_first": False}),
    "attention": (Attention, SEQUENCE, {}),
    "attention, time first": (Attention, SEQUENCE, {"batch_first": False}),
    "tied": (Tied, (6,), {}),
}


class TestSampleWeights:
    """Rows are weighed where they stand."""

    @pytest.mark.parametrize("batch_size", [1, 4, -1])
    @pytest.mark.parametrize("name", WEIGHTED)
    def test_weights_are_repetitions(self, name, batch_size):
        """Means and second moments are those of the rows as often as their weights say."""
        module, shape, params = WEIGHTED[name]
        net, data = problem(module, shape, batch_size=batch_size, **params)
        weight = np.array([1.0, 2, 3, 1, 1, 5, 2, 4, 1, 6, 2])
        rows = np.repeat(np.arange(11), weight.astype(int))
        weighted = Data(data.X, data.y, weight)
        repeated = Data(data.X[rows], data.y[rows])
        for found, expected in (
            (input_means(net, weighted, torch.abs), input_means(net, repeated, torch.abs)),
            (second_moments_of(net, weighted), second_moments_of(net, repeated)),
        ):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "lstm, time first", "tied"])
    def test_rows_of_different_weight_stay_together(self, name):
        """One visit for each use of a weight and each batch, however many weights there are."""
        module, shape, params = WEIGHTED[name]
        net, data = problem(module, shape, **params)
        visits = []
        weight = np.linspace(0.5, 3, 11)
        visit_inputs(net, Data(data.X, data.y, weight), lambda name, *_: visits.append(name))
        plain = []
        visit_inputs(net, data, lambda name, *_: plain.append(name))
        assert visits == plain

    @pytest.mark.parametrize("batch_size", [1, 4, -1])
    def test_weighted_mean(self, batch_size):
        net, data = problem(MLP, (6,), batch_size=batch_size)
        weight = np.array([1.0, 2, 3] * 3 + [1, 5])
        means = input_means(net, Data(data.X, data.y, weight), torch.abs)["first.weight"]
        np.testing.assert_allclose(means.numpy(), np.average(abs(data.X), axis=0, weights=weight))


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
