"""The closed form of each criterion, and what any criterion promises."""

import functools

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.moments import DAMPING
from skcompress.pruning.criteria import CRITERIA, score, tempered_fisher
from skcompress.training.loop import Data
from tests.pruning_modules import MLP, NormalizedMLP, classification, classifier, regressor


class Regression(nn.Module):
    """Two layers, small enough to differentiate by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, X):
        return self.last(torch.tanh(self.first(X))).squeeze(-1)


def problem(n_rows=13, batch_size=5, seed=0):
    """Return an initialized float64 net and rows, of which the last batch is smaller."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = regressor(Regression, batch_size=batch_size).initialize()
    net.module_.double()
    return net, rng.normal(size=(n_rows, 4)), rng.normal(size=n_rows)


class ByHand:
    """The forward and backward pass of :class:`Regression` in numpy, row by row."""

    def __init__(self, net, X, y):
        p = {name: value.detach().numpy() for name, value in net.module_.named_parameters()}
        self.weights = {name: p[name] for name in ("first.weight", "last.weight")}
        hidden = np.tanh(X @ p["first.weight"].T + p["first.bias"])
        residual = 2 * (hidden @ p["last.weight"][0] + p["last.bias"] - y)
        inner = residual[:, None] * p["last.weight"] * (1 - hidden**2)
        self.inputs = {"first.weight": X, "last.weight": hidden}
        self.gradients = {
            "first.weight": inner[:, :, None] * X[:, None, :],
            "last.weight": (residual[:, None] * hidden)[:, None, :],
        }

    def each(self, function):
        return {n: function(w, self.gradients[n], self.inputs[n]) for n, w in self.weights.items()}


def removal_costs(w, x):
    """Remove one weight of each output after the other, by brute force over least squares."""
    moment = x.T @ x / len(x)
    moment += DAMPING * np.trace(moment) / len(moment) * np.eye(len(moment))
    costs = np.zeros_like(w)

    def loss(row, gone):
        left = [i for i in range(len(row)) if i not in gone]
        kept = np.zeros_like(row)
        if left:
            kept[left] = np.linalg.solve(moment[np.ix_(left, left)], moment[left] @ row)
        return (row - kept) @ moment @ (row - kept)

    for row, cost in zip(w, costs, strict=True):
        gone, highest = [], 0.0
        while len(gone) < len(row):
            left = [i for i in range(len(row)) if i not in gone]
            increase = [loss(row, [*gone, i]) - loss(row, gone) for i in left]
            highest = max(highest, min(increase))
            gone.append(left[int(np.argmin(increase))])
            cost[gone[-1]] = highest
    return costs


def tempered(batches, power=0.35, decay=0.998):
    """Return the oracle of a running mean over batches of given rows."""

    def function(w, g, x):
        mean = np.zeros_like(w)
        for rows in batches:
            mean = decay * mean + (1 - decay) * g[rows].mean(0) ** 2
        return abs(w) * (mean / (1 - decay ** len(batches))) ** power

    return function


BATCHES = [slice(0, 5), slice(5, 10), slice(10, 13)]
# A criterion without an oracle fails `test_every_criterion_has_an_oracle`.
ORACLES = {
    "magnitude": lambda w, g, x: abs(w),
    "gradient": lambda w, g, x: abs(w * g.mean(0)),
    "fisher": lambda w, g, x: w**2 / 2 * (g**2).mean(0),
    "tempered-fisher": tempered(BATCHES),
    "obs": lambda w, g, x: removal_costs(w, x),
    "activation": lambda w, g, x: np.broadcast_to(abs(x).mean(0), w.shape),
    "wanda": lambda w, g, x: abs(w) * np.sqrt((x**2).mean(0)),
}


def test_every_criterion_has_an_oracle():
    """A new criterion comes with a closed form; only chance has none."""
    assert set(ORACLES) == set(CRITERIA) - {"random"}


@pytest.mark.parametrize("criterion", ORACLES)
@pytest.mark.parametrize("seed", range(3))
def test_closed_form(criterion, seed):
    """Scores are those computed by hand, over batches of unequal size."""
    net, X, y = problem(seed=seed)
    scores = CRITERIA[criterion](net, X, y, None)
    expected = ByHand(net, X, y).each(ORACLES[criterion])
    assert list(scores) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name].numpy(), value, rtol=1e-9, atol=1e-12)


def test_a_criterion_added_later(monkeypatch):
    """A name in CRITERIA is a choice from then on."""
    net, X, y = classifier(MLP), *classification()
    with pytest.raises(ValueError, match=r"'criterion' parameter of PrunedNet must be .*wanda"):
        PrunedNet(net, criterion="largest").fit(X, y)
    monkeypatch.setitem(CRITERIA, "largest", CRITERIA["magnitude"])
    assert PrunedNet(net, criterion="largest", retrain_epochs=1).fit(X, y).sparsity_ == 0.5


