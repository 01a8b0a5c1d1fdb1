"""Operations that modules of the user's own are made of come out of a file as they went in."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skcompress import PrunedNet, load, save
from tests.pruning_modules import classifier

X = np.random.default_rng(0).normal(size=(20, 5, 4)).astype("float32")
Y = np.arange(20) % 3


class Stepwise(nn.Module):
    """A recurrent module of cells, step by step."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.cell, self.head = kind(4, 6, **settings), nn.Linear(6, 3)

    def forward(self, X):
        state = X.new_zeros(len(X), 6)
        long = isinstance(self.cell, nn.LSTMCell)
        state = (state, state) if long else state
        for step in X.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if long else state)


class Applied(nn.Module):
    """A function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.function, self.first, self.head = function, nn.Linear(20, 6), nn.Linear(6, 3)

    def forward(self, X):
        return self.head(self.function(self.first(X.flatten(1))))


def assigned(x):
    """Write into parts of a tensor."""
    result = torch.zeros_like(x)
    result[:, :3] = x[:, :3]
    result[:, 4] = 1.0
    return result


def resized(x):
    """Enlarge images by bicubic interpolation."""
    images = x.view(-1, 1, 2, 3)
    return functional.interpolate(images, scale_factor=2, mode="bicubic").flatten(1)[:, :6]


MODULES = {
    "lstm cell": lambda: Stepwise(nn.LSTMCell),
    "gru cell": lambda: Stepwise(nn.GRUCell),
    "rnn cell": lambda: Stepwise(nn.RNNCell),
    "relu cell": lambda: Stepwise(nn.RNNCell, nonlinearity="relu"),
    "normalize": lambda: Applied(functional.normalize),
    "assignment": lambda: Applied(assigned),
    "bicubic": lambda: Applied(resized),
    "unfold": lambda: Applied(
        lambda x: functional.unfold(x.view(-1, 1, 2, 3), 2).flatten(1)[:, :6]
    ),
    "sinc": lambda: Applied(torch.sinc),
    "logaddexp": lambda: Applied(lambda x: torch.logaddexp(x, 2 * x)),
    "bucketize": lambda: Applied(lambda x: x + torch.bucketize(x, torch.tensor([0.0, 1.0]))),
}


@pytest.mark.parametrize("name", MODULES)
def test_predictions_are_the_same(name, tmp_path):
    """For more rows than were traced."""
    net = classifier(MODULES[name], max_epochs=1)
    pruned = PrunedNet(net, sparsity=0.5, random_state=0).fit(X, Y)
    save(pruned, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    np.testing.assert_allclose(loaded.predict_proba(X), pruned.predict_proba(X), atol=1e-6)
