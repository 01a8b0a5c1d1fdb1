import numpy as np
import pytest
import torch
from torch import nn

from skcompress.moments import DAMPING, second_moments
from skcompress.training.loop import Data
from tests.pruning_modules import MLP, SEQUENCE, Recurrent, classification, classifier


def problem(module=MLP, shape=(6,), batch_size=7, **params):
    """Return an initialized float64 net and rows."""
    torch.manual_seed(0)
    named = {f"module__{name}": value for name, value in params.items()}
    net = classifier(module, batch_size=batch_size, **named).initialize()
    net.module_.double().eval()
    X, y = classification(30, shape)
    return net, Data(X.astype(np.float64), y)


def damped(rows):
    """Return the second moment of rows, damped."""
    moment = rows.T @ rows / len(rows)
    return moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment)).double()


class TestSecondMoments:
    """What the error of a layer is measured by."""

    def test_linear(self):
        net, data = problem()
        moments = second_moments(net, data)
        X = torch.as_tensor(data.X)
        torch.testing.assert_close(moments["first.weight"], damped(X))
        hidden = torch.relu(net.module_.first(X)).detach()
        torch.testing.assert_close(moments["second.weight"], damped(hidden))

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1)), (2, 6, 7)),
            (nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 9)),
        ],
        ids=["two-dimensional", "one-dimensional"],
    )
    def test_convolution(self, layer, shape):
        """Patches are the inputs: the layer is the linear map of its patches."""

        class Convolution(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.head = layer, nn.Linear(3, 3)

            def forward(self, X):
                return self.head(self.layer(X).flatten(2).mean(2))

        net, data = problem(Convolution, shape)
        moment = second_moments(net, data)["layer.weight"]
        with torch.no_grad():
            weight = net.module_.layer.weight.flatten(1)
            outputs = net.module_.layer(torch.as_tensor(data.X))
            outputs = outputs - net.module_.layer.bias.view(1, 3, *[1] * (len(shape) - 1))
            outputs = outputs.transpose(0, 1).flatten(1).T
            undamped = moment - moment.diagonal().mean() * DAMPING / (1 + DAMPING) * torch.eye(
                len(moment)
            )
            torch.testing.assert_close(
                weight @ undamped @ weight.T, outputs.T @ outputs / len(outputs)
            )

    @pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
    def test_recurrent(self, kind):
        """The states before each step are the inputs of the recurrent weight."""
        net, data = problem(Recurrent, SEQUENCE, kind=kind)
        moments = second_moments(net, data)
        X = torch.as_tensor(data.X)
        with torch.no_grad():
            states, _ = net.module_.layer(X)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
        torch.testing.assert_close(moments["layer.weight_ih_l0"], damped(X.flatten(0, 1)))
        torch.testing.assert_close(moments["layer.weight_hh_l0"], damped(before.flatten(0, 1)))

    def test_names(self):
        """Only the weights that are asked for."""
        net, data = problem()
        every = second_moments(net, data)
        one = second_moments(net, data, {"second.weight"})
        assert list(one) == ["second.weight"]
        assert torch.equal(one["second.weight"], every["second.weight"])