def test_random():
    """Uniform between 0 and 1, from torch's generator, whatever the weights."""
    net, X, y = problem()
    net.module_.first = nn.Linear(4, 2000).double()
    net.module_.last = nn.Linear(2000, 1).double()
    torch.manual_seed(3)
    first = CRITERIA["random"](net, X, y, None)["first.weight"]
    second = CRITERIA["random"](net, X, y, None)["first.weight"]
    torch.manual_seed(3)
    assert torch.equal(CRITERIA["random"](net, X, y, None)["first.weight"], first)
    assert not torch.equal(first, second)
    deciles = torch.histc(first.float(), 10, 0, 1) / first.numel()
    torch.testing.assert_close(deciles, torch.full((10,), 0.1), rtol=0, atol=0.02)


@pytest.mark.parametrize(("power", "decay"), [(0.0, 0.9), (0.5, 0.9), (0.35, 0.5)])
def test_tempered_fisher_has_parameters(power, decay):
    """``functools.partial`` makes a criterion; without power it is the magnitude."""
    net, X, y = problem()
    criterion = functools.partial(tempered_fisher, power=power, decay=decay)
    scores = score(criterion, net, Data(X, y))
    expected = ByHand(net, X, y).each(tempered(BATCHES, power, decay))
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name].numpy(), value, rtol=1e-9)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("criterion", ["gradient", "fisher"])
def test_softmax_regression(loss, criterion):
    """Logits with cross entropy and probabilities with NLLLoss give the same gradients."""

    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, X):
            logits = self.layer(X)
            return logits if loss is nn.CrossEntropyLoss else logits.softmax(-1)

    torch.manual_seed(0)
    net = classifier(Softmax, criterion=loss, batch_size=7).initialize()
    X, y = classification(20)
    scores = CRITERIA[criterion](net, X, y, None)["layer.weight"].numpy()
    w, b = (p.detach().numpy() for p in net.module_.parameters())
    exponentials = np.exp(X @ w.T + b)
    errors = exponentials / exponentials.sum(1, keepdims=True) - np.eye(3)[y]
    g = errors[:, :, None] * X[:, None, :]
    expected = {"gradient": abs(w * g.mean(0)), "fisher": w**2 / 2 * (g**2).mean(0)}[criterion]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def normalized():
    """Return an initialized net with BatchNorm and dropout, of which one layer is frozen."""
    torch.manual_seed(0)
    net = classifier(NormalizedMLP).initialize()
    net.module_.layers[4].weight.requires_grad_(False)
    return net


@pytest.mark.parametrize("criterion", CRITERIA)
class TestEveryCriterion:
    """What any criterion promises."""

    def test_names_shapes_and_values(self, criterion):
        net, (X, y) = normalized(), classification()
        scores, weights = CRITERIA[criterion](net, X, y, None), weight_matrices(net.module_)
        assert list(scores) == list(weights)
        for name, value in scores.items():
            assert value.shape == weights[name].shape
            assert value.dtype == weights[name].dtype
            assert torch.isfinite(value).all()
            assert (value >= 0).all()
            assert not value.requires_grad
            assert len(value.unique()) > 1, "scores tell weights apart"

    def test_it_leaves_the_net_as_it_is(self, criterion):
        """Weights, statistics of BatchNorm, gradients and what is frozen."""
        net, (X, y) = normalized(), classification()
        before = {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}
        required = [p.requires_grad for p in net.module_.parameters()]
        for p in net.module_.parameters():
            p.grad = torch.full_like(p, 7.0)
        score(criterion, net, Data(X, y))
        assert [p.requires_grad for p in net.module_.parameters()] == required
        assert all((p.grad == 7.0).all() for p in net.module_.parameters())
        for name, tensor in net.module_.state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_same_rows_same_scores(self, criterion):
        """Dropout plays no part, nor does the mode that the module is in."""
        net, (X, y) = normalized(), classification()
        both = []
        for training in (True, False):
            torch.manual_seed(1)
            net.module_.train(training)
            both.append(CRITERIA[criterion](net, X, y, None))
        assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])

    def test_dict_inputs(self, criterion):
        """Rows of several arrays give the scores of the same rows in one."""

        class Split(MLP):
            def forward(self, b, a):
                return super().forward(torch.cat([a, b], 1))

        torch.manual_seed(0)
        split, whole = classifier(Split).initialize(), classifier(MLP).initialize()
        whole.module_.load_state_dict(split.module_.state_dict())
        X, y = classification(30)
        given = SliceDict(a=X[:, :4], b=X[:, 4:])
        weight = np.ones(30, dtype=np.float32)
        for sample_weight in (None, weight):
            torch.manual_seed(1)
            first = CRITERIA[criterion](split, given, y, sample_weight)
            torch.manual_seed(1)
            second = CRITERIA[criterion](whole, X, y, None)
            for name in second:
                torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)

    def test_a_loss_of_the_users_own(self, criterion):
        """Criteria that read gradients go through the net's ``get_loss``."""

        class Doubled(NeuralNetClassifier):
            def get_loss(self, *args, **kwargs):
                return 2 * super().get_loss(*args, **kwargs)

        X, y = classification(30)
        found = []
        for kind in (NeuralNetClassifier, Doubled):
            torch.manual_seed(0)
            net = kind(MLP, criterion=nn.CrossEntropyLoss, train_split=None).initialize()
            found.append(CRITERIA[criterion](net, X, y, None)["first.weight"])
        factor = {"gradient": 2, "fisher": 4, "tempered-fisher": 4**0.35}.get(criterion, 1)
        torch.testing.assert_close(found[1], found[0] * factor)
