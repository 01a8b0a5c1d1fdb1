"""Ctrl-C ends a fit and a search, and leaves nothing behind that is trained in part."""

import os
import signal
import threading

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping

from skcompress import PrunedNet
from skcompress.training import CacheFolder
from tests.contract_modules import blobs, classifier

X, Y = blobs(60)


@pytest.fixture(autouse=True)
def pythons_own_handler():
    """Let Ctrl-C mean what it does in a terminal; processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Press(Callback):
    """Press Ctrl-C in the third epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3:
            os.kill(os.getpid(), signal.SIGINT)


def pruned(folder=None, **settings):
    """Return an estimator whose net trains for five epochs."""
    net = classifier(max_epochs=5, **settings)
    return PrunedNet(net, random_state=0, n_threads=1, retrain_epochs=1, memory=folder)


def test_a_fit_is_not_finished(tmp_path):
    """Without help, the rest would go on with what skorch has trained so far."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pruned(tmp_path / "cache", callbacks=[Press]).fit(X, Y)
    assert signal.getsignal(signal.SIGINT) is handler
    assert CacheFolder(tmp_path / "cache").n_bytes == 0


def test_a_search_ends(tmp_path):
    """Its other cells are not fitted."""
    search = GridSearchCV(pruned(tmp_path, callbacks=[Press]), {"sparsity": [0.5, 0.6]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)


def test_early_stopping_is_no_interrupt():
    """It raises the same exception, for skorch to end the training."""
    net = pruned(callbacks=[EarlyStopping("train_loss", patience=1, threshold=1e9)]).fit(X, Y)
    assert len(net.estimator_.history) == 2


def test_handlers_of_the_user_stay():
    """Who handles the signal decides what it means."""
    seen = []
    before = signal.signal(signal.SIGINT, lambda *args: seen.append(args))
    try:
        net = pruned(callbacks=[Press]).fit(X, Y)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(seen) == 1
    assert len(net.estimator_.history) == 5


def test_other_threads_set_no_handlers():
    """Python allows that in the main thread only."""
    found = []
    thread = threading.Thread(target=lambda: found.append(pruned().fit(X, Y).predict(X)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], pruned().fit(X, Y).predict(X))
