"""deploy: which form is kept, what it predicts, and what it refuses."""

import copy
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet, QuantizedNet, deploy
from skcompress.deployment.runtime import deploy as module
from skcompress.deployment.runtime import forms, timing
from skcompress.deployment.runtime.predictor import MAX_ROWS
from tests.contract_modules import TwoInputs
from tests.pruning_modules import MLP, classification, classifier, regression, regressor

NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture(scope="module")
def fitted():
    """Return a pruned net with its rows."""
    X, y = classification()
    return PrunedNet(classifier(), random_state=0).fit(X, NAMES[y]), X


@pytest.fixture(scope="module")
def deployed(fitted):
    """Return what is made of it, in whichever form."""
    return deploy(*fitted, n_repeats=2, tolerance=1.0)


def test_it_predicts_labels_and_probabilities(fitted):
    """With no tolerance, no label differs from the estimator's."""
    pruned, X = fitted
    deployed = deploy(pruned, X, n_repeats=2, tolerance=0)
    np.testing.assert_array_equal(deployed.predict(X), pruned.predict(X))
    np.testing.assert_allclose(deployed.predict_proba(X), pruned.predict_proba(X), atol=0.02)
    np.testing.assert_array_equal(deployed.classes_, NAMES)
    assert deployed.n_features_in_ == X.shape[1]


def test_it_is_an_estimator(deployed, fitted):
    """It scores, is fitted, and takes its place in scikit-learn's own estimators."""
    X = fitted[1]
    check_is_fitted(deployed)
    assert is_classifier(deployed)
    assert deployed.score(X, deployed.predict(X)) == 1
    frozen = CalibratedClassifierCV(FrozenEstimator(deployed)).fit(X, deployed.predict(X))
    assert frozen.predict_proba(X).shape == (len(X), 3)
    with pytest.raises(TypeError, match="A deployed net is not trained"):
        deployed.fit(X, deployed.predict(X))


def test_sessions_start_anew_in_copies(deployed, fitted):
    """It pickles, copies and clones, and all of them predict the same bits."""
    expected = deployed.predict_proba(fitted[1])
    for copied in (pickle.loads(pickle.dumps(deployed)), copy.deepcopy(deployed), clone(deployed)):
        np.testing.assert_array_equal(copied.predict_proba(fitted[1]), expected)
    assert pickle.loads(pickle.dumps(deployed)).form_ == deployed.form_


@pytest.mark.parametrize("form", ["fp32", "int8 dynamic", "int8 static"])
@pytest.mark.parametrize("speed_up", [4.0, 0.5])
def test_the_fastest_form_is_kept(fitted, form, speed_up, monkeypatch):
    """By the geometric mean over batch sizes, among the forms within the tolerance."""
    pruned, X = fitted

    def seconds(call, rows):
        owner = call.__self__
        if owner is pruned:
            return 4.0
        return 4.0 / speed_up if owner.form_ == form else 16.0

    monkeypatch.setattr(timing, "seconds", seconds)
    deployed = deploy(pruned, X, batch_sizes=[1, 8], tolerance=1.0, n_repeats=1)
    assert deployed.form_ == form
    assert f"Kept: {form}, {speed_up:g} times as fast" in deployed.message_
    assert ("That is slower" in deployed.message_) == (speed_up < 1)
    assert ("Integers bring no speed" in deployed.message_) == (form == "fp32")
    assert "Single weights that are zero make the file smaller" in deployed.message_
    report = deployed.report_
    assert set(report["batch_size"]) == {1, 8}
    assert report.set_index("form").loc[form, "speed_up"].tolist() == [speed_up, speed_up]


def test_forms_beyond_the_tolerance_are_left_out(fitted, monkeypatch):
    """Each is named, with how far it is."""
    far = {"int8 static": 0.5, "int8 dynamic": 0.25}
    found = iter(["fp32", "int8 dynamic", "int8 static"])
    monkeypatch.setattr(module, "_difference", lambda ours, theirs: far.get(next(found), 0.0))
    deployed = deploy(*fitted, n_repeats=1)
    assert deployed.form_ == "fp32"
    assert "Left out: int8 static, since its predictions differ by 0.5" in deployed.message_
    assert set(deployed.report_["form"]) == {"estimator", "fp32"}


