"""Keys change with everything that a result depends on, and with nothing else."""

import importlib
import random
import sys

import numpy as np
import pandas as pd
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from torch import nn

import skcompress
from skcompress import PrunedNet
from skcompress.training import CacheFolder
from skcompress.training.keys import UncacheableError, digest
from tests.contract_modules import classifier
from tests.training.cache_modules import counted, counted_net, rows

X, Y = rows()
WEIGHTS = np.ones(len(Y))


def other(array, value=1):
    """Return a copy in which one number is another one."""
    array = array.copy()
    array[5] += value
    return array


def n_entries(folder):
    """Count the entries of a cache: those of estimators and of dense fits."""
    return len(list(CacheFolder(folder).path.glob("*.safetensors")))


def fit(folder, X=X, y=Y, sample_weight=None, **settings):
    """Fit with a memory."""
    net = counted_net(**settings.pop("net", {}))
    estimator = counted(memory=folder, net=net, **settings)
    return estimator.fit(X, y, sample_weight=sample_weight)


# What changes, and how many entries are new: the pruned net's, or the dense net's as well.
CHANGES = {
    "rows": ({"X": other(X)}, 2),
    "order": ({"X": X[::-1]}, 2),
    "labels": ({"y": other(Y, 1 - 2 * (Y[5] > 0))}, 2),
    "weights": ({"sample_weight": other(WEIGHTS)}, 2),
    "seed": ({"random_state": 1}, 2),
    "threads": ({"n_threads": 2}, 2),
    "parameter of the net": ({"net": {"max_epochs": 2}}, 2),
    "parameter of the module": ({"net": {"module__hidden": 8}}, 2),
    "loss": ({"net": {"criterion": nn.MultiMarginLoss}}, 2),
    "optimizer": ({"net": {"optimizer": torch.optim.SGD}}, 2),
    "sparsity": ({"sparsity": 0.6}, 1),
    "criterion": ({"criterion": lambda net, *rest: absolute(net)}, 1),
    "nothing": ({}, 0),
    "verbosity": ({"net": {"verbose": 0}}, 0),
    "copies": ({"X": X.copy(), "y": Y.copy()}, 0),
}


