"""What ``load`` returns is an estimator like others, and takes what the saved one took."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch.helper import SliceDataset
from torch import nn

from skcompress import load, save, size_in_bytes
from skcompress.deployment import LoadedClassifier, LoadedRegressor
from tests.deployment.file.modules import data, net_of, pruned, quantized
from tests.pruning_modules import classification, classifier


def saved(estimator, tmp_path):
    """Save and load an estimator."""
    save(estimator, tmp_path / "net.skc")
    return load(tmp_path / "net.skc")


def test_what_is_not_fitted_says_so(tmp_path):
    """It was made by hand, or is a clone."""
    X, y = classification()
    loaded = saved(pruned(classifier()).fit(X, y), tmp_path)
    for unfitted in (LoadedClassifier(), LoadedRegressor(), clone(loaded)):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            unfitted.predict(X)
        with pytest.raises(NotFittedError, match="not fitted yet"):
            save(unfitted, tmp_path / "other.skc")


@pytest.mark.parametrize("name", ["cnn", "gru", "tied"])
def test_a_loaded_net_is_saved_with_the_same_bytes(name, tmp_path):
    """And has their size, with its masks, integers and ranges of activations."""
    X, y = data(name)
    activations = None if name == "tied" else "static"
    net = quantized(pruned(net_of(name)), bits=8, activations=activations).fit(X, y)
    loaded, bytes_ = saved(net, tmp_path), (tmp_path / "net.skc").read_bytes()
    save(loaded, tmp_path / "again.skc")
    assert (tmp_path / "again.skc").read_bytes() == bytes_
    assert size_in_bytes(loaded) == len(bytes_)


def test_a_loaded_pipeline_is_saved_step_by_step(tmp_path):
    """Whole with the same bytes, its net alone, and its net behind other steps."""
    X, y = classification()
    pipeline = make_pipeline(StandardScaler(), pruned(classifier())).fit(X, y)
    loaded, bytes_ = saved(pipeline, tmp_path), (tmp_path / "net.skc").read_bytes()
    assert size_in_bytes(loaded) == len(bytes_)
    other = make_pipeline(MinMaxScaler().fit(X), loaded[-1])
    for estimator in (loaded, loaded[-1], other):
        expected = estimator.predict_proba(X)
        np.testing.assert_array_equal(saved(estimator, tmp_path).predict_proba(X), expected)


class Tokens(nn.Module):
    """Takes numbers, tokens and a mask by name."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(10, 3)

    def forward(self, numbers, tokens, kept):
        hidden = torch.cat([numbers, self.embedding(tokens).mean(1)], 1)
        return self.head(hidden * kept)


class Rows(torch.utils.data.Dataset):
    """Rows of a dict of arrays."""

    def __init__(self, values, y):
        self.values, self.y = values, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {name: value[i] for name, value in self.values.items()}, int(self.y[i])


def test_rows_that_are_dicts_in_a_dataset(tmp_path):
    """What the net was fitted on predicts, and so do the same rows in a dict."""
    X, y = classification()
    values = {
        "numbers": X,
        "tokens": np.arange(120).reshape(60, 2) % 5,
        "kept": np.ones((60, 10), dtype=bool),
    }
    rows = SliceDataset(Rows(values, y), idx=0)
    estimator = pruned(classifier(Tokens)).fit(rows, y)
    loaded = saved(estimator, tmp_path)
    expected = estimator.predict_proba(rows)
    np.testing.assert_allclose(loaded.predict_proba(rows), expected, rtol=1e-5)
    np.testing.assert_allclose(loaded.predict_proba(values), expected, rtol=1e-5)
    assert loaded.score(rows, y) == estimator.score(rows, y)
    with pytest.raises(ValueError, match=r"tokens has numbers of float64; .* for int64"):
        loaded.predict(values | {"tokens": values["tokens"] + 0.9})
    with pytest.raises(ValueError, match=r"kept has numbers of int64; .* for bool"):
        loaded.predict(values | {"kept": 2 * values["kept"].astype(np.int64)})
