"""A fitted net's forward pass, written down."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ...graph import Graph, trace
from ...pruning.units import Units, find_units
from .contents import Contents, Specs
from .predictor import RULES
from .program import ROWS, Program, record


@dataclass
class Captured:
    """A forward pass, and the units whose order it leaves free."""

    program: Program
    units: Units | None


# A search asks for the size of the same net several times.
_CAPTURED: WeakKeyDictionary[nn.Module, tuple[Any, Captured]] = WeakKeyDictionary()


def capture(contents: Contents) -> Captured:
    """Trace a net's module and write its operations down.

    Raises
    ------
    ValueError
        If the inputs are not known, or the module cannot be traced or written down.
    """
    if contents.specs is None:
        raise ValueError(
            "It is not known what rows the net takes: a skorch net does not remember them. Pass"
            " X=, a few rows as the net takes them."
        )
    module, specs = contents.module, contents.specs
    key = str(specs), repr(module), tuple(p.shape for p in module.parameters())
    known = _CAPTURED.get(module)
    if known is None or known[0] != key:
        first, second = (
            trace(module, *arguments(specs, n_rows), any_batch=False) for n_rows in ROWS
        )
        program = record((first, second), len(specs))
        known = key, Captured(program, _units(first, specs))
        _CAPTURED[module] = known
    return known[1]


def _units(graph: Graph, specs: Specs) -> Units | None:
    """Find the hidden units; None where there are none that are understood."""
    try:
        return find_units(graph, *arguments(specs, ROWS[0]))
    except ValueError:
        return None


def arguments(specs: Specs, n_rows: int) -> tuple[tuple, dict[str, Tensor]]:
    """Return rows of normal numbers, or of ones for integers, as ``forward`` takes them."""
    rows = rows_like(specs, n_rows)
    tensors = {name: torch.from_numpy(values) for name, values in rows.items()}
    return ((tensors[None],), {}) if None in tensors else ((), tensors)  # type: ignore[return-value]


def rows_like(specs: Specs, n_rows: int) -> dict[str | None, np.ndarray]:
    """Return rows of normal numbers, or of ones for integers and booleans, by name."""
    rng = np.random.default_rng(0)
    rows: dict[str | None, np.ndarray] = {}
    for name, dtype, shape in specs:
        size = (n_rows, *shape)
        floating = np.dtype(dtype).kind == "f"
        rows[name] = (rng.normal(size=size) if floating else np.ones(size)).astype(dtype)
    return rows


def output_rule(contents: Contents) -> tuple[str, int]:
    """Tell how the net's predictions come of its module's outputs, and how many there are.

    Raises
    ------
    ValueError
        If it is a function of the user's own.
    """
    assert contents.specs is not None
    net, rows = contents.net, rows_like(contents.specs, 4)
    X: Any = rows.get(None, rows)
    outputs = net.forward(X)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    given = net.predict_proba(X)
    for name, rule in RULES.items():
        try:
            expected = rule(outputs.cpu()).numpy()
        except RuntimeError:  # a rule for a single output
            continue
        if expected.shape == given.shape and np.allclose(expected, given, 1e-5, 1e-6):
            return name, given.shape[-1]
    raise ValueError(
        "The net has a predict_nonlinearity of its own, which a file cannot hold. It holds softmax,"
        " sigmoid, exp and none: put the function at the end of the module instead, and set"
        " predict_nonlinearity=None."
    )
