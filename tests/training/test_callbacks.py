"""The part that the user's callbacks play: all of it in the dense fit, gradients after it."""

import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Freezer,
    GradientNormClipping,
    LRScheduler,
)
from skorch.dataset import ValidSplit

from tests.contract_modules import blobs, classifier, pruned, state

X, Y = blobs()
N_BATCHES = -(-len(X) // 32)
HEARD = []


class Listener(Callback):
    """Write down everything that a net tells its callbacks."""

    def __getattribute__(self, name):
        if name.startswith("on_"):
            HEARD.append(name)
        return super().__getattribute__(name)


@pytest.fixture(autouse=True)
def _forget():
    HEARD.clear()


def with_callbacks(*callbacks, **settings):
    """Return a net of known widths with the user's callbacks."""
    return classifier(callbacks=list(callbacks), **settings)


def test_what_is_heard():
    """The dense fit notifies as skorch does; retraining only of gradients."""
    pruned(with_callbacks(Listener(), max_epochs=3), retrain_epochs=2).fit(X, Y)
    assert HEARD.count("on_train_begin") == HEARD.count("on_train_end") == 1
    assert HEARD.count("on_epoch_end") == 3
    assert HEARD.count("on_batch_end") == 3 * N_BATCHES
    assert HEARD.count("on_grad_computed") == (3 + 2) * N_BATCHES
    last = HEARD.index("on_train_end")
    assert set(HEARD[last + 1 :]) == {"on_grad_computed"}


def test_early_stopping_stops_the_dense_fit_only():
    """The dense fit ends early; retraining has the length that was asked for."""
    stop = EarlyStopping("train_loss", patience=2, threshold=10.0)
    net = with_callbacks(stop, Listener(), max_epochs=50, train_split=ValidSplit(4))
    estimator = pruned(net, retrain_epochs=5).fit(X, Y)
    n_epochs = len(estimator.estimator_.history_)
    assert n_epochs < 5
    n_dense_batches = sum(len(epoch["batches"]) for epoch in estimator.estimator_.history_)
    n_dense_batches -= n_epochs * -(-len(X) // 4 // 32)
    heard = HEARD.count("on_grad_computed")
    assert heard == n_dense_batches + 5 * N_BATCHES


def test_schedulers_rest_while_retraining():
    """The dense fit's rates fall as scheduled; retraining has its own."""
    scheduler = LRScheduler("StepLR", step_size=1, gamma=0.1)
    with_schedule = pruned(with_callbacks(scheduler, max_epochs=4)).fit(X, Y)
    rates = with_schedule.estimator_.history_[:, "event_lr"]
    np.testing.assert_allclose(rates, [0.03, 0.003, 0.0003, 0.00003])
    # From weights that hardly moved in the last epochs, retraining at full rate moves far.
    dense = with_schedule.estimator_.module_.layers[0].bias
    assert (state(with_schedule)["layers.0.bias"] - dense).abs().max() > 0.01


def test_clipping_acts_in_both_phases():
    """Gradients of length 1e-6 move plain gradient descent by no more than rate times length."""
    clip = GradientNormClipping(1e-6)
    settings = {"optimizer": torch.optim.SGD, "lr": 1.0, "max_epochs": 2}
    retraining = {"sparsity": 0.0, "retrain_epochs": 3, "retrain_lr": 1.0}
    estimator = pruned(with_callbacks(clip, **settings), **retraining).fit(X, Y)
    moved = [
        (state(estimator)[name] - weight).norm().item()
        for name, weight in estimator.estimator_.module_.state_dict().items()
    ]
    assert 0 < max(moved) <= 1.01e-6 * 3 * N_BATCHES
    unclipped = pruned(with_callbacks(**settings), **retraining).fit(X, Y)
    dense = unclipped.estimator_.module_.layers[0].weight
    assert (state(unclipped)["layers.0.weight"] - dense).norm() > 0.01


@pytest.mark.parametrize("recovery", ["fine-tune", "scratch"])
def test_frozen_parameters_stay_frozen(recovery):
    """A frozen layer is pruned, but its remaining weights are not updated."""
    net = with_callbacks(Freezer("layers.0.*"))
    estimator = pruned(net, recovery=recovery, schedule="one-shot").fit(X, Y)
    name = "layers.0.weight"
    mask = estimator.masks_[name]
    assert 0 < mask.sum() < mask.numel()
    weight = estimator.net_.module_.layers[0].weight
    assert not weight.requires_grad
    if recovery == "fine-tune":
        dense = estimator.estimator_.module_.layers[0].weight
        torch.testing.assert_close(weight, dense * mask, rtol=0, atol=0)
    assert estimator.net_.module_.layers[2].weight.requires_grad


def test_checkpoints_are_of_the_dense_fit(tmp_path):
    """Checkpoints write and load the best dense net, and never the pruned one."""
    best = Checkpoint(dirname=tmp_path, monitor="train_loss_best", load_best=True)
    estimator = pruned(with_callbacks(best)).fit(X, Y)
    saved = torch.load(tmp_path / "params.pt")
    for name, weight in estimator.estimator_.module_.state_dict().items():
        assert torch.equal(saved[name], weight)
    assert not torch.equal(saved["layers.0.weight"], state(estimator)["layers.0.weight"])


def test_a_checkpoint_pickles_the_net(tmp_path):
    """What a checkpoint pickles in the middle of a fit is a net like any other."""
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None, f_pickle="net.pkl")
    estimator = pruned(with_callbacks(checkpoint)).fit(X, Y)
    net = pickle.loads((tmp_path / "net.pkl").read_bytes())
    net.partial_fit(X.astype(np.float32), Y)
    assert len(net.history) == 2 * len(estimator.estimator_.history_)


def test_the_users_callbacks_are_not_touched():
    """The instances that the user holds hear nothing; copies of them do."""
    stop = EarlyStopping("train_loss")
    before = dict(vars(stop))
    pruned(with_callbacks(stop)).fit(X, Y)
    assert vars(stop) == before
