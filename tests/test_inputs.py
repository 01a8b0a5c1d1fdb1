"""Every kind of data that users have: tables, frames, images, sequences, dicts, datasets."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import TensorDataset

from skcompress.inputs import to_dtype
from tests.contract_modules import (
    CNN,
    MLP,
    Recurrent,
    Tokens,
    TwoInputs,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
)

X, Y = blobs()
RNG = np.random.default_rng(0)
# Of three classes.
WELL_ABOVE_CHANCE = 0.75


def fixed(module, **settings):
    """Return a pruned net whose module needs no widths from the data."""
    return pruned(classifier(module=module, callbacks=None, **settings))


@pytest.mark.parametrize(
    "data",
    [
        X.astype(np.float32),
        StandardScaler().fit_transform(X),
        X.astype(np.float16),
        np.asfortranarray(X),
        X[:, ::-1],
        X.tolist(),
        (20 * X).astype(np.int64),
        np.clip(3 * X + 20, 0, 255).astype(np.uint8),
        X.astype(object),
        torch.tensor(X),
        pd.DataFrame(X),
        pd.DataFrame(20 * X).astype("int32"),
    ],
    ids=[
        "float32", "scaled float64", "float16", "Fortran order", "negative stride", "lists",
        "int64", "uint8", "object", "tensor", "frame", "frame of integers",
    ],
)  # fmt: skip
def test_tables_of_any_type(data):
    """Whatever the type of numbers, the net sees them in its own, and learns from them."""
    # Numbers far from zero need a lower rate than the others.
    estimator = pruned(classifier(lr=0.01, max_epochs=20)).fit(data, Y)
    assert estimator.n_features_in_ == 4
    assert estimator.score(data, Y) > WELL_ABOVE_CHANCE
    assert estimator.predict_proba(data).shape == (len(Y), 3)


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_frames_name_their_features(library):
    """Names of columns are kept, and other names are refused when predicting."""
    frame = library.DataFrame({name: X[:, i] for i, name in enumerate("abcd")})
    labels = library.Series(np.array(["x", "y", "z"])[Y])
    estimator = pruned().fit(frame, labels)
    assert estimator.feature_names_in_.tolist() == list("abcd")
    assert set(estimator.predict(frame)) <= {"x", "y", "z"}
    assert estimator.score(frame, labels) > WELL_ABOVE_CHANCE
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[list("dcba")])


LABELS = {
    "strings": (np.array(["cat", "ant", "bee"]), "O"),
    "gaps": (np.array([0, 2, 7]), None),
    "negative": (np.array([-1, 0, 1]), None),
    "floats": (np.array([0.0, 1.0, 2.0]), None),
    "objects": (np.array(["b", "a", "c"], dtype=object), None),
    "uint8": (np.array([3, 4, 250], dtype=np.uint8), None),
}


@pytest.mark.parametrize(("names", "dtype"), LABELS.values(), ids=LABELS)
def test_labels_of_any_type(names, dtype):
    """Predictions are labels as they were given, of the type they were given in."""
    y = names[Y].astype(dtype) if dtype else names[Y]
    estimator = pruned().fit(X, y)
    predicted = estimator.predict(X)
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    assert predicted.dtype == y.dtype
    assert (predicted == y).mean() > WELL_ABOVE_CHANCE
    columns = estimator.predict_proba(X).argmax(axis=1)
    np.testing.assert_array_equal(estimator.classes_[columns], predicted)


@pytest.mark.parametrize("names", [[0, 1], [-1, 1], [0, 2], ["no", "yes"], [False, True]])
def test_labels_of_a_binary_net(names):
    """A net with one output takes any two labels; the second is the positive class."""
    X, y = blobs(n_classes=2)
    y = np.array(names)[y]
    estimator = pruned(binary_classifier()).fit(X, y)
    assert estimator.classes_.tolist() == names
    assert estimator.score(X, y) > 0.9
    probabilities = estimator.predict_proba(X)
    assert probabilities.shape == (len(y), 2)
    np.testing.assert_array_equal(estimator.predict(X) == names[1], probabilities[:, 1] > 0.5)


def test_categorical_labels():
    """A pandas column of categories is a column of labels."""
    y = pd.Series(np.array(["a", "b", "c"])[Y], dtype="category")
    assert pruned().fit(X, y).score(X, y) > WELL_ABOVE_CHANCE


def test_targets_of_one_dimension():
    """One number per row is predicted as one number per row, whatever the module's output."""
    X, y = line()
    estimator = pruned(regressor(max_epochs=30)).fit(X, pd.Series(y))
    assert estimator.predict(X).shape == y.shape
    assert estimator.score(X, y) > 0.8


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_targets_of_two_dimensions(dtype):
    """Several numbers per row are predicted as several, all of them well."""
    X, y = line()
    y = (10 * np.column_stack([y, -y, y + X[:, 3]])).astype(dtype)
    estimator = pruned(regressor(max_epochs=60, module__hidden=32), sparsity=0.2).fit(X, y)
    assert estimator.predict(X).shape == (len(X), 3)
    assert estimator.score(X, y) > 0.8


