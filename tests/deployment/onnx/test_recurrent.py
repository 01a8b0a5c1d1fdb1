"""Recurrent layers of which the graph reads the last step."""

import pytest
from torch import nn

from skcompress.deployment.onnx.model import to_onnx
from tests.deployment.onnx.helpers import agree
from tests.pruning_modules import classification, classifier


class LastStep(nn.Module):
    """A recurrent layer of which one step is read."""

    def __init__(self, read=lambda out: out[:, -1], kind=nn.LSTM, batch_first=True):
        super().__init__()
        self.layer, self.head = kind(2, 5, batch_first=batch_first), nn.Linear(5, 3)
        self.read = read

    def forward(self, X):
        X = X.view(X.shape[0], 3, 2)
        return self.head(
            self.read(self.layer(X if self.layer.batch_first else X.transpose(0, 1))[0])
        )


# How steps are read, whether rows come first, and which outputs of a layer that needs.
READS = {
    "the last": (lambda out: out[:, -1], True, [False, True]),
    "the last, by its number": (lambda out: out[:, 2], True, [False, True]),
    "steps first": (lambda out: out[-1], False, [False, True]),
    "another": (lambda out: out[:, -2], True, [True]),
    "all": (lambda out: out[:, -1] + out.mean(1), True, [True, True]),
    "the last number": (lambda out: out[:, :, -1, None].sum(1).expand(-1, 5), True, [True]),
}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("read", READS)
def test_a_recurrent_layer_that_is_read_at_its_last_step(read, kind):
    """The runtime writes no other steps then."""
    X, y = classification(30)
    function, batch_first, outputs = READS[read]
    net = classifier(lambda: LastStep(function, kind, batch_first), max_epochs=1).fit(X, y)
    model = to_onnx(net, X)
    agree(model, net, X, atol=1e-6)
    (layer,) = (node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN"))
    assert [bool(name) for name in layer.output] == outputs
