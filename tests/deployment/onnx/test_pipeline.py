"""export_onnx of Pipelines: types of their inputs, steps of all kinds, and what is refused."""

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from torch import nn

from skcompress import PrunedNet, QuantizedNet, export_onnx
from skcompress.deployment.onnx.model import to_onnx
from tests.deployment.onnx.helpers import agree, run
from tests.pruning_modules import classification, classifier

NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture
def path(tmp_path):
    """Return where to write."""
    return tmp_path / "net.onnx"


def pruned(n_inputs=6, **params):
    """Return an unfitted net of so many inputs."""
    return PrunedNet(classifier(module__n_inputs=n_inputs, **params), random_state=0)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_pipeline_is_one_graph(bits, path):
    """Scaling and net are in the same file, also where its integers need a later opset."""
    X, y = classification()
    net = QuantizedNet(classifier(), bits=bits, random_state=0)
    pipeline = make_pipeline(StandardScaler(), net).fit(X, NAMES[y])
    export_onnx(pipeline, path)
    agree(path, pipeline, X, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint64", "f2", "f8", "bool"])
def test_labels_of_any_type_come_out_of_a_pipeline(dtype, path):
    """Narrow integers and booleans are labels like others."""
    X, y = classification(n_classes=2)
    net = pruned(module__n_outputs=2)
    pipeline = make_pipeline(StandardScaler(), net).fit(X, y.astype(dtype))
    export_onnx(pipeline, path)
    agree(path, pipeline, X, atol=1e-5)


def test_a_pipeline_over_a_frame_has_an_input_for_each_column(path):
    """Categories, too."""
    X, y = classification()
    frame = pd.DataFrame(X[:, :4], columns=list("abcd"))
    frame["e"] = np.where(X[:, 5] > 0, "u", "v")
    columns = ColumnTransformer(
        [("n", StandardScaler(), list("abcd")), ("c", OneHotEncoder(sparse_output=False), ["e"])]
    )
    pipeline = make_pipeline(columns, pruned()).fit(frame, y)
    export_onnx(pipeline, path, frame)
    feed = {c: frame[[c]].to_numpy() for c in frame}
    np.testing.assert_allclose(
        run(path, feed)["probabilities"], pipeline.predict_proba(frame), rtol=0, atol=1e-5
    )
    with pytest.raises(ValueError, match="Pass a few rows as X, a frame if fit was given one"):
        export_onnx(pipeline, path)


def test_columns_of_several_types_go_straight_into_a_net(path):
    """Integers become floats beside the others."""
    X, y = classification()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    frame["b"] = np.arange(len(X)) % 5
    pipeline = make_pipeline(pruned()).fit(frame, y)
    export_onnx(pipeline, path, frame)
    feed = {c: frame[[c]].to_numpy() for c in frame}
    np.testing.assert_allclose(
        run(path, feed)["probabilities"], pipeline.predict_proba(frame), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("dtype", "shift"), [("f4", 0), ("f8", 10**9), ("i8", 0)])
def test_the_input_has_the_type_of_the_rows(dtype, shift, path):
    """In single precision, the digits that matter of shifted numbers would be lost."""
    X, y = classification()
    X = (X * 100).astype(dtype) + np.array(shift, dtype)
    pipeline = make_pipeline(StandardScaler(), pruned()).fit(X, y)
    export_onnx(pipeline, path, X)
    kind = onnx.load(path).graph.input[0].type.tensor_type.elem_type
    assert onnx.helper.tensor_dtype_to_np_dtype(kind) == dtype
    agree(path, pipeline, X, atol=1e-5)


def test_steps_that_lose_digits_are_refused(path):
    """The graph would be of other numbers; in double precision it is not."""
    X, y = classification()
    X = (X * 100).astype("i8") + 10**9
    pipeline = make_pipeline(StandardScaler(), pruned()).fit(X, y)
    with pytest.raises(ValueError, match=r"in 60 of 60 rows: .* Try X of float64"):
        export_onnx(pipeline, path, X)
    assert not path.exists()
    export_onnx(pipeline, path, X.astype("f8"))
    agree(path, pipeline, X.astype("f8"), atol=1e-5)


def test_steps_that_give_no_number_are_refused(path):
    """A row of zeros stays one in scikit-learn, and is divided by zero in the graph."""
    X, y = classification()
    X = X.astype("f8")
    X[3] = 0
    pipeline = make_pipeline(Normalizer(), pruned()).fit(X, y)
    with pytest.raises(ValueError, match=r"in 1 of 60 rows: .* a row of zeros has no norm"):
        export_onnx(pipeline, path, X)


SINGLE = [PowerTransformer(), QuantileTransformer(n_quantiles=20)]
STEPS = [StandardScaler(), MinMaxScaler(), PCA(3), PolynomialFeatures(include_bias=False)]
STEPS += [make_pipeline(StandardScaler(), PCA(3))]


@pytest.mark.parametrize(
    ("step", "types"),
    [(step, types) for step in STEPS for types in ("idf", "dif", "bff", "iii")]
    + [(step, "fff") for step in [*STEPS, *SINGLE]],
)
def test_columns_of_a_frame_come_to_the_steps_as_one_table(step, types, path):
    """Whatever their types are, and whichever is first; skl2onnx would truncate to integers."""
    rng = np.random.default_rng(0)
    kinds = {
        "i": lambda: rng.integers(0, 50, 60),
        "b": lambda: rng.random(60) > 0.5,
        "f": lambda: rng.normal(size=60).astype("float32"),
        "d": lambda: rng.normal(size=60),
    }
    # The names of the graph's own values, which some columns happen to have.
    columns = zip(("X", "v", "variable"), types, strict=True)
    frame = pd.DataFrame({name: kinds[kind]() for name, kind in columns})
    y = np.arange(60) % 3
    n_inputs = step.fit(frame).transform(frame).shape[1]
    pipeline = make_pipeline(step, pruned(n_inputs)).fit(frame, y)
    export_onnx(pipeline, path, frame)
    out = run(path, {name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_allclose(out["probabilities"], pipeline.predict_proba(frame), atol=1e-5)
    np.testing.assert_array_equal(out["labels"], pipeline.predict(frame))


@pytest.mark.parametrize("kind", [object, str])
def test_an_array_of_strings_is_an_input(kind, path):
    """As a OneHotEncoder takes it."""
    X = np.array([["a", "x"], ["b", "y"], ["c", "x"]] * 10, dtype=kind)
    y = np.arange(30) % 3
    pipeline = make_pipeline(OneHotEncoder(sparse_output=False), pruned(5)).fit(X, y)
    export_onnx(pipeline, path, X)
    X = X.astype(object)
    agree(path, pipeline, X, atol=1e-6)


STEPS = {
    "nested": (StandardScaler(), make_pipeline(MinMaxScaler(), pruned())),
    "nothing first": ("passthrough", None, PCA(4), pruned(4)),
    "nothing at all": ("passthrough", pruned()),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_may_nest_and_do_nothing(name, path):
    """Without rows, too."""
    X, y = classification()
    pipeline = make_pipeline(*STEPS[name]).fit(X, y)
    export_onnx(pipeline, path)
    agree(path, pipeline, X, atol=1e-5)


def test_a_plain_net_of_images_takes_its_shape_from_the_steps(path):
    """The rows given are transformed first."""
    X, y = classification()
    module = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 3)
    )
    pipeline = make_pipeline(PCA(4), classifier(module)).fit(X, y)
    export_onnx(pipeline, path, X)
    agree(path, pipeline, X, atol=1e-5)


def test_what_skl2onnx_lacks_in_double_precision_works_in_single(path):
    """And the error says so."""
    X, y = classification()
    pipeline = make_pipeline(PowerTransformer(), pruned()).fit(X, y)
    with pytest.raises(ValueError, match=r"does not convert .* try X of float32"):
        export_onnx(pipeline, path, X.astype("f8"))
    export_onnx(pipeline, path, X)
    agree(path, pipeline, X, atol=1e-5)


def test_what_is_no_table_is_refused(path):
    """Texts one by one, and objects that are neither strings nor columns of a frame."""
    texts, y = np.array(["red fox", "blue dog", "green cat"] * 10), np.arange(30) % 3
    pipeline = make_pipeline(TfidfVectorizer(), TruncatedSVD(4), pruned(4)).fit(texts, y)
    with pytest.raises(ValueError, match=r"takes tables, and X has shape \(30,\)"):
        export_onnx(pipeline, path, texts)
    with pytest.raises(ValueError, match="TfidfVectorizer, the first step, does not tell"):
        export_onnx(pipeline, path)
    X = np.array([["a", 1], ["b", 2], ["c", 1]] * 10, dtype=object)
    pipeline = make_pipeline(OneHotEncoder(sparse_output=False), pruned(5)).fit(X, y)
    with pytest.raises(ValueError, match="objects, which are not all strings"):
        export_onnx(pipeline, path, X)


def test_a_graph_that_loads_and_does_not_run():
    """skl2onnx leaves the indicator of an imputer out, and the net finds fewer columns."""
    X, y = classification()
    X = X.copy()
    X[::5, 1] = np.nan
    net = classifier(module__n_inputs=7)
    pipeline = make_pipeline(SimpleImputer(add_indicator=True), PrunedNet(net, random_state=0))
    with pytest.raises(ValueError, match=r"onnxruntime does not run the graph.*imension"):
        to_onnx(pipeline.fit(X, y), X)
