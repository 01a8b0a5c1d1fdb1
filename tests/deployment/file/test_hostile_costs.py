"""Files that ask for much: refused, or predicted, in little time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from skcompress.deployment.file import layout
from skcompress.deployment.file.operations import ALLOWED, allowed
from skcompress.deployment.file.tensors import Streams, compress
from tests.deployment.file.test_hostile import sealed

ABOUT = {"kind": "classifier", "classes": 3, "batch": 64, "rule": "softmax", "tensors": []}
ABOUT |= {"inputs": [[None, "float32", [3]]]}
SAME = ["alias", ["x0"]]
# In a process of its own, which a signal may kill, and where memory is counted.
ATTEMPT = """
import faulthandler, json, resource, sys, time
import numpy as np
from skcompress import load
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in json.loads(sys.stdin.read()):
    print("@" + path, flush=True)
    start = time.process_time()
    try:
        loaded = load(path, max_bytes=1 << 24)
        [loaded.predict(np.ones((n, 3), dtype=np.float32)) for n in (2, 130)]
        print("well")
    except ValueError as error:
        print(error)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    assert seconds < 20, (path, seconds)
    assert memory < 1 << 20, (path, memory)
"""


def content(payload=lambda streams: None, **changes):
    """Return a file of any description, and what follows it."""
    streams = Streams(layout.primed_coder())
    text = json.dumps(ABOUT | {"operations": [SAME]} | changes).encode()
    layout.code_length(streams.coder, len(text))
    streams.coder.bit(1, [10], 10)
    streams.past(text, len(text))
    payload(streams)
    coded = streams.coder.finish()
    return sealed(layout._length_bytes(len(coded)) + coded + compress(bytes(streams.bulk)))


def attempt(files, folder):
    """Load and predict in another process; return what it says of each file."""
    paths = [folder / f"{i}.skc" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ATTEMPT], input=json.dumps([*map(str, paths)]),
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-300:] + result.stderr[-2000:]
    return [said.split("\n", 1)[1].strip() for said in result.stdout.split("@")[1:]]


def zeros(streams):
    """Write a hundred tensors that take a few bytes each."""
    for _ in range(100):
        layout.code_dense(streams, torch.zeros(1024), "float32", [1024])


def test_what_takes_much_is_refused(tmp_path):
    """Time, memory and signals, one of each."""
    ones, mm = ["ones", [[1 << 27]]], ["mm", [".", "v0"]]
    doubled = [["add.str", ["'ab", "'b"]]] + 25 * [["add.str", [".", "."]]]
    long = ["lstm.input", ["v0", ["v1", "v1"], ["v2", "v2", "v3", "v3"], True, 1, 0.0, False]]
    long[1] += [False, True]
    states = [["zeros", [[1, 2**22, 1]]], ["zeros", [[1, 1, 1]]], ["ones", [[4, 1]]]]
    cases = [
        ("not allowed", {"operations": [["remainder.int", [1, 0]], SAME]}),
        ("not allowed", {"operations": [*doubled, SAME]}),
        ("no elements|without elements", {"tensors": [["w", [2**23, 0], ["m"]]]}),
        ("without elements", {"tensors": [["w", [2**24, 0], ["q", 8, "symmetric", "channel", 0]]]}),
        ("bytes to decode", {"tensors": [["w", [2**16, 1], ["q", 8, "symmetric", 2**20, 0]]]}),
        ("bytes to decode", {"tensors": [["a" + 2**14 * ".a", [1]]]}),
        ("bytes at once", {"operations": [ones] * 6 + [["sum", [f"v{i}"]] for i in range(6)]}),
        ("multiplications", {"operations": [["ones", [[4096, 4096]]], *[mm] * 20, SAME]}),
        ("too many tensors", {"operations": [*states, ["ones", [[4]]], long, SAME]}),
        ("elements", {"operations": [["ones", [[{"n": [2**26, -(2**27)]}]]], SAME]}),
        ("labels take", {"classes": ["<U9999", ["a"] * 2000]}),
        ("where to compute", {"operations": [["relu", ["x0"], {"device": "'cuda"}]]}),
    ]
    said = attempt([content(**changes) for _, changes in cases], tmp_path)
    for (reason, changes), answer in zip(cases, said, strict=True):
        assert any(part in answer for part in reason.split("|")), (str(changes)[:200], answer)


def test_many_small_tensors_take_little_time(tmp_path):
    """A file has one share of the adaptive coder, whatever it is divided into."""
    assert attempt([content(zeros, tensors=[[f"w{i}", [1024]] for i in range(100)])], tmp_path) == [
        "well"
    ]


def test_operations_drawn_at_random_do_no_harm(tmp_path):
    """Of any name and overload, on numbers, lists and tensors of any shape, often repeated."""
    rng = np.random.default_rng(0)
    names = [
        f"{base}.{overload}" for base in sorted(ALLOWED - {"getitem"})
        for overload in getattr(torch.ops.aten, base).overloads()
    ]  # fmt: skip
    values = ["x0", "p0", ".", "v0", "'a", 0, 1, -1, 3, 2**31, 2**62, -(2**63), 0.5, True, None]
    values += [[], [0], [1, 3], [2**20, 2**20], {"n": [1, 0]}, {"n": [2**20, -(2**21)]}, ":int64"]
    values += [["x0", "p0"], [2**16, 2**12], ":float32"]

    def operation():
        name = names[rng.integers(len(names))]
        while not allowed(name) and rng.random() < 0.8:
            name = names[rng.integers(len(names))]
        n = int(rng.integers(1, 4))
        first = ["x0", "p0", "x0", values[rng.integers(len(values))]][rng.integers(4)]
        return [name, [first, *(values[i] for i in rng.integers(len(values), size=n - 1))]]

    def file():
        repeated = [operation()] * int(rng.choice([1, 1, 1, 30]))
        sizes = [0, 1, 3, 2**16, 2**31 - 1]
        shape = [1, 3] if rng.random() < 0.8 else [int(n) for n in rng.choice(sizes, 2)]
        tensor = torch.full([min(n, 3) for n in shape], -(2**63))
        return content(
            lambda streams: layout.code_dense(streams, tensor, "int64", list(tensor.shape)),
            tensors=[["w", shape, ["d"], "int64"]],
            operations=[["alias", ["x0"]], *repeated, SAME],
        )

    files = [file() for _ in range(150)]
    said = attempt(files, tmp_path)
    assert len(said) == len(files)
    assert sum(answer == "well" for answer in said) > 5
