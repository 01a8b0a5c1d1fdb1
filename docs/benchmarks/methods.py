"""The methods that the pruning benchmark compares, each a function of one cell."""

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from data import dense_net, n_weights, widths_within
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import LRScheduler
from torch.nn.utils import prune

from skcompress import PrunedNet
from skcompress.pruning import CRITERIA


@dataclass(frozen=True)
class Cell:
    """One training of one method; `lr` multiplies the dense net's learning rate."""

    data: str
    method: str
    sparsity: float
    epochs: int
    lr: float
    seed: int

    @property
    def hidden(self):
        """Hidden widths of the dense net."""
        return dense_net(self.data).module__hidden

    @property
    def n_inputs(self):
        """Input width of the dense net."""
        return dense_net(self.data).module__n_inputs

    @property
    def max_weights(self):
        """Weights that stay."""
        total = n_weights(self.n_inputs, self.hidden)
        return total - round(self.sparsity * total)


def pruned(cell, dense, X, y, *, budget="sparsity", **parameters):
    """Prune a fitted dense net with PrunedNet."""
    lr = None if np.isnan(cell.lr) else cell.lr * dense.lr
    return PrunedNet(
        FrozenEstimator(dense), retrain_epochs=cell.epochs, retrain_lr=lr,
        random_state=cell.seed, **{budget: getattr(cell, budget)}, **parameters,
    ).fit(X, y)  # fmt: skip


def torch_prune(cell, dense, X, y, *, policy):
    """Prune with torch.nn.utils.prune, globally by magnitude, and retrain with skorch alone.

    `policy` is a constant learning rate or a cosine, by skorch's own scheduler.
    """
    torch.manual_seed(cell.seed)
    net = clone(dense).set_params(lr=cell.lr * dense.lr, max_epochs=cell.epochs)
    if policy == "cosine":
        steps = cell.epochs * -(-len(y) // net.batch_size)
        scheduler = LRScheduler("CosineAnnealingLR", T_max=steps, step_every="batch")
        net.set_params(callbacks=[("rate", scheduler)])
    net.initialize()
    net.module_.load_state_dict(copy.deepcopy(dense.module_.state_dict()))
    layers = [(m, "weight") for m in net.module_ if isinstance(m, torch.nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=cell.sparsity)
    net.initialize_optimizer()
    return net.partial_fit(X, y)


def small_dense(cell, dense, X, y):
    """Train a dense net of as many weights from scratch, for all of the epochs."""
    hidden = widths_within(cell.n_inputs, cell.hidden, cell.max_weights)
    return PrunedNet(
        dense_net(cell.data, hidden), sparsity=0.0, schedule="one-shot",
        retrain_epochs=cell.epochs, retrain_lr=cell.lr * dense.lr, random_state=cell.seed,
    ).fit(X, y)  # fmt: skip


ON_WEIGHTS = [name for name in CRITERIA if name != "activation"]
OURS = "PrunedNet, defaults"
PEERS = {
    "torch prune, constant rate": partial(torch_prune, policy="constant"),
    "torch prune, cosine": partial(torch_prune, policy="cosine"),
}
# Multiples of the dense net's rate. PrunedNet's default is 5, so its peers may choose that, too.
RATES, PEER_RATES = (1.0, 3.0, 10.0), (1.0, 3.0, 5.0, 10.0)
METHODS = {
    OURS: pruned,
    **PEERS,
    **{f"one-shot, {c}": partial(pruned, schedule="one-shot", criterion=c) for c in ON_WEIGHTS},
    **{f"gradual, {c}": partial(pruned, schedule="gradual", criterion=c)
       for c in ON_WEIGHTS if c != "obs"},
    "gradual, magnitude, scope=layer": partial(pruned, schedule="gradual", scope="layer"),
    "gradual, magnitude, scope=lamp": partial(pruned, schedule="gradual", scope="lamp"),
    "projected, magnitude": partial(pruned, schedule="projected"),
    "one-shot, magnitude, scratch": partial(pruned, schedule="one-shot", recovery="scratch"),
    **{f"units, gradual, {c}": partial(pruned, budget="max_weights", granularity="unit",
                                       schedule="gradual", criterion=c)
       for c in ("magnitude", "activation")},
    "units, one-shot, magnitude, scratch": partial(
        pruned, budget="max_weights", granularity="unit", schedule="one-shot",
        recovery="scratch"),
    "small dense net": small_dense,
}  # fmt: skip