class Shifted(NeuralNetClassifier):
    """It does to its inputs what no graph of its module knows."""

    def infer(self, x, **params):
        return super().infer(x * 2 - 1, **params)


def test_what_no_graph_knows_is_refused():
    """Whatever the tolerance."""
    X, y = classification()
    net = classifier(lambda: MLP(n_outputs=3)).set_params(max_epochs=1)
    shifted = Shifted(**net.get_params(deep=False)).fit(X, y)
    with pytest.raises(ValueError, match="gives other predictions than its module"):
        deploy(shifted, X, n_repeats=1, tolerance=1.0)


def test_nothing_is_kept_that_predicts_otherwise(fitted, monkeypatch):
    """Not even floating point."""
    monkeypatch.setattr(module, "_difference", lambda ours, theirs: 0.2)
    with pytest.raises(ValueError, match=r"within tolerance=0.003; they differ by fp32: 0.2, int8"):
        deploy(*fitted, n_repeats=1)


def test_pipelines_in_pipelines(fitted):
    """Steps are steps, wherever they stand; rows in double precision stay so."""
    X, y = classification()
    inner = make_pipeline(StandardScaler(), PrunedNet(classifier(), random_state=0))
    pipeline = make_pipeline("passthrough", StandardScaler(), inner).fit(X.astype(float), y)
    deployed = deploy(pipeline, X.astype(float), forms=["fp32"], n_repeats=1, tolerance=0)
    assert deployed.content.inputs["X"].dtype == np.float64
    np.testing.assert_array_equal(deployed.predict(X.astype(float)), pipeline.predict(X))


class Siamese(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.shared, self.head = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, X):
        left, right = (self.shared(half).relu() for half in (X[:, :3], X[:, 3:] * 10))
        return self.head(left * right)


def test_a_form_that_cannot_be_made_is_left_out(monkeypatch):
    """The others are there all the same."""
    X, y = classification()
    pruned = PrunedNet(classifier(Siamese), random_state=0).fit(X, y)

    def fail(*args, **kwargs):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(forms, "quantize_dynamic", fail)
    deployed = deploy(pruned, X, n_repeats=1)
    assert "int8 dynamic, since onnxruntime fails: no such kernel." in deployed.message_
    np.testing.assert_array_equal(deployed.predict(X), pruned.predict(X))
    with pytest.raises(ValueError, match=r"No form .* made\. int8 as fitted: the net has no layer"):
        deploy(pruned, X, forms=["int8 as fitted"])


@pytest.mark.parametrize("form", ["fp32", "int8 dynamic", "int8 static"])
def test_a_form_may_be_asked_for(fitted, form):
    """Then timings decide nothing."""
    deployed = deploy(*fitted, forms=[form], tolerance=1.0, n_repeats=1)
    assert deployed.form_ == form
    assert set(deployed.report_["form"]) == {"estimator", form}


def test_no_row_has_a_part_in_another_prediction(fitted):
    """Not even where ranges are those of the batch."""
    pruned, X = fitted
    for form in ("fp32", "int8 dynamic", "int8 static"):
        deployed = deploy(pruned, X, forms=[form], tolerance=1.0, n_repeats=1)
        expected, others = deployed.predict_proba(X), X.copy()
        others[0] = 1e4
        np.testing.assert_allclose(deployed.predict_proba(others)[1:], expected[1:], atol=1e-6)


def test_many_rows_go_in_parts(fitted):
    """So that memory is bounded; the seams are not seen."""
    deployed = deploy(*fitted, forms=["fp32"], n_repeats=1)
    X = np.random.default_rng(0).normal(size=(2 * MAX_ROWS + 5, 6)).astype("float32")
    single = np.concatenate([deployed.predict_proba(row[None]) for row in X])
    for same in (X, X.astype(float)):
        np.testing.assert_allclose(deployed.predict_proba(same), single, atol=1e-6)


def test_integers_of_the_estimator_are_a_form_of_their_own():
    """What ``QuantizedNet`` rounds, the runtime rounds alike."""
    X, y = classification()
    quantized = QuantizedNet(classifier(), activations="static", random_state=0).fit(X, y)
    deployed = deploy(quantized, X, n_repeats=1)
    report = deployed.report_.set_index("form")
    assert report.loc["int8 as fitted", "difference"] == 0


