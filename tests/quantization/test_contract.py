"""What every estimator promises, kept by QuantizedNet: seeds, rows, weights, pickles."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, cross_validate

from skcompress import QuantizedNet
from tests.contract_modules import (
    CNN,
    EXACT,
    MLP,
    Recurrent,
    assert_same_state,
    binary_classifier,
    blobs,
    classifier,
    quantized,
    regressor,
    state,
)
from tests.test_determinism import Noisy, seed_everything
from tests.test_no_leak import SEEN, SeeingMLP, SeeingNet
from tests.test_no_leak import X as NUMBERED
from tests.test_no_leak import Y as NUMBERED_Y

X, Y = blobs()

SETTINGS = {
    "default": {"activations": None, "retrain_epochs": 0},
    "retrained": {"bits": 2, "activations": None},
    "dynamic": {},
    "static": {"activations": "static"},
    "codebook": {"format": "codebook", "bits": 3, "activations": None},
    "reconstructed": {"rounding": "reconstruct", "bits": 3},
    "auto": {"bits": "auto", "max_loss": 0.05},
    "taught": {"distill": 0.7, "bits": 2},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_same_seed_same_bits(name):
    """Whatever the global seeds are, and again in the same estimator."""
    net = classifier(module=Noisy, iterator_train__shuffle=True)
    estimator = quantized(net, n_threads=1, **SETTINGS[name])
    seed_everything(1)
    first = estimator.fit(X, Y)
    codes = {n: q.codes for n, q in first.quantized_.items()}
    weights = copy.deepcopy(state(first))
    seed_everything(2)
    second = estimator.fit(X, Y)
    assert_same_state(weights, state(second))
    assert all(torch.equal(codes[n], q.codes) for n, q in second.quantized_.items())


def test_workers_give_the_same_bits():
    """One process and two give the same nets at an equal number of threads."""
    results = [
        cross_validate(quantized(n_threads=1), X, Y, cv=2, n_jobs=n_jobs, return_estimator=True)
        for n_jobs in (1, 2)
    ]
    for alone, worker in zip(*(r["estimator"] for r in results), strict=True):
        assert_same_state(state(alone), state(worker))


class Seeing(QuantizedNet):
    """Keep what was seen during ``fit``."""

    def fit(self, X, y, sample_weight=None):
        SEEN.clear()
        super().fit(X, y, sample_weight)
        self.seen_ = {where: set(rows) for where, rows in SEEN.items()}
        return self


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_outside_the_fold_is_seen(name):
    """Not by calibration, by reconstruction, by the choice of bits or by training."""
    settings = {"activations": "dynamic", "retrain_epochs": 1} | SETTINGS[name]
    net = classifier(SeeingNet, module=SeeingMLP, max_epochs=1)
    result = cross_validate(
        Seeing(net, random_state=0, **settings), NUMBERED, NUMBERED_Y,
        cv=KFold(3, shuffle=True, random_state=0), return_estimator=True, return_indices=True,
        error_score="raise",
    )  # fmt: skip
    for estimator, train in zip(result["estimator"], result["indices"]["train"], strict=True):
        assert estimator.seen_["forward"] == set(train.tolist())
        assert all(seen <= set(train.tolist()) for seen in estimator.seen_.values())


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_round_trips(name, how):
    """What comes back predicts the same, bit for bit, and can be fitted again."""
    estimator = quantized(**SETTINGS[name]).fit(X, np.array(["a", "b", "c"])[Y])
    back = copy.deepcopy(estimator) if how == "deepcopy" else pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(back.predict_proba(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(back.predict(X), estimator.predict(X))
    assert_same_state(state(back.fit(X, Y)), state(estimator.fit(X, Y)))


def test_pickles_are_small():
    """The weights, their codes and integers, and the dense net's: no optimizer state."""
    wide = classifier(module__hidden=2000)
    size = len(pickle.dumps(quantized(wide).fit(X, Y)))
    weights = 4 * 2000 * 7
    # The dense and the rounded weights in four bytes, integers in two, codes and masks in one.
    assert size < weights * (4 + 4 + 2 + 1 + 1) / 4 + 60_000


@pytest.mark.parametrize("name", ["default", "retrained", "codebook", "auto"])
def test_a_weight_of_two_is_a_row_twice(name):
    """In full batches and double precision."""
    weights = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(len(X)), weights.astype(int))
    estimator = quantized(classifier(**EXACT), **SETTINGS[name])
    by_weight = copy.deepcopy(estimator.fit(X, Y, sample_weight=weights).predict_proba(X))
    np.testing.assert_allclose(
        estimator.fit(X[twice], Y[twice]).predict_proba(X), by_weight, rtol=1e-6, atol=1e-9
    )


DATA = np.random.default_rng(0)
NETS = {
    "binary": (binary_classifier(), X[Y < 2], Y[Y < 2]),
    "image": (classifier(module=CNN, callbacks=None), DATA.normal(size=(30, 1, 8, 8)),
              np.arange(30) % 3),
    "sequence": (classifier(module=Recurrent), DATA.normal(size=(30, 5, 2)), np.arange(30) % 3),
    "regression": (regressor(), X, X[:, 0]),
    "two targets": (regressor(), X, X[:, :2]),
    "probabilities": (classifier(module=MLP, module__softmax=True, criterion=torch.nn.NLLLoss),
                      X, Y),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("activations", [None, "dynamic", "static"])
def test_nets_and_data(name, activations):
    """Every kind of net, of rows and of targets; 8 bits predict almost what the dense net does."""
    net, rows, y = NETS[name]
    fitted = quantized(net, retrain_epochs=0, activations=activations, batch_norm="keep")
    fitted.fit(rows, y)
    dense = QuantizedNet(FrozenEstimator(fitted.estimator_), bits=16, batch_norm="keep")
    method = "predict_proba" if hasattr(fitted, "predict_proba") else "predict"
    ours, theirs = (getattr(e, method)(rows) for e in (fitted, dense.fit(rows, y)))
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=0.08)
