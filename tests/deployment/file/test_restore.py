import numpy as np
import pytest
import torch
from torch import nn

from skcompress import load, save
from tests.deployment.file.modules import data, net_of, pruned, quantized
from tests.pruning_modules import MLP, classification, classifier


def back(estimator, into, tmp_path):
    """Save one estimator and load it into another."""
    save(estimator, tmp_path / "net.skc")
    return load(tmp_path / "net.skc", estimator=into)


def assert_close(again, estimator, X):
    """Compare probabilities; only the order of sums may differ."""
    np.testing.assert_allclose(
        again.predict_proba(X), estimator.predict_proba(X), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    ["mlp, batch norm", "cnn", "gru, bidirectional", "lstm, h_n", "attention", "encoder",
     "branches", "tied"],
)  # fmt: skip
def test_removed_units_are_removed_again(name, tmp_path):
    """A fresh module of the full width ends with the file's widths and weights."""
    X, y = data(name)
    estimator = pruned(net_of(name), granularity="unit", sparsity=0.4).fit(X, y)
    net = net_of(name)
    again = back(estimator, net, tmp_path)
    assert not net.initialized_
    assert_close(again, estimator, X)
    again.partial_fit(X, y)
    assert again.history[-1, "train_loss"] > 0


def test_training_goes_on_from_the_weights(tmp_path):
    """The optimizer of the loaded net moves the weights of the file."""
    X, y = data("cnn")
    estimator = pruned(net_of("cnn"), granularity="unit").fit(X, y)
    again = back(estimator, net_of("cnn"), tmp_path)
    before = [p.detach().clone() for p in again.module_.parameters()]
    again.partial_fit(X, y)
    assert not any(
        torch.equal(a, b) for a, b in zip(before, again.module_.parameters(), strict=True)
    )


def test_a_compressed_net_is_fitted(tmp_path):
    """It has the masks, the integers and the labels of the one that was saved."""
    X, y = classification()
    labels = np.array(["a", "b", "c"])[y]
    unfitted = quantized(pruned(classifier()), activations="static")
    fitted = quantized(pruned(classifier()), activations="static").fit(X, labels)
    again = back(fitted, unfitted, tmp_path)
    assert not hasattr(unfitted, "net_")
    assert_close(again, fitted, X)
    assert again.predict(X).tolist() == fitted.predict(X).tolist()
    for name, mask in again.masks_.items():
        weight = again.net_.module_.module.get_parameter(name)
        assert torch.equal(mask, weight != 0)
    assert {n: q.bits for n, q in again.quantized_.items()} == fitted.bits_


def test_folded_normalization_stays_folded(tmp_path):
    """The layer before has the bias that it got, and the normalization is left out."""
    X, y = data("cnn")
    estimator = quantized(net_of("cnn"), batch_norm="fold", bits=8).fit(X, y)
    again = back(estimator, net_of("cnn"), tmp_path)
    assert isinstance(again.module_.norm, nn.Identity)
    assert_close(again, estimator, X)


def test_other_modules_are_refused(tmp_path):
    """The error names what does not fit."""
    X, y = classification()
    estimator = pruned(classifier()).fit(X, y)
    with pytest.raises(ValueError, match=r"it lacks \[.*\], and has"):
        back(estimator, net_of("branches"), tmp_path)
    with pytest.raises(ValueError, match="has shape"):
        back(estimator, classifier(MLP, module__n_outputs=5), tmp_path)
    with pytest.raises(TypeError, match="must be a skorch net"):
        back(estimator, 3, tmp_path)
