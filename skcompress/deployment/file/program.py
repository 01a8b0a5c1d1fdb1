"""A module's forward pass as a list of operations, recorded from its graph.

In a file it is JSON. An operation is ``[name, arguments]`` or ``[name, arguments, keywords]``;
among the arguments, ``"x0"`` is an input, ``"p0"`` a tensor of the file, ``"v0"`` the result of
an operation, ``"."`` the result of the one before, ``":float32"`` a type, ``"'same"`` a string,
and ``{"n": [2, 1]}`` is twice the number of rows plus one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_map

from ...graph import Graph
from .operations import allowed, kept_settings, operation_name

# The numbers of rows that a module is traced with.
ROWS = 2, 3


class _Value(str):
    """The name of a value, as opposed to a string."""

    __slots__ = ()


@dataclass
class Program:
    """Operations, and the tensors that they read.

    Parameters
    ----------
    operations : list
        As in the module's description.
    tensors : list of str
        Names of the parameters and buffers that ``"p0"``, ``"p1"``, ... stand for.
    constants : dict of Tensor
        Tensors that are neither, by the names that `tensors` has for them.
    """

    operations: list
    tensors: list[str]
    constants: dict[str, Tensor]


def record(graphs: Sequence[Graph], n_inputs: int) -> Program:
    """Record a forward pass from its traces with two and with three rows.

    Parameters
    ----------
    graphs : sequence of two Graph
        Traced with fixed numbers of rows, those of ``ROWS``.
    n_inputs : int
        How many tensors are given to ``forward``.

    Raises
    ------
    ValueError
        If an operation is not one that a file may hold, or the traces differ in more than numbers.
    """
    first, second = (_record(graph, n_inputs) for graph in graphs)
    same = first.tensors == second.tensors and all(
        torch.equal(tensor, second.constants[name]) for name, tensor in first.constants.items()
    )
    try:
        assert same
        operations = _merge(first.operations, second.operations)
    except (AssertionError, ValueError):
        raise ValueError(
            f"{type(graphs[0].module).__name__} performs other operations for {ROWS[0]} rows than"
            f" for {ROWS[1]}, so that they cannot be written down for any number of rows."
        ) from None
    return Program(operations, first.tensors, first.constants)


def _record(graph: Graph, n_inputs: int) -> Program:
    program = Program([], [], {})
    known: dict[Any, _Value] = {}

    def bind(name: str | None, tensor: Any) -> _Value:
        if isinstance(tensor, _Value):
            return tensor
        # No name in torch begins with a dot.
        key = name or f".{len(program.constants)}"
        if key not in known:
            if name is None:
                program.constants[key] = tensor
            known[key] = _Value(f"p{len(program.tensors)}")
            program.tensors.append(key)
        return known[key]

    def apply(node: Node, args: list[Any], kwargs: dict[str, Any]) -> _Value:
        name = operation_name(node.target)
        if name == "_assert_tensor_metadata":  # torch.export's own, before it casts
            return args[0]
        if name == "to.device":  # where it is computed is not part of a file
            name, args = "to.dtype", [args[0], args[2]]
        if node.op != "call_function" or not allowed(name):
            raise ValueError(
                f"{type(graph.module).__name__} uses the operation {name!r}, which is not among"
                " those that a file may hold."
            )
        last = _Value(f"v{len(program.operations) - 1}")
        given = [_written(args, last), _written(kept_settings(kwargs), last)]
        program.operations.append([name, *(given if given[1] else given[:1])])
        return _Value(f"v{len(program.operations) - 1}")

    outputs = graph.walk(tuple(_Value(f"x{i}") for i in range(n_inputs)), {}, bind, apply)
    # The first output is the prediction.
    result = tree_leaves(outputs)[0]
    last = f"v{len(program.operations) - 1}"
    if result != last:
        program.operations.append(["alias", [str(result)]])
    # Parameters that no operation reads are bound as well.
    return _without_unread(program)


def _without_unread(program: Program) -> Program:
    read = [leaf for leaf in tree_leaves(program.operations) if isinstance(leaf, str)]
    used = [int(leaf[1:]) for leaf in dict.fromkeys(read) if re.fullmatch(r"p\d+", leaf)]
    numbers = {f"p{old}": f"p{new}" for new, old in enumerate(sorted(used))}
    operations = tree_map(
        lambda leaf: numbers.get(leaf, leaf) if isinstance(leaf, str) else leaf, program.operations
    )
    tensors = [program.tensors[i] for i in sorted(used)]
    constants = {name: t for name, t in program.constants.items() if name in tensors}
    return Program(operations, tensors, constants)


def _written(value: Any, last: str) -> Any:
    """Write an argument of an operation down as JSON has it."""
    if isinstance(value, _Value):
        return "." if value == last else str(value)
    if isinstance(value, (list, tuple)):
        return [_written(v, last) for v in value]
    if isinstance(value, dict):
        return {name: _written(v, last) for name, v in value.items()}
    if isinstance(value, torch.dtype):
        return ":" + str(value).removeprefix("torch.")
    if isinstance(value, str):
        return "'" + value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"An operation has an argument {value!r}, which a file has no words for.")


def _merge(first: Any, second: Any) -> Any:
    """Join what was written for two numbers of rows; numbers that differ depend on it."""
    if isinstance(first, list):
        return [_merge(a, b) for a, b in zip(first, second, strict=True)]
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return {name: _merge(first[name], second[name]) for name in first}
    if type(first) is int and type(second) is int and first != second:
        slope = (second - first) // (ROWS[1] - ROWS[0])
        return {"n": [slope, first - slope * ROWS[0]]}
    assert first == second or first != first
    return first
