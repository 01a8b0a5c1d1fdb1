"""Errors that say what was got and what would work, before any training."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, dok_matrix
from skorch.dataset import ValidSplit
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import TensorDataset

from tests.contract_modules import (
    CNN,
    MLP,
    Binary,
    Classifier,
    Recurrent,
    Regressor,
    TwoInputs,
    binary_classifier,
    blobs,
    classifier,
    pruned,
    regressor,
)

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


class Selecting(MLP):
    """Reads a table at the places that X names."""

    def forward(self, X):
        return super().forward(torch.eye(4)[X[:, 0]])


class Wrapped(MLP):
    """Gives its output in a container."""

    def __init__(self, kind=dict):
        super().__init__()
        self.kind = kind

    def forward(self, X):
        return self.kind([("logits", super().forward(X))])


ROWS = {
    "too many columns": (classifier(Classifier, callbacks=None, module__n_inputs=3), X,
                         r"MLP does not take X of shape \(30, 4\).*let ShapeSetter set"),
    "images without channels": (classifier(Classifier, module=CNN, callbacks=None), X,
                                r"CNN does not take X of shape \(30, 4\)"),
    "dict of other names": (classifier(Classifier, module=TwoInputs, callbacks=None),
                            {"numbers": X},
                            "TwoInputs does not take X of numbers of.*names in a dict are those"),
    "dict for a ShapeSetter": (classifier(Classifier), {"X": X}, "got SliceDict"),
    "NaN in a Dataset": (classifier(Classifier, callbacks=None),
                         SliceDataset(TensorDataset(torch.tensor(changed(np.nan)))),
                         "Input X, row 3, contains NaN"),
    "words in a Dataset": (classifier(Classifier, callbacks=None),
                           SliceDataset([("words",)] * 30),
                           r"must be numbers.*row 0 of X is a str of dtype <U5. Convert it"),
    "an empty Dataset": (classifier(Classifier, callbacks=None),
                         SliceDataset(TensorDataset(torch.tensor(X[:0]))), "X has 0, y has 30"),
    "half precision": (classifier(Classifier, callbacks=None, module__dtype=torch.float16), X,
                       "MLP has parameters of float16, and compression takes float32 or float64"),
    "bfloat16": (classifier(Classifier, callbacks=None, module__dtype=torch.bfloat16), X,
                 "has parameters of bfloat16.*Build the module in float32, and convert"),
    "quantities as integers": (classifier(Classifier, callbacks=None), {"X": X.astype(int)},
                               r"cast those of 'X' \(int64\) that are quantities to float32\."),
    "tokens as floats": (classifier(Classifier, module=TwoInputs, callbacks=None),
                         {"numbers": X, "tokens": Y[:, None] + 0.0},
                         r"'tokens' \(float32\) that are indices to int64"),
    "tokens out of range": (classifier(Classifier, module=TwoInputs, callbacks=None),
                            {"numbers": X, "tokens": Y[:, None] + 10},
                            "out of range.*check the num_embeddings"),
    "an index by floats": (classifier(Classifier, module=Selecting, callbacks=None), X,
                           r"convert there, with X.long\(\)"),
    "a dict comes out": (classifier(Classifier, module=Wrapped, callbacks=None), X,
                         "Wrapped gives a dict. Return a tensor, or a tuple whose first"),
    "a list comes out": (classifier(Classifier, module=Wrapped, module__kind=list,
                                    callbacks=None), X, "Wrapped gives a list. Return a tensor"),
    "output for a batch": (classifier(Classifier, module=nn.Bilinear, callbacks=None,
                                      module__in1_features=4, module__in2_features=4,
                                      module__out_features=3), X, "Bilinear does not take X"),
}  # fmt: skip


@pytest.mark.parametrize(("net", "rows", "message"), ROWS.values(), ids=ROWS)
def test_rows_that_the_module_does_not_take(net, rows, message):
    """Two rows are tried before any training; the message names the module and the shape."""
    with pytest.raises(ValueError, match=message):
        pruned(net).fit(rows, Y)


class TimeFirst(Recurrent):
    def forward(self, X):
        return self.head(self.gru(X)[0][-1])


OUTPUTS = {
    "too few classes": (classifier(Classifier, callbacks=None, module__n_outputs=2), Y,
                        r"\('n_samples', 2\), but y has 3 classes"),
    "too many classes": (classifier(Classifier, callbacks=None, module__n_outputs=9), Y,
                         r"\('n_samples', 9\), but y has 3 classes"),
    "three classes for one output": (binary_classifier(kind=Binary), Y,
                                     "Only binary classification is supported.*got 3 classes"),
    "two outputs of a binary net": (binary_classifier(kind=Binary, callbacks=None), Y > 0,
                                    r"to have shape \(n,\) or \(n, 1\)"),
    "too few targets": (regressor(Regressor, callbacks=None, module__n_outputs=2), X[:, :3],
                        r"\('n_samples', 2\), but y has shape \(30, 3\)"),
    "one target of many outputs": (regressor(Regressor, callbacks=None), X[:, 0],
                                   r"\('n_samples', 3\), but y has shape \(30,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("net", "y", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_that_do_not_fit_the_targets(net, y, message):
    """The last layer must be as wide as the targets are."""
    with pytest.raises(ValueError, match=message):
        pruned(net).fit(X, y)


def test_outputs_must_keep_the_rows():
    """A recurrent layer without batch_first is told apart by the number of outputs."""
    rows = np.zeros((30, 5, 2))
    net = classifier(Classifier, module=TimeFirst, callbacks=None)
    with pytest.raises(ValueError, match=r"for 2 rows of X.*batch_first=True"):
        pruned(net).fit(rows, Y)


def test_internal_validation_needs_rows():
    """A fold too small for the net's own validation split says so."""
    with pytest.raises(ValueError, match=r"from 30 rows.*Set train_split=None"):
        pruned(classifier(Classifier, train_split=ValidSplit(20, stratified=True))).fit(X, Y)


