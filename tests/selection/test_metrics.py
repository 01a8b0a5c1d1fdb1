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

from skcompress.selection import latency, latency_scorer, size_in_bytes, size_scorer


def as_fitted(module, masks=None):
    """Return what a fitted compressed net looks like to the metrics."""
    fitted = SimpleNamespace(net_=SimpleNamespace(module_=module))
    if masks is not None:
        fitted.masks_ = masks
    return fitted


def mask_keeping(kept, shape):
    """Return a boolean mask with `kept` true entries."""
    return (torch.arange(np.prod(shape)) < kept).reshape(shape)


class Shared(nn.Module):
    """Two layers with one weight matrix, which has two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 10, bias=False)
        self.second = nn.Linear(10, 10, bias=False)
        self.second.weight = self.first.weight


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


def test_unmasked_parameters_count_their_values():
    """A 10 x 8 layer has 80 weights and 10 biases of four bytes."""
    assert size_in_bytes(as_fitted(nn.Linear(8, 10))) == 4 * (80 + 10)


@pytest.mark.parametrize(
    ("kept", "weight_bytes"),
    [(0, 10), (1, 10 + 4), (20, 10 + 80), (77, 10 + 4 * 77), (78, 320), (80, 320)],
)
def test_masked_weights_count_the_smaller_form(kept, weight_bytes):
    """80 weights take a bit mask of 10 bytes and 4 bytes each that stays, or 320 bytes."""
    fitted = as_fitted(nn.Linear(8, 10), {"weight": mask_keeping(kept, (10, 8))})
    assert size_in_bytes(fitted) == weight_bytes + 4 * 10


def test_bit_mask_is_rounded_up_to_bytes():
    """A mask of nine bits takes two bytes."""
    module = nn.Linear(3, 3, bias=False)
    assert size_in_bytes(as_fitted(module, {"weight": mask_keeping(1, (3, 3))})) == 2 + 4


def test_element_size_follows_the_dtype():
    """Doubles take eight bytes, masked or not."""
    module = nn.Linear(8, 10, bias=False).double()
    assert size_in_bytes(as_fitted(module)) == 8 * 80
    assert size_in_bytes(as_fitted(module, {"weight": mask_keeping(5, (10, 8))})) == 10 + 8 * 5


def test_buffers_count():
    """BatchNorm has two vectors of parameters, two of running statistics, and a 64-bit counter."""
    assert size_in_bytes(as_fitted(nn.BatchNorm1d(6))) == 4 * (6 + 6 + 6 + 6) + 8


@pytest.mark.parametrize("name", ["first.weight", "second.weight"])
def test_shared_parameters_count_once(name):
    """A weight with two names counts once, whichever name its mask bears."""
    assert size_in_bytes(as_fitted(Shared())) == 4 * 100
    masked = as_fitted(Shared(), {name: mask_keeping(10, (10, 10))})
    assert size_in_bytes(masked) == 13 + 4 * 10


def test_size_looks_into_meta_estimators(data):
    """A net, a pipeline, a search and a frozen estimator around it have the net's size."""
    net = linear_net().fit(*data)
    pipeline = make_pipeline(FunctionTransformer(), linear_net()).fit(*data)
    search = GridSearchCV(pipeline, {"neuralnetclassifier__lr": [0.1]}, cv=2).fit(*data)
    frozen = FrozenEstimator(net)
    sizes = {size_in_bytes(estimator) for estimator in (net, pipeline, search, frozen)}
    assert sizes == {4 * (12 + 3)}


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
    assert scores["test_size"].tolist() == [-60, -60]
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
