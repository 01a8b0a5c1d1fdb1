"""An integer seed decides every bit of the weights, and fit disturbs nobody's generators."""

import random

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_validate
from torch import nn

from skcompress.training.isolation import fair_threads
from tests.contract_modules import MLP, assert_same_state, blobs, classifier, pruned, state

X, Y = blobs()


class Noisy(MLP):
    """A module that draws from all three generators, while it is built and while it runs."""

    def __init__(self, n_inputs=4, n_outputs=3, hidden=16):
        super().__init__(n_inputs, n_outputs, hidden)
        self.dropout = nn.Dropout(0.2)
        self.scale = float(np.random.rand() + random.random())  # noqa: NPY002

    def forward(self, X):
        noise = np.random.rand() + random.random() if self.training else 1.0  # noqa: NPY002
        return super().forward(self.dropout(X)) * self.scale * noise


def noisy(**settings):
    """Return a pruned net that leaves to chance whatever can be left to it."""
    net = classifier(module=Noisy, iterator_train__shuffle=True)
    return pruned(net, **{"n_threads": 1} | settings)


def seed_everything(seed):
    """Seed the global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


SETTINGS = [
    {},
    {"criterion": "random", "schedule": "one-shot"},
    {"recovery": "scratch"},
    {"granularity": "unit"},
    {"schedule": "projected"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_same_seed_same_bits(settings):
    """Repeated fits agree bit for bit, whatever the global seeds are."""
    seed_everything(1)
    first = noisy(**settings).fit(X, Y)
    seed_everything(2)
    second = noisy(**settings).fit(X, Y)
    again = state(first)
    assert_same_state(again, state(second))
    assert_same_state(again, state(first.fit(X, Y)))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_other_seed_other_bits(settings):
    """Another seed gives another net."""
    first, second = noisy(**settings).fit(X, Y), noisy(random_state=1, **settings).fit(X, Y)
    name = "layers.0.bias"
    assert not torch.equal(state(first)[name], state(second)[name])


def test_workers_give_the_same_bits():
    """One process and two give the same nets at an equal number of threads."""
    results = [
        cross_validate(noisy(), X, Y, cv=2, n_jobs=n_jobs, return_estimator=True)["estimator"]
        for n_jobs in (1, 2)
    ]
    for alone, worker in zip(*results, strict=True):
        assert_same_state(state(alone), state(worker))


def test_instances_of_random_state_go_on():
    """A RandomState gives another net at each fit, and the same nets from the same start."""
    rng = np.random.RandomState(3)
    estimator = noisy(random_state=rng)
    first, second = state(estimator.fit(X, Y)), state(estimator.fit(X, Y))
    assert not torch.equal(first["layers.0.bias"], second["layers.0.bias"])
    again = noisy(random_state=np.random.RandomState(3)).fit(X, Y)
    assert_same_state(first, state(again))


def test_no_seed_draws_from_numpy():
    """Without a seed fits differ, unless numpy's global generator is seeded."""
    estimator = noisy(random_state=None)
    np.random.seed(5)  # noqa: NPY002
    first, second = state(estimator.fit(X, Y)), state(estimator.fit(X, Y))
    assert not torch.equal(first["layers.0.bias"], second["layers.0.bias"])
    np.random.seed(5)  # noqa: NPY002
    assert_same_state(first, state(estimator.fit(X, Y)))


def test_stages_do_not_depend_on_each_other():
    """The dense net is the same whatever compression does after it."""
    dense = [noisy(**settings).fit(X, Y).estimator_.module_.state_dict() for settings in SETTINGS]
    for other in dense[1:]:
        assert_same_state(dict(dense[0]), dict(other))


def test_nested_estimators_are_seeded_from_outside():
    """The outer seed decides what an inner estimator without a seed draws."""
    seed_everything(1)
    first = pruned(noisy(random_state=None), sparsity=0.7).fit(X, Y)
    seed_everything(2)
    second = pruned(noisy(random_state=None), sparsity=0.7).fit(X, Y)
    assert_same_state(state(first), state(second))


def test_nested_estimators_keep_a_seed_of_their_own():
    """An inner estimator's own seed decides its dense fit."""
    inner = noisy(random_state=4)
    outer = pruned(inner, sparsity=0.7, n_threads=1).fit(X, Y)
    assert_same_state(state(outer.estimator_), state(inner.fit(X, Y)))


def generators():
    """Return the states of the global generators and the number of threads."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    numpy_state = (name, keys.tolist(), *rest)
    torch_state = torch.random.get_rng_state().tolist()
    return random.getstate(), numpy_state, torch_state, torch.get_num_threads()


@pytest.mark.parametrize("n_threads", [None, 2])
def test_fit_leaves_generators_and_threads_alone(n_threads):
    """After fit, the caller's generators go on where they were."""
    before = generators()
    noisy(n_threads=n_threads).fit(X, Y)
    assert generators() == before


class Failing(Noisy):
    def forward(self, X):
        if self.training:
            raise RuntimeError(f"trained on {torch.get_num_threads()} threads")
        return super().forward(X)


def test_a_fit_that_fails_leaves_them_alone():
    """The same holds when training raises, at the number of threads that was asked for."""
    before = generators()
    with pytest.raises(RuntimeError, match="trained on 2 threads"):
        pruned(classifier(module=Failing), n_threads=2).fit(X, Y)
    with pytest.raises(ValueError, match="contains NaN"):
        pruned(n_threads=2).fit(np.full_like(X, np.nan), Y)
    assert generators() == before


def fit_on(n_threads):
    """Fit where torch starts with some number of threads; the worker gets its own back."""
    with fair_threads(n_threads):
        return state(noisy(n_threads=1).fit(X, Y)), torch.get_num_threads()


def test_n_threads_pins_the_bits():
    """Processes that start with other numbers of threads give the same weights."""
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(fit_on)(n) for n in (1, 2))
    assert [threads for _, threads in results] == [1, 2]
    assert_same_state(results[0][0], results[1][0])
