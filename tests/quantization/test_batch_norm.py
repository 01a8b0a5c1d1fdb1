import copy

import numpy as np
import pytest
import torch
from torch import nn

from skcompress.graph import trace
from skcompress.quantization.batch_norm import fold, foldable, recalibrate
from skcompress.training.loop import Data
from tests.pruning_modules import (
    IMAGE,
    SEQUENCE,
    TABLE,
    ConvNet,
    NormalizedMLP,
    Recurrent,
    SequenceConvNet,
    classification,
    classifier,
)

CASES = {
    "mlp": (NormalizedMLP, TABLE, 2),
    "cnn": (ConvNet, IMAGE, 1),
    # A transposed convolution is not folded into.
    "transposed": (SequenceConvNet, SEQUENCE, 0),
    "none": (Recurrent, SEQUENCE, 0),
}


def problem(name):
    """Return a net with statistics that are not at rest, and rows."""
    kind, shape, _ = CASES[name]
    X, y = classification(shape=shape)
    net = classifier(kind, max_epochs=3).fit(X, y)
    return net, Data(X, y)


def n_norms(module):
    """Count normalizations."""
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


@pytest.mark.parametrize("name", CASES)
def test_folding_keeps_the_function(name):
    """The module computes the same with fewer normalizations."""
    net, data = problem(name)
    before, norms = net.predict_proba(data.X), n_norms(net.module_)
    fold(net, data)
    assert n_norms(net.module_) == norms - CASES[name][2]
    np.testing.assert_allclose(net.predict_proba(data.X), before, rtol=1e-4, atol=1e-6)


class Read(nn.Module):
    """What the layer gives is read beside the normalization, or the layer is applied twice."""

    def __init__(self, how="beside"):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.how = how

    def forward(self, X):
        H = self.first(X)
        if self.how == "twice":
            return self.last(self.norm(self.first(H)))
        if self.how == "norm twice":
            return self.last(self.norm(self.norm(H)))
        if self.how == "between":
            return self.last(self.norm(H.relu()))
        return self.last(self.norm(H) + H)


@pytest.mark.parametrize("how", ["beside", "twice", "norm twice", "between"])
def test_what_is_used_elsewhere_too_stays(how):
    """Folding there would change what the other reader gets."""
    module, X = Read(how).eval(), torch.rand(4, 6)
    assert foldable(trace(module, (X,), {})) == []


class Steps(nn.Module):
    """The normalization is of the steps of a sequence, and not of the layer's outputs."""

    def __init__(self, width=3):
        super().__init__()
        self.layer, self.norm, self.last = nn.Linear(2, width), nn.BatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, X):
        return self.last(self.norm(self.layer(X.view(-1, 3, 2))).mean(2))


@pytest.mark.parametrize("width", [3, 4])
def test_a_norm_of_another_axis_than_the_outputs_stays(width):
    """Also where there are as many steps as outputs, so that no shape would tell."""
    X, y = classification()
    net, data = classifier(Steps, max_epochs=3, module__width=width).fit(X, y), Data(X, y)
    before = net.predict_proba(X)
    fold(net, data)
    assert n_norms(net.module_) == 1
    np.testing.assert_array_equal(net.predict_proba(X), before)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_recalibration_measures_the_means_over_all_rows(name):
    """In several batches as in one; the module's momentum and mode are as before."""
    net, data = problem(name)
    whole = copy.deepcopy(net).set_params(batch_size=-1)
    recalibrate(net, data)
    recalibrate(whole, data)
    first = next(m for m in net.module_.modules() if hasattr(m, "running_mean"))
    other = next(m for m in whole.module_.modules() if hasattr(m, "running_mean"))
    torch.testing.assert_close(first.running_mean, other.running_mean, rtol=1e-5, atol=1e-6)
    assert first.momentum == 0.1
    assert not any(m.training for m in net.module_.modules())


def test_recalibration_by_hand():
    """The mean and the unbiased variance of what enters, whatever was there before."""
    net, data = problem("mlp")
    net.set_params(batch_size=-1)
    entering = net.module_.layers[0](torch.from_numpy(data.X)).detach()
    net.module_.layers[1].running_mean.fill_(99.0)
    recalibrate(net, data)
    torch.testing.assert_close(net.module_.layers[1].running_mean, entering.mean(0))
    torch.testing.assert_close(net.module_.layers[1].running_var, entering.var(0))


def test_a_last_batch_of_one_row_is_left_out():
    """A single row has no variance."""
    net, data = problem("mlp")
    recalibrate(net.set_params(batch_size=59), data)
    assert all(torch.isfinite(b).all() for b in net.module_.buffers())


def test_nothing_to_recalibrate():
    """A module without normalization is left as it is, in whatever mode."""
    net, data = problem("none")
    net.module_.train()
    recalibrate(net, data)
    assert net.module_.training