def test_the_short_path_checks_what_the_long_one_checks(deployed, fitted):
    """Shape, type and finiteness; large finite numbers pass."""
    X = fitted[1]
    expected = deployed.predict_proba(X)
    for same in (X.astype(np.float64), X.tolist(), X[::1], np.asfortranarray(X), pd.DataFrame(X)):
        np.testing.assert_array_equal(deployed.predict_proba(same), expected)
    with pytest.raises(ValueError, match="the net takes"):
        deployed.predict(X[:, :5])
    for bad in (np.nan, np.inf, -np.inf):
        wrong = X.copy()
        wrong[3, 2] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            deployed.predict(wrong)
    with pytest.raises(ValueError, match="0 sample"):
        deployed.predict(X[:0])
    assert np.isfinite(deployed.predict_proba(X * np.float32(1e25))).all()


def test_a_frame_with_other_columns_is_refused():
    """As scikit-learn refuses it."""
    X, y = classification()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    deployed = deploy(PrunedNet(classifier(), random_state=0).fit(frame, y), frame, n_repeats=1)
    assert deployed.feature_names_in_.tolist() == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        deployed.predict(frame[list("fedcba")])


def test_a_regressor_stays_one():
    """Its tolerance is a part of the standard deviation of the predictions."""
    X, y = regression()
    quantized = QuantizedNet(regressor(MLP, module__n_outputs=1), random_state=0).fit(X, y)
    deployed = deploy(quantized, X, n_repeats=1, tolerance=0.01)
    assert is_regressor(deployed)
    assert deployed.predict(X).shape == y.shape
    error = np.sqrt(np.mean((deployed.predict(X) - quantized.predict(X)) ** 2))
    assert error <= 0.01 * quantized.predict(X).std()


def test_pipelines_and_dicts_are_deployed():
    """Whatever ``export_onnx`` takes."""
    X, y = classification()
    pipeline = make_pipeline(StandardScaler(), PrunedNet(classifier(), random_state=0)).fit(X, y)
    deployed = deploy(pipeline, X, n_repeats=1, tolerance=0)
    np.testing.assert_array_equal(deployed.predict(X), pipeline.predict(X))
    rng = np.random.default_rng(0)
    X = {"numbers": rng.normal(size=(30, 4)), "tokens": rng.integers(10, size=(30, 4))}
    pruned = PrunedNet(classifier(TwoInputs), random_state=0).fit(X, np.arange(30) % 3)
    deployed = deploy(pruned, X, n_repeats=1, tolerance=0)
    np.testing.assert_array_equal(deployed.predict(X), pruned.predict(X))
    with pytest.raises(ValueError, match="the inputs of the net are"):
        deployed.predict({"numbers": X["numbers"]})
    with pytest.raises(TypeError, match="Pass a dict or frame"):
        deployed.predict(X["numbers"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": -1}, "'tolerance' parameter of deploy"),
        ({"batch_sizes": [0]}, r"at least 1; got \[0\]"),
        ({"batch_sizes": [1.7]}, r"at least 1; got \[1.7\]"),
        ({"forms": ["int4"]}, r"names out of \['fp32', .*; got \['int4'\]"),
        ({"forms": []}, r"names out of .*; got \[\]"),
    ],
)
def test_parameters_are_checked_before_anything_is_exported(given, message, fitted):
    """With what was got."""
    with pytest.raises(ValueError, match=message):
        deploy(*fitted, **given)


def test_rows_of_other_kinds(fitted):
    """Lists are arrays, skorch's nets get their own type, and no rows are refused."""
    pruned, X = fitted
    deploy(pruned, X.tolist(), forms=["fp32"], n_repeats=1)
    deploy(pruned.net_, X.astype(float), forms=["fp32"], n_repeats=1)
    with pytest.raises(ValueError, match="X has no rows"):
        deploy(pruned, X[:0])


def test_a_missing_package_is_named(fitted, monkeypatch):
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "skcompress.deployment.runtime.forms", None)
    with pytest.raises(ImportError, match=r"pip install 'skcompress\[onnx\]'"):
        deploy(*fitted)


def test_the_message_is_printed_where_asked(fitted, capsys):
    """And not otherwise."""
    deployed = deploy(*fitted, n_repeats=1, verbose=1)
    assert capsys.readouterr().out == deployed.message_ + "\n"
