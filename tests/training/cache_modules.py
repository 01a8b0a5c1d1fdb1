"""Nets of the cache's tests, which write down each dense fit in a file."""

import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_blobs
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet
from skcompress.training import CacheFolder
from skcompress.training.entries import read


class Counted(nn.Module):
    """Appends a line to a file when it is trained for the first time; copies do not."""

    def __init__(self, log=None, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.log, self.is_new = log, True

    def forward(self, X):
        if self.training and self.is_new:
            self.is_new = False
            if self.log is not None:
                append(self.log, str(os.getpid()))
        return self.layers(X)


def append(path, line):
    """Append a line in one write, which processes do not tear apart."""
    with open(path, "a") as file:
        file.write(line + "\n")


def n_fits(log):
    """Count the dense fits that were begun."""
    return len(Path(log).read_text().splitlines()) if Path(log).exists() else 0


def rows():
    """Return well separated classes, in single precision."""
    X, y = make_blobs(120, centers=3, n_features=4, random_state=1)
    return X.astype(np.float32), y


def counted_net(log=None, **settings):
    """Return an unfitted net that notes its dense fits."""
    defaults = {"module": Counted, "criterion": nn.CrossEntropyLoss}
    defaults |= {"optimizer": torch.optim.Adam, "lr": 0.01}
    defaults |= {"max_epochs": 3, "batch_size": 32, "train_split": None, "verbose": 0}
    return NeuralNetClassifier(module__log=None if log is None else str(log), **defaults | settings)


def counted(log=None, memory=None, net=None, **settings):
    """Return an unfitted estimator that notes its dense fits."""
    defaults = {"retrain_epochs": 1, "random_state": 0, "n_threads": 1, "schedule": "one-shot"}
    net = counted_net(log) if net is None else net
    return PrunedNet(net, memory=memory, **defaults | settings)


def entries(memory):
    """List the entries of a cache."""
    return sorted(CacheFolder(memory).path.glob("*.safetensors"))


def is_dense(path):
    """Tell whether an entry is that of a dense net: others name the one that they wrap."""
    return "inner" not in read(path).facts
