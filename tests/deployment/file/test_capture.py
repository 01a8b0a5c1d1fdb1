"""What is recorded of a forward pass is what the module computes, or else nothing is written."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from skcompress import PrunedNet, load, save, size_in_bytes
from skcompress.deployment.file.artifact import to_bytes
from tests.deployment.file.modules import pruned
from tests.deployment.padded import PaddedEncoder, sentences
from tests.pruning_modules import MLP, classification, classifier, regressor


def relu(outputs):
    """Clip at zero, as none of skorch's own functions does."""
    return outputs.clamp(min=0)


def cautious_softmax(outputs):
    """Differ from softmax for probabilities near zero and one only."""
    return outputs.softmax(-1).clamp(1e-3, 1 - 1e-3)


@pytest.mark.parametrize(
    "net",
    [
        regressor(MLP, module__n_outputs=1, predict_nonlinearity=relu),
        classifier(predict_nonlinearity=cautious_softmax),
        classifier(predict_nonlinearity=partial(torch.softmax, dim=0)),
    ],
    ids=["relu", "clamp", "other dimension"],
)
def test_functions_of_the_user_are_refused_for_what_they_are(net, tmp_path):
    """Also where a few rows do not show how they differ from the usual ones."""
    X, _ = classification()
    with pytest.raises(ValueError, match="predict_nonlinearity or predict_proba of its own"):
        save(net.initialize(), tmp_path / "net.skc", X)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "function", [None, torch.exp, partial(torch.softmax, dim=-1)], ids=["none", "exp", "softmax"]
)
def test_functions_that_have_a_name_are_held(function, tmp_path):
    """Those of torch, which a file can call by name."""
    X, _ = classification()
    net = classifier(predict_nonlinearity=function).initialize()
    save(net, tmp_path / "net.skc", X)
    given = load(tmp_path / "net.skc").predict_proba(50 * X)
    np.testing.assert_array_equal(given, net.predict_proba(50 * X))


class OwnProbabilities(type(classifier())):
    """Has more to say of its module's outputs than skorch knows."""

    def predict_proba(self, X):
        return super().predict_proba(X) / 2


def test_a_predict_proba_of_the_user_is_refused(tmp_path):
    """Rows show that it is none of those that are known."""
    X, _ = classification()
    with pytest.raises(ValueError, match="predict_proba of its own"):
        save(OwnProbabilities(MLP).initialize(), tmp_path / "net.skc", X)


class Logarithms(MLP):
    """Takes rows above zero."""

    def forward(self, X):
        return super().forward(X.log())


def test_rows_that_a_net_does_not_take_are_no_obstacle(tmp_path):
    """Random rows give it NaN, which is what the file gives."""
    X, _ = classification()
    net = classifier(Logarithms).initialize()
    save(net, tmp_path / "net.skc", X)
    given = load(tmp_path / "net.skc").predict_proba(np.abs(X))
    np.testing.assert_array_equal(given, net.predict_proba(np.abs(X)))


class Louder(MLP):
    """Computes something else for many rows than for few."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, X):
        return super().forward(X) * (10 if len(X) > self.limit else 1)


@pytest.mark.parametrize("limit", [1, 3, 40])
def test_a_choice_by_the_number_of_rows_is_refused(limit, tmp_path):
    """The traces take one branch, and other rows would take the other."""
    X, y = classification()
    net = classifier(Louder, module__limit=limit)
    with pytest.raises(ValueError, match=r"Louder gives other outputs for \d+ rows.*graph=False"):
        save(pruned(net).fit(X, y), tmp_path / "net.skc")
    assert not list(tmp_path.iterdir())


class Halves(MLP):
    """Computes the same for each row, half of them at a time."""

    def forward(self, X):
        half = X.shape[0] // 2 + 1
        return torch.cat([super(Halves, self).forward(part) for part in (X[:half], X[half:])])


def test_slices_without_rows_are_no_obstacle(tmp_path):
    """Two rows leave none for the second half, and so no units that could be found."""
    X, y = classification()
    estimator = pruned(classifier(Halves)).fit(X, y)
    save(estimator, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    for rows in (X, X[:1]):
        expected = estimator.predict_proba(rows)
        np.testing.assert_allclose(loaded.predict_proba(rows), expected, rtol=1e-5)


class Tempered(nn.Linear):
    """Divides by a number that is no parameter."""

    temperature = 1.0

    def forward(self, X):
        return super().forward(X) / self.temperature


def test_what_changed_since_the_last_file_is_in_the_next(tmp_path):
    """An attribute of a module changes what it computes, and nothing else tells."""
    X, _ = classification()
    net = classifier(Tempered, module__in_features=6, module__out_features=3).initialize()
    for temperature in (1.0, 5.0):
        net.module_.temperature = temperature
        save(net, tmp_path / "net.skc", X)
        loaded = load(tmp_path / "net.skc")
        np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


def test_the_same_in_several_threads():
    """Torch traces one module at a time."""
    X, y = classification()
    estimator = pruned(classifier()).fit(X, y)
    with ThreadPoolExecutor(3) as pool:
        files = set(pool.map(to_bytes, [estimator] * 3))
    assert files == {to_bytes(estimator)}


def test_random_numbers_are_as_if_nothing_was_saved(tmp_path):
    """A scorer must not change what a search draws next."""
    X, y = classification()
    estimator = pruned(classifier()).fit(X, y)
    before = torch.get_rng_state()
    save(estimator, tmp_path / "net.skc")
    size_in_bytes(estimator)
    load(tmp_path / "net.skc")
    load(tmp_path / "net.skc", estimator=classifier())
    assert torch.equal(before, torch.get_rng_state())


class Casts(nn.Module):
    """Turns numbers into other types, as masks and scales are."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, X):
        mask = (X != 0).float()
        moved = (X > 0).to(self.layer.weight).type("torch.FloatTensor")
        return self.layer(X.double().to(torch.float32) * mask + X.long().to(X.dtype) + moved)


