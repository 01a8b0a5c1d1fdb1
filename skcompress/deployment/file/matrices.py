"""Matrices of small integers, most of them zero, as decisions of an adaptive coder.

First it is said which rows and columns have anything but zeros. Of what is left, each cell is
zero or not, then negative or not, then as large as a count of ones says. What the decisions
before tell of a cell, its neighbours and the density of its row and column, are the contexts.
Each stands by itself, and the mixture adds them up: pruned nets have few weights, too few to
learn how contexts go together.
"""

import numpy as np

from .coder import Coder

# Kinds of decisions, each with contexts and mixtures of its own.
ROW_ALIVE, COLUMN_ALIVE, NONZERO, NEGATIVE, LARGER, BITS = range(6)
_LONGEST_COUNT = 18
# Zeros are many, and a mixture that follows each of them is noise.
_SLOW = 3
# How much neighbours count, by rows and columns of pixels before: 100 * 0.3 ** (distance - 1).
_IN_ROW = ((0, 1, 100), (0, 2, 30))
_ABOVE = (
    (1, 0, 100), (1, 1, 61), (1, -1, 61), (1, 2, 23), (1, -2, 23),
    (2, 0, 30), (2, 1, 23), (2, -1, 23), (2, 2, 11), (2, -2, 11),
)  # fmt: skip
Rows = list[list[int]]


def n_decisions(matrix: np.ndarray) -> int:
    """Count the decisions that a matrix of integers takes, at most.

    Examples
    --------
    >>> import numpy as np
    >>> from skcompress.deployment.file.matrices import n_decisions
    >>> n_decisions(np.array([[0, 0, 0], [0, 2, -1]]))  # 2 + 3 flags, 2 cells, 2 signs, 3 sizes
    12
    """
    used = matrix != 0
    live = int(used.any(1).sum()) * int(used.any(0).sum())
    sizes = np.abs(matrix[used])
    # A number of n bits after the longest count takes two decisions for each.
    beyond = np.frexp(np.maximum(sizes - (_LONGEST_COUNT - 1), 1))[1] - 1
    long = sizes >= _LONGEST_COUNT
    magnitudes = np.minimum(sizes, _LONGEST_COUNT - 1) + long * (2 * beyond + 1)
    return sum(matrix.shape) + live + len(sizes) + int(magnitudes.sum())


def code_matrix(coder: Coder, rows: Rows, period: int) -> None:
    """Code a matrix in place.

    Parameters
    ----------
    coder : Coder
    rows : list of list of int
        The integers, or when decoding zeros in their place.
    period : int
        How far apart columns are that lie above each other, as in rows of pixels; the number of
        columns if they do not.
    """
    if not rows or not rows[0]:
        return
    n_columns = len(rows[0])
    if period == n_columns and 8 * len(rows) < n_columns:
        # Of few rows, the columns tell more: they stand in the order of their density.
        turned = [list(column) for column in zip(*rows, strict=True)]
        _code(coder, turned, len(rows))
        for row, cells in zip(rows, zip(*turned, strict=True), strict=True):
            row[:] = cells
    else:
        _code(coder, rows, period)


def _code(coder: Coder, rows: Rows, period: int) -> None:
    n_columns = len(rows[0])
    # A context of one column before must not be the column itself.
    period = max(period, 2)
    alive_rows = _code_flags(coder, [any(row) for row in rows], 3, ROW_ALIVE)
    any_in_column = [any(column) for column in zip(*rows, strict=True)]
    alive_columns = _code_flags(coder, any_in_column, period, COLUMN_ALIVE)
    columns = [j for j in range(n_columns) if alive_columns[j]]
    matrix = _Matrix(coder, n_columns, period, columns)
    for row, alive in zip(rows, alive_rows, strict=True):
        if alive:
            matrix.code_row(row)


def _code_flags(coder: Coder, flags: list[bool], period: int, kind: int) -> list[int]:
    margin = 2 * period + 2
    seen = [0] * margin + [int(flag) for flag in flags]
    for i in range(margin, len(seen)):
        near = seen[i - 1] | seen[i - 2] << 1 | seen[i - period] << 2
        far = seen[i - 1] | seen[i - period] << 1 | seen[i - period + 1] << 2
        contexts = [_key(kind, 0, near), _key(kind, 1, far), _key(kind, 2, 0)]
        seen[i] = coder.bit(seen[i], contexts, _key(kind, 0, 0))
    return seen[margin:]


def _key(kind: int, slot: int, value: int) -> int:
    """Return the number of a context, one of up to 16 slots of a kind of decision."""
    return value << 8 | slot << 4 | kind


def level(count: int, total: int) -> int:
    """Put a share of a total on a scale from 0 to about 20, three steps for a doubling."""
    share = (count << 10) // (total + 2)
    n = share.bit_length()
    return share if n < 3 else 2 * n - 3 + (share >> n - 2 & 1)


