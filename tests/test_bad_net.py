"""Nets that rows and targets do not fit, or that cannot train, told before any training."""

import warnings

import numpy as np
import pytest
import torch
from skorch.dataset import ValidSplit
from skorch.helper import SliceDataset
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
from tests.test_bad_input import changed

X, Y = blobs(30)


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