class Normalized(nn.Sequential):
    """A module that cannot train on a single row."""

    def __init__(self, n_inputs=4, n_outputs=3):
        super().__init__(nn.Linear(n_inputs, 5), nn.BatchNorm1d(5), nn.Linear(5, n_outputs))


@pytest.mark.parametrize("settings", [{}, {"train_split": ValidSplit(3, stratified=False)}])
def test_a_last_batch_of_one_row(settings):
    """In the dense fit, or in retraining, which sees the rows held out as well."""
    net = classifier(Classifier, module=Normalized, batch_size=29, **settings)
    with pytest.raises(ValueError, match=r"30 training rows in batches of 29.*batch_size, or"):
        pruned(net).fit(X, Y)


class Squeezed(nn.Module):
    """A module that loses the dimension of the rows where there is one row."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, X):
        return self.layer(X).squeeze()


def test_a_last_batch_of_one_row_that_is_squeezed():
    """Whatever the module raises is the reason."""
    net = regressor(Regressor, module=Squeezed, callbacks=None, batch_size=29)
    with pytest.raises(ValueError, match="which Squeezed cannot train on: zero-dimensional"):
        pruned(net).fit(X, X[:, 0])


NETS = {
    "no batch": ({"batch_size": 31, "iterator_train__drop_last": True},
                 "makes no batch of 30 rows: they are fewer than its batch_size of 31"),
    "batch of none": ({"batch_size": 0}, "batch_size is 0; it must be at least 1, or -1"),
    "validation batch of none": ({"iterator_valid__batch_size": -2}, "iterator_valid__batch_size"),
    "loss of rows": ({"criterion__reduction": "none"}, r"shape \(2,\); training needs one number"),
    "another loss": ({"criterion": nn.BCEWithLogitsLoss},
                     r"criterion BCEWithLogitsLoss got .* of shape \(2,\).*CrossEntropyLoss"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), NETS.values(), ids=NETS)
def test_nets_that_cannot_train(settings, message):
    """What the net's own settings rule out is told before it is trained."""
    with pytest.raises(ValueError, match=message):
        pruned(classifier(Classifier, **settings)).fit(X, Y)


def test_weights_that_vanish():
    """Weights too small for the module's type would be rows that are not there."""
    with pytest.raises(ValueError, match="values down to 1e-300, which are zero in float32"):
        pruned(classifier(Classifier)).fit(X, Y, sample_weight=np.full(30, 1e-300))


def test_warnings_that_are_errors():
    """A user's filter that turns warnings into errors shows the warning itself."""

    class Warns(nn.Linear):
        def forward(self, X):
            warnings.warn("take care", UserWarning, stacklevel=1)
            return super().forward(X)

    net = classifier(Classifier, module=Warns, module__in_features=4, module__out_features=3,
                     callbacks=None)  # fmt: skip
    with pytest.raises(UserWarning, match="take care"):
        pruned(net).fit(X, Y)


NEW_ROWS = {
    "fewer columns": (X[:, :3], "X has 3 features, but PrunedNet is expecting 4"),
    "NaN": (changed(np.nan), "Input X contains NaN"),
    "one dimension": (X[0], "Expected 2D array, got 1D array"),
    "no rows": (X[:0], r"0 sample\(s\)"),
}


@pytest.mark.parametrize(("rows", "message"), NEW_ROWS.values(), ids=NEW_ROWS)
def test_bad_rows_to_predict(rows, message):
    """New rows are checked as those of fit were."""
    estimator = pruned(classifier(max_epochs=1), retrain_epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        estimator.predict(rows)


NAMED = {"numbers": X, "tokens": Y[:, None]}
NEW_DICTS = {
    "a missing key": ({"numbers": X}, "X is a dict of numbers, but in fit it was a dict of numbers,"
                                      " tokens. Pass the same"),
    "another key": (NAMED | {"more": X}, "X is a dict of more, numbers, tokens, but in fit"),
    "an array": (X, "X is an array or SliceDataset, but in fit it was a dict of numbers, tokens"),
    "another width": ({"numbers": X[:, :3], "tokens": Y[:, None]},
                      r"does not take X of numbers of shape \(30, 3\).*In fit, X was of numbers of"
                      r" shape \(30, 4\)"),
    "tokens out of range": (NAMED | {"tokens": Y[:, None] + 10}, "out of range"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), NEW_DICTS.values(), ids=NEW_DICTS)
def test_bad_dicts_to_predict(rows, message):
    """A dict has the names of that in fit, and what the module takes."""
    net = classifier(module=TwoInputs, callbacks=None, max_epochs=1)
    estimator = pruned(net, retrain_epochs=1).fit(NAMED, Y)
    for method in (estimator.predict, estimator.predict_proba):
        with pytest.raises(ValueError, match=message):
            method(rows)


def test_sequences_of_another_length():
    """What the module takes is taken, also of another shape than in fit."""
    net = classifier(module=TwoInputs, callbacks=None, max_epochs=1)
    estimator = pruned(net, retrain_epochs=1).fit(NAMED, Y)
    longer = NAMED | {"tokens": np.repeat(Y[:, None], 5, axis=1)}
    np.testing.assert_allclose(
        estimator.predict_proba(longer), estimator.predict_proba(NAMED), rtol=1e-5
    )


def test_slice_dict_is_refused_where_lengths_differ():
    """Rows and labels of a SliceDict are counted as well."""
    with pytest.raises(ValueError, match="X has 30, y has 29"):
        pruned(classifier(Classifier)).fit(SliceDict(X=X), Y[1:])
