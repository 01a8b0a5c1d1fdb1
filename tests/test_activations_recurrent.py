"""Inputs of recurrent layers' weights, recomputed by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skcompress.activations import input_means
from tests.pruning_modules import SEQUENCE, Recurrent
from tests.test_activations import problem


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