def test_module_without_a_dimension_for_its_only_output():
    """A module that gives one number per row and no second dimension is taken as it is."""

    class Squeezed(MLP):
        def forward(self, X):
            return super().forward(X)[:, 0]

    X, y = line()
    net = regressor(module=Squeezed, module__n_outputs=1, callbacks=None, max_epochs=30)
    assert pruned(net).fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_images(dtype):
    """Images with a channel go through convolutions."""
    rows = np.zeros((len(Y), 1, 8, 8))
    for label in range(3):
        rows[label == Y, 0, :, 2 * label : 2 * label + 2] = 1
    rows = (200 * rows + RNG.integers(0, 20, rows.shape)).astype(dtype)
    net = fixed(CNN)
    net.fit(rows, Y)
    assert net.n_features_in_ == 1
    assert net.score(rows, Y) > WELL_ABOVE_CHANCE


def test_sequences():
    """Sequences of vectors go through recurrent layers."""
    rows = RNG.normal(size=(len(Y), 5, 2)) + Y[:, None, None] - 1
    assert fixed(Recurrent, max_epochs=15).fit(rows, Y).score(rows, Y) > WELL_ABOVE_CHANCE


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_tokens(dtype):
    """Integers stay integers where a module embeds them."""
    rows = (RNG.integers(0, 4, (len(Y), 6)) + 3 * Y[:, None]).astype(dtype)
    assert fixed(Tokens).fit(rows, Y).score(rows, Y) > WELL_ABOVE_CHANCE


def two_inputs():
    """Return numbers and tokens that name the class together."""
    tokens = RNG.integers(0, 4, (len(Y), 6)) + 3 * Y[:, None]
    return {"numbers": X, "tokens": tokens}


def test_dict():
    """A dict of arrays goes to the module by argument name, and stays as it was."""
    data = two_inputs()
    estimator = fixed(TwoInputs).fit(data, Y)
    assert estimator.score(data, Y) > WELL_ABOVE_CHANCE
    assert not hasattr(estimator, "n_features_in_")
    assert type(data) is dict
    assert data["numbers"] is X


def test_dict_of_frames_and_lists():
    """The arrays in a dict may be frames or lists as well."""
    data = two_inputs()
    mixed = {"numbers": pd.DataFrame(data["numbers"]), "tokens": data["tokens"].tolist()}
    first, second = fixed(TwoInputs).fit(mixed, Y), fixed(TwoInputs).fit(data, Y)
    np.testing.assert_array_equal(first.predict_proba(mixed), second.predict_proba(data))


def test_slice_dict_is_split_into_folds():
    """A SliceDict of skorch goes through cross-validation."""
    scores = cross_val_score(fixed(TwoInputs), SliceDict(**two_inputs()), Y, cv=3)
    assert scores.min() > WELL_ABOVE_CHANCE


