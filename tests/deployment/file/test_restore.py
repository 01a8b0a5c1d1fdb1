import zlib

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from skcompress import load, save
from skcompress.deployment import FileError
from skcompress.deployment.file.artifact import MAGIC, VERSION
from skcompress.deployment.file.contents import contents
from skcompress.deployment.file.layout import write_parts
from tests.deployment.file.modules import data, net_of, pruned, quantized
from tests.pruning_modules import MLP, classification, classifier, regressor


def back(estimator, into, tmp_path):
    """Save one estimator and load it into another."""
    save(estimator, tmp_path / "net.skc")
    return load(tmp_path / "net.skc", estimator=into)


def assert_close(again, estimator, X):
    """Compare probabilities; only the order of sums may differ."""
    np.testing.assert_allclose(
        again.predict_proba(X), estimator.predict_proba(X), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    ["mlp, batch norm", "cnn", "gru, bidirectional", "lstm, h_n", "attention", "encoder",
     "branches", "tied"],
)  # fmt: skip
def test_removed_units_are_removed_again(name, tmp_path):
    """A fresh module of the full width ends with the file's widths and weights."""
    X, y = data(name)
    estimator = pruned(net_of(name), granularity="unit", sparsity=0.4).fit(X, y)
    net = net_of(name)
    again = back(estimator, net, tmp_path)
    assert not net.initialized_
    assert_close(again, estimator, X)
    again.partial_fit(X, y)
    assert again.history[-1, "train_loss"] > 0


def test_training_goes_on_from_the_weights(tmp_path):
    """The optimizer of the loaded net moves the weights of the file."""
    X, y = data("cnn")
    estimator = pruned(net_of("cnn"), granularity="unit").fit(X, y)
    again = back(estimator, net_of("cnn"), tmp_path)
    before = [p.detach().clone() for p in again.module_.parameters()]
    again.partial_fit(X, y)
    assert not any(
        torch.equal(a, b) for a, b in zip(before, again.module_.parameters(), strict=True)
    )


def test_a_compressed_net_is_fitted(tmp_path):
    """It has the masks, the integers and the labels of the one that was saved."""
    X, y = classification()
    labels = np.array(["a", "b", "c"])[y]
    unfitted = quantized(pruned(classifier()), activations="static")
    fitted = quantized(pruned(classifier()), activations="static").fit(X, labels)
    again = back(fitted, unfitted, tmp_path)
    assert not hasattr(unfitted, "net_")
    assert_close(again, fitted, X)
    assert again.predict(X).tolist() == fitted.predict(X).tolist()
    for name, mask in again.masks_.items():
        weight = again.net_.module_.module.get_parameter(name)
        assert torch.equal(mask, weight != 0)
    assert {n: q.bits for n, q in again.quantized_.items()} == fitted.bits_


def test_folded_normalization_stays_folded(tmp_path):
    """The layer before has the bias that it got, and the normalization is left out."""
    X, y = data("cnn")
    estimator = quantized(net_of("cnn"), batch_norm="fold", bits=8).fit(X, y)
    again = back(estimator, net_of("cnn"), tmp_path)
    assert isinstance(again.module_.norm, nn.Identity)
    assert_close(again, estimator, X)


def test_other_modules_are_refused(tmp_path):
    """The error names what does not fit."""
    X, y = classification()
    estimator = pruned(classifier()).fit(X, y)
    with pytest.raises(ValueError, match=r"it lacks \[.*\], and has"):
        back(estimator, net_of("branches"), tmp_path)
    with pytest.raises(ValueError, match="has shape"):
        back(estimator, classifier(MLP, module__n_outputs=5), tmp_path)
    with pytest.raises(TypeError, match="must be a skorch net"):
        back(estimator, 3, tmp_path)


def test_a_net_around_an_instance(tmp_path):
    """Its module is copied, and the user's stays as it was."""
    X, y = classification()
    net = classifier(MLP())
    before = net.module.first.weight.clone()
    estimator = pruned(net).fit(X, y)
    for into in (net, pruned(net)):
        again = back(estimator, into, tmp_path)
        assert_close(again, estimator, X)
    assert torch.equal(net.module.first.weight, before)


