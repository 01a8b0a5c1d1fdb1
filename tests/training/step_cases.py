"""Nets, optimizers and rows to make steps with, and what is compared afterwards."""

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn, optim

from skcompress.training.loop import Data
from tests.contract_modules import CNN, MLP, Recurrent, TwoInputs, blobs, line

N = 70
X, Y = blobs(N)
X = X.astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 10, (N, 5))
WEIGHTS = np.linspace(0.5, 2, N).astype(np.float32)


class Noisy(nn.Module):
    """Dropout and batch statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3), nn.Linear(7, 3)
        )

    def forward(self, X):
        return self.layers(X)


class Fickle(nn.Module):
    """One layer is used in every second step only, and one never."""

    def __init__(self):
        super().__init__()
        self.always, self.often = nn.Linear(4, 3), nn.Linear(4, 3)
        self.never = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, X):
        self.calls += 1
        return self.always(X) + (self.often(X) if self.calls % 2 else 0)


class SparseTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4, sparse=True)
        self.head = nn.Linear(4, 3)

    def forward(self, X):
        return self.head(self.embedding(X).mean(1))


class Norms(Callback):
    """Look at the gradients."""

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.norms_ = [p.grad.norm().item() for _, p in named_parameters]


def data(name):
    """Return rows of one kind."""
    return {
        "labels": Data(X, Y),
        "weights": Data(X, Y, WEIGHTS),
        "binary": Data(X, (Y > 0).astype(np.float32)),
        "numbers": Data(line(N)[0], line(N)[1][:, None]),
        "images": Data(np.random.default_rng(0).normal(size=(N, 1, 8, 8)).astype(np.float32), Y),
        "sequences": Data(X.reshape(N, 2, 2), Y),
        "tokens": Data(TOKENS, Y),
        "dict": Data({"numbers": X, "tokens": TOKENS}, Y),
        "weighted dict": Data({"numbers": X, "tokens": TOKENS}, Y, WEIGHTS),
    }[name]


CE, ADAM, SGD = nn.CrossEntropyLoss, optim.Adam, optim.SGD
KINDS = {
    CE: NeuralNetClassifier,
    nn.NLLLoss: NeuralNetClassifier,
    nn.BCEWithLogitsLoss: NeuralNetBinaryClassifier,
    nn.MSELoss: NeuralNetRegressor,
}
WIDE = {"module__n_inputs": 4, "module__n_outputs": 3}
ONE = {"module__n_inputs": 4, "module__n_outputs": 1}
DOUBLE = {**ONE, "module__dtype": torch.float64}
MOMENTUM = {"optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3}
GROUPS = {"optimizer__param_groups": [("*.bias", {"lr": 0.001})]}
# Module, criterion, optimizer, rows, settings.
CASES = {
    "Adam": (MLP, CE, ADAM, "labels", WIDE),
    "Adam, decay": (MLP, CE, ADAM, "labels", {**WIDE, "optimizer__weight_decay": 0.01}),
    "Adam, amsgrad": (MLP, CE, ADAM, "labels", {**WIDE, "optimizer__amsgrad": True}),
    "AdamW": (MLP, CE, optim.AdamW, "labels", WIDE),
    "NAdam": (MLP, CE, optim.NAdam, "labels", WIDE),
    "RAdam": (MLP, CE, optim.RAdam, "labels", WIDE),
    "RMSprop": (MLP, CE, optim.RMSprop, "labels", {**WIDE, "optimizer__momentum": 0.5}),
    "Adagrad": (MLP, CE, optim.Adagrad, "labels", WIDE),
    "Adam, fused": (MLP, CE, ADAM, "labels", {**WIDE, "optimizer__fused": True}),
    "Adam, foreach": (MLP, CE, ADAM, "labels", {**WIDE, "optimizer__foreach": True}),
    "LBFGS": (MLP, CE, optim.LBFGS, "labels", {**WIDE, "optimizer__max_iter": 2}),
    "SGD": (MLP, CE, SGD, "labels", WIDE),
    "SGD, momentum": (MLP, CE, SGD, "labels", {**WIDE, **MOMENTUM}),
    "SGD, Nesterov": (MLP, CE, SGD, "labels", WIDE | MOMENTUM | {"optimizer__nesterov": True}),
    "groups": (MLP, CE, ADAM, "labels", {**WIDE, **GROUPS}),
    "NLLLoss": (MLP, nn.NLLLoss, ADAM, "labels", {**WIDE, "module__softmax": True}),
    "binary": (MLP, nn.BCEWithLogitsLoss, ADAM, "binary", ONE),
    "float64": (MLP, nn.MSELoss, ADAM, "numbers", DOUBLE),
    "dropout, BatchNorm": (Noisy, CE, ADAM, "labels", {}),
    "dropout, weights": (Noisy, CE, SGD, "weights", MOMENTUM),
    "weights": (MLP, CE, ADAM, "weights", WIDE),
    "images": (CNN, CE, ADAM, "images", {}),
    "sequences": (Recurrent, CE, ADAM, "sequences", {}),
    "dict": (TwoInputs, CE, ADAM, "dict", {}),
    "weighted dict": (TwoInputs, CE, ADAM, "weighted dict", {}),
    "missing gradients": (Fickle, CE, ADAM, "labels", {"optimizer__weight_decay": 0.1}),
    "missing, momentum": (Fickle, CE, SGD, "labels", MOMENTUM),
    "sparse": (SparseTokens, CE, SGD, "tokens", {}),
    "clipping": (MLP, CE, ADAM, "labels", {**WIDE, "callbacks": [GradientNormClipping(0.1)]}),
    "looking": (MLP, CE, ADAM, "labels", {**WIDE, "callbacks": [Norms]}),
    "shuffled": (MLP, CE, ADAM, "labels", {**WIDE, "iterator_train__shuffle": True}),
}


def build(module, criterion, optimizer, settings, kind=None):
    """Return a net that is not initialized."""
    torch.manual_seed(0)
    defaults = {"lr": 0.05, "batch_size": 16, "train_split": None, "verbose": 0}
    kind = KINDS[criterion] if kind is None else kind
    return kind(module, criterion=criterion, optimizer=optimizer, **defaults | settings)


def make(*args):
    """Return an initialized net."""
    return build(*args).initialize()


def detour(kind):
    """Return a kind of net whose steps go through a ``train_step`` of its own."""

    class Detour(kind):
        def train_step(self, *args, **kwargs):
            return super().train_step(*args, **kwargs)

    return Detour


def outcome(net):
    """Return what a training leaves: tensors of module and optimizer, and the generator."""
    state = sorted(net.optimizer_.state_dict()["state"].items())
    remembered = [v for _, s in state for v in s.values() if isinstance(v, torch.Tensor)]
    return [*net.module_.state_dict().values(), *remembered, torch.random.get_rng_state()]


def assert_identical(first, second):
    """Compare two nets after training."""
    assert len(outcome(first)) == len(outcome(second))
    for pair in zip(outcome(first), outcome(second), strict=True):
        assert torch.equal(*pair)


class OwnLoss(NeuralNetClassifier):
    def get_loss(self, *args, **kwargs):
        return 2 * super().get_loss(*args, **kwargs)


class OwnTraining(NeuralNetClassifier):
    def _set_training(self, training=True):
        super()._set_training(False)
