"""Quantization of modules that are defined only here."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skcompress import QuantizedNet
from skcompress.layers import weight_matrices
from skcompress.training.nets import plain_module
from tests.contract_modules import Classifier as Never
from tests.contract_modules import blobs
from tests.contract_modules import classifier as untrained
from tests.pruning_modules import (
    IMAGE,
    Grouped,
    SequenceConvNet,
    classification,
    classifier,
)
from tests.quantization.test_quantized import fit


def test_reconstruction_of_what_cannot_be_laid_out():
    """The error comes before training and names the layer and what would work."""
    X, y = classification(shape=IMAGE)
    net = QuantizedNet(classifier(Grouped), bits=3, rounding="reconstruct")
    with pytest.raises(ValueError, match=r"'grouped\.weight' cannot be .*rounding='nearest'"):
        net.fit(X, y)


class Between(nn.Module):
    """Attention of a sequence to another."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, X):
        other = X.flip(1)
        return self.head(self.attention(X, other, other, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_attention_between_sequences(activations):
    """It is computed in integers, and reconstruction says what to set instead."""
    quantized, X = fit(Between, (5, 4), activations=activations)
    assert np.isfinite(quantized.predict_proba(X)).all()
    with pytest.raises(ValueError, match=r"in_proj_weight'\] cannot be .* Set rounding='nearest'"):
        fit(Between, (5, 4), rounding="reconstruct")


def test_transposed_convolutions_in_integers():
    """The error says what would work."""
    with pytest.raises(ValueError, match=r"cannot be observed.* Set activations=None"):
        fit(SequenceConvNet, (5, 4), activations="dynamic")


class Shared(nn.Module):
    """A decoder uses the weight of the encoder, transposed."""

    def __init__(self):
        super().__init__()
        self.encode, self.head = nn.Linear(6, 5), nn.Linear(6, 3)

    def forward(self, X):
        hidden = self.encode(X).relu()
        return self.head(nn.functional.linear(hidden, self.encode.weight.t()))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_a_weight_that_is_used_otherwise_too(activations):
    """Its other products would be computed in floating point."""
    with pytest.raises(ValueError, match=r"uses 'encode\.weight' \(.*\) in others\. Set act"):
        fit(Shared, activations=activations)


class Backwards(nn.Module):
    """The last layer is registered first."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(8, 3), nn.Linear(6, 8)

    def forward(self, X):
        return self.last(self.first(X).relu())


class Forwards(Backwards):
    """The same in order."""

    def __init__(self):
        super().__init__()
        self.last = self._modules.pop("last")


def test_reconstruction_follows_the_order_of_execution():
    """The last layer sees the rounded first one, wherever it is registered."""
    X, y = classification()
    net = classifier(Backwards, max_epochs=5).fit(X, y)
    ordered = classifier(Forwards).initialize()
    ordered.module_.load_state_dict(net.module_.state_dict())
    assert list(weight_matrices(net.module_)) != list(weight_matrices(ordered.module_))
    one, two = (QuantizedNet(FrozenEstimator(n), bits=2, rounding="reconstruct").fit(X, y)
                for n in (net, ordered))  # fmt: skip
    for name, tensor in one.quantized_.items():
        assert torch.equal(tensor.codes, two.quantized_[name].codes)


class Untraceable(nn.Module):
    """Its operations depend on the values of its inputs."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layer, self.norm = nn.Linear(n_inputs, n_outputs), nn.BatchNorm1d(n_outputs)

    def forward(self, X):
        return self.norm(self.layer(X)) if X.sum() > 0 else self.layer(X)


def test_errors_before_training():
    """What shapes and a trace tell does not wait for the dense net."""
    X, y = blobs(30)
    with pytest.raises(ValueError, match="max_bytes=10 cannot be met: with 1 bits in every"):
        QuantizedNet(untrained(Never), bits="auto", max_bytes=10).fit(X, y)
    with pytest.raises(ValueError, match=r"Untraceable cannot be traced by torch\.export"):
        QuantizedNet(untrained(Never, module=Untraceable), batch_norm="fold").fit(X, y)


# Each parameter with values that must give different weights, predictions or sizes.


def test_own_recurrent_class():
    """A class that is defined here only, with a layer read at two places."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(4, 5, batch_first=True)
            self.head = nn.Linear(10, 3)

        def forward(self, X):
            outputs, state = self.layer(X)
            again, _ = self.layer(X.flip(1))
            return self.head(torch.cat([outputs.mean(1) + again[:, -1], state[0]], 1))

    for parameters in ({}, {"activations": "dynamic"}, {"rounding": "reconstruct", "bits": 3},
                       {"retrain_epochs": 1, "bits": 2}):  # fmt: skip
        quantized, X = fit(Twice, (5, 4), **parameters)
        assert np.isfinite(quantized.predict_proba(X)).all()


def test_own_residual_class():
    """A branching class that is defined here only, with batch normalization."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.branch = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)

        def forward(self, X):
            X = self.norm(self.stem(X)).relu()
            return self.head((X + self.branch(X)).mean((2, 3)))

    for parameters in ({}, {"activations": "static"}, {"batch_norm": "fold"},
                       {"rounding": "reconstruct", "bits": 3}):  # fmt: skip
        quantized, X = fit(Block, IMAGE, **parameters)
        assert np.isfinite(quantized.predict_proba(X)).all()
        folded = isinstance(plain_module(quantized.net_.module_).norm, nn.Identity)
        assert folded == (parameters.get("batch_norm") == "fold")
