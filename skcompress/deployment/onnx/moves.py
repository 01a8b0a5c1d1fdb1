"""Operations that only move elements about, in ONNX."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from .weights import value
from .writer import Writer, dtype_of, is_known, meta

# Slices to the end, and backwards to the start, as ONNX takes them.
END, START = torch.iinfo(torch.int64).max, torch.iinfo(torch.int64).min


def reshape(w: Writer, node: Node, x: Any, *_: Any, **__: Any) -> str:
    """Write any operation that keeps the elements in order: the traced shape says it all."""
    shape = meta(node).shape
    if sum(not is_known(size) for size in shape) > 1:
        raise ValueError(f"a shape has two sizes that depend on the rows: {tuple(shape)}")
    return w.reshape(value(w, x), shape)


def permute(w: Writer, node: Node, x: Any, dims: list[int]) -> str:
    """Write another order of dimensions."""
    rank = meta(node).dim()
    return w.add("Transpose", value(w, x), perm=[d % rank for d in dims])


def transpose(w: Writer, node: Node, x: Any, first: int = 0, second: int = 1) -> str:
    """Write a swap of two dimensions."""
    rank = meta(node).dim()
    order = list(range(rank))
    first, second = first % rank, second % rank
    order[first], order[second] = second, first
    return permute(w, node, x, order)


def last_transposed(w: Writer, node: Node, x: Any) -> str:
    """Write a swap of the last two dimensions."""
    return transpose(w, node, x, -2, -1)


def reversed_dimensions(w: Writer, node: Node, x: Any) -> str:
    """Write all dimensions in reverse."""
    return permute(w, node, x, list(reversed(range(meta(node).dim()))))


def movedim(w: Writer, node: Node, x: Any, source: Any, destination: Any) -> str:
    """Write dimensions moved to other places."""
    rank = meta(node).dim()
    pairs = [[v] if isinstance(v, int) else v for v in (source, destination)]
    sources, places = ([d % rank for d in side] for side in pairs)
    rest = iter(d for d in range(rank) if d not in sources)
    at = dict(zip(places, sources, strict=True))
    return permute(w, node, x, [at[d] if d in at else next(rest) for d in range(rank)])


def select(w: Writer, node: Node, x: Any, dim: int, index: Any) -> str:
    """Write one entry along a dimension."""
    steps, state = w.last_states.get(x, (None, ""))
    if dim == steps and index in (-1, meta(node.args[0]).shape[dim] - 1):
        # The layer need not write all the steps before, and no one has to turn them about.
        return w.add("Squeeze", state, w.indices([0]))
    where = index if isinstance(index, str) else w.indices(index)
    return w.add("Gather", value(w, x), where, axis=dim)


def slices(
    w: Writer, node: Node, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """Write a range along a dimension."""
    start = 0 if start is None else start
    end = END if end is None else end
    if (start, end, step) == (0, END, 1):
        return x
    limits = (w.shape([limit]) for limit in (start, end))
    return w.add("Slice", value(w, x), *limits, w.indices([dim]), w.indices([step]))


def narrow(w: Writer, node: Node, x: Any, dim: int, start: int, length: int) -> Any:
    """Write a range of known length along a dimension."""
    return slices(w, node, x, dim, start, start + length)


def flip(w: Writer, node: Node, x: Any, dims: list[int]) -> str:
    """Write dimensions in reverse."""
    n = len(dims)
    limits = w.indices([-1] * n), w.indices([START] * n)
    return w.add("Slice", value(w, x), *limits, w.indices(list(dims)), w.indices([-1] * n))


def index_select(w: Writer, node: Node, x: Any, dim: int, index: Any) -> str:
    """Write entries along a dimension."""
    return w.add("Gather", value(w, x), value(w, index), axis=dim)


def gather(
    w: Writer, node: Node, x: Any, dim: int, index: Any, *, sparse_grad: bool = False
) -> str:
    """Write an entry along a dimension for each position of an index."""
    return w.add("GatherElements", value(w, x), value(w, index), axis=dim)


def index(w: Writer, node: Node, x: Any, indices: list[Any]) -> str:
    """Write entries at the places that tensors of integers point to."""
    given: Any = node.args[1]
    used = [d for d, n in enumerate(given) if n is not None]
    if any(dtype_of(given[d]) == torch.bool for d in used):
        raise ValueError("a mask as index gives a number of entries that depends on the values")
    if len(used) == 1:
        return w.add("Gather", value(w, x), value(w, indices[used[0]]), axis=used[0])
    if used != list(range(len(used))):
        raise ValueError("several tensors as indices are only understood in the first dimensions")
    places = [value(w, indices[d], given[d], torch.int64) for d in used]
    total = places[0]
    for place in places[1:]:
        total = w.add("Add", total, place)
    # Adding zeros of the common shape spreads each index over it.
    zeros = w.add("Mul", total, w.indices(0))
    last = w.indices([-1])
    spread = [w.add("Unsqueeze", w.add("Add", place, zeros), last) for place in places]
    return w.add("GatherND", value(w, x), w.add("Concat", *spread, axis=-1))


def split(w: Writer, node: Node, x: Any, sizes: Any, dim: int = 0) -> list[str]:
    """Write parts along a dimension; the traced shapes say how long they are."""
    lengths = [part.shape[dim] for part in meta(node)]
    if not all(map(is_known, lengths)):
        raise ValueError("the rows of a batch are split, and how many there are is not known")
    known = w.indices([int(n) for n in lengths])
    return w.add_many("Split", len(lengths), value(w, x), known, axis=dim)


def unbind(w: Writer, node: Node, x: Any, dim: int = 0) -> list[str]:
    """Write the entries along a dimension, each by itself."""
    return [select(w, node, x, dim, i) for i in range(len(meta(node)))]


def cat(w: Writer, node: Node, tensors: list[Any], dim: int = 0) -> str:
    """Write tensors one after the other."""
    given: Any = node.args[0]
    parts = [value(w, x, n, dtype_of(node)) for x, n in zip(tensors, given, strict=True)]
    return w.add("Concat", *parts, axis=dim)


def stack(w: Writer, node: Node, tensors: list[Any], dim: int = 0) -> str:
    """Write tensors one after the other along a new dimension."""
    given: Any = node.args[0]
    axes = w.indices([dim])
    parts = [value(w, x, n, dtype_of(node)) for x, n in zip(tensors, given, strict=True)]
    return w.add("Concat", *(w.add("Unsqueeze", part, axes) for part in parts), axis=dim)


def expand(w: Writer, node: Node, x: Any, sizes: list[Any], *, implicit: bool = False) -> Any:
    """Write a tensor repeated along dimensions of size one."""
    out = w.add("Expand", value(w, x), w.shape([1 if s == -1 else s for s in sizes]))
    if x in w.zeros:
        w.zeros.add(out)
    return out


def expand_as(w: Writer, node: Node, x: Any, other: Any) -> str:
    """Write a tensor repeated to the shape of another."""
    return w.add("Expand", value(w, x), w.add("Shape", value(w, other)))


def repeat(w: Writer, node: Node, x: Any, repeats: list[Any]) -> str:
    """Write a tensor several times along each dimension."""
    new = len(repeats) - meta(node.args[0]).dim()
    repeats = [1] * -new + list(repeats)  # of which tile may be given fewer
    x = value(w, x)
    if new > 0:
        x = w.add("Unsqueeze", x, w.indices(list(range(new))))
    return w.add("Tile", x, w.shape(repeats))


def triangle(upper: int) -> Callable:
    """Write the part of matrices on one side of a diagonal."""

    def rule(w: Writer, node: Node, x: Any, diagonal: int = 0) -> str:
        return w.add("Trilu", value(w, x), w.indices(diagonal), upper=upper)

    return rule


def pad(
    w: Writer, node: Node, x: Any, padding: list[int], mode: Any = "constant", fill: Any = None
) -> str:
    """Write a border of a number, or of what is reflected or repeated there."""
    if not isinstance(mode, str):  # constant_pad_nd has the number in this place
        mode, fill = "constant", mode
    onnx_mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}.get(mode)
    if onnx_mode is None:
        raise ValueError(f"padding of mode {mode!r} is not written as ONNX")
    rank, n = meta(node).dim(), len(padding) // 2
    # From the last dimension to the first, pairs of before and after.
    sides = [[0] * (rank - n) + list(padding[side::2])[::-1] for side in (0, 1)]
    number = w.constant(fill or 0.0, dtype_of(node)) if mode == "constant" else None
    return w.add("Pad", value(w, x), w.indices(sides[0] + sides[1]), number, mode=onnx_mode)


_RESHAPES = [
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
    "reshape_as",
]  # fmt: skip
RULES: dict[str, Callable] = {
    **dict.fromkeys(_RESHAPES, reshape),
    **dict.fromkeys(("transpose", "swapaxes", "t"), transpose),
    "permute": permute, "movedim": movedim, "mT": last_transposed, "numpy_T": reversed_dimensions,
    "select": select, "slice": slices, "narrow": narrow, "flip": flip, "unbind": unbind,
    "index_select": index_select, "gather": gather, "index": index,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), split),
    **dict.fromkeys(("cat", "concat"), cat), "stack": stack,
    "expand": expand, "expand_as": expand_as, "repeat": repeat, "tile": repeat,
    "tril": triangle(0), "triu": triangle(1), "pad": pad, "constant_pad_nd": pad,
}  # fmt: skip
