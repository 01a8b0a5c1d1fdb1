import copy
import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

from skcompress.layers import weight_matrices
from skcompress.quantization import quantize
from skcompress.quantization.allocation import (
    allocate,
    mean_loss,
    sensitivities,
    steps_down,
    total_bytes,
)
from skcompress.quantization.straight_through import set_weights
from skcompress.training.loop import Data
from tests.pruning_modules import MLP, Tied, classification, classifier

WIDTHS = (2, 4, 8)


def problem(module=MLP):
    """Return a trained net and its rows."""
    X, y = classification()
    return classifier(module, max_epochs=20).fit(X, y), Data(X, y)


def choices(net):
    """Return every weight at every width."""
    return {
        name: {bits: quantize(weight, bits=bits) for bits in WIDTHS}
        for name, weight in weight_matrices(net.module_).items()
    }


def loss_with(net, data, quantized):
    """Measure the loss of a copy with these weights."""
    net = copy.deepcopy(net)
    set_weights(net, quantized)
    return mean_loss(net, data)


def run(net, data, max_bytes=None, max_loss=None):
    """Allocate bits; return them and the weights of so many bits."""
    every = choices(net)
    bits = allocate(net, data, lambda n, b: every[n][b], WIDTHS, max_bytes, max_loss)
    return bits, {name: every[name][width] for name, width in bits.items()}


def test_mean_loss():
    """Over rows, whatever the batches; by sample weights."""
    net, data = problem()
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    expected = cross_entropy(net.module_(X), y).item()
    assert mean_loss(net, data) == pytest.approx(expected, rel=1e-5)
    weights = torch.arange(1.0, 61)
    expected = (cross_entropy(net.module_(X), y, reduction="none") * weights).sum() / weights.sum()
    weighted = Data(data.X, data.y, weights.numpy())
    assert mean_loss(net, weighted) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("module", [MLP, Tied])
def test_total_bytes(module):
    """Quantized weights count as stored, all else in full, and shared weights once."""
    net, _ = problem(module)
    quantized = {n: w[4] for n, w in choices(net).items()}
    n_weights = sum(w.numel() for w in weight_matrices(net.module_).values())
    n_values = sum(p.numel() for p in net.module_.parameters())
    stored = sum(q.n_bytes for q in quantized.values())
    assert total_bytes(net, {}) == 4 * n_values
    assert total_bytes(net, quantized) == 4 * (n_values - n_weights) + stored


def test_sensitivities():
    """Each layer alone at each width, and the net is as before."""
    net, data = problem()
    before = copy.deepcopy(net.module_.state_dict())
    every = choices(net)
    dense, added = sensitivities(net, data, every)
    assert dense == mean_loss(net, data)
    for (name, bits), loss in added.items():
        assert loss == pytest.approx(loss_with(net, data, {name: every[name][bits]}) - dense)
    assert len(added) == 9
    for name, tensor in net.module_.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_steps_take_the_cheapest_first():
    """By hand: loss for each byte that is saved."""
    every = choices(problem()[0])
    added = {(n, b): {8: 0.0, 4: 0.1, 2: 5.0}[b] for n in every for b in WIDTHS}
    added["first.weight", 2] = 0.0
    added["first.weight", 4] = 0.0
    steps = steps_down(every, added)
    assert steps[0][0] == "first.weight"
    for name in every:
        widths = [bits for n, bits in steps if n == name]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] == 2


class TestMaxBytes:
    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
    def test_it_is_met(self, part):
        """And no layer could have its next width without breaking it."""
        net, data = problem()
        every = choices(net)
        least, most = (total_bytes(net, {n: w[b] for n, w in every.items()}) for b in (2, 8))
        max_bytes = round(least + part * (most - least))
        bits, quantized = run(net, data, max_bytes=max_bytes)
        assert least <= total_bytes(net, quantized) <= max_bytes
        for name, width in bits.items():
            if width < 8:
                wider = quantized | {name: every[name][2 * width]}
                assert total_bytes(net, wider) > max_bytes

    def test_all_of_it(self):
        net, data = problem()
        assert set(run(net, data, max_bytes=10**6)[0].values()) == {8}

    def test_too_few(self):
        net, data = problem()
        with pytest.raises(ValueError, match="max_bytes=10 cannot be met: with 2 bits in every"):
            run(net, data, max_bytes=10)


class TestMaxLoss:
    @pytest.mark.parametrize("max_loss", [0.003, 0.03, 0.3])
    def test_it_is_met(self, max_loss):
        """By the loss of the whole quantized net."""
        net, data = problem()
        bits, quantized = run(net, data, max_loss=max_loss)
        assert loss_with(net, data, quantized) <= mean_loss(net, data) + max_loss
        assert min(bits.values()) < 8

    def test_more_loss_fewer_bytes(self):
        net, data = problem()
        sizes = [total_bytes(net, run(net, data, max_loss=m)[1]) for m in (0.001, 0.01, 0.1, 9.0)]
        assert all(a >= b for a, b in itertools.pairwise(sizes))
        assert sizes[0] > sizes[-1]

    def test_too_little(self):
        net, data = problem()
        match = "max_loss cannot be met: 8 bits in every layer .* bits=16 with format='symmetric'"
        with pytest.raises(ValueError, match=match):
            allocate(net, data, lambda n, b: quantize(weight_matrices(net.module_)[n], bits=2),
                     (8,), None, 0.0)  # fmt: skip
