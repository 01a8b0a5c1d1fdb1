"""Number formats: which values a weight of so many bits can take.

A format is a set of levels. A weight is stored as the number of the level nearest to it, after
division by a scale and a shift by a zero point that its group shares; it stands for
``scale * (level - zero_point)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Ranges that are tried, as parts of the largest value: a narrower one clips it, but has finer
# steps for the many.
FRACTIONS = torch.arange(0.1, 1.001, 0.02)
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Grid:
    """The values that the weights of a tensor can take.

    Parameters
    ----------
    levels : Tensor of shape (n_levels,)
        In rising order, at most two to the power of the bits.
    scale : Tensor of shape (n_groups, 1)
        Positive.
    zero_point : Tensor of shape (n_groups, 1)
        The level that stands for zero; an integer.
    """

    levels: Tensor
    scale: Tensor
    zero_point: Tensor

    def encode(self, rows: Tensor) -> Tensor:
        """Return the numbers of the nearest levels; beyond the last level, the last."""
        return torch.bucketize(rows / self.scale + self.zero_point, middles(self.levels))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values that codes of shape (n_groups, size) stand for."""
        return self.scale * (self.levels[codes] - self.zero_point)

    def round(self, rows: Tensor) -> Tensor:
        """Return the nearest values."""
        return self.decode(self.encode(rows))


def middles(levels: Tensor) -> Tensor:
    """Return the largest numbers that belong to each level but the last.

    Between integers a tie goes to the even one, as ``torch.round`` has it.

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.formats import middles
    >>> torch.bucketize(torch.tensor([0.5, 1.5, 2.5]), middles(torch.arange(5.0))).tolist()
    [0, 2, 2]
    """
    halves = (levels[1:] + levels[:-1]) / 2
    below = torch.nextafter(halves, levels.new_tensor(-torch.inf))
    return torch.where(levels[:-1].remainder(2) == 1, below, halves)


Fit = Callable[[Tensor, Tensor, int], Grid]


@dataclass(frozen=True)
class Format:
    """A way to choose levels and scales for weights.

    Parameters
    ----------
    widths : tuple of int
        Bits that it comes in.
    fit : callable
        ``fit(rows, kept, bits)`` gives the grid for weights of shape (n_groups, size), of which
        those that `kept` marks count.
    is_integer : bool
        Whether levels are integers, at most ``2 ** bits`` apart, so that products can be summed
        up in integers.
    """

    widths: tuple[int, ...]
    fit: Fit
    is_integer: bool


def symmetric_levels(bits: int) -> Tensor:
    """Return the integers of so many bits that have their opposites; for one bit, -1 and 1.

    Examples
    --------
    >>> from skcompress.quantization.formats import symmetric_levels
    >>> symmetric_levels(3).tolist(), symmetric_levels(1).tolist()
    ([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0], [-1.0, 1.0])
    """
    if bits == 1:
        return torch.tensor([-1.0, 1.0])
    largest = 2 ** (bits - 1) - 1
    return torch.arange(-largest, largest + 1.0)


def symmetric(rows: Tensor, kept: Tensor, bits: int) -> Grid:
    """Integers of either sign times a scale; a bit for the sign alone where there is but one.

    Of several ranges, each group takes the one with the least squared error. One bit has the
    mean magnitude as its scale, which is the optimum.

    Source: Nagel et al., "A white paper on neural network quantization", 2021; Rastegari et al.,
    "XNOR-Net", ECCV 2016.
    """
    levels = symmetric_levels(bits).to(rows)
    if bits == 1:
        sums = (rows.abs() * kept).sum(1, keepdim=True)
        scale = sums / kept.sum(1, keepdim=True).clamp(min=1)
        return _unshifted(levels, scale)
    top = (rows.abs() * kept).amax(1, keepdim=True) / levels[-1]
    return _best([_unshifted(levels, top * f) for f in FRACTIONS.to(rows)], rows, kept)


# The scale of a weight that is zero throughout.
OF_ZEROS = 2.0**-16
# Steps that float32 can hold.
TINY, HUGE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


def fixed_scale(rows: Tensor, bits: int, scale: float) -> Grid:
    """Integers times a given scale: ``q = round(w / scale)``, saturated at the ends."""
    return _unshifted(symmetric_levels(bits).to(rows), rows.new_full((len(rows), 1), scale))


def affine(rows: Tensor, kept: Tensor, bits: int) -> Grid:
    """Integers from zero up, with a zero point of their own, so that ranges can be lopsided.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018.
    """
    levels = torch.arange(2.0**bits).to(rows)
    low = torch.where(kept, rows, 0).amin(1, keepdim=True).clamp(max=0)
    high = torch.where(kept, rows, 0).amax(1, keepdim=True).clamp(min=0)
    grids = []
    for fraction in FRACTIONS.to(rows):
        scale = _positive(fraction * (high - low) / levels[-1])
        zero = (-fraction * low / scale).round().clamp(0, levels[-1])
        grids.append(Grid(levels, scale, zero))
    return _best(grids, rows, kept)


