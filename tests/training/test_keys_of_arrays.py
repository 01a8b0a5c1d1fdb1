"""Digests of arrays: whatever differs is told apart."""

import numpy as np
import pytest
import torch

from skcompress.training.keys import array_digest, digest


@pytest.mark.parametrize("n_bytes", [10, 240, 2**16, 3 * 2**16 + 5])
def test_every_byte_of_an_array_counts(n_bytes):
    """A change anywhere is another digest, and so are two that cancel in a sum."""
    array = np.random.default_rng(0).integers(0, 256, n_bytes, dtype=np.uint8)
    keys = {array_digest(array)}
    for place in (0, n_bytes // 2, n_bytes - 1):
        changed = array.copy()
        changed[place] ^= 1
        keys.add(array_digest(changed))
    if n_bytes > 16:
        swapped = array.copy()
        swapped[:8], swapped[8:16] = array[8:16], array[:8].copy()
        keys.add(array_digest(swapped))
    assert len(keys) == 4 + (n_bytes > 16)
    assert array_digest(array) == array_digest(np.asfortranarray(array))
    assert array_digest(array) != array_digest(array.view(np.int8))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("column", [0, 1, 2, 7])
def test_signs_do_not_cancel(dtype, column):
    """Nor does a column that changes its sign: the first bits of as many words."""
    array = np.random.default_rng(0).normal(size=(9000, 8)).astype(dtype)
    flipped, pair = array.copy(), array.copy()
    flipped[:, column] *= -1
    pair[[4, 6], column] *= -1
    assert len({array_digest(a) for a in (array, flipped, pair)}) == 3


@pytest.mark.parametrize("pair", [(-1, 1), (0, 2), (0, 1), (1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex64"])
def test_equal_pairs_do_not_cancel(dtype, pair):
    """Nor do words of which both halves change alike, as in weights of groups and labels."""
    rng = np.random.default_rng(0)
    arrays = [np.repeat(rng.choice(pair, 30_000), 2).astype(dtype) for _ in range(50)]
    assert len({array_digest(array) for array in arrays}) == 50
    assert array_digest(arrays[0] + 3) != array_digest(-(arrays[0] + 3))


def test_arrays_that_hide_something():
    """Masks, dimensions of one and conjugates that are not computed yet count as well."""
    masked = [np.ma.array([1.0, 2.0], mask=mask) for mask in ([0, 0], [0, 1])]
    assert digest(masked[0]) != digest(masked[1])
    assert digest(np.array(1.0)) != digest(np.array([1.0]))
    numbers = torch.tensor([1 + 2j, 3 - 1j])
    assert digest(numbers.conj()) == digest(numbers.conj().resolve_conj()) != digest(numbers)


def test_strided_arrays_count_by_content():
    """A view has the key of its copy."""
    array = np.arange(60.0).reshape(6, 10)
    assert array_digest(array[::2, 1:5]) == array_digest(array[::2, 1:5].copy())
    assert array_digest(array) != array_digest(array.reshape(10, 6))