class Named(nn.Module):
    """Has parts with the names that constants and arrays of steps might have had in files."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 3)])
        self.constant = nn.ParameterList([nn.Parameter(torch.rand(8))])
        self.other = torch.rand(8)

    def forward(self, X):
        return self.steps[1](torch.relu(self.steps[0](X) + self.other) * self.constant[0])


def test_names_of_the_user_are_only_the_users(tmp_path):
    """A part may have any name; steps and constants have names that no part has."""
    X, y = classification()
    net = classifier(Named)
    pipeline = make_pipeline(StandardScaler(), pruned(net)).fit(X, y)
    module = pipeline[-1].net_.module_
    save(pipeline, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    assert_close(loaded, pipeline, X)
    np.testing.assert_array_equal(
        loaded[-1].module_.get_parameter("constant.0").detach(), module.constant[0].detach()
    )
    with pytest.warns(UserWarning, match="Named gives other outputs than the file itself"):
        # What is drawn beside the parameters is drawn anew.
        again = load(tmp_path / "net.skc", estimator=make_pipeline(StandardScaler(), net))[-1]
    assert torch.equal(again.module_.constant[0], module.constant[0])


def test_a_pruned_net_says_how_sparse_it_is(tmp_path):
    """Counted in the weights of the file, of those that a fresh module has."""
    X, y = classification()
    for settings in ({"granularity": "unit", "sparsity": 0.4}, {"sparsity": 0.7}):
        estimator = pruned(classifier(), **settings).fit(X, y)
        again = back(estimator, quantized(pruned(classifier())), tmp_path)
        assert again.sparsity_ == estimator.sparsity_
    assert not hasattr(back(estimator, quantized(classifier()), tmp_path), "sparsity_")


def test_a_pipeline_goes_into_a_pipeline(tmp_path):
    """Its steps are fitted, its net has the weights, and the one that was given has neither."""
    X, y = classification()
    pipeline = make_pipeline(PCA(4), pruned(classifier(MLP, module__n_inputs=4))).fit(X, y)
    unfitted = clone(pipeline)
    again = back(pipeline, unfitted, tmp_path)
    assert_close(again, pipeline, X)
    assert again[0].n_components == 4
    assert not hasattr(unfitted[0], "components_")
    nested = make_pipeline(make_pipeline("passthrough", PCA()), clone(pipeline[-1:]))
    assert_close(back(pipeline, nested, tmp_path), pipeline, X)


def test_other_steps_and_other_kinds_are_refused(tmp_path):
    """A step that is left out, or another one, would change what the net is given."""
    X, y = classification()
    pipeline = make_pipeline(StandardScaler(), pruned(classifier())).fit(X, y)
    with pytest.raises(ValueError, match="steps StandardScaler before the net"):
        back(pipeline, classifier(), tmp_path)
    for other in (make_pipeline(MinMaxScaler(), classifier()), make_pipeline(classifier())):
        with pytest.raises(ValueError, match=r"with the steps \['StandardScaler'\] before the net"):
            back(pipeline, other, tmp_path)
    with pytest.raises(ValueError, match="file is of a classifier, and NeuralNetRegressor is a"):
        back(pipeline[-1], pruned(regressor(MLP)), tmp_path)


@pytest.mark.parametrize(
    "about",
    [
        {"kind": None},
        {"kind": "regressor"},
        {"names": 5},
        {"inputs": None},
        {"classes": {}},
        {"activations": 3},
        {"steps": [["a", "StandardScaler", {}, {"n_features_in_": 6}]]},
    ],
    ids=str,
)
def test_files_of_others_are_checked(about, tmp_path):
    """What they leave out or misname is found before any of it is used."""
    X, y = classification()
    found = contents(pruned(classifier()).fit(X, y))
    body = write_parts(found.description | about, found.entries)
    path = tmp_path / "net.skc"
    path.write_bytes(MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body)
    with pytest.raises(FileError, match="not a file that skcompress can read"):
        load(path, estimator=pruned(classifier()))


class Drawn(nn.Module):
    """A module that computes with numbers that are neither parameters nor buffers."""

    def __init__(self):
        super().__init__()
        self.layer, self.drawn = nn.Linear(6, 3), torch.randn(3)

    def forward(self, X):
        return self.layer(X) * self.drawn


def test_a_module_that_computes_something_else(tmp_path):
    """Its parameters are those of the file, and what else it has been made of is not."""
    X, y = classification()
    net = classifier(Drawn, max_epochs=1).fit(X, y)
    save(net, tmp_path / "net.skc", X)
    np.testing.assert_allclose(
        load(tmp_path / "net.skc").predict_proba(X), net.predict_proba(X), atol=1e-6
    )
    with pytest.warns(UserWarning, match="Drawn gives other outputs than the file itself"):
        load(tmp_path / "net.skc", estimator=net)
