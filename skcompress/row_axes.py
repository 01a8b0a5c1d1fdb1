"""Where the rows of a batch stand in the inputs of a layer, so that they can be weighed there."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from skorch.utils import multi_indexing
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import is_concrete_int
from torch.utils._pytree import tree_leaves, tree_map

from .graph import Graph
from .training.loop import Data

Piece = tuple[tuple, dict[str, Any], Tensor]


def row_axis(graph: Graph, x: Node) -> int | None:
    """Return the axis of a value that is as long as the batch, whatever the batch.

    None where that is not known: where the number of rows is fixed in the graph, or part of the
    length of an axis, as after ``x.flatten(0, 1)``.
    """
    names = graph.program.graph_signature.user_inputs
    inputs = [n.meta["val"].shape[0] for n in graph.program.graph.nodes if n.name in names]
    rows = {str(size) for size in inputs if not is_concrete_int(size)}
    free = [(d, n) for d, n in enumerate(x.meta["val"].shape) if not is_concrete_int(n)]
    return free[0][0] if len(free) == 1 and str(free[0][1]) in rows else None


def rows_known(graph: Graph, observed: list[Node]) -> bool:
    """Tell whether the axis of the rows is known in the inputs of all of these operations."""
    return all(row_axis(graph, node.args[0]) is not None for node in observed)  # type: ignore[arg-type]


def equal_weights(data: Data) -> Iterator[Data]:
    """Split rows into parts of equal sample weight."""
    assert data.sample_weight is not None
    for weight in np.unique(data.sample_weight):
        rows = np.flatnonzero(data.sample_weight == weight)
        yield Data(multi_indexing(data.X, rows), data.y[rows], data.sample_weight[rows])


def pieces(args: tuple, kwargs: dict[str, Any], weights: Tensor, known: bool) -> Iterator[Piece]:
    """Yield the rows of a batch with their weights: all together where their axis is known.

    Rows of equal weight need no axis; their weight is a vector of one.
    """
    values = weights.unique()
    if known or len(values) == 1:
        yield args, kwargs, weights if len(values) > 1 else values
        return
    for value in values:
        rows = (weights == value).nonzero().flatten()
        part = tree_map(lambda x, rows=rows: x[rows.to(x.device)], (args, kwargs))
        yield *part, value.reshape(1)


def along(weights: Tensor, x: Tensor, axis: int) -> Tensor:
    """Lay the weights of rows along an axis of `x`, to be multiplied with it."""
    return weights.to(x).view([-1 if d == axis else 1 for d in range(x.dim())])


def batch_weights(data: Data, start: int, inputs: Any) -> Tensor:
    """Return the sample weights of the batch that begins at row `start`."""
    assert data.sample_weight is not None
    return torch.as_tensor(data.sample_weight[start : start + len(tree_leaves(inputs)[0])])
