"""What a deployed net takes, and what its parameters do."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skcompress import PrunedNet, QuantizedNet, deploy
from tests.contract_modules import TwoInputs
from tests.pruning_modules import classification, classifier

QUICK = {"forms": ["fp32"], "n_repeats": 1}


@pytest.fixture(scope="module")
def deployed():
    """Return a deployed classifier of six features."""
    X, y = classification()
    return deploy(PrunedNet(classifier(), random_state=0).fit(X, y), X, **QUICK)


def test_parameters_have_an_effect(deployed):
    """A session has the threads that the estimator says."""
    X, _ = classification()
    two = clone(deployed).set_params(n_threads=2)
    np.testing.assert_array_equal(two.predict(X), deployed.predict(X))
    options = two._run.__self__.get_session_options()
    assert options.intra_op_num_threads == 2
    two.set_params(n_threads=1).predict(X)
    assert two._run.__self__.get_session_options().intra_op_num_threads == 1


def test_what_was_found_out_travels(deployed):
    """With copies of any kind."""
    for copied in (clone(deployed), pickle.loads(pickle.dumps(deployed))):
        assert copied.form_ == deployed.form_ == "fp32"
        assert copied.message_ == deployed.message_
        pd.testing.assert_frame_equal(copied.report_, deployed.report_)


def test_only_parameters_are_stored(deployed):
    """A session starts with the first prediction, and does not pickle."""
    assert set(vars(clone(deployed))) == {"content", "n_threads"}


def test_a_missing_runtime_is_named(deployed, monkeypatch):
    """Where it is unpickled on a machine without."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'skcompress\[onnx\]'"):
        clone(deployed).predict(classification()[0])


def test_missing_values_that_a_step_replaces():
    """They pass; those that reach the net are refused, as the estimator refuses them."""
    X, y = classification()
    missing = X.copy()
    missing[::5, 1] = np.nan
    pruned = PrunedNet(classifier(), random_state=0)
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), pruned).fit(missing, y)
    deployed = deploy(imputed, missing, **QUICK)
    np.testing.assert_array_equal(deployed.predict(missing), imputed.predict(missing))
    infinite = np.where(np.isnan(missing), np.inf, missing)
    with pytest.raises(ValueError, match="infinity"):
        deployed.predict(infinite)
    scaled = make_pipeline(StandardScaler(), pruned).fit(X, y)
    deployed = deploy(scaled, X, **QUICK)
    with pytest.raises(ValueError, match="NaN"):
        scaled.predict(missing)
    with pytest.raises(ValueError, match="contains NaN that no step before the net replaces"):
        deployed.predict(missing)


def test_missing_values_in_columns():
    """Each column is an input of its own."""
    X, y = classification()
    frame = pd.DataFrame(X[:, :2], columns=["a", "b"])
    frame["c"] = np.where(X[:, 2] > 0, "high", "low")
    frame.loc[::7, "a"] = np.nan
    frame = frame.rename(columns={"b": "rows"})
    columns = make_column_transformer((SimpleImputer(), ["a", "rows"]), (OneHotEncoder(), ["c"]))
    pipeline = make_pipeline(columns, PrunedNet(classifier(), random_state=0))
    pipeline.set_params(prunednet__estimator__module__n_inputs=4).fit(frame, y)
    deployed = deploy(pipeline, frame, **QUICK)
    np.testing.assert_array_equal(deployed.predict(frame), pipeline.predict(frame))


@pytest.fixture(scope="module")
def tokens():
    """Return a net of numbers and tokens, its deployed form, and rows."""
    rng = np.random.default_rng(0)
    X = {"numbers": rng.normal(size=(30, 4)), "tokens": rng.integers(10, size=(30, 4))}
    pruned = PrunedNet(classifier(TwoInputs), random_state=0).fit(X, np.arange(30) % 3)
    return pruned, deploy(pruned, X, **QUICK), X


@pytest.mark.parametrize("token", [-1, 10, 0.5])
def test_other_tokens_are_refused(tokens, token):
    """As by the estimator itself."""
    pruned, deployed, X = tokens
    wrong = X | {"tokens": np.where(np.arange(4) == 2, token, X["tokens"])}
    with pytest.raises(ValueError, match=r"tokens|index"):
        pruned.predict(wrong)
    with pytest.raises(ValueError, match=r"tokens has (fractions|values from)"):
        deployed.predict(wrong)


def test_times_are_refused(tokens):
    """As by the estimator itself."""
    pruned, deployed, X = tokens
    wrong = X | {"numbers": np.full((30, 4), np.datetime64("2024-01-01"))}
    for predictor in (pruned, deployed):
        with pytest.raises(ValueError, match="numbers has dtype datetime64"):
            predictor.predict(wrong)


def test_inputs_of_different_lengths(tokens):
    """Nothing is repeated to fit."""
    _, deployed, X = tokens
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        deployed.predict(X | {"tokens": X["tokens"][:1]})


@pytest.mark.parametrize("form", ["fp32", "int8 static", "int8 as fitted"])
def test_what_is_not_finite_after_the_steps(form):
    """Integers hide it, and are not asked."""
    X, y = classification()
    quantized = QuantizedNet(classifier(), activations="static", random_state=0)
    pipeline = make_pipeline(StandardScaler(), quantized).fit(X.astype(np.float64), y)
    deployed = deploy(pipeline, X.astype(np.float64), tolerance=1.0, **QUICK | {"forms": [form]})
    row = X[:1].astype(np.float64)
    for number in (np.nan, 1e39, -1e300):
        row[0, 1] = number
        for predictor in (pipeline, deployed):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                predictor.predict(row)
    np.testing.assert_array_equal(deployed.predict(X[:3]).shape, (3,))


@pytest.mark.parametrize("n_threads", ["x", 0, 1.5])
def test_threads_that_are_no_number(deployed, n_threads):
    """They are refused before the runtime is started."""
    with pytest.raises(ValueError, match=r"n_threads is .*; give a whole number, at least 1"):
        clone(deployed).set_params(n_threads=n_threads).predict(classification()[0])
