"""PrunedNet from end to end, on digits."""

import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skcompress import PrunedNet
from skcompress.layers import weight_matrices
from tests.pruning_modules import IMAGE, MODULES, SEQUENCE, TABLE, TOKENS, classifier, n_weights


@functools.cache
def digits(shape):
    """Return training and test rows of digits in the form that a module takes."""
    X, y = load_digits(return_X_y=True)
    X = X[:700].astype(np.float32) / 16
    forms = {
        TABLE: X,
        IMAGE: X.reshape(-1, 1, 8, 8),
        SEQUENCE: X.reshape(-1, 8, 8),
        TOKENS: (X[:, 8:56:3] * 16).astype(np.int64),
    }
    return train_test_split(forms[shape], y[:700], test_size=200, random_state=0, stratify=y[:700])


def digits_net(name):
    """Return a net around a module of the shared ones, as wide as digits ask for."""
    kind, params, shape = MODULES[name]
    widths = {TABLE: {"n_inputs": 64}, IMAGE: {}, SEQUENCE: {"n_inputs": 8},
              TOKENS: {"n_tokens": 17, "length": 16}}[shape]  # fmt: skip
    if kind.__name__ in ("MLP", "NormalizedMLP", "Tied"):
        widths = widths | {"hidden": 24}
    named = {f"module__{n}": value for n, value in (params | widths | {"n_outputs": 10}).items()}
    return classifier(
        kind, optimizer=torch.optim.Adam, lr=0.01, max_epochs=8, batch_size=50, **named
    )


KINDS = [
    "mlp", "mlp, batch norm", "cnn", "cnn, one-dimensional", "cnn, grouped", "rnn", "gru",
    "gru, bidirectional", "lstm, bidirectional", "attention", "encoder, padding", "branches",
    "tied",
]  # fmt: skip


@pytest.mark.parametrize("granularity", ["weight", "unit", "2:4"])
@pytest.mark.parametrize("name", KINDS)
def test_end_to_end(name, granularity):
    """On digits: as sparse as asked for, masks that agree with the module, better than chance."""
    X, X_test, y, y_test = digits(MODULES[name][2])
    torch.manual_seed(0)
    pruned = PrunedNet(
        digits_net(name), granularity=granularity, retrain_epochs=6,
        retrain_lr=0.01, random_state=0,
    ).fit(X, y)  # fmt: skip
    module, dense = pruned.net_.module_, pruned.estimator_.module_
    weights = weight_matrices(module)
    assert list(pruned.masks_) == list(weights)
    for key, weight in weights.items():
        assert torch.equal(weight != 0, pruned.masks_[key])
    left = sum(int(weight.count_nonzero()) for weight in weights.values())
    assert pruned.sparsity_ == pytest.approx(1 - left / n_weights(dense))
    if granularity == "unit":
        assert left == n_weights(module) < n_weights(dense)
        assert pruned.unremovable_
    else:
        assert n_weights(module) == n_weights(dense)
    if granularity == "weight":
        assert left == n_weights(dense) - round(0.5 * n_weights(dense))
    assert pruned.score(X_test, y_test) > 0.25
    again = pickle.loads(pickle.dumps(pruned))
    np.testing.assert_array_equal(again.predict_proba(X_test), pruned.predict_proba(X_test))


class TestSmallerArchitecture:
    """The widths that fit, trained from scratch."""

    @pytest.mark.parametrize("name", ["mlp", "cnn", "lstm, bidirectional"])
    @pytest.mark.parametrize("recovery", ["scratch", "fine-tune"])
    def test_max_weights(self, name, recovery):
        X, X_test, y, y_test = digits(MODULES[name][2])
        dense = n_weights(digits_net(name).initialize().module_)
        pruned = PrunedNet(
            digits_net(name), granularity="unit", recovery=recovery, max_weights=dense // 2,
            schedule="one-shot", retrain_epochs=12, retrain_lr=0.01,
            random_state=0,
        ).fit(X, y)  # fmt: skip
        left = n_weights(pruned.net_.module_)
        assert 0.35 * dense < left <= dense // 2
        assert pruned.sparsity_ == pytest.approx(1 - left / dense)
        assert pruned.score(X_test, y_test) > 0.3
