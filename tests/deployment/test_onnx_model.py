"""The graph gives what the estimator gives, for every module, format and way of rounding."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skcompress import QuantizedNet
from skcompress.deployment.onnx_model import to_onnx
from tests.pruning_modules import MODULES, build, classifier, rows


def session(model):
    """Return an onnxruntime session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options)


def run(model, X):
    """Return all outputs of a model by name."""
    s = session(model)
    feed = X if isinstance(X, dict) else {"X": X}
    return dict(zip([o.name for o in s.get_outputs()], s.run(None, feed), strict=True))


def trained(name, n_rows=24):
    """Return a frozen float32 net around a module of the tests, and rows for it."""
    X = rows(name, n_rows)
    X = (X.float() if X.is_floating_point() else X).numpy()
    net = classifier(build(name).float()).initialize()
    net.classes_inferred_ = np.arange(3)
    return FrozenEstimator(net), X, np.arange(n_rows) % 3


def check(model, estimator, X, atol):
    """Compare labels and probabilities for batches of several sizes."""
    for n_rows in (1, 2, len(X)):
        out = run(model, X[:n_rows])
        np.testing.assert_allclose(
            out["probabilities"], estimator.predict_proba(X[:n_rows]), rtol=0, atol=atol
        )
        np.testing.assert_array_equal(out["labels"], estimator.predict(X[:n_rows]))


@pytest.mark.parametrize("name", MODULES)
def test_a_dense_net_is_the_same_in_onnx(name):
    """Every kind of layer is written, for any number of rows."""
    frozen, X, _ = trained(name)
    check(to_onnx(frozen, X), frozen.estimator, X, 1e-6)


@pytest.mark.parametrize("name", MODULES)
def test_quantized_weights_decode_to_the_same_values(name):
    """Integers in the file stand for the values that the estimator predicts with."""
    frozen, X, y = trained(name)
    quantized = QuantizedNet(frozen, bits=4, random_state=0).fit(X, y)
    check(to_onnx(quantized), quantized, X, 1e-5)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("name", MODULES)
def test_rounded_activations_are_rounded_in_the_graph(name, activations):
    """What enters a layer is rounded as ``IntegerModule`` rounds it."""
    frozen, X, y = trained(name)
    quantized = QuantizedNet(frozen, activations=activations, random_state=0).fit(X, y)
    dense = np.abs(quantized.predict_proba(X) - frozen.estimator.predict_proba(X)).max()
    out = run(to_onnx(quantized), X)["probabilities"]
    error = np.abs(out - quantized.predict_proba(X)).max()
    print(name, activations, dense, error)
    assert error < 1e-2
