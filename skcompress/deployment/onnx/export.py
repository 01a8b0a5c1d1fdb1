"""export_onnx: a fitted estimator as one ONNX file; and nets in skl2onnx."""

import os
from typing import Any


def export_onnx(estimator: Any, path: str | os.PathLike, X: Any = None) -> None:
    """Write a fitted estimator as one ONNX file that gives labels and probabilities.

    The graph takes any number of rows from one up. A classifier's has two outputs, ``labels`` (as
    in ``classes_``, strings too) and ``probabilities``; a regressor's has ``predictions``. An array
    is the input ``X``, in the module's own floating type; the arrays of a dict keep their names.
    The input of a Pipeline has the type of the `X` given here, and float32 without; a frame gives
    it an input for each column.

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
        A few rows. Compressed nets know what rows look like; a skorch net does not, and without
        `X` is taken to get a table as wide as its first layer. Pipelines whose columns are of
        several types need them.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If it holds no net.
    ValueError
        If the module cannot be traced, fixes the number of rows, or uses an operation that is not
        among those that are written as ONNX, or that onnxruntime lacks; the message names it. If
        a step of a Pipeline has no converter.
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


def register_converters() -> None:
    """Teach skl2onnx to convert nets, wherever they stand in an estimator.

    ``export_onnx`` needs no such call. After it, ``skl2onnx.convert_sklearn`` and ``to_onnx`` also
    take PrunedNet, QuantizedNet, DistilledNet and skorch's NeuralNetClassifier,
    NeuralNetBinaryClassifier and NeuralNetRegressor, for instance in a VotingClassifier. The
    probabilities of a net are a table, as with ``options={"zipmap": False}``. The
    ``target_opset`` must be 21 or later; 2-bit weights are stored in 4 bits.

    Raises
    ------
    ImportError
        If the packages of the extra ``onnx`` are not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import skl2onnx
    >>> from sklearn.ensemble import VotingClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress import PrunedNet, register_converters
    >>> X = np.random.RandomState(0).randn(20, 4).astype("float32")
    >>> y = (X[:, 0] > 0).astype(int)
    >>> net = NeuralNetClassifier(
    ...     nn.Linear, module__in_features=4, module__out_features=2,
    ...     criterion=nn.CrossEntropyLoss, train_split=None)
    >>> pruned = PrunedNet(net, random_state=0)
    >>> both = VotingClassifier(
    ...     [("net", pruned), ("linear", LogisticRegression())], voting="soft",
    ...     flatten_transform=False)
    >>> register_converters()
    >>> model = skl2onnx.to_onnx(
    ...     both.fit(X, y), X, target_opset=21, options={id(both): {"zipmap": False}})
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    try:
        from .converters import register_nets
    except ImportError as error:
        raise ImportError(
            "register_converters needs the packages onnx and skl2onnx: pip install"
            " 'skcompress[onnx]'"
        ) from error
    register_nets()
