from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.helper import SliceDict
from torch import nn

from skcompress import PrunedNet, QuantizedNet, save
from skcompress.selection import latency, latency_scorer, size_in_bytes, size_scorer


class Recorder:
    """An estimator that counts its calls and remembers the last one's rows and threads."""

    calls = 0

    def predict(self, X):
        self.calls += 1
        self.rows = len(X)
        self.threads = torch.get_num_threads()
        return np.ones(len(X))


def linear_net():
    """Return a net of 12 weights and 3 biases."""
    return NeuralNetClassifier(
        nn.Linear,
        module__in_features=4,
        module__out_features=3,
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        train_split=None,
        verbose=0,
    )


@pytest.fixture
def data():
    """Return 30 rows of three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3


def test_size_is_that_of_the_file(data, tmp_path):
    """Byte for byte, and what is measured is not written anywhere."""
    X, y = data
    for estimator in (
        PrunedNet(linear_net(), sparsity=0.5, retrain_epochs=1).fit(X, y),
        QuantizedNet(linear_net(), bits=4).fit(X, y),
        make_pipeline(StandardScaler(), QuantizedNet(linear_net(), bits=4)).fit(X, y),
    ):
        path = tmp_path / "net.skc"
        save(estimator, path)
        assert size_in_bytes(estimator) == path.stat().st_size


def test_size_of_a_net_that_does_not_know_its_rows(data):
    """It counts what it has; with rows, the operations count as well."""
    X, y = data
    net = linear_net().fit(X, y)
    assert 4 * (12 + 3) < size_in_bytes(net) < size_in_bytes(net, X) < size_in_bytes(net) + 60
    assert size_scorer(net, X, y) == -size_in_bytes(net, X)


class Untraceable(nn.Linear):
    """Decides by the values of its rows."""

    def forward(self, X):
        return super().forward(X if X.sum() > 0 else -X)


def test_size_of_a_net_that_cannot_be_traced(data):
    """It counts its tensors, and fewer of them are less."""
    X, y = data
    sizes = []
    for sparsity in (0.0, 0.5):
        net = linear_net().set_params(module=Untraceable)
        pruned = PrunedNet(net, sparsity=sparsity, retrain_epochs=1, random_state=0).fit(X, y)
        sizes.append(size_in_bytes(pruned))
    assert sizes[0] > sizes[1] > 4 * (6 + 3)


def test_fewer_weights_and_bits_are_fewer_bytes(data):
    """Each step of compression takes something away."""
    X, y = data
    wide = {"module": nn.Linear, "module__in_features": 64, "module__out_features": 3}
    X = np.tile(X, (1, 16))
    net = linear_net().set_params(**wide).fit(X, y)
    frozen = FrozenEstimator(net)
    sizes = [size_in_bytes(net, X)]
    sizes += [size_in_bytes(QuantizedNet(frozen, bits=b).fit(X, y)) for b in (16, 8, 4, 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert 4 * sizes[3] < sizes[0] * 1.2


def test_size_looks_into_meta_estimators(data):
    """A net, a pipeline, a search and a frozen estimator around it have the net's size."""
    net = linear_net().fit(*data)
    pipeline = make_pipeline(FunctionTransformer(), FrozenEstimator(net)).fit(*data)
    search = SimpleNamespace(best_estimator_=pipeline)
    frozen = FrozenEstimator(net)
    sizes = {size_in_bytes(estimator) for estimator in (net, pipeline, search, frozen)}
    assert len(sizes) == 1


@pytest.mark.parametrize(
    "unfitted",
    [linear_net(), make_pipeline(StandardScaler(), linear_net()), GridSearchCV(linear_net(), {})],
    ids=["net", "pipeline", "search"],
)
def test_unfitted_estimators_say_so(unfitted):
    """An estimator that is not fitted raises NotFittedError, as in scikit-learn."""
    with pytest.raises(NotFittedError, match=r"not (fitted|initialized)"):
        size_in_bytes(unfitted)


def test_estimators_without_a_net_are_named(data):
    """A fitted estimator without a net is refused with what would work."""
    with pytest.raises(TypeError, match=r"found in LogisticRegression\. Pass a fitted PrunedNet"):
        size_in_bytes(LogisticRegression().fit(*data))
    with pytest.raises(TypeError, match="found in int"):
        size_in_bytes(3)


def test_scorers_serve_cross_validation(data):
    """Both scorers work beside scikit-learn's, negative as greater is better."""
    scoring = {
        "accuracy": "accuracy",
        "size": size_scorer,
        "latency": latency_scorer,
        "batch": partial(latency_scorer, batch_size=8, n_repeats=3),
    }
    scores = cross_validate(linear_net(), *data, cv=2, scoring=scoring, error_score="raise")
    assert ((scores["test_size"] > -130) & (scores["test_size"] < -60)).all()
    assert (scores["test_latency"] < 0).all()
    assert (scores["test_batch"] < 0).all()


def test_latency_is_the_median_after_warm_up(monkeypatch):
    """Of calls that take 9, 9, 9, 1, 2, 30 seconds the first three are not timed."""
    durations = iter([9, 9, 9, 1, 2, 30])
    clock = [0.0]

    def predict(X):
        clock[0] += next(durations)

    monkeypatch.setattr("skcompress.selection.metrics.time.perf_counter", lambda: clock[0])
    assert latency(SimpleNamespace(predict=predict), np.zeros((1, 2)), n_repeats=3) == 2


def test_latency_predicts_batches_with_the_threads_asked_for():
    """The estimator sees `batch_size` rows and `n_threads` threads; both end with the call."""
    estimator, before = Recorder(), torch.get_num_threads()
    latency(estimator, np.zeros((9, 2)), batch_size=5, n_repeats=4, n_threads=before + 1)
    assert (estimator.calls, estimator.rows, estimator.threads) == (3 + 4, 5, before + 1)
    assert torch.get_num_threads() == before
    latency(estimator, np.zeros((9, 2)), n_threads=None)
    assert (estimator.rows, estimator.threads) == (1, before)


def test_threads_are_restored_after_an_error():
    """A prediction that fails leaves the thread count as it was."""
    before = torch.get_num_threads()
    with pytest.raises(NotFittedError, match="not initialized"):
        latency(linear_net(), np.zeros((1, 4), np.float32), n_threads=before + 1)
    assert torch.get_num_threads() == before


def test_latency_prefers_predict_proba_and_serves_regressors_and_dicts(data):
    """Classifiers are timed by predict_proba, regressors by predict, on any kind of rows."""
    X, y = data
    regressor = NeuralNetRegressor(
        nn.Linear, module__in_features=4, module__out_features=1, max_epochs=1, verbose=0
    )
    regressor.fit(X, y.astype(np.float32)[:, None])
    assert latency(regressor, X, n_repeats=2) > 0
    net = linear_net().fit(X, y)
    net.predict = None
    assert latency(net, SliceDict(input=X), batch_size=2, n_repeats=2) > 0


@pytest.mark.parametrize("name", ["batch_size", "n_repeats", "n_threads"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_latency_refuses_bad_counts(name, value):
    """Counts are integers of at least one."""
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1; got {value}"):
        latency(Recorder(), np.zeros((3, 2)), **{name: value})


def test_latency_refuses_too_few_rows():
    """A batch cannot be larger than the data."""
    with pytest.raises(ValueError, match="X has 3 rows, fewer than batch_size=4"):
        latency(Recorder(), np.zeros((3, 2)), batch_size=4)
