"""A FrozenEstimator is not trained again, and not changed."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_validate
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch.nn.utils import prune

from tests.contract_modules import (
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

X, Y = blobs()
ROWS = X.astype(np.float32)
NO_TRAINING = {"schedule": "one-shot", "recovery": "none", "retrain_epochs": None}


class Counting(NeuralNetClassifier):
    """A net that counts its steps of training."""

    steps = 0

    def train_step(self, *args, **kwargs):
        type(self).steps += 1
        return super().train_step(*args, **kwargs)


@pytest.fixture
def fitted():
    """Return a fitted net, on data that needs no conversion."""
    torch.manual_seed(0)
    net = classifier(Counting).fit(ROWS, Y)
    Counting.steps = 0
    return net


def contents(net):
    """Copy all that makes a net: weights, optimizer state, training flags, history."""
    modules = {name: module.training for name, module in net.module_.named_modules()}
    weights = copy.deepcopy(net.module_.state_dict())
    optimizer = copy.deepcopy(net.optimizer_.state_dict()["state"])
    return weights, optimizer, modules, copy.deepcopy(net.history_.to_list())


def test_the_dense_fit_is_not_repeated(fitted):
    """Without recovery a frozen net takes no step; with it, only those of retraining."""
    assert pruned(FrozenEstimator(fitted), **NO_TRAINING).fit(X, Y).sparsity_ > 0.4
    assert Counting.steps == 0
    pruned(FrozenEstimator(fitted), retrain_epochs=2).fit(X, Y)
    assert Counting.steps == 2 * -(-len(X) // 32)


@pytest.mark.parametrize(
    "settings", [{}, {"granularity": "unit"}, {"criterion": "fisher"}], ids=str
)
def test_the_frozen_net_does_not_change(fitted, settings):
    """Weights, gradients, optimizer state and flags stay as they were, bit for bit."""
    fitted.module_.train()
    weights, optimizer, modules, history = contents(fitted)
    attributes = dict(vars(fitted))
    estimator = pruned(FrozenEstimator(fitted), **settings).fit(X, Y)
    estimator.predict(X)
    now = contents(fitted)
    assert_same_state(dict(now[0]), dict(weights))
    for key, values in optimizer.items():
        assert all(torch.equal(values[name], now[1][key][name]) for name in values)
    assert now[2:] == (modules, history)
    assert vars(fitted) == attributes
    assert not np.shares_memory(
        estimator.net_.module_.state_dict()["layers.0.weight"].numpy(),
        fitted.module_.layers[0].weight.detach().numpy(),
    )


def test_what_stays_is_the_frozen_nets(fitted):
    """Without recovery each weight is the frozen one, or zero."""
    estimator = pruned(FrozenEstimator(fitted), **NO_TRAINING).fit(X, Y)
    for name, mask in estimator.masks_.items():
        dense = fitted.module_.state_dict()[name]
        torch.testing.assert_close(state(estimator)[name], dense * mask, rtol=0, atol=0)


def test_cross_validation_starts_from_one_net(fitted):
    """Each fold works on a copy of the same frozen net."""
    model = pruned(FrozenEstimator(fitted), **NO_TRAINING)
    result = cross_validate(model, X, Y, cv=3, return_estimator=True)
    assert Counting.steps == 0
    assert result["test_score"].min() > 0.6
    folds = result["estimator"]
    assert all(fold.estimator_.estimator is fitted for fold in folds)
    assert len({id(fold.net_.module_) for fold in folds}) == 3


def test_an_initialized_net_takes_its_classes_from_y():
    """A net around a loaded module, which no fit has told of classes, takes any labels."""
    loaded = MLP()
    loaded.load_state_dict(pruned(classifier()).fit(X, Y).net_.module_.state_dict())
    net = classifier(module=loaded, callbacks=None).initialize()
    estimator = pruned(FrozenEstimator(net), **NO_TRAINING, sparsity=0.0)
    estimator.fit(X, np.array(["a", "b", "c"])[Y])
    assert estimator.classes_.tolist() == ["a", "b", "c"]
    assert_same_state(state(estimator), dict(loaded.state_dict()))
    assert estimator.score(X, np.array(["a", "b", "c"])[Y]) > 0.75


def test_an_initialized_binary_net_takes_its_classes_from_y():
    """A binary net of skorch says {0, 1} before it has seen any label; that is no claim."""
    X, y = blobs(n_classes=2)
    net = binary_classifier(callbacks=None, module__n_outputs=1).initialize()
    estimator = pruned(FrozenEstimator(net)).fit(X, np.array(["no", "yes"])[y])
    assert estimator.classes_.tolist() == ["no", "yes"]


def test_a_frozen_net_keeps_its_classes(fitted):
    """Where a fold lacks a class, the outputs keep their meaning."""
    two = Y != 1
    estimator = pruned(FrozenEstimator(fitted)).fit(X[two], Y[two])
    assert estimator.classes_.tolist() == [0, 1, 2]
    assert estimator.predict_proba(X).shape == (len(X), 3)
    assert estimator.score(X[two], Y[two]) > 0.9


def test_named_classes_number_the_outputs():
    """The net's own `classes` say which output is which, in any order."""
    names = np.array(["c", "a", "b"])
    net = classifier(classes=names.tolist()).fit(ROWS, Y)
    estimator = pruned(FrozenEstimator(net), **NO_TRAINING, sparsity=0.0).fit(X, names[Y])
    assert estimator.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(estimator.predict(X), names[net.predict(ROWS)])


