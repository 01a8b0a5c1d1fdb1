"""The losses of soft targets against references by hand, and their way through a net."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn

from skcompress.training.loop import Data, batch_losses, batches, dense_fit, maybe_weighted, retrain
from skcompress.training.soft import FLOOR, SoftTargets, check_criterion, tempered
from tests.contract_modules import MLP, binary_classifier, blobs, classifier, regressor

X, Y = blobs(12)
X64 = X.astype(np.float64)
RNG = np.random.default_rng(0)
TEACHER = softmax(RNG.normal(size=(12, 3)), axis=1)
WEIGHTS = np.linspace(0.5, 2.0, 12)
EXACT = {"callbacks": None, "batch_size": -1, "module__dtype": torch.float64}


def net_of(kind=classifier, **settings):
    """Return an initialized net in double precision."""
    torch.manual_seed(0)
    return kind(**EXACT | settings).initialize()


def logits_of(net):
    """Return what the module gives, before a softmax if it has one."""
    with torch.no_grad():
        return net.module_.layers(torch.tensor(X64)).numpy()


def loss(net, soft, y=Y, weights=None):
    """Return the loss of all rows, by the hooks that training uses."""
    data = Data(X64, y, weights, soft)
    [(value, _)] = batch_losses(net, data)
    return value.item()


def entropies(logits, y=Y):
    """Cross entropy of each row."""
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def divergences(teacher, logits, temperature):
    """T^2 KL of each row, teacher and student at temperature T."""
    with np.errstate(divide="ignore"):
        softened = softmax(np.log(teacher) / temperature, axis=1)
    student = softmax(logits / temperature, axis=1)
    return temperature**2 * rel_entr(softened, student).sum(1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_loss_of_hinton(alpha, temperature, weights):
    """The loss is (1 - alpha) of the cross entropy and alpha T^2 of the divergence."""
    net = net_of()
    logits = logits_of(net)
    rows = (1 - alpha) * entropies(logits) + alpha * divergences(TEACHER, logits, temperature)
    soft = SoftTargets(TEACHER, alpha, temperature)
    expected = np.average(rows, weights=weights)
    assert loss(net, soft, weights=weights) == pytest.approx(expected, rel=1e-12)


def test_a_teacher_that_is_sure():
    """Probabilities of zero are fine: then the divergence is the cross entropy."""
    net = net_of()
    soft = SoftTargets(np.eye(3)[Y], 1.0, 1.0)
    assert loss(net, soft) == pytest.approx(entropies(logits_of(net)).mean(), rel=1e-12)


def test_a_student_that_agrees_has_no_loss():
    """The divergence from itself is zero, and so is its gradient."""
    net = net_of()
    soft = SoftTargets(softmax(logits_of(net), axis=1), 1.0, 3.0)
    [(value, _)] = batch_losses(net, Data(X64, Y, None, soft))
    gradients = torch.autograd.grad(value, list(net.module_.parameters()))
    assert abs(value.item()) < 1e-14
    assert max(g.abs().max() for g in gradients) < 1e-14


def test_squared_logits():
    """Centred log-probabilities are compared by the mean square."""
    net = net_of()
    centred = [z - z.mean(1, keepdims=True) for z in (logits_of(net), np.log(TEACHER))]
    soft = SoftTargets(TEACHER, 1.0, kind="logits")
    assert loss(net, soft) == pytest.approx(((centred[0] - centred[1]) ** 2).mean(), rel=1e-12)


def test_squared_logits_are_the_limit_of_high_temperatures():
    """T^2 KL goes to half of the mean squared difference of logits, as Hinton et al. derive."""
    net = net_of()
    high = loss(net, SoftTargets(TEACHER, 1.0, 1e4))
    assert high == pytest.approx(loss(net, SoftTargets(TEACHER, 1.0, kind="logits")) / 2, rel=1e-3)


def test_squared_logits_of_a_teacher_that_is_sure():
    """A probability of zero counts as the floor."""
    net, sure, floored = net_of(), np.eye(3)[Y], np.maximum(np.eye(3)[Y], FLOOR)
    losses = [loss(net, SoftTargets(p, 1.0, kind="logits")) for p in (sure, floored)]
    assert losses[0] == losses[1] < 1e3


class LogSoftmax(NeuralNetClassifier):
    """A net whose module gives probabilities, and whose criterion takes exact logarithms."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return self.criterion_(y_pred.log(), y_true)


