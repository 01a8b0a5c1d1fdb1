"""What comes from the cache is what a fit without it gives, for estimators of all kinds."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skcompress import DistilledNet, PrunedNet, QuantizedNet
from tests.contract_modules import (
    CNN,
    Recurrent,
    assert_same_state,
    blobs,
    classifier,
    line,
    regressor,
    state,
)
from tests.training.cache_modules import entries


def attributes(estimator):
    """Return all fitted attributes but the nets, comparably."""
    names = [n for n in vars(estimator) if n.endswith("_") and n not in ("net_", "estimator_")]
    return {n: repr(getattr(estimator, n)) for n in sorted(names)}


def assert_same_fit(first, second):
    """Compare fitted estimators that have not predicted: attributes, tensors, modes, history."""
    assert attributes(first) == attributes(second)
    assert_same_state(state(first), state(second))
    for one, two in [(first.net_, second.net_), (inner_net(first), inner_net(second))]:
        assert repr(one.module_) == repr(two.module_)
        assert [m.training for m in one.module_.modules()] == [
            m.training for m in two.module_.modules()
        ]
        assert [p.requires_grad for p in one.module_.parameters()] == [
            p.requires_grad for p in two.module_.parameters()
        ]
        timeless = [
            [{k: v for k, v in row.items() if k != "dur"} for row in net.history_ or []]
            for net in (one, two)
        ]
        assert repr(timeless[0]) == repr(timeless[1])
        assert one.get_params().keys() == two.get_params().keys()


def inner_net(estimator):
    """Return the skorch net of what an estimator wraps."""
    inner = estimator.estimator_
    inner = inner.estimator if isinstance(inner, FrozenEstimator) else inner
    return getattr(inner, "net_", inner)


def images(n_samples=60):
    """Return small random images of three classes."""
    return np.random.default_rng(0).normal(size=(n_samples, 1, 8, 8)), np.arange(n_samples) % 3


def sequences(n_samples=60):
    """Return short random sequences of three classes."""
    return np.random.default_rng(0).normal(size=(n_samples, 5, 2)), np.arange(n_samples) % 3


def with_callbacks():
    """Return a net with a schedule, early stopping and an internal validation set."""
    callbacks = [LRScheduler("StepLR", step_size=2), EarlyStopping(patience=3)]
    return classifier(
        callbacks=callbacks, train_split=ValidSplit(4), module__n_outputs=3, max_epochs=6
    )


def singles():
    """Return rows in single precision, as a bare net needs them."""
    X, y = blobs()
    return X.astype(np.float32), y


ONCE = {"random_state": 0, "n_threads": 1}
SHORT = ONCE | {"retrain_epochs": 2}
ESTIMATORS = {
    "weights": (lambda: PrunedNet(classifier(), **SHORT), blobs),
    "labels": (lambda: PrunedNet(classifier(), **SHORT), lambda: named(*blobs())),
    "units": (lambda: PrunedNet(classifier(), granularity="unit", **SHORT), blobs),
    "regressor": (lambda: PrunedNet(regressor(), **SHORT), line),
    "rewind": (lambda: PrunedNet(with_callbacks(), recovery="rewind", **SHORT), blobs),
    "scratch": (lambda: PrunedNet(classifier(), recovery="scratch", **SHORT), blobs),
    "images": (lambda: QuantizedNet(classifier(module=CNN, callbacks=[]), **ONCE), images),
    "units of images": (
        lambda: PrunedNet(classifier(module=CNN, callbacks=[]), granularity="unit", **SHORT),
        images,
    ),
    "units of sequences": (
        lambda: PrunedNet(classifier(module=Recurrent, callbacks=[]), granularity="unit", **SHORT),
        sequences,
    ),
    "folded": (
        lambda: QuantizedNet(
            classifier(module=CNN, callbacks=[]), batch_norm="fold", activations="static", **ONCE
        ),
        images,
    ),
    "integers": (lambda: QuantizedNet(classifier(), activations="dynamic", **SHORT), blobs),
    "codebook": (lambda: QuantizedNet(classifier(), bits=3, format="codebook", **ONCE), blobs),
    "nested": (lambda: QuantizedNet(PrunedNet(classifier(), sparsity=0.7), **ONCE), blobs),
    "frozen": (
        lambda: PrunedNet(FrozenEstimator(seeded(classifier()).fit(*singles())), **SHORT),
        singles,
    ),
    "instance": (
        lambda: PrunedNet(classifier(module=instance(), callbacks=[]), **SHORT),
        blobs,
    ),
    "distilled": (
        lambda: DistilledNet(classifier(), RandomForestClassifier(5), cv=2, **ONCE),
        blobs,
    ),
}


def named(X, y):
    """Give the classes names."""
    return X, np.array(["a", "b", "c"])[y]


def seeded(net):
    """Seed what follows, and return the net."""
    torch.manual_seed(0)
    return net


def instance():
    """Return a module that is built outside of the net, the same each time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_entry_gives_back_the_fit(name, tmp_path):
    """What comes from the cache is what a fit without it gives, bit for bit."""
    make, data = ESTIMATORS[name]
    inputs, y = data()
    plain = make().fit(inputs, y)
    first = make().set_params(memory=tmp_path / "cache").fit(inputs, y)
    before = {path: path.stat().st_mtime_ns for path in entries(tmp_path / "cache")}
    second = make().set_params(memory=tmp_path / "cache").fit(inputs, y)
    assert len(before) >= (1 if name == "frozen" else 2)
    assert before.keys() == set(entries(tmp_path / "cache"))
    assert_same_fit(first, plain)
    assert_same_fit(second, plain)
    expected = plain.predict(inputs)
    np.testing.assert_array_equal(first.predict(inputs), expected)
    np.testing.assert_array_equal(second.predict(inputs), expected)
