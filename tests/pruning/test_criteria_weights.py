"""Weights of rows and of classes in the scores of each criterion, whatever the batches."""

import numpy as np
import pytest
import torch
from torch import nn

from skcompress.pruning.criteria import CRITERIA
from tests.pruning.test_criteria import problem
from tests.pruning_modules import MLP, classification, classifier


def net_of_classes(batch_size, **settings):
    """Return an initialized float64 net and 20 rows of three classes."""
    torch.manual_seed(0)
    named = {f"criterion__{name}": value for name, value in settings.items()}
    net = classifier(MLP, batch_size=batch_size, **named).initialize()
    net.module_.double()
    X, y = classification(20)
    return net, X.astype(np.float64), y


CLASSES = torch.tensor([1.0, 20, 3]).double()


@pytest.mark.parametrize("batch_size", [1, 7, 20])
@pytest.mark.parametrize("settings", [{}, {"weight": CLASSES}, {"ignore_index": 1},
                                      {"weight": CLASSES, "label_smoothing": 0.1}])  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_one_batch(batch_size, settings, weighted):
    """However rows are divided, and whether the loss is a mean or a sum."""
    net, X, y = net_of_classes(batch_size, **settings)
    weight = torch.ones(20) if not weighted else torch.linspace(1, 2, 20)
    each = nn.functional.cross_entropy(
        net.module_(torch.tensor(X)), torch.tensor(y), reduction="none", **settings
    )
    divisor = (weight * settings.get("weight", torch.ones(3))[y]).double()
    divisor[torch.tensor(y == settings.get("ignore_index"))] = 0
    loss = (weight * each).sum() / divisor.sum()
    (g,) = torch.autograd.grad(loss, [net.module_.first.weight])
    expected = (g * net.module_.first.weight.detach()).abs()
    given = weight.double().numpy() if weighted else None
    for reduction in ("mean", "sum"):
        net.criterion_.reduction = reduction
        scores = CRITERIA["gradient"](net, X, y, given)["first.weight"]
        torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-12)
        assert net.criterion_.reduction == reduction


@pytest.mark.parametrize("criterion", ["gradient", "fisher"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_class_weight_of_two_is_its_rows_twice(criterion, reduction):
    """Weights of classes count as repetitions, also where rows come one by one."""
    net, X, y = net_of_classes(7, weight=CLASSES, reduction=reduction)
    rows = np.repeat(np.arange(20), CLASSES.int().numpy()[y])
    scores = CRITERIA[criterion](net, X, y, None)
    plain, _, _ = net_of_classes(7)
    for name, value in CRITERIA[criterion](plain, X[rows], y[rows], None).items():
        torch.testing.assert_close(scores[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_weight_of_two_is_a_row_twice(criterion):
    """Sample weights count as repetitions, in a full batch."""
    net, X, y = problem(batch_size=-1)
    weight = np.array([1.0, 2.0, 3.0] * 4 + [1.0])
    rows = np.repeat(np.arange(13), weight.astype(int))
    torch.manual_seed(0)
    weighted = CRITERIA[criterion](net, X, y, weight)
    torch.manual_seed(0)
    repeated = CRITERIA[criterion](net, X[rows], y[rows], None)
    torch.manual_seed(0)
    plain = CRITERIA[criterion](net, X, y, None)
    for name in weighted:
        torch.testing.assert_close(weighted[name], repeated[name], rtol=1e-9, atol=1e-12)
    matters = criterion not in ("magnitude", "random")
    assert matters != all(torch.equal(weighted[name], plain[name]) for name in plain)


@pytest.mark.parametrize("criterion", ["gradient", "fisher", "activation", "wanda", "obs"])
def test_sample_weights_over_batches(criterion):
    """What is a mean over rows does not depend on the batches."""
    weight = np.arange(1.0, 14)
    (first, X, y), (second, _, _) = problem(batch_size=4), problem(batch_size=-1)
    batches = CRITERIA[criterion](first, X, y, weight)
    whole = CRITERIA[criterion](second, X, y, weight)
    for name in whole:
        torch.testing.assert_close(batches[name], whole[name], rtol=1e-9, atol=1e-12)
