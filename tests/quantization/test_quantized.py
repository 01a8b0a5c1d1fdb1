import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from torch import nn

from skcompress import PrunedNet, QuantizedNet, size_in_bytes
from skcompress.layers import weight_matrices
from skcompress.quantization import FORMATS
from skcompress.quantization.allocation import total_bytes
from skcompress.quantization.integers import IntegerModule, widened
from skcompress.training.nets import plain_module
from tests.pruning_modules import (
    IMAGE,
    MLP,
    MODULES,
    ConvNet,
    Encoder,
    NormalizedMLP,
    classification,
    classifier,
    regression,
    regressor,
)


def fit(module=MLP, shape=(6,), **parameters):
    """Fit a QuantizedNet around a frozen net, which all parameters then share."""
    X, y = classification(shape=shape)
    torch.manual_seed(0)
    net = classifier(module, max_epochs=5).fit(X, y)
    return QuantizedNet(FrozenEstimator(net), **({"random_state": 0} | parameters)).fit(X, y), X


@functools.cache
def trained(name, n_samples=20):
    """Return a trained net for a module of MODULES, and its rows."""
    kind, params, shape = MODULES[name]
    X, y = classification(n_samples, shape=shape)
    if kind is Encoder:
        X = np.random.default_rng(0).integers(1, 7, (n_samples, *shape))
    torch.manual_seed(0)
    return classifier(kind, **{f"module__{k}": v for k, v in params.items()}).fit(X, y), X, y


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_module_and_format(name, format):
    """What predicts are the values that the codes stand for, and predictions are close."""
    net, X, y = trained(name)
    bits = max(bits for bits in FORMATS[format].widths if bits <= 8)
    quantized = QuantizedNet(FrozenEstimator(net), bits=bits, format=format).fit(X, y)
    weights = weight_matrices(quantized.net_.module_)
    assert quantized.quantized_.keys() == quantized.bits_.keys() == weights.keys()
    for weight_name, tensor in quantized.quantized_.items():
        assert torch.equal(weights[weight_name], tensor.dequantize())
        assert len(tensor.codes.unique()) <= 2**bits
    close = 0.02 if bits == 8 else 0.3
    keep = QuantizedNet(FrozenEstimator(net), bits=bits, format=format, batch_norm="keep")
    difference = keep.fit(X, y).predict_proba(X) - net.predict_proba(X)
    assert np.abs(difference).max() < close


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_every_module_in_integers(name, activations):
    """Predictions in integers are close to the net's, or the error says what cannot be done."""
    net, X, y = trained(name)
    quantized = QuantizedNet(FrozenEstimator(net), activations=activations, batch_norm="keep")
    if name in ("cnn, transposed", "cnn, one-dimensional"):
        with pytest.raises(ValueError, match=r"inputs of .*(decode|up).* cannot be observed"):
            quantized.fit(X, y)
        return
    quantized.fit(X, y)
    assert isinstance(quantized.net_.module_, IntegerModule)
    difference = quantized.predict_proba(X) - net.predict_proba(X)
    assert 0 < np.abs(difference).max() < 0.05


@pytest.mark.parametrize("name", ["mlp", "gru", "lstm, bidirectional", "attention", "tied"])
def test_reconstruction(name):
    """On every kind of layer whose inputs can be laid out as rows, it differs from rounding."""
    net, X, y = trained(name)
    nearest = QuantizedNet(FrozenEstimator(net), bits=3).fit(X, y)
    ours = QuantizedNet(FrozenEstimator(net), bits=3, rounding="reconstruct").fit(X, y)
    same = [torch.equal(q.codes, nearest.quantized_[n].codes) for n, q in ours.quantized_.items()]
    assert not all(same)


DIFFERENT = {
    "bits": [1, 2, 3, 4, 5, 6, 7, 8, 16],
    "format": ["symmetric", "affine", "codebook", "power-of-two"],
    "granularity": ["tensor", "channel", 2, 3],
    "scale": [None, 2**-4, 2**-3],
    "rounding": ["nearest", "reconstruct"],
    "float_bits": [10, 16, 32],
    "activations": [None, "dynamic", "static"],
    "batch_norm": ["recalibrate", "fold", "keep"],
    "retrain_epochs": [0, 1, 3],
    "retrain_lr": [None, 0.05, 0.2],
    "distill": [0.0, 0.5, 1.0],
    "distill_temperature": [None, 1.0, 4.0],
}
BESIDE = {"format": {"bits": 4}, "granularity": {"bits": 3}, "scale": {"bits": 4},
          "rounding": {"bits": 2}, "batch_norm": {"bits": 3}, "retrain_epochs": {"bits": 3},
          "retrain_lr": {"bits": 3, "retrain_epochs": 2},
          "distill": {"bits": 3, "retrain_epochs": 2},
          "distill_temperature": {"bits": 3, "retrain_epochs": 2, "distill": 0.7}}  # fmt: skip


@pytest.mark.parametrize("parameter", DIFFERENT)
def test_parameters_have_an_effect(parameter):
    """Every pair of values predicts differently."""
    module = NormalizedMLP if parameter == "batch_norm" else MLP
    fitted = [
        fit(module, **BESIDE.get(parameter, {}), **{parameter: value})
        for value in DIFFERENT[parameter]
    ]
    predictions = [quantized.predict_proba(X) for quantized, X in fitted]
    for one, other in itertools.combinations(predictions, 2):
        assert not np.array_equal(one, other)


