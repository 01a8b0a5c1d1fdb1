"""Whether an estimator predicts what its module computes, and a graph computes the same."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from sklearn.base import is_classifier
from skorch import NeuralNet
from skorch.utils import to_device, to_numpy, to_tensor
from torch import nn
from torch.utils._pytree import tree_map

from ...prediction import winners
from ..padded_rows import ending_in_zeros, refuse_nested_tensors
from .fitted import Fitted, Predictor, as_taken
from .session import run

N_ROWS = 16


def check_agreement(net: Fitted, X: Any = None) -> None:
    """Compare what an estimator predicts for a few rows with what its module computes.

    Parameters
    ----------
    net : Fitted
    X : array-like or dict of arrays, default=None
        Rows as the net takes them, of which the first are compared; by default, random numbers
        from 0 to 1, and zeros for integers.

    Raises
    ------
    ValueError
        If they differ, as those of a subclass of skorch's nets with an ``infer`` of its own may,
        are random, or come of nested tensors.
    """
    rows = _random(net) if X is None else _first(as_taken(X, net.module))
    # skorch draws a seed for each iterator.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # about names that the columns had in fit
        refuse_nested_tensors(net.module, lambda: _computed(net, net.module, rows), "graph")
        method, theirs = _predicted(net, rows)
        ours = _computed(net, net.net.module_, rows)
        if not _same(theirs, ours.reshape(theirs.shape) if net.flat else ours):
            if not _same(theirs, _predicted(net, rows)[1]):
                raise ValueError(
                    f"{type(net.estimator).__name__} gives other predictions for the same rows each"
                    " time: its module draws random numbers in evaluation mode, too, as"
                    " functional.dropout(x) does without training=self.training."
                )
            raise _other(net, method)
        if method == "predict_proba" and not _same(
            _labels(net, theirs), net.estimator.predict(rows)
        ):
            raise _other(net, "predict")


def check_graph(model: onnx.ModelProto, net: Fitted, X: Any = None) -> None:
    """Run the graph of a net beside its module, on a few rows, if onnxruntime is installed.

    Parameters
    ----------
    model : onnx.ModelProto
        Of the module as it computes without rounding activations.
    net : Fitted
    X : array-like or dict of arrays, default=None
        As in :func:`check_agreement`; rows that end in zeros are tried as well.

    Raises
    ------
    ValueError
        If the outputs differ by more than rounding explains.
    """
    rows = _random(net) if X is None else _first(as_taken(X, net.module))
    for some in (rows, _padded(rows)):
        try:
            expected = _computed(net, net.module, some)
        except Exception:  # padding is nothing that every module takes
            continue
        feed = some if isinstance(some, Mapping) else {"X": some}
        found = run(model, {name: np.ascontiguousarray(x) for name, x in feed.items()})
        if found is not None and not _close(found, expected):
            raise _other_graph(net)


def _padded(X: Any) -> Any:
    """Let the rows of an array, or of those of a dict, end in zeros."""
    if isinstance(X, Mapping):
        return {name: ending_in_zeros(values) for name, values in X.items()}
    return ending_in_zeros(X)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether a graph's outputs are a module's, but for the order of sums."""
    if found.size != expected.size:
        return False
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
    # Kernels differ in what they make of a row that has no number as its result.
    known, atol = ~np.isnan(expected), 1e-3 * largest + 1e-6
    found = found.reshape(expected.shape)
    return np.allclose(found[known], expected[known], rtol=0, atol=atol)


def _other_graph(net: Fitted) -> ValueError:
    name = type(net.module).__name__
    return ValueError(
        f"The graph of {name} gives other predictions than {name} itself: its forward does"
        " something that tracing does not see, such as a choice by the values of X, or an operation"
        " that changes what others still read. Use operations that return new tensors, and"
        " torch.where for choices."
    )


def _labels(net: Fitted, probabilities: np.ndarray) -> np.ndarray:
    """Return the labels that probabilities stand for; those of skorch's nets are numbers."""
    numbers = winners(probabilities, net.threshold)
    if isinstance(net.estimator, NeuralNet) or net.classes is None:
        return numbers
    return net.classes[numbers]


def _random(net: Fitted) -> Any:
    """Return rows that most modules take."""
    rng = np.random.default_rng(0)
    rows = {
        name: (rng.uniform(size=(N_ROWS, *shape)) * (dtype in ("float32", "float64"))).astype(dtype)
        for name, (shape, dtype) in net.rows.items()
    }
    return rows.get(None, rows)


def _first(X: Any) -> Any:
    if isinstance(X, Mapping):
        return {name: values[:N_ROWS] for name, values in X.items()}
    return X[:N_ROWS]


def _predicted(net: Fitted, rows: Any) -> tuple[str, np.ndarray]:
    """Return what the estimator predicts, and the name of the method."""
    method = "predict_proba" if is_classifier(net.estimator) else "predict"
    try:
        return method, getattr(net.estimator, method)(rows)
    except Exception as error:  # whatever the user's forward raises is the reason
        raise ValueError(
            f"{type(net.estimator).__name__}.{method} fails for a few rows: {error}. Pass rows as"
            " X of the kind that it was fitted on."
        ) from error


def _computed(net: Fitted, module: nn.Module, rows: Any) -> np.ndarray:
    """Return what a module computes, in evaluation mode, and skorch makes of that."""
    module.eval()
    with torch.no_grad():
        # Operations in place must not reach the caller's rows.
        inputs = tree_map(torch.clone, to_tensor(rows, net.net.device))
        return to_numpy(to_device(Predictor(net.net, module)(inputs), "cpu"))


def _same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Tell whether predictions are equal, but for rounding."""
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind != "f":
        return bool((ours == theirs).all())
    return np.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


def _other(net: Fitted, method: str) -> ValueError:
    return ValueError(
        f"{type(net.estimator).__name__}.{method} gives other predictions than its module and"
        " skorch's predict_nonlinearity, of which the graph is written: a subclass that overrides"
        f" infer, {method} or forward_iter does something else. Move that into the module's"
        " forward, or into a step of a Pipeline before the net."
    )
