"""Check and convert what users pass to `fit` and `predict`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.helper import SliceDict
from skorch.utils import multi_indexing, to_numpy
from sklearn.base import clone
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import validate_data as sklearn_validate_data
from torch import nn

from ._sklearn import check_sample_weight
from .training.shapes import set_shapes

CHECKS = {"dtype": "numeric", "allow_nd": True}


def is_container(X: Any) -> bool:
    """Tell whether `X` is something that scikit-learn's array validation must let through."""
    return isinstance(X, (Mapping, torch.utils.data.Dataset)) or (
        # skorch's SliceDataset is a Sequence, not a Dataset.
        hasattr(X, "dataset") and hasattr(X, "__getitem__")
    )


def check_inputs(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Validate `X` as scikit-learn does; dicts are validated value by value.

    Returns
    -------
    X : ndarray of shape (n_samples, ...), SliceDict or Dataset
    """
    if isinstance(X, Mapping):
        values = {
            name: check_array(value, ensure_2d=False, input_name=name, **CHECKS)
            for name, value in X.items()
        }
        check_consistent_length(*values.values())
        return SliceDict(**values)
    if is_container(X):
        return X
    return sklearn_validate_data(estimator, X, reset=reset, **CHECKS)


def check_labels(y: Any) -> np.ndarray:
    """Validate class labels: one column, discrete, two classes or more.

    Raises
    ------
    ValueError
        For missing, continuous, multilabel or single-class targets.
    """
    if y is None:
        raise ValueError(
            "requires y to be passed, but the target y is None. For a torch Dataset pass"
            " X=SliceDataset(dataset, idx=0) and y=SliceDataset(dataset, idx=1)."
        )
    y = as_target(y)
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind.startswith("multilabel") or kind.endswith("multioutput"):
        raise ValueError(
            f"Multilabel and multi-output classification is not supported; got y of shape"
            f" {np.shape(y)}. Pass one label per row, or wrap one estimator per column in"
            " sklearn.multioutput.MultiOutputClassifier."
        )
    check_classification_targets(y)
    return column_or_1d(y, warn=True)


def check_targets(y: Any) -> np.ndarray:
    """Validate regression targets of shape (n_samples,) or (n_samples, n_targets)."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = check_array(
        as_target(y), ensure_2d=False, dtype="numeric", input_name="y", ensure_all_finite=True
    )
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def as_target(y: Any) -> Any:
    """Collect the targets of a SliceDataset or tensor into an array."""
    if isinstance(y, torch.Tensor):
        return to_numpy(y)
    return np.stack([to_numpy_item(item) for item in y]) if is_container(y) else y


def to_numpy_item(item: Any) -> np.ndarray:
    """Turn one target of a Dataset, a tensor or a number, into an array."""
    return to_numpy(item) if isinstance(item, torch.Tensor) else np.asarray(item)


def check_weights(sample_weight: Any, X: Any, n_samples: int) -> np.ndarray | None:
    """Validate sample weights: one per row, finite, non-negative, not all zero."""
    if sample_weight is None:
        return None
    rows = np.empty((n_samples, 1))
    weights = check_sample_weight(
        sample_weight, rows, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; at least one must be positive.")
    return weights


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Index rows of an array, dict or Dataset."""
    return multi_indexing(X, rows)


def to_dtype(X: Any, module: nn.Module) -> Any:
    """Cast inputs to a module's floating type, writable and contiguous.

    Integers become floats as well, unless the module embeds them.
    """
    if isinstance(X, Mapping):
        return SliceDict(**{name: to_dtype(value, module) for name, value in X.items()})
    if is_container(X):
        return X
    embeds = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in module.modules())
    if embeds and X.dtype.kind in "iu":
        return np.require(X.astype(np.int64), requirements=["C", "W"])
    return np.require(X.astype(float_dtype(module), copy=False), requirements=["C", "W"])


def float_dtype(module: nn.Module) -> np.dtype:
    """Return the numpy type of a module's first floating-point parameter, or float32."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return np.dtype(str(parameter.dtype).removeprefix("torch."))
    return np.dtype("float32")


def initialized_probe(net: NeuralNet, X: Any, y: np.ndarray) -> NeuralNet:
    """Build an untrained copy of `net`, as wide as the data, to learn its types and shapes."""
    probe = clone(net)
    set_shapes(probe, X, y)
    return probe.set_params(callbacks="disable", verbose=0).initialize()


def output_shape(probe: NeuralNet, X: Any) -> tuple[int, ...]:
    """Run two rows through a net before any training.

    Raises
    ------
    ValueError
        If the module does not take such rows.
    """
    n_samples = len(X) if not isinstance(X, SliceDict) else X.shape[0]
    rows = take_rows(X, np.arange(min(2, n_samples)))
    try:
        output = probe.forward(rows)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        shape = getattr(X, "shape", type(X).__name__)
        raise ValueError(
            f"The module {type(probe.module_).__name__} does not take X of shape {shape}:"
            f" {error}. Check the module's input width, or let ShapeSetter set it in fit."
        ) from error
    output = output[0] if isinstance(output, tuple) else output
    return tuple(output.shape)


def check_outputs(net: NeuralNet, shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse a classifier whose number of outputs is not the number of classes."""
    if isinstance(net, NeuralNetBinaryClassifier):
        if n_classes != 2:
            raise ValueError(
                "Only binary classification is supported by NeuralNetBinaryClassifier. The type"
                f" of the target is multiclass: got {n_classes} classes. Use"
                " NeuralNetClassifier with one output per class."
            )
    elif len(shape) != 2 or shape[1] != n_classes:
        raise ValueError(
            f"The module gives outputs of shape {('n_samples', *shape[1:])}, but y has"
            f" {n_classes} classes, which take ('n_samples', {n_classes}). Change the width of"
            " the last layer, or let ShapeSetter set it in fit."
        )
