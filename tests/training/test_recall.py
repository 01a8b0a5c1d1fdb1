"""Nets that a process remembers are those of their entries, as long as these are there."""

import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import GradientNormClipping
from torch import nn

from skcompress import PrunedNet
from skcompress.training import recall
from tests.contract_modules import assert_same_state, state
from tests.training.cache_modules import Counted, counted, counted_net, n_fits, rows

X, Y = rows()


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Begin and end with an empty memory."""
    recall._NETS.clear()
    yield
    recall._NETS.clear()


def names(memory):
    """Name the dense fits that are remembered, from a folder."""
    return [file for file in recall._NETS if str(file).startswith(str(memory))]


def test_cells_of_a_fold_remember_its_net(tmp_path):
    """From the second one on; the results are those without a cache."""
    for sparsity, n_known in ((0.5, 0), (0.6, 1), (0.7, 1), (0.5, 1)):
        fitted = counted(memory=tmp_path, sparsity=sparsity).fit(X, Y)
        assert len(names(tmp_path)) == n_known
        assert_same_state(state(fitted), state(counted(sparsity=sparsity).fit(X, Y)))


def test_nothing_is_shared(tmp_path):
    """Each cell has a net of its own, and so has the memory."""
    nets = [counted(memory=tmp_path, sparsity=s).fit(X, Y).estimator_ for s in (0.5, 0.6, 0.7)]
    expected = nets[0].predict_proba(X)
    for net in nets[1:]:
        with torch.no_grad():
            net.module_.layers[0].weight.zero_()
        net.history_[0]["train_loss"] = -1.0
    again = counted(memory=tmp_path, sparsity=0.8).fit(X, Y).estimator_
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    assert again.history_[0]["train_loss"] > 0


def test_an_entry_that_is_gone_is_not_remembered(tmp_path):
    """Who clears the folder wants the fit to be made again."""
    fits = tmp_path / "fits"
    for sparsity in (0.5, 0.6):
        counted(fits, memory=tmp_path, sparsity=sparsity).fit(X, Y)
    (file,) = names(tmp_path)
    file.unlink()
    counted(fits, memory=tmp_path, sparsity=0.7).fit(X, Y)
    assert n_fits(fits) == 2


def test_a_folder_that_can_only_be_read(tmp_path, monkeypatch):
    """When the entry was used cannot be noted, which is no reason to fail."""
    for sparsity in (0.5, 0.6):
        counted(memory=tmp_path, sparsity=sparsity).fit(X, Y)

    def fail(*args):
        raise OSError("Read-only file system")

    monkeypatch.setattr(recall.os, "utime", fail)
    fitted = counted(memory=tmp_path, sparsity=0.7).fit(X, Y)
    assert_same_state(state(fitted), state(counted(sparsity=0.7).fit(X, Y)))


def test_an_entry_that_changed_is_read_again(tmp_path):
    """Damage is found, and reported."""
    for sparsity in (0.5, 0.6):
        counted(memory=tmp_path, sparsity=sparsity).fit(X, Y)
    (file,) = names(tmp_path)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged"):
        counted(memory=tmp_path, sparsity=0.7).fit(X, Y)


def test_a_class_that_was_defined_anew(tmp_path, monkeypatch):
    """The cell of a notebook may run twice: nets are of the class of today."""
    for sparsity in (0.5, 0.6):
        counted(memory=tmp_path, sparsity=sparsity).fit(X, Y)
    adam = type("Adam", (torch.optim.Adam,), {})
    kept = next(iter(recall._NETS.values()))[1]
    assert recall._has_classes_of_today(kept, counted_net())
    assert not recall._has_classes_of_today(kept, counted_net(optimizer=adam))
    same = type("Counted", (nn.Module,), dict(vars(Counted)))
    module = sys.modules[Counted.__module__]
    monkeypatch.setattr(module, "Counted", same)
    assert not recall._has_classes_of_today(kept, counted_net())
    assert not recall._has_classes_of_today(kept, counted_net(module=same))


def test_callbacks_of_retraining_act(tmp_path):
    """Those that clip gradients are the caller's, as without a cache."""

    def fit(memory, sparsity):
        net = counted_net(callbacks=[GradientNormClipping(0.01)])
        return counted(memory=memory, net=net, sparsity=sparsity).fit(X, Y)

    for sparsity in (0.5, 0.6, 0.7):
        assert_same_state(state(fit(tmp_path, sparsity)), state(fit(None, sparsity)))


def test_large_nets_and_other_ways_to_make_them_are_not_kept(tmp_path, monkeypatch):
    """Instances and functions may hold anything; and memory is bounded."""
    instance = counted_net(module=Counted(hidden=7))
    function = counted_net(module=lambda log: Counted(log))
    for net in (instance, function):
        for sparsity in (0.5, 0.6):
            counted(memory=tmp_path, net=net, sparsity=sparsity).fit(X, Y)
    assert not names(tmp_path)
    monkeypatch.setattr(recall, "N_NETS", 2)
    for seed in (1, 2, 3):
        for sparsity in (0.5, 0.6):
            counted(memory=tmp_path, random_state=seed, sparsity=sparsity).fit(X, Y)
    assert len(names(tmp_path)) == 2
    recall._NETS.clear()
    monkeypatch.setattr(recall, "MAX_BYTES", 100)
    for sparsity in (0.5, 0.6):
        PrunedNet(counted_net(), random_state=9, memory=tmp_path, sparsity=sparsity).fit(X, Y)
    assert not names(tmp_path)
