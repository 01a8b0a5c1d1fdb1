"""The graph gives what the estimator gives, for every module, format and way of rounding."""

import json

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skcompress import PrunedNet, QuantizedNet
from skcompress.deployment.onnx.model import to_onnx
from tests.deployment.onnx.helpers import ATOL_OF_INTEGERS, agree, frozen, run
from tests.pruning_modules import MODULES, classification, classifier

ROUNDED = ["mlp", "cnn", "cnn, grouped", "rnn, no bias", "gru, bidirectional", "lstm, h_n"]
ROUNDED += ["encoder, padding", "tied"]


@pytest.mark.parametrize("name", MODULES)
def test_every_kind_of_layer_is_written(name):
    """Quantized weights decode to the values that the estimator predicts with."""
    estimator, X, y = frozen(name)
    quantized = QuantizedNet(estimator, bits=4, random_state=0).fit(X, y)
    agree(to_onnx(quantized), quantized, X, atol=1e-5)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_activations_are_rounded_in_the_graph(name, activations):
    """What enters a layer is rounded as ``IntegerModule`` rounds it."""
    estimator, X, y = frozen(name)
    quantized = QuantizedNet(estimator, activations=activations, random_state=0).fit(X, y)
    expected = quantized.predict_proba(X)
    error = np.abs(run(to_onnx(quantized), X)["probabilities"] - expected).max()
    unrounded = np.abs(estimator.predict_proba(X) - expected).max()
    assert error < min(ATOL_OF_INTEGERS, unrounded)


FORMATS = [
    {"bits": 1}, {"bits": 2}, {"bits": 3}, {"bits": 8}, {"bits": 16}, {"granularity": "tensor"},
    {"bits": 4, "granularity": 2}, {"bits": 4, "granularity": 4},
    {"bits": 2, "format": "affine"}, {"bits": 4, "format": "affine", "granularity": 4},
    {"bits": 8, "format": "affine"}, {"bits": 16, "format": "affine"},
    {"bits": 1, "format": "codebook"}, {"bits": 4, "format": "codebook"},
    {"bits": 4, "format": "power-of-two"}, {"bits": 4, "format": "power-of-two", "granularity": 4},
]  # fmt: skip


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("params", FORMATS, ids=str)
def test_every_format_decodes_exactly(params, pruned):
    """Also where pruned weights are zero, which not every format has a level for."""
    X, y = classification()
    net = PrunedNet(classifier(), random_state=0) if pruned else classifier()
    quantized = QuantizedNet(net, random_state=0, **params).fit(X, y)
    agree(to_onnx(quantized), quantized, X, atol=1e-6)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("params", [{"bits": 4}, {"format": "affine"}, {"bits": 1}], ids=str)
def test_formats_of_integers_are_multiplied_in_integers(params, activations):
    """Narrow weights and zero points reach the kernels of 8-bit integers."""
    X, y = classification()
    quantized = QuantizedNet(classifier(), activations=activations, random_state=0, **params)
    quantized.fit(X, y)
    agree(to_onnx(quantized), quantized, X, atol=ATOL_OF_INTEGERS)


KINDS = {2: "INT2", 4: "INT4", 8: "INT8", 16: "INT16"}


@pytest.mark.parametrize("bits", KINDS)
def test_integers_are_stored_as_integers(bits):
    """A net of so many bits takes so many bits for each weight in the file."""
    X, y = classification()
    quantized = QuantizedNet(classifier(), bits=bits, random_state=0).fit(X, y)
    model = to_onnx(quantized)
    stored = {t.name: t for t in model.graph.initializer}
    for name, tensor in quantized.quantized_.items():
        assert onnx.TensorProto.DataType.Name(stored[name].data_type) == KINDS[bits]
        assert len(stored[name].raw_data) == tensor.mask.numel() * bits / 8
    assert model.opset_import[0].version == (25 if bits == 2 else 21)


class Twice(nn.Module):
    """A recurrent layer over its own outputs."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.head = kind(2, 2, bidirectional=kind is nn.RNN), nn.Linear(2, 3)

    def forward(self, X):
        out, _ = self.layer(X.view(-1, 3, 2).transpose(0, 1))
        return self.head(self.layer(out[..., :2])[0][-1][:, :2])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_integers_of_a_shared_layer_are_stored_once(kind):
    """Whichever number of times it runs."""
    X, y = classification()
    quantized = QuantizedNet(classifier(Twice(kind)), bits=4, random_state=0).fit(X, y)
    model = to_onnx(quantized)
    agree(model, quantized, X, atol=1e-6)
    stored = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4]
    assert len(stored) == len(quantized.quantized_)


def test_the_file_says_what_it_is():
    """Version, classes, sparsity and bits are metadata."""
    X, y = classification()
    estimator = QuantizedNet(PrunedNet(classifier(), random_state=0), bits=4, random_state=0)
    model = to_onnx(estimator.fit(X, y))
    facts = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert facts["classes"] == [0, 1, 2]
    assert facts["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert set(facts["bits"].values()) == {4}
    assert model.producer_name == "skcompress"


class Rows(nn.Module):
    """A recurrent layer or an encoder over the rows of an 8 x 8 image."""

    def __init__(self, kind="lstm"):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        if kind == "transformer":
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
            self.layer = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        else:
            self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](16, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, X):
        out = self.layer(self.embed(X.view(-1, 8, 8)))
        return self.head((out[0] if isinstance(out, tuple) else out).mean(1))


class Images(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8),
            nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip


ARCHITECTURES = {
    "mlp": (nn.Sequential, [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)]),
    "cnn": (Images, None),
    "lstm": (Rows, "lstm"),
    "gru": (Rows, "gru"),
    "transformer": (Rows, "transformer"),
}


@pytest.mark.parametrize("activations", [None, "dynamic", "static"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_over_a_whole_test_set(name, activations):
    """The same labels and probabilities, also where layers in integers follow each other.

    Nonlinearities and ranges of rows are computed in floating point, a bit differently: there, a
    value at the edge of two steps may take either.
    """
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    kind, given = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = kind(*given) if isinstance(given, list) else kind(given) if given else kind()
    net = classifier(module, optimizer=torch.optim.Adam, lr=0.01, max_epochs=4, batch_size=64)
    quantized = QuantizedNet(net, activations=activations, random_state=0).fit(X[:600], y[:600])
    test, model = X[600:], to_onnx(quantized)
    if activations is None:
        agree(model, quantized, test, atol=1e-5)
    elif activations == "static" and name in ("mlp", "cnn"):
        agree(model, quantized, test, atol=ATOL_OF_INTEGERS)
    else:
        out = run(model, test)
        assert np.abs(out["probabilities"] - quantized.predict_proba(test)).max() < 1e-2
        assert (out["labels"] == quantized.predict(test)).mean() >= 0.999


class Forward(nn.Module):
    """A layer before any function of its output."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 4), function

    def forward(self, X):
        return self.function(self.layer(X))


