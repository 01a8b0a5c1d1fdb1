"""What ``score`` checks of a criterion's return, and how many rows it is given."""

import numpy as np
import pytest
import torch

from skcompress.layers import weight_matrices
from skcompress.pruning import criteria
from skcompress.pruning.criteria import CRITERIA, evenly_spaced, score
from skcompress.training.loop import Data
from tests.pruning.test_criteria import problem


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