def absolute(net):
    """Return the magnitude of each weight matrix."""
    named = net.module_.named_parameters()
    return {n: p.detach().abs() for n, p in named if p.dim() > 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with the entries of one fit."""
    folder = tmp_path_factory.mktemp("keys") / "cache"
    fit(folder)
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_key_depends_on(change, base):
    """Each change makes new entries, of the stages that it touches."""
    settings, n_new = CHANGES[change]
    before = n_entries(base)
    fit(base, **settings)
    assert n_entries(base) == before + n_new


@pytest.mark.parametrize("library", [torch, skorch, skcompress], ids=lambda m: m.__name__)
def test_versions_are_in_the_key(library, base, monkeypatch):
    """Another version of a library makes all entries new."""
    before = n_entries(base)
    monkeypatch.setattr(library, "__version__", "0.0.test")
    fit(base)
    assert n_entries(base) == before + 2


SOURCE = """
import torch
from torch import nn
import {blocks}

class Base(nn.Module):
    {body}

class Mine(Base):
    pass

def helper(x):
    return {blocks}.scale(x)

class Loss(nn.CrossEntropyLoss):
    pass
"""


def load(folder, name, text):
    """Write a module of the user's and import it anew."""
    (folder / f"{name}.py").write_text(text)
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Return a function that writes and imports a user's module and the one that it uses."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(body="pass", scale="x * 2"):
        load(tmp_path, "user_blocks", f"def scale(x):\n    return {scale}\n")
        return load(tmp_path, "user_net", SOURCE.format(body=body, blocks="user_blocks"))

    yield write
    for name in ("user_net", "user_blocks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["Mine", "Base", "Loss", "helper"])
@pytest.mark.parametrize("change", [{"body": "x = 1"}, {"scale": "x * 3"}], ids=str)
def test_files_of_the_user_are_in_the_key(user, name, change):
    """An edit of the file, or of one that it imports from, is another key for all in it."""
    first, again = digest(getattr(user(), name)), digest(getattr(user(), name))
    assert first == again != digest(getattr(user(**change), name))


def made(width=2, flag=True):
    """Return a class that is defined in a function, as notebooks and scripts define theirs."""

    class Local(nn.Module):
        def forward(self, X):
            return X * width if flag else helper(X)

    return Local


def helper(X):
    """Do something that a class refers to."""
    return X


def test_classes_without_a_file():
    """Their code counts, and what it refers to."""
    assert digest(made()) == digest(made())
    assert digest(made()) != digest(made(3))
    names = {"nn": nn, "__name__": "__main__"}
    first, same, changed, scaled = (
        eval(text, dict(names, scale=scale))
        for text, scale in [
            ("lambda X: X * scale", 2),
            ("lambda  X:  X * scale", 2),
            ("lambda X: X + scale", 2),
            ("lambda X: X * scale", 3),
        ]
    )
    assert digest(first) == digest(same)
    assert len({digest(f) for f in (first, changed, scaled)}) == 3


def test_module_instances():
    """A clone has the same key; other weights, another layer or shared weights another one."""
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    module[2].load_state_dict(module[0].state_dict())
    net = classifier(module=module, callbacks=[])
    assert digest(net) == digest(clone(net)) == digest(clone(clone(net)))
    keys = {digest(net)}
    module[1] = nn.Tanh()
    keys.add(digest(net))
    with torch.no_grad():
        module[0].bias[0] += 1
    keys.add(digest(net))
    module[2].weight = nn.Parameter(module[0].weight.detach().clone())
    keys.add(digest(net))
    module[2].weight = module[0].weight
    keys.add(digest(net))
    assert len(keys) == 4 + (not torch.equal(module[2].weight, module[0].weight))


def test_recurrent_module_instances():
    """Layers that hold weak references to their weights have a key."""
    net = classifier(module=nn.LSTM(2, 3), callbacks=[])
    assert digest(net) == digest(clone(net))


def test_frozen_estimators():
    """What a frozen estimator has learned is in the key; what an unfrozen one has is not."""
    forests = [RandomForestClassifier(3, random_state=seed).fit(X, Y) for seed in (0, 0, 1)]
    for forest in forests:
        forest.random_state = 0
    frozen = [digest(FrozenEstimator(forest)) for forest in forests]
    assert frozen[0] == frozen[1] != frozen[2]
    assert len({digest(forest) for forest in forests}) == 1
    nets = [counted(random_state=seed).fit(X, Y) for seed in (0, 0, 1)]
    frozen = [digest(FrozenEstimator(net.set_params(random_state=0))) for net in nets]
    assert frozen[0] == frozen[1] != frozen[2]


@pytest.mark.parametrize(
    "generator", [np.random.RandomState(0), random.Random(0)], ids=["numpy", "random"]
)
def test_generators_are_no_key(generator):
    """The state of a generator is no integer seed."""
    with pytest.raises(UncacheableError, match="no integer seed"):
        digest({"shuffle": generator})


def test_datasets_are_no_key():
    """Rows of a user's Dataset may come from a file that changes."""

    class Rows(torch.utils.data.Dataset):
        pass

    with pytest.raises(UncacheableError, match="rows of a Rows may come from elsewhere"):
        digest(Rows())


def test_objects_that_contain_themselves():
    """A cycle ends."""
    first, second = [1], [1]
    first.append(first)
    second.append(second)
    assert digest(first) == digest(second) != digest([1, [1]])


def test_values_that_look_alike():
    """Types, nesting and names are told apart; numpy's numbers are numbers."""
    values = [0, False, 0.0, "0", b"0", None, [0], (0,), {0: 0}, {"a": 0}, {0}, [0, []], [[0]]]
    values += [np.zeros(1), np.zeros(1, int), torch.zeros(1), torch.float32, nn.ReLU, nn.ReLU()]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(np.float64(0.5), np.int64(2)) == digest(0.5, 2)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert digest(frame) == digest(frame.copy()) != digest(frame.rename(columns={"a": "c"}))


def draws():
    """Draw from the generators that a fit seeds."""
    return np.random.rand() + random.random() + torch.rand(())  # noqa: NPY002


def test_functions_of_the_seeded_generators():
    """They draw the same in each fit, and are no reason not to cache."""
    assert digest(draws) == digest(draws)
    with pytest.raises(UncacheableError, match="no integer seed"):
        digest(np.random.RandomState(0).rand)


def test_settings_that_change_no_result():
    """Where results are kept and how much is printed is no part of a key."""
    net = classifier()
    quiet, loud = PrunedNet(net), PrunedNet(net, verbose=1, memory="elsewhere")
    assert digest(quiet) == digest(loud) != digest(PrunedNet(net, sparsity=0.1))
