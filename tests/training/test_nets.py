"""Finding, copying and slimming nets."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skcompress.training.nets import (
    copy_net,
    fitted_net,
    is_frozen,
    known_classes,
    slim_net,
    wrapped_net,
)
from tests.contract_modules import MLP, assert_same_state, blobs, classifier, pruned

X, Y = blobs()
ROWS = X.astype(np.float32)


def test_wrapped_net_looks_through_all_layers():
    """Compressed and frozen estimators are looked through, in any order."""
    net = classifier()
    assert wrapped_net(net) is net
    assert wrapped_net(FrozenEstimator(pruned(FrozenEstimator(net)))) is net
    assert is_frozen(FrozenEstimator(net))
    assert not is_frozen(pruned(FrozenEstimator(net)))


def test_fitted_net_is_the_result():
    """A compressed net's result is its compressed net, not the dense one."""
    net = classifier().fit(ROWS, Y)
    outer = pruned(FrozenEstimator(net)).fit(X, Y)
    assert fitted_net(FrozenEstimator(net)) is net
    assert fitted_net(outer) is outer.net_


def test_nets_that_are_not_fitted():
    """The error speaks of FrozenEstimator to those who have one."""
    with pytest.raises(NotFittedError, match=r"^This NeuralNetClassifier is not .* module\.$"):
        fitted_net(classifier())
    with pytest.raises(NotFittedError, match=r"^FrozenEstimator holds a .*; or leave Frozen"):
        fitted_net(FrozenEstimator(classifier()))


class TwoParts(NeuralNetClassifier):
    """A net with a second module and a second optimizer, and an attribute of its own."""

    def initialize_module(self):
        super().initialize_module()
        with torch.no_grad():
            self.extra_ = nn.Linear(3, 3)
        return self

    def initialize_optimizer(self):
        super().initialize_optimizer()
        self.extra_optimizer_ = torch.optim.SGD(self.extra_.parameters(), lr=0.1)
        return self

    def infer(self, x, **fit_params):
        return self.extra_(super().infer(x, **fit_params))

    def run_single_epoch(self, *args, **kwargs):
        self.n_seen = getattr(self, "n_seen", 0) + 1
        return super().run_single_epoch(*args, **kwargs)


def parts():
    """Return a fitted net of two parts."""
    return classifier(TwoParts).fit(ROWS, Y)


def tensors(net):
    """Return the tensors of all modules of a net."""
    modules = {name: getattr(net, name + "_") for name in net._modules}
    return {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}


def test_copies_share_nothing():
    """A copy has the same modules, classes and attributes in memory of its own."""
    net = parts()
    copied = copy_net(net)
    np.testing.assert_array_equal(copied.predict_proba(ROWS), net.predict_proba(ROWS))
    assert copied._modules == ["module", "extra"]
    np.testing.assert_array_equal(copied.classes_, net.classes_)
    assert copied.n_seen == net.n_seen
    before = {name: tensor.clone() for name, tensor in tensors(net).items()}
    copied.partial_fit(ROWS, Y)
    assert_same_state(tensors(net), before)
    assert not torch.equal(copied.extra_.weight, net.extra_.weight)


def test_copies_start_anew():
    """Optimizers hold the copy's parameters and no state; callbacks and history are fresh."""
    net = parts()
    copied = copy_net(net)
    for name in ("optimizer_", "extra_optimizer_"):
        assert getattr(net, name) is not getattr(copied, name)
        assert not getattr(copied, name).state
    assert {id(p) for p in copied.extra_.parameters()} == {
        id(p) for group in copied.extra_optimizer_.param_groups for p in group["params"]
    }
    assert len(copied.history_) == 0
    assert len(net.history_) == 8
    assert not {id(cb) for _, cb in net.callbacks_} & {id(cb) for _, cb in copied.callbacks_}


def test_slimming_keeps_what_prediction_needs():
    """A slim net predicts and is copied; both of its optimizers are gone, and come back."""
    net = parts()
    expected = net.predict_proba(ROWS)
    slim_net(net)
    np.testing.assert_array_equal(net.predict_proba(ROWS), expected)
    assert net.optimizer_ is None
    assert net.extra_optimizer_ is None
    assert net.callbacks_ == []
    copied = copy_net(net)
    np.testing.assert_array_equal(copied.predict_proba(ROWS), expected)
    assert copied._optimizers == ["optimizer", "extra_optimizer"]
    assert copied.extra_optimizer_.param_groups


def test_slim_nets_around_an_instance():
    """The initial instance goes, and copying does not need it."""

    class NeedsArguments(MLP):
        def __init__(self, hidden):
            super().__init__(hidden=hidden)

    net = classifier(module=NeedsArguments(8), callbacks=None).fit(ROWS, Y)
    expected = net.predict_proba(ROWS)
    slim_net(net)
    assert net.module is NeedsArguments
    np.testing.assert_array_equal(copy_net(net).predict_proba(ROWS), expected)


@pytest.mark.parametrize("classes", [None, []])
def test_inferred_classes(classes):
    """Classes are those that fit saw, and unknown before."""
    net = classifier(classes=classes)
    assert known_classes(FrozenEstimator(net)) is None
    assert known_classes(FrozenEstimator(net.fit(ROWS, Y))).tolist() == [0, 1, 2]
    assert known_classes(FrozenEstimator(FrozenEstimator(net))).tolist() == [0, 1, 2]


def test_named_classes():
    """Classes that the user named are known from the start, in the order of the outputs."""
    net = classifier(classes=["c", "a", "b"])
    assert known_classes(FrozenEstimator(net)).tolist() == ["c", "a", "b"]


def test_a_subclass_of_two_parts_is_pruned():
    """A net with a second module of its own is fitted, pruned and retrained."""
    estimator = pruned(classifier(TwoParts)).fit(X, Y)
    assert estimator.score(X, Y) > 0.75
    assert estimator.sparsity_ == pytest.approx(0.5, abs=0.01)
