"""Modules and data that the tests of pruning share."""

from typing import ClassVar

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skcompress.layers import weight_matrices

N_INPUTS, N_CLASSES = 6, 3


class MLP(nn.Module):
    """Two hidden layers."""

    def __init__(self, n_inputs=N_INPUTS, hidden=8, n_outputs=N_CLASSES):
        super().__init__()
        self.first = nn.Linear(n_inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, n_outputs)

    def forward(self, X):
        return self.last(torch.tanh(self.second(torch.relu(self.first(X)))))


class NormalizedMLP(nn.Module):
    """BatchNorm with and without parameters, dropout, PReLU with one slope and with many."""

    def __init__(self, n_inputs=N_INPUTS, hidden=8, n_outputs=N_CLASSES):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.PReLU(hidden),
            nn.Dropout(0.5), nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden, affine=False),
            nn.PReLU(), nn.Linear(hidden, n_outputs),
        )  # fmt: skip

    def forward(self, X):
        return self.layers(X)


class ConvNet(nn.Module):
    """BatchNorm, a residual connection, a depthwise convolution, pooling and a flattened head."""

    def __init__(self, n_channels=6, n_outputs=N_CLASSES):
        super().__init__()
        self.stem = nn.Conv2d(1, n_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_channels)
        self.inner = nn.Conv2d(n_channels, 5, 3, padding="same")
        self.outer = nn.Conv2d(5, n_channels, 1)
        self.depthwise = nn.Conv2d(n_channels, n_channels, 3, padding=1, groups=n_channels)
        self.pointwise = nn.Conv2d(n_channels, 7, 1)
        self.head = nn.Linear(7 * 4, n_outputs)

    def forward(self, X):
        X = torch.relu(self.norm(self.stem(X)))
        X = X + self.outer(torch.relu(self.inner(X)))
        X = torch.max_pool2d(torch.relu(self.pointwise(self.depthwise(X))), 2)
        X = nn.functional.adaptive_avg_pool2d(X, 2)
        return self.head(X.view(X.size(0), -1))


class SequenceConvNet(nn.Module):
    """One-dimensional convolution and its transpose, over (time, feature) inputs."""

    def __init__(self, n_inputs=4, n_outputs=N_CLASSES):
        super().__init__()
        self.down = nn.Conv1d(n_inputs, 6, 3, stride=2)
        self.up = nn.ConvTranspose1d(6, 5, 3, stride=2)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, n_outputs)

    def forward(self, X):
        X = torch.relu(self.down(X.transpose(1, 2)))
        return self.head(torch.relu(self.norm(self.up(X))).mean(2))


class Transposed(nn.Module):
    """A convolutional autoencoder whose output is pooled."""

    def __init__(self, n_outputs=N_CLASSES):
        super().__init__()
        self.encode = nn.Conv2d(1, 6, 3)
        self.decode = nn.ConvTranspose2d(6, 5, 3)
        self.head = nn.Conv2d(5, n_outputs, 1)

    def forward(self, X):
        return self.head(torch.relu(self.decode(torch.relu(self.encode(X))))).mean((2, 3))


class Grouped(nn.Module):
    """A grouped convolution, whose channels stay, between two ordinary layers."""

    def __init__(self, n_outputs=N_CLASSES):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.mix = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, n_outputs)

    def forward(self, X):
        X = torch.relu(self.grouped(torch.relu(self.stem(X))))
        return self.head(torch.relu(self.mix(X)).mean((2, 3)))


class Recurrent(nn.Module):
    """Any recurrent layer, read at its last step, over time, or by its last hidden state."""

    kinds: ClassVar = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

    def __init__(
        self, kind="lstm", n_inputs=4, hidden=5, layers=1, bidirectional=False, batch_first=True,
        bias=True, read="last", n_outputs=N_CLASSES,
    ):  # fmt: skip
        super().__init__()
        self.batch_first, self.read = batch_first, read
        self.layer = self.kinds[kind](
            n_inputs, hidden, layers, bidirectional=bidirectional, batch_first=batch_first,
            bias=bias,
        )  # fmt: skip
        width = hidden * (1 + bidirectional) * (1 if read != "h_n" else layers)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, X):
        outputs, states = self.layer(X if self.batch_first else X.transpose(0, 1))
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        if self.read == "h_n":
            states = states[0] if isinstance(states, tuple) else states
            return self.head(states.transpose(0, 1).flatten(1))
        reads = {"last": lambda x: x[:, -1], "mean": lambda x: x.mean(1),
                 "max": lambda x: x.max(1).values}  # fmt: skip
        return self.head(reads[self.read](outputs))


class Attention(nn.Module):
    """Self-attention between two projections."""

    def __init__(
        self, n_inputs=4, need_weights=True, batch_first=True, bias=True, n_outputs=N_CLASSES
    ):
        super().__init__()
        self.need_weights, self.batch_first = need_weights, batch_first
        self.embed = nn.Linear(n_inputs, 8)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=batch_first, bias=bias)
        self.head = nn.Linear(8, n_outputs)

    def forward(self, X):
        X = self.embed(X if self.batch_first else X.transpose(0, 1))
        X = self.attention(X, X, X, need_weights=self.need_weights)[0]
        return self.head(X.mean(1 if self.batch_first else 0))


