"""Finding, copying and slimming the skorch net inside an estimator."""

import copy
from typing import Any

from skorch import NeuralNet
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn


def wrapped_net(estimator: Any) -> NeuralNet:
    """Return the skorch net at the core of nested estimators, fitted or not.

    Raises
    ------
    TypeError
        If there is none.
    """
    inner = estimator
    while not isinstance(inner, NeuralNet) and hasattr(inner, "estimator"):
        inner = inner.estimator
    if not isinstance(inner, NeuralNet):
        raise TypeError(
            "estimator must be a skorch net, a compressed net around one, or a FrozenEstimator"
            f" of either; got {estimator!r}. Scalers and other steps go outside:"
            " make_pipeline(StandardScaler(), PrunedNet(net))."
        )
    return inner


def fitted_net(estimator: Any) -> NeuralNet:
    """Return the skorch net that holds the result of a fitted estimator."""
    if isinstance(estimator, FrozenEstimator):
        return fitted_net(estimator.estimator)
    return estimator if isinstance(estimator, NeuralNet) else estimator.net_


def is_frozen(estimator: Any) -> bool:
    """Tell whether the net inside is not to be trained again."""
    return isinstance(estimator, FrozenEstimator)


def copy_net(net: NeuralNet) -> NeuralNet:
    """Copy a net's parameters and modules, with fresh callbacks and a fresh optimizer.

    ``copy.deepcopy`` would go through pickle, which fails on modules that are defined inside a
    function, and would carry the optimizer's state along.
    """
    copied = clone(net).set_params(verbose=0)
    copied.initialize()
    for name in (*net._modules, *net._criteria):
        setattr(copied, name + "_", copy.deepcopy(getattr(net, name + "_")))
    if hasattr(net, "classes_inferred_"):
        copied.classes_inferred_ = net.classes_inferred_
    return copied


def slim_net(net: NeuralNet) -> None:
    """Drop in place what a net needs for training only, so that it pickles small.

    Optimizer state, gradients and callbacks go, and so does the initial module where the net was
    built around an instance. Predicting, scoring and copying go on working.
    """
    for name in tuple(net._optimizers):
        if hasattr(net, name + "_"):
            delattr(net, name + "_")
    net.callbacks, net.callbacks_ = "disable", []
    for name in net._modules:
        getattr(net, name + "_").zero_grad(set_to_none=True)
    if isinstance(net.module, nn.Module):
        net.module = type(net.module)
