import itertools

import numpy as np
import pytest
import torch
from torch import nn

from skcompress.layers import weight_matrices
from skcompress.moments import second_moments
from skcompress.pruning import obs
from skcompress.pruning.criteria import CRITERIA
from skcompress.pruning.obs import check_layers, compensate, removal_costs
from tests.pruning_modules import (
    IMAGE,
    Grouped,
)
from tests.test_moments import problem


def random_layer(n_outputs=3, n_inputs=5, seed=0):
    """Return weights and the positive definite moment of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_outputs, n_inputs, dtype=torch.double, generator=generator)
    mixed = torch.randn(n_inputs, n_inputs, dtype=torch.double, generator=generator)
    return weight, mixed @ mixed.T / n_inputs + 0.1 * torch.eye(n_inputs, dtype=torch.double)


def least_error(row, moment, mask):
    """Minimize E[((row - v) x)^2] over v that is zero outside a mask."""
    best = torch.zeros_like(row)
    if mask.any():
        best[mask] = torch.linalg.solve(moment[mask][:, mask], moment[mask] @ row)
    return float((row - best) @ moment @ (row - best)), best


class TestRemovalCosts:
    """The order and the price of removal."""

    @pytest.mark.parametrize("seed", range(5))
    def test_the_first_removal_is_the_best_of_all(self, seed):
        """Brute force over all masks with one weight gone."""
        weight, moment = random_layer(seed=seed)
        costs = removal_costs(weight, moment)
        for row, cost in zip(weight, costs, strict=True):
            errors = [least_error(row, moment, torch.arange(5) != gone)[0] for gone in range(5)]
            assert cost.argmin() == int(np.argmin(errors))
            assert float(cost.min()) == pytest.approx(min(errors), rel=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_costs_add_up_to_the_error(self, seed):
        """The steps up to a mask sum to the least error that the mask allows."""
        row, moment = random_layer(1, 4, seed)
        order = removal_costs(row, moment)[0].argsort()
        steps, error = [], 0.0
        for n in range(1, 5):
            mask = torch.ones(4, dtype=torch.bool)
            mask[order[:n]] = False
            total, _ = least_error(row[0], moment, mask)
            steps.append(total - error)
            error = total
        expected = np.maximum.accumulate(steps)
        np.testing.assert_allclose(removal_costs(row, moment)[0][order], expected, rtol=1e-8)

    @pytest.mark.parametrize("seed", range(3))
    def test_better_than_magnitude(self, seed):
        """On correlated inputs, the masks leave less error than the largest weights do."""
        weight, moment = random_layer(20, 12, seed)
        errors = {}
        for name, scores in (("obs", removal_costs(weight, moment)), ("magnitude", weight.abs())):
            masks = scores.argsort(1).argsort(1) >= 6
            errors[name] = sum(
                least_error(row, moment, mask)[0] for row, mask in zip(weight, masks, strict=True)
            )
        assert errors["obs"] < 0.9 * errors["magnitude"]

    def test_uncorrelated_inputs_give_the_diagonal(self):
        """Then a weight costs its square times the mean square of its input."""
        weight, _ = random_layer()
        scale = torch.arange(1.0, 6).double()
        costs = removal_costs(weight, scale.diag())
        torch.testing.assert_close(costs, weight**2 * scale)

    def test_chunks_make_no_difference(self, monkeypatch):
        """However many rows are solved at once."""
        weight, moment = random_layer(7, 6)
        whole = removal_costs(weight, moment)
        monkeypatch.setattr(obs, "CHUNK", 80)
        torch.testing.assert_close(removal_costs(weight, moment), whole)


class TestCompensate:
    """The weights that stay make up for those that go."""

    @staticmethod
    def masked(net, seed=0):
        generator = torch.Generator().manual_seed(seed)
        weights = weight_matrices(net.module_)
        dense = {name: weight.detach().clone() for name, weight in weights.items()}
        masks = {n: torch.rand(w.shape, generator=generator) < 0.6 for n, w in weights.items()}
        with torch.no_grad():
            for name, weight in weights.items():
                weight *= masks[name]
        return dense, masks

    def test_damped_least_squares(self):
        """The result is the optimum over the mask, for the inputs of the dense net."""
        net, data = problem()
        moments = second_moments(net, data)
        dense, masks = self.masked(net)
        compensate(net, data, dense, masks)
        for name, weight in weight_matrices(net.module_).items():
            assert not torch.equal(weight, dense[name] * masks[name])
            for row, w, mask in zip(weight, dense[name], masks[name], strict=True):
                expected = least_error(w, moments[name], mask)[1]
                torch.testing.assert_close(row.detach(), expected, rtol=1e-8, atol=1e-10)

    def test_no_other_weights_are_better(self):
        """Moving any weight that stays makes the damped error larger."""
        net, data = problem()
        moment = second_moments(net, data)["first.weight"]
        dense, masks = self.masked(net)
        compensate(net, data, dense, masks)

        def error(weight):
            rest = dense["first.weight"] - weight
            return float(((rest @ moment) * rest).sum())

        best = net.module_.first.weight.detach()
        for i, j in itertools.product(*map(range, best.shape)):
            for step in (1e-3, -1e-3) if masks["first.weight"][i, j] else ():
                moved = best.clone()
                moved[i, j] += step
                assert error(moved) > error(best)
        assert error(best) < error(dense["first.weight"] * masks["first.weight"])

    def test_full_and_empty_rows(self):
        """A row that loses nothing stays; one that loses all is zero."""
        net, data = problem()
        dense, masks = self.masked(net)
        masks["first.weight"][0], masks["first.weight"][1] = True, False
        compensate(net, data, dense, masks)
        assert torch.equal(net.module_.first.weight[0], dense["first.weight"][0])
        assert not net.module_.first.weight[1].any()

    def test_convolution(self):
        """A kernel is solved for like any other row."""

        class Convolution(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)

            def forward(self, X):
                return self.head(self.layer(X).mean((2, 3)))

        net, data = problem(Convolution, IMAGE)
        moment = second_moments(net, data)["layer.weight"]
        dense, masks = self.masked(net)
        compensate(net, data, dense, masks)
        row, mask = dense["layer.weight"].flatten(1)[0], masks["layer.weight"].flatten(1)[0]
        expected = least_error(row, moment, mask)[1]
        found = net.module_.layer.weight.detach().flatten(1)[0]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


class TestRefused:
    """Layers that are too large, or not unfolded."""

    def test_too_large(self):
        net, data = problem(nn.Linear, (8000,), in_features=8000, out_features=3)
        match = r"not affordable for 'weight': 3 outputs times 8000 inputs cubed exceeds 3e\+10"
        with pytest.raises(ValueError, match=match):
            check_layers(net, data)
        with pytest.raises(ValueError, match=match):
            CRITERIA["obs"](net, data.X, data.y, None)

    def test_grouped(self):
        net, data = problem(Grouped, IMAGE)
        with pytest.raises(ValueError, match=r"convolution 'grouped\.weight' cannot be laid out"):
            check_layers(net, data)

    @pytest.mark.parametrize("layer", [nn.Conv2d(1, 3, 3, padding="same"), nn.Conv3d(1, 3, 1)])
    def test_other_convolutions(self, layer):
        class Convolution(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def forward(self, X):
                return self.layer(X).flatten(2).mean(2)

        shape = (1, 4, 4) if isinstance(layer, nn.Conv2d) else (1, 2, 2, 2)
        net, data = problem(Convolution, shape)
        with pytest.raises(ValueError, match=r"\(3-d, grouped, or with padding given as a string"):
            check_layers(net, data)
