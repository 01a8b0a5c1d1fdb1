"""Entries give back what was put in, type by type."""

import numpy as np
import pytest
import torch

from skcompress.training.entries import Entry, read, to_bytes
from skcompress.training.state import UncacheableError

VALUES = [
    None, True, 3, 0.1, float("inf"), "text", [1, [2]], (1, (2,)), {"a": {1: 2}}, {"a": [1]}, {3},
    np.float64(0.1), np.int64(3), np.float32(0.1), np.arange(6).reshape(2, 3),
    np.array(["a", "b"]), np.array(["a", "b"], dtype=object), torch.arange(3), torch.tensor(True),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back(value, tmp_path):
    """Values of entries keep their types and every bit."""
    entry = Entry({})
    entry.facts = {"value": entry.encode(value)}
    (tmp_path / "entry").write_bytes(to_bytes(entry, "entry"))
    found = read(tmp_path / "entry")
    back = found.decode(found.facts["value"])
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert getattr(back, "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize(
    "value",
    [object(), 1j, b"bytes", np.array([object()])],
    ids=["object", "complex", "bytes", "array of objects"],
)
def test_values_that_are_no_facts(value):
    """What JSON and tensors cannot hold is refused."""
    with pytest.raises(UncacheableError, match="no plain value"):
        Entry({}).encode(value)
