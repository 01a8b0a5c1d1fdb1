"""Nets of the tests of the file: what is saved is small, and tells by its predictions."""

import numpy as np
import torch

from skcompress import PrunedNet, QuantizedNet
from tests.pruning_modules import MODULES, TOKENS, classification, classifier

KINDS = sorted(MODULES)


def data(name, n_samples=24):
    """Return rows for a module of :data:`MODULES`, in float32 or tokens, with labels."""
    shape = MODULES[name][2]
    X, y = classification(n_samples, shape)
    if shape == TOKENS:
        X = 1 + np.abs(X * 100).astype(np.int64) % 6
    return X, y


def net_of(name, **settings):
    """Return an unfitted net around a module of :data:`MODULES`."""
    torch.manual_seed(0)
    kind, params, _ = MODULES[name]
    settings |= {f"module__{key}": value for key, value in params.items()}
    return classifier(kind, **{"max_epochs": 1, "batch_size": 12} | settings)


def pruned(net, **settings):
    """Return a PrunedNet that retrains for one epoch, with a seed."""
    return PrunedNet(net, **{"retrain_epochs": 1, "random_state": 0} | settings)


def quantized(net, **settings):
    """Return a QuantizedNet with a seed."""
    return QuantizedNet(net, **{"bits": 5, "random_state": 0} | settings)
