"""Weights that travel with the rows, and the loss that takes them out again."""

import contextlib

import numpy as np
import pytest
import torch
from skorch.helper import SliceDict
from torch import nn

from skcompress.training.loop import Data, batch_losses
from skcompress.training.weights import (
    attach_weights,
    loss_reduction,
    mean_divisor,
    weighted_loss,
)
from tests.contract_modules import MLP, TwoInputs, blobs, classifier, regressor

X, Y = blobs(12)
ROWS = X.astype(np.float32)
WEIGHTS = np.linspace(0.5, 2.0, 12, dtype=np.float32)


def net_of(module=MLP, **settings):
    """Return an initialized net of known widths."""
    return classifier(module=module, callbacks=None, **settings).initialize()


def loss_of(net, X, y):
    """Return the loss of one batch with its rows, as training computes it."""
    Xi = {k: torch.tensor(v) for k, v in X.items()} if isinstance(X, dict) else torch.tensor(X)
    return net.get_loss(net.infer(Xi), torch.tensor(y), X=Xi, training=True)


def test_without_weights_nothing_is_attached():
    """Rows stay as they are where nothing weighs them."""
    assert attach_weights(ROWS, None) is ROWS


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weighted_loss_of_a_batch(reduction):
    """The loss is the weighted mean, or sum, of the rows' losses."""
    net = net_of(criterion__reduction=reduction)
    each = nn.functional.cross_entropy(
        net.module_(torch.tensor(ROWS)), torch.tensor(Y), reduction="none"
    )
    total = (each.detach().numpy() * WEIGHTS).sum()
    with weighted_loss(net):
        loss = loss_of(net, attach_weights(ROWS, WEIGHTS), Y)
    expected = total if reduction == "sum" else total / WEIGHTS.sum()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [WEIGHTS, None], ids=["weighted", "plain"])
def test_losses_taken_while_a_weighted_net_trains(reduction, weights):
    """They are those taken at any other time, with a last batch that is short."""
    net, data = net_of(criterion__reduction=reduction, batch_size=5), Data(ROWS, Y, weights)
    alone = [(loss.item(), divisor) for loss, divisor in batch_losses(net, data)]
    with weighted_loss(net):
        within = [(loss.item(), divisor) for loss, divisor in batch_losses(net, data)]
        assert loss_reduction(net.criterion_) == reduction
        assert net.criterion_.reduction == "none"
    assert len(alone) == 3
    np.testing.assert_allclose(within, alone, rtol=1e-6)
    assert net.criterion_.reduction == reduction


def test_targets_of_two_dimensions():
    """A row's weight counts for each of its targets."""
    net = regressor(callbacks=None, module__n_outputs=2).initialize()
    y = ROWS[:, :2]
    with torch.no_grad():
        squares = (net.module_(torch.tensor(ROWS)).numpy() - y) ** 2
    with weighted_loss(net):
        loss = loss_of(net, attach_weights(ROWS, WEIGHTS), y)
    assert loss.item() == pytest.approx(np.average(squares.mean(1), weights=WEIGHTS), rel=1e-5)


def test_dicts_keep_their_names():
    """Named inputs reach the module without the weights."""
    net = net_of(TwoInputs)
    data = {"numbers": ROWS, "tokens": Y[:, None]}
    plain = loss_of(net, data, Y)
    with weighted_loss(net):
        weighted = loss_of(net, attach_weights(data, np.ones(12, dtype=np.float32)), Y)
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-6)
    assert set(data) == {"numbers", "tokens"}


def test_batches_without_weights_count_once_a_row():
    """Rows that come without weights, such as those of a validation set, weigh the same."""
    net = net_of()
    plain = loss_of(net, ROWS, Y)
    with weighted_loss(net):
        loss_of(net, attach_weights(ROWS, WEIGHTS), Y)
        later = loss_of(net, ROWS[:5], Y[:5])
        assert loss_of(net, ROWS, Y).item() == pytest.approx(plain.item(), rel=1e-6)
    assert later.item() == pytest.approx(loss_of(net, ROWS[:5], Y[:5]).item(), rel=1e-6)


def test_the_criterion_is_given_back():
    """Reduction and hooks are as before, also after an error."""
    net = net_of()
    with weighted_loss(net):
        assert net.criterion_.reduction == "none"
    rows = attach_weights(ROWS[:, :3], WEIGHTS)
    with pytest.raises(RuntimeError, match="cannot be multiplied"), weighted_loss(net):
        loss_of(net, rows, Y)
    assert net.criterion_.reduction == "mean"
    assert not net.criterion_._forward_hooks
    assert not net.module_._forward_pre_hooks


def batch_of(weights):
    """Return the rows as a batch, with weights where there are any."""
    rows = attach_weights(ROWS, weights)
    return torch.tensor(rows) if weights is None else {n: torch.tensor(v) for n, v in rows.items()}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    "settings", [{}, {"weight": torch.tensor([1.0, 20, 3])}, {"ignore_index": 1}]
)
def test_mean_divisor(weights, settings):
    """Times the mean loss, it is the sum over rows, by sample weights and those of classes."""
    net = net_of(**{f"criterion__{name}": value for name, value in settings.items()})
    logits, y = net.module_(torch.tensor(ROWS)), torch.tensor(Y)
    each = nn.functional.cross_entropy(logits, y, reduction="none", **settings).detach().numpy()
    total = (each * (1 if weights is None else weights)).sum()
    Xi = batch_of(weights)
    with weighted_loss(net) if weights is not None else contextlib.nullcontext():
        mean = net.get_loss(net.infer(Xi), y, X=Xi).item()
    assert mean_divisor(net.criterion_, Xi, y) * mean == pytest.approx(total, rel=1e-5)


def test_mean_divisor_of_other_losses():
    """Elements count where a row has many; a weight that is no class's plays no part."""
    y = torch.zeros(12, 2)
    assert mean_divisor(nn.MSELoss(), batch_of(None), y) == 24.0
    assert mean_divisor(nn.MSELoss(), batch_of(WEIGHTS), y) == pytest.approx(2 * WEIGHTS.sum())
    assert mean_divisor(nn.BCEWithLogitsLoss(weight=y[:, 0]), batch_of(None), y[:, 0]) == 12.0
    assert mean_divisor(nn.CrossEntropyLoss(), SliceDict(numbers=ROWS), y[:, 0].long()) == 12.0
