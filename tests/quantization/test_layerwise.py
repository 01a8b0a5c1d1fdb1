"""What stays in floating point, in fewer bits."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from skcompress import PrunedNet, QuantizedNet, size_in_bytes
from skcompress.quantization.layerwise import round_floats, round_fraction
from tests.quantization.test_quantized import trained

VALUES = torch.cat([torch.randn(1000) * 10.0**k for k in (-30, -3, 0, 3, 30)] + [torch.zeros(3)])


def test_sixteen_bits_are_bfloat16():
    """The oracle is torch's own format."""
    assert torch.equal(round_fraction(VALUES, 16), VALUES.bfloat16().float())


def test_thirty_two_bits_are_all():
    """Nothing is lost, down to the smallest numbers."""
    assert torch.equal(round_fraction(VALUES, 32), VALUES)


@pytest.mark.parametrize("bits", [10, 12, 20, 31])
def test_error_and_values(bits):
    """Relative errors are at most half a step, and rounding again changes nothing."""
    rounded = round_fraction(VALUES, bits)
    assert ((rounded - VALUES).abs() <= VALUES.abs() * 2.0 ** (8 - bits)).all()
    assert torch.equal(round_fraction(rounded, bits), rounded)
    assert not torch.equal(rounded, VALUES)


def test_halves_go_to_the_even_one():
    """As everywhere in IEEE 754."""
    assert round_fraction(torch.tensor([1.25, 1.75, 5.0]), 10).tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [10, 16, 31])
def test_what_is_at_the_end_of_the_range_stays_there(dtype, bits):
    """Masks hold the least number there is, or infinity: neither may become the other."""
    ends = torch.tensor([torch.finfo(dtype).min, torch.finfo(dtype).max, torch.inf, -torch.inf])
    rounded = round_fraction(ends.to(dtype), bits)
    assert rounded.dtype == dtype
    assert torch.equal(rounded.isinf(), ends.isinf())
    assert round_fraction(torch.tensor([torch.nan], dtype=dtype), bits).isnan().all()
    assert torch.equal(round_fraction(torch.tensor([1.5], dtype=dtype), bits).double(),
                       torch.tensor([1.5]).double())  # fmt: skip


def test_double_precision_keeps_its_type():
    """A module of double precision stays one."""
    rounded = round_fraction(VALUES.double(), 16)
    assert rounded.dtype == torch.float64
    assert torch.equal(rounded, VALUES.bfloat16().double())


@pytest.mark.parametrize("name", ["mlp, batch norm", "attention", "tied", "lstm"])
@pytest.mark.parametrize("batch_norm", ["recalibrate", "fold", "keep"])
def test_only_floats_are_rounded(name, batch_norm):
    """Integers are those of the fit without; counters and the dense net are as they were."""
    net, X, y = trained(name)
    before = {n: t.clone() for n, t in net.module_.state_dict().items()}
    settings = {"bits": 4, "batch_norm": batch_norm, "random_state": 0}
    plain = QuantizedNet(FrozenEstimator(net), **settings).fit(X, y)
    narrow = QuantizedNet(FrozenEstimator(net), float_bits=12, **settings).fit(X, y)
    weights, n_rounded = plain.net_.module_.state_dict(), 0
    for key, tensor in narrow.net_.module_.state_dict().items():
        integers = any(torch.equal(tensor, q.dequantize()) for q in narrow.quantized_.values())
        floats = tensor.is_floating_point() and not integers
        expected = round_fraction(weights[key], 12) if floats else weights[key]
        assert torch.equal(tensor, expected), key
        n_rounded += floats
    assert n_rounded
    assert all(torch.equal(t, before[n]) for n, t in net.module_.state_dict().items())


def test_the_file_is_smaller_and_predictions_are_close():
    """It is there for the file."""
    net, X, y = trained("mlp")
    sizes, probabilities = [], []
    for bits in (32, 16, 10):
        quantized = QuantizedNet(FrozenEstimator(net), float_bits=bits).fit(X, y)
        sizes.append(size_in_bytes(quantized))
        probabilities.append(quantized.predict_proba(X))
    assert sizes[0] > sizes[1] > sizes[2]
    assert 0 < np.abs(probabilities[1] - probabilities[0]).max() < 0.01
    assert np.abs(probabilities[2] - probabilities[1]).max() > 0


def test_with_integers_and_pruned_units():
    """Rounded before products become those of integers, and what is pruned stays zero."""
    net, X, y = trained("mlp")
    pruned = PrunedNet(FrozenEstimator(net), sparsity=0.5, granularity="unit", retrain_epochs=1)
    quantized = QuantizedNet(pruned, activations="static", float_bits=12).fit(X, y)
    floats = [p for p in quantized.net_.module_.parameters() if p.dim() == 1]
    assert floats
    for tensor in floats:
        assert torch.equal(tensor, round_fraction(tensor, 12))
    for name, weight in quantized.quantized_.items():
        assert not weight.dequantize()[~quantized.masks_[name]].any()


def test_a_weight_with_integers_is_left_alone():
    """Also where an embedding shares it."""
    net, X, y = trained("tied")
    quantized = QuantizedNet(FrozenEstimator(net), bits=8).fit(X, y)
    before = {n: t.dequantize() for n, t in quantized.quantized_.items()}
    round_floats(quantized.net_, quantized.quantized_, 10)
    parameters = dict(quantized.net_.module_.named_parameters())
    assert all(torch.equal(parameters[n], value) for n, value in before.items())


@pytest.mark.parametrize("bits", [9, 33, 16.0, "16"])
def test_bad_bits(bits):
    """Before training, with the range."""
    net, X, y = trained("mlp")
    with pytest.raises(ValueError, match="'float_bits' parameter of QuantizedNet must be an int"):
        QuantizedNet(FrozenEstimator(net), float_bits=bits).fit(X, y)
