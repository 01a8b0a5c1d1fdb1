import numpy as np
import pytest

from skcompress.deployment.file.coder import Coder
from skcompress.deployment.file.matrices import code_matrix, level, n_decisions


def coded(matrix, period):
    """Return the bytes of a matrix, and what they decode to."""
    rows = matrix.tolist()
    encoder = Coder()
    code_matrix(encoder, rows, period)
    assert rows == matrix.tolist()
    data = encoder.finish()
    result = np.zeros_like(matrix).tolist()
    code_matrix(Coder(data), result, period)
    return data, np.array(result, dtype=matrix.dtype).reshape(matrix.shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (5, 9), (30, 64), (0, 3), (3, 0)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("largest", [1, 15, 2**20])
def test_matrices_come_back(shape, density, largest):
    """Of every shape, density and size of integers."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < density)
    for period in (max(shape[1], 1), 3):
        np.testing.assert_array_equal(coded(matrix, period)[1], matrix)


@pytest.mark.parametrize("largest", [1, 17, 18, 19, 50, 2**20])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_decisions_are_counted_exactly(largest, density):
    """By the coder itself, which refuses to take more than a file may have."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(-largest, largest + 1, (7, 9)) * (rng.random((7, 9)) < density)
    coder = Coder()
    before = coder.left
    code_matrix(coder, matrix.tolist(), 9)
    assert before - coder.left == n_decisions(matrix)


def test_a_coder_takes_no_more_decisions_than_it_may():
    """In either direction."""
    for coder in (Coder(), Coder(bytes(1000))):
        coder.left = 3
        with pytest.raises(ValueError, match="too many decisions"):
            code_matrix(coder, [[0, 1], [1, 0]], 2)


def test_small_matrices_come_back_one_after_another():
    """Whatever came before them in the same coder."""
    rng = np.random.default_rng(0)
    matrices = []
    for _ in range(400):
        shape = rng.integers(1, 6, 2)
        matrix = rng.integers(-9, 10, shape) * (rng.random(shape) < rng.random())
        matrices.append((matrix.tolist(), int(rng.integers(1, 8))))
    encoder = Coder()
    for rows, period in matrices:
        code_matrix(encoder, [row[:] for row in rows], period)
    decoder = Coder(encoder.finish())
    for rows, period in matrices:
        result = [[0] * len(row) for row in rows]
        code_matrix(decoder, result, period)
        assert result == rows


def test_dead_rows_and_columns_take_almost_no_room():
    """A hundred times as many cells, all of them dead, cost a few bytes."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(-3, 4, (20, 20)) * (rng.random((20, 20)) < 0.3)
    larger = np.zeros((200, 200), matrix.dtype)
    larger[:20, :20] = matrix
    assert len(coded(larger, 200)[0]) < len(coded(matrix, 20)[0]) + 16


def test_integers_take_about_their_entropy():
    """Independent cells cannot be coded in less, and are in little more."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(1, 5, (100, 100)) * rng.choice(
        [-1, 0, 0, 0, 0, 0, 0, 0, 0, 1], (100, 100)
    )
    share = np.unique(matrix, return_counts=True)[1] / matrix.size
    entropy = -(share * np.log2(share)).sum() * matrix.size / 8
    assert entropy * 0.98 < len(coded(matrix, 100)[0]) < entropy * 1.08


def test_pixels_beside_and_above_are_used():
    """The same cells take more room where they are shuffled."""
    image = np.zeros((40, 16, 16), np.int64)
    for i in range(40):
        image[i, i % 8 : i % 8 + 6, i % 5 : i % 5 + 8] = 1
    rows = image.reshape(40, 256)
    shuffled = np.random.default_rng(0).permuted(rows, axis=1)
    assert 2 * len(coded(rows, 16)[0]) < len(coded(shuffled, 16)[0])


def test_signs_of_pixels_nearby_are_used():
    """In patches of one sign, a sign takes at least a third of a bit less than at random."""
    rng = np.random.default_rng(0)
    patches = np.kron(rng.choice([-1, 1], (60, 4, 4)), np.ones((4, 4), np.int64))
    cells = rng.random((60, 256)) < 0.3
    same = patches.reshape(60, 256) * cells
    mixed = rng.choice([-1, 1], (60, 256)) * cells
    assert len(coded(same, 16)[0]) + cells.sum() // 24 < len(coded(mixed, 16)[0])


def test_few_rows_with_sorted_columns_are_coded_by_column():
    """They take as much room as the matrix turned round, and come back."""
    rng = np.random.default_rng(0)
    density = np.linspace(0.9, 0.02, 400)
    matrix = rng.integers(1, 4, (10, 400)) * (rng.random((10, 400)) < density)
    data, result = coded(matrix, 400)
    np.testing.assert_array_equal(result, matrix)
    assert data == coded(matrix.T, 10)[0]


def test_levels_rise_with_the_share():
    """Three steps for a doubling, and none where there is nothing."""
    levels = [level(count, 1000) for count in range(0, 1001, 10)]
    assert levels == sorted(levels)
    assert level(0, 0) == 0
