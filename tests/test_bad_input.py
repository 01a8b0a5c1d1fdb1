"""Rows, targets and weights that no net could take, told before any training."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, dok_matrix
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import TensorDataset

from tests.contract_modules import Classifier, Regressor, blobs, classifier, pruned, regressor

X, Y = blobs(30)


def test_never_trained_would_tell():
    """The nets of this file do fail when they are trained."""
    with pytest.raises(AssertionError, match="was trained"):
        pruned(classifier(Classifier)).fit(X, Y)


def changed(value, row=3, column=1):
    """Return the rows with one value replaced."""
    rows = X.copy()
    rows[row, column] = value
    return rows


BAD_X = {
    "NaN": (changed(np.nan), "Input X contains NaN"),
    "NaN in a frame": (pd.DataFrame(changed(np.nan)), "Input X contains NaN"),
    "infinity": (changed(np.inf), "Input X contains infinity"),
    "one dimension": (X[:, 0], "Expected 2D array, got 1D array"),
    "no rows": (X[:0], r"Found array with 0 sample\(s\)"),
    "no columns": (X[:, :0], r"0 feature\(s\)"),
    "words": (np.full((30, 4), "a"), "not compatible with arrays of bytes/strings"),
    "complex": (X + 1j, "Complex data not supported"),
    "sparse": (csr_array(X), "Sparse data was passed"),
    "sparse dict": (dok_matrix(X), "Sparse data was passed"),
    "fewer rows": (X[:-1], "X has 29, y has 30"),
    "None": (None, "Expected 2D array, got scalar"),
    "Dataset": (TensorDataset(torch.tensor(X)), r"X=SliceDataset\(dataset, idx=0\)"),
    "empty dict": ({}, "X is an empty dict"),
    "NaN in a dict": ({"X": changed(np.nan)}, "Input X contains NaN"),
    "unequal dict": ({"X": X, "Z": X[:-1]}, "inconsistent numbers of samples"),
    "too large for float32": (1e300 * X, "Input X contains infinity or a value too large"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_X.values(), ids=BAD_X)
@pytest.mark.parametrize("net", [classifier(Classifier), regressor(Regressor)])
def test_bad_rows(net, rows, message):
    """Rows that no net could take are refused as scikit-learn refuses them."""
    with pytest.raises((TypeError, ValueError), match=message):
        pruned(net).fit(rows, Y)


BAD_LABELS = {
    "None": (None, "requires y to be passed"),
    "NaN": (np.where(Y == 0, np.nan, Y), "Input y contains NaN"),
    "missing": (np.array(["a", None, "b"], dtype=object)[Y], "y mixes NoneType and str"),
    "mixed": (np.array(["a", 1, "b"], dtype=object)[Y], "y mixes int and str"),
    "continuous": (X[:, 0], "Unknown label type: continuous"),
    "one class": (np.ones(30), "at least two classes in y; got one class: 1.0"),
    "multilabel": (np.eye(3, dtype=int)[Y], r"shape \(30, 3\).*MultiOutputClassifier"),
    "multi-output": (np.column_stack([Y, Y]), r"shape \(30, 2\).*MultiOutputClassifier"),
    "sets": ([{1}, {2}] * 15, "Unknown label type for y"),
    "dicts": (np.array([{}, {}] * 15), "y mixes dict"),
    "bytes": (np.array([b"a", b"b", b"c"])[Y], "bytes"),
    "more rows": (np.append(Y, 0), "X has 30, y has 31"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels(labels, message):
    """Targets that are no labels are refused."""
    with pytest.raises((TypeError, ValueError), match=message):
        pruned(classifier(Classifier)).fit(X, labels)


BAD_TARGETS = {
    "None": (None, "requires y to be passed"),
    "NaN": (changed(np.nan)[:, 1], "Input y contains NaN"),
    "infinity": (changed(-np.inf)[:, 1], "Input y contains infinity"),
    "words": (np.array(["a", "b", "c"])[Y], "not compatible with arrays of bytes/strings"),
    "three dimensions": (X[:, :, None], "dim 3"),
    "too large for float32": (1e300 * X[:, 0], "Input y contains infinity or a value too"),
    "more rows": (np.append(Y, 0.0), "X has 30, y has 31"),
}


@pytest.mark.parametrize(("targets", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_targets(targets, message):
    """Targets that are no finite numbers are refused."""
    with pytest.raises(ValueError, match=message):
        pruned(regressor(Regressor)).fit(X, targets)


BAD_WEIGHTS = {
    "negative": (-np.ones(30), "Negative values"),
    "NaN": (changed(np.nan)[:, 1], "sample_weight contains NaN"),
    "too few": (np.ones(29), r"sample_weight.shape == \(29,\), expected \(30,\)"),
    "table": (np.ones((30, 2)), "Sample weights must be 1D"),
    "zero": (np.zeros(30), "zero"),
    "zero but for one class": ((Y == 1) * 1.0, "got one class: 1"),
}


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights(weights, message):
    """Weights are one finite number of at least zero for each row."""
    with pytest.raises(ValueError, match=message):
        pruned(classifier(Classifier)).fit(X, Y, sample_weight=weights)


def test_weights_need_a_criterion_that_can_be_weighted():
    """A loss that cannot be taken row by row cannot be weighted."""

    class Loss(nn.Module):
        def forward(self, predicted, y):
            return nn.functional.cross_entropy(predicted, y)

    with pytest.raises(ValueError, match="sample_weight needs a criterion with a `reduction`"):
        pruned(classifier(Classifier, criterion=Loss)).fit(X, Y, sample_weight=np.ones(30))


def test_weights_that_vanish():
    """Weights too small for the module's type would be rows that are not there."""
    with pytest.raises(ValueError, match="values down to 1e-300, which are zero in float32"):
        pruned(classifier(Classifier)).fit(X, Y, sample_weight=np.full(30, 1e-300))


def test_slice_dict_is_refused_where_lengths_differ():
    """Rows and labels of a SliceDict are counted as well."""
    with pytest.raises(ValueError, match="X has 30, y has 29"):
        pruned(classifier(Classifier)).fit(SliceDict(X=X), Y[1:])
