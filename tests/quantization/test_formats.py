import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from skcompress.quantization.formats import (
    FORMATS,
    FRACTIONS,
    Grid,
    affine,
    codebook,
    fixed_scale,
    k_means,
    power_of_two,
    symmetric,
    symmetric_levels,
)

ALL = [(name, bits) for name, f in FORMATS.items() for bits in f.widths]


def weights(n_groups=3, size=40, seed=0):
    """Return weights of groups of different spread, and which of them are kept."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n_groups, size, generator=generator, dtype=torch.double)
    return rows * torch.tensor([[0.01], [1.0], [30.0]]), torch.rand(
        n_groups, size, generator=generator
    ) < 0.7  # fmt: skip


def fit(name, bits, seed=0):
    """Return weights, what is kept, and their grid; a codebook has one group."""
    rows, kept = weights(seed=seed)
    if name == "codebook":
        rows, kept = rows[1:2], kept[1:2]
    return rows, kept, FORMATS[name].fit(rows, kept, bits)


@pytest.mark.parametrize(("name", "bits"), ALL)
@pytest.mark.parametrize("seed", range(3))
class TestEveryFormat:
    def test_codes_have_so_many_bits(self, name, bits, seed):
        rows, _, grid = fit(name, bits, seed)
        codes = grid.encode(100 * rows)
        assert len(grid.levels) <= 2**bits
        assert codes.min() >= 0
        assert codes.max() < 2**bits

    def test_the_nearest_level_is_taken(self, name, bits, seed):
        """By brute force over all levels, where there are not too many."""
        rows, _, grid = fit(name, bits, seed)
        every = grid.scale[..., None] * (grid.levels - grid.zero_point[..., None])
        nearest = (rows[..., None] - every).abs().amin(-1)
        torch.testing.assert_close((grid.round(rows) - rows).abs(), nearest)

    def test_rounding_twice_changes_nothing(self, name, bits, seed):
        rows, _, grid = fit(name, bits, seed)
        once = grid.round(rows)
        assert torch.equal(grid.encode(once), grid.encode(rows))

    def test_at_most_half_a_step_within_the_range(self, name, bits, seed):
        """Beyond the last level, at most the distance to it: values saturate."""
        rows, _, grid = fit(name, bits, seed)
        every = grid.scale * (grid.levels - grid.zero_point)
        low, high = every[:, :1], every[:, -1:]
        inside = (rows >= low) & (rows <= high)
        if every.shape[1] > 1:
            step = every.diff(dim=1).amax(1, keepdim=True).expand_as(rows)
            error = (grid.round(rows) - rows).abs()
            assert (error[inside] <= step[inside] / 2 * (1 + 1e-9)).all()
        outside = torch.where(rows > high, high, low)
        assert torch.equal(grid.round(rows)[~inside], outside.expand_as(rows)[~inside])

    def test_what_is_not_kept_does_not_count(self, name, bits, seed):
        rows, kept, grid = fit(name, bits, seed)
        other = FORMATS[name].fit(torch.where(kept, rows, 1e6), kept, bits)
        assert torch.equal(other.levels, grid.levels)
        assert torch.equal(other.scale, grid.scale)


@pytest.mark.parametrize("name", FORMATS)
def test_more_bits_smaller_errors(name):
    """In the mean square, down to almost nothing for integers."""
    errors = []
    for bits in FORMATS[name].widths:
        rows, kept, grid = fit(name, bits)
        errors.append(((grid.round(rows) - rows)[kept] / grid.scale.max()).square().mean())
        relative = ((grid.round(rows) - rows)[kept].norm() / rows[kept].norm()).item()
        errors[-1] = relative
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(errors))
    if FORMATS[name].is_integer:
        assert errors[-1] < 1e-4


class TestSymmetric:
    def test_levels(self):
        for bits in FORMATS["symmetric"].widths:
            levels = symmetric_levels(bits)
            assert torch.equal(levels, -levels.flip(0))
            assert len(levels) == (2 if bits == 1 else 2**bits - 1)

    def test_one_bit_has_the_best_scale(self):
        """No other scale has a smaller squared error."""
        rows, kept = weights()
        best = symmetric(rows, kept, 1)

        def error(grid):
            return ((grid.round(rows) - rows).square() * kept).sum(1)

        for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
            other = Grid(best.levels, best.scale * factor, best.zero_point)
            assert (error(best) <= error(other)).all()

    @pytest.mark.parametrize("bits", [2, 4])
    def test_least_squares_among_the_ranges(self, bits):
        """By brute force over the ranges that are tried."""
        rows, kept = weights()
        chosen = symmetric(rows, kept, bits)
        for row, keep, scale in zip(rows, kept, chosen.scale, strict=True):
            top = row[keep].abs().max() / chosen.levels[-1]
            errors = []
            for fraction in FRACTIONS.double():
                step = top * fraction
                q = (row[keep] / step).round().clamp(chosen.levels[0], chosen.levels[-1])
                errors.append(float((step * q - row[keep]).square().sum()))
            best = FRACTIONS.double()[int(np.argmin(errors))] * top
            torch.testing.assert_close(scale[0], best)

    def test_the_textbook_map(self):
        """Q = round(w * 2^b), saturated and never wrapped around."""
        rows = torch.tensor([[0.1, -0.26, 5.0, -5.0, 0.0]])
        grid = fixed_scale(rows, 4, 2.0**-4)
        assert (grid.encode(rows) - 7).tolist() == [[2, -4, 7, -7, 0]]
        assert grid.round(rows).tolist() == [[0.125, -0.25, 0.4375, -0.4375, 0.0]]

    @pytest.mark.parametrize("bits", [4, 8, 16])
    def test_ties_go_to_the_even_integer(self, bits):
        """Q = round(w * 2^b) is what ``torch.round`` gives."""
        rows = torch.arange(-13.0, 14.0)[None] / 2
        assert torch.equal(fixed_scale(rows, bits, 1.0).round(rows), rows.round())


class TestAffine:
    def test_lopsided(self):
        """A range on one side of zero takes all of the levels."""
        rows = torch.linspace(0, 1, 16).double()[None]
        grid = affine(rows, torch.ones_like(rows, dtype=torch.bool), 4)
        torch.testing.assert_close(grid.round(rows), rows)
        assert grid.zero_point.item() == 0

    @pytest.mark.parametrize("sign", [1, -1])
    def test_zero_is_a_level(self, sign):
        """The zero point is one of the codes, so it can be stored in as many bits."""
        rows = sign * torch.linspace(0.5, 2, 20).double()[None]
        for bits in (2, 4, 8):
            grid = affine(rows, torch.ones_like(rows, dtype=torch.bool), bits)
            assert 0 <= grid.zero_point.item() <= 2**bits - 1
            assert grid.zero_point.item() == round(grid.zero_point.item())
            assert grid.round(torch.zeros(1, 1).double()).item() == 0


class TestPowerOfTwo:
    @pytest.mark.parametrize("bits", FORMATS["power-of-two"].widths)
    def test_values(self, bits):
        """Zero, or a power of two of either sign."""
        rows, kept = weights()
        values = power_of_two(rows, kept, bits).round(rows)
        exponents = values[values != 0].abs().log2()
        assert torch.equal(exponents, exponents.round())
        assert len(values[1].unique()) <= 2**bits - 1

    def test_powers_are_exact(self):
        rows = torch.tensor([[1.0, -0.5, 0.25, 0.0]])
        grid = power_of_two(rows, torch.ones(1, 4, dtype=torch.bool), 3)
        assert torch.equal(grid.round(rows), rows)


class TestCodebook:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(("bits", "size"), [(1, 200), (2, 200), (3, 200), (3, 50), (6, 1000)])
    def test_it_is_k_means(self, bits, size, seed):
        """Lloyd's algorithm from evenly spaced centres gives scikit-learn's centres.

        Some clusters of the last two cases are empty in the beginning.
        """
        values = np.random.default_rng(seed).normal(size=size)
        start = np.linspace(values.min(), values.max(), 2**bits)[:, None]
        theirs = KMeans(2**bits, init=start, n_init=1, tol=0, max_iter=1000).fit(values[:, None])
        ours = k_means(torch.from_numpy(np.sort(values)), 2**bits)
        np.testing.assert_allclose(ours, np.sort(theirs.cluster_centers_.ravel()), rtol=1e-9)

    def test_few_values_are_exact(self):
        rows = torch.tensor([[0.3, -1.0, 0.3, 2.0, -1.0]])
        grid = codebook(rows, torch.ones(1, 5, dtype=torch.bool), 2)
        torch.testing.assert_close(grid.round(rows), rows)

    def test_no_cluster_is_empty(self):
        """Each level is some weight's; with fewer values than levels, they are the values."""
        values = np.random.default_rng(0).standard_t(2, size=300)
        sorted_values = torch.from_numpy(np.sort(values))
        centres = k_means(sorted_values, 64)
        nearest = (sorted_values[:, None] - centres).abs().argmin(1)
        assert torch.equal(nearest.unique(), torch.arange(64))
        few = k_means(torch.tensor([0.0, 0.0, 9.0, 10.0]).double(), 64)
        assert few.tolist() == [0.0, 9.0, 10.0]


def test_a_group_of_zeros():
    """Groups of which all weights are zero, or masked, do not divide by zero."""
    rows = torch.zeros(2, 4)
    kept = torch.tensor([[True] * 4, [False] * 4])
    for fit_format in (symmetric, affine, power_of_two):
        assert torch.equal(fit_format(rows, kept, 4).round(rows), rows)
