import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from skcompress.layers import weight_matrices
from skcompress.quantization import quantize
from skcompress.quantization.integers import EXACT, IntegerModule, dynamic, static, widened
from tests.pruning_modules import MODULES, build, rows

# The transposed convolution is refused before it gets here.
NAMES = [name for name in MODULES if name not in ("cnn, transposed", "cnn, one-dimensional")]
RANGE = (-4.0, 4.0)


def quantized_module(name, activations, format="symmetric", granularity=None):
    """Return a module with rounded weights, and the same one that computes in integers."""
    module = build(name)
    quantized = {
        n: quantize(w, bits=8, format=format, granularity=granularity)
        for n, w in weight_matrices(module).items()
    }
    with torch.no_grad():
        for n, weight in weight_matrices(module).items():
            weight.copy_(quantized[n].dequantize())
    ranges = dict.fromkeys(quantized, RANGE) if activations == "static" else None
    return module, IntegerModule(module, quantized, ranges)


class Simulated(IntegerModule):
    """The same, with activations that are rounded and multiplied in floating point."""

    def product(self, function, name, rows, x, bias, *settings):
        if self.ranges is not None:
            q, scale = static(x, *self.ranges[name])
            unit = scale * self.integers[name][1][rows].flatten()
            bias = None if bias is None else (bias / unit).round() * unit
        else:
            dims = -1 if function is functional.linear else tuple(range(1, x.dim()))
            q, scale = dynamic(x, dims)
        return function(q * scale, self.module.get_parameter(name)[rows], bias, *settings)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("format", ["symmetric", "affine"])
@pytest.mark.parametrize("name", NAMES)
def test_integers_give_what_rounded_numbers_give(name, activations, format):
    """The sums of integers, scaled, are the products of the values that they stand for."""
    module, integer = quantized_module(name, activations, format)
    simulated = copy.deepcopy(integer)
    simulated.__class__ = Simulated
    X = rows(name)
    with torch.no_grad():
        ours, theirs, dense = integer(X), simulated(X), module(X)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert not torch.equal(ours, dense)
    assert (ours - dense).abs().max() < 0.2 * dense.abs().max()


class Seen(IntegerModule):
    """Counts the rows of each weight that products are computed with."""

    def product(self, function, name, rows, *rest):
        weight = self.module.get_parameter(name)[rows]
        self.seen[name] = self.seen.get(name, 0) + len(weight)
        return super().product(function, name, rows, *rest)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_multiplied_in_integers(name):
    """None is left to floating point, those of attention included."""
    module, integer = quantized_module(name, "dynamic")
    integer.__class__, integer.seen = Seen, {}
    with torch.no_grad():
        integer(rows(name))
    assert integer.seen.keys() == weight_matrices(module).keys()
    for weight_name, n_rows in integer.seen.items():
        assert n_rows % len(module.get_parameter(weight_name)) == 0


