"""Short steps, against steps through ``train_step``: the same bits everywhere."""

import pytest
import torch
from skorch import NeuralNetClassifier
from torch import optim

from skcompress.training.loop import Data, retrain
from skcompress.training.steps import ShortStep, steps
from tests.contract_modules import MLP
from tests.training.step_cases import (
    ADAM,
    CASES,
    CE,
    GROUPS,
    KINDS,
    SGD,
    WIDE,
    N,
    OwnLoss,
    OwnTraining,
    X,
    Y,
    assert_identical,
    data,
    detour,
    make,
)


def project(net):
    """Return a projection that also leaves the net in evaluation mode, as scoring does."""

    @torch.no_grad()
    def after_step(progress):
        for parameter in net.module_.parameters():
            parameter[parameter.abs() < 0.01] = 0.0
        if progress > 0.5:
            net._set_training(False)

    return after_step


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


class Recorded(NeuralNetClassifier):
    """Its methods have their say, be they the class's or the instance's."""

    def infer(self, *args, **kwargs):
        self.calls = [*getattr(self, "calls", []), "infer"]
        return super().infer(*args, **kwargs)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, Recorded])
def test_methods_that_are_not_skorchs(kind):
    """Steps call the module and the criterion themselves only where skorch would do no more."""
    net, nets = make(MLP, CE, ADAM, WIDE, kind), [make(MLP, CE, ADAM, WIDE, OwnLoss)]
    get_loss = net.get_loss
    vars(net)["get_loss"] = lambda *args, **kwargs: 2 * get_loss(*args, **kwargs)
    for each in (net, *nets):
        retrain(each, Data(X, Y), epochs=1, lr=None, after_step=lambda _: None)
    assert_identical(net, *nets)
    n_steps = -(-N // 16)
    assert getattr(net, "calls", []) == ["infer"] * (n_steps if kind is Recorded else 0)


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
