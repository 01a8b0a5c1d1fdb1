"""Where ArrayBatches take a DataLoader's place, in fits and predictions."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import SliceDataset, SliceDict
from torch.utils.data import DataLoader, default_collate

from skcompress.training import ArrayBatches
from skcompress.training.iterators import array_iterators, for_prediction, rows_at_once
from skcompress.training.loop import Data, batches, dense_fit
from tests.contract_modules import (
    CNN,
    MLP,
    Recurrent,
    Tokens,
    TwoInputs,
    assert_same_state,
    blobs,
    classifier,
    pruned,
)
from tests.naming import steady

X, Y = blobs()
X = X.astype(np.float32)
WIDE = {"module__n_inputs": 4, "module__n_outputs": 3, "callbacks": None}


class OwnDataset(Dataset):
    """A dataset that changes its rows."""

    def transform(self, X, y):
        return X + 1, y


class OwnLoader(DataLoader):
    pass


class OwnIterator(NeuralNetClassifier):
    def get_iterator(self, dataset, training=False):
        return super().get_iterator(dataset, training)


class Spy(Callback):
    """Remember the iterators of the first epoch, and copies as a checkpoint would make them."""

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        if len(net.history) > 1:
            return
        self.iterators_ = [net.get_iterator(dataset_train, training=t) for t in (True, False)]
        self.copies_ = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), clone(net)]


def fitted(fit, data, **settings):
    """Fit a net in one of two ways."""
    net = classifier(**WIDE | settings)
    torch.manual_seed(0)
    fit(net, data)
    return net


def fit_by_skorch(net, data):
    """Fit a net as a user would without this library."""
    net.fit(data.X, data.y)


def losses(net):
    """Return the history but for times."""
    return net.history[:, ("train_loss", "train_batch_count")]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"iterator_train__shuffle": True},
        {"iterator_train__drop_last": True, "iterator_train__shuffle": True, "batch_size": 50},
        {"train_split": ValidSplit(4, stratified=True)},
        {"train_split": ValidSplit(4), "iterator_valid__batch_size": 7},
        {"optimizer": torch.optim.SGD, "batch_size": -1},
        {"dataset": OwnDataset},
        {"iterator_train": OwnLoader},
        {"kind": OwnIterator},
        {"iterator_train__num_workers": 0, "iterator_train__collate_fn": default_collate},
        {"callbacks": [EpochScoring("accuracy", on_train=True, use_caching=False)]},
        {"iterator_train": ArrayBatches},
    ],
    ids=steady,
)
def test_a_dense_fit_is_skorchs(settings):
    """Weights, losses and scores of each epoch are those of ``net.fit``, bit for bit."""
    nets = [fitted(fit, Data(X, Y), **settings) for fit in (fit_by_skorch, dense_fit)]
    assert_same_state(*(dict(net.module_.state_dict()) for net in nets))
    assert losses(nets[0]) == losses(nets[1])
    for name in ("valid_loss", "valid_acc", "accuracy"):
        if name in nets[0].history[0]:
            assert nets[0].history[:, name] == nets[1].history[:, name]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, [ArrayBatches, ArrayBatches]),
        ({"iterator_train__shuffle": True}, [ArrayBatches, ArrayBatches]),
        ({"train_split": ValidSplit(4)}, [ArrayBatches, ArrayBatches]),
        ({"dataset": OwnDataset}, [DataLoader, DataLoader]),
        ({"iterator_train": OwnLoader}, [OwnLoader, ArrayBatches]),
        ({"iterator_train__collate_fn": default_collate}, [DataLoader, ArrayBatches]),
        ({"kind": OwnIterator}, [DataLoader, DataLoader]),
    ],
    ids=steady,
)
def test_where_arrays_apply(settings, kinds):
    """What only the user's own iterator or a DataLoader can do is left to it."""
    spy = Spy()
    net = fitted(dense_fit, Data(X, Y), **settings | {"callbacks": [("spy", spy)]})
    assert [type(iterator) for iterator in spy.iterators_] == kinds
    given = [settings.get("iterator_train", DataLoader), DataLoader]
    for each in (net, *spy.copies_):
        assert [each.iterator_train, each.iterator_valid] == given


def test_workers_are_kept():
    """A DataLoader with workers goes on having them."""
    net = classifier(**WIDE, iterator_train__num_workers=2).initialize()
    with array_iterators(net):
        iterator = net.get_iterator(Dataset(X, Y), training=True)
    assert isinstance(iterator, DataLoader)
    assert iterator.num_workers == 2


def test_parameters_come_back_after_an_error():
    """A fit that fails leaves the user's iterators in the net."""
    net = classifier(**WIDE).initialize()

    def fail():
        assert net.iterator_train is not DataLoader
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"), array_iterators(net):
        fail()
    assert net.iterator_train is net.iterator_valid is DataLoader


