"""Stand-ins for recurrent operations while a module is traced.

``torch.export`` works out the shapes that an LSTM gives by running it step by step in Python,
which takes seconds and grows with the length of the sequences. A stand-in knows the shapes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.overrides import TorchFunctionMode

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_LIBRARY = torch.library.Library("skcompress", "DEF")


def _shapes_only(
    x: Tensor,
    states: Tensor | list[Tensor],
    weights: list[Tensor],
    biases: bool,
    n_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Return tensors shaped like the outputs of a recurrent operation."""
    last = [states] if isinstance(states, Tensor) else states
    output = x.new_empty(*x.shape[:2], last[0].shape[-1] * (1 + bidirectional))
    return output, *(torch.empty_like(state) for state in last)


def _define(kind: str) -> Callable:
    schema = str(getattr(torch.ops.aten, kind).input._schema)
    _LIBRARY.define(schema.removeprefix("aten::").replace(".input(", "(", 1))
    torch.library.register_fake(f"skcompress::{kind}", _shapes_only, lib=_LIBRARY)
    return getattr(torch.ops.skcompress, kind).default


_STUBS = {getattr(torch, kind): _define(kind) for kind in KINDS}
_ORIGINALS = {
    getattr(torch.ops.skcompress, kind).default: getattr(torch.ops.aten, kind).input
    for kind in KINDS
}


class _Stubbed(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Packed sequences come as (data, batch sizes, ...) and are left alone.
        packed = len(args) > 1 and isinstance(args[1], Tensor) and args[1].dim() == 1
        function = func if packed else _STUBS.get(func, func)
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def recurrent_stubs() -> Iterator[None]:
    """Record recurrent operations under another name, without running them."""
    with _Stubbed():
        yield


def restore_recurrent(graph: Graph) -> None:
    """Give the recorded recurrent operations their own names back."""
    for node in graph.nodes:
        node.target = _ORIGINALS.get(node.target, node.target)
