"""What fit leaves alone, what it forgets, and what it does not leave behind."""

import copy

import numpy as np
import pandas as pd
from joblib import dump, load
from sklearn.base import clone

from tests.contract_modules import MLP, assert_same_state, blobs, classifier, pruned, state

X, Y = blobs()


def test_fit_leaves_the_users_net_and_data_alone():
    """Neither the net's parameters, nor its module's weights, nor the rows change."""
    module = MLP()
    net = classifier(module=module, callbacks=None, verbose=1)
    attributes = dict(vars(net))
    weights = copy.deepcopy(module.state_dict())
    rows, labels = X.astype(np.float32), Y.copy()
    pruned(net).fit(rows, labels)
    assert vars(net) == attributes
    assert not net.initialized_
    assert_same_state(dict(module.state_dict()), dict(weights))
    assert not any(p.grad is not None for p in module.parameters())
    np.testing.assert_array_equal(rows, X.astype(np.float32))
    np.testing.assert_array_equal(labels, Y)


def test_a_module_that_works_in_place_does_not_reach_the_rows():
    """Rows of the module's own type are not shared with what the module changes in place."""

    class InPlace(MLP):
        def forward(self, X):
            return super().forward(X.mul_(0.5))

    rows = X.astype(np.float32)
    estimator = pruned(classifier(module=InPlace)).fit(rows, Y)
    estimator.predict(rows)
    np.testing.assert_array_equal(rows, X.astype(np.float32))


def test_read_only_memory_maps(tmp_path):
    """Rows that cannot be written to, as in joblib's workers, give the same net."""
    dump((X.astype(np.float32), Y), tmp_path / "data.joblib")
    rows, labels = load(tmp_path / "data.joblib", mmap_mode="r")
    assert not rows.flags.writeable
    mapped, plain = pruned().fit(rows, labels), pruned().fit(X, Y)
    assert_same_state(state(mapped), state(plain))


def test_clone_of_a_fitted_estimator_is_unfitted():
    """Clones keep the parameters and nothing that was learned."""
    estimator = pruned(sparsity=0.6).fit(X, Y)
    cloned = clone(estimator)
    assert not [name for name in vars(cloned) if name.endswith("_")]
    assert cloned.sparsity == 0.6
    assert not cloned.estimator.initialized_
    assert_same_state(state(cloned.fit(X, Y)), state(estimator))


def test_refitting_forgets():
    """A second fit on other classes and columns starts anew."""
    estimator = pruned().fit(X, Y)
    estimator.fit(X[:, :2], np.array(["no", "yes"])[(Y > 0) * 1])
    assert estimator.classes_.tolist() == ["no", "yes"]
    assert estimator.n_features_in_ == 2
    assert estimator.predict_proba(X[:, :2]).shape == (len(X), 2)


def test_refitting_on_other_kinds_of_inputs_forgets_the_features():
    """A dict has no features to count or to name, and an array needs no names."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    estimator = pruned(classifier(module=MLP, callbacks=None)).fit(frame, Y)
    assert estimator.feature_names_in_.tolist() == list("abcd")
    estimator.fit(X, Y)
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.n_features_in_ == 4
    estimator.fit({"X": X}, Y)
    assert not hasattr(estimator, "n_features_in_")
    assert estimator.predict({"X": X}).shape == Y.shape


def test_refitting_without_units_forgets_why_some_stayed():
    """What one fit found is not an attribute of the next."""
    estimator = pruned(granularity="unit").fit(X, Y)
    assert estimator.unremovable_
    estimator.set_params(granularity="weight").fit(X, Y)
    assert not hasattr(estimator, "unremovable_")


def test_no_hooks_stay_behind():
    """A fitted module is plain: no hooks, no gradients, no parametrizations."""
    estimator = pruned(criterion="wanda").fit(X, Y, sample_weight=np.linspace(0.5, 1, len(X)))
    for net in (estimator.net_, estimator.estimator_):
        for module in (*net.module_.modules(), net.criterion_):
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            assert not any(hooks)
            assert all(p.grad is None for p in module.parameters())
    assert estimator.net_.criterion_.reduction == "mean"
