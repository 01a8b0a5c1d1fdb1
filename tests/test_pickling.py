"""A fitted estimator pickles, copies, and carries nothing that prediction does not need."""

import copy
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Checkpoint, EarlyStopping, LRScheduler
from torch import nn

from skcompress import PrunedNet
from tests.contract_modules import (
    MLP,
    assert_same_state,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)

X, Y = blobs()
WIDE = {"module__hidden": 2000}


def through_joblib(estimator, path):
    """Write an estimator with joblib and read it again."""
    joblib.dump(estimator, path / "estimator.joblib")
    return joblib.load(path / "estimator.joblib")


ROUND_TRIPS = {
    "pickle": lambda estimator, path: pickle.loads(pickle.dumps(estimator)),
    "deepcopy": lambda estimator, path: copy.deepcopy(estimator),
    "joblib": through_joblib,
    "cloudpickle": lambda estimator, path: pickle.loads(cloudpickle.dumps(estimator)),
    "twice": lambda estimator, path: pickle.loads(
        pickle.dumps(pickle.loads(pickle.dumps(estimator)))
    ),
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
@pytest.mark.parametrize("granularity", ["weight", "unit", "2:4"])
def test_round_trips(round_trip, granularity, tmp_path):
    """What comes back predicts the same, bit for bit, and can be fitted again."""
    estimator = pruned(granularity=granularity).fit(X, np.array(["a", "b", "c"])[Y])
    back = round_trip(estimator, tmp_path)
    np.testing.assert_array_equal(back.predict_proba(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(back.predict(X), estimator.predict(X))
    assert back.sparsity_ == estimator.sparsity_
    assert_same_state(state(back.fit(X, Y)), state(estimator.fit(X, Y)))


def test_round_trip_of_a_pipeline():
    """An estimator inside a pipeline pickles with it."""
    X, y = line()
    pipeline = make_pipeline(StandardScaler(), pruned(regressor())).fit(X, y)
    back = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(back.predict(X), pipeline.predict(X))


def test_round_trip_of_an_unfitted_estimator():
    """Estimators pickle before they are fitted as well."""
    back = pickle.loads(pickle.dumps(pruned(sparsity=0.6)))
    assert back.sparsity == 0.6
    assert_same_state(state(back.fit(X, Y)), state(pruned(sparsity=0.6).fit(X, Y)))


def local_class():
    """Return a module class that no import can find."""

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = MLP()

        def forward(self, X):
            return self.layers(X)

    return Local


def test_modules_defined_inside_a_function():
    """Such modules are pruned, cloned and searched, in other processes too."""
    estimator = pruned(classifier(module=local_class(), callbacks=None))
    alone = cross_validate(estimator, X, Y, cv=2)["test_score"]
    workers = cross_validate(estimator, X, Y, cv=2, n_jobs=2)["test_score"]
    assert alone.min() > 0.6
    np.testing.assert_array_equal(alone, workers)


def n_bytes(module):
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def pickled(estimator):
    """Bytes of a pickle."""
    return len(pickle.dumps(estimator))


def test_size_of_a_pickle():
    """A pickle has the dense weights, the pruned ones and a mask, but no optimizer state."""
    estimator = pruned(classifier(**WIDE)).fit(X, Y)
    dense = n_bytes(estimator.estimator_.module_)
    masks = sum(mask.numel() for mask in estimator.masks_.values())
    assert pickled(estimator) < 2 * dense + masks + 40_000
    assert estimator.net_.optimizer_ is None
    assert estimator.estimator_.optimizer_ is None


def test_size_of_a_pickle_without_units():
    """Units that were removed take no room."""
    settings = {"granularity": "unit", "sparsity": 0.9}
    estimator = pruned(classifier(**WIDE), **settings).fit(X, Y)
    small = n_bytes(estimator.net_.module_)
    assert small < 0.11 * n_bytes(estimator.estimator_.module_)
    assert len(pickle.dumps(estimator.net_)) < small + 20_000


def test_a_module_instance_is_not_pickled_again_and_again():
    """The instance stands in the parameters, once, beside the dense and the pruned weights."""
    module = MLP(hidden=2000)
    estimator = pruned(classifier(module=module, callbacks=None)).fit(X, Y)
    masks = sum(mask.numel() for mask in estimator.masks_.values())
    assert pickled(estimator) < 3 * n_bytes(module) + masks + 40_000
    assert estimator.estimator.module is module


def test_callbacks_are_not_carried_along(tmp_path):
    """Callbacks of the dense fit, which may hold files and weights, are not in the result."""
    callbacks = [
        EarlyStopping("train_loss"),
        Checkpoint(dirname=tmp_path, monitor=None),
        LRScheduler(),
    ]
    estimator = pruned(classifier(callbacks=callbacks, train_split=None)).fit(X, Y)
    for net in (estimator.net_, estimator.estimator_):
        assert net.callbacks_ == []
    assert len(estimator.estimator.callbacks) == 3
    back = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(back.predict(X), estimator.predict(X))


def test_fitted_nets_come_back_from_workers():
    """Fitted estimators of folds travel from worker processes, and still predict."""
    result = cross_validate(pruned(), X, Y, cv=2, n_jobs=2, return_estimator=True)
    for fold in result["estimator"]:
        assert isinstance(fold, PrunedNet)
        assert fold.score(X, Y) > 0.75
