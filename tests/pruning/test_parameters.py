"""Each parameter matters: every pair of its values gives other masks or other weights."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import StepLR

from skcompress import PrunedNet
from skcompress.pruning.criteria import CRITERIA, magnitude
from tests.pruning_modules import MLP, classification, classifier


def squared(net, X, y, sample_weight):
    """Rank as the magnitude within and over layers."""
    return {name: score**2 for name, score in magnitude(net, X, y, sample_weight).items()}


def dense():
    """Return a net with a schedule of its rate, so that every recovery has a meaning."""
    callbacks = [LRScheduler(StepLR, step_size=1, gamma=0.7)]
    return classifier(MLP, module__hidden=12, max_epochs=4, callbacks=callbacks)


def fitted(estimator=None, **params):
    """Fit on noisy rows, on which weights keep moving."""
    X, y = classification(60)
    X = X + np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    settings = {"random_state": 0, "schedule": "one-shot", "retrain_epochs": 2}
    settings |= {"n_threads": 1, **params}
    if settings.get("recovery") == "none":
        del settings["retrain_epochs"]
    return PrunedNet(dense() if estimator is None else estimator, **settings).fit(X, y)


def masks(pruned):
    """Return what stays: masks, or the shapes of a smaller module and its weights."""
    return {name: mask.numpy().tobytes() for name, mask in pruned.masks_.items()}


def weights(pruned):
    """Return the bits of every parameter."""
    state = pruned.net_.module_.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


OWN = [name for name in CRITERIA if name != "activation"]
OF_UNITS = [name for name in CRITERIA if name != "obs"]
WHILE_TRAINING = [name for name in OWN if name != "obs"]
NO_TRAINING = {"recovery": "none", "sparsity": 0.6}
UNITS_GO = {"recovery": "none", "sparsity": 0.4, "granularity": "unit"}
# Parameter: (its values, what is given beside it, whether already the masks differ).
VALUES = {
    "criterion": [
        (OWN, NO_TRAINING, masks),
        (OF_UNITS, UNITS_GO, weights),
        (WHILE_TRAINING, {"schedule": "gradual", "sparsity": 0.8}, masks),
    ],
    "sparsity": [
        ([0.0, 0.3, 0.31, 0.8], {"recovery": "none"}, masks),
        ([0.2, 0.5], {"recovery": "none", "granularity": "unit"}, masks),
        ([0.5, 0.9], {"schedule": "projected"}, masks),
    ],
    "threshold": [
        ([0.0, 0.05, 0.1], {"recovery": "none"}, masks),
        ([0.0, 0.4], {"recovery": "none", "granularity": "unit"}, masks),
        ([0.02, 0.1], {"schedule": "gradual"}, masks),
    ],
    "max_weights": [
        ([20, 21, 100], {"recovery": "none"}, masks),
        ([20, 21, 100], {"recovery": "none", "scope": "lamp"}, masks),
        ([60, 100], {"recovery": "none", "granularity": "unit"}, masks),
        ([60, 100], {"schedule": "projected"}, masks),
    ],
    "granularity": [
        (["weight", "unit", "2:4"], {"recovery": "none"}, masks),
        (["weight", "unit", "2:4"], {"schedule": "gradual"}, masks),
    ],
    "scope": [
        (["global", "layer", "lamp"], NO_TRAINING, masks),
        (["global", "layer", "lamp"], {"recovery": "none", "max_weights": 60}, masks),
        (["global", "layer", "lamp"], UNITS_GO, weights),
        (["global", "layer", "lamp"], {"schedule": "projected", "sparsity": 0.8}, masks),
        (["global", "layer", "lamp"], {"schedule": "gradual", "sparsity": 0.8}, masks),
    ],
    "schedule": [
        (["one-shot", "gradual", "projected"], {"sparsity": 0.8, "retrain_epochs": 8}, masks),
        (
            ["one-shot", "gradual", "projected"],
            {"recovery": "scratch", "sparsity": 0.8, "retrain_epochs": 8},
            weights,
        ),
        (["one-shot", "gradual", "projected"], {"granularity": "unit"}, weights),
    ],
    "recovery": [
        (["fine-tune", "rewind", "scratch", "none"], {}, weights),
        (["fine-tune", "rewind", "scratch", "none"], {"granularity": "unit"}, weights),
        (["fine-tune", "rewind", "scratch"], {"schedule": "gradual"}, weights),
        (["fine-tune", "rewind", "scratch"], {"schedule": "projected"}, weights),
    ],
    "retrain_epochs": [
        ([None, 1, 2], {}, weights),
        ([None, 1, 2], {"schedule": "gradual"}, weights),
        ([None, 1, 2], {"recovery": "rewind"}, weights),
        ([None, 1, 2], {"recovery": "scratch"}, weights),
    ],
    "retrain_lr": [
        ([None, 0.01, 0.02], {}, weights),
        ([None, 0.01, 0.02], {"schedule": "gradual"}, weights),
        ([None, 0.01, 0.02], {"schedule": "projected"}, weights),
        ([None, 0.01, 0.02], {"recovery": "scratch"}, weights),
    ],
    "distill": [
        ([0.0, 0.3, 1.0], {}, weights),
        ([0.0, 0.3, 1.0], {"schedule": "gradual"}, weights),
        ([0.0, 0.3, 1.0], {"schedule": "projected"}, weights),
        ([0.0, 0.3, 1.0], {"recovery": "scratch"}, weights),
        ([0.0, 0.3, 1.0], {"recovery": "rewind"}, weights),
        ([0.0, 0.3], {"granularity": "unit"}, weights),
    ],
    "distill_temperature": [
        ([None, 1.0, 4.0], {"distill": 0.5}, weights),
        ([None, 1.0, 4.0], {"distill": 0.5, "schedule": "gradual"}, weights),
    ],
    "random_state": [
        ([0, 1, 2], {}, weights),
        ([0, 1], {"recovery": "none", "criterion": "random"}, masks),
    ],
}
# What changes nothing but the time it takes, or what is printed.
WITHOUT_EFFECT = {"verbose", "memory"}


def test_every_parameter_has_a_case():
    """A parameter that is added to PrunedNet is added here."""
    names = set(inspect.signature(PrunedNet.__init__).parameters) - {"self", "estimator"}
    assert names == set(VALUES) | WITHOUT_EFFECT | {"n_threads"}


@pytest.mark.parametrize(
    ("name", "values", "beside", "what"),
    [(name, *case) for name, cases in VALUES.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_pair_of_values_differs(name, values, beside, what):
    """Whatever the value, it is not ignored; and the same value gives the same bits."""
    found = [what(fitted(**beside | {name: value})) for value in values]
    for (first, a), (second, b) in itertools.combinations(zip(values, found, strict=True), 2):
        assert a != b, f"{name}={first!r} and {second!r} give the same"
    assert what(fitted(**beside | {name: values[0]})) == found[0]


def test_the_default_budget_is_half():
    """No budget at all means that half goes."""
    default, half = fitted(recovery="none"), fitted(recovery="none", sparsity=0.5)
    assert masks(default) == masks(half)
    assert default.sparsity_ == 0.5


def test_a_callable_ranks_as_its_name():
    """Squares rank as magnitudes; only a threshold tells them apart."""
    assert masks(fitted(criterion=squared)) == masks(fitted())
    beside = {"recovery": "none", "threshold": 0.05}
    assert masks(fitted(criterion=squared, **beside)) != masks(fitted(**beside))


@pytest.mark.parametrize("schedule", ["one-shot", "gradual"])
def test_verbose_changes_nothing(schedule, capsys):
    """It prints the training loss of each epoch of compression."""
    silent = fitted(schedule=schedule)
    assert capsys.readouterr().out == ""
    loud = fitted(schedule=schedule, verbose=1)
    assert "compression epoch 2/2: training loss" in capsys.readouterr().out
    assert weights(loud) == weights(silent)


def test_the_wrapped_net_matters():
    """Nested parameters reach the net, and another net gives other weights."""
    net = dense()
    first = fitted(net)
    second = fitted(PrunedNet(net).set_params(estimator__lr=0.2).estimator)
    assert weights(first) != weights(second)
    wider = PrunedNet(net).set_params(estimator__module__hidden=9).estimator
    assert fitted(wider).net_.module_.first.weight.shape == (9, 6)


def test_threads_are_restored():
    """``n_threads`` holds inside ``fit`` only."""
    seen, before = [], torch.get_num_threads()

    def criterion(net, X, y, sample_weight):
        seen.append(torch.get_num_threads())
        return magnitude(net, X, y, sample_weight)

    for n_threads in (1, 2):
        fitted(criterion=criterion, recovery="none", n_threads=n_threads)
    # Once before the dense fit, once after it.
    assert seen == [1, 1, 2, 2]
    assert torch.get_num_threads() == before
