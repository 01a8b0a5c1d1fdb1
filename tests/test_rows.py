"""Rows of a torch Dataset, read once and cast where they need it."""

import numpy as np
import pytest
import torch
from skorch.helper import SliceDataset

from skcompress.rows import CastRows, cast_rows

FLOAT, INT, BOOL = np.dtype("float32"), np.dtype("int64"), np.dtype(bool)
ALONE = {"b": FLOAT, "i": FLOAT, "u": FLOAT, "f": FLOAT}
NAMED = {"b": BOOL, "i": INT, "u": INT, "f": FLOAT}


class Counting:
    """Rows that count how often they are read."""

    def __init__(self, *rows):
        self.rows, self.read = rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.read += 1
        return (self.rows[i],)


def test_rows_of_the_right_type_are_left_alone():
    """Each is read once, and the Dataset itself goes on."""
    dataset = Counting(np.ones(3, dtype="float32"), np.zeros(3, dtype="float32"))
    rows = SliceDataset(dataset)
    assert cast_rows(rows, ALONE, NAMED) is rows
    assert dataset.read == 2


@pytest.mark.parametrize("row", [torch.tensor([1.0, 2]).double(), np.array([1, 2]), [True, False]])
def test_arrays(row):
    """A tensor stays a tensor; lists become arrays; one row in need is enough to cast all."""
    dataset = Counting(torch.zeros(2), row)
    cast = cast_rows(SliceDataset(dataset), ALONE, NAMED)
    assert str(cast[1].dtype).removeprefix("torch.") == "float32"
    assert isinstance(cast[1], torch.Tensor) == isinstance(row, torch.Tensor)
    np.testing.assert_array_equal(cast[1], np.asarray(row, dtype=float))
    assert len(cast[np.array([1])]) == 1


def test_dicts():
    """Each array of a dict has a type of its own."""
    row = {"x": np.ones(2), "n": np.int32(3), "mask": np.array([True, False])}
    cast = cast_rows(SliceDataset(Counting(row)), ALONE, NAMED)[0]
    assert {name: value.dtype for name, value in cast.items()} == {
        "x": FLOAT, "n": INT, "mask": BOOL,
    }  # fmt: skip


BAD = {
    "nan": (np.array([1.0, np.nan]), "Input X, row 1, contains NaN"),
    "too large": (np.array([1e300]), "Input X, row 1, contains infinity"),
    "words": ("word", "row 1 of X is a str of dtype <U4. Convert it in the Dataset"),
    "nan in a dict": ({"x": np.array([np.nan])}, "Input X, x in row 1, contains NaN"),
    "object": ({"x": None}, "x in row 1 of X is a NoneType of dtype object"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
def test_bad_rows(row, message):
    """The message names the row, and the array in it."""
    with pytest.raises(ValueError, match=message):
        cast_rows(SliceDataset(Counting(np.ones(2), row)), ALONE, NAMED)


def test_no_rows():
    """An empty Dataset is an empty array."""
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        cast_rows(SliceDataset(Counting()), ALONE, NAMED)


def test_it_is_a_dataset():
    """The loader's workers need the length and one row at a time."""
    rows = CastRows(SliceDataset(Counting(np.ones(2))), ALONE, NAMED)
    assert len(rows) == 1
    assert rows[0][0].dtype == FLOAT