def test_rows_in_order_come_from_arrays():
    """Criteria and statistics read the arrays, with the draws of a DataLoader."""
    net = classifier(**WIDE).initialize()
    torch.manual_seed(0)
    list(batches(net, Data(X, Y)))
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    list(DataLoader(Dataset(X, Y), batch_size=32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.iterator_valid is DataLoader


def test_rows_at_once():
    """Vectors go in large chunks, other rows in smaller ones, never beyond the net's own."""
    mlp = classifier(**WIDE).initialize()
    assert rows_at_once(mlp, X) == rows_at_once(mlp, {"X": X}) == 1024
    assert rows_at_once(mlp, X[:, None]) == 32
    for module in (CNN, Recurrent, Tokens):
        for batch_size, expected in ((256, 128), (8, 8), (-1, 128)):
            net = classifier(module=module, callbacks=None, batch_size=batch_size).initialize()
            assert rows_at_once(net, X) == expected
    assert rows_at_once(mlp.set_params(device="meta"), X) == 32


IMAGES = np.random.default_rng(0).normal(size=(300, 1, 8, 8)).astype(np.float32)
MANY = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 10, (2500, 5))
PREDICTED = {
    "vectors": (MLP, WIDE, MANY, 1024),
    "images": (CNN, {"callbacks": None, "batch_size": 200}, IMAGES, 128),
    "dict": (TwoInputs, {"callbacks": None}, SliceDict(numbers=MANY, tokens=TOKENS), 32),
    "the user's": (MLP, {**WIDE, "iterator_valid__batch_size": 100}, MANY, 100),
    "loader": (MLP, {**WIDE, "iterator_valid__collate_fn": default_collate}, MANY, 1024),
    "slices": (MLP, WIDE, SliceDataset(Dataset(MANY[:100], None)), 1024),
}


@pytest.mark.parametrize(("module", "settings", "X", "rows"), PREDICTED.values(), ids=PREDICTED)
def test_predictions_are_skorchs_at_that_chunk_size(module, settings, X, rows):
    """Chunks give what a DataLoader gives at their size, and draw no random numbers."""
    net = classifier(module=module, **settings).initialize()
    before = torch.random.get_rng_state()
    got = for_prediction(net, X).predict_proba(X)
    labels = for_prediction(net, X).predict(X)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert net.iterator_valid is DataLoader
    vars(net)["iterator_valid__batch_size"] = rows
    np.testing.assert_array_equal(got, net.predict_proba(X))
    np.testing.assert_array_equal(labels, net.predict(X))


class OwnSteps(NeuralNetClassifier):
    def evaluation_step(self, batch, training=False):
        return super().evaluation_step(batch, training) + torch.tensor([0.0, 100.0, 0.0])


class OwnForward(NeuralNetClassifier):
    def forward_iter(self, X, training=False, device="cpu"):
        for outputs in super().forward_iter(X, training, device):
            yield outputs + torch.tensor([0.0, 100.0, 0.0])


class OwnProbabilities(NeuralNetClassifier):
    def predict_proba(self, X):
        return np.eye(3)[np.ones(len(X), int)]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": OwnSteps},
        {"kind": OwnForward},
        {"kind": OwnProbabilities},
        {"predict_nonlinearity": lambda outputs: torch.eye(3)[torch.ones(len(outputs)).long()]},
    ],
    ids=steady,
)
def test_overridden_methods_are_respected(settings):
    """A subclass has its own way of predicting, and the user a nonlinearity."""
    estimator = pruned(classifier(**settings)).fit(X, Y)
    assert (estimator.predict(X) == 1).all()
    np.testing.assert_array_equal(estimator.predict_proba(X)[:, 1], 1)


@pytest.mark.parametrize("settings", [{"kind": OwnIterator}, {"iterator_valid": OwnLoader}])
def test_the_users_iterators_predict(settings):
    """A net with an iterator of its own predicts by itself."""
    net = classifier(**WIDE | settings).initialize()
    assert for_prediction(net, X) is net


def test_estimators_predict_without_drawing():
    """Predicting and scoring leave torch's global generator alone."""
    estimator = pruned().fit(X, Y)
    before = torch.random.get_rng_state()
    estimator.predict(X)
    estimator.predict_proba(X)
    estimator.score(X, Y)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_threads_predict_with_one_estimator():
    """Predicting changes nothing in the net that another thread could see."""
    estimator = pruned().fit(X, Y)
    expected, seen = estimator.predict_proba(MANY), []
    before = dict(vars(estimator.net_))

    def predict():
        seen.extend(estimator.predict_proba(MANY) for _ in range(5))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 20
    for proba in seen:
        np.testing.assert_array_equal(proba, expected)
    assert vars(estimator.net_) == before
