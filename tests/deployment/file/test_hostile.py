import json
import time
import zlib

import numpy as np
import pytest
import torch

from skcompress import load
from skcompress.deployment import FileError
from skcompress.deployment.file import layout
from skcompress.deployment.file.artifact import VERSION, to_bytes
from skcompress.deployment.file.contents import Entry
from skcompress.deployment.file.layout import read_parts, write_parts
from skcompress.deployment.file.tensors import compress
from tests.deployment.file.modules import data, net_of, pruned, quantized
from tests.pruning_modules import classification, classifier

HEAD = 8


@pytest.fixture(scope="module")
def files():
    """Return the bytes of a few small files, and rows that they predict."""
    X, y = classification()
    images, labels = data("cnn")
    small, convolutional = classifier(module__hidden=2), net_of("cnn", module__n_channels=2)
    return [
        (to_bytes(quantized(pruned(small)).fit(X, y)), X[:3]),
        (to_bytes(classifier(module__hidden=1).fit(X, y), X), X[:3]),
        (to_bytes(quantized(convolutional, activations="static").fit(images, labels)), images[:3]),
    ]


def sealed(body):
    """Give a body a head that fits it."""
    return b"skc" + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body


def attempt(path, content, rows):
    """Load a file and predict; return whether that went well. Nothing but ValueError may come."""
    path.write_bytes(content)
    start = time.perf_counter()
    try:
        load(path, max_bytes=1 << 22).predict(rows)
    except ValueError:
        return False
    finally:
        assert time.perf_counter() - start < 20
    return True


def test_a_file_that_is_not_whole_is_refused(files, tmp_path):
    """Cut anywhere, or changed in any place, its checksum tells."""
    content, _ = files[0]
    path, rng = tmp_path / "net.skc", np.random.default_rng(0)
    for i in range(1500):
        changed = bytearray(content)
        if i % 3 == 0:
            del changed[int(rng.integers(len(content))) :]
        else:
            changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(FileError, match=r"not a file that skcompress can read|format \d+"):
            load(path)


@pytest.mark.parametrize(("which", "times"), [(0, 300), (1, 300), (2, 50)])
def test_a_body_that_was_changed_and_sealed_again_does_no_harm(which, times, files, tmp_path):
    """It is refused, or predicts something: it neither crashes nor hangs nor fills the memory."""
    content, rows = files[which]
    rng, refused = np.random.default_rng(which), 0
    for i in range(times):
        body = bytearray(content[HEAD:])
        for _ in range(int(rng.integers(1, 4))):
            # The first bytes are those of the lengths and of the description.
            end = len(body) if i % 2 else min(len(body), 60)
            body[int(rng.integers(end))] = int(rng.integers(256))
        if i % 5 == 0:
            body = body[: int(rng.integers(len(body)))]
        refused += not attempt(tmp_path / "net.skc", sealed(bytes(body)), rows)
    assert refused > times / 5  # those that were cut, at least


def changed_values(value, rng):
    """Return a copy of a description of which one value is another."""
    replacements = [
        None,
        -1,
        0,
        2**31,
        2**70,
        1e308,
        "x0",
        "v9",
        "",
        [],
        {},
        [[]],
        {"n": [2**40, 0]},
    ]
    if isinstance(value, (list, dict)) and value:
        keys = list(range(len(value)) if isinstance(value, list) else value)
        key = keys[int(rng.integers(len(keys)))]
        copied = value.copy()
        if rng.random() < 0.15:
            del copied[key]
        else:
            copied[key] = changed_values(value[key], rng)
        return copied
    return replacements[int(rng.integers(len(replacements)))]


