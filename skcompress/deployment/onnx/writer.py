"""Nodes and initializers of an ONNX graph in the making."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import is_concrete_int

# The first opset with 4-bit integers and scales for runs of weights; 2-bit ones came in 25.
OPSET, OPSET_OF_2_BITS = 21, 25
IR_VERSIONS = {OPSET: 10, OPSET_OF_2_BITS: 13}
TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}
NARROW = {TensorProto.INT2, TensorProto.UINT2}


@dataclass(frozen=True)
class Stored:
    """A parameter, buffer or constant that an operation reads.

    Parameters
    ----------
    name : str or None
        Qualified name, None for a constant.
    tensor : Tensor
    """

    name: str | None
    tensor: Tensor


class Writer:
    """Collect the nodes of an ONNX graph.

    A value is the name of a tensor in the graph. The graph of a loop's body is written by a
    writer of its own, which stores tensors in the outer graph and may read all of its values.

    Parameters
    ----------
    prefix : str
        What all names begin with.
    codes : dict
        ``Codes`` of the quantized weights, by parameter name.
    integers : IntegerModule or None
        How activations are rounded, if they are.

    Attributes
    ----------
    last_states : dict of (int, str)
        By the outputs of a recurrent layer: their axis of steps, and the last one of them, which
        the layer gives by itself.
    """

    def __init__(
        self, prefix: str = "", codes: Mapping[Any, Any] | None = None, integers: Any = None
    ) -> None:
        self.prefix = prefix
        self.codes = codes or {}
        self.integers = integers
        self.root = self
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.known: dict[Any, str] = {}
        self.zeros: set[str] = set()
        self.last_states: dict[str, tuple[int, str]] = {}
        self._counts: dict[str, int] = {}

    def body(self) -> "Writer":
        """Return a writer for the body of a loop in this graph."""
        body = copy.copy(self)
        body.nodes = []
        return body

    def name(self, hint: str) -> str:
        """Return a name that no other value of the graph has."""
        count = self._counts[hint] = self._counts.get(hint, -1) + 1
        return f"{self.prefix}{hint}_{count}" if count else f"{self.prefix}{hint}"

    def add(self, op: str, *inputs: str | None, **attributes: Any) -> str:
        """Add an operation with one output, and return the name of that."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(
        self, op: str, n_outputs: int, *inputs: str | None, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add an operation with several outputs."""
        outputs = [self.name(op) for _ in range(n_outputs)]
        names = [name or "" for name in inputs]
        while names and not names[-1]:
            names.pop()
        self.nodes.append(helper.make_node(op, names, outputs, domain=domain, **attributes))
        return outputs

    def constant(
        self, value: Any, dtype: torch.dtype | None = None, hint: str | None = None
    ) -> str:
        """Store a number, list or tensor, once; numbers need a type."""
        tensor = torch.as_tensor(value, dtype=dtype).detach().cpu().contiguous()
        array = tensor.numpy()
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self.known:
            self.known[key] = self.store(numpy_helper.from_array(array), hint or "constant")
        return self.known[key]

    def indices(self, values: Sequence[int] | int) -> str:
        """Store integers as ONNX takes shapes, axes and positions."""
        return self.constant(values, torch.int64)

    def store(self, proto: TensorProto, hint: str) -> str:
        """Store a tensor under a name like `hint`."""
        proto.name = self.name(hint)
        self.initializers.append(proto)
        return proto.name

    def store_integers(self, values: np.ndarray, kind: int, hint: str) -> str:
        """Store integers in an ONNX type, which may hold two or four to a byte."""
        proto = helper.make_tensor(hint, kind, values.shape, _packed(values, kind), raw=True)
        return self.store(proto, hint)

    def cast(self, value: str, dtype: torch.dtype) -> str:
        """Convert a value to another type."""
        return self.add("Cast", value, to=TYPES[dtype])

    def shape(self, sizes: Sequence[int | str]) -> str:
        """Return the shape of these sizes, some of which may be known only at run time."""
        if not any(isinstance(size, str) for size in sizes):
            return self.indices([int(size) for size in sizes])
        axes = self.indices([0])
        parts = [
            self.add("Unsqueeze", size, axes) if isinstance(size, str) else self.indices([size])
            for size in sizes
        ]
        return self.add("Concat", *parts, axis=0)

    def reshape(self, value: str, shape: Sequence[Any]) -> str:
        """Give a value a shape of which at most one size is known only at run time."""
        sizes = [int(s) if is_known(s) else -1 for s in shape]
        return self.add("Reshape", value, self.indices(sizes))


def is_known(size: Any) -> bool:
    """Tell whether a size is a number, and not one that depends on the rows."""
    return is_concrete_int(size)


def meta(node: Any) -> Any:
    """Return a traced value's shape and type, as a tensor without contents."""
    return node.meta["val"] if isinstance(node, Node) else node


def kind_of(node: Node) -> str:
    """Name of an operation without its overload, such as ``"linear"``."""
    target: Any = node.target
    return target._schema.name.split("::")[1] if hasattr(target, "_schema") else target.__name__


def dtype_of(node: Any) -> torch.dtype:
    """Return the type of a traced value; sizes are int64."""
    value = meta(node)
    return value.dtype if isinstance(value, Tensor) else torch.int64


def _packed(values: np.ndarray, kind: int) -> bytes:
    """Lay integers out as ONNX stores them: the first of a byte in its lowest bits."""
    bits: dict[int, int] = {
        TensorProto.INT4: 4,
        TensorProto.UINT4: 4,
        TensorProto.INT2: 2,
        TensorProto.UINT2: 2,
    }
    if kind not in bits:
        return values.astype(helper.tensor_dtype_to_np_dtype(kind)).tobytes()
    width = bits[kind]
    flat = values.ravel().astype(np.int64) & (2**width - 1)
    flat = np.pad(flat, (0, -flat.size % (8 // width))).reshape(-1, 8 // width)
    return (flat << np.arange(0, 8, width)).sum(1).astype(np.uint8).tobytes()
