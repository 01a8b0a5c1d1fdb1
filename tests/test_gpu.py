"""Nets on a GPU stay there; these tests skip without one."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score

from skcompress import DistilledNet, QuantizedNet
from skcompress.training.nets import plain_module
from tests.contract_modules import (
    CNN,
    Recurrent,
    assert_same_state,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

X, Y = blobs()
ONE_SHOT = {"schedule": "one-shot"}
SETTINGS = {
    "default": {},
    "fisher": {"criterion": "fisher"} | ONE_SHOT,
    "gradient": {"criterion": "gradient"},
    "wanda": {"criterion": "wanda"} | ONE_SHOT,
    "obs": {"criterion": "obs"} | ONE_SHOT,
    "random": {"criterion": "random"},
    "units": {"criterion": "activation", "granularity": "unit"} | ONE_SHOT,
    "2:4": {"granularity": "2:4"},
    "projected": {"schedule": "projected"},
    "scratch": {"recovery": "scratch"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_everything_runs_on_the_gpu(settings, weighted):
    """Each criterion and schedule leaves the module on the GPU and the masks on the CPU."""
    weights = np.linspace(0.5, 2, len(X)) if weighted else None
    estimator = pruned(classifier(device="cuda"), **settings).fit(X, Y, sample_weight=weights)
    assert all(p.is_cuda for p in estimator.net_.module_.parameters())
    assert not any(mask.is_cuda for mask in estimator.masks_.values())
    for name, mask in estimator.masks_.items():
        assert not state(estimator)[name].cpu()[~mask].any()
    assert estimator.score(X, Y) > 0.6


def test_masks_are_those_of_the_cpu():
    """The same weights are pruned to the same masks on both."""
    settings = ONE_SHOT | {"recovery": "none", "retrain_epochs": None, "criterion": "fisher"}
    net = classifier(callbacks=None).initialize()
    on_gpu = classifier(module=net.module, callbacks=None, device="cuda").initialize()
    on_gpu.module_.load_state_dict(net.module_.state_dict())
    first = pruned(FrozenEstimator(net), **settings).fit(X, Y)
    second = pruned(FrozenEstimator(on_gpu), **settings).fit(X, Y)
    for name, mask in first.masks_.items():
        assert torch.equal(mask, second.masks_[name])


QUANTIZED = {
    "8 bits": {},
    "affine": {"format": "affine", "bits": 4, "granularity": 2},
    "codebook": {"format": "codebook", "bits": 3, "retrain_epochs": 2},
    "power-of-two": {"format": "power-of-two", "bits": 4},
    "reconstruct": {"rounding": "reconstruct", "bits": 4},
    "retrained": {"bits": 3, "retrain_epochs": 2, "distill": 0.5},
    "dynamic": {"activations": "dynamic"},
    "static": {"activations": "static"},
    "auto": {"bits": "auto", "max_loss": 0.1},
}


@pytest.mark.parametrize("settings", QUANTIZED.values(), ids=QUANTIZED)
def test_quantized_nets(settings):
    """Every way to round leaves the module on the GPU, with the values of its codes."""
    net = classifier(device="cuda")
    estimator = QuantizedNet(net, random_state=0, **settings).fit(X, Y)
    assert all(p.is_cuda for p in estimator.net_.module_.parameters())
    weights = plain_module(estimator.net_.module_)
    for name, tensor in estimator.quantized_.items():
        assert torch.equal(weights.get_parameter(name).cpu(), tensor.dequantize().cpu())
    assert estimator.score(X, Y) > 0.6


@pytest.mark.parametrize("teacher", ["net", "forest"])
def test_distilled_nets(teacher):
    """A student on the GPU learns from a net there, or from a forest."""
    taught_by = classifier(device="cuda")
    taught_by = RandomForestClassifier(10, random_state=0) if teacher == "forest" else taught_by
    student = classifier(device="cuda")
    estimator = DistilledNet(student, taught_by, random_state=0).fit(X, Y)
    assert all(p.is_cuda for p in estimator.net_.module_.parameters())
    assert estimator.score(X, Y) > 0.6


@pytest.mark.parametrize("module", [CNN, Recurrent])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_convolutions_and_recurrent_layers(module, granularity):
    """Images and sequences are pruned on the GPU, weights as well as units."""
    rows = np.random.default_rng(0).normal(size=(60, 1, 8, 8) if module is CNN else (60, 5, 2))
    net = classifier(module=module, callbacks=None, device="cuda", max_epochs=2)
    estimator = pruned(net, granularity=granularity).fit(rows, Y[:60])
    assert estimator.predict(rows).shape == (60,)
    assert all(p.is_cuda for p in estimator.net_.module_.parameters())


def test_same_seed_same_bits():
    """Repeated fits agree on one GPU, and leave its generator alone."""
    before = torch.cuda.get_rng_state()
    first, second = (pruned(classifier(device="cuda")).fit(X, Y) for _ in range(2))
    assert_same_state(state(first), state(second))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_pickles_and_scores():
    """Nets on a GPU are cross-validated and pickled."""
    X_line, y = line()
    net = regressor(device="cuda", max_epochs=20)
    assert cross_val_score(pruned(net), X_line, y, cv=2).min() > 0.5
    estimator = pruned(net).fit(X_line, y)
    back = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_allclose(back.predict(X_line), estimator.predict(X_line), rtol=1e-5)
