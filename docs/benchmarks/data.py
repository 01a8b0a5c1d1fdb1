"""Data sets and networks of the benchmarks."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import fetch_openml, load_digits
from skorch import NeuralNetClassifier
from torch import nn

from skcompress.training.nets import plain_module


class MLP(nn.Sequential):
    """A multilayer perceptron with two hidden layers."""

    def __init__(self, n_inputs=64, hidden=(100, 50), n_outputs=10):
        first, second = hidden
        super().__init__(
            nn.Linear(n_inputs, first), nn.ReLU(),
            nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, n_outputs),
        )  # fmt: skip


def load_mnist():
    """Return all 70,000 rows, scaled to [0, 1], in MNIST's order.

    Reads ``$SKCOMPRESS_DATA/mnist.npz`` where that variable is set, and OpenML otherwise.
    """
    folder = os.environ.get("SKCOMPRESS_DATA")
    if folder is None:
        X, y = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        return (X / 255).astype(np.float32), y.astype(np.int64)
    with np.load(Path(folder) / "mnist.npz") as file:
        X = np.concatenate([file["X_train"], file["X_test"]]).reshape(-1, 784)
        y = np.concatenate([file["y_train"], file["y_test"]])
    return (X / 255).astype(np.float32), y.astype(np.int64)


def load(name):
    """Return rows to choose settings on, and rows to report on.

    The digits are too few to set some aside: settings are chosen on other splits of them.
    """
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        rows = ((X / 16).astype(np.float32), y.astype(np.int64))
        return rows, rows
    X, y = load_mnist()
    order = np.random.RandomState(0).permutation(60_000)
    tune, final = order[10_000:20_000], order[:10_000]
    return (X[tune], y[tune]), (X[final], y[final])


def dense_net(name, hidden=None):
    """Return the unfitted dense net of a data set."""
    settings = {
        "digits": {"module__n_inputs": 64, "module__hidden": (100, 50), "batch_size": 64,
                   "lr": 0.01, "max_epochs": 20},
        "mnist": {"module__n_inputs": 784, "module__hidden": (300, 100), "batch_size": 128,
                  "lr": 0.001, "max_epochs": 15},
    }[name]  # fmt: skip
    if hidden is not None:
        settings["module__hidden"] = hidden
    return NeuralNetClassifier(
        MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, train_split=None,
        iterator_train__shuffle=True, verbose=0, **settings,
    )  # fmt: skip


def tensor_bytes(fitted):
    """Count the bytes of a fitted net's parameters: packed integers with their masks, or floats."""
    quantized = getattr(fitted, "quantized_", {})
    net = getattr(fitted, "net_", fitted)
    return sum(
        quantized[name].n_bytes if name in quantized else parameter.nbytes
        for name, parameter in plain_module(net.module_).named_parameters()
    )


def n_weights(n_inputs, hidden, n_outputs=10):
    """Count the weights of an MLP, without biases."""
    widths = (n_inputs, *hidden, n_outputs)
    return sum(a * b for a, b in pairwise(widths))


def widths_within(n_inputs, hidden, max_weights):
    """Scale hidden widths down together until the weights fit."""
    for scale in np.linspace(1, 0, 1001):
        scaled = tuple(max(1, int(h * scale)) for h in hidden)
        if n_weights(n_inputs, scaled) <= max_weights:
            return scaled
    raise ValueError(f"no MLP of {n_inputs} inputs has at most {max_weights} weights")
