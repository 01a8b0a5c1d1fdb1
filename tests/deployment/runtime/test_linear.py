"""Linear layers in integers beside convolutions in floating point."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import deploy
from skcompress.deployment.onnx.model import to_onnx
from skcompress.deployment.runtime.forms import forms

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 1, 8, 8)).astype(np.float32)


class CNN(nn.Sequential):
    def __init__(self, channels=16):
        super().__init__(
            nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Conv2d(channels, 8, 3), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 3),
        )  # fmt: skip


def made(form, channels=16):
    """Return a graph in floating point, and the same in another form."""
    torch.manual_seed(0)
    net = NeuralNetClassifier(CNN(channels), criterion=nn.CrossEntropyLoss).initialize()
    plain = to_onnx(net, X, labels=False, floats=True)
    return plain, forms(plain, {plain.graph.input[0].name: X})[form]()


def run(model, rows):
    """Return what onnxruntime makes of rows."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {model.graph.input[0].name: rows})[0]


@pytest.mark.parametrize(("form", "channels"), [("int8 linear", 16), ("int8 linear padded", 5)])
def test_only_linear_layers_are_rounded(form, channels):
    """Their weights are int8, those of convolutions floats, and probabilities nearly the same."""
    plain, model = made(form, channels)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("Conv")) == (2, 2)
    assert "DynamicQuantizeLinear" not in kinds
    weights = {t.name: numpy_helper.to_array(t).dtype for t in model.graph.initializer}
    read = {n.op_type: weights[n.input[1]] for n in model.graph.node if n.input[1:2]
            if n.input[1] in weights}  # fmt: skip
    assert read["MatMulInteger"] == np.int8
    assert read["Conv"] == np.float32
    difference = np.abs(run(model, X) - run(plain, X)).max()
    assert 0 < difference < 0.02


def test_rows_are_apart():
    """An extreme row beside another one does not change the steps that it is rounded to."""
    _, model = made("int8 linear")
    alone = run(model, X[:1])
    np.testing.assert_array_equal(run(model, np.concatenate([X[:1], 1000 * X[1:2]]))[:1], alone)


def test_the_steps_are_those_of_the_rows():
    """There are 255 of them from zero to the largest input of the last layer."""
    _, model = made("int8 linear")
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    last = [n for n in model.graph.node if n.op_type == "QuantizeLinear"][-1]
    scaled = next(n for n in model.graph.node if n.output[0] == last.input[0])
    inverse, zero = weights[scaled.input[1]], weights[last.input[2]]
    torch.manual_seed(0)
    hidden = torch.from_numpy(X)
    for layer in list(CNN())[:-1]:
        hidden = layer(hidden)
    # The first layer is rounded as well, so that the largest value is only nearly this.
    assert float(inverse) == pytest.approx(255 / hidden.max().item(), rel=0.03)
    assert zero == 0


class Twice(nn.Module):
    """Applies one square layer twice, and convolves before if it is asked to."""

    def __init__(self, convolves):
        super().__init__()
        self.before = nn.Conv2d(1, 1, 1) if convolves else nn.Identity()
        self.inputs, self.shared, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, X):
        hidden = self.inputs(self.before(X).flatten(1)).relu()
        for _ in range(2):
            hidden = hidden + self.shared(hidden).relu()
        return self.head(hidden)


@pytest.mark.parametrize(
    ("form", "convolves"),
    [
        ("int8 dynamic", False),
        ("int8 dynamic", True),
        ("int8 static", False),
        ("int8 linear", True),
    ],
)
def test_a_layer_that_is_used_twice(form, convolves):
    """Both uses have the same weights, and none has them transposed."""
    torch.manual_seed(0)
    net = NeuralNetClassifier(Twice(convolves), criterion=nn.CrossEntropyLoss).initialize()
    plain = to_onnx(net, X, labels=False, floats=True)
    model = forms(plain, {plain.graph.input[0].name: X})[form]()
    np.testing.assert_allclose(run(model, X), run(plain, X), atol=0.02)


class TwiceRecurrent(nn.Module):
    """Applies one recurrent layer twice."""

    def __init__(self):
        super().__init__()
        self.shared, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, X):
        return self.head(self.shared(self.shared(X.flatten(1, 2))[0])[0][:, -1])


def test_a_recurrent_layer_that_is_used_twice():
    """It has two weights, which onnxruntime quantizes in place."""
    torch.manual_seed(0)
    net = NeuralNetClassifier(TwiceRecurrent, criterion=nn.CrossEntropyLoss).initialize()
    plain = to_onnx(net, X, labels=False, floats=True)
    model = forms(plain, {plain.graph.input[0].name: X})["int8 dynamic"]()
    np.testing.assert_allclose(run(model, X[:1]), run(plain, X[:1]), atol=0.02)


def test_steps_whose_types_are_not_inferred():
    """What comes of skl2onnx need not tell them."""
    flat, y = X.reshape(40, -1), np.arange(40) % 3
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "train_split": None}
    net = NeuralNetClassifier(nn.Linear(4, 3), verbose=0, **settings)
    pipeline = make_pipeline(StandardScaler(), PCA(4), net).fit(flat, y)
    deployed = deploy(pipeline, flat, forms=["int8 dynamic"], n_repeats=1, tolerance=1.0)
    np.testing.assert_allclose(
        deployed.predict_proba(flat), pipeline.predict_proba(flat), atol=0.05
    )


def test_convolutions_alone():
    """Without a linear layer there is no such form."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss).initialize()
    plain = to_onnx(net, X, labels=False, floats=True)
    assert set(forms(plain, {plain.graph.input[0].name: X})) == {
        "fp32", "int8 dynamic", "int8 static",
    }  # fmt: skip


def test_deploy_tries_it():
    """It is one of the forms of nets that convolve, and of no others."""
    y = np.arange(40) % 3
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "train_split": None}
    net = NeuralNetClassifier(CNN, verbose=0, **settings).fit(X, y)
    deployed = deploy(net, X, forms=["int8 linear"], n_repeats=1, tolerance=1.0)
    assert deployed.form_ == "int8 linear"
    np.testing.assert_allclose(deployed.predict_proba(X), net.predict_proba(X), atol=0.02)
    flat = X.reshape(40, -1)
    mlp = NeuralNetClassifier(nn.Linear(64, 3), verbose=0, **settings).fit(flat, y)
    with pytest.raises(ValueError, match="int8 linear: the net has no layer for it"):
        deploy(mlp, flat, forms=["int8 linear"], n_repeats=1)
