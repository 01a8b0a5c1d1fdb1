"""What is reached through code and containers counts with all its state, and cycles end."""

import functools
import re
import sys
import types
import typing
from dataclasses import dataclass, field

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler
from torch import nn

from skcompress.training.keys import digest
from skcompress.training.state import UncacheableError

X = np.random.default_rng(0).normal(size=(20, 3))


def closure(value):
    """Return a function that has a value in its closure."""
    return lambda rows: value(rows) if callable(value) else value.transform(rows)


def wrapped(k):
    """Return a partial that looks like a function."""
    return functools.update_wrapper(functools.partial(max, k), closure)


class Wrapper:
    """A callable that looks like a function."""

    def __init__(self, k):
        functools.update_wrapper(self, closure)
        self.k = k


def with_attribute(k):
    """Return a function with an attribute."""
    function = closure(len)
    function.k = k
    return function


class Meta(type):
    def __call__(cls, *args):
        return super().__call__(*args)


def made_by(k):
    """Return a class whose metaclass has a number in its code."""

    class Own(Meta):
        def __call__(cls, *args):
            return k, super().__call__(*args)

    return Own("Made", (), {})


class Numbers(list):
    pass


def numbers(k):
    """Return a list with an attribute."""
    result = Numbers([1])
    result.k = k
    return result


def parameter(k):
    """Return a parameter with an attribute."""
    result = nn.Parameter(torch.ones(2))
    result.k = k
    return result


def convolution(memory_format):
    """Return a module whose weights are laid out as it says."""
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3).to(memory_format=memory_format)


PAIRS = {
    "scaler in a closure": [closure(StandardScaler().fit(k * X)) for k in (1, 2)],
    "scaler in a dict": [{"a": StandardScaler().fit(k * X)} for k in (1, 2)],
    "partial": [wrapped(k) for k in (1, 2)],
    "callable": [Wrapper(k) for k in (1, 2)],
    "method": [Wrapper(k).__init__ for k in (1, 2)],
    "attribute of a function": [with_attribute(k) for k in (1, 2)],
    "metaclass": [made_by(k) for k in (1, 2)],
    "attribute of a list": [numbers(k) for k in (1, 2)],
    "attribute of a parameter": [parameter(k) for k in (1, 2)],
    "layout": [convolution(f) for f in (torch.contiguous_format, torch.channels_last)],
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_differs_in_state(pair):
    """It has another key."""
    assert digest(pair[0]) == digest(pair[0]) != digest(pair[1])


FIRST, SECOND = 1.0, 2.0


def test_globals_beside_each_other(monkeypatch):
    """Each of the arguments of a call counts."""

    def function():
        return max(FIRST, torch.tensor(SECOND, dtype=torch.float32))

    keys = {digest(function)}
    for name in ("FIRST", "SECOND"):
        monkeypatch.setitem(function.__globals__, name, 5.0)
        keys.add(digest(function))
    assert len(keys) == 3


def test_what_a_clone_forgets():
    """Parameters that are estimators are fitted anew, in lists as well."""
    fitted = StandardScaler().fit(X)
    assert digest(fitted) == digest(clone(fitted))
    assert digest([fitted, ("a", fitted)]) == digest([clone(fitted), ("a", clone(fitted))])


@dataclass
class Config:
    """Settings of a module."""

    width: int = 3
    names: list = field(default_factory=list, metadata={"unit": "words"})


class Lazy:
    @functools.cached_property
    def table(self):
        return 3


@pytest.mark.parametrize(
    "value", [Config(), Config, Lazy, re.compile("a"), np.add], ids=lambda value: str(type(value))
)
def test_what_can_be_looked_into(value):
    """Whatever pickle can save, and what the standard library makes of a class."""
    assert digest(value) == digest(value)


def test_a_set_that_contains_its_class():
    """It is not cached, and that is all."""
    with pytest.raises(UncacheableError, match="contains itself in a set"):
        digest(registered())


def registered():
    """Return a class of no module that is in a set of its own."""

    class Own:
        registry: typing.ClassVar[set] = set()

    Own.registry.add(Own)
    return Own


T = typing.TypeVar("T")


def kinds():
    """Return classes of no module, as those of a script."""

    class Outer:
        class Inner:
            size = 3

    class Generic(typing.Generic[T]):
        size = 3

    class Slots:
        __slots__ = ("a",)

    return [Outer, Outer.Inner, Generic, Slots]


@pytest.mark.parametrize("number", range(4))
def test_workers_have_the_same_keys(number):
    """Classes that travel by value are made anew there."""
    kind = kinds()[number]
    assert digest(cloudpickle.loads(cloudpickle.dumps(kind))) == digest(kind)


def test_numbers_of_hooks():
    """They say how many there were before."""
    keys = []
    for _ in range(2):
        torch.manual_seed(0)
        module = nn.Linear(2, 2)
        module.register_forward_hook(print)
        keys.append(digest(module))
    assert keys[0] == keys[1] != digest(nn.Linear(2, 2))


def straight_through():
    """Return a function of torch's that is differentiated in another way."""

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx, X):
            return X.round()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return Step


def test_functions_of_autograd():
    """Torch numbers them, and a cell of a notebook may run twice."""
    assert digest(straight_through()) == digest(straight_through())


def test_functions_that_numpy_made():
    """Which hide the function that they call."""
    with pytest.raises(UncacheableError, match=r"by numpy\.frompyfunc cannot be looked into"):
        digest(np.frompyfunc(lambda a: a + 1, 1, 1))
    assert digest(np.add) != digest(np.subtract)


class Compiled:
    """What pickle finds by its name, as it does functions of compiled modules."""

    def __reduce__(self):
        return "compiled"


def test_compiled_code_of_the_user(tmp_path, monkeypatch):
    """It counts by its file, which is built anew."""
    module = types.ModuleType("memory_compiled")
    module.__file__ = str(tmp_path / "memory_compiled.so")
    monkeypatch.setitem(sys.modules, "memory_compiled", module)
    monkeypatch.setattr(Compiled, "__module__", "memory_compiled")
    keys = []
    for text in ("first", "second", "first"):
        (tmp_path / "memory_compiled.so").write_text(text)
        keys.append(digest(Compiled()))
    assert keys[0] == keys[2] != keys[1]


def test_a_script_by_its_name_in_spawned_workers(monkeypatch):
    """Their classes are those of the script."""
    keys = []
    for name in ("__main__", "__mp_main__"):
        cls = straight_through()
        cls.__module__ = cls.forward.__module__ = cls.backward.__module__ = name
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[name].Step = cls
        cls.__qualname__ = "Step"
        keys.append(digest(cls))
    assert keys[0] == keys[1]
