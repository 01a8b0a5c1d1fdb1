"""scikit-learn's own checks of DistilledNet, none of which may fail."""

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import estimator_checks_generator

from skcompress import DistilledNet
from tests.contract_modules import EXACT, classifier, regressor

# The checks have labels, and tables of a few rows.
SETTINGS = {"random_state": 0, "cv": 2}
EXACT_NETS = [
    DistilledNet(classifier(**EXACT), LogisticRegression(tol=1e-10, max_iter=1000), **SETTINGS),
    DistilledNet(regressor(**EXACT), Ridge(), **SETTINGS),
]
ORDINARY_NETS = [
    DistilledNet(classifier(max_epochs=10), LogisticRegression(), **SETTINGS),
    DistilledNet(regressor(max_epochs=10), Ridge(), **SETTINGS),
]
# Minibatches and float32 rule this one out, and nothing else.
NEEDS_EXACT = "check_sample_weight_equivalence_on_dense_data"


def checks(estimators, without=None):
    """List all checks of some estimators, in the form that pytest takes."""
    return [
        pytest.param(
            instance, check, id=f"{type(estimator.estimator).__name__}-{check.func.__name__}"
        )
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
