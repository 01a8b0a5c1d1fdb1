"""When weights go: one-shot, gradual and projected schedules."""

import itertools

import numpy as np
import pytest
import torch
from skorch.callbacks import Freezer

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from skcompress.pruning import schedules
from skcompress.pruning.schedules import (
    LONG,
    N_UPDATES,
    RAMP,
    Pruner,
    cubic_ramp,
    first_part,
    masked_fraction,
)
from tests.pruning_modules import MLP, classification, classifier, n_weights


class Log:
    """What happened to the weights, step by step."""

    def __init__(self, monkeypatch):
        self.masks, self.progress, self.nonzero, self.update_at = [], [], [], []
        update, apply = Pruner.update, Pruner.apply

        def logged_update(pruner, progress=1.0, **kwargs):
            update(pruner, progress, **kwargs)
            self.masks.append({name: mask.clone() for name, mask in pruner.masks.items()})
            self.progress.append(progress)
            self.update_at.append(len(self.nonzero))

        def logged_apply(pruner, *args):
            apply(pruner, *args)

        monkeypatch.setattr(Pruner, "update", logged_update)
        monkeypatch.setattr(Pruner, "apply", logged_apply)
        for name, schedule in schedules.SCHEDULES.items():
            monkeypatch.setitem(schedules.SCHEDULES, name, self._counting(schedule))

    def _counting(self, schedule):
        def make(pruner, n_steps):
            after_step = schedule(pruner, n_steps)

            def counting(progress):
                after_step(progress)
                weights = weight_matrices(pruner.net.module_).values()
                self.nonzero.append(sum(int(weight.count_nonzero()) for weight in weights))

            return counting

        return make

    @property
    def kept(self):
        """Return how many weights each mask keeps."""
        return [sum(int(mask.sum()) for mask in masks.values()) for masks in self.masks]


def fit(n_epochs=8, net=None, **params):
    """Fit a PrunedNet on 60 rows, in three batches an epoch."""
    X, y = classification()
    net = classifier(MLP) if net is None else net
    settings = {"retrain_epochs": n_epochs, "random_state": 0}
    return PrunedNet(net, **(settings | params)).fit(X, y)


class TestCubicRamp:
    """The part of the removal that is done."""

    @pytest.mark.parametrize("start", [0.0, 0.4, 1.0])
    def test_formula(self, start):
        """One minus the cube of what is left of the ramp."""
        for t in np.linspace(0, RAMP, 9):
            expected = start + (1 - start) * (1 - (1 - t / RAMP) ** 3)
            assert cubic_ramp(float(t), start) == pytest.approx(expected)
        assert cubic_ramp(RAMP, start) == cubic_ramp(1.0, start) == 1.0

    @pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.9])
    def test_first_part(self, density):
        """A gradual schedule begins between the dense net and the goal."""
        first = first_part(density)
        assert 0 < first < 1
        assert 1 - first * (1 - density) == pytest.approx(density**schedules.START)

    def test_a_long_phase_begins_with_less(self):
        """In proportion to its steps; a short one does not begin with more."""
        parts = [first_part(0.02, n_steps) for n_steps in (0, 10, LONG, 2 * LONG, 20 * LONG)]
        assert parts[0] == parts[1] == parts[2] > parts[3] > parts[4] > 0
        assert 1 - parts[3] * 0.98 == pytest.approx(0.02 ** (schedules.START / 2))

    def test_nothing_to_remove(self):
        assert first_part(1.0) == 1.0


@pytest.mark.parametrize(
    "params",
    [
        {"sparsity": 0.9},
        {"sparsity": 0.8, "scope": "layer"},
        {"sparsity": 0.8, "scope": "lamp"},
        {"max_weights": 20},
        {"threshold": 0.2},
        {"granularity": "2:4"},
        {"sparsity": 0.5, "granularity": "unit"},
        {"max_weights": 40, "granularity": "unit"},
        {"sparsity": 0.8, "criterion": "random"},
    ],
    ids=str,
)
def test_gradual(params, monkeypatch):
    """Masks shrink within the ramp, nothing comes back, and the last part trains what stays."""
    log = Log(monkeypatch)
    fit(schedule="gradual", **params)
    n_steps = len(log.nonzero)
    assert n_steps == 24
    assert log.progress[-1] == 1.0
    assert log.progress == sorted(log.progress)
    assert len(log.masks) > 5
    for before, after in itertools.pairwise(log.masks):
        assert all((after[name] <= before[name]).all() for name in before)
    assert len(set(log.kept)) > 2, "the way there is gradual"
    # A threshold on magnitudes clips once more when all training is over.
    ramp = log.update_at[:-1] if "threshold" in params else log.update_at
    assert ramp[-1] <= RAMP * n_steps
    assert (np.diff(log.nonzero) <= 0).all()
    assert set(log.nonzero[ramp[-1] :]) == {log.kept[len(ramp) - 1]}