def power_of_two(rows: Tensor, kept: Tensor, bits: int) -> Grid:
    """Zero and powers of two of either sign, so that products are shifts.

    The largest is the power of two at, above or below the largest weight of the group, whichever
    has the least squared error.

    Source: Miyashita et al., "Convolutional neural networks using logarithmic data
    representation", 2016.
    """
    powers = 2.0 ** torch.arange(2 ** (bits - 1) - 1)
    levels = torch.cat([-powers.flip(0), torch.zeros(1), powers]).to(rows)
    largest = _positive((rows.abs() * kept).amax(1, keepdim=True))
    exponent = largest.log2().round()
    grids = [_unshifted(levels, 2.0 ** (exponent - e) / powers[-1].to(rows)) for e in (-1, 0, 1)]
    return _best(grids, rows, kept)


def codebook(rows: Tensor, kept: Tensor, bits: int) -> Grid:
    """Cluster the weights by k-means, k being two to the power of the bits; levels are centres.

    The centres start evenly spaced between the smallest and the largest weight.

    Source: Han et al., "Deep compression", ICLR 2016.
    """
    centres = k_means(rows[kept].sort().values, 2**bits)
    return _unshifted(centres, rows.new_ones(len(rows), 1))


def k_means(values: Tensor, n_clusters: int) -> Tensor:
    """Return the centres of Lloyd's algorithm on sorted numbers, at most `n_clusters` of them.

    A cluster that is left without numbers starts anew from one that lies far from its centre, as
    in scikit-learn's ``KMeans``.
    """
    numbers = values.double()
    ends = float(values[0]), float(values[-1])
    centres = torch.linspace(*ends, n_clusters, dtype=torch.double, device=values.device)
    for _ in range(MAX_ITERATIONS):
        counts = _sizes(values, centres)
        totals = torch.segment_reduce(numbers, "sum", lengths=counts)
        if not counts.all():
            counts, totals = _relocated(values, centres, counts, totals)
        moved = torch.where(counts > 0, totals / counts.clamp(min=1), centres).sort().values
        if torch.equal(moved, centres):
            break
        centres = moved
    centres = centres.to(values.dtype).unique()
    return centres[_sizes(values, centres) > 0]


def _sizes(values: Tensor, centres: Tensor) -> Tensor:
    """Count the numbers, which are sorted, that are nearest to each centre."""
    inner = torch.searchsorted(values, middles(centres).to(values.dtype), right=True)
    return torch.cat([inner.new_zeros(1), inner, inner.new_tensor([len(values)])]).diff()


def _relocated(
    values: Tensor, centres: Tensor, counts: Tensor, totals: Tensor
) -> tuple[Tensor, Tensor]:
    """Give each empty cluster one of the numbers farthest from their centres."""
    clusters = torch.arange(len(centres), device=values.device).repeat_interleave(counts)
    distances = (values - centres[clusters]).abs()
    empty = (counts == 0).nonzero()[:, 0]
    far = distances.topk(min(len(empty), int((distances > 0).sum()))).indices
    empty, alone = empty[: len(far)], values[far].double()
    counts = counts.index_add(0, clusters[far], -torch.ones_like(far)).index_fill(0, empty, 1)
    totals = totals.index_add(0, clusters[far], -alone).index_copy(0, empty, alone)
    return counts, totals


def _unshifted(levels: Tensor, scale: Tensor) -> Grid:
    return Grid(levels, _positive(scale), torch.zeros_like(scale))


def _positive(scale: Tensor) -> Tensor:
    """Give groups of zeros only the scale of others: integer biases come in its steps, too."""
    positive = scale[scale > 0]
    return torch.where(scale > 0, scale, positive.median() if len(positive) else OF_ZEROS)


def _best(grids: list[Grid], rows: Tensor, kept: Tensor) -> Grid:
    """Take for each group the grid with the least squared error on what is kept."""
    errors = torch.stack([((g.round(rows) - rows).square() * kept).sum(1) for g in grids])
    best = errors.argmin(0), torch.arange(len(rows), device=rows.device)
    scales = torch.stack([grid.scale for grid in grids])
    zeros = torch.stack([grid.zero_point for grid in grids])
    return Grid(grids[0].levels, scales[best], zeros[best])


FORMATS = {
    "symmetric": Format((1, 2, 3, 4, 5, 6, 7, 8, 16), symmetric, is_integer=True),
    "affine": Format((2, 3, 4, 5, 6, 7, 8, 16), affine, is_integer=True),
    "codebook": Format((1, 2, 3, 4, 5, 6, 7, 8), codebook, is_integer=False),
    "power-of-two": Format((2, 3, 4, 5), power_of_two, is_integer=False),
}
