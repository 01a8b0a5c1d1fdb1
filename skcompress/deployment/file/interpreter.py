"""Runs the operations that a file holds."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .errors import MAX_OPERATIONS, FileError, check
from .limits import Limits
from .operations import MAKERS, accepts, allowed, function, kept_settings

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_TYPES = ("float32", "float64", "int64", "int32", "bool", "uint8", "int8", "int16")
_LISTS = ("unbind", "chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
_MANY = 1 << 16
_REFERENCE = re.compile(r"([xpv])(\d{1,9})")


class Interpreter:
    """Runs a program.

    Parameters
    ----------
    operations : list
        As in :class:`Program`; from a file, and so not to be trusted.
    n_inputs, n_tensors : int
        How many of each may be read.

    Raises
    ------
    FileError
        If an operation is not allowed, or its arguments are not what they should be.
    """

    def __init__(self, operations: Any, n_inputs: int, n_tensors: int) -> None:
        check(isinstance(operations, list) and len(operations) > 0, "it has no operations")
        check(len(operations) <= MAX_OPERATIONS, f"it has {len(operations)} operations")
        self.made_from = operations, n_inputs, n_tensors
        self.sizes = {"x": n_inputs, "p": n_tensors}
        self.steps = []
        self.checked: set[int] = set()
        self.last_use: dict[int, int] = {}
        for i, operation in enumerate(operations):
            good = isinstance(operation, list) and len(operation) in (2, 3)
            check(good, f"operation {i} is not one")
            name, args, kwargs = [*operation, {}][:3]
            good = isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)
            check(good and allowed(name), f"operation {i} is not allowed")
            check(kept_settings(kwargs) == kwargs, f"operation {i} says where to compute")
            args = [self._parse(arg, i) for arg in args]
            kwargs = self._parse(kwargs, i, named=True)
            check(accepts(name, args, kwargs), f"operation {i} has arguments of other types")
            self.steps.append((name, function(name), args, kwargs))
        # What nobody reads any more is forgotten.
        self.read_last: dict[int, list[int]] = {}
        for value, i in self.last_use.items():
            self.read_last.setdefault(i, []).append(value)

    def __reduce__(self) -> tuple[Any, ...]:
        # What the operations were turned into does not pickle.
        return Interpreter, self.made_from

    def _parse(self, value: Any, i: int, *, named: bool = False) -> Any:
        """Turn an argument into a constant, or into a function of the values known by then."""
        if isinstance(value, list):
            parts = [self._parse(part, i) for part in value]
            if not any(callable(part) for part in parts):
                return parts
            return lambda values, n: [p(values, n) if callable(p) else p for p in parts]
        if isinstance(value, dict) and named:
            return {name: self._parse(part, i) for name, part in value.items()}
        if isinstance(value, dict):
            check(list(value) == ["n"], f"operation {i} has an argument that is not known")
            slope, offset = _two_integers(value["n"])
            return lambda values, n: slope * n + offset
        return self._parse_string(value, i) if isinstance(value, str) else value

    def _parse_string(self, text: str, i: int) -> Any:
        if text.startswith("'"):
            return text[1:]
        if text.startswith(":"):
            check(text[1:] in _TYPES, f"operation {i} has the type {text[1:]!r}")
            return getattr(torch, text[1:])
        match = _REFERENCE.fullmatch(f"v{i - 1}" if text == "." and i else text)
        check(match is not None, f"operation {i} has the argument {text!r}")
        assert match is not None
        kind, number = match[1], int(match[2])
        check(number < self.sizes.get(kind, i), f"operation {i} reads {text}, which is not there")
        if kind == "v":
            self.last_use[number] = i
        key = kind, number
        return lambda values, n: values[key]

    def __call__(self, inputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> Any:
        """Run the operations on inputs with any number of rows.

        Raises
        ------
        FileError
            If they do not fit together for so many, or take too much; see :meth:`check`.
        """
        n_rows = len(inputs[0])
        if n_rows not in self.checked:
            self.check([x.to("meta") for x in inputs], [t.to("meta") for t in tensors])
            self.checked.add(n_rows)
        return self._run(inputs, tensors, lambda name, call, args, kwargs: call(*args, **kwargs))

    def check(self, inputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Run the operations on shapes alone, within the limits.

        Returns
        -------
        output : Tensor
            Of the device ``"meta"``.
        share : float
            Of a limit, the largest that was used.

        Raises
        ------
        FileError
            If they take too much, or if an operation does not take its arguments.
        """
        limits = Limits()
        limits.keep([*inputs, *tensors], counted=False)
        try:
            with torch.no_grad(), limits:
                output = self._run(inputs, tensors, partial(_checked, limits), limits.drop)
        except FileError:
            raise
        except Exception as error:  # whatever torch finds wrong
            reason = str(error).split("\n")[0][:300]
            check(False, f"its operations do not fit together ({reason})")
            raise
        return output, limits.share

    def _run(
        self,
        inputs: Sequence[Tensor],
        tensors: Sequence[Tensor],
        call: Callable,
        drop: Callable | None = None,
    ) -> Any:
        values: dict[tuple[str, int], Any] = {("x", i): x for i, x in enumerate(inputs)}
        values |= {("p", i): t for i, t in enumerate(tensors)}
        n = len(inputs[0])
        for i, (name, target, args, kwargs) in enumerate(self.steps):
            given = [a(values, n) if callable(a) else a for a in args]
            named = {k: a(values, n) if callable(a) else a for k, a in kwargs.items()}
            values["v", i] = call(name, target, given, named)
            for old in self.read_last.get(i, ()):
                value = values.pop(("v", old))
                if drop is not None:
                    drop(value)
        return values["v", len(self.steps) - 1]


def _two_integers(value: Any) -> list[int]:
    good = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    check(good, "a number of rows is not one")
    return value


def _checked(
    limits: Limits, name: str, call: Callable, args: list[Any], kwargs: dict[str, Any]
) -> Any:
    """Run an operation on shapes alone."""
    base = name.partition(".")[0]
    if base in _LISTS:
        check(max(args[0].shape, default=0) <= _MANY, f"{name} makes too many tensors")
    if base.startswith("upsample"):
        # ATen computes those of integers by tables of windows, and checks none of them.
        check(args[0].is_floating_point(), f"{name} interpolates integers")
    if base in _RECURRENT:
        result = _recurrent(limits, call, args)
    else:
        where = {"device": "meta"} if base in MAKERS else {}
        result = call(*args, **kwargs, **where)
    parts = [result] if isinstance(result, Tensor) else result
    good = isinstance(parts, (list, tuple)) and all(isinstance(part, Tensor) for part in parts)
    check(good, f"a result of {name} is no tensor")
    limits.keep(result)
    return result


def _recurrent(limits: Limits, call: Callable, args: list[Any]) -> list[Tensor]:
    """Run a step of a recurrent layer on shapes alone, of which a long sequence has many."""
    # By these types, torch tells a sequence from one that is packed.
    check(isinstance(args[2], list) and type(args[3]) is bool, "a recurrent layer has no weights")
    x, time = args[0], int(args[-1] is True)
    work, made = limits.work, limits.made
    output, *states = call(x.narrow(time, 0, 1), *args[1:])
    more = x.shape[time] - 1
    limits.add(more * (limits.work - work), more * (limits.made - made))
    return [output.new_empty(*x.shape[:2], output.shape[-1]), *states]
