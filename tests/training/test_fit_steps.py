"""Short steps in the ``fit`` of a net, against steps through ``train_step``: the same bits."""

import pytest
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit

from skcompress.training.loop import Data, dense_fit
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


class Saving(NeuralNetClassifier):
    def on_epoch_end(self, *args, **kwargs):
        super().on_epoch_end(*args, **kwargs)
        self.state_dict_ = self.optimizer_.state_dict()


LOOKING = {"looking": Norms(), "class": Norms, "named": ("norms", Norms())}


@pytest.mark.parametrize(
    ("kind", "settings", "short"),
    [
        (NeuralNetClassifier, {}, True),
        (NeuralNetClassifier, {"callbacks": "disable"}, True),
        (NeuralNetClassifier, {"callbacks": [EarlyStopping]}, True),
        (NeuralNetClassifier, {"callbacks__print_log": None}, True),
        (NeuralNetClassifier, {"callbacks__print_log__floatfmt": ".2f"}, True),
        (NeuralNetClassifier, {"callbacks__print_log": Norms()}, False),
        *[(NeuralNetClassifier, {"callbacks": [c]}, False) for c in LOOKING.values()],
        (OwnLoss, {}, True),
        (OwnTraining, {}, False),
        (Saving, {}, False),
        (detour(NeuralNetClassifier), {}, False),
    ],
    ids=steady,
)
def test_which_fits_have_short_steps(kind, settings, short):
    """Where anything could look at the optimizer between steps, they are skorch's."""
    net = build(MLP, CE, ADAM, {**WIDE, **settings}, kind)
    with fit_steps(net):
        assert ("train_step" in vars(net)) == short
    assert "train_step" not in vars(net)


def test_a_fit_that_fails_leaves_nothing():
    """Parameters have memory of their own, and the net its own steps."""

    class Failing(NeuralNetClassifier):
        calls = 0

        def get_loss(self, *args, **kwargs):
            self.calls += 1
            if self.calls > 2:
                raise RuntimeError("stop here")
            return super().get_loss(*args, **kwargs)

    net = build(MLP, CE, ADAM, WIDE, Failing)
    with pytest.raises(RuntimeError, match="stop here"):
        dense_fit(net, Data(X, Y))
    assert "train_step" not in vars(net)
    assert all(p.untyped_storage().size() == p.nbytes for p in net.module_.parameters())


def test_a_checkpoint_has_the_optimizers_memory(tmp_path):
    """What is written while the net trains can be read by skorch."""
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None)
    dense_fit(
        build(MLP, CE, ADAM, {**WIDE, "callbacks": [checkpoint], "max_epochs": 2}), Data(X, Y)
    )
    net = make(MLP, CE, ADAM, WIDE)
    net.load_params(f_optimizer=tmp_path / "optimizer.pt")
    assert len(net.optimizer_.state_dict()["state"]) == len(list(net.module_.parameters()))
