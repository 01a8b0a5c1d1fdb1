"""Short steps in the ``fit`` of a net, against steps through ``train_step``: the same bits."""

import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skcompress.training.loop import Data, dense_fit
from skcompress.training.shapes import ShapeSetter
from skcompress.training.steps import fit_steps
from tests.contract_modules import MLP
from tests.naming import steady
from tests.training.step_cases import (
    ADAM,
    CASES,
    CE,
    KINDS,
    MOMENTUM,
    SGD,
    WIDE,
    Noisy,
    Norms,
    OwnLoss,
    OwnTraining,
    X,
    Y,
    assert_identical,
    build,
    data,
    detour,
    make,
)

FITS = {
    "scheduled": [LRScheduler("StepLR", step_size=1, gamma=0.5)],
    "scheduled by the batch": [LRScheduler("CyclicLR", base_lr=0.01, max_lr=0.1, step_every="batch",
                                           cycle_momentum=False)],
    "stopped early": [EarlyStopping("train_loss", patience=1, threshold=10.0, load_best=True)],
    "scored": [EpochScoring("accuracy", on_train=True, use_caching=use) for use in (True, False)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "criterion", "optimizer", "rows", "settings"),
    [
        *CASES.values(),
        *[(Noisy, CE, ADAM, "labels", {"callbacks": callbacks}) for callbacks in FITS.values()],
        (Noisy, CE, SGD, "labels", {**MOMENTUM, "train_split": ValidSplit(4)}),
        (Noisy, CE, SGD, "weights", {"callbacks": "disable"}),
    ],
    ids=[*CASES, *FITS, "validation rows", "no callbacks"],
)
def test_a_fit_has_the_same_bits(module, criterion, optimizer, rows, settings):
    """Weights, the optimizer's memory, draws and all that is written down are the same."""
    nets = []
    for kind in (KINDS[criterion], detour(KINDS[criterion])):
        net = build(module, criterion, optimizer, {**settings, "max_epochs": 3}, kind)
        nets.append(dense_fit(net, data(rows)))
        assert "train_step" not in vars(net)
    assert_identical(*nets)
    histories = [[{**epoch, "dur": 0} for epoch in net.history] for net in nets]
    assert histories[0] == histories[1]


class Twice(NeuralNetClassifier):
    def fit(self, X, y=None, **fit_params):
        super().fit(X, y, **fit_params)
        return super().fit(X, y, **fit_params)


class Saving(NeuralNetClassifier):
    def on_epoch_end(self, *args, **kwargs):
        super().on_epoch_end(*args, **kwargs)
        self.state_dict_ = self.optimizer_.state_dict()


def by_clone(net, X, y):
    """Score a clone that trains while the net does."""
    torch.manual_seed(0)
    return float(clone(net).set_params(max_epochs=1, callbacks=None).fit(X, y).score(X, y))


def by_memory(net, X, y):
    """Score by what the optimizer remembers of each parameter."""
    return float(len(net.optimizer_.state_dict()["state"]))


NET = NeuralNetClassifier
CLASSES = [
    (NET, {}, True),
    (NET, {"callbacks": "disable"}, True),
    (NET, {"callbacks": [EarlyStopping, ShapeSetter()]}, True),
    (NET, {"callbacks": [("accuracy", EpochScoring("accuracy"))]}, True),
    (NET, {"callbacks__print_log": None}, True),
    (NET, {"callbacks__print_log__sink": print}, False),
    (NET, {"callbacks__print_log": Norms()}, False),
    (NET, {"callbacks": [Norms]}, False),
    (NET, {"callbacks": [("norms", Norms())]}, False),
    (NET, {"callbacks": [EpochScoring(by_clone, use_caching=False)]}, False),
    (OwnLoss, {}, False),
    (OwnTraining, {}, False),
    (Saving, {}, False),
    (Twice, {}, False),
    (detour(NET), {}, False),
]


@pytest.mark.parametrize(("kind", "settings", "short"), CLASSES, ids=steady)
def test_which_fits_have_short_steps(kind, settings, short):
    """Where the user's code could look at the optimizer or copy the net, steps are skorch's."""
    net = build(MLP, CE, ADAM, {**WIDE, **settings}, kind)
    with fit_steps(net):
        assert ("train_step" in vars(net)) == short
    assert "train_step" not in vars(net)


def test_a_method_of_the_instances_own():
    """What is set on the net itself may be any code."""
    net = build(MLP, CE, ADAM, WIDE)
    vars(net)["get_loss"] = type(net).get_loss.__get__(net)
    with fit_steps(net):
        assert "train_step" not in vars(net)


class Tied(MLP):
    """Two layers share memory, by parameters of their own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.again = nn.Linear(*reversed(self.layers[0].weight.shape))
        self.again.weight = nn.Parameter(self.layers[0].weight)

    def forward(self, X):
        return super().forward(X) + self.again(X).sum(1, keepdim=True)


class Viewed(MLP):
    """A buffer is a view of a weight."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.register_buffer("view", self.layers[0].weight.detach())

    def forward(self, X):
        return super().forward(X) + (X @ self.view.T).mean(1, keepdim=True)


class Lazy(nn.Module):
    """Finds its width in the first step."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(9), nn.ReLU(), nn.Linear(9, 3))

    def forward(self, X):
        return self.layers(X)


class Frozen(MLP):
    """The first layer is not trained."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.layers[0].requires_grad_(False)


UNUSUAL = {"tied": (Tied, WIDE), "viewed": (Viewed, WIDE), "lazy": (Lazy, {}),
           "frozen": (Frozen, WIDE)}  # fmt: skip


@pytest.mark.parametrize("optimizer", [ADAM, SGD])
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_parameters(name, optimizer):
    """Shared, viewed, unknown and frozen ones end as with skorch's own ``fit``."""
    module, settings = UNUSUAL[name]
    nets = [build(module, CE, optimizer, {**settings, "max_epochs": 3}) for _ in range(2)]
    torch.manual_seed(1)
    nets[0].fit(X, Y)
    torch.manual_seed(1)
    dense_fit(nets[1], Data(X, Y))
    assert_identical(*nets)


@pytest.mark.parametrize(
    ("kind", "callbacks"),
    [
        (NET, [EpochScoring(by_clone, name="s", use_caching=False)]),
        (NET, [EpochScoring(by_memory, name="s", use_caching=False)]),
        (Twice, []),
    ],
    ids=["clone", "memory", "twice"],
)
def test_code_that_looks_or_copies(kind, callbacks):
    """It sees what it would see in skorch's own ``fit``."""
    settings = {**WIDE, "callbacks": callbacks, "max_epochs": 3}
    nets = [build(MLP, CE, ADAM, settings, kind) for _ in range(2)]
    torch.manual_seed(1)
    nets[0].fit(X, Y)
    torch.manual_seed(1)
    dense_fit(nets[1], Data(X, Y))
    assert_identical(*nets)
    histories = [[{**epoch, "dur": 0} for epoch in net.history] for net in nets]
    assert histories[0] == histories[1]


def test_a_checkpoint_has_the_optimizers_memory(tmp_path):
    """What is written while the net trains can be read by skorch."""
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None)
    dense_fit(
        build(MLP, CE, ADAM, {**WIDE, "callbacks": [checkpoint], "max_epochs": 2}), Data(X, Y)
    )
    net = make(MLP, CE, ADAM, WIDE)
    net.load_params(f_optimizer=tmp_path / "optimizer.pt")
    assert len(net.optimizer_.state_dict()["state"]) == len(list(net.module_.parameters()))