def test_a_long_phase_sets_its_masks_more_often(monkeypatch):
    """Once in so many steps, up to the last."""
    monkeypatch.setattr(schedules, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(schedules, "MAX_UPDATES", 15)
    log = Log(monkeypatch)
    fit(n_epochs=14, schedule="gradual", sparsity=0.9)
    assert len(log.progress) == 1 + 15


def test_gradual_follows_the_ramp(monkeypatch):
    """Counts of weights are those of the cubic ramp, from the first part on."""
    log = Log(monkeypatch)
    pruned = fit(n_epochs=14, schedule="gradual", sparsity=0.9)
    total = n_weights(pruned.net_.module_)
    goal = round(0.9 * total)
    start = first_part(1 - goal / total)
    done = [int(step / 42 / RAMP * N_UPDATES) for step in range(1, 43)]
    updates = sorted({min(n, N_UPDATES) for n in done} - {0})
    assert len(updates) == N_UPDATES
    expected = [start, *(cubic_ramp(RAMP * n / N_UPDATES, start) for n in updates)]
    assert log.progress == pytest.approx(expected)
    assert log.kept == [total - round(goal * part) for part in expected]
    assert pruned.sparsity_ == pytest.approx(goal / total)


@pytest.mark.parametrize("n_epochs", [1, 2, 3])
def test_few_steps(n_epochs, monkeypatch):
    """However short the phase, the budget is met, after the first part of it."""
    log = Log(monkeypatch)
    pruned = fit(n_epochs, classifier(MLP, batch_size=-1), sparsity=0.9, schedule="gradual")
    assert len(log.nonzero) == n_epochs
    assert log.progress[-1] == 1.0
    assert pruned.sparsity_ == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    "params",
    [{"sparsity": 0.8}, {"max_weights": 30}, {"sparsity": 0.7, "scope": "layer"}],
    ids=str,
)
def test_projected(params, monkeypatch):
    """No more than k after a sparse step and at the end; more in between; fixed at last."""
    log = Log(monkeypatch)
    pruned = fit(n_epochs=16, schedule="projected", retrain_lr=2.0, **params)
    n_steps, k = len(log.nonzero), log.kept[-1]
    assert set(log.kept) == {k}
    sparse = set(log.update_at)
    for step, nonzero in enumerate(log.nonzero):
        last_part = step >= log.update_at[-1]
        assert (nonzero <= k) == (step in sparse or last_part)
    dense_after_sparse = [
        step for step in range(1, n_steps) if step - 1 in sparse and log.nonzero[step] > k
    ]
    assert len(dense_after_sparse) >= 2, "dense phases let weights grow back"
    assert any(
        not torch.equal(log.masks[0][name], log.masks[-1][name]) for name in pruned.masks_
    ), "other weights than at first may stay"
    assert RAMP * n_steps - 1 <= log.update_at[-1] <= RAMP * n_steps
    kept = sum(int(mask.sum()) for mask in pruned.masks_.values())
    assert kept == k
    if "max_weights" in params:
        assert k == 30


@pytest.mark.parametrize("granularity", ["2:4", "unit"])
def test_projected_with_other_granularities(granularity, monkeypatch):
    """Neighbours and units come back in dense phases as well."""
    log = Log(monkeypatch)
    fit(n_epochs=16, schedule="projected", granularity=granularity)
    nonzero = np.array(log.nonzero)
    assert (np.diff(nonzero) > 0).any()
    assert set(nonzero[log.update_at[-1] :]) == {log.kept[-1]}


OPTIMIZERS = {
    "sgd": {"lr": 0.05},
    "momentum": {"lr": 0.05, "optimizer__momentum": 0.9, "optimizer__weight_decay": 0.1},
    "nesterov": {"lr": 0.05, "optimizer__momentum": 0.9, "optimizer__nesterov": True},
    "adam": {"optimizer": torch.optim.Adam, "lr": 0.02, "optimizer__weight_decay": 0.1},
    "adamw": {"optimizer": torch.optim.AdamW, "lr": 0.02, "optimizer__amsgrad": True},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
@pytest.mark.parametrize("recovery", ["fine-tune", "scratch"])
@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_a_pruned_weight_stays_pruned(optimizer, schedule, recovery, granularity):
    """Neither momentum nor weight decay nor a new start brings one back."""
    net = classifier(MLP, **OPTIMIZERS[optimizer])
    pruned = fit(3, net, schedule=schedule, recovery=recovery, granularity=granularity)
    weights = weight_matrices(pruned.net_.module_)
    assert set(pruned.masks_) == set(weights)
    for name, weight in weights.items():
        assert not pruned.masks_[name].all()
        assert torch.equal(weight != 0, pruned.masks_[name])
    total = n_weights(pruned.net_.module_)
    assert pruned.sparsity_ == masked_fraction(pruned.masks_, total)


@pytest.mark.parametrize("schedule", ["one-shot", "gradual", "projected"])
def test_frozen_parameters_are_pruned_but_not_trained(schedule):
    """A Freezer stays in force; what it holds can still be pruned."""
    net = classifier(MLP, callbacks=[("freezer", Freezer("first.*"))])
    pruned = fit(4, net, schedule=schedule, sparsity=0.5)
    dense = weight_matrices(pruned.estimator_.module_)
    weights = weight_matrices(pruned.net_.module_)
    mask = pruned.masks_["first.weight"]
    assert not mask.all()
    expected = dense["first.weight"] * mask
    if schedule == "projected":
        # What was projected away is zero from then on, for no gradient brings it back.
        assert torch.equal(weights["first.weight"], weights["first.weight"] * mask)
    else:
        assert torch.equal(weights["first.weight"], expected)
    assert not torch.equal(
        weights["last.weight"], dense["last.weight"] * pruned.masks_["last.weight"]
    )
