"""The contract of fit and predict that every technique shares."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from tests.contract_modules import (
    Classifier,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
)

X, Y = blobs()
# Of three classes.
WELL_ABOVE_CHANCE = 0.75


def test_type_is_that_of_the_wrapped_net():
    """The same class is a classifier or a regressor, by what it wraps, nested or frozen."""
    frozen = FrozenEstimator(classifier().initialize())
    assert is_classifier(pruned())
    assert is_classifier(pruned(pruned()))
    assert is_classifier(pruned(frozen))
    assert is_regressor(pruned(regressor()))
    assert not get_tags(pruned(binary_classifier())).classifier_tags.multi_class
    assert get_tags(pruned()).classifier_tags.multi_class


@pytest.mark.parametrize(
    ("criterion", "softmax"), [(nn.CrossEntropyLoss, False), (nn.NLLLoss, True)]
)
def test_losses_of_logits_and_of_probabilities(criterion, softmax):
    """Both losses train, and give the same probabilities from the same weights."""
    net = classifier(criterion=criterion, module__softmax=softmax)
    estimator = pruned(net, criterion="fisher").fit(X, Y)
    assert estimator.score(X, Y) > WELL_ABOVE_CHANCE
    logits = estimator.net_.module_.layers(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(
        estimator.predict_proba(X), logits.softmax(1).detach(), rtol=1e-5, atol=1e-7
    )


def test_logits_and_probabilities_train_alike():
    """NLLLoss on a softmax and CrossEntropyLoss on logits are the same loss."""
    with_logits = pruned().fit(X, Y)
    net = classifier(criterion=nn.NLLLoss, module__softmax=True)
    with_softmax = pruned(net).fit(X, Y)
    np.testing.assert_allclose(
        with_logits.predict_proba(X), with_softmax.predict_proba(X), rtol=1e-2, atol=1e-3
    )


class OwnMethods(NeuralNetClassifier):
    """A net with a loss and a step of its own, which count their calls."""

    calls = ()

    def get_loss(self, y_pred, y_true, X=None, training=False):
        type(self).calls += (("loss", training),)
        penalty = 0.05 * sum(p.abs().sum() for p in self.module_.parameters())
        return super().get_loss(y_pred, y_true, X, training=training) + penalty

    def train_step_single(self, batch, **fit_params):
        type(self).calls += (("step", self.lr),)
        return super().train_step_single(batch, **fit_params)


def test_a_subclass_trains_through_its_own_methods():
    """The loss and the step of a subclass run in each epoch of both phases."""
    OwnMethods.calls = ()
    estimator = pruned(classifier(OwnMethods, max_epochs=3), retrain_epochs=2).fit(X, Y)
    n_batches = -(-len(X) // 32)
    steps = [call for call in OwnMethods.calls if call[0] == "step"]
    assert len(steps) == (3 + 2) * n_batches
    assert OwnMethods.calls.count(("loss", True)) == (3 + 2) * n_batches
    assert type(estimator.net_) is OwnMethods


def test_the_loss_of_a_subclass_changes_the_result():
    """A penalty on weights makes them smaller, in the dense net and in the pruned one."""

    def size(net):
        return sum(p.abs().sum() for p in net.module_.parameters())

    penalized = pruned(classifier(OwnMethods)).fit(X, Y)
    plain = pruned().fit(X, Y)
    assert size(penalized.estimator_) < 0.9 * size(plain.estimator_)
    assert size(penalized.net_) < 0.9 * size(plain.net_)


def test_score_is_accuracy_or_r2_with_weights():
    """Scores weigh rows as scikit-learn's metrics do."""
    estimator = pruned().fit(X, Y)
    right = estimator.predict(X) == Y
    weights = np.where(right, 1.0, 3.0)
    assert estimator.score(X, Y) == pytest.approx(right.mean())
    assert estimator.score(X, Y, weights) == pytest.approx(right.sum() / weights.sum())
    X_line, y = line()
    estimator = pruned(regressor()).fit(X_line, y)
    weights = np.linspace(0, 1, len(y))
    residual = weights @ (y - estimator.predict(X_line)) ** 2
    total = weights @ (y - np.average(y, weights=weights)) ** 2
    assert estimator.score(X_line, y, weights) == pytest.approx(1 - residual / total)


NAMES = np.array(["a", "b", "c"])


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("missing", [0, 2])
def test_classes_that_the_user_names(nested, missing):
    """Rows without a rare class fit a net that knows of it, and it keeps its output."""
    net = classifier(classes=["a", "b", "c"])
    estimator = pruned(pruned(net) if nested else net)
    rows = missing != Y
    estimator.fit(X[rows], NAMES[Y[rows]])
    assert estimator.classes_.tolist() == ["a", "b", "c"]
    probabilities = estimator.predict_proba(X[rows])
    assert probabilities.shape[1] == 3
    assert probabilities[:, missing].max() < 0.5
    assert estimator.score(X[rows], NAMES[Y[rows]]) > WELL_ABOVE_CHANCE
    assert net.classes == ["a", "b", "c"]


def test_classes_in_another_order():
    """The order of the outputs is the user's, and that of every stage inside."""
    outer = pruned(pruned(classifier(classes=["c", "a", "b"]))).fit(X, NAMES[Y])
    assert outer.classes_.tolist() == ["c", "a", "b"]
    assert outer.estimator_.classes_.tolist() == ["c", "a", "b"]
    assert outer.score(X, NAMES[Y]) > WELL_ABOVE_CHANCE


def test_classes_that_leave_some_out():
    """A label that the user did not name is an error, before any training."""
    with pytest.raises(ValueError, match=r"labels \['c'\] that the net's classes= leaves out"):
        pruned(classifier(Classifier, classes=["a", "b"])).fit(X, NAMES[Y])


def test_verbose_prints_both_phases(capsys):
    """verbose= rules the dense fit and retraining, whatever the wrapped net says itself."""
    pruned(classifier(verbose=1)).fit(X, Y)
    assert capsys.readouterr().out == ""
    pruned(verbose=1).fit(X, Y)
    printed = capsys.readouterr().out
    assert "train_loss" in printed
    assert "compression epoch 4/4: training loss" in printed


def test_signature_of_fit():
    """The arguments of fit are rows, targets and weights by scikit-learn's names."""
    assert list(inspect.signature(pruned().fit).parameters) == ["X", "y", "sample_weight"]


def test_a_net_that_diverges_is_named():
    """Weights that become infinite in training are an error, not a silent mask."""
    net = classifier(lr=1e30, optimizer=torch.optim.SGD)
    with pytest.raises(ValueError, match="Did the net diverge"):
        pruned(net).fit(X, Y)


def test_binary_net_with_a_positive_weight():
    """Parameters of the criterion reach both phases."""
    X, y = blobs(n_classes=2)
    heavy = binary_classifier(NeuralNetBinaryClassifier, criterion__pos_weight=torch.tensor(50.0))
    noisy = X + np.random.default_rng(0).normal(scale=4, size=X.shape)
    plain = pruned(binary_classifier()).fit(noisy, y).predict(noisy).mean()
    assert pruned(heavy).fit(noisy, y).predict(noisy).mean() > plain + 0.2
