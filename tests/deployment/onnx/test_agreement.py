"""A graph gives what its estimator predicts, or is not written; and nobody's rows are changed."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional

from skcompress import PrunedNet, deploy, export_onnx
from skcompress.deployment.onnx.model import to_onnx
from tests.deployment.onnx.helpers import agree, run
from tests.deployment.padded import PaddedEncoder, sentences

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 8)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SETTINGS = {"train_split": None, "verbose": 0, "max_epochs": 1, "lr": 0.1}


class Skip(nn.Module):
    """Changes a value, or part of it, in place, and reads it again."""

    def __init__(self, part=lambda h: h):
        super().__init__()
        self.first, self.last, self.part = nn.Linear(8, 8), nn.Linear(8, 2), part

    def forward(self, X):
        h = self.first(X)
        functional.relu_(self.part(h))
        return self.last(h)


def fitted(module):
    """Return a fitted skorch net."""
    torch.manual_seed(0)
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **SETTINGS).fit(X, Y)


PARTS = {
    "columns": lambda h: h[:, :4],
    "dropout": lambda h: functional.dropout(h, 0.5, False),
    "view": lambda h: h.view(-1, 4, 2),
    "view of a view": lambda h: h.t()[1:5],
    "chunk": lambda h: h.chunk(2, 1)[0],
    "split": lambda h: h.split(4, 1)[1][:, 1:],
    "permuted": lambda h: h.view(-1, 2, 4).permute(1, 2, 0).select(0, 1),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_what_is_changed_in_place_and_read_again(part):
    """A view of any kind shares the memory."""
    with pytest.raises(ValueError, match=r"relu_ changes \w+ in place, and that is read again"):
        to_onnx(NeuralNetClassifier(Skip(part), criterion=nn.CrossEntropyLoss).initialize(), X)


OWN = {
    "all": lambda h: h,
    "clone": torch.clone,
    "gather": lambda h: h[:, [0, 2]],
    "cast": lambda h: h.double(),
    "reshape": lambda h: h.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8),
    "maxima": lambda h: h.max(1).values,
}


@pytest.mark.parametrize("part", OWN.values(), ids=OWN)
def test_what_may_be_changed_in_place(part):
    """Tracing follows a value itself, and copies share nothing."""
    net = fitted(Skip(part))
    agree(to_onnx(net, X), net, X, atol=1e-6)


def test_a_graph_that_computes_something_else():
    """Whatever the reason: it is run beside the module."""

    class Other(nn.Linear):
        def forward(self, X):
            return super().forward(X if torch.compiler.is_exporting() else X.abs())

    with pytest.raises(ValueError, match="The graph of Other gives other predictions than Other"):
        to_onnx(fitted(Other(8, 2)), X)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padded_sequences(tmp_path):
    """Compressed nets predict a row as they would alone, and so does the graph."""
    rows, labels = sentences()
    torch.manual_seed(0)
    net = NeuralNetClassifier(PaddedEncoder, criterion=nn.CrossEntropyLoss, **SETTINGS)
    pruned = PrunedNet(net, random_state=0, retrain_epochs=1).fit(rows, labels)
    agree(to_onnx(pruned), pruned, rows, atol=1e-5)
    each = np.concatenate([pruned.predict_proba(rows[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(each, pruned.predict_proba(rows[:9]), atol=1e-6)
    with pytest.raises(ValueError, match="enable_nested_tensor=False"):
        export_onnx(net.fit(rows, labels), tmp_path / "net.onnx", rows)


def test_binary_classifiers_of_a_column():
    """Their module may give (n,) or (n, 1)."""
    for end in (nn.Identity(), nn.Flatten(0)):
        module = nn.Sequential(nn.Linear(8, 1), end)
        net = NeuralNetBinaryClassifier(module, criterion=nn.BCEWithLogitsLoss, **SETTINGS)
        net.fit(X, Y.astype(np.float32))
        agree(to_onnx(net, X), net, X, atol=1e-6)


def test_rows_stay_as_they_are():
    """Also those of a module that works in place."""
    net = fitted(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 2)))
    rows = X.copy()
    deployed = deploy(net, rows, batch_sizes=[1], n_repeats=2)
    deployed.predict(rows)
    np.testing.assert_array_equal(rows, X)


class Entity(nn.Module):
    """A table for each column."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Embedding(5, 3), nn.Embedding(7, 3), nn.Linear(6, 2)

    def forward(self, X):
        return self.last(torch.cat([self.first(X[:, 0]), self.second(X[:, 1])], 1))


@pytest.mark.parametrize("table", [10, 5])
def test_indices_that_a_module_makes_its_own(table):
    """What it puts in the place of others is not refused."""

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(10, 3), nn.Linear(3, 2)

        def forward(self, X):
            known = X.masked_fill(X >= 10, 0)
            return self.last(self.words(torch.where(X < 0, table - 1, known)).mean(1))

    rows = rng.integers(-3, 20, (40, 5))
    net = NeuralNetClassifier(Words, criterion=nn.CrossEntropyLoss, **SETTINGS).fit(rows, Y)
    deployed = deploy(net, rows, batch_sizes=[1], n_repeats=2, forms=["fp32"])
    np.testing.assert_allclose(deployed.predict_proba(rows), net.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("row", [[-1, 3], [2, -1], [5, 0], [0, 7]])
def test_indices_that_are_in_no_table(row):
    """Below zero, ONNX would count from the end."""
    rows = np.stack([rng.integers(5, size=40), rng.integers(7, size=40)], 1)
    net = NeuralNetClassifier(Entity, criterion=nn.CrossEntropyLoss, **SETTINGS)
    pruned = PrunedNet(net, random_state=0, retrain_epochs=1).fit(rows, Y)
    deployed = deploy(pruned, rows, batch_sizes=[1], n_repeats=2)
    np.testing.assert_array_equal(deployed.predict(rows), pruned.predict(rows))
    for predict in (pruned.predict, deployed.predict):
        with pytest.raises(ValueError, match=r"(?i)ind"):
            predict(np.array([row]))
    with pytest.raises(Exception, match="out of data bounds"):
        run(to_onnx(pruned), np.array([row]))


def test_pooling_over_windows_of_unequal_size():
    """They are divided by the same number, which ONNX cannot say."""
    pool = nn.AvgPool1d(3, stride=2, ceil_mode=True)
    images = rng.normal(size=(40, 1, 8)).astype(np.float32)
    for divisor in (None, 2):

        class Pool(nn.Module):
            def __init__(self, divisor=divisor):
                super().__init__()
                self.last, self.divisor = nn.Linear(4, 2), divisor

            def forward(self, X):
                if self.divisor is None:
                    return self.last(pool(X).flatten(1))
                pooled = functional.avg_pool2d(
                    X[:, :, None], (1, 3), (1, 2), ceil_mode=True, divisor_override=self.divisor
                )
                return self.last(pooled.flatten(1))

        net = NeuralNetClassifier(Pool, criterion=nn.CrossEntropyLoss, **SETTINGS).fit(images, Y)
        if divisor is None:
            agree(to_onnx(net, images), net, images, atol=1e-6)
            continue
        with pytest.raises(ValueError, match="ceil_mode and divisor_override"):
            to_onnx(net, images)
