"""The two networks that the literature compresses, and the rows of MNIST that it uses."""

import numpy as np
import torch
from data import load_mnist
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

BATCH_SIZE = 128


class LeNet300(nn.Sequential):
    """LeNet-300-100 (LeCun et al., 1998)."""

    def __init__(self):
        super().__init__(
            nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )


class LeNet5(nn.Sequential):
    """LeNet-5 as Caffe has it: 20 and 50 filters of 5 x 5, 500 hidden units."""

    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip
        # Convolutions on a CPU take little more than half the time like this.
        self.to(memory_format=torch.channels_last)


NETS = {"LeNet-300-100": LeNet300, "LeNet-5": LeNet5}
EPOCHS = {"LeNet-300-100": 20, "LeNet-5": 10}


def load_parts():
    """Return 50,000 rows to train on, 10,000 to choose settings on, and MNIST's own test rows."""
    X, y = load_mnist()
    order = np.random.RandomState(0).permutation(60_000)
    parts = order[:50_000], order[50_000:], np.arange(60_000, 70_000)
    return [(X[rows], y[rows]) for rows in parts]


def dense_net(name):
    """Return the unfitted dense net: AdamW, a rate that falls to zero as a cosine."""
    steps = EPOCHS[name] * -(-50_000 // BATCH_SIZE)
    cosine = LRScheduler("CosineAnnealingLR", T_max=steps, step_every="batch")
    return NeuralNetClassifier(
        NETS[name], criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=0.002,
        optimizer__weight_decay=0.1, max_epochs=EPOCHS[name], batch_size=BATCH_SIZE,
        train_split=None, iterator_train__shuffle=True, callbacks=[("rate", cosine)], verbose=0,
    )  # fmt: skip


def error(estimator, rows):
    """Return the error in percent."""
    X, y = rows
    return 100 * float((estimator.predict(X) != y).mean())
