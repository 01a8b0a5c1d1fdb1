"""What of a fitted estimator goes into a file."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.helper import SliceDataset
from skorch.utils import multi_indexing
from torch import Tensor, nn

from ... import inputs
from ...quantization.tensors import QuantizedTensor
from ...training.iterators import rows_at_once
from ...training.nets import fitted_net, plain_module
from .predictor import LoadedNet

Specs = list[tuple[str | None, str, list[int]]]
Steps = list[tuple[str, Any]]
# By these names, scikit-learn's meta-estimators take what they wrap.
_WRAPS = ("estimator", "estimators", "regressor", "classifier", "transformer_list")


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
    steps: Steps = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        """The module in floating point."""
        return plain_module(self.net.module_)


def contents(estimator: Any, X: Any = None) -> Contents:
    """Take a fitted estimator apart.

    Parameters
    ----------
    estimator : object
        As in :func:`skcompress.save`, but not one that came out of a file.
    X : array-like or dict, default=None
        Rows as the estimator takes them, for a net that does not remember any.
    """
    steps, fitted = unwrap(estimator)
    net = fitted_net(fitted)
    specs = getattr(fitted, "_row_specs", None)
    if specs is None:
        specs = _specs(net, steps, X)
    elif isinstance(X, np.ndarray) and not steps and X.shape[1:] != _shapes(specs):
        raise ValueError(
            f"The net does not take X with rows of shape {X.shape[1:]}; in fit they were of"
            f" {_shapes(specs)}. Pass rows as in fit, or leave X out."
        )
    # Names of columns are checked by the first step; those after it are given arrays.
    names = None if steps else getattr(fitted, "feature_names_in_", None)
    return Contents(net, specs, _describe(fitted, net, specs, names), _entries(fitted, net), steps)


def unwrap(estimator: Any) -> tuple[Steps, Any]:
    """Find the net that predicts, and the steps of the pipeline before it.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If it holds no skorch net, or does more to predictions than to call one.
    """
    if isinstance(estimator, FrozenEstimator):
        return unwrap(estimator.estimator)
    if isinstance(estimator, Pipeline):
        inner, fitted = unwrap(estimator.steps[-1][1])
        return flat_steps(estimator.steps[:-1]) + inner, fitted
    if hasattr(estimator, "best_estimator_"):
        return unwrap(estimator.best_estimator_)
    if hasattr(estimator, "net_") or isinstance(estimator, NeuralNet):
        return [], estimator
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)
    if isinstance(estimator, LoadedNet):
        return [], estimator
    name, params = type(estimator).__name__, getattr(estimator, "get_params", dict)
    if any(key in _WRAPS for key in params(deep=False)):
        raise TypeError(
            f"A file cannot hold what a {name} does beside the net that it wraps. It holds a skorch"
            " net, a compressed net, a Pipeline that ends in one, and the best of a search: save"
            f" that which the {name} was built around."
        )
    raise TypeError(
        f"No fitted skorch net found in {name}. Pass a fitted PrunedNet or"
        " skorch net, a Pipeline that ends in one, or a search that was refitted with one."
    )


def flat_steps(steps: Steps) -> Steps:
    """List the steps of a pipeline, and in their place those of pipelines among them."""
    flat: Steps = []
    for name, step in steps:
        if isinstance(step, Pipeline):
            flat += flat_steps(step.steps)
        elif step not in (None, "passthrough"):
            flat.append((name, step))
    return flat


def through(steps: Steps, X: Any) -> Any:
    """Pass rows through the steps of a pipeline."""
    with warnings.catch_warnings():
        # Rows of numbers that were made up have no names.
        warnings.simplefilter("ignore")
        for _, step in steps:
            X = step.transform(X)
    return X


def _specs(net: NeuralNet, steps: Steps, X: Any) -> Specs | None:
    """Say what rows a plain net takes, which it does not remember itself."""
    module = plain_module(net.module_)
    if X is not None:
        X = np.asarray(X) if isinstance(X, (list, tuple)) else X
        X = _rows(through(steps, multi_indexing(X, slice(0, 2))))
        return inputs.row_specs(inputs.to_dtype(X, module))
    width = getattr(steps[0][1], "n_features_in_", None) if steps else None
    if width is None:
        return None
    try:
        row = through(steps, np.zeros((1, width)))
    except ValueError:  # a step that takes no numbers
        return None
    return [(None, str(inputs.float_dtype(module)), [int(n) for n in np.shape(row)[1:]])]


def _shapes(specs: Specs) -> Any:
    """Return the shapes of rows by name, or of an array's alone."""
    shapes = {name: tuple(shape) for name, _, shape in specs}
    return shapes.get(None, shapes)


def _rows(X: Any) -> Any:
    """Return rows as arrays, whatever holds them."""
    if isinstance(X, SliceDataset):
        return X
    return inputs.check_dict(X) if isinstance(X, Mapping) else np.asarray(X)


def _describe(fitted: Any, net: NeuralNet, specs: Specs | None, names: Any) -> dict[str, Any]:
    """Say in words what a file holds, leaving out what is as usual."""
    kind = "classifier" if is_classifier(fitted) else "regressor"
    about: dict[str, Any] = {"kind": kind}
    if specs is not None:
        about["inputs"] = [[name, dtype, list(shape)] for name, dtype, shape in specs]
        about["batch"] = _batch(net, specs)
    if names is not None:
        about["names"] = [str(name) for name in names]
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
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        tensors[first.setdefault(id(tensor), name)] = tensor.detach()
    return _known(tensors, fitted)


def loaded_entries(loaded: LoadedNet) -> list[Entry]:
    """List the tensors of a net that came out of a file, in their order there."""
    module: Any = plain_module(loaded.module_)
    tensors = {name: module.get_tensor(name).detach() for name in module.read}
    return _known(tensors, loaded)


def _known(tensors: Mapping[str, Tensor], fitted: Any) -> list[Entry]:
    """Say what a fitted net knows of its tensors: masks, and integers that are still theirs."""
    masks, quantized = getattr(fitted, "masks_", {}), getattr(fitted, "quantized_", {})
    entries = []
    for name, tensor in tensors.items():
        entry = Entry(name, tensor)
        mask, integers = masks.get(name), quantized.get(name)
        if mask is not None and not mask.all():
            entry.mask = mask
        # Integers that no longer say what the weight is are not stored.
        if integers is not None and torch.equal(integers.dequantize(), tensor):
            entry.quantized = integers
        entries.append(entry)
    return entries
