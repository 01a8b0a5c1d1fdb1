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
from skcompress.pruning import criteria
from skcompress.pruning.criteria import CRITERIA, evenly_spaced, score, tempered_fisher
from skcompress.training.loop import Data
from tests.pruning_modules import (
    MLP,
    NormalizedMLP,
    classification,
    classifier,
    regressor,
)


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


class TestScore:
    """What a criterion returns is checked."""

    @staticmethod
    def returning(change):
        """Make a criterion that returns changed magnitudes."""

        def criterion(net, X, y, sample_weight):
            scores = CRITERIA["magnitude"](net, X, y, sample_weight)
            return change(scores)

        return criterion

    def test_a_callable(self):
        """It gets the net, the rows and their weights, and its scores count."""
        net, X, y = problem()
        weight = np.ones(13)
        got = []

        def criterion(*args):
            got.append(args)
            return {n: (w**2).requires_grad_() for n, w in weight_matrices(args[0].module_).items()}

        scores = score(criterion, net, Data(X, y, weight))
        assert got[0][0] is net
        assert got[0][1] is X
        assert got[0][2] is y
        assert got[0][3] is weight
        weights = weight_matrices(net.module_)
        for name, value in scores.items():
            assert torch.equal(value, weights[name].detach() ** 2)
            assert not value.requires_grad

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
    def test_scores_that_count(self, dtype):
        """Integers and booleans rank like the floats that they are equal to."""
        net, X, y = problem()
        counts = self.returning(lambda s: {n: (v * 100).to(dtype) for n, v in s.items()})
        scores = score(counts, net, Data(X, y))
        own = score("magnitude", net, Data(X, y))
        for name, value in scores.items():
            assert value.is_floating_point()
            assert torch.equal(value, (own[name] * 100).to(dtype).to(own[name].dtype))

    def test_the_order_is_that_of_the_weights(self):
        net, X, y = problem()
        backwards = self.returning(lambda s: dict(reversed(s.items())))
        assert list(score(backwards, net, Data(X, y))) == ["first.weight", "last.weight"]

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda s: list(s.values()), r"returns a dict of scores for exactly .*; got list"),
            (lambda s: None, "got NoneType"),
            (lambda s: {"first.weight": s["first.weight"]}, r"got \['first.weight'\]"),
            (lambda s: s | {"first.bias": torch.ones(3)}, r"got \['first.bias', 'first.weight'"),
            (lambda s: s | {"last.weight": torch.ones(3)}, r"shape \(1, 3\); got \(3,\)"),
            (lambda s: s | {"last.weight": np.ones((1, 3))}, "got ndarray"),
            (lambda s: s | {"last.weight": torch.tensor([[1.0, torch.nan, 0]])}, "must be finite"),
            (lambda s: s | {"last.weight": torch.tensor([[1, torch.inf, 0]])}, "to inf. Did the"),
            (lambda s: s | {"last.weight": torch.tensor([[1.0, -2, 0]])}, "values from -2 to 1"),
        ],
        ids=["list", "nothing", "too few", "too many", "shape", "array", "nan", "inf", "negative"],
    )
    def test_wrong_returns(self, change, match):
        net, X, y = problem()
        with pytest.raises(ValueError, match=match):
            score(self.returning(change), net, Data(X, y))

    def test_a_diverged_net(self):
        """Weights that are no numbers are reported as such."""
        net, X, y = problem()
        with torch.no_grad():
            net.module_.first.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match=r"'first.weight' must be finite.*Did the net diverge"):
            score("magnitude", net, Data(X, y))


class TestEvenlySpaced:
    """Criteria that cost much look at part of the rows."""

    def test_few_rows_are_all_kept(self):
        data = Data(np.arange(5), np.arange(5))
        assert evenly_spaced(data, 5) is data

    def test_many_rows(self):
        """From the first to the last, with what belongs to them."""
        data = evenly_spaced(Data(np.arange(101), np.arange(101), np.arange(101.0)), 11)
        assert data.X.tolist() == data.y.tolist() == data.sample_weight.tolist()
        assert data.X.tolist() == list(range(0, 101, 10))

    @pytest.mark.parametrize(
        ("criterion", "limit"), [("fisher", "FISHER_ROWS"), ("tempered-fisher", "TEMPERED_ROWS")]
    )
    def test_who_uses_it(self, criterion, limit, monkeypatch):
        net, X, y = problem(batch_size=-1)
        monkeypatch.setattr(criteria, limit, 4)
        few = CRITERIA[criterion](net, X, y, None)["first.weight"]
        rows = [0, 4, 8, 12]
        assert torch.equal(few, CRITERIA[criterion](net, X[rows], y[rows], None)["first.weight"])
