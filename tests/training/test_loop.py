"""The dense fit and retraining, against steps computed by hand."""

import math

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from skcompress.training.loop import Data, batch_losses, batches, cosine, dense_fit, retrain
from tests.contract_modules import MLP, assert_same_state, blobs, classifier

LR = 0.1


class OneWeight(nn.Module):
    """The product of a weight and an input."""

    def __init__(self, start=2.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, X):
        return X * self.weight


def one_weight(**settings):
    """Return an initialized net that minimizes (w - y)^2 with plain gradient steps."""
    defaults = {"lr": LR, "batch_size": -1, "train_split": None, "callbacks": "disable"}
    return NeuralNetRegressor(OneWeight, **defaults | settings).initialize()


def data(*targets, weights=None):
    """Return rows whose input is one."""
    y = np.array(targets, dtype=np.float64)[:, None]
    return Data(np.ones_like(y), y, None if weights is None else np.array(weights, float))


def do_nothing(progress):
    """Project nothing."""


def test_steps_follow_the_cosine():
    """On one weight, retraining is gradient descent at lr * cosine(t / T)."""
    net = one_weight()
    retrain(net, data(5.0), epochs=4, lr=None, after_step=do_nothing)
    w = 2.0
    for step in range(4):
        w -= LR * 0.5 * (1 + math.cos(math.pi * step / 4)) * 2 * (w - 5.0)
    assert net.module_.weight.item() == pytest.approx(w, abs=1e-12)


def test_weights_enter_the_steps():
    """The gradient is that of the weighted mean."""
    net = one_weight()
    retrain(net, data(5.0, 1.0, weights=[3, 1]), epochs=1, lr=None, after_step=do_nothing)
    gradient = (3 * 2 * (2.0 - 5.0) + 1 * 2 * (2.0 - 1.0)) / 4
    assert net.module_.weight.item() == pytest.approx(2.0 - LR * gradient, abs=1e-12)


def test_rates_of_the_users_own():
    """Another course of the rate, and another first rate, are taken as given."""
    net = one_weight()
    seen = []

    def rate(progress):
        seen.append(progress)
        return 1 - progress

    retrain(net, data(5.0), epochs=2, lr=0.2, rate=rate, after_step=do_nothing)
    w = 2.0 - 0.2 * 2 * (2.0 - 5.0)
    w -= 0.1 * 2 * (w - 5.0)
    assert net.module_.weight.item() == pytest.approx(w, abs=1e-12)
    assert seen == [0.0, 0.5]


def test_projections_follow_each_step():
    """after_step hears of progress up to one, and what it does to weights stays."""
    net, heard = one_weight(), []

    def project(progress):
        heard.append(progress)
        with torch.no_grad():
            net.module_.weight.zero_()

    retrain(net, data(5.0, 5.0, 5.0), epochs=2, lr=None, after_step=project)
    assert heard == [0.5, 1.0]
    assert net.module_.weight.item() == 0.0


def test_the_optimizer_is_fresh():
    """Momentum of an earlier phase plays no part."""
    net = one_weight(optimizer__momentum=0.9)
    net.partial_fit(np.ones((1, 1)), np.full((1, 1), 100.0))
    with torch.no_grad():
        net.module_.weight.fill_(2.0)
    retrain(net, data(5.0), epochs=1, lr=None, after_step=do_nothing)
    assert net.module_.weight.item() == pytest.approx(2.0 + LR * 6.0, abs=1e-12)


def two_groups(**settings):
    """Return an initialized MLP whose biases have a rate of a tenth, and their gradients."""
    net = classifier(
        optimizer=torch.optim.SGD,
        lr=0.1,
        batch_size=-1,
        callbacks="disable",
        optimizer__param_groups=[("*.bias", {"lr": 0.01})],
        **settings,
    ).initialize()
    X, y = blobs()
    rows = Data(X.astype(np.float32), y)
    loss = nn.functional.cross_entropy(net.module_(torch.tensor(rows.X)), torch.tensor(y))
    named = dict(net.module_.named_parameters())
    return net, rows, dict(zip(named, torch.autograd.grad(loss, named.values()), strict=True))


@pytest.mark.parametrize(("lr", "expected"), [(None, 0.1), (0.5, 0.5)])
def test_parameter_groups_keep_their_ratios(lr, expected):
    """retrain_lr is the net's rate; a group at a tenth of it stays at a tenth."""
    net, rows, gradients = two_groups()
    before = {n: p.detach().clone() for n, p in net.module_.named_parameters()}
    retrain(net, rows, epochs=1, lr=lr, after_step=do_nothing)
    for name, parameter in net.module_.named_parameters():
        rate = expected / 10 if name.endswith("bias") else expected
        torch.testing.assert_close(parameter, before[name] - rate * gradients[name])


def test_no_batches():
    """An iterator that drops every row is an error, not a phase without steps."""
    net = one_weight(batch_size=8, iterator_train__drop_last=True)
    with pytest.raises(ValueError, match=r"makes no batch of 3 rows. Set a smaller batch_size"):
        retrain(net, data(1.0, 2.0, 3.0), epochs=1, lr=None, after_step=do_nothing)


def test_dense_fit_is_skorchs_own():
    """Without weights the dense fit is net.fit, bit for bit."""
    X, y = blobs()
    nets = [classifier(module__n_inputs=4, module__n_outputs=3) for _ in range(2)]
    torch.manual_seed(0)
    nets[0].fit(X.astype(np.float32), y)
    torch.manual_seed(0)
    dense_fit(nets[1], Data(X.astype(np.float32), y))
    assert_same_state(*(dict(net.module_.state_dict()) for net in nets))


@pytest.mark.parametrize(("progress", "factor"), [(0, 1), (0.25, 0.8535534), (0.5, 0.5), (1, 0)])
def test_cosine(progress, factor):
    """The cosine falls from one to zero and is a half in the middle."""
    assert cosine(progress) == pytest.approx(factor)


def test_batches_go_in_order_and_cover_all_rows():
    """Rows come once each, in order, in the batches of the net or in others."""
    X, y = blobs()
    rows = Data(X.astype(np.float32), y)
    net = classifier(callbacks=None, iterator_train__shuffle=True).initialize()
    for batch_size, n_batches in ((None, 4), (50, 3)):
        got = list(batches(net, rows, batch_size))
        assert len(got) == n_batches
        np.testing.assert_array_equal(torch.cat([Xi for Xi, _ in got]), rows.X)
        np.testing.assert_array_equal(torch.cat([yi for _, yi in got]), y)


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_losses_are_means_with_their_weights(weighted):
    """The batches' means, weighted, are the mean over all rows; dropout is off."""
    X, y = blobs(50)
    weights = np.linspace(0.5, 2, 50).astype(np.float32) if weighted else None
    rows = Data(X.astype(np.float32), y, weights)
    net = classifier(module=WithDropout, callbacks=None).initialize()
    got = list(batch_losses(net, rows))
    mean = sum(loss.item() * total for loss, total in got) / sum(total for _, total in got)
    logits = net.module_.eval()(torch.tensor(rows.X))
    each = nn.functional.cross_entropy(logits, torch.tensor(y), reduction="none").detach()
    assert mean == pytest.approx(np.average(each, weights=weights), rel=1e-5)
    assert got[0][1] == pytest.approx(weights[:32].sum() if weighted else 32)


class WithDropout(MLP):
    def forward(self, X):
        return nn.functional.dropout(super().forward(X), training=self.training)