def dataset():
    """Return a torch Dataset of rows and labels."""
    return TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(2 * Y))


def test_slice_dataset():
    """Rows and labels of a torch Dataset are taken from their two slices."""
    rows, labels = SliceDataset(dataset()), SliceDataset(dataset(), idx=1)
    estimator = fixed(MLP).fit(rows, labels)
    assert estimator.classes_.tolist() == [0, 2, 4]
    assert estimator.score(rows, labels) > WELL_ABOVE_CHANCE
    array = fixed(MLP).fit(X, 2 * Y)
    np.testing.assert_array_equal(estimator.predict_proba(rows), array.predict_proba(X))


def test_slice_dataset_is_split_into_folds():
    """Rows of a torch Dataset go through cross-validation."""
    scores = cross_val_score(fixed(MLP), SliceDataset(dataset()), Y, cv=3)
    assert scores.min() > WELL_ABOVE_CHANCE


@pytest.mark.parametrize("convert", [torch.Tensor.double, lambda x: (20 * x).int()])
def test_datasets_of_other_types(convert):
    """Rows of a Dataset are cast like those of an array."""
    rows = convert(torch.tensor(X))
    estimator = fixed(MLP).fit(SliceDataset(TensorDataset(rows)), Y)
    array = fixed(MLP).fit(rows.numpy(), Y)
    given = estimator.predict_proba(SliceDataset(TensorDataset(rows)))
    np.testing.assert_array_equal(given, array.predict_proba(rows.numpy()))


class Masked(nn.Module):
    """A module that attends to what a mask leaves, and reads rows at their last step."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.seen = set()

    def forward(self, X, mask, lengths):
        self.seen |= {str(X.dtype), str(mask.dtype), str(lengths.dtype)}
        X = self.attention(X, X, X, key_padding_mask=mask)[0]
        return self.head(X[torch.arange(len(X)), lengths - 1])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_dicts_keep_booleans_and_integers(dtype):
    """Masks stay boolean and lengths integer, also where nothing is embedded."""
    rows = RNG.normal(size=(len(Y), 5, 4)) + Y[:, None, None] - 1
    mask = np.zeros((len(Y), 5), dtype=bool)
    mask[:, 3:] = True
    data = {"X": rows, "mask": mask, "lengths": np.full(len(Y), 2, dtype=dtype)}
    estimator = fixed(Masked, max_epochs=1).fit(data, Y)
    assert estimator.net_.module_.seen == {"torch.float32", "torch.bool", "torch.int64"}
    changed = data | {"X": np.where(mask[:, :, None], 100.0, rows)}
    probabilities = estimator.predict_proba(data)
    np.testing.assert_array_equal(estimator.predict_proba(changed), probabilities)


def test_tables_of_booleans():
    """A single array of booleans is a table of indicators, whose values are computed with."""
    flags = np.eye(3, 4, dtype=bool)[Y]
    estimator = pruned().fit(flags, Y)
    np.testing.assert_array_equal(estimator.predict(flags.astype(float)), estimator.predict(flags))
    assert estimator.score(flags, Y) > WELL_ABOVE_CHANCE


def test_to_dtype_never_hands_out_read_only_memory():
    """Arrays that torch cannot write to, about which it warns, are copied."""
    rows = X.astype(np.float32)
    rows.setflags(write=False)
    converted = to_dtype(rows, MLP())
    assert converted.flags.writeable
    assert not np.shares_memory(converted, rows)


TIMES = np.array([["2024-01-01"] * 4] * 3, dtype="datetime64[D]")


@pytest.mark.parametrize(
    "values", [TIMES, np.full((3, 4), "a"), TIMES - TIMES], ids=["times", "strings", "spans"]
)
@pytest.mark.parametrize("named", [False, True])
def test_what_is_no_number_is_refused(values, named):
    """By its type, and with what to do."""
    X = {"X": values} if named else values
    with pytest.raises(ValueError, match=r"X has dtype .*, and a net takes numbers"):
        to_dtype(X, nn.Linear(4, 2))
