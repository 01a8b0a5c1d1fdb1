import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skcompress import DistilledNet, load, save
from skcompress.deployment import FileError
from tests.deployment.file.modules import KINDS, data, net_of, pruned, quantized
from tests.pruning_modules import MLP, classification, classifier, regression, regressor


def saved(estimator, tmp_path, X=None):
    """Save and load an estimator."""
    save(estimator, tmp_path / "net.skc", X)
    return load(tmp_path / "net.skc")


def assert_same(loaded, estimator, X):
    """Compare predictions; only the order of sums may differ."""
    np.testing.assert_allclose(
        loaded.predict_proba(X), estimator.predict_proba(X), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_module_predicts_the_same_from_a_file(name, tmp_path):
    """For pruned and quantized nets of every kind, and any number of rows."""
    X, y = data(name)
    estimator = quantized(pruned(net_of(name))).fit(X, y)
    loaded = saved(estimator, tmp_path)
    assert_same(loaded, estimator, X)
    assert_same(loaded, estimator, X[:1])


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm, bidirectional", "gru", "encoder"])
@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_prediction_in_integers_is_what_the_file_computes(name, activations, tmp_path):
    """The integers of activations and weights are the same, and so are their sums."""
    X, y = data(name)
    estimator = quantized(net_of(name), bits=8, activations=activations).fit(X, y)
    loaded = saved(estimator, tmp_path)
    np.testing.assert_allclose(loaded.predict_proba(X), estimator.predict_proba(X), atol=1e-5)
    plain = saved(quantized(net_of(name), bits=8).fit(X, y), tmp_path)
    assert not np.allclose(plain.predict_proba(X), estimator.predict_proba(X), atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "affine", "bits": 4},
        {"format": "affine", "bits": 8, "granularity": 4},
        {"format": "codebook", "bits": 3},
        {"format": "power-of-two", "bits": 4},
        {"bits": 1},
        {"bits": 16, "granularity": "tensor"},
        {"bits": 3, "granularity": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("sparsity", [None, 0.6])
def test_every_format_comes_back(settings, sparsity, tmp_path):
    """Weights are exactly those that the codes stand for, pruned or not."""
    X, y = classification()
    net = classifier() if sparsity is None else pruned(classifier(), sparsity=sparsity)
    estimator = quantized(net, **settings).fit(X, y)
    loaded = saved(estimator, tmp_path)
    assert_same(loaded, estimator, X)
    for name, weight in loaded.quantized_.items():
        own = estimator.quantized_[name]
        assert (weight.bits, weight.format) == (own.bits, own.format)
        first, second = (q.dequantize().flatten().sort().values for q in (weight, own))
        assert torch.equal(first, second)


def test_weights_without_rounding_come_back_bit_for_bit(tmp_path):
    """A net that is not compressed keeps the order of its units."""
    X, y = data("cnn")
    net = net_of("cnn").fit(X, y)
    loaded = saved(net, tmp_path, X[:2])
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))
    for name, parameter in net.module_.named_parameters():
        assert torch.equal(loaded.module_.get_parameter(name), parameter)


@pytest.mark.parametrize(
    "labels", [["no", "yes", "maybe"], [7, -2, 3], [0.5, 1.5, 2.5], [10, 20, 2**40]], ids=str
)
def test_labels_of_any_type_come_back(labels, tmp_path):
    """Also strings, and integers with gaps, with their type."""
    X, y = classification()
    labels = np.array(labels)
    if labels.dtype.kind == "f":
        labels = (labels * 2).astype(np.int32)
    estimator = pruned(classifier()).fit(X, labels[y])
    loaded = saved(estimator, tmp_path)
    assert loaded.classes_.dtype == estimator.classes_.dtype
    np.testing.assert_array_equal(loaded.classes_, estimator.classes_)
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))
    assert loaded.score(X, labels[y]) == estimator.score(X, labels[y])


def test_labels_of_objects_come_back(tmp_path):
    """An array of Python strings has no length of its own."""
    X, y = classification()
    estimator = pruned(classifier()).fit(X, np.array(["a", "bb", "c"], dtype=object)[y])
    assert saved(estimator, tmp_path).classes_.tolist() == ["a", "bb", "c"]


class Probabilities(nn.Module):
    """Gives probabilities, as NLLLoss in skorch wants them."""

    def __init__(self):
        super().__init__()
        self.mlp = MLP()

    def forward(self, X):
        return self.mlp(X).softmax(-1)


class OneOutput(MLP):
    """Gives one number a row."""

    def forward(self, X):
        return super().forward(X).squeeze(-1)


def binary(**settings):
    """Return a net for two classes with one output."""
    settings = {"module__n_outputs": 1, "max_epochs": 2, "train_split": None, **settings}
    return NeuralNetBinaryClassifier(OneOutput, verbose=0, **settings)


def test_output_rules_follow_the_criterion(tmp_path):
    """Softmax of logits, probabilities as they are, and both classes of a single output."""
    X, y = classification()
    for net, labels in [
        (classifier(), y),
        (classifier(Probabilities, criterion=nn.NLLLoss), y),
        (binary(), y > 0),
        (binary(threshold=0.1), y > 0),
    ]:
        estimator = pruned(net).fit(X, labels)
        assert_same(saved(estimator, tmp_path), estimator, X)


