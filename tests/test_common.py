"""scikit-learn's own checks, none of which may fail."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from tests.contract_modules import EXACT, classifier, pruned, quantized, regressor

# Full batches and double precision remove what minibatches and rounding add. Zero-weight rows
# must not change an internal validation split either, so there is none.
EXACT_NETS = [make(net(**EXACT)) for make in (pruned, quantized) for net in (classifier, regressor)]
ORDINARY_NETS = [
    make(net(max_epochs=10)) for make in (pruned, quantized) for net in (classifier, regressor)
]
# Minibatches and float32 rule this one out, and nothing else.
NEEDS_EXACT = "check_sample_weight_equivalence_on_dense_data"


def name(estimator):
    """Name an estimator and the net in it."""
    return f"{type(estimator).__name__}-{type(estimator.estimator).__name__}"


def checks(estimators, without=None):
    """List all checks of some estimators, in the form that pytest takes."""
    return [
        pytest.param(instance, check, id=f"{name(estimator)}-{check.func.__name__}")
        for estimator in estimators
        for instance, check in estimator_checks_generator(estimator)
        if check.func.__name__ != without
    ]


@pytest.mark.parametrize(("estimator", "check"), checks(EXACT_NETS))
def test_exact_nets_pass_every_check(estimator, check):
    """A float64 net on full batches without internal validation passes all checks."""
    assert check(estimator) is None


@pytest.mark.parametrize(("estimator", "check"), checks(ORDINARY_NETS, without=NEEDS_EXACT))
def test_ordinary_nets_pass_the_checks(estimator, check):
    """A float32 net on minibatches passes all checks but the equivalence of weights."""
    assert check(estimator) is None