def test_casts_are_written(tmp_path):
    """Without what torch.export asserts before them."""
    X, y = classification()
    X = X[:, :4].astype(np.float32)
    net = pruned(classifier(Casts)).fit(X, y)
    save(net, tmp_path / "net.skc")
    found = load(tmp_path / "net.skc").predict_proba(X)
    np.testing.assert_allclose(found, net.predict_proba(X), atol=1e-6)
    assert size_in_bytes(net) == (tmp_path / "net.skc").stat().st_size


class HalfPrecision(nn.Linear):
    """Rounds its inputs to half precision."""

    def __init__(self):
        super().__init__(6, 3)

    def forward(self, X):
        return super().forward(X.half().float())


def test_types_that_a_file_does_not_have(tmp_path):
    """Nothing was read, and the error does not say so."""
    net = pruned(classifier(HalfPrecision)).fit(*classification())
    with pytest.raises(ValueError, match=r"^A file cannot hold HalfPrecision: .* 'float16'"):
        save(net, tmp_path / "net.skc")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_padded_sequences(granularity, tmp_path):
    """Compressed nets are without nested tensors, and so is what is loaded to train on."""
    X, y = sentences()
    plain = classifier(PaddedEncoder, max_epochs=1)
    net = PrunedNet(plain, granularity=granularity, sparsity=0.3, retrain_epochs=1, random_state=0)
    save(net.fit(X, y), tmp_path / "net.skc")
    expected = net.predict_proba(X)
    for loaded in (load(tmp_path / "net.skc"), load(tmp_path / "net.skc", net)):
        np.testing.assert_allclose(loaded.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(net.predict_proba(X[5:6]), expected[5:6], atol=1e-6)
    with pytest.raises(ValueError, match="Build it with enable_nested_tensor=False"):
        save(plain.fit(X, y), tmp_path / "net.skc", X)
    save(plain.set_params(module__nested=False).fit(X, y), tmp_path / "net.skc", X)


def test_rows_of_another_shape(tmp_path):
    """What a compressed net remembers and what it is told must be the same."""
    X, y = classification()
    net = pruned(classifier()).fit(X, y)
    with pytest.raises(ValueError, match=r"rows of shape \(2,\); in fit they were of \(6,\)"):
        save(net, tmp_path / "net.skc", X[:, :2])
    save(net, tmp_path / "net.skc", X)
    with pytest.raises(ValueError, match="X has dtype datetime64"):
        load(tmp_path / "net.skc").predict(np.full(X.shape, np.datetime64("2024-01-01")))


class Masked(nn.Module):
    """Attention that is told what is padding."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, X, mask):
        return self.last(self.attention(X, X, X, key_padding_mask=mask)[0][:, 0])


def test_masks_that_are_inputs(tmp_path):
    """A row that is masked as a whole has no result, and is not compared."""
    rng = np.random.default_rng(0)
    mask = np.arange(5) >= rng.integers(1, 6, 24)[:, None]
    X = {"X": rng.normal(size=(24, 5, 4)).astype(np.float32), "mask": mask}
    net = pruned(classifier(Masked)).fit(X, np.arange(24) % 3)
    save(net, tmp_path / "net.skc")
    found = load(tmp_path / "net.skc").predict_proba(X)
    np.testing.assert_allclose(found, net.predict_proba(X), atol=1e-6)
