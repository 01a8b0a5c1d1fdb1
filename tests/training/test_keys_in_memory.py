"""What counts of the user's code is what runs: values in memory, beside the text of files."""

import functools
import importlib
import sys

import numpy as np
import pytest
import sklearn
import torch
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcompress import PrunedNet, save
from skcompress.training.keys import digest
from skcompress.training.sources import library_version
from tests.contract_modules import blobs, classifier
from tests.training.cache_modules import counted
from tests.training.test_keys import load

X, Y = blobs()
NET = """
{imports}
from torch import nn

SCALE = 1.0

class Net(nn.Module):
    def forward(self, X):
        return X * {expression}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes and imports the user's modules."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda name, text: load(tmp_path, name, text)
    for name in ("memory_net", "memory_blocks"):
        sys.modules.pop(name, None)


BLOCKS = {
    "number": ("from memory_blocks import S", "S", "S = {}"),
    "attribute of a module": ("import memory_blocks as blocks", "blocks.S", "S = {}"),
    "function with a cache": (
        "from memory_blocks import f",
        "f()",
        "import functools\n@functools.lru_cache\ndef f():\n    return {}",
    ),
    "partial": (
        "from memory_blocks import f",
        "f()",
        "import functools\ndef g(a): return a * {}\nf = functools.partial(g, 1.0)",
    ),
    "instance": ("from memory_blocks import C", "C.s", "class K:\n    s = {}\nC = K()"),
    "function": ("from memory_blocks import f", "f()", "def f():\n    return {}"),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_all_that_is_imported_counts(write, kind):
    """An edit of the file that it comes from is another key, and an equal file the same."""
    imports, expression, block = BLOCKS[kind]
    keys = []
    for value in (1.0, 1.0, 5.0):
        write("memory_blocks", block.format(value))
        net = write("memory_net", NET.format(imports=imports, expression=expression))
        keys.append(digest(net.Net))
    assert keys[0] == keys[1] != keys[2]


def test_an_edit_after_the_import_is_not_the_code_that_runs(write, tmp_path):
    """The result of the old code is not that of the text that is there now."""
    old = write("memory_net", NET.format(imports="", expression="2.0"))
    (tmp_path / "memory_net.py").write_text(NET.format(imports="", expression="3.0"))
    ran = digest(old.Net)
    new = write("memory_net", NET.format(imports="", expression="3.0"))
    assert ran != digest(new.Net)


def test_globals_that_change_while_the_program_runs(write):
    """They count as they are."""
    net = write("memory_net", NET.format(imports="", expression="SCALE"))
    before = digest(net.Net)
    net.SCALE = 5.0
    assert digest(net.Net) != before
    net.SCALE = 1.0
    assert digest(net.Net) == before


def test_a_source_that_cannot_be_read(write, tmp_path):
    """The code in memory is enough."""
    net = write("memory_net", NET.format(imports="", expression="2.0"))
    (tmp_path / "memory_net.py").unlink()
    assert digest(net.Net) == digest(net.Net)


def local(scale=2.0):
    """Return a function that is defined in another."""
    return lambda X: X * scale


def test_where_a_function_was_defined_does_not_count():
    """Worker processes make it anew, at another place."""
    moved = local()
    moved.__qualname__ = "local.<locals>.inner.<locals>.<lambda>"
    assert digest(moved) == digest(local()) != digest(local(3.0))


def first(n):
    """Call :func:`second`, which calls this one."""
    return second(n - 1) if n else 0


def second(n):
    """Call :func:`first`."""
    return first(n - 1) if n else 1


def test_functions_that_call_each_other():
    """Each is written once."""
    assert digest(first) == digest(first) != digest(second)
    assert digest(functools.partial(first, 1)) != digest(functools.partial(first, 2))


@pytest.mark.parametrize(
    "teacher",
    [
        RandomForestClassifier(3, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        VotingClassifier([("a", LogisticRegression()), ("b", LogisticRegression(C=2.0))]),
        make_pipeline(StandardScaler(), counted(random_state=0)),
    ],
    ids=["forest", "pipeline", "voting", "pipeline of a net"],
)
def test_what_frozen_estimators_have_learned_inside(teacher):
    """Other labels are another key, also where they are learned by a part of an estimator."""
    rng = np.random.default_rng(0)
    keys = []
    for labels in (Y, Y, rng.permutation(Y)):
        fitted = sklearn.clone(teacher).fit(X, labels)
        keys.append(digest(FrozenEstimator(fitted)))
    assert keys[0] == keys[1] != keys[2]


def test_requests_of_metadata_count():
    """Whether a teacher gets the weights of rows is another result."""
    with sklearn.config_context(enable_metadata_routing=True):
        asks, refuses = (
            make_pipeline(LogisticRegression().set_fit_request(sample_weight=given))
            for given in (True, False)
        )
        assert digest(asks) != digest(refuses)


def test_what_comes_from_the_folder_can_be_saved(tmp_path):
    """It knows what rows it takes, also after a fit on others."""
    net = PrunedNet(classifier(), random_state=0, n_threads=1, memory=tmp_path / "cache")
    sizes = []
    for rows in (X, X[:, :2], X):
        save(net.fit(rows, Y), tmp_path / "net.skc")
        sizes.append((tmp_path / "net.skc").stat().st_size)
    assert sizes[0] == sizes[2] != sizes[1]


def test_what_stages_share_is_the_same_anew():
    """A key does not depend on what was written for the one before."""

    def helper(rows):
        return rows.sum() if len(rows) else main(rows)

    def main(rows):
        return helper(rows) + X.sum()

    known = {}
    values = [[main, X], helper, [classifier(), X], [X, helper, main], np.longdouble(1)]
    keys = [digest(value, known=known) for value in values]
    assert keys == [digest(value) for value in values]
    assert len(set(keys)) == 5


def test_a_package_with_parts_in_several_folders(tmp_path, monkeypatch):
    """A part of the user's is the user's, whatever else has that name."""
    for folder, part in (("site-packages", "theirs"), ("work", "mine")):
        package = tmp_path / folder / "memory_parts"
        package.mkdir(parents=True)
        (package / f"{part}.py").write_text("class Net: pass\n")
        monkeypatch.syspath_prepend(tmp_path / folder)
    theirs = importlib.import_module("memory_parts.theirs")
    mine = importlib.import_module("memory_parts.mine")
    assert library_version(theirs.__name__) == ""
    assert library_version(mine.__name__) is None
    assert library_version("torch.classes") == torch.__version__  # whose file has no folder
    for name in ("memory_parts", "memory_parts.theirs", "memory_parts.mine"):
        sys.modules.pop(name, None)
