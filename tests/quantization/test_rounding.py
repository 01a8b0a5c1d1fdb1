import itertools

import pytest
import torch

from skcompress.quantization import FORMATS, quantize
from skcompress.quantization.rounding import reconstruct


def problem(n_outputs=4, n_inputs=12, seed=0):
    """Return weights and the second moments of strongly correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_outputs, n_inputs, generator=generator)
    mixed = torch.randn(n_inputs, n_inputs, generator=generator, dtype=torch.double)
    mixed[:, 1:] += 2 * mixed[:, :-1]
    return weight, mixed @ mixed.T / n_inputs + 0.01 * torch.eye(n_inputs, dtype=torch.double)


def loss(weight, quantized, moment):
    """Return the expected squared error of each output."""
    error = (weight - quantized.dequantize()).double().flatten(1)
    return ((error @ moment) * error).sum(1)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_reconstruction_is_no_worse_than_nearest(name, bits, seed):
    """On the layer's own objective, output by output, and better in the sum."""
    weight, moment = problem(seed=seed)
    nearest = loss(weight, quantize(weight, bits=bits, format=name), moment)
    ours = loss(weight, quantize(weight, bits=bits, format=name, moment=moment), moment)
    assert (ours <= nearest * (1 + 1e-9)).all()
    assert ours.sum() < nearest.sum()


def test_uncorrelated_inputs():
    """There is nothing to make up for: reconstruction rounds to nearest."""
    weight, _ = problem()
    moment = torch.diag(torch.linspace(1, 2, 12).double())
    nearest = quantize(weight, bits=3)
    ours = quantize(weight, bits=3, moment=moment)
    assert torch.equal(ours.codes, nearest.codes)


def test_two_inputs_by_brute_force():
    """Of two equal inputs, the second makes up for the error of the first."""
    weight = torch.tensor([[0.4, 0.4]])
    moment = torch.ones(2, 2).double() + 1e-6 * torch.eye(2).double()
    ours = quantize(weight, bits=3, scale=1.0, moment=moment)
    assert sorted(ours.dequantize()[0].tolist()) == [0.0, 1.0]
    levels = torch.arange(-3.0, 4.0)
    best = min(abs(0.8 - a - b) for a, b in itertools.product(levels, levels))
    torch.testing.assert_close(
        loss(weight, ours, moment).sqrt()[0].float(), best, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("granularity", ["tensor", "channel", 4])
def test_granularities_and_shapes(granularity):
    """A convolution's inputs are its patches, and groups run along them."""
    weight, moment = problem()
    flat = quantize(weight, bits=3, granularity=granularity, moment=moment)
    conv = quantize(weight.view(4, 3, 2, 2), bits=3, granularity=granularity, moment=moment)
    assert torch.equal(conv.codes.flatten(1), flat.codes)


def test_pruned_weights_stay_zero():
    """And the weights that stay make up for the errors among themselves."""
    weight, moment = problem()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    ours = quantize(weight * mask, bits=3, mask=mask, moment=moment)
    nearest = quantize(weight * mask, bits=3, mask=mask)
    assert (ours.dequantize()[~mask] == 0).all()
    assert loss(weight * mask, ours, moment).sum() < loss(weight * mask, nearest, moment).sum()


def test_a_layer_that_is_pruned_to_nothing():
    """There is no weight to choose levels by."""
    weight = torch.zeros(2, 3)
    for name in FORMATS:
        empty = torch.zeros(2, 3, dtype=torch.bool)
        quantized = quantize(weight, bits=2, format=name, mask=empty)
        assert torch.equal(quantized.dequantize(), weight)


def test_it_does_not_change_the_weight():
    """Errors are spread over a copy."""
    weight, moment = problem()
    before = weight.clone()
    quantize(weight, bits=2, moment=moment)
    assert torch.equal(weight, before)


def test_codes_are_of_the_grid():
    """Errors that pile up saturate at the last level."""
    weight, moment = problem()
    grid = quantize(weight, bits=2, scale=0.01).grid
    nearest = grid.encode(weight)
    codes = reconstruct(weight, nearest, grid, "channel", torch.ones_like(weight) > 0, moment)
    assert codes.min() >= 0
    assert codes.max() < len(grid.levels)