def test_descriptions_that_lie_are_refused(files, tmp_path):
    """Thousands of descriptions in which some value is another: types, sizes, names, numbers."""
    rng = np.random.default_rng(0)
    well = 0
    for content, rows in files[:2]:
        parts = read_parts(content[HEAD:], 1 << 30)
        entries = [Entry(name, tensor) for name, tensor in parts.tensors.items()]
        about = parts.about
        about["tensors"] = [[name, list(tensor.shape)] for name, tensor in parts.tensors.items()]
        for _ in range(250):
            body = body_of(changed_values(about, rng), entries)
            well += attempt(tmp_path / "net.skc", sealed(body), rows)
    # Many values change nothing that is looked at, such as a name.
    assert 0 < well < 300


def body_of(about, entries):
    """Write a description that need not fit the tensors."""
    streams = layout.Streams(layout.primed_coder())
    text = json.dumps(about, separators=(",", ":")).encode()
    layout.code_length(streams.coder, len(text))
    # Past the adaptive coder, which takes longer.
    streams.coder.bit(1, [10], 10)
    streams.past(text, len(text))
    for entry in entries:
        dtype = layout.dtype_name(entry.tensor)
        layout.code_dense(streams, entry.tensor, dtype, list(entry.tensor.shape))
    coded = streams.coder.finish()
    return layout._length_bytes(len(coded)) + coded + compress(bytes(streams.bulk))


def lying(files, **changes):
    """Return a file whose description has other entries, without tensors beyond it."""
    about = read_parts(files[0][0][HEAD:], 1 << 30).about | changes
    return sealed(body_of(about, []))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensors": [["w", [2**30, 2**30]]]}, "bytes to decode"),
        ({"tensors": [["w", [2**27, 1], ["m"]]]}, "bytes to decode"),
        ({"tensors": [["w", [2**27, 1], ["q", 8, "symmetric", "channel", 0]]]}, "bytes to decode"),
        ({"tensors": [["w", [-1]]]}, "no known way"),
        ({"tensors": [["w", [3], ["d"], "complex64"]]}, "no known way"),
        ({"tensors": [["w", [3, 3], ["q", 99, "symmetric", "tensor", 1]]]}, "no known way"),
        ({"tensors": [], "operations": [["from_file", ["'/etc/passwd"]]]}, "not allowed"),
        ({"tensors": [], "operations": [["relu.out", ["x0"]]]}, "not allowed"),
        ({"tensors": [], "operations": [["__class__", ["x0"]]]}, "not allowed"),
        ({"tensors": [], "operations": [["relu", ["v7"]]]}, "not there"),
        ({"tensors": [], "operations": [["zeros", [[2**20, 2**20]]]]}, "elements"),
        ({"tensors": [], "operations": [["zeros", [[{"n": [2**40, 0]}]]]]}, "elements"),
        (
            {
                "tensors": [],
                "operations": [["expand", ["x0", [2**17, 2, 6]]], ["unbind.int", ["."]]],
            },
            "too many tensors",
        ),
        ({"tensors": [], "classes": [["|S1000"], ["a"]]}, "neither numbers nor strings"),
        (
            {"tensors": [], "steps": [["a", "Pipeline", {}, {}]]},
            "none that it could hold",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(changes, message, files, tmp_path):
    """Before anything large is made."""
    path = tmp_path / "net.skc"
    path.write_bytes(lying(files, **changes))
    with pytest.raises(FileError, match=message):
        load(path, max_bytes=1 << 28)


def test_a_bomb_is_not_unpacked(tmp_path):
    """A few bytes that stand for a great many are refused by what they say they are."""
    entries = [Entry("w", torch.zeros(1 << 20))]
    path = tmp_path / "net.skc"
    body = write_parts({"kind": "classifier"}, entries)
    assert len(body) < 5000
    path.write_bytes(sealed(body))
    with pytest.raises(FileError, match="max_bytes"):
        load(path, max_bytes=1 << 20)


def test_a_newer_format_says_so(files, tmp_path):
    """And not that the file is damaged."""
    content = bytearray(files[0][0])
    content[3] = VERSION + 1
    path = tmp_path / "net.skc"
    path.write_bytes(bytes(content))
    with pytest.raises(FileError, match="Install a newer version"):
        load(path)
