"""Running ONNX models, and nets to make them of."""

import numpy as np
import onnxruntime as ort
import torch
from sklearn.frozen import FrozenEstimator

from tests.pruning_modules import build, classifier, rows

# Kernels of 8-bit integers saturate on processors without VNNI.
ATOL_OF_INTEGERS = 1e-6 if torch.cpu._is_vnni_supported() else 1e-2


def run(model, X):
    """Return all outputs of a model, a path or a proto, by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    content = model.SerializeToString() if hasattr(model, "graph") else str(model)
    session = ort.InferenceSession(content, options)
    feed = X if isinstance(X, dict) else {"X": X}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def frozen(name, n_rows=24):
    """Return a frozen float32 net around a module of the tests, with rows and labels for it."""
    X = rows(name, n_rows)
    X = (X.float() if X.is_floating_point() else X).numpy()
    net = classifier(build(name).float()).initialize()
    net.classes_inferred_ = np.arange(3)
    return FrozenEstimator(net), X, np.arange(n_rows) % 3


def agree(model, estimator, X, *, atol):
    """Compare labels and probabilities, also of a single row."""
    for part in (X, X[:1]):
        out = run(model, part)
        expected = estimator.predict_proba(part)
        np.testing.assert_allclose(out["probabilities"], expected, rtol=0, atol=atol)
        np.testing.assert_array_equal(out["labels"], estimator.predict(part))