def n_bytes(quantized):
    """Count the bytes of all parameters and buffers, before they are entropy-coded."""
    return total_bytes(quantized.net_, quantized.quantized_)


class TestBudgets:
    def test_max_bytes(self):
        """Parameters and buffers take no more than was asked for."""
        full = n_bytes(fit(bits=8)[0])
        for part in (0.7, 0.85, 1.0):
            quantized, _ = fit(bits="auto", max_bytes=int(part * full))
            assert n_bytes(quantized) <= int(part * full)
        assert set(quantized.bits_.values()) == {8}

    def test_max_loss(self):
        """More loss, fewer bits."""
        bits = [sum(fit(bits="auto", max_loss=m)[0].bits_.values()) for m in (0.001, 0.05, 1.0)]
        assert bits == sorted(bits, reverse=True)
        assert bits[0] > bits[-1]


class TestPruned:
    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("retrain_epochs", [0, 2])
    def test_pruned_weights_stay_exactly_zero(self, format, retrain_epochs):
        """By mask, in formats that have no zero too."""
        X, y = classification()
        pruned = PrunedNet(classifier(), sparsity=0.7, retrain_epochs=2, random_state=0)
        quantized = QuantizedNet(
            pruned, bits=2, format=format, retrain_epochs=retrain_epochs, random_state=0
        ).fit(X, y)
        for name, mask in quantized.masks_.items():
            weight = weight_matrices(quantized.net_.module_)[name]
            assert (weight[~mask] == 0).all()
            assert torch.equal(mask, quantized.estimator_.masks_[name])
        assert size_in_bytes(quantized) < size_in_bytes(quantized.estimator_)

    def test_removed_units(self):
        """The smaller module is quantized."""
        X, y = classification()
        pruned = PrunedNet(classifier(), granularity="unit", retrain_epochs=2, random_state=0)
        quantized = QuantizedNet(pruned, bits=4).fit(X, y)
        shapes = {n: tuple(t.mask.shape) for n, t in quantized.quantized_.items()}
        assert shapes == {n: tuple(w.shape)
                          for n, w in weight_matrices(quantized.net_.module_).items()}  # fmt: skip
        assert sum(np.prod(s) for s in shapes.values()) < 6 * 8 + 8 * 8 + 8 * 3

    def test_search_over_both(self):
        """Nested names reach all stages."""
        X, y = classification()
        pruned = PrunedNet(classifier(max_epochs=1), retrain_epochs=1, random_state=0)
        grid = {"bits": [2, 8], "estimator__sparsity": [0.5, 0.8],
                "estimator__estimator__module__hidden": [4]}  # fmt: skip
        search = GridSearchCV(QuantizedNet(pruned), grid, cv=2, error_score="raise").fit(X, y)
        assert len(search.cv_results_["params"]) == 4
        assert search.best_estimator_.estimator_.estimator_.module_.first.out_features == 4


def test_static_ranges_come_from_the_training_rows():
    """What is predicted later does not change them, however large."""
    quantized, X = fit(activations="static")
    ranges = copy.deepcopy(quantized.net_.module_.ranges)
    first = weight_matrices(plain_module(quantized.net_.module_))
    assert ranges.keys() == first.keys()
    assert ranges["first.weight"] == widened(float(X.min()), float(X.max()))
    quantized.predict(100 * X)
    assert quantized.net_.module_.ranges == ranges


@pytest.mark.parametrize("activations", [None, "dynamic", "static"])
@pytest.mark.parametrize("zeros", [slice(1, 2), slice(None)], ids=["a row", "all"])
def test_biases_of_outputs_without_weights(activations, zeros):
    """They are not rounded to steps of inputs, however large those are."""
    X, y = classification()
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight[zeros] = 0
    net = classifier(layer, criterion=nn.CrossEntropyLoss).initialize()
    net.classes_inferred_ = np.arange(3)
    quantized = QuantizedNet(FrozenEstimator(net), activations=activations, random_state=0)
    outputs = quantized.fit(100 * X, y).net_.forward(100 * X).numpy()
    biases = layer.bias.detach().expand(len(X), -1)
    np.testing.assert_allclose(outputs[:, zeros], biases[:, zeros], atol=1e-3)


def FrozenScore(net, X, y):  # noqa: N802 - reads as what it is
    """Return the coefficient of determination of a skorch net."""
    residual = y - net.predict(X).ravel()
    return 1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum()


def test_regressor():
    """One estimator serves both kinds."""
    X, y = regression()

    class Line(nn.Linear):
        def __init__(self):
            super().__init__(6, 1)

    net = regressor(Line, max_epochs=20).fit(X, y[:, None])
    quantized = QuantizedNet(FrozenEstimator(net), activations="static").fit(X, y)
    assert quantized.predict(X).shape == y.shape
    assert quantized.score(X, y) == pytest.approx(FrozenScore(net, X, y), abs=0.01)


def test_the_frozen_net_is_not_changed():
    """Neither its weights nor its normalizations."""
    X, y = classification(shape=IMAGE)
    net = classifier(ConvNet).fit(X, y)
    before = copy.deepcopy(net.module_.state_dict())
    for batch_norm in ("fold", "recalibrate"):
        QuantizedNet(FrozenEstimator(net), bits=2, batch_norm=batch_norm, retrain_epochs=1).fit(
            X, y
        )
    for name, tensor in net.module_.state_dict().items():
        assert torch.equal(tensor, before[name])
