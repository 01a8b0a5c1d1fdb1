"""A fitted net's forward pass, written down."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...graph import Graph, trace
from ...pruning.units import Units, find_units
from ..padded_rows import ending_in_zeros, refuse_nested_tensors
from .contents import Contents, Entry, Specs
from .errors import FileError
from .interpreter import Interpreter
from .predictor import RULES
from .program import ROWS, Program, record

# What skorch does to a module's outputs, by the criterion, where predict_nonlinearity="auto".
_RULES_OF = {
    nn.CrossEntropyLoss: "softmax",
    nn.BCEWithLogitsLoss: "sigmoid",
    nn.BCELoss: "binary",
}
# Numbers of rows other than those of the traces, on which a recorded program is tried.
_TRIED = 1, 5, 64


@dataclass
class Captured:
    """A forward pass, and the units whose order it leaves free."""

    program: Program
    units: Units | None


def capture(contents: Contents) -> Captured:
    """Trace a net's module and write its operations down.

    The trace is made anew each time: a module may compute with attributes that nobody watches.

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
    refuse_nested_tensors(module, partial(_evaluated, module, specs), "file")
    first, second = (trace(module, *arguments(specs, n_rows), any_batch=False) for n_rows in ROWS)
    program = record((first, second), len(specs))
    return Captured(program, _units(first, specs))


def _evaluated(module: nn.Module, specs: Specs) -> Any:
    args, kwargs = arguments(specs, ROWS[0], _device(module))
    with torch.no_grad():
        return module.eval()(*args, **kwargs)


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _units(graph: Graph, specs: Specs) -> Units | None:
    """Find the hidden units; None where there are none that are understood."""
    try:
        return find_units(graph, *arguments(specs, ROWS[0]))
    except (ValueError, IndexError, RuntimeError):  # such as labels of a slice without rows
        return None


def check_program(contents: Contents, program: Program, entries: list[Entry]) -> None:
    """Run what is about to be written beside the module, on numbers of rows that were not traced.

    Raises
    ------
    ValueError
        If the outputs differ by more than the order of sums explains.
    """
    assert contents.specs is not None
    # As skorch leaves a module after each prediction.
    module = contents.module.eval()
    tensors = {entry.name: entry.tensor.cpu() for entry in entries}
    tensors |= {e.name: e.quantized.dequantize().cpu() for e in entries if e.quantized is not None}
    try:
        interpreter = Interpreter(program.operations, len(contents.specs), len(program.tensors))
    except FileError as error:
        reason = str(error).partition(": ")[2]
        raise ValueError(f"A file cannot hold {type(module).__name__}: {reason}") from error
    read = [tensors[name] for name in program.tensors]
    for n_rows in _TRIED:
        for padded in (False, True):
            if not computes(module, contents.specs, interpreter, read, n_rows, padded):
                raise _other_outputs(module, n_rows, padded)


def _other_outputs(module: nn.Module, n_rows: int, padded: bool) -> ValueError:
    rows = f"{n_rows} rows that end in zeros" if padded else f"{n_rows} rows"
    return ValueError(
        f"{type(module).__name__} gives other outputs for {rows} than the operations that it"
        f" performs for {ROWS[0]} and {ROWS[1]} rows: a file cannot hold a forward that depends"
        " on the number or the values of rows, or changes what it computes with."
    )


def computes(
    module: nn.Module,
    specs: Specs,
    interpreter: Interpreter,
    tensors: list[Tensor],
    n_rows: int,
    padded: bool = False,
) -> bool:
    """Tell whether recorded operations give what a module gives, if that takes such rows."""
    args, kwargs = arguments(specs, n_rows, _device(module), padded)
    with torch.no_grad():
        try:
            expected = tree_leaves(module(*args, **kwargs))[0].cpu()
        except Exception:  # so many rows are none that the net predicts
            return True
        rows = [torch.from_numpy(x) for x in rows_like(specs, n_rows, padded).values()]
        recorded = _run(interpreter, rows, [tensor.clone() for tensor in tensors])
    return _agree(recorded, expected)


def _run(interpreter: Interpreter, rows: list[Tensor], tensors: list[Tensor]) -> Tensor | None:
    try:
        return interpreter(rows, tensors)
    except Exception:  # whatever torch finds wrong
        return None


def _agree(recorded: Tensor | None, expected: Tensor) -> bool:
    """Compare outputs; units in another order are summed in another order."""
    if recorded is None or recorded.shape != expected.shape:
        return False
    # Kernels of attention differ in what they make of a row that is masked as a whole.
    known = ~expected.isnan()
    recorded, expected = recorded.double()[known], expected.double()[known]
    finite = expected[expected.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(recorded, expected, rtol=0, atol=1e-3 * largest + 1e-6)


def arguments(
    specs: Specs, n_rows: int, device: torch.device | None = None, padded: bool = False
) -> tuple[tuple, dict[str, Tensor]]:
    """Return rows of normal numbers, or of ones for integers, as ``forward`` takes them."""
    rows = rows_like(specs, n_rows, padded)
    tensors = {name: torch.from_numpy(values).to(device) for name, values in rows.items()}
    return ((tensors[None],), {}) if None in tensors else ((), tensors)  # type: ignore[return-value]


def rows_like(specs: Specs, n_rows: int, padded: bool = False) -> dict[str | None, np.ndarray]:
    """Return rows of normal numbers, or of ones for integers and booleans, by name.

    Padded rows end in zeros, after one, two and more steps.
    """
    rng = np.random.default_rng(0)
    rows: dict[str | None, np.ndarray] = {}
    for name, dtype, shape in specs:
        size = (n_rows, *shape)
        floating = np.dtype(dtype).kind == "f"
        rows[name] = (rng.normal(size=size) if floating else np.ones(size)).astype(dtype)
        if padded:
            rows[name] = ending_in_zeros(rows[name])
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
    name = _rule(net)
    X: Any = rows.get(None, rows)
    given = net.predict_proba(X)
    if name is not None:
        outputs = net.forward(X)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        expected = RULES[name](outputs.cpu()).numpy()
        # A net of the user's own class may have a predict_proba of its own.
        same = expected.shape == given.shape
        if same and np.allclose(expected, given, 1e-5, 1e-6, equal_nan=True):
            return name, given.shape[-1]
    raise ValueError(
        "The net has a predict_nonlinearity or predict_proba of its own, which a file cannot hold."
        " It holds what skorch infers from the criterion, torch.exp and none: put the function at"
        " the end of the module instead, and set predict_nonlinearity=None."
    )


def _rule(net: NeuralNet) -> str | None:
    """Name what skorch does to a module's outputs; None for a function of the user's own."""
    given = net.predict_nonlinearity
    if given is None:
        return "identity"
    if given == "auto":
        known = (rule for kind, rule in _RULES_OF.items() if isinstance(net.criterion_, kind))
        return next(known, "identity")
    softmax = isinstance(given, partial) and given.func is torch.softmax and not given.args
    if softmax and given.keywords == {"dim": -1}:
        return "softmax"
    return "exp" if given is torch.exp else None