class _Matrix:
    """What is known of the rows coded so far."""

    def __init__(self, coder: Coder, n_columns: int, period: int, columns: list[int]) -> None:
        self.coder, self.period, self.columns = coder, period, columns
        self.margin = 2 * period + 2
        near = _IN_ROW + (_ABOVE if period < n_columns else ())
        self.near = [(dy * period + dx, weight) for dy, dx, weight in near]
        # Where contexts of this matrix's own rows and columns begin.
        self.own = len(coder.states) << 32
        width = self.margin + n_columns + period + 2
        self.counts = [0] * width
        self.n_rows = self.last_count = 0

    def code_row(self, row: list[int]) -> None:
        """Code a row that has more than zeros; when decoding, fill it in."""
        coder, period, counts = self.coder, self.period, self.counts
        current = [0] * len(counts)
        n_rows, count = self.n_rows, 0
        usual = level(self.last_count, len(self.columns))
        for seen, j in enumerate(self.columns):
            i, value = j + self.margin, row[j]
            left, up = current[i - 1], current[i - period]
            around = (
                (left != 0) | (up != 0) << 1 | (current[i - 2] != 0) << 2
                | (current[i - period + 1] != 0) << 3 | (current[i - period - 1] != 0) << 4
                | (current[i - 2 * period] != 0) << 5
            )  # fmt: skip
            dense = level(count, seen) if seen > 30 else usual
            full = level(counts[i], n_rows)
            beside = level(
                counts[i - 1] + counts[i + 1] + counts[i - period] + counts[i + period], 4 * n_rows
            )
            contexts = [
                _key(NONZERO, 0, dense), _key(NONZERO, 1, full),
                _key(NONZERO, 2, beside), _key(NONZERO, 3, around),
            ]  # fmt: skip
            mixture = _key(NONZERO, 0, min(around.bit_count(), 3))
            if coder.bit(int(value != 0), contexts, mixture, _SLOW):
                value = row[j] = self._code_value(value, current, i, full)
                current[i] = value
                count += 1
        for j in self.columns:
            counts[j + self.margin] += current[j + self.margin] != 0
        self.last_count, self.n_rows = count, n_rows + 1

    def _code_value(self, value: int, current: list[int], column: int, full: int) -> int:
        """Code the sign and the magnitude of what is not zero."""
        coder, own_row, own_column = self.coder, self.own | self.n_rows, self.own | column
        sign, size = self._near(current, column)
        left, up = current[column - 1], current[column - self.period]
        contexts = [
            _key(NEGATIVE, 0, sign),
            _key(NEGATIVE, 1, _sign(left) | _sign(up) << 2),
            _key(NEGATIVE, 2, own_column),
            _key(NEGATIVE, 3, own_row),
        ]
        negative = coder.bit(int(value < 0), contexts, _key(NEGATIVE, 0, 0))

        def larger(than: int, bit: int) -> int:
            contexts = [
                _key(LARGER, 0, than),
                _key(LARGER, 1, than << 8 | size),
                _key(LARGER, 2, than << 8 | full),
                _key(LARGER, 3, than << 24 | own_row),
                _key(LARGER, 4, than << 24 | own_column),
            ]
            return coder.bit(bit, contexts, _key(LARGER, 0, min(than, 3)))

        magnitude = 1
        while magnitude < _LONGEST_COUNT and larger(magnitude, int(abs(value) > magnitude)):
            magnitude += 1
        if magnitude == _LONGEST_COUNT:
            magnitude += code_number(coder, abs(value) - magnitude, BITS)
        return -magnitude if negative else magnitude

    def _near(self, current: list[int], column: int) -> tuple[int, int]:
        """Return the mean sign of the neighbours, from 0 to 14, 15 for none, and their size."""
        signs = weights = sizes = 0
        for offset, weight in self.near:
            value = current[column - offset]
            if value:
                signs += weight if value > 0 else -weight
                weights += weight
                sizes += weight * abs(value)
        if not weights:
            return 15, 0
        size = min((6 * sizes + weights) // (2 * weights), 100)
        # Few neighbours, and far ones, say less.
        sign = 7 + (14 * signs + weights + 12) // (2 * weights + 24)
        return sign, size + 100 * (weights > 90)


def _sign(value: int) -> int:
    return (value > 0) + 2 * (value < 0)


def code_number(coder: Coder, value: int, kind: int) -> int:
    """Code an integer of at least 0 and less than 2 ** 32: its length, then its bits."""
    length, longer = 0, (value + 1).bit_length() - 1
    mixture = _key(kind, 0, 0)
    while length < 32 and coder.bit(int(length < longer), [_key(kind, 0, length)], mixture):
        length += 1
    number = 1
    for place in range(length - 1, -1, -1):
        bit = value + 1 >> place & 1
        key = _key(kind, 1, length << 8 | place)
        number = number << 1 | coder.bit(bit, [key], _key(kind, 1, 0))
    return number - 1
