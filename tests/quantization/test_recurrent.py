import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from skcompress.quantization.recurrent import RECURRENT, run_recurrent

LAYERS = {
    "lstm": (nn.LSTM, {}),
    "lstm, two layers": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm, projected": (nn.LSTM, {"proj_size": 2}),
    "lstm, projected, no bias": (nn.LSTM, {"proj_size": 2, "bias": False}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "gru, no bias": (nn.GRU, {"bias": False, "batch_first": True}),
    "rnn": (nn.RNN, {"bidirectional": True}),
    "rnn, relu": (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
}


class Ours(TorchFunctionMode):
    """Run recurrent layers by our own steps."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in RECURRENT:
            self.calls += 1
            return run_recurrent(RECURRENT[func], functional.linear, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_it_computes_what_torch_computes(name, started):
    """Outputs and last states, from zeros or from states that are given."""
    kind, settings = LAYERS[name]
    torch.manual_seed(0)
    layer, X = kind(3, 4, **settings).double(), torch.randn(5, 6, 3).double()
    states = (layer(X.flip(0))[1],) if started else ()
    with torch.no_grad(), Ours() as mode:
        ours = layer(X, *states)
    assert mode.calls == 1
    for one, other in zip(tree_leaves(ours), tree_leaves(layer(X, *states)), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-10, atol=1e-10)
