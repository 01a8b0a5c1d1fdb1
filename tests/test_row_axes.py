"""Which axis of a layer's input is that of the rows."""

import numpy as np
import pytest
import torch
from torch import nn

from skcompress.graph import trace
from skcompress.row_axes import along, batch_weights, equal_weights, pieces, row_axis, rows_known
from skcompress.training.loop import Data


class Reading(nn.Module):
    """Hands its input to a layer in some form."""

    def __init__(self, form):
        super().__init__()
        self.form, self.layer = form, nn.Linear(4, 2)

    def forward(self, X):
        return self.layer(self.form(X))


FORMS = {
    "as it is": (lambda X: X, 0),
    "time first": (lambda X: X.transpose(0, 1), 1),
    "one step": (lambda X: X[:, 0], 0),
    "one step, time first": (lambda X: X.transpose(0, 1)[-1], 0),
    "all steps in a row": (lambda X: X.flatten(0, 1), None),
    "rows against rows": (lambda X: X[:, None, 0] + X[None, :, 0], None),
    "a fixed number": (lambda X: X[: len(X.tolist())], None),
}


@pytest.mark.parametrize(("form", "axis"), FORMS.values(), ids=FORMS)
def test_row_axis(form, axis):
    """Known where one axis is as long as the batch, whatever the batch."""
    X = torch.zeros(3, 5, 4)
    graph = trace(Reading(form), (X,), {})
    (node,) = [n for n in graph.program.graph.nodes if str(n.target) == "aten.linear.default"]
    assert row_axis(graph, node.args[0]) == axis
    assert rows_known(graph, [node]) == (axis is not None)
    assert rows_known(graph, [])


def test_equal_weights():
    """Parts of one weight each, in the order of the weights."""
    data = Data(np.arange(5), np.arange(5), np.array([2.0, 1, 2, 0.5, 1]))
    parts = [(p.X.tolist(), p.y.tolist(), p.sample_weight.tolist()) for p in equal_weights(data)]
    assert parts == [([3], [3], [0.5]), ([1, 4], [1, 4], [1, 1]), ([0, 2], [0, 2], [2, 2])]


def test_pieces():
    """A batch stays whole where rows are known, or weigh the same."""
    x, weights = torch.arange(4), torch.tensor([2.0, 1, 2, 1])
    ((args, kwargs, given),) = pieces((x,), {"b": x}, weights, True)
    assert args == (x,)
    assert kwargs == {"b": x}
    assert given is weights
    found = [(a.tolist(), k["b"].tolist(), w.tolist()) for (a,), k, w in
             pieces((x,), {"b": x}, weights, False)]  # fmt: skip
    assert found == [([1, 3], [1, 3], [1.0]), ([0, 2], [0, 2], [2.0])]
    ((_, _, given),) = pieces((x,), {}, torch.full((4,), 3.0), False)
    assert given.tolist() == [3.0]


def test_along():
    """Weights are multiplied with their rows."""
    x, weights = torch.ones(2, 3, 4), torch.tensor([1.0, 2, 3])
    assert along(weights, x, 1).shape == (1, 3, 1)
    assert (x * along(weights, x, 1))[1, :, 2].tolist() == [1, 2, 3]
    assert along(torch.tensor([2.0]), x, 0).shape == (1, 1, 1)


def test_batch_weights():
    """Rows come in order, so a batch has the weights that follow."""
    data = Data(np.arange(5), np.arange(5), np.arange(5.0))
    assert batch_weights(data, 2, ((torch.zeros(3, 1),), {})).tolist() == [2, 3, 4]
