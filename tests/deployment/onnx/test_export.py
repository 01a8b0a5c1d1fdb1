"""export_onnx: kinds of estimators, labels, pipelines, and classes that nobody can import."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skcompress import DistilledNet, PrunedNet, QuantizedNet, export_onnx
from tests.contract_modules import TwoInputs
from tests.deployment.onnx.helpers import agree, run
from tests.pruning_modules import MLP, classification, classifier, regression, regressor

NAMES = np.array(["ant", "bee", "cat"])


class Recurrent(nn.Module):
    """A recurrent layer over the numbers of a row, in both directions."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.layer = kind(1, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, X):
        return self.head(self.layer(X[:, :, None])[0][:, -1])


@pytest.fixture
def path(tmp_path):
    """Return where to write."""
    return tmp_path / "net.onnx"


def estimators():
    """Return an estimator of each kind, with what is fitted to get it."""
    net = classifier()
    search = GridSearchCV(QuantizedNet(net, random_state=0), {"bits": [4, 8]}, cv=2)
    pruned = PrunedNet(net, granularity="unit", random_state=0)
    student = DistilledNet(net, teacher=LogisticRegression(), random_state=0)
    return {"pruned": pruned, "student": student, "search": search}


@pytest.mark.parametrize("name", estimators())
def test_every_kind_of_estimator_keeps_its_labels(name, path):
    """Strings come out of the graph as they went into ``fit``."""
    X, y = classification()
    estimator = estimators()[name].fit(X, NAMES[y])
    export_onnx(FrozenEstimator(estimator), str(path))
    agree(path, estimator, X, atol=1e-6)


def test_a_skorch_net_needs_no_rows_where_its_first_layer_tells(path):
    """Its labels are those of ``classes_``, where skorch's own ``predict`` gives their numbers."""
    X, y = classification()
    net = classifier().fit(X, y)
    export_onnx(net, path)
    agree(path, net, X, atol=1e-6)
    net.set_params(classes=list(NAMES))
    export_onnx(net, path)
    np.testing.assert_array_equal(run(path, X)["labels"], NAMES[net.predict(X)])


def test_a_skorch_net_of_images_needs_rows(path):
    """The first layer does not tell the size of an image."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
    net = classifier(module).initialize()
    with pytest.raises(ValueError, match="Pass a few rows as X"):
        export_onnx(net, path)
    X = np.random.default_rng(0).normal(size=(4, 1, 8, 8))
    export_onnx(net, path, X)
    agree(path, net, X.astype(np.float32), atol=1e-6)


def test_a_binary_net_has_its_threshold_in_the_graph(path):
    """One output becomes two probabilities, of which the second is compared."""
    X, y = classification(n_classes=2)
    net = NeuralNetBinaryClassifier(
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0)),
        max_epochs=2, train_split=None, verbose=0, threshold=0.8,
    )  # fmt: skip
    pruned = PrunedNet(net, random_state=0).fit(X, NAMES[y])
    export_onnx(pruned, path)
    agree(path, pruned, X, atol=1e-6)
    assert set(run(path, X)["labels"]) <= set(NAMES[:2])


@pytest.mark.parametrize("column", [False, True])
def test_a_regressor_gives_its_predictions(column, path):
    """In the shape that ``predict`` gives them."""
    X, y = regression()
    y = np.stack([y, -y], 1) if column else y
    net = regressor(MLP, module__n_outputs=1 + column)
    quantized = QuantizedNet(net, random_state=0).fit(X, y)
    export_onnx(quantized, path)
    out, expected = run(path, X)["predictions"], quantized.predict(X)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_a_dict_keeps_the_names_of_its_arrays(path):
    """Whatever their order."""
    rng = np.random.default_rng(0)
    X = {"tokens": rng.integers(10, size=(30, 4)), "numbers": rng.normal(size=(30, 4))}
    X["numbers"] = X["numbers"].astype(np.float32)
    pruned = PrunedNet(classifier(TwoInputs), random_state=0).fit(X, np.arange(30) % 3)
    export_onnx(pruned, path)
    np.testing.assert_allclose(
        run(path, X)["probabilities"], pruned.predict_proba(X), rtol=0, atol=1e-6
    )


def test_float64_stays_float64(path):
    """A net in double precision reads doubles, and its integers decode to doubles."""
    X, y = classification()
    X = X.astype(np.float64)
    quantized = QuantizedNet(classifier(MLP().double()), bits=4, random_state=0).fit(X, y)
    export_onnx(quantized, path)
    agree(path, quantized, X, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Sequential(nn.Linear(6, 3), nn.ELU()), "Elu"),
        (nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 1, 4), nn.Flatten()), "Conv"),
        (nn.Sequential(nn.Linear(6, 3), nn.CELU()), "Celu"),
    ],
    ids=["elu", "conv", "celu"],
)
def test_what_onnxruntime_lacks_in_double_precision_is_named(module, name, path):
    """A file that it cannot load is not written."""
    net = classifier(module.double()).initialize()
    with pytest.raises(ValueError, match=f"no {name} in double precision. Build .* in float32"):
        export_onnx(net, path, np.zeros((2, 6)))
    assert not path.exists()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_loops_in_double_precision(kind, path):
    """For which onnxruntime lacks the operators."""
    net = classifier(Recurrent(kind).double()).initialize()
    X = np.random.default_rng(0).normal(size=(5, 6))
    export_onnx(net, path, X)
    agree(path, net, X, atol=1e-12)


class Residual(nn.Module):
    """Branches that meet again: a sum, a product and a concatenation."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(12, n_outputs)

    def forward(self, X):
        left, right = torch.relu(self.left(X)), torch.sigmoid(self.right(X))
        joined = X + left * right if self.left.bias is not None else left
        return self.head(torch.cat([self.norm(joined), left - right], dim=1))