def test_unknown_labels(fitted):
    """A frozen net has no output for a label that it was not trained on."""
    with pytest.raises(ValueError, match=r"labels \[5\] .*frozen net.*classes are \[0, 1, 2\]"):
        pruned(FrozenEstimator(fitted)).fit(X, np.where(Y == 2, 5, Y))
    inner = pruned().fit(X, np.array(["a", "b", "c"])[Y])
    with pytest.raises(ValueError, match=r"labels \['d'\]"):
        pruned(FrozenEstimator(inner)).fit(X, np.array(["a", "b", "d"])[Y])


def test_a_frozen_compressed_net_is_pruned_further(fitted):
    """Masks of a frozen PrunedNet are inherited, and its labels kept."""
    names = np.array(["a", "b", "c"])
    inner = pruned().fit(X, names[Y])
    before = state(inner)
    outer = pruned(FrozenEstimator(inner), sparsity=0.7).fit(X, names[Y])
    assert outer.sparsity_ == pytest.approx(0.7, abs=0.01)
    for name, mask in inner.masks_.items():
        assert not (outer.masks_[name] & ~mask).any()
    assert outer.classes_.tolist() == ["a", "b", "c"]
    assert_same_state(state(inner), before)


def test_a_frozen_net_around_an_instance_is_copied():
    """The user's module instance is neither pruned nor retrained."""
    module = MLP()
    net = classifier(module=module, callbacks=None).initialize()
    before = copy.deepcopy(module.state_dict())
    estimator = pruned(FrozenEstimator(net)).fit(X, Y)
    assert_same_state(dict(module.state_dict()), dict(before))
    assert net.module_ is module
    assert estimator.net_.module_ is not module


def test_a_frozen_regressor():
    """The same holds for regression."""
    X, y = line()
    net = regressor(max_epochs=40).fit(X.astype(np.float32), y.astype(np.float32)[:, None])
    estimator = pruned(FrozenEstimator(net), **NO_TRAINING, sparsity=0.1).fit(X, y)
    assert estimator.predict(X).shape == y.shape
    assert estimator.score(X, y) > 0.7


def test_a_frozen_nets_schedule_is_replayed():
    """Rewinding works from the history that the frozen net carries."""
    net = classifier(callbacks=[LRScheduler("StepLR", step_size=2)], module__n_outputs=3)
    frozen = FrozenEstimator(net.fit(ROWS, Y))
    assert pruned(frozen, recovery="rewind").fit(X, Y).score(X, Y) > 0.75


def test_a_trimmed_net_is_refused(fitted):
    """A call of trim_for_prediction takes what compression needs."""
    fitted.trim_for_prediction()
    with pytest.raises(ValueError, match=r"trim_for_prediction\(\) took the net's criterion"):
        pruned(FrozenEstimator(fitted)).fit(X, Y)


def test_the_frozen_net_must_take_the_rows(fitted):
    """Rows of another width are refused, with the module's name."""
    with pytest.raises(ValueError, match=r"MLP does not take X of shape \(120, 3\)"):
        pruned(FrozenEstimator(fitted)).fit(X[:, :3], Y)


def test_freezing_does_not_fit():
    """A net that holds no module yet is refused with what to call."""
    with pytest.raises(NotFittedError, match=r"Call fit on it, or initialize\(\) on a net"):
        pruned(FrozenEstimator(classifier())).fit(X, Y)


def test_a_frozen_net_whose_weights_are_computed():
    """Masks of torch.nn.utils.prune are taken off first; the error names the layer."""
    net = classifier().fit(X.astype(np.float32), Y)
    prune.l1_unstructured(net.module_.layers[0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"layer 'layers.0' .*prune.remove\(layer, 'weight'\)"):
        pruned(FrozenEstimator(net)).fit(X, Y)
    prune.remove(net.module_.layers[0], "weight")
    estimator = pruned(FrozenEstimator(net), sparsity=0.7).fit(X, Y)
    assert estimator.sparsity_ == pytest.approx(0.7, abs=0.01)