class Encoder(nn.Module):
    """A TransformerEncoder over embedded tokens, with learned positions and a padding mask."""

    def __init__(self, n_tokens=7, length=5, n_layers=1, padding=False, n_outputs=N_CLASSES):
        super().__init__()
        self.embed = nn.Embedding(n_tokens, 8)
        self.positions = nn.Parameter(torch.randn(1, length, 8))
        layer = nn.TransformerEncoderLayer(8, 4, 12, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Linear(8, n_outputs)
        self.padding = padding

    def forward(self, X):
        mask = X == 0 if self.padding else None
        return self.head(self.encoder(self.embed(X) + self.positions, None, mask).mean(1))


class Branches(nn.Module):
    """Branches of different width that are concatenated, with the input among them."""

    def __init__(self, n_inputs=N_INPUTS, n_outputs=N_CLASSES):
        super().__init__()
        self.left, self.right = nn.Linear(n_inputs, 5), nn.Linear(n_inputs, 4)
        self.head = nn.Linear(5 + n_inputs + 4, n_outputs)

    def forward(self, X):
        return self.head(torch.cat([torch.relu(self.left(X)), X, torch.tanh(self.right(X))], 1))


class Tied(nn.Module):
    """Two layers that share their weight, under two names."""

    def __init__(self, n_inputs=N_INPUTS, hidden=8, n_outputs=N_CLASSES):
        super().__init__()
        self.embed = nn.Linear(n_inputs, hidden)
        self.first, self.second = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.second.weight = self.first.weight
        self.head = nn.Linear(hidden, n_outputs)

    def forward(self, X):
        return self.head(torch.relu(self.second(torch.relu(self.first(self.embed(X))))))


TABLE, IMAGE, SEQUENCE, TOKENS = (N_INPUTS,), (1, 8, 8), (5, 4), (5,)

# Name: (class, parameters, shape of a row).
MODULES = {
    "mlp": (MLP, {}, TABLE),
    "mlp, batch norm": (NormalizedMLP, {}, TABLE),
    "cnn": (ConvNet, {}, IMAGE),
    "cnn, one-dimensional": (SequenceConvNet, {}, SEQUENCE),
    "cnn, transposed": (Transposed, {}, IMAGE),
    "cnn, grouped": (Grouped, {}, IMAGE),
    "rnn": (Recurrent, {"kind": "rnn"}, SEQUENCE),
    "rnn, no bias": (Recurrent, {"kind": "rnn", "bias": False, "read": "max"}, SEQUENCE),
    "gru": (Recurrent, {"kind": "gru", "read": "mean"}, SEQUENCE),
    "gru, h_n": (Recurrent, {"kind": "gru", "layers": 2, "read": "h_n"}, SEQUENCE),
    "gru, bidirectional": (
        Recurrent, {"kind": "gru", "bidirectional": True, "batch_first": False}, SEQUENCE,
    ),
    "lstm": (Recurrent, {}, SEQUENCE),
    "lstm, bidirectional": (
        Recurrent, {"layers": 2, "bidirectional": True, "read": "mean"}, SEQUENCE,
    ),
    "lstm, h_n": (
        Recurrent,
        {"layers": 2, "bidirectional": True, "batch_first": False, "read": "h_n"},
        SEQUENCE,
    ),
    "attention": (Attention, {}, SEQUENCE),
    "attention, no weights": (
        Attention, {"need_weights": False, "batch_first": False, "bias": False}, SEQUENCE,
    ),
    "encoder": (Encoder, {"n_layers": 2}, TOKENS),
    "encoder, padding": (Encoder, {"padding": True}, TOKENS),
    "branches": (Branches, {}, TABLE),
    "tied": (Tied, {}, TABLE),
}  # fmt: skip


def build(name, seed=0):
    """Return a module of :data:`MODULES` with random statistics, in float64, for evaluation."""
    kind, params, _ = MODULES[name]
    torch.manual_seed(seed)
    module = kind(**params).double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module


def rows(name, n_rows=4, seed=1):
    """Return inputs for a module of :data:`MODULES`."""
    shape, generator = MODULES[name][2], torch.Generator().manual_seed(seed)
    if shape == TOKENS:
        # Token 0 pads the end of a row, and never all of it.
        tokens = torch.randint(1, 7, (n_rows, *shape), generator=generator)
        tokens[1::2, -2:] = 0
        return tokens
    return torch.randn(n_rows, *shape, generator=generator, dtype=torch.float64)


def classification(n_samples=60, shape=TABLE, n_classes=N_CLASSES, seed=0):
    """Return separable rows and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % n_classes
    centers = rng.normal(size=(n_classes, *shape))
    X = centers[y] + 0.5 * rng.normal(size=(n_samples, *shape))
    return X.astype(np.float32), y


def regression(n_samples=40, n_inputs=N_INPUTS, seed=0):
    """Return rows and a noisy linear target."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_inputs))
    y = X @ rng.normal(size=n_inputs) + 0.1 * rng.normal(size=n_samples)
    return X.astype(np.float32), y.astype(np.float32)


def classifier(module=MLP, **params):
    """Return a small skorch classifier."""
    settings = {"max_epochs": 2, "lr": 0.1, "batch_size": 20, "train_split": None, "verbose": 0}
    settings |= {"criterion": nn.CrossEntropyLoss}
    return NeuralNetClassifier(module, **(settings | params))


def regressor(module, **params):
    """Return a small skorch regressor."""
    settings = {"max_epochs": 2, "lr": 0.01, "batch_size": 20, "train_split": None, "verbose": 0}
    return NeuralNetRegressor(module, **(settings | params))


def n_weights(module):
    """Count prunable weights."""
    return sum(weight.numel() for weight in weight_matrices(module).values())
