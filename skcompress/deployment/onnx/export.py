"""export_onnx: a fitted estimator as one ONNX file."""

import os
from typing import Any


def export_onnx(estimator: Any, path: str | os.PathLike, X: Any = None) -> None:
    """Write a fitted estimator as one ONNX file that gives labels and probabilities.

    The graph takes any number of rows. A classifier's has two outputs, ``labels`` (as in
    ``classes_``, strings too) and ``probabilities``; a regressor's has ``predictions``. An array
    is the input ``X``, in the module's own floating type; the arrays of a dict keep their names.

    Quantized weights are stored as integers, of 2, 4, 8 or 16 bits, whichever is the fewest that
    hold them, beside their scales, zero points or codebooks. Where ``QuantizedNet`` rounds
    activations, so does the graph.

    Parameters
    ----------
    estimator : object
        Fitted: a PrunedNet, QuantizedNet, DistilledNet or skorch net; a FrozenEstimator or a
        search around one; or a Pipeline of scikit-learn's transformers that ends in one.
    path : str or path-like
        File to write.
    X : array-like or dict of arrays, default=None
        A few rows. Compressed nets and Pipelines know what rows look like; a skorch net does not,
        and without `X` is taken to get a table as wide as its first layer.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If it holds no net.
    ValueError
        If the module cannot be traced, fixes the number of rows, or uses an operation that is not
        among those that are written as ONNX; the message names it.
    ImportError
        If the packages of the extra ``onnx`` are not installed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import onnxruntime
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress import QuantizedNet, export_onnx
    >>> X = np.random.RandomState(0).randn(20, 4).astype("float32")
    >>> y = np.where(X[:, 0] > 0, "right", "left")
    >>> net = NeuralNetClassifier(
    ...     nn.Linear, module__in_features=4, module__out_features=2,
    ...     criterion=nn.CrossEntropyLoss, train_split=None)
    >>> quantized = QuantizedNet(net, bits=4, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(quantized, f"{folder}/net.onnx")
    ...     session = onnxruntime.InferenceSession(f"{folder}/net.onnx")
    >>> labels, probabilities = session.run(None, {"X": X})
    >>> bool((labels == quantized.predict(X)).all())
    True
    """
    try:
        from .model import to_onnx
    except ImportError as error:
        raise ImportError(
            "export_onnx needs the packages onnx and skl2onnx: pip install 'skcompress[onnx]'"
        ) from error
    content = to_onnx(estimator, X).SerializeToString()
    with open(path, "wb") as file:
        file.write(content)