@pytest.mark.parametrize("kind", ["kl", "logits"])
@pytest.mark.parametrize("net_kind", [NeuralNetClassifier, LogSoftmax])
def test_logits_and_probabilities_have_the_same_loss(kind, net_kind):
    """A module that gives probabilities is compared as one that gives logits."""
    soft = SoftTargets(TEACHER, 0.6, kind=kind)
    probabilities = net_of(criterion=nn.NLLLoss, module__softmax=True)
    exact = net_of(
        lambda **s: classifier(net_kind, **s), criterion=nn.NLLLoss, module__softmax=True
    )
    expected = loss(net_of(), soft)
    assert loss(probabilities, soft) == pytest.approx(expected, rel=1e-9)
    assert loss(exact, soft) == pytest.approx(expected, rel=1e-9)


class Sigmoid(MLP):
    def forward(self, X):
        return super().forward(X).sigmoid()


@pytest.mark.parametrize("kind", ["kl", "logits"])
@pytest.mark.parametrize(
    "settings", [{}, {"criterion": nn.BCELoss, "module": Sigmoid}], ids=["logit", "probability"]
)
def test_a_single_output_is_a_pair(kind, settings):
    """A logit z, or its sigmoid, stands for the pair of logits (0, z)."""
    net, y = net_of(binary_classifier, module__n_outputs=1, **settings), (Y > 0).astype(float)
    teacher = TEACHER[:, :2] / TEACHER[:, :2].sum(1, keepdims=True)
    logits = np.column_stack([np.zeros(12), logits_of(net)])
    if kind == "kl":
        soft = divergences(teacher, logits, 2.0)
    else:
        own, taught = (z - z.mean(1, keepdims=True) for z in (logits, np.log(teacher)))
        soft = ((own - taught) ** 2).mean(1)
    rows = 0.3 * entropies(logits, y.astype(int)) + 0.7 * soft
    value = loss(net, SoftTargets(teacher, 0.7, 2.0, kind), y)
    assert value == pytest.approx(rows.mean(), rel=1e-9)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_values_of_a_regressor(n_targets):
    """Predictions are compared with the teacher's by the squared difference."""
    net = net_of(regressor, module__n_outputs=n_targets)
    y, taught = X64[:, :n_targets], X64[:, -n_targets:]
    with torch.no_grad():
        output = net.module_(torch.tensor(X64)).numpy()
    rows = (0.4 * (output - y) ** 2 + 0.6 * (output - taught) ** 2).mean(1)
    soft = SoftTargets(taught, 0.6, kind="values")
    expected = np.average(rows, weights=WEIGHTS)
    assert loss(net, soft, y, WEIGHTS) == pytest.approx(expected, rel=1e-12)


def test_alpha_by_row():
    """A row of alpha 1 needs no label, and one of alpha 0 no teacher."""
    net = net_of()
    logits, alpha = logits_of(net), np.repeat([0.0, 0.5, 1.0], 4)
    rows = (1 - alpha) * entropies(logits) + alpha * divergences(TEACHER, logits, 2.0)
    soft, unlabelled = SoftTargets(TEACHER, alpha), np.where(alpha == 1, 0, Y)
    assert loss(net, soft, unlabelled) == pytest.approx(rows.mean(), rel=1e-12)
    taken = soft.take(np.array([0, 5]))
    np.testing.assert_array_equal(taken.alpha, [0.0, 0.5])
    np.testing.assert_array_equal(taken.values, TEACHER[[0, 5]])


