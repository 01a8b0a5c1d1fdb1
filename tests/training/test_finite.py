"""Training that diverged is an error that says what to change."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skcompress import PrunedNet
from skcompress.training.finite import all_finite, check_dense, check_retrained
from tests.contract_modules import blobs, classifier, line, regressor


def net_with(value):
    """Return an initialized net with a number among its biases."""
    net = classifier(callbacks=None).initialize()
    with torch.no_grad():
        net.module_.layers[0].bias[1] = value
    return net


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_dense_weights(value):
    """A bias counts as well, though no criterion looks at it."""
    check_dense(net_with(1e30))
    with pytest.raises(ValueError, match=r"before any compression\. Did the net diverge\? Lower"):
        check_dense(net_with(value))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_every_place_and_type(dtype):
    """The same as asking each number."""
    assert all_finite(torch.zeros(0, dtype=dtype))
    for value in (torch.nan, torch.inf, -torch.inf, 6e4):
        for place in range(5):
            tensor = torch.arange(-2, 3).to(dtype)
            tensor[place] = value
            assert all_finite(tensor) == bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize(
    ("value", "losses"), [(torch.nan, [1.0]), (1.0, [1.0, torch.nan]), (1.0, [torch.inf, 2.0])]
)
def test_losses_and_weights_of_an_epoch(value, losses):
    """Either is enough, wherever in the epoch."""
    check_retrained(net_with(1.0), [torch.tensor(1.0), torch.tensor([2.0])], "epoch 3")
    with pytest.raises(ValueError, match=r"in epoch 3 the \w+ became .*a lower retrain_lr"):
        check_retrained(net_with(value), [torch.tensor(loss) for loss in losses], "epoch 3")


def test_logarithms_of_logits():
    """Skorch's NLLLoss on logits has a loss that is no number, and finite gradients."""
    net = classifier(callbacks=None, criterion=nn.NLLLoss, lr=1e-3)
    X, y = blobs()
    with pytest.raises(ValueError, match=r"NLLLoss takes logarithms.*criterion=nn.CrossEntropy"):
        PrunedNet(net, random_state=0).fit(X, y)


@pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
def test_a_rate_that_is_too_high(schedule):
    """The error names the parameter of the phase that diverged, and the rate it started from."""
    X, y = line()
    net = regressor(optimizer=torch.optim.SGD, lr=0.01, max_epochs=2)
    with pytest.raises(ValueError, match="retrain_lr"):
        PrunedNet(net, schedule=schedule, retrain_lr=1e4, random_state=0).fit(X, y)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_a_frozen_net_without_numbers(criterion):
    """Whatever the criterion, compression does not begin."""
    net = classifier(callbacks=None, module=nn.Linear, module__in_features=4,
                     module__out_features=3).initialize()  # fmt: skip
    with torch.no_grad():
        net.module_.weight[0, 0] = torch.nan
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    with pytest.raises(ValueError, match="before any compression"):
        PrunedNet(FrozenEstimator(net), criterion=criterion, schedule="one-shot").fit(X, y)
