import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skcompress import load, save, size_in_bytes
from skcompress.deployment import FileError
from skcompress.deployment.file.steps import STEPS, read_steps, write_steps
from tests.deployment.file.modules import pruned
from tests.pruning_modules import classification, classifier

EXAMPLES = [
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 1), clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    Normalizer("max"),
    QuantileTransformer(n_quantiles=9, output_distribution="normal"),
    SimpleImputer(strategy="median"),
    SimpleImputer(strategy="constant"),
    SimpleImputer(strategy="constant", fill_value=2.5),
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
    """A search can score such a pipeline by the size of its net, with all that it has."""
    X, y = classification()
    pipeline = make_pipeline(FunctionTransformer(), pruned(classifier())).fit(X, y)
    assert size_in_bytes(pipeline) == size_in_bytes(pipeline[-1])
    plain = make_pipeline(FunctionTransformer(), classifier()).fit(X, y)
    assert size_in_bytes(plain, X) == size_in_bytes(plain[-1], X) > size_in_bytes(plain)


def same(pipeline, X, tmp_path):
    """Save and load a pipeline that predicts the same, and return it."""
    save(pipeline, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    np.testing.assert_allclose(loaded.predict_proba(X), pipeline.predict_proba(X), rtol=1e-5)
    return loaded


def test_pipelines_inside_of_pipelines(tmp_path):
    """Before the net and around it; their steps follow each other, with names of their own."""
    X, y = classification()
    inner = make_pipeline(StandardScaler(), "passthrough", MinMaxScaler())
    last = make_pipeline(StandardScaler(), pruned(classifier()))
    loaded = same(make_pipeline(inner, last).fit(X, y), X, tmp_path)
    kinds = [type(step).__name__ for _, step in loaded.steps]
    assert kinds == ["StandardScaler", "MinMaxScaler", "StandardScaler", "LoadedClassifier"]
    assert clone(loaded).get_params()["net"].get_params() == {}


def test_a_step_may_have_the_name_of_the_net(tmp_path):
    """The loaded pipeline finds another name for its last step."""
    X, y = classification()
    pipeline = Pipeline([("net", StandardScaler()), ("model", pruned(classifier()))]).fit(X, y)
    loaded = same(pipeline, X, tmp_path)
    assert list(loaded.named_steps) == ["net", "net-"]
    assert "net__with_mean" in loaded.get_params()


@pytest.mark.parametrize("in_fit", ["default", "pandas"])
@pytest.mark.parametrize("in_predict", ["default", "pandas"])
def test_frames_between_the_steps(in_fit, in_predict, tmp_path):
    """The loaded steps pass arrays on, and nobody misses the names."""
    pandas = pytest.importorskip("pandas")
    X, y = classification()
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), pruned(classifier()))
    with config_context(transform_output=in_fit):
        expected = pipeline.fit(frame, y).predict_proba(frame)
        save(pipeline, tmp_path / "net.skc")
    with config_context(transform_output=in_predict):
        loaded = load(tmp_path / "net.skc")
        np.testing.assert_allclose(loaded.predict_proba(frame), expected, rtol=1e-5)
    assert loaded.feature_names_in_.tolist() == list("abcdef")


def test_imputation_of_small_integers(tmp_path):
    """Their type comes back, and so does the number that stands for what is missing."""
    X, y = classification()
    X = np.abs(3 * X).astype(np.uint8) % 5
    imputer = SimpleImputer(missing_values=0, strategy="most_frequent")
    loaded = same(make_pipeline(imputer, pruned(classifier())).fit(X, y), X, tmp_path)
    assert loaded[0].transform(X).dtype == np.uint8


def test_what_would_not_come_back_is_refused(tmp_path):
    """A column that says what was missing, and one of strings."""
    X, y = classification()
    X[::5, 1] = np.nan
    net = pruned(classifier(module__n_inputs=7))
    pipeline = make_pipeline(SimpleImputer(add_indicator=True), net).fit(X, y)
    with pytest.raises(ValueError, match=r"'simpleimputer', SimpleImputer\(add_indicator=True\)"):
        save(pipeline, tmp_path / "net.skc")
    words = SimpleImputer(strategy="most_frequent").fit(np.array([["a"], ["b"]], dtype=object))
    with pytest.raises(ValueError, match="statistics_ of type object"):
        write_steps([("words", words)])


@pytest.mark.parametrize(
    ("kind", "params", "fitted", "message"),
    [
        ("StandardScaler", {}, {}, "do not fit together"),
        ("PCA", {}, {}, "do not fit together"),
        ("SimpleImputer", {}, {"_fit_dtype": "O"}, "no type of numbers"),
        ("SimpleImputer", {}, {}, "do not fit together"),
        ("MinMaxScaler", {"clip": "x"}, {}, "settings that it does not take"),
        ("Normalizer", {"norm": "zzz"}, {}, "settings that it does not take"),
        ("Normalizer", {}, {"n_features_in_": 10**12}, "no number of features"),
        ("Normalizer", {}, {"n_features_in_": 3}, "do not give what the net takes"),
        ("Normalizer", {}, {"feature_names_in_": [1]}, "names of features are not strings"),
    ],
    ids=str,
)
def test_steps_of_others_are_tried(kind, params, fitted, message):
    """A file may leave out what a step needs, and give it what it does not take."""
    described = [["a", kind, params, {"n_features_in_": 6} | fitted]]
    with pytest.raises(FileError, match=message):
        read_steps(described, {}, [(None, "float32", [6])])


def test_steps_of_others_have_names_of_their_own():
    """A pipeline with two of one name is none."""
    with pytest.raises(FileError, match="has the name 'a'"):
        read_steps([["a", "Normalizer", {}, {"n_features_in_": 6}]] * 2, {})
