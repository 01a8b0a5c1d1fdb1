import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from skcompress import load, save, size_in_bytes
from skcompress.deployment.file.steps import STEPS
from tests.deployment.file.modules import pruned
from tests.pruning_modules import classification, classifier

EXAMPLES = [
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 1), clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    Normalizer("max"),
    SimpleImputer(strategy="median"),
    PCA(6, whiten=True),
]


@pytest.mark.parametrize("step", EXAMPLES, ids=str)
def test_a_pipeline_is_saved_whole(step, tmp_path):
    """Rows go through the steps as they did, also rows beyond those of fit."""
    X, y = classification()
    pipeline = make_pipeline(step, "passthrough", pruned(classifier())).fit(X, y)
    save(pipeline, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    rows = 3 * X.astype(np.float64)
    if isinstance(step, SimpleImputer):
        rows[::2, 1] = np.nan
    np.testing.assert_allclose(
        loaded.predict_proba(rows), pipeline.predict_proba(rows), rtol=1e-4, atol=1e-6
    )
    assert loaded.predict(rows).tolist() == pipeline.predict(rows).tolist()
    assert loaded.n_features_in_ == 6
    assert loaded.classes_.tolist() == [0, 1, 2]


def test_every_step_has_an_example():
    """What is added to the table is tested."""
    assert {type(step) for step in EXAMPLES} == set(STEPS)


def test_names_and_several_steps(tmp_path):
    """Names of columns are checked by the first step, and a plain net needs no rows here."""
    pandas = pytest.importorskip("pandas")
    X, y = classification()
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    net = classifier()
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), FloatRows(), net)
    with pytest.raises(ValueError, match="is a FloatRows, which a file cannot hold"):
        save(pipeline.fit(frame, y), tmp_path / "net.skc")
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), pruned(net)).fit(frame, y)
    save(pipeline, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    assert loaded.feature_names_in_.tolist() == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[list("bacdef")])


class FloatRows(FunctionTransformer):
    """Casts to what a plain net computes with."""

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)


def test_a_step_that_cannot_be_saved_counts_nothing():
    """A search can score such a pipeline by the size of its net."""
    X, y = classification()
    pipeline = make_pipeline(FunctionTransformer(), pruned(classifier())).fit(X, y)
    net = size_in_bytes(pipeline[-1])
    assert abs(size_in_bytes(pipeline) - net) < 80
