"""What of a fitted estimator goes into a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.utils import multi_indexing
from torch import Tensor, nn

from ... import inputs
from ...quantization.tensors import QuantizedTensor
from ...training.iterators import rows_at_once
from ...training.nets import fitted_net, plain_module

Specs = list[tuple[str | None, str, list[int]]]
# Where scikit-learn's meta-estimators keep the one estimator that they fitted.
_WRAPPED = ("best_estimator_", "estimator_", "regressor_")


@dataclass
class Entry:
    """A parameter or buffer, with its mask and its integers where it has them."""

    name: str
    tensor: Tensor
    mask: Tensor | None = None
    quantized: QuantizedTensor | None = None


@dataclass
class Contents:
    """A fitted net, taken apart.

    Parameters
    ----------
    net : skorch net
    specs : list or None
        Name, type and shape of the inputs of a row; None where they are not known.
    description : dict
        What a file says in words.
    entries : list of Entry
    steps : list of (str, transformer)
        What a pipeline does before the net.
    """

    net: NeuralNet
    specs: Specs | None
    description: dict[str, Any]
    entries: list[Entry]
    steps: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        """The module in floating point."""
        return plain_module(self.net.module_)


def contents(estimator: Any, X: Any = None) -> Contents:
    """Take a fitted estimator apart.

    Parameters
    ----------
    estimator : object
        As in :func:`skcompress.save`.
    X : array-like or dict, default=None
        Rows as the estimator takes them, for a net that does not remember any.
    """
    steps, fitted = unwrap(estimator)
    net = fitted_net(fitted)
    specs = getattr(fitted, "_row_specs", None) or _specs(net, steps, X)
    return Contents(net, specs, _describe(fitted, net, specs), _entries(fitted, net), steps)


def unwrap(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Find the net that predicts, and the steps of the pipeline before it.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If it holds no skorch net.
    """
    if hasattr(estimator, "net_") or isinstance(estimator, NeuralNet):
        return [], estimator
    if isinstance(estimator, FrozenEstimator):
        return unwrap(estimator.estimator)
    if hasattr(estimator, "steps"):
        *steps, (_, last) = estimator.steps
        inner, fitted = unwrap(last)
        return [(n, s) for n, s in steps if s not in (None, "passthrough")] + inner, fitted
    for name in _WRAPPED:
        if hasattr(estimator, name):
            return unwrap(getattr(estimator, name))
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)
    raise TypeError(
        f"No fitted skorch net found in {type(estimator).__name__}. Pass a fitted PrunedNet or"
        " skorch net, a Pipeline that ends in one, or a search that was refitted with one."
    )


def _specs(net: NeuralNet, steps: list, X: Any) -> Specs | None:
    """Say what rows a plain net takes, which it does not remember itself."""
    module = plain_module(net.module_)
    if X is not None:
        X = multi_indexing(X, slice(0, 2))
        for _, step in steps:
            X = step.transform(X)
        X = inputs.check_dict(X) if isinstance(X, Mapping) else np.asarray(X)
        return inputs.row_specs(inputs.to_dtype(X, module))
    if not steps:
        return None
    last = steps[-1][1]
    width = getattr(last, "n_components_", getattr(last, "n_features_in_", None))
    return None if width is None else [(None, str(inputs.float_dtype(module)), [int(width)])]


def _describe(fitted: Any, net: NeuralNet, specs: Specs | None) -> dict[str, Any]:
    """Say in words what a file holds, leaving out what is as usual."""
    kind = "classifier" if is_classifier(fitted) else "regressor"
    about: dict[str, Any] = {"kind": kind}
    if specs is not None:
        about["inputs"] = [[name, dtype, list(shape)] for name, dtype, shape in specs]
        about["batch"] = _batch(net, specs)
    if hasattr(fitted, "feature_names_in_"):
        about["names"] = [str(name) for name in fitted.feature_names_in_]
    if kind == "regressor":
        about["columns"] = getattr(fitted, "target_ndim_", 2)
    elif hasattr(fitted, "net_"):
        about["classes"] = _written_classes(fitted.classes_)
    if isinstance(net, NeuralNetBinaryClassifier):
        about["threshold"] = float(net.threshold)
    ranges = getattr(net.module_, "ranges", None)
    if net.module_ is not plain_module(net.module_):
        about["activations"] = ranges or "dynamic"
    return about


def _batch(net: NeuralNet, specs: Specs) -> int:
    """Return how many rows the net predicts at once."""
    given = net.get_params_for("iterator_valid").get("batch_size", None)
    rows = {str(name): np.empty((0, *shape)) for name, _, shape in specs}
    return int(given or rows_at_once(net, rows))


def _written_classes(classes: np.ndarray) -> Any:
    """Write labels down: their number if they are 0, 1, ..., or else their type and values."""
    if classes.dtype == np.int64 and np.array_equal(classes, np.arange(len(classes))):
        return len(classes)
    values = classes.tolist()
    if not all(isinstance(v, (bool, int, float, str)) for v in values):
        raise ValueError(
            f"A file holds labels that are numbers or strings; got {type(values[0]).__name__}."
        )
    return [classes.dtype.str, values]


def _entries(fitted: Any, net: NeuralNet) -> list[Entry]:
    """List parameters and buffers once each, with what is known of them."""
    module = plain_module(net.module_)
    masks, quantized = getattr(fitted, "masks_", {}), getattr(fitted, "quantized_", {})
    first: dict[int, str] = {}
    entries: dict[int, Entry] = {}
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        name = first.setdefault(id(tensor), name)
        entry = entries.setdefault(id(tensor), Entry(name, tensor.detach()))
        mask, integers = masks.get(name), quantized.get(name)
        if mask is not None and not mask.all():
            entry.mask = mask
        # Integers that no longer say what the weight is are not stored.
        if integers is not None and torch.equal(integers.dequantize(), tensor.detach()):
            entry.quantized = integers
    return list(entries.values())
