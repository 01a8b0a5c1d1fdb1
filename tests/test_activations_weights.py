"""Sample weights in the means and second moments of layers' inputs."""

import numpy as np
import pytest
import torch

from skcompress.activations import input_means, visit_inputs
from skcompress.moments import second_moments
from skcompress.training.loop import Data
from tests.pruning_modules import IMAGE, MLP, SEQUENCE, Attention, ConvNet, Recurrent, Tied
from tests.test_activations import problem


def second_moments_of(net, data):
    """Return the second moments, where convolutions of groups do not forbid them."""
    grouped = any(getattr(m, "groups", 1) != 1 for m in net.module_.modules())
    return {} if grouped else second_moments(net, data)


WEIGHTED = {
    "mlp": (MLP, (6,), {}),
    "cnn": (ConvNet, IMAGE, {}),
    "gru": (Recurrent, SEQUENCE, {"kind": "gru", "layers": 2, "bidirectional": True}),
    "lstm, time first": (Recurrent, SEQUENCE, {"batch_first": False}),
    "attention": (Attention, SEQUENCE, {}),
    "attention, time first": (Attention, SEQUENCE, {"batch_first": False}),
    "tied": (Tied, (6,), {}),
}


class TestSampleWeights:
    """Rows are weighed where they stand."""

    @pytest.mark.parametrize("batch_size", [1, 4, -1])
    @pytest.mark.parametrize("name", WEIGHTED)
    def test_weights_are_repetitions(self, name, batch_size):
        """Means and second moments are those of the rows as often as their weights say."""
        module, shape, params = WEIGHTED[name]
        net, data = problem(module, shape, batch_size=batch_size, **params)
        weight = np.array([1.0, 2, 3, 1, 1, 5, 2, 4, 1, 6, 2])
        rows = np.repeat(np.arange(11), weight.astype(int))
        weighted = Data(data.X, data.y, weight)
        repeated = Data(data.X[rows], data.y[rows])
        for found, expected in (
            (input_means(net, weighted, torch.abs), input_means(net, repeated, torch.abs)),
            (second_moments_of(net, weighted), second_moments_of(net, repeated)),
        ):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "lstm, time first", "tied"])
    def test_rows_of_different_weight_stay_together(self, name):
        """One visit for each use of a weight and each batch, however many weights there are."""
        module, shape, params = WEIGHTED[name]
        net, data = problem(module, shape, **params)
        visits = []
        weight = np.linspace(0.5, 3, 11)
        visit_inputs(net, Data(data.X, data.y, weight), lambda name, *_: visits.append(name))
        plain = []
        visit_inputs(net, data, lambda name, *_: plain.append(name))
        assert visits == plain

    @pytest.mark.parametrize("batch_size", [1, 4, -1])
    def test_weighted_mean(self, batch_size):
        net, data = problem(MLP, (6,), batch_size=batch_size)
        weight = np.array([1.0, 2, 3] * 3 + [1, 5])
        means = input_means(net, Data(data.X, data.y, weight), torch.abs)["first.weight"]
        np.testing.assert_allclose(means.numpy(), np.average(abs(data.X), axis=0, weights=weight))