def test_regressors_give_the_shape_of_their_targets(tmp_path):
    """One dimension for one, two for a matrix of targets."""
    X, y = regression()
    for targets in (y, y[:, None] * [1.0, 2.0]):
        n_outputs = 1 if targets.ndim == 1 else 2
        net = regressor(MLP, module__n_outputs=n_outputs)
        estimator = pruned(net).fit(X, targets.astype(np.float32))
        predicted = saved(estimator, tmp_path).predict(X)
        assert predicted.shape == targets.shape
        np.testing.assert_allclose(predicted, estimator.predict(X), rtol=1e-4, atol=1e-6)


class NamedInputs(nn.Module):
    """Takes numbers and tokens by name, and gives its prediction first."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(9, 3)

    def forward(self, tokens, numbers):
        hidden = torch.cat([self.embedding(tokens).mean(1), numbers], 1)
        return self.head(hidden), hidden


class FirstOutput(NeuralNetClassifier):
    """Has its loss of the first of the module's outputs."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred[0], y_true, *args, **kwargs)


def test_inputs_by_name(tmp_path):
    """A dict of arrays goes to the arguments of the same names."""
    X, y = classification()
    rows = {"numbers": X, "tokens": np.arange(120).reshape(60, 2) % 5}
    frozen = FrozenEstimator(FirstOutput(NamedInputs, classes=[0, 1, 2]).initialize())
    estimator = quantized(frozen).fit(rows, y)
    loaded = saved(estimator, tmp_path)
    assert_same(loaded, estimator, rows)
    with pytest.raises(ValueError, match=r"a dict of"):
        loaded.predict(X)


def test_distilled_search_and_frozen(tmp_path):
    """What predicts inside of them is saved."""
    X, y = classification()
    distilled = DistilledNet(classifier(), LogisticRegression(), random_state=0).fit(X, y)
    assert_same(saved(distilled, tmp_path), distilled, X)
    search = GridSearchCV(pruned(classifier()), {"sparsity": [0.5]}, cv=2).fit(X, y)
    assert_same(saved(FrozenEstimator(search), tmp_path), search, X)


def test_names_of_features_are_checked(tmp_path):
    """A frame with other columns is refused, as by the estimator itself."""
    pandas = pytest.importorskip("pandas")
    X, y = classification()
    frame = pandas.DataFrame(X, columns=[f"feature {i}" for i in range(6)])
    loaded = saved(pruned(classifier()).fit(frame, y), tmp_path)
    assert loaded.n_features_in_ == 6
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"feature 0": "other"}))


def test_other_shapes_than_in_fit_are_refused(tmp_path):
    """The operations hold the lengths that they were recorded with."""
    X, y = data("lstm")
    loaded = saved(pruned(net_of("lstm")).fit(X, y), tmp_path)
    with pytest.raises(ValueError, match="was saved for rows of shape"):
        loaded.predict(X[:, :, :3])
    with pytest.raises(ValueError, match="NaN"):
        loaded.predict(np.full_like(X, np.nan))


def test_what_cannot_be_saved_is_said(tmp_path):
    """Rows that are not known, what is not fitted, and what is no net."""
    X, y = classification()
    path = tmp_path / "net.skc"
    with pytest.raises(ValueError, match="Pass X="):
        save(classifier().fit(X, y), path)
    with pytest.raises(NotFittedError):
        save(pruned(classifier()), path)
    with pytest.raises(TypeError, match="No fitted skorch net"):
        save(LogisticRegression().fit(X, y), path)
    net = classifier(predict_nonlinearity=lambda x: x * 2).fit(X, y)
    with pytest.raises(ValueError, match="predict_nonlinearity"):
        save(net, path, X)
    assert not path.exists()


class Untraceable(MLP):
    """Decides by the values of its rows."""

    def forward(self, X):
        return super().forward(X if X.sum() > 0 else -X)


def test_a_net_that_cannot_be_traced_is_saved_without_its_graph(tmp_path):
    """Its file is for a net of the same class alone."""
    X, y = classification()
    estimator = pruned(classifier(Untraceable)).fit(X, y)
    path = tmp_path / "net.skc"
    with pytest.raises(ValueError, match=r"(?s)cannot be traced.*graph=False"):
        save(estimator, path)
    save(estimator, path, graph=False)
    with pytest.raises(ValueError, match="estimator=net"):
        load(path)
    again = load(path, estimator=pruned(classifier(Untraceable)))
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))


def test_a_loaded_net_pickles_and_does_not_fit(tmp_path):
    """It is a predictor, and says so."""
    X, y = classification()
    loaded = saved(quantized(classifier(), activations="dynamic").fit(X, y), tmp_path)
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.predict_proba(X), loaded.predict_proba(X))
    with pytest.raises(ValueError, match="estimator=net"):
        loaded.fit(X, y)


def test_errors_are_of_one_type(tmp_path):
    """A file that is none is refused."""
    path = tmp_path / "net.skc"
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(FileError, match="does not begin as one"):
        load(path)
