"""Finding, copying and slimming the skorch net inside an estimator."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn

from ..layers import check_plain


def wrapped_net(estimator: Any) -> NeuralNet:
    """Return the skorch net at the core of nested estimators, fitted or not.

    Raises
    ------
    TypeError
        If there is none.
    """
    inner = estimator
    while isinstance(inner, FrozenEstimator) or hasattr(type(inner), "_compress"):
        inner = inner.estimator
    if not isinstance(inner, NeuralNet):
        raise TypeError(
            "estimator must be a skorch net, a compressed net around one, or a FrozenEstimator"
            f" of either; got {type(estimator).__name__}. Scalers and other steps go outside:"
            " make_pipeline(StandardScaler(), PrunedNet(net))."
        )
    return inner


def stages(estimator: Any) -> Iterator[Any]:
    """Yield the estimators that stand inside each other, from outside in, the net last."""
    while not isinstance(estimator, NeuralNet):
        yield estimator
        estimator = estimator.estimator
    yield estimator


def fitted_net(estimator: Any) -> NeuralNet:
    """Return the skorch net that holds the result of a fitted estimator.

    Raises
    ------
    NotFittedError
        If there is no such net yet.
    ValueError
        If skorch trimmed the net for prediction.
    """
    inner = estimator
    while isinstance(inner, FrozenEstimator):
        inner = inner.estimator
    net = inner if isinstance(inner, NeuralNet) else getattr(inner, "net_", None)
    if net is None or not net.initialized_:
        kind = type(inner).__name__
        holds = f"FrozenEstimator holds a {kind} that" if inner is not estimator else f"This {kind}"
        leave = "; or leave FrozenEstimator out to have it fitted here" * (inner is not estimator)
        raise NotFittedError(
            f"{holds} is not fitted yet. Call fit on it, or initialize() on a net around a trained"
            f" module{leave}."
        )
    if getattr(net, "_trimmed_for_prediction", False):
        raise ValueError(
            "trim_for_prediction() took the net's criterion and iterator, which compression"
            " needs. Freeze a copy of the net that is not trimmed."
        )
    return net


def plain_module(module: nn.Module) -> nn.Module:
    """Return the module inside one that computes in integers, or the module itself."""
    integers = getattr(module, "computes_in_integers", False)
    return module.get_submodule("module") if integers else module


def dense_net(estimator: Any) -> NeuralNet:
    """Return the net at the core of a fitted estimator, with the history of its training."""
    while not isinstance(estimator, NeuralNet):
        frozen = is_frozen(estimator)
        estimator = estimator.estimator if frozen else estimator.estimator_
    return estimator


def is_frozen(estimator: Any) -> bool:
    """Tell whether the net inside is not to be trained again."""
    return isinstance(estimator, FrozenEstimator)


def known_classes(estimator: Any) -> np.ndarray | None:
    """Return the classes that a frozen estimator numbers its outputs by, if it says so."""
    inner = estimator
    while isinstance(inner, FrozenEstimator):
        inner = inner.estimator
    if not isinstance(inner, NeuralNet):
        return inner.classes_
    given = given_classes(inner)
    if given is not None:
        return given
    # Not `classes_`, which a binary net has before it has seen any label.
    return getattr(inner, "classes_inferred_", None)


def frozen_stage(estimator: Any) -> FrozenEstimator | None:
    """Return the stage that is not to be trained again, however deep inside."""
    return next(filter(is_frozen, stages(estimator)), None)


def given_classes(estimator: Any) -> np.ndarray | None:
    """Return the labels that the user named for the net inside, if any."""
    given = wrapped_net(estimator).get_params(deep=False).get("classes")
    return None if given is None or not len(given) else np.asarray(given)


def number_classes(net: NeuralNet) -> None:
    """Rename in place the labels that the user gave a net, for rows whose labels are encoded.

    All of them stay, for a fold without a rare one has as many outputs.
    """
    given = given_classes(net)
    if given is not None:
        net.set_params(classes=np.arange(len(given)))


def copy_net(net: NeuralNet) -> NeuralNet:
    """Copy an initialized net, with fresh callbacks, a fresh optimizer and no history.

    ``copy.deepcopy`` of the net would go through pickle, which fails on modules that are defined
    inside a function. ``initialize`` would build the module anew, which a net that was slimmed
    around an instance cannot do.
    """
    for name in net._modules:
        # Copying what is computed from parameters would fail without naming the layer.
        check_plain(getattr(net, name + "_"))
    rebuilt = {"callbacks", "callbacks_", "history_", *(name + "_" for name in net._optimizers)}
    copied = object.__new__(type(net))
    copied.__dict__ = copy.deepcopy({k: v for k, v in vars(net).items() if k not in rebuilt})
    copied.callbacks, copied.history_ = clone(net.callbacks, safe=False), None
    copied.verbose = 0
    copied._initialize_virtual_params()
    copied._initialize_callbacks()
    copied._initialize_optimizer()
    copied._initialize_history()
    return copied


def without_nested_tensors(module: nn.Module) -> None:
    """Let encoders of padded sequences compute in evaluation mode as they do in training.

    Of a batch of rows that are padded on the right, ``nn.TransformerEncoder`` gives zeros for the
    padding, and of another it does not: what it says of a row depends on the other rows, and on
    the mode. Compressed nets are without that short cut, as if ``enable_nested_tensor=False``.
    """
    for layer in encoders_with_nested_tensors(module):
        layer.enable_nested_tensor = layer.use_nested_tensor = False


def encoders_with_nested_tensors(module: nn.Module) -> list[nn.TransformerEncoder]:
    """List encoders that compute otherwise for rows that are padded."""
    encoders = [m for m in module.modules() if isinstance(m, nn.TransformerEncoder)]
    return [encoder for encoder in encoders if getattr(encoder, "use_nested_tensor", False)]


def slim_net(net: NeuralNet) -> None:
    """Drop in place what a net needs for training only, so that it pickles small.

    Optimizer state, gradients and callbacks go, and so does the initial module where the net was
    built around an instance. Predicting, scoring and copying go on working.
    """
    for name in net._optimizers:
        # Deleting it would make skorch forget that there is such an optimizer.
        setattr(net, name + "_", None)
    net.callbacks, net.callbacks_ = "disable", []
    for name in net._modules:
        getattr(net, name + "_").zero_grad(set_to_none=True)
    if isinstance(net.module, nn.Module):
        net.module = type(net.module)