def test_weights_of_classes_belong_to_the_hard_part():
    """Each part is a mean of its own: classes count in the hard one as torch counts them."""
    by_class = np.array([1.0, 5.0, 2.0])
    net = net_of(criterion__weight=torch.tensor(by_class))
    logits = logits_of(net)
    hard = np.average(entropies(logits), weights=by_class[Y])
    soft = divergences(TEACHER, logits, 2.0).mean()
    assert loss(net, SoftTargets(TEACHER, 0.6)) == pytest.approx(0.4 * hard + 0.6 * soft)
    assert loss(net, SoftTargets(TEACHER, 1.0)) == pytest.approx(soft)


def test_a_criterion_that_sums_goes_on_summing():
    """Sums are as many times the mean as there are rows."""
    soft = SoftTargets(TEACHER, 0.6)
    net, data = net_of(criterion__reduction="sum"), Data(X64, Y, None, soft)
    [(Xi, yi)] = batches(net, data)
    with maybe_weighted(net, data):
        summed = net.get_loss(net.infer(Xi), yi, X=Xi).item()
    assert summed == pytest.approx(12 * loss(net_of(), soft), rel=1e-12)


def test_tempered_is_a_softmax_of_logits():
    """Powers of probabilities are the softmax of logits divided by T."""
    logits = RNG.normal(size=(4, 3))
    for temperature in (0.01, 1.0, 7.0):
        np.testing.assert_allclose(
            tempered(softmax(logits, axis=1), temperature),
            softmax(logits / temperature, axis=1),
            atol=1e-12,
        )


def test_targets_travel_through_fit_with_an_internal_split():
    """Held-out rows have their soft targets too, and afterwards the net is as ever."""
    X, y = blobs(60)
    soft = SoftTargets(np.full((60, 3), 1 / 3, dtype=np.float32), 1.0)
    net = classifier(train_split=ValidSplit(4), max_epochs=30)
    dense_fit(net, Data(X.astype(np.float32), y, None, soft))
    # Only the teacher counts, and it tells all classes alike.
    np.testing.assert_allclose(net.predict_proba(X.astype(np.float32)), 1 / 3, atol=0.15)
    assert net.history_[-1, "valid_loss"] < net.history_[0, "valid_loss"] / 2
    assert not net.criterion_._forward_hooks
    assert net.criterion_.reduction == "mean"


def test_retraining_reaches_the_teacher():
    """Trained on soft targets alone, a net gives the teacher's probabilities."""
    net, soft = net_of(lr=0.05), SoftTargets(TEACHER, 1.0, 1.0)
    start = loss(net, soft)
    data = Data(X64, Y, None, soft)
    retrain(net, data, epochs=300, lr=None, after_step=lambda progress: None)
    assert loss(net, soft) < start / 100


class Ignoring(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return nn.functional.cross_entropy(y_pred, y_true)


def test_a_teacher_that_would_have_no_effect():
    """A loss that never calls the criterion cannot be joined by a teacher's."""
    net = net_of(lambda **settings: classifier(Ignoring, **settings))
    with pytest.raises(ValueError, match=r"The teacher has no effect: get_loss of Ignoring"):
        loss(net, SoftTargets(TEACHER))


@pytest.mark.parametrize(
    ("net", "kind", "match"),
    [
        (classifier(criterion=nn.MultiMarginLoss), "kl", "criterion=MultiMarginLoss takes"),
        (regressor(criterion=nn.PoissonNLLLoss), "values", "criterion=PoissonNLLLoss takes"),
    ],
)
def test_criteria_that_cannot_be_compared(net, kind, match):
    """A criterion of another meaning is refused by name, with those that work."""
    with pytest.raises(ValueError, match=match):
        check_criterion(net.initialize(), kind)
