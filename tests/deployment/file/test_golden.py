"""Files that an earlier version wrote, on some machine: they are read, and written, as ever."""

import json
from pathlib import Path

import numpy as np
import pytest

from skcompress import load
from skcompress.deployment.file.contents import Entry
from skcompress.deployment.file.layout import read_parts, write_parts

FILES = sorted((Path(__file__).parent / "golden").glob("*.skc"))
HEAD = 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_predicts_what_it_did(path):
    """Labels, and probabilities to the precision of sums."""
    expected = json.loads(path.with_suffix(".json").read_text())
    loaded = load(path)
    rows = np.array(expected["rows"], dtype=np.float32)
    np.testing.assert_allclose(loaded.predict_proba(rows), expected["probabilities"], atol=2e-6)
    assert loaded.predict(rows).tolist() == expected["labels"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_read_is_written_with_the_same_bytes(path):
    """The coder decides in integers alone."""
    body = path.read_bytes()[HEAD:]
    parts = read_parts(body, 1 << 30)
    entries = [
        Entry(name, tensor, parts.masks.get(name), parts.quantized.get(name))
        for name, tensor in parts.tensors.items()
    ]
    about = {key: value for key, value in parts.about.items() if key != "tensors"}
    described = parts.about["tensors"]
    assert write_parts(about, entries) == body
    assert [entry[0] for entry in described] == [entry.name for entry in entries]


def test_there_are_files():
    """A folder that is empty would pass everything."""
    assert len(FILES) == 3
