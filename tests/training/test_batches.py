"""ArrayBatches, against torch's DataLoader."""

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import SliceDataset, SliceDict
from torch.utils.data import DataLoader, Subset

from skcompress.training import ArrayBatches
from skcompress.training.weights import attach_weights
from tests.naming import steady

RNG = np.random.default_rng(0)
N = 23
X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = RNG.integers(0, 3, N)
WEIGHTS = RNG.uniform(1, 2, N).astype(np.float32)
TOKENS = RNG.integers(0, 9, (N, 5))
IMAGES = torch.randn(N, 2, 4, 4)

DATASETS = {
    "labels": (X, Y),
    "float64": (X.astype(np.float64), Y.astype(np.float64)[:, None]),
    "numbers of one dimension": (X[:, 0], X[:, 1]),
    "small integers": (TOKENS.astype(np.int8), Y.astype(np.uint8)),
    "images": (IMAGES.numpy(), Y),
    "sequences": (RNG.normal(size=(N, 6, 3)), Y),
    "no y": (X, None),
    "tensors": (torch.tensor(X), torch.tensor(Y)),
    "dict": ({"numbers": X, "tokens": TOKENS}, Y),
    "SliceDict": (SliceDict(numbers=X, tokens=TOKENS), Y),
    "weights": (attach_weights(X, WEIGHTS), Y),
    "weighted dict": (attach_weights({"numbers": X, "tokens": TOKENS}, WEIGHTS), Y),
    "Fortran order": (np.asfortranarray(X), Y),
    "strided": (np.repeat(X, 2, axis=1)[::-1, ::2], Y[::-1]),
    "channels last": (IMAGES.to(memory_format=torch.channels_last), Y),
}
SETTINGS = {
    "in order": {"batch_size": 5},
    "shuffled": {"batch_size": 5, "shuffle": True},
    "drop last": {"batch_size": 5, "drop_last": True},
    "shuffled, drop last": {"batch_size": 5, "drop_last": True, "shuffle": True},
    "one batch": {"batch_size": N, "shuffle": True},
    "more than all": {"batch_size": 99},
    "dropped": {"batch_size": 99, "drop_last": True},
    "defaults": {},
    "defaults in words": {"num_workers": 0, "collate_fn": None, "shuffle": None},
}


def assert_same(first, second):
    """Compare batches bit for bit: structure, types, numbers and layout."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            assert_same(first[name], second[name])
    else:
        assert first.dtype == second.dtype
        assert first.stride() == second.stride()
        assert torch.equal(first, second)


def assert_same_batches(dataset, **settings):
    """Compare two passes over a dataset, and what they leave of the global generator."""
    loaders = [kind(dataset, **settings) for kind in (DataLoader, ArrayBatches)]
    passes, states = [], []
    for loader in loaders:
        torch.manual_seed(3)
        passes.append([[*loader], [*loader]])
        states.append(torch.random.get_rng_state())
    assert len(loaders[0]) == len(loaders[1]) == len(passes[0][0])
    assert torch.equal(*states)
    for expected, got in zip(*passes, strict=True):
        for pair in zip(expected, got, strict=True):
            assert [type(batch) for batch in pair] == [list, list]
            for columns in zip(*pair, strict=True):
                assert_same(*columns)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", DATASETS.values(), ids=DATASETS)
def test_same_as_a_dataloader(data, settings):
    """Order, types, numbers and draws are the DataLoader's."""
    assert_same_batches(Dataset(*data), **settings)


@pytest.mark.parametrize("name", ["labels", "weighted dict", "no y", "images"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_subsets(name, shuffle):
    """Internal validation splits, nested ones and rows in any order are unwrapped."""
    dataset = Dataset(*DATASETS[name])
    train, valid = ValidSplit(4)(dataset)
    nested = Subset(train, [5, 2, -1, 2])
    for subset in (train, valid, nested, Subset(nested, torch.tensor([1, 1, 3]))):
        assert_same_batches(subset, batch_size=3, shuffle=shuffle)


@pytest.mark.parametrize("dataset", [Dataset(X, Y), Subset(Dataset(X, Y), range(9))])
def test_batches_are_copies(dataset):
    """A module that writes into its inputs does not write into the user's arrays."""
    before = X.copy()
    for Xi, _ in ArrayBatches(dataset, batch_size=N):
        Xi.zero_()
    np.testing.assert_array_equal(X, before)


def test_draws_happen_when_a_dataloader_draws():
    """The seed for workers is drawn when a pass begins, and the order with the first batch."""
    states = []
    for kind in (DataLoader, ArrayBatches):
        torch.manual_seed(0)
        batches = iter(kind(Dataset(X, Y), batch_size=4, shuffle=True))
        states.append([torch.random.get_rng_state()])
        next(batches)
        states[-1].append(torch.random.get_rng_state())
    for pair in zip(*states, strict=True):
        assert torch.equal(*pair)


class Noisy(Dataset):
    """A dataset that changes its rows."""

    def transform(self, X, y):
        return X + 1, y


BAD_DATA = {
    "subclass": (Noisy(X, Y), TypeError, "takes skorch's own Dataset.* got Noisy"),
    "torch's": (torch.utils.data.TensorDataset(torch.ones(3)), TypeError, "got TensorDataset"),
    "list": (Dataset([1.0, 2.0], [0, 1]), TypeError, "takes arrays, tensors and .* got list"),
    "slices": (Dataset(SliceDataset(Dataset(X, Y)), Y), TypeError, "got SliceDataset"),
    "strings": (Dataset(X, np.full(N, "a")), TypeError, "takes numbers; got <U1"),
    "length": (Dataset(X, Y, length=5), ValueError, "has 5 rows, but one of its arrays has 23"),
    "empty": (Dataset(X[:0], Y[:0]), ValueError, "at least one row; the dataset is empty"),
}


@pytest.mark.parametrize(("dataset", "error", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_unsuitable_datasets(dataset, error, message):
    """Datasets that are not arrays are an error that says what to do."""
    with pytest.raises(error, match=message):
        ArrayBatches(dataset)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_workers": 1},
        {"collate_fn": list},
        {"pin_memory": True},
        {"sampler": [1, 2]},
        {"batch_sampler": [[1, 2]]},
        {"generator": torch.Generator()},
    ],
    ids=steady,
)
def test_unsupported_settings(settings):
    """What only a DataLoader can do is an error that names it."""
    (name,) = settings
    with pytest.raises(ValueError, match=rf"does not support {name}=.* use torch's DataLoader"):
        ArrayBatches(Dataset(X, Y), **settings)


@pytest.mark.parametrize("batch_size", [0, -1, None, 2.0, True])
def test_batch_size_out_of_range(batch_size):
    """A batch has at least one row."""
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1; got"):
        ArrayBatches(Dataset(X, Y), batch_size=batch_size)


def test_unknown_settings():
    """A misspelt parameter is an error."""
    with pytest.raises(TypeError, match="no parameter 'shufle', and neither has DataLoader"):
        ArrayBatches(Dataset(X, Y), shufle=True)
