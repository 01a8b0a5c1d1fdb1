"""Short steps, against steps through ``train_step``: the same bits everywhere."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn, optim

from skcompress.training.loop import Data, retrain
from skcompress.training.steps import ShortStep, steps
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


def make(module, criterion, optimizer, settings, kind=None):
    """Return an initialized net."""
    torch.manual_seed(0)
    defaults = {"lr": 0.05, "batch_size": 16, "train_split": None, "verbose": 0}
    kind = KINDS[criterion] if kind is None else kind
    return kind(
        module, criterion=criterion, optimizer=optimizer, **defaults | settings
    ).initialize()


def detour(kind):
    """Return a kind of net whose steps go through a ``train_step`` of its own."""

    class Detour(kind):
        def train_step(self, *args, **kwargs):
            return super().train_step(*args, **kwargs)

    return Detour


def project(net):
    """Return a projection that also leaves the net in evaluation mode, as scoring does."""

    @torch.no_grad()
    def after_step(progress):
        for parameter in net.module_.parameters():
            parameter[parameter.abs() < 0.01] = 0.0
        if progress > 0.5:
            net._set_training(False)

    return after_step


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


@pytest.mark.parametrize(
    ("module", "criterion", "optimizer", "rows", "settings"), CASES.values(), ids=CASES
)
def test_same_bits(module, criterion, optimizer, rows, settings, capsys):
    """Weights, statistics, the optimizer's memory, losses and draws are the same."""
    nets, printed = [], []
    for kind in (KINDS[criterion], detour(KINDS[criterion])):
        net = make(module, criterion, optimizer, settings, kind)
        torch.manual_seed(1)
        retrain(net, data(rows), epochs=3, lr=None, after_step=project(net), verbose=1)
        nets.append(net)
        printed.append(capsys.readouterr().out)
    assert_identical(*nets)
    assert printed[0] == printed[1]


@pytest.mark.parametrize("optimizer", [ADAM, SGD])
def test_same_bits_as_skorch(optimizer):
    """At a constant rate, retraining is what skorch's own loop does with a DataLoader."""
    nets = [make(MLP, CE, optimizer, {**WIDE, "max_epochs": 3}) for _ in range(2)]
    torch.manual_seed(1)
    nets[0].partial_fit(X, Y)
    torch.manual_seed(1)
    retrain(nets[1], Data(X, Y), epochs=3, lr=None, rate=lambda _: 1.0, after_step=lambda _: None)
    assert_identical(*nets)


@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 63, 65, 130])
@pytest.mark.parametrize("optimizer", [ADAM, SGD])
def test_same_bits_at_any_width(optimizer, width):
    """Where a tensor begins and ends within a vector makes no difference."""
    nets = []
    for kind in (NeuralNetClassifier, detour(NeuralNetClassifier)):
        net = make(MLP, CE, optimizer, {**WIDE, "module__hidden": width}, kind)
        retrain(net, Data(X, Y), epochs=2, lr=None, after_step=lambda _: None)
        nets.append(net)
    assert_identical(*nets)


def test_a_parameter_that_gets_new_memory():
    """Whoever gives a parameter another tensor between steps finds it trained on."""
    nets = []
    for kind in (NeuralNetClassifier, detour(NeuralNetClassifier)):
        net = make(MLP, CE, ADAM, WIDE, kind)

        def replace(_, layer=net.module_.layers[0]):
            layer.weight.data = layer.weight.data.round(decimals=1)

        retrain(net, Data(X, Y), epochs=2, lr=None, after_step=replace)
        nets.append(net)
    assert_identical(*nets)


def test_without_gradients_outside():
    """Retraining works inside ``no_grad``, as skorch's steps do."""
    net = make(MLP, CE, ADAM, WIDE)
    before = net.module_.layers[0].weight.detach().clone()
    with torch.no_grad():
        retrain(net, Data(X, Y), epochs=1, lr=None, after_step=lambda _: None)
    assert not torch.equal(net.module_.layers[0].weight, before)


class OwnLoss(NeuralNetClassifier):
    def get_loss(self, *args, **kwargs):
        return 2 * super().get_loss(*args, **kwargs)


class OwnTraining(NeuralNetClassifier):
    def _set_training(self, training=True):
        super()._set_training(False)


@pytest.mark.parametrize(
    ("kind", "settings", "short"),
    [
        (NeuralNetClassifier, {}, True),
        (OwnLoss, {}, True),
        (OwnTraining, {}, False),
        (detour(NeuralNetClassifier), {}, False),
        (NeuralNetClassifier, {"optimizer": optim.LBFGS}, False),
        (NeuralNetClassifier, {"optimizer": optim.Adagrad}, False),
    ],
)
def test_which_steps_are_short(kind, settings, short):
    """Nets and optimizers that step otherwise keep their way."""
    net = make(MLP, CE, settings.get("optimizer", ADAM), WIDE, kind)
    with steps(net) as step:
        assert isinstance(step, ShortStep) == short


def test_a_step_of_the_instances_own():
    """A method that was set on the net itself counts as well."""
    net, calls = make(MLP, CE, ADAM, WIDE), []
    step_single = net.train_step_single
    vars(net)["train_step_single"] = lambda *args: calls.append(0) or step_single(*args)
    retrain(net, Data(X, Y), epochs=1, lr=None, after_step=lambda _: None)
    assert len(calls) == -(-N // 16)


def test_views_of_parameters_see_them_change():
    """Whoever holds a view of a weight, such as a buffer of the module, goes on seeing it."""
    net = make(MLP, CE, ADAM, {**WIDE, **GROUPS})
    weight = net.module_.layers[0].weight
    view, before = weight.detach(), weight.detach().clone()

    def fail(_):
        assert torch.equal(view, weight)
        assert not torch.equal(view, before)
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        retrain(net, Data(X, Y), epochs=1, lr=None, after_step=fail)


class Penalized(NeuralNetClassifier):
    def get_loss(self, *args, **kwargs):
        params = [p for group in self.optimizer_.param_groups for p in group["params"]]
        return super().get_loss(*args, **kwargs) + 0.1 * sum(p.pow(2).sum() for p in params)


def test_a_penalty_on_what_the_optimizer_has():
    """A loss that takes the parameters from the optimizer has their gradients."""
    nets = [make(MLP, CE, ADAM, WIDE, kind) for kind in (Penalized, detour(Penalized))]
    for net in nets:
        retrain(net, Data(X, Y), epochs=3, lr=None, after_step=lambda _: None)
    assert_identical(*nets)
