import itertools

import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from skcompress import PrunedNet, QuantizedNet
from skcompress import graph as graphs
from skcompress.pruning.criteria import CRITERIA
from skcompress.pruning.refusals import REFUSALS
from skcompress.pruning.schedules import SCHEDULES
from tests.pruning_modules import MLP, classification, classifier


class Untrainable(NeuralNetClassifier):
    """A net that must not be trained."""

    def train_step(self, batch, **fit_params):
        raise AssertionError("a refusal comes before any training")


class UntrainableRegressor(NeuralNetRegressor):
    """Likewise."""

    train_step = Untrainable.train_step


def untrainable(module=MLP, **params):
    """Return a net that fails as soon as it is trained."""
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    return Untrainable(module, **(settings | params))


def frozen():
    """Return a frozen net that was trained at a constant rate."""
    return FrozenEstimator(classifier(MLP).fit(*classification()))


# For each combination at least one estimator that asks for it, and for nothing else.
CASES = {
    "a net with compile=True": [lambda: PrunedNet(untrainable(compile=True))],
    "two of sparsity, threshold and max_weights": [
        lambda: PrunedNet(untrainable(), sparsity=0.5, threshold=0.1),
        lambda: PrunedNet(untrainable(), sparsity=0.5, max_weights=10),
        lambda: PrunedNet(untrainable(), threshold=0.1, max_weights=10),
    ],
    "granularity='2:4' with a budget": [
        lambda: PrunedNet(untrainable(), granularity="2:4", sparsity=0.5),
        lambda: PrunedNet(untrainable(), granularity="2:4", threshold=0.1),
        lambda: PrunedNet(untrainable(), granularity="2:4", max_weights=50),
    ],
    "granularity='2:4' with a scope": [
        lambda: PrunedNet(untrainable(), granularity="2:4", scope="layer"),
        lambda: PrunedNet(untrainable(), granularity="2:4", scope="lamp"),
    ],
    "threshold with a scope": [
        lambda: PrunedNet(untrainable(), threshold=0.1, scope="layer"),
        lambda: PrunedNet(untrainable(), threshold=0.1, scope="lamp", granularity="unit"),
    ],
    "criterion='activation' with weights": [
        lambda: PrunedNet(untrainable(), criterion="activation"),
        lambda: PrunedNet(untrainable(), criterion="activation", granularity="2:4"),
    ],
    "criterion='obs' with units or '2:4'": [
        lambda: PrunedNet(
            untrainable(), criterion="obs", granularity="unit", schedule="one-shot"
        ),
        lambda: PrunedNet(untrainable(), criterion="obs", granularity="2:4", schedule="one-shot"),
    ],
    "criterion='obs' with schedule='gradual' or 'projected'": [
        lambda: PrunedNet(untrainable(), criterion="obs", schedule="gradual"),
    ],
    "schedule='projected' with another criterion than 'magnitude'": [
        lambda: PrunedNet(untrainable(), criterion="wanda", schedule="projected"),
        lambda: PrunedNet(untrainable(), criterion=lambda *a: None, schedule="projected"),
    ],
    "schedule='projected' with threshold": [
        lambda: PrunedNet(untrainable(), threshold=0.1, schedule="projected"),
    ],
    "recovery='none' with schedule='gradual' or 'projected'": [
        lambda: PrunedNet(untrainable(), recovery="none", schedule="gradual"),
        lambda: PrunedNet(untrainable(), recovery="none", schedule="projected"),
    ],
    "recovery='none' with retrain_epochs or retrain_lr": [
        lambda: PrunedNet(
            untrainable(), recovery="none", schedule="one-shot", retrain_epochs=1
        ),
        lambda: PrunedNet(untrainable(), recovery="none", schedule="one-shot", retrain_lr=0.1),
    ],
    "distill with recovery='none'": [
        lambda: PrunedNet(untrainable(), recovery="none", schedule="one-shot", distill=0.5),
    ],
    "distill_temperature without distill": [
        lambda: PrunedNet(untrainable(), distill_temperature=2.0),
    ],
    "distill_temperature with a regressor": [
        lambda: PrunedNet(UntrainableRegressor(MLP), distill=0.5, distill_temperature=2.0),
    ],
    "recovery='rewind' with retrain_lr": [
        lambda: PrunedNet(
            untrainable(callbacks=[LRScheduler(StepLR, step_size=1)]),
            recovery="rewind", retrain_lr=0.1,
        ),
    ],
    "recovery='rewind' after a constant learning rate": [
        lambda: PrunedNet(untrainable(), recovery="rewind"),
        lambda: PrunedNet(frozen(), recovery="rewind"),
    ],
    "recovery='scratch' around a module instance": [
        lambda: PrunedNet(untrainable(MLP()), recovery="scratch"),
    ],
    "recovery='scratch' around another compressed net": [
        lambda: PrunedNet(PrunedNet(untrainable()), recovery="scratch"),
        lambda: PrunedNet(
            FrozenEstimator(PrunedNet(classifier(MLP)).fit(*classification())), recovery="scratch"
        ),
    ],
    "a quantized net": [
        lambda: PrunedNet(QuantizedNet(untrainable())),
        lambda: PrunedNet(PrunedNet(QuantizedNet(untrainable()))),
        lambda: PrunedNet(FrozenEstimator(QuantizedNet(classifier(MLP)).fit(*classification()))),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [make for makes in CASES.values() for make in makes if isinstance(make().criterion, str)],
)
def test_functions_are_refused_like_their_names(make):
    """A criterion from CRITERIA is the same one, whether it is named or passed."""
    pruned = make()
    by_name = asked_for(pruned)
    assert asked_for(pruned.set_params(criterion=CRITERIA[pruned.criterion])) == by_name


def asked_for(pruned):
    """Return what of the table an estimator asks for."""
    net = pruned
    while not isinstance(net, NeuralNet):
        net = net.estimator
    return [refusal.combination for refusal in REFUSALS if refusal.applies(pruned, net)]


def test_every_refusal_has_a_case():
    """And no combination or message stands in the table twice."""
    combinations = [refusal.combination for refusal in REFUSALS]
    assert sorted(combinations) == sorted(CASES)
    assert len({refusal.message for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize(
    ("refusal", "make"),
    [(refusal, make) for refusal in REFUSALS for make in CASES.get(refusal.combination, [])],
    ids=lambda value: getattr(value, "combination", ""),
)
def test_refused_before_any_training(refusal, make):
    """Exactly the message of the table, of which exactly one entry applies."""
    pruned = make()
    assert asked_for(pruned) == [refusal.combination]
    with pytest.raises(ValueError, match=r".") as error:
        pruned.fit(*classification())
    assert str(error.value) == refusal.message


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.combination)
def test_messages_say_what_to_do(refusal):
    """Each names a way out, and ends in a full stop."""
    assert refusal.message.endswith(".")
    assert any(word in refusal.message for word in ("Set ", "Leave ", "Give ", "Pass ", "Wrap "))


PRODUCT = {
    "criterion": [*CRITERIA, CRITERIA["magnitude"]],
    "granularity": ["weight", "unit", "2:4"],
    "scope": ["global", "layer", "lamp"],
    "schedule": ["one-shot", *SCHEDULES],
    "recovery": ["fine-tune", "rewind", "scratch", "none"],
    "budget": [{}, {"sparsity": 0.6}, {"max_weights": 60}, {"threshold": 1e-9}],
}


@pytest.fixture(scope="module")
def scheduled():
    """Return a frozen net that was trained by a schedule, so that rewinding has a meaning."""
    callbacks = [LRScheduler(StepLR, step_size=1, gamma=0.5)]
    net = classifier(MLP, callbacks=callbacks, max_epochs=3, batch_size=-1)
    torch.manual_seed(0)
    return FrozenEstimator(net.fit(*classification()))


@pytest.fixture
def traced_once(monkeypatch):
    """Trace modules of the same widths once, for the sake of time."""
    programs, export = {}, graphs._export

    def remembered(module, args, kwargs, any_batch):
        key = tuple(p.shape for p in module.parameters()), args[0].shape, any_batch
        if key not in programs:
            programs[key] = export(module, args, kwargs, any_batch)
        return programs[key]

    monkeypatch.setattr(graphs, "_export", remembered)


def refused_or_fitted(pruned, X, y):
    """Fit what the table does not refuse; return whether it was fitted."""
    refused = asked_for(pruned)
    if refused:
        with pytest.raises(ValueError, match=r".") as error:
            pruned.fit(X, y)
        assert str(error.value) in {refusal.message for refusal in REFUSALS}
        return False
    # An error here is a refusal that is not in the table.
    pruned.fit(X, y)
    assert pruned.predict(X).shape == (len(X),)
    assert pruned.sparsity_ > 0 or pruned.threshold is not None
    return True


@pytest.mark.parametrize(
    "every",
    # A stride that shares no factor with the numbers of values meets each pair of values.
    [pytest.param(7, id="a seventh"), pytest.param(1, id="all", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("granularity", PRODUCT["granularity"])
@pytest.mark.parametrize("schedule", PRODUCT["schedule"])
def test_what_is_not_refused_fits(granularity, schedule, every, scheduled, traced_once):
    """Every combination either raises a message of the table, or fits and prunes."""
    X, y = classification()
    others = [PRODUCT[name] for name in ("criterion", "scope", "recovery", "budget")]
    found = []
    for criterion, scope, recovery, budget in [*itertools.product(*others)][::every]:
        trained = recovery in ("fine-tune", "scratch")
        pruned = PrunedNet(
            scheduled, criterion=criterion, granularity=granularity, scope=scope,
            schedule=schedule, recovery=recovery, retrain_epochs=2 if trained else None,
            random_state=0, **budget,
        )  # fmt: skip
        found.append(refused_or_fitted(pruned, X, y))
    assert set(found) == {True, False}
