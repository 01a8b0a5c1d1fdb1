"""Spans of steps change no prediction, and go only where a layer runs forward."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from skcompress import PrunedNet, deploy
from skcompress.deployment.onnx.model import to_onnx
from skcompress.deployment.runtime.spans import MIN_STEPS, SPANS, split_steps
from tests.deployment.onnx.helpers import run
from tests.pruning_modules import classifier

# Not a multiple of the number of spans.
STEPS = SPANS * MIN_STEPS + 3
X = np.random.default_rng(0).normal(size=(9, STEPS, 2)).astype("float32")
y = np.arange(9) % 3


class Sequences(nn.Module):
    """A recurrent layer that is read at its last step, at all of them, or at its states."""

    def __init__(self, kind=nn.LSTM, read="last", **settings):
        super().__init__()
        self.layer = kind(2, 5, batch_first=True, **settings)
        self.head = nn.LazyLinear(3)
        self.read = read

    def forward(self, X):
        out, states = self.layer(X)
        if self.read == "states":
            states = torch.cat([s[-1] for s in states], dim=1)
        return self.head({"last": out[:, -1], "all": out.mean(1), "states": states}[self.read])


def graph_of(rows=X, **settings):
    """Return the ONNX graph of a module with random weights."""
    torch.manual_seed(0)
    net = classifier(lambda: Sequences(**settings), max_epochs=1).fit(rows, y)
    return to_onnx(net, rows, labels=False)


def layers(model):
    """Return a graph's recurrent operators."""
    return [node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN")]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": nn.LSTM},
        {"kind": nn.GRU},
        {"kind": nn.RNN, "nonlinearity": "relu"},
        {"bias": False},
        {"num_layers": 2},
        {"read": "all"},
        {"read": "states"},
    ],
    ids=str,
)
def test_the_same_numbers(settings):
    """Bit for bit; the given graph stays as it was."""
    model = graph_of(**settings)
    before = model.SerializeToString()
    split = split_steps(model)
    onnx.checker.check_model(split, full_check=True)
    assert len(layers(split)) == SPANS * len(layers(model)) >= SPANS
    for rows in (X, X[:1]):
        np.testing.assert_array_equal(
            run(split, rows)["probabilities"], run(model, rows)["probabilities"]
        )
    assert model.SerializeToString() == before
    assert split_steps(split) is None


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"bidirectional": True}, STEPS), ({}, SPANS * MIN_STEPS - 1), ({"proj_size": 3}, STEPS)],
    ids=["both directions", "few steps", "a loop"],
)
def test_elsewhere_nothing_is_divided(settings, steps):
    """The other direction starts at the end, and short spans are slow."""
    assert split_steps(graph_of(X[:, :steps], **settings)) is None


def test_layers_that_start_from_states_of_their_own():
    """The first span has them, and the next ones those of the span before."""

    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, X):
            start = X[None, :, 0].sum(-1, keepdim=True).expand(1, X.shape[0], 5)
            return self.head(self.layer(X, start.contiguous())[0][:, -1])

    torch.manual_seed(0)
    net = classifier(Started, max_epochs=1).fit(X, y)
    model = to_onnx(net, X, labels=False)
    split = split_steps(model)
    assert len(layers(split)) == SPANS
    np.testing.assert_allclose(run(split, X)["probabilities"], net.predict_proba(X), atol=1e-6)


def test_deploy_tries_it():
    """A form of its own, with the predictions of the whole."""
    pruned = PrunedNet(classifier(Sequences, max_epochs=1), granularity="unit", random_state=0)
    pruned.fit(X, y)
    deployed = deploy(pruned, X, forms=["fp32 in spans"], n_repeats=1)
    assert deployed.form_ == "fp32 in spans"
    np.testing.assert_allclose(deployed.predict_proba(X), pruned.predict_proba(X), atol=1e-6)
    short = X[:, :MIN_STEPS]
    pruned.fit(short, y)
    with pytest.raises(ValueError, match="fp32 in spans: the net has no layer for it"):
        deploy(pruned, short, forms=["fp32 in spans"])
