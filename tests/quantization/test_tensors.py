import math

import numpy as np
import pytest
import torch

from skcompress.quantization import FORMATS, quantize
from skcompress.quantization.tensors import pack, unpack


@pytest.mark.parametrize("bits", [*range(1, 9), 16])
@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_packing(bits, count):
    """Every code comes back, and takes no more than its bits."""
    codes = torch.from_numpy(np.random.default_rng(bits).integers(0, 2**bits, count))
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == math.ceil(bits * count / 8)
    assert torch.equal(unpack(packed, bits, count), codes)


def test_packed_bits_are_those_of_the_integers():
    """The bytes spell the binary numbers one after the other."""
    packed = pack(torch.tensor([5, 0, 7, 1]), 3)
    assert "".join(f"{byte:08b}" for byte in packed.tolist()).startswith("101000111001")


CASES = [(n, b) for n, f in FORMATS.items() for b in f.widths]


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_codes_stand_for_the_weight(name, bits):
    """What is stored, in bits, is what the weight is rounded to; masked weights are zero."""
    torch.manual_seed(0)
    weight, mask = torch.randn(4, 3, 2), torch.rand(4, 3, 2) < 0.6
    quantized = quantize(weight, bits=bits, format=name, mask=mask)
    assert len(quantized.packed) == math.ceil(bits * int(mask.sum()) / 8)
    values = quantized.dequantize()
    assert values.shape == weight.shape
    assert (values[~mask] == 0).all()
    levels = quantized.grid.scale * (quantized.grid.levels - quantized.grid.zero_point)
    for index in mask.nonzero().tolist():
        group = levels[0] if name == "codebook" else levels[index[0]]
        code = int(quantized.codes[tuple(index)])
        assert float(values[tuple(index)]) == float(group[code])


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("name", ["symmetric", "affine"])
def test_integers(name, granularity):
    """The weight is the product of integers and one scale for each output."""
    torch.manual_seed(0)
    quantized = quantize(torch.randn(4, 3, 2) + 0.5, bits=8, format=name, granularity=granularity)
    integers, scale = quantized.integers()
    assert torch.equal(integers, integers.round())
    assert integers.abs().max() <= 255
    torch.testing.assert_close(integers * scale.view(4, 1, 1), quantized.dequantize())


class TestBytes:
    WEIGHT = torch.linspace(-1, 1, 160).reshape(8, 20)

    def test_codes_and_scales(self):
        assert quantize(self.WEIGHT, bits=4).n_bytes == 80 + 8 * 4
        assert quantize(self.WEIGHT, bits=4, granularity="tensor").n_bytes == 80 + 4
        assert quantize(self.WEIGHT, bits=4, granularity=10).n_bytes == 80 + 16 * 4
        assert quantize(self.WEIGHT, bits=3).n_bytes == 60 + 8 * 4

    def test_zero_points(self):
        assert quantize(self.WEIGHT, bits=4, format="affine").n_bytes == 80 + 8 * 4 + 4

    def test_codebook(self):
        assert quantize(self.WEIGHT, bits=2, format="codebook").n_bytes == 40 + 4 * 4
        # Three values need no more than three centres.
        few = self.WEIGHT.sign() * (self.WEIGHT.abs() > 0.5)
        assert quantize(few, bits=8, format="codebook").n_bytes == 160 + 3 * 4

    def test_masks(self):
        """A bit mask and the codes that stay, or all of the codes, whichever is less."""
        mask = torch.zeros(8, 20, dtype=torch.bool)
        mask[:, :5] = True
        assert quantize(self.WEIGHT, bits=4, mask=mask).n_bytes == 20 + 20 + 8 * 4
        assert quantize(self.WEIGHT, bits=1, mask=mask).n_bytes == 20 + 8 * 4