class Steps(nn.Module):
    """Two stacked recurrent layers, read at the last step and on average."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.layer = nn.GRU(2, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, n_outputs)

    def forward(self, X):
        out, _ = self.layer(X.view(X.shape[0], 3, 2))
        return self.head(torch.cat([out[:, -1], out.mean(1)], dim=1))


RUN = """
import sys
import numpy, onnxruntime
X, labels, probabilities = (numpy.load(f"{sys.argv[1]}/{n}.npy") for n in ("X", "y", "p"))
session = onnxruntime.InferenceSession(f"{sys.argv[1]}/net.onnx")
out = session.run(["labels", "probabilities"], {"X": X})
assert (out[0] == labels).all()
assert abs(out[1] - probabilities).max() < 1e-5
assert not {"torch", "skorch", "skcompress"} & set(sys.modules)
print("agreed")
"""


@pytest.mark.parametrize("module", [Residual, Steps])
def test_a_process_without_the_class_predicts_the_same(module, tmp_path):
    """The file needs neither this module nor torch."""
    X, y = classification()
    quantized = QuantizedNet(classifier(module), bits=4, random_state=0).fit(X, NAMES[y])
    export_onnx(quantized, tmp_path / "net.onnx")
    arrays = {"X": X, "y": quantized.predict(X), "p": quantized.predict_proba(X)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.stdout == "agreed\n", result.stderr


def test_what_holds_no_net_is_refused(path):
    """The error says what would work."""
    X, y = classification()
    with pytest.raises(TypeError, match="LogisticRegression holds no skorch net"):
        export_onnx(LogisticRegression().fit(X, y), path)


class Centred(NeuralNetClassifier):
    """A net with preprocessing of its own."""

    def infer(self, x, **fit_params):
        return super().infer(2 * x - 1, **fit_params)


class Shifted(NeuralNetClassifier):
    """A net with labels of its own."""

    def predict(self, X):
        return (super().predict(X) + 1) % 3


@pytest.mark.parametrize("kind", [Centred, Shifted])
@pytest.mark.parametrize("given", [False, True])
def test_a_subclass_that_predicts_otherwise_is_refused(kind, given, path):
    """The graph is written from the module, and would give other labels."""
    X, y = classification()
    net = kind(MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0).fit(X, y)
    method = "predict_proba" if kind is Centred else "predict"
    for estimator in (net, PrunedNet(net, random_state=0).fit(X, y)):
        if estimator is net or kind is Centred:  # PrunedNet predicts labels by itself
            with pytest.raises(ValueError, match=f"{method} gives other predictions than its"):
                export_onnx(estimator, path, X if given else None)
    assert not path.exists()


def test_rows_of_another_shape_are_refused(path):
    """As ``predict`` refuses them; a skorch net says what it did not take."""
    X, y = classification()
    pruned = PrunedNet(classifier(), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"does not take X of shape \(\d+, 5\).* In fit, X was"):
        export_onnx(pruned, path, X[:, :5])
    with pytest.raises(ValueError, match="predict_proba fails for a few rows: mat1 and mat2"):
        export_onnx(classifier().initialize(), path, X[:, :5])


def test_comparing_leaves_no_trace(path):
    """Neither in the random state nor in warnings about names."""
    X, y = classification()
    pruned = PrunedNet(classifier(), random_state=0).fit(pd.DataFrame(X).add_prefix("x"), y)
    before = torch.get_rng_state()
    export_onnx(pruned, path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("module", ["model", "pipeline"])
def test_a_missing_package_is_named(module, path, monkeypatch):
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, f"skcompress.deployment.onnx.{module}", None)
    with pytest.raises(ImportError, match=r"skl2onnx: pip install 'skcompress\[onnx\]'"):
        export_onnx(make_pipeline("passthrough", classifier().initialize()), path)
