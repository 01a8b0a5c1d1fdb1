"""Channels of zeros change no prediction, and go only where they can."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from skcompress import PrunedNet, deploy
from skcompress.deployment.onnx.model import to_onnx
from skcompress.deployment.runtime.padding import pad_channels
from tests.pruning_modules import classifier

X = np.random.default_rng(0).normal(size=(9, 2, 8, 8)).astype("float32")


class Net(nn.Module):
    """Convolutions in a row, with a head."""

    def __init__(self, *layers, channels=6):
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 3)

    def forward(self, X):
        return self.head(self.body(X).mean((2, 3)))


class Residual(Net):
    """The first convolution is read twice."""

    def forward(self, X):
        X = self.body[0](X)
        return self.head((X + self.body[1](X)).mean((2, 3)))


def graph_of(module):
    """Return the ONNX graph of a module with random weights."""
    torch.manual_seed(0)
    net = classifier(module, max_epochs=1).fit(X, np.arange(9) % 3)
    return to_onnx(net, X, labels=False)


def run(model):
    """Return a graph's predictions."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"X": X})[0]


def shapes(model):
    """Return the shapes of a graph's convolutions."""
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    return [weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]


def between(*layers, bias=True):
    """Return a module with layers between two convolutions of five and six channels."""
    first = nn.Conv2d(2, 5, 3, padding=1, bias=bias)
    return Net(first, *layers, nn.Conv2d(5, 6, 3, padding=1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "layers",
    [(), (nn.ReLU(),), (nn.Tanh(), nn.AvgPool2d(2)), (nn.LeakyReLU(0.1), nn.MaxPool2d(2))],
)
def test_channels_between_convolutions(layers, bias):
    """The same function, up to the order of sums; the given graph stays as it was."""
    model = graph_of(lambda: between(*layers, bias=bias))
    before = model.SerializeToString()
    padded = pad_channels(model)
    onnx.checker.check_model(padded)
    assert shapes(padded) == [(16, 2, 3, 3), (6, 16, 3, 3)]
    np.testing.assert_allclose(run(padded), run(model), atol=1e-6)
    assert model.SerializeToString() == before
    assert pad_channels(padded) is None


def test_added_weights_are_zero():
    """All that is added is."""
    padded = pad_channels(graph_of(lambda: between(nn.ReLU())))
    weights = {t.name: numpy_helper.to_array(t) for t in padded.graph.initializer}
    first, second = (node.input for node in padded.graph.node if node.op_type == "Conv")
    assert weights[first[1]][:5].all()
    assert not weights[first[1]][5:].any()
    assert not weights[first[2]][5:].any()
    assert not weights[second[1]][:, 5:].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: between(nn.Sigmoid()),
        lambda: between(nn.BatchNorm2d(5), nn.ReLU()),
        lambda: between(nn.Softmax(1)),
        lambda: Net(nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 6, 3)),
        lambda: Net(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2)),
        lambda: Net(nn.Conv2d(2, 6, 3), nn.ReLU()),
        lambda: Residual(nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)),
    ],
    ids=["sigmoid", "batch norm", "across channels", "whole", "grouped", "one", "residual"],
)
def test_elsewhere_nothing_is_added(make):
    """Zeros would not stay zeros, are not needed, or would be read by something else."""
    assert pad_channels(graph_of(make)) is None


def test_a_weight_that_is_used_twice():
    """It would have to grow for the other use, too."""
    conv = nn.Conv2d(5, 5, 3, padding=1)
    first, last = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 6, 3)
    assert pad_channels(graph_of(lambda: Net(first, conv, conv, last))) is None


def test_deploy_tries_it():
    """Forms of their own, within the same tolerance."""
    y = np.arange(9) % 3
    make = lambda: between(nn.ReLU())  # noqa: E731
    pruned = PrunedNet(classifier(make, max_epochs=1), granularity="unit", sparsity=0.5)
    pruned.fit(X, y)
    deployed = deploy(pruned, X, n_repeats=1, tolerance=1.0)
    assert {"fp32", "fp32 padded", "int8 dynamic padded"} <= set(deployed.report_["form"])
    assert deployed.report_.set_index("form")["difference"]["fp32 padded"] == 0
    np.testing.assert_array_equal(deployed.predict(X), pruned.predict(X))
