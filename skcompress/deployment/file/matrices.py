"""Matrices of small integers, most of them zero, as decisions of an adaptive coder.

First it is said which rows and columns have anything but zeros. Of what is left, each cell is
zero or not, then negative or not, then as large as a count of ones says. What the decisions
before tell of a cell, its neighbours and the density of its row and column, are the contexts.
"""

from .coder import Coder

# Kinds of decisions, each with contexts and mixtures of its own.
ROW_ALIVE, COLUMN_ALIVE, NONZERO, NEGATIVE, LARGER, BITS = range(6)
_LONGEST_COUNT = 18
Rows = list[list[int]]


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
        width = self.margin + n_columns + period + 2
        self.counts = [0] * width
        self.above = [0] * width
        self.n_rows = self.last_count = 0

    def code_row(self, row: list[int]) -> None:
        """Code a row that has more than zeros; when decoding, fill it in."""
        coder, period, counts, above = self.coder, self.period, self.counts, self.above
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
                _key(NONZERO, 0, around.bit_count() << 8 | dense),
                _key(NONZERO, 1, full << 8 | beside),
                _key(NONZERO, 2, around << 1 | (above[i] != 0)),
            ]
            if coder.bit(int(value != 0), contexts, _key(NONZERO, 0, min(around.bit_count(), 3))):
                signs = _sign(left) | _sign(up) << 2
                value = row[j] = self._code_value(value, i, signs, abs(left) + abs(up), full)
                current[i] = value
                count += 1
        for j in self.columns:
            counts[j + self.margin] += current[j + self.margin] != 0
        self.above, self.last_count, self.n_rows = current, count, n_rows + 1

    def _code_value(self, value: int, column: int, signs: int, size: int, full: int) -> int:
        """Code the sign and the magnitude of what is not zero."""
        coder = self.coder
        contexts = [
            _key(NEGATIVE, 0, signs),
            _key(NEGATIVE, 1, column),
            _key(NEGATIVE, 2, self.n_rows),
        ]
        negative = coder.bit(int(value < 0), contexts, _key(NEGATIVE, 0, 0))
        size = min(size, 8)

        def larger(than: int, bit: int) -> int:
            contexts = [
                _key(LARGER, 0, than),
                _key(LARGER, 1, than << 8 | size),
                _key(LARGER, 2, than << 8 | full),
                _key(LARGER, 3, than << 16 | self.n_rows),
                _key(LARGER, 4, than << 16 | column),
            ]
            return coder.bit(bit, contexts, _key(LARGER, 0, min(than, 3)))

        magnitude = 1
        while magnitude < _LONGEST_COUNT and larger(magnitude, int(abs(value) > magnitude)):
            magnitude += 1
        if magnitude == _LONGEST_COUNT:
            magnitude += code_number(coder, abs(value) - magnitude, BITS)
        return -magnitude if negative else magnitude


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
