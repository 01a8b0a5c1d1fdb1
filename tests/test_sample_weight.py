"""Sample weights: a row of weight two is two rows, a row of weight zero is none."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring
from skorch.dataset import ValidSplit
from skorch.helper import SliceDataset, predefined_split
from torch import nn
from torch.utils.data import TensorDataset

from tests.contract_modules import (
    EXACT,
    TwoInputs,
    assert_same_state,
    binary_classifier,
    blobs,
    classifier,
    line,
    pruned,
    regressor,
    state,
)

X, Y = blobs(60)
RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 4, len(X))
CRITERIA = ["magnitude", "gradient", "fisher", "tempered-fisher", "wanda", "activation", "obs"]
# Exact OBS has one schedule.
WAYS = [(c, s) for c in CRITERIA for s in ("one-shot", "gradual") if (c, s) != ("obs", "gradual")]


def settings(criterion, schedule):
    """Return the parameters that a criterion works with."""
    granularity = "unit" if criterion == "activation" else "weight"
    return {"criterion": criterion, "granularity": granularity, "schedule": schedule}


def assert_weights_are_counts(net, X, y, repeated, **parameters):
    """Compare a fit on weighted rows with one on repeated rows."""
    weighted = pruned(net, **parameters).fit(X, y, sample_weight=COUNTS)
    plain = pruned(net, **parameters).fit(repeated, np.repeat(y, COUNTS))
    for (name, first), second in zip(state(weighted).items(), state(plain).values(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9, msg=name)
    for name, mask in weighted.masks_.items():
        assert torch.equal(mask, plain.masks_[name])


@pytest.mark.parametrize(("criterion", "schedule"), WAYS)
@pytest.mark.parametrize("distill", [0.0, 0.6])
def test_weights_are_counts_for_classifiers(criterion, schedule, distill):
    """Integer weights equal repeated rows, whatever the criterion and whoever teaches."""
    parameters = settings(criterion, schedule) | {"distill": distill}
    repeated = np.repeat(X, COUNTS, axis=0)
    assert_weights_are_counts(classifier(**EXACT), X, Y, repeated, **parameters)


def test_weights_are_counts_for_regressors():
    """Integer weights equal repeated rows under the squared error."""
    X, y = line(60)
    assert_weights_are_counts(regressor(**EXACT), X, y, np.repeat(X, COUNTS, axis=0))


def test_weights_are_counts_for_binary_nets():
    """Integer weights equal repeated rows for a single output."""
    X, y = blobs(60, n_classes=2)
    assert_weights_are_counts(binary_classifier(**EXACT), X, y, np.repeat(X, COUNTS, axis=0))


def test_weights_are_counts_for_weighted_classes():
    """The mean in torch counts a row by the weight of its class, and so does the weighted mean."""
    weight = torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64)
    net = classifier(criterion__weight=weight, **EXACT)
    assert_weights_are_counts(net, X, Y, np.repeat(X, COUNTS, axis=0))


def test_weights_are_counts_for_a_sum():
    """A criterion that sums goes on summing."""
    net = classifier(criterion__reduction="sum", **EXACT | {"lr": 0.001})
    assert_weights_are_counts(net, X, Y, np.repeat(X, COUNTS, axis=0))


def test_weights_are_counts_for_probabilities():
    """For NLLLoss, skorch takes the logarithm before the criterion is weighted."""
    net = classifier(criterion=nn.NLLLoss, module__softmax=True, **EXACT)
    assert_weights_are_counts(net, X, Y, np.repeat(X, COUNTS, axis=0))


def test_weights_are_counts_for_dicts():
    """Weights travel beside the named inputs of a module."""
    tokens = RNG.integers(0, 10, (60, 3))
    net = classifier(module=TwoInputs, callbacks=None, **EXACT)
    repeated = {"numbers": np.repeat(X, COUNTS, axis=0), "tokens": np.repeat(tokens, COUNTS, 0)}
    assert_weights_are_counts(net, {"numbers": X, "tokens": tokens}, Y, repeated)


@pytest.mark.parametrize("net", [classifier(**EXACT), classifier()], ids=["exact", "ordinary"])
def test_equal_weights_are_no_weights(net):
    """Weights of one change nothing but rounding."""
    weighted, plain = pruned(net).fit(X, Y, np.ones(len(X))), pruned(net).fit(X, Y)
    np.testing.assert_allclose(
        weighted.predict_proba(X), plain.predict_proba(X), rtol=1e-3, atol=1e-5
    )


def test_zero_weights_are_missing_rows():
    """Rows of no weight are as if they had not been given, in minibatches of float32 too."""
    rows = COUNTS > 0
    masked = pruned().fit(X, Y, sample_weight=rows.astype(float))
    subset = pruned().fit(X[rows], Y[rows], sample_weight=np.ones(rows.sum()))
    assert_same_state(state(masked), state(subset))


def test_a_class_without_weight_is_no_class():
    """A class whose rows all weigh nothing is not among the classes."""
    estimator = pruned().fit(X, Y, sample_weight=(Y != 1) * 2.0)
    assert estimator.classes_.tolist() == [0, 2]
    assert estimator.predict_proba(X).shape == (len(X), 2)


@pytest.mark.parametrize("dtype", [int, np.float32, list])
def test_weights_of_any_type(dtype):
    """Weights may be integers, floats or a list."""
    weights = COUNTS.tolist() if dtype is list else COUNTS.astype(dtype)
    first = pruned().fit(X, Y, sample_weight=weights)
    assert_same_state(state(first), state(pruned().fit(X, Y, COUNTS.astype(float))))


def test_weights_with_an_internal_validation_split():
    """Rows held out inside the net keep their weights, and scores of epochs are still taken."""
    accuracy = EpochScoring("accuracy", name="own", lower_is_better=False)
    net = classifier(train_split=ValidSplit(4, stratified=True))
    net.set_params(callbacks=[*net.callbacks, accuracy])
    estimator = pruned(net).fit(X, Y, sample_weight=COUNTS)
    history = estimator.estimator_.history_
    assert len(history[:, "valid_loss"]) == len(history[:, "own"]) == 8
    held_out = pruned(net).fit(X, Y, np.where(np.arange(60) < 30, 1, 100) * (COUNTS + 1))
    assert held_out.estimator_.history_[0, "valid_loss"] != history[0, "valid_loss"]


def test_weights_with_validation_rows_that_have_none():
    """Rows of a predefined validation set count once each."""
    rows = torch.tensor(X, dtype=torch.float32)
    split = predefined_split(TensorDataset(rows, torch.tensor(Y)))
    estimator = pruned(classifier(train_split=split, max_epochs=1))
    estimator.fit(X, Y, sample_weight=1 + COUNTS)
    dense = estimator.estimator_
    with torch.no_grad():
        loss = nn.functional.cross_entropy(dense.module_(rows), torch.tensor(Y))
    assert dense.history_[0, "valid_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_weights_with_callbacks_disabled():
    """Weights need no callback of skorch's own."""
    net = classifier(callbacks="disable", module__n_inputs=4)
    estimator = pruned(net).fit(X, Y, sample_weight=COUNTS)
    assert "valid_loss" not in estimator.estimator_.history_[0]
    assert estimator.score(X, Y, COUNTS) > 0.75


def test_weights_with_a_slice_dataset():
    """Weights travel beside the rows of a torch Dataset."""
    rows = SliceDataset(TensorDataset(torch.tensor(X, dtype=torch.float32)))
    net = classifier(callbacks=None)
    first = pruned(net).fit(rows, Y, sample_weight=COUNTS)
    assert_same_state(state(first), state(pruned(net).fit(X, Y, sample_weight=COUNTS)))


class Ignoring(NeuralNetClassifier):
    """A net whose loss does not go through its criterion."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return nn.functional.cross_entropy(y_pred, y_true)


def test_weights_that_would_have_no_effect():
    """Weights that a subclass's loss never sees are an error, not silence."""
    assert pruned(classifier(Ignoring)).fit(X, Y).score(X, Y) > 0.75
    with pytest.raises(ValueError, match="sample_weight has no effect: get_loss of Ignoring"):
        pruned(classifier(Ignoring)).fit(X, Y, sample_weight=COUNTS)
