"""The dense net stays on as teacher while a net is pruned."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet
from skcompress.training import teaching
from skcompress.training.loop import Data
from skcompress.training.teaching import taught_by
from tests.contract_modules import (
    EXACT,
    MLP,
    assert_same_state,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)

X, Y = blobs(60)
ROWS = X.astype(np.float32)


def test_the_dense_net_teaches_in_evaluation_mode():
    """Its probabilities are the targets, and it is not changed."""
    net = classifier().fit(ROWS, Y)
    net.module_.train()
    data = taught_by(net, Data(ROWS, Y), 0.5, 3.0)
    np.testing.assert_allclose(data.soft.values, net.predict_proba(ROWS), rtol=1e-5)
    assert (data.soft.alpha, data.soft.temperature, data.soft.kind) == (0.5, 3.0, "kl")
    net.module_.train()
    taught_by(net, Data(ROWS, Y), 0.5)
    assert net.module_.training
    assert not net.criterion_._forward_pre_hooks


def test_without_weight_nothing_is_computed():
    """No weight of a teacher leaves the rows as they are."""
    data = Data(ROWS, Y)
    assert taught_by(classifier(), data, 0.0) is data


def test_answers_are_computed_once(monkeypatch):
    """However many epochs there are, the teacher looks at the rows once before training."""
    calls, compute = [], teaching.criterion_inputs

    def counted(net, data):
        calls.append(len(data.y))
        return compute(net, data)

    monkeypatch.setattr(teaching, "criterion_inputs", counted)
    pruned(distill=0.5, retrain_epochs=6).fit(X, Y)
    # Two rows of the net that is not trained yet tell whether it can be taught.
    assert calls == [2, 60]


def test_taught_alone_a_pruned_net_goes_back_to_the_dense_one():
    """With the dense net's labels alone and nothing pruned, retraining stays where it is."""
    settings = {"sparsity": 0.0, "schedule": "one-shot", "retrain_epochs": 5}
    # Adam would take whole steps along gradients that are nothing but rounding.
    net = classifier(**EXACT | {"optimizer": torch.optim.SGD, "lr": 0.1})
    estimator = pruned(net, distill=1.0, **settings).fit(X, Y)
    dense, kept = estimator.estimator_.module_.state_dict(), state(estimator)
    for name, tensor in dense.items():
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=1e-6)
    moved = state(pruned(net, **settings).fit(X, Y))
    assert any((moved[name] - tensor).abs().max() > 1e-3 for name, tensor in dense.items())


def divergence(estimator):
    """Return how far the pruned net's probabilities are from those of the dense net."""
    dense = np.log(estimator.estimator_.predict_proba(ROWS))
    return (np.exp(dense) * (dense - np.log(estimator.predict_proba(X)))).sum(1).mean()


@pytest.mark.parametrize("schedule", ["gradual", "one-shot", "projected"])
def test_a_taught_net_is_closer_to_its_teacher(schedule):
    """At equal sparsity, the probabilities agree better with the dense net's."""
    settings = {"sparsity": 0.7, "schedule": schedule, "retrain_epochs": 20}
    taught, alone = (pruned(distill=a, **settings).fit(X, Y) for a in (1.0, 0.0))
    assert divergence(taught) < divergence(alone)
    assert taught.sparsity_ == alone.sparsity_


@pytest.mark.parametrize("n_targets", [1, 2])
def test_regressors_are_taught(n_targets):
    """The predictions of the dense net are the targets: taught by them alone, it stays there."""
    rows, y = line(60)
    y = y if n_targets == 1 else np.column_stack([y, -y])
    net = regressor(**EXACT | {"optimizer": torch.optim.SGD, "lr": 0.01})
    settings = {"sparsity": 0.0, "schedule": "one-shot", "retrain_epochs": 20}
    taught = pruned(net, distill=1.0, **settings).fit(rows, y)
    dense = taught.estimator_.predict(rows).reshape(y.shape)
    np.testing.assert_allclose(taught.predict(rows), dense, atol=1e-6)
    alone = pruned(net, **settings).fit(rows, y)
    assert abs(alone.predict(rows) - dense).max() > 1e-2


@pytest.mark.parametrize(
    "net",
    [
        binary_classifier(),
        classifier(criterion=nn.NLLLoss, module__softmax=True),
        FrozenEstimator(classifier().fit(ROWS, (Y > 0).astype(int))),
        PrunedNet(classifier(), sparsity=0.3, retrain_epochs=2),
    ],
    ids=["binary", "probabilities", "frozen", "nested"],
)
def test_all_kinds_of_nets_are_taught(net):
    """Whatever the net gives and whoever trained it."""
    y = (Y > 0).astype(int)
    estimator = pruned(net, distill=0.7, sparsity=0.6).fit(X, y)
    assert estimator.score(X, y) > 0.8


def test_weights_are_counts_for_a_taught_net():
    """Integer weights equal repeated rows under both parts of the loss."""
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    settings = {"distill": 0.6, "schedule": "one-shot"}
    weighted = pruned(classifier(**EXACT), **settings).fit(X, Y, sample_weight=counts)
    repeated = np.repeat(X, counts, axis=0), np.repeat(Y, counts)
    plain = state(pruned(classifier(**EXACT), **settings).fit(*repeated))
    for name, tensor in state(weighted).items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-6, atol=1e-9)


def test_same_seed_same_bits():
    """The teacher draws nothing that would change the bits."""
    first, second = (pruned(distill=0.5, n_threads=1).fit(X, Y) for _ in range(2))
    assert_same_state(state(first), state(second))


class Ignoring(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return nn.functional.cross_entropy(y_pred, y_true)

    def train_step(self, *args, **kwargs):
        raise AssertionError("the net was trained before the error")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": Ignoring}, "get_loss of Ignoring never calls criterion_"),
        ({"criterion": nn.MultiMarginLoss}, "criterion=MultiMarginLoss takes"),
    ],
)
def test_nets_that_cannot_be_taught_are_refused_before_training(settings, match):
    """Two rows on the untrained net tell it."""
    with pytest.raises(ValueError, match=match):
        PrunedNet(classifier(module=MLP, **settings), distill=0.5).fit(X, Y)
