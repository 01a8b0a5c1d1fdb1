"""Nothing outside the training fold is seen by the dense fit, by pruning or by retraining.

Every row carries its number in its first column. The module, the dataset, the loss and a
criterion write down which numbers pass through them.
"""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedShuffleSplit, cross_validate
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import Dataset, ValidSplit

from skcompress import PrunedNet
from skcompress.pruning import CRITERIA
from tests.contract_modules import MLP, blobs, classifier

SEEN = {}


def see(where, rows):
    """Write down the numbers of some rows."""
    SEEN.setdefault(where, set()).update(np.asarray(rows).astype(int).tolist())


class SeeingDataset(Dataset):
    def __getitem__(self, i):
        Xi, yi = super().__getitem__(i)
        # With sample weights the rows are dicts, since the weights travel with them.
        see("dataset", next(iter(Xi.values()))[:1] if isinstance(Xi, dict) else Xi[:1])
        return Xi, yi


class SeeingMLP(MLP):
    """An MLP on all columns but the first."""

    def __init__(self, n_inputs=5, n_outputs=3, hidden=16):
        super().__init__(n_inputs - 1, n_outputs, hidden)

    def forward(self, X):
        # Tracing runs on tensors without values, whose rows went through here before.
        if not torch.compiler.is_compiling():
            see("forward", X[:, 0].detach())
        return super().forward(X[:, 1:])


class SeeingNet(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        # With sample weights or a teacher the rows are dicts of what travels together.
        X = next(iter(X.values())) if isinstance(X, dict) else X
        see("training loss" if training else "other loss", X[:, 0])
        np.testing.assert_array_equal(Y[X[:, 0].long()], y_true)
        return super().get_loss(y_pred, y_true, X, training=training)


class SeeingPrunedNet(PrunedNet):
    """A PrunedNet that keeps what was seen during its ``fit``."""

    def fit(self, X, y, sample_weight=None):
        SEEN.clear()
        super().fit(X, y, sample_weight)
        self.seen_ = {where: set(rows) for where, rows in SEEN.items()}
        return self


def seeing_criterion(net, X, y, sample_weight):
    """Score by magnitude, after a look at the rows."""
    see("criterion", X[:, 0])
    np.testing.assert_array_equal(Y[X[:, 0].astype(int)], y)
    return CRITERIA["magnitude"](net, X, y, sample_weight)


FEATURES, Y = blobs(60)
X = np.column_stack([np.arange(len(Y)), FEATURES])


def seeing_net(**settings):
    """Return a net that writes down what it is shown."""
    recorders = {"module": SeeingMLP, "dataset": SeeingDataset, "max_epochs": 2}
    return classifier(SeeingNet, **recorders | settings)


def validate(net=None, cv=None, groups=None, **settings):
    """Cross-validate; return each fold's estimator with the rows that it may have seen."""
    settings = {"retrain_epochs": 2, "random_state": 0} | settings
    result = cross_validate(
        SeeingPrunedNet(net or seeing_net(), **settings),
        X,
        Y,
        cv=cv or KFold(3, shuffle=True, random_state=0),
        groups=groups,
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    train = [set(indices.tolist()) for indices in result["indices"]["train"]]
    return list(zip(result["estimator"], train, strict=True))


ONE_SHOT = {"schedule": "one-shot"}
NO_TRAINING = ONE_SHOT | {"recovery": "none", "retrain_epochs": None}
SETTINGS = {
    "default": {},
    "gradient": {"criterion": "gradient"},
    "fisher": {"criterion": "fisher"} | ONE_SHOT,
    "tempered-fisher": {"criterion": "tempered-fisher"},
    "obs": {"criterion": "obs"} | NO_TRAINING,
    "wanda": {"criterion": "wanda"},
    "random": {"criterion": "random"} | ONE_SHOT,
    "activation of units": {"criterion": "activation", "granularity": "unit"},
    "fisher of units": {"criterion": "fisher", "granularity": "unit"} | NO_TRAINING,
    "2:4": {"granularity": "2:4"},
    "projected": {"schedule": "projected"},
    "scratch": {"recovery": "scratch"},
    "max_weights of units": {"granularity": "unit", "max_weights": 60} | ONE_SHOT,
    "threshold": {"threshold": 0.05},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_only_rows_of_the_fold_are_seen(settings):
    """Whatever the criterion and the schedule, module, loss and dataset see the fold alone."""
    for estimator, train in validate(**settings):
        assert estimator.seen_["dataset"] == train
        assert estimator.seen_["training loss"] == train
        assert set.union(*estimator.seen_.values()) == train


def test_criterion_of_the_users_own_is_given_the_fold():
    """A callable is called with all rows of the fold, beside their labels, and no others."""
    for estimator, train in validate(criterion=seeing_criterion):
        assert estimator.seen_["criterion"] == train


def test_internal_validation_is_cut_from_the_fold():
    """Early stopping watches rows of the training fold, never those of the scored one."""
    net = seeing_net(train_split=ValidSplit(4), callbacks=[EarlyStopping()])
    for estimator, train in validate(net):
        assert estimator.seen_["other loss"] < train
        assert estimator.seen_["training loss"] == train
        assert set.union(*estimator.seen_.values()) == train


def test_rewinding_sees_the_fold():
    """Retraining with the dense fit's own rates sees the fold alone."""
    scheduler = LRScheduler("StepLR", step_size=1)
    net = seeing_net(callbacks=[("rates", scheduler)])
    for estimator, train in validate(net, recovery="rewind"):
        assert set.union(*estimator.seen_.values()) == train


@pytest.mark.parametrize(
    "cv",
    [StratifiedShuffleSplit(2, test_size=0.5, random_state=0), GroupKFold(2)],
    ids=["strata", "groups"],
)
def test_other_splitters(cv):
    """The same holds where rows are sampled by class, or held out by group."""
    groups = np.arange(len(Y)) % 4 if isinstance(cv, GroupKFold) else None
    for estimator, train in validate(cv=cv, groups=groups):
        assert len(train) == 30
        assert set.union(*estimator.seen_.values()) == train


@pytest.mark.parametrize("criterion", ["magnitude", "wanda"])
def test_rows_of_zero_weight_are_not_seen(criterion):
    """A weight of zero takes a row away, so not even its activations count."""
    weights = np.where(np.arange(len(Y)) < 20, 0.0, 1.5)
    estimator = SeeingPrunedNet(
        classifier(module=SeeingMLP, dataset=SeeingDataset, max_epochs=2),
        criterion=criterion,
        retrain_epochs=2,
    )
    estimator.fit(X, Y, sample_weight=weights)
    assert estimator.seen_["dataset"] == set(range(20, len(Y)))
    assert set.union(*estimator.seen_.values()) == set(range(20, len(Y)))
