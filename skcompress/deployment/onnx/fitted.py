"""What a fitted estimator predicts with, whichever kind it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import Tensor, nn

from ...graph import Graph, trace
from ...inputs import float_dtype, row_specs, to_dtype
from ...probe import describe
from ...quantization import QuantizedTensor
from ...training.nets import fitted_net, plain_module

# Shape and type of a row, by the name of the input; None is an array's.
RowTypes = dict[str | None, tuple[tuple[int, ...], str]]


class Predictor(nn.Module):
    """A module with what skorch does to its output."""

    def __init__(self, net: NeuralNet, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.nonlinearity = net._get_predict_nonlinearity()
        self.is_binary = isinstance(net, NeuralNetBinaryClassifier)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Return what the net's ``predict_proba`` returns."""
        output = self.module(**inputs) if isinstance(inputs, dict) else self.module(inputs)
        output = output[0] if isinstance(output, tuple) else output
        # As skorch's binary classifier, whose module may give a column.
        return self.nonlinearity(output.reshape(-1) if self.is_binary else output)


@dataclass(frozen=True)
class Fitted:
    """A fitted net with what its predictions need.

    Parameters
    ----------
    estimator : object
        The compressed net or skorch net.
    net : skorch.NeuralNet
        Holds the module.
    module : torch.nn.Module
        What was trained.
    integers : IntegerModule or None
        How activations are rounded, if they are.
    quantized : dict of QuantizedTensor
        By parameter name.
    classes : ndarray or None
        Labels of a classifier.
    rows : dict of (shape, dtype)
        What a row of each input looks like; an array has the name None.
    """

    estimator: Any
    net: NeuralNet
    module: nn.Module
    integers: Any
    quantized: Mapping[str, QuantizedTensor]
    classes: np.ndarray | None
    rows: RowTypes

    @property
    def threshold(self) -> float | None:
        """Above which probability the second class is predicted; None: the likeliest class is."""
        binary = isinstance(self.net, NeuralNetBinaryClassifier)
        return self.net.threshold if binary else None

    @property
    def flat(self) -> bool:
        """Whether a regressor gives a vector rather than a column."""
        return getattr(self.estimator, "target_ndim_", None) == 1

    @cached_property
    def graph(self) -> Graph:
        """The operations of the net, with what skorch does to its output."""
        return trace(Predictor(self.net, self.module), (self.example(),), {})

    def example(self) -> Tensor | dict[str, Tensor]:
        """Return two rows of zeros: a tensor, or a dict of them."""
        tensors = {
            name: torch.zeros(2, *shape, dtype=getattr(torch, dtype))
            for name, (shape, dtype) in self.rows.items()
        }
        if None in tensors:
            return tensors[None]
        return {str(name): tensor for name, tensor in tensors.items()}


def unwrapped(estimator: Any) -> Any:
    """Return the estimator that a fitted search, or a FrozenEstimator, holds."""
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def steps_of(pipeline: Pipeline) -> list[Any]:
    """Return the steps of a Pipeline that may end in another, without those that do nothing."""
    *steps, last = [step for _, step in pipeline.steps]
    steps = [step for step in steps if step not in (None, "passthrough")]
    last = unwrapped(last)
    return [*steps, *(steps_of(last) if isinstance(last, Pipeline) else [last])]


def transformed(steps: list[Any], X: Any) -> Any:
    """Return rows as they come to the net."""
    for step in steps:
        X = None if X is None else step.transform(X)
    return X


def fitted(estimator: Any, X: Any = None, *, floats: bool = False) -> Fitted:
    """Take apart a fitted compressed net or skorch net.

    Parameters
    ----------
    estimator : object
        PrunedNet, QuantizedNet, DistilledNet or a skorch classifier or regressor; or a fitted
        search or FrozenEstimator around one.
    X : array-like or dict of arrays, default=None
        A few rows; only for a skorch net whose module does not begin with a linear layer.

    floats : bool
        Whether to see quantized weights as ordinary ones, and activations that are not rounded.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If there is no net in it.
    """
    inner = unwrapped(estimator)
    if not isinstance(inner, NeuralNet) and not hasattr(type(inner), "_compress"):
        raise TypeError(
            f"{type(inner).__name__} holds no skorch net. Pass a PrunedNet, QuantizedNet,"
            " DistilledNet or skorch net, a search or FrozenEstimator around one, or a Pipeline"
            " that ends in one."
        )
    if not isinstance(inner, NeuralNet):
        check_is_fitted(inner)
    net = fitted_net(inner)
    module = plain_module(net.module_)
    integers = net.module_ if module is not net.module_ and not floats else None
    quantized = {} if floats else getattr(inner, "quantized_", {})
    classes = _classes(inner) if is_classifier(inner) else None
    return Fitted(inner, net, module, integers, quantized, classes, _rows(inner, module, X))


def _classes(estimator: Any) -> np.ndarray | None:
    try:
        return np.asarray(estimator.classes_)
    except AttributeError:  # a net that was initialized, and never fitted
        return None


def _rows(estimator: Any, module: nn.Module, X: Any) -> RowTypes:
    """Say what a row looks like: as in ``fit``, as in `X`, or as wide as the first layer."""
    given = None if X is None else _specs(row_specs(as_taken(X, module)))
    if hasattr(estimator, "_row_specs"):
        known = _specs(estimator._row_specs)
        if given is None:
            return known
        if _shapes(given) != _shapes(known):
            raise ValueError(
                f"The net does not take X of {describe(X)}. In fit, X was of"
                f" {estimator._input_shapes}."
            )
    if given is not None:
        return given
    first = next((m for m in module.modules() if not list(m.children())), None)
    if not isinstance(first, nn.Linear):
        raise ValueError(
            f"{type(estimator).__name__} does not know the shape of its rows, and the first layer"
            " does not tell. Pass a few rows as X."
        )
    return {None: ((first.in_features,), float_dtype(module).name)}


def _specs(specs: list) -> RowTypes:
    return {name: (tuple(shape), dtype) for name, dtype, shape in specs}


def _shapes(rows: RowTypes) -> dict[str | None, tuple[int, ...]]:
    return {name: shape for name, (shape, _) in rows.items()}


def as_taken(X: Any, module: nn.Module) -> Any:
    """Return rows in the types that a module takes."""
    return to_dtype(X if isinstance(X, Mapping) else np.asarray(X), module)
