from functools import partial

import pytest
import torch

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning.criteria import CRITERIA, score, tempered_fisher
from skcompress.pruning.running import RunningSquares, follow
from skcompress.training.loop import Data
from tests.pruning_modules import classification, classifier


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_running_mean(decay):
    """Weighted by powers of the decay, the weights adding up to one."""
    weight = torch.nn.Parameter(torch.zeros(2))
    running = RunningSquares({"w": weight}, decay)
    gradients = [torch.tensor([float(i), -2.0 * i]) for i in range(1, 13)]
    for gradient in gradients:
        weight.grad = gradient
        running.add()
    powers = torch.tensor([decay ** (11 - i) for i in range(12)])
    expected = (powers[:, None] * torch.stack(gradients) ** 2).sum(0) / powers.sum()
    torch.testing.assert_close(running.values()["w"], expected)


def test_it_settles_first():
    """Before as many steps as it remembers, there is no mean to rely on."""
    weight = torch.nn.Parameter(torch.zeros(2))
    running = RunningSquares({"w": weight}, 0.9)
    seen = []
    for _ in range(11):
        running.add()
        seen.append(running.values() is not None)
    assert seen == [False] * 9 + [True] * 2


def test_who_is_followed():
    """Only a criterion with the keyword, by its own decay."""
    followed = [name for name, function in CRITERIA.items() if follow(function, {}) is not None]
    assert followed == ["tempered-fisher"]
    assert follow(partial(tempered_fisher, decay=0.5), {}).decay == 0.5


def test_scores_use_the_means():
    """By hand: the magnitude times the mean to the power."""
    X, y = classification()
    net = classifier(max_epochs=1).fit(X, y)
    weights = weight_matrices(net.module_)
    means = {name: torch.rand_like(weight) for name, weight in weights.items()}
    scores = score(partial(tempered_fisher, power=0.5), net, Data(X, y), means)
    for name, weight in weights.items():
        torch.testing.assert_close(scores[name], weight.detach().abs() * means[name].sqrt())


def test_long_training_is_followed(monkeypatch):
    """The gradients of the steps decide, not those of rows, once there were enough."""
    X, y = classification()
    seen = []

    def watched(net, X, y, sample_weight, *, decay=0.8, mean_squares=None):
        seen.append(mean_squares)
        return CRITERIA["magnitude"](net, X, y, sample_weight)

    PrunedNet(classifier(), criterion=watched, retrain_epochs=10, random_state=0).fit(X, y)
    assert seen[0] is None
    assert all((mean > 0).any() for mean in seen[-1].values())