class Between(nn.Module):
    """Attention of a sequence to others, whose projections are rows of one weight."""

    def __init__(self, how="cross"):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head, self.how = nn.Linear(4, 3), how

    def forward(self, X):
        other = X.flip(1).cumsum(1)
        values = other if self.how == "cross" else X.exp()
        return self.head(self.attention(X, other, values, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("how", ["cross", "three"])
def test_attention_between_sequences(how, activations):
    """Each projection is computed with its own rows of the integers."""
    torch.manual_seed(0)
    module, X = Between(how), torch.randn(3, 5, 4)
    quantized = {n: quantize(w, bits=8) for n, w in weight_matrices(module).items()}
    with torch.no_grad():
        for n, weight in weight_matrices(module).items():
            weight.copy_(quantized[n].dequantize())
    ranges = dict.fromkeys(quantized, (-9.0, 9.0)) if activations == "static" else None
    integer, simulated, seen = (kind(module, quantized, ranges)
                                for kind in (IntegerModule, Simulated, Seen))  # fmt: skip
    seen.seen = {}
    with torch.no_grad():
        ours, theirs, dense, _ = integer(X), simulated(X), module(X), seen(X)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not torch.equal(ours, dense)
    assert seen.seen == {"attention.in_proj_weight": 12, "attention.out_proj.weight": 4,
                         "head.weight": 3}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_company(name):
    """With a scale for each row, rows may come in any batch."""
    _, integer = quantized_module(name, "dynamic")
    X = rows(name, 6)
    X[0] = X[0] * 10 if X.is_floating_point() else X[0]
    with torch.no_grad():
        together = integer(X)
        for i in range(6):
            torch.testing.assert_close(integer(X[i : i + 1])[0], together[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_by_hand(activations, granularity):
    """A linear layer in integers of numpy's, step by step as documented."""
    torch.manual_seed(0)
    layer, X = nn.Sequential(nn.Linear(5, 3)), torch.randn(4, 5)
    tensor = quantize(layer[0].weight, bits=8, granularity=granularity)
    ranges = {"0.weight": RANGE} if activations == "static" else None
    y = IntegerModule(layer, {"0.weight": tensor}, ranges)(X)
    V = (tensor.codes - 127).numpy()
    s = tensor.grid.scale.expand(3, 1).flatten()
    if activations == "static":
        t, z = 8 / 255, round(4 / (8 / 255))
        q = ((X / t).round() + z).clamp(0, 255).long().numpy() - z
        sums = torch.from_numpy(q @ V.T) + (layer[0].bias / (t * s)).round()
        expected = sums.float() * (t * s)
    else:
        t = X.abs().amax(1, keepdim=True) / 127
        q = (X / t).round().long().numpy()
        expected = torch.from_numpy(q @ V.T).float() * (t * s) + layer[0].bias
    assert torch.equal(y, expected)


def test_sums_are_exact_where_float32_is_not():
    """Wide layers are summed up in double precision."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3000, 2, bias=False))
    X = torch.rand(3, 3000) + 0.5
    tensor = quantize(layer[0].weight + 1, bits=8, format="affine")
    integers, scale = tensor.integers()
    assert integers.abs().max() * 127 * 3000 > EXACT
    q, t = dynamic(X, -1)
    sums = q.long() @ integers.long().T
    assert sums.max() > EXACT
    expected = sums.to(torch.float32) * (t * scale)
    assert torch.equal(IntegerModule(layer, {"0.weight": tensor}, None)(X), expected)


def test_inputs_beyond_the_range_saturate():
    """And zeros stay zeros, since padding adds them."""
    q, scale = static(torch.tensor([-9.0, 0.0, 9.0]), -1.0, 3.0)
    assert q.tolist() == [-64.0, 0.0, 191.0]
    assert scale == 4 / 255
    assert static(torch.zeros(2), 0.0, 0.0)[1] == 1.0


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (-0.1, 1.0), (-1.0, 0.1), (2.0, 3.0), (-3.0, -2.0), (-255e-30, 0.0), (0.0, 255.0)],
)
def test_steps_are_powers_of_two(low, high):
    """The smallest whose 256 levels reach both ends, but for half a step, and zero."""
    below, above = widened(low, high)
    _, step = static(torch.zeros(1), below, above)
    assert math.frexp(step)[0] == 0.5
    assert (max(high, 0) - min(low, 0)) / 255 <= step < 2 * (max(high, 0) - min(low, 0)) / 255
    assert below - step / 2 <= min(low, 0)
    assert max(high, 0) <= above + step / 2
    assert (below / step).is_integer()
    assert widened(below, above) == (below, above)


def test_a_range_without_width_stays():
    """Its only input is zero."""
    assert widened(0.0, 0.0) == (0.0, 0.0)
    assert widened(0.0, 5e-324) == (0.0, 5e-324)


def test_rows_of_zeros():
    """They have no largest value to divide by."""
    q, _ = dynamic(torch.zeros(2, 3), -1)
    assert torch.equal(q, torch.zeros(2, 3))


def test_it_copies_and_pickles():
    """It holds plain tensors only."""
    _, integer = quantized_module("lstm", "dynamic")
    X = rows("lstm")
    for back in (copy.deepcopy(integer), pickle.loads(pickle.dumps(integer))):
        assert torch.equal(back(X), integer(X))


def test_it_leaves_the_fast_path_of_attention_as_it_was():
    """Also where the module raises."""
    _, integer = quantized_module("encoder", "dynamic")
    before = torch.backends.mha.get_fastpath_enabled()
    integer(rows("encoder"))
    with pytest.raises(RuntimeError, match="size"):
        integer(torch.zeros(2, 99, dtype=torch.int64))
    assert torch.backends.mha.get_fastpath_enabled() == before