def overwritten(x):
    """Read a view of what was changed in place behind its back."""
    y = x + 1
    view = y.view(-1, 4)
    y.relu_()
    return view + 1


REFUSED = [
    (lambda x: torch.fft.fft(x).abs(), "operation fft_fft is not among"),
    (lambda x: x.reshape(len(x), 2, 2).sum(1), "fixes the number of rows"),
    (overwritten, "relu_ changes add in place"),
    (lambda x: x[:, :3].div(2.0, rounding_mode="trunc"), "rounds towards zero"),
    (lambda x: nn.functional.adaptive_avg_pool1d(x[:, None], 3)[:, 0], "windows of unequal size"),
    (lambda x: (x * 9).long().div(2, rounding_mode="floor") + x, "integers that rounds down"),
    (lambda x: torch.round(x, decimals=1), r"round .* with the arguments \(\w+, decimals=1\)"),
    (nn.functional.dropout, "other predictions for the same rows each time"),
    (lambda x: nn.functional.dropout(x, 1e-9), "drops values in predictions, too"),
    (lambda x: nn.functional.batch_norm(x, None, None, training=True), "running statistics"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_not_understood_is_named(function, message):
    """The error says which operation stands in the way."""
    net = classifier(Forward(function)).initialize()
    with pytest.raises(ValueError, match=message):
        to_onnx(net)


FUNCTIONS = {
    "in place": lambda x: nn.functional.relu(x + 1, inplace=True).mul_(2),
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "elu": nn.functional.elu,
    "softplus": lambda x: nn.functional.softplus(x, beta=2),
    "mish": nn.functional.mish,
    "hardswish": nn.functional.hardswish,
    "hardsigmoid": nn.functional.hardsigmoid,
    "log sigmoid": nn.functional.logsigmoid,
    "leaky": lambda x: nn.functional.leaky_relu(x, 0.3),
    "clamp": lambda x: x.clamp(min=-0.1).clamp(max=0.2) + nn.functional.relu6(x),
    "softplus, threshold": lambda x: nn.functional.softplus(x, beta=2, threshold=0.1),
    "clamp to tensors": lambda x: x.clamp(-x[0], torch.full((4,), 0.2)).clamp(max=x.mean(0)),
    "bits": lambda x: x + ((x * 10).long() & 3 | ~(x * 8).long()) ** 2,
    "larger": lambda x: torch.max(x, torch.full((4,), 0.1)) + x.argmax() + torch.min(x, -x),
    "tile": lambda x: x.tile(2)[:, 2:6],
    "integers to floats": lambda x: torch.sqrt((x * 9).long() ** 2) + (x * 9).long().clamp(max=0.5),
    "arithmetic": lambda x: (2 - x) * (x / 3) - torch.maximum(x, -x) ** 2,
    "integers": lambda x: x + torch.arange(4) + x.argmax(1, keepdim=True),
    "masks": lambda x: torch.where((x > 0) & ~(x >= 1), x, x.new_zeros(())).masked_fill(x < 0, 2),
    "norms": lambda x: nn.functional.group_norm(x[:, :, None], 2)[:, :, 0] + x.softmax(1),
    "layer norm": lambda x: nn.functional.layer_norm(x, (4,)),
    "parts": lambda x: torch.cat([x.flip(1)[:, 1:], x.chunk(4, 1)[0]], 1),
    "products": lambda x: torch.einsum("bi,bj->bj", x, x) + (x[:, None] @ x[:, :, None])[:, 0],
    "repeats": lambda x: x.repeat(1, 2)[:, 2:6] + x[:, :1].expand(-1, 4) + torch.ones_like(x),
    "pad": lambda x: nn.functional.pad(x, (1, 2), value=3.0)[:, 1:5],
    "index": lambda x: x[torch.arange(x.shape[0]), (x[:, 0] > 0).long()][:, None] + x,
    "rows": lambda x: x.mean(1, keepdim=True) * x.shape[0] / x.size(0) + x.amax(1, keepdim=True),
    "stack": lambda x: torch.stack([x, 2 * x], 1).sum(1) - torch.stack(x.unbind(1), 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_what_torch_gives(name):
    """Nonlinearities, arithmetic, and what moves elements about."""
    torch.manual_seed(0)
    net = classifier(Forward(FUNCTIONS[name])).initialize()
    X = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    for n_rows in (1, 7):
        out = run(to_onnx(net), X[:n_rows])["probabilities"]
        np.testing.assert_allclose(out, net.predict_proba(X[:n_rows]), rtol=0, atol=1e-6)
