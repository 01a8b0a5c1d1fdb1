"""Modules, nets and data of the contract's tests, importable by worker processes."""

import numpy as np
import torch
from sklearn.datasets import make_blobs
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skcompress import PrunedNet, QuantizedNet
from skcompress.training import ShapeSetter


class MLP(nn.Module):
    def __init__(self, n_inputs=4, n_outputs=3, hidden=16, dtype=torch.float32, softmax=False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, hidden, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, n_outputs, dtype=dtype),
        )
        self.last = nn.Softmax(dim=-1) if softmax else nn.Identity()

    def forward(self, X):
        return self.last(self.layers(X))


class CNN(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 4 * 4, n_outputs)

    def forward(self, X):
        X = nn.functional.max_pool2d(self.norm(self.conv(X)).relu(), 2)
        return self.head(X.flatten(1))


class Recurrent(nn.Module):
    def __init__(self, n_inputs=2, n_outputs=3, hidden=8):
        super().__init__()
        self.gru = nn.GRU(n_inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, n_outputs)

    def forward(self, X):
        return self.head(self.gru(X)[0][:, -1])


class Tokens(nn.Module):
    def __init__(self, n_tokens=10, n_outputs=3):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, 8)
        self.head = nn.Linear(8, n_outputs)

    def forward(self, X):
        return self.head(self.embedding(X).mean(1))


class TwoInputs(nn.Module):
    """A module whose inputs are numbers and tokens, given by name."""

    def __init__(self, n_outputs=3, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(10, 4, dtype=dtype)
        self.layers = nn.Sequential(
            nn.Linear(8, 16, dtype=dtype), nn.ReLU(), nn.Linear(16, n_outputs, dtype=dtype)
        )

    def forward(self, numbers, tokens):
        return self.layers(torch.cat([numbers, self.embedding(tokens).mean(1)], dim=1))


class NeverTrained:
    """A net that fails when it is trained, so that an error is known to come before."""

    def train_step(self, *args, **kwargs):
        raise AssertionError("the net was trained before the error")


class Classifier(NeverTrained, NeuralNetClassifier):
    pass


class Binary(NeverTrained, NeuralNetBinaryClassifier):
    pass


class Regressor(NeverTrained, NeuralNetRegressor):
    pass


SETTINGS = {
    "module": MLP,
    "optimizer": torch.optim.Adam,
    "lr": 0.03,
    "max_epochs": 8,
    "batch_size": 32,
    "train_split": None,
    "verbose": 0,
}
# Sample weights equal repeated rows bit for bit only without batches and rounding.
EXACT = {"batch_size": -1, "max_epochs": 30, "module__dtype": torch.float64}


def classifier(kind=NeuralNetClassifier, **settings):
    """Return a small net that takes its widths from the data, if its module has widths."""
    defaults = SETTINGS | {"criterion": nn.CrossEntropyLoss, "callbacks": [ShapeSetter()]}
    return kind(**defaults | settings)


def binary_classifier(kind=NeuralNetBinaryClassifier, **settings):
    """Return a small net with a single output for two classes."""
    return kind(**SETTINGS | {"callbacks": [ShapeSetter()]} | settings)


def regressor(kind=NeuralNetRegressor, **settings):
    """Return a small net that takes its widths from the data."""
    return kind(**SETTINGS | {"callbacks": [ShapeSetter()]} | settings)


def pruned(net=None, **settings):
    """Return a PrunedNet that retrains for a short while, with a seed."""
    net = classifier() if net is None else net
    return PrunedNet(net, **{"retrain_epochs": 4, "random_state": 0} | settings)


def quantized(net=None, **settings):
    """Return a QuantizedNet in integers that trains for a short while, with a seed."""
    net = classifier() if net is None else net
    defaults = {"activations": "dynamic", "retrain_epochs": 2, "random_state": 0}
    return QuantizedNet(net, **defaults | settings)


def blobs(n_samples=120, n_classes=3, seed=0):
    """Return well separated classes of equal size, in float64, with labels 0, 1, ..."""
    centers = 3 * np.random.default_rng(7).normal(size=(n_classes, 4))
    X, y = make_blobs(n_samples, centers=centers, random_state=seed)
    return X, y


def line(n_samples=90, seed=0):
    """Return regression data with a clear signal and targets of one dimension."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, 4))
    return X, X @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=n_samples)


def state(estimator):
    """Return copies of the tensors of a fitted estimator's net, by name."""
    return {n: t.detach().clone() for n, t in estimator.net_.module_.state_dict().items()}


def assert_same_state(first, second):
    """Compare tensors by name, bit for bit."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
