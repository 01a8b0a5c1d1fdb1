"""New rows to predict, which must be like those of fit."""

import numpy as np
import pytest

from tests.contract_modules import TwoInputs, blobs, classifier, pruned
from tests.test_bad_input import changed

X, Y = blobs(30)


NEW_ROWS = {
    "fewer columns": (X[:, :3], "X has 3 features, but PrunedNet is expecting 4"),
    "NaN": (changed(np.nan), "Input X contains NaN"),
    "one dimension": (X[0], "Expected 2D array, got 1D array"),
    "no rows": (X[:0], r"0 sample\(s\)"),
}


@pytest.mark.parametrize(("rows", "message"), NEW_ROWS.values(), ids=NEW_ROWS)
def test_bad_rows_to_predict(rows, message):
    """New rows are checked as those of fit were."""
    estimator = pruned(classifier(max_epochs=1), retrain_epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        estimator.predict(rows)


NAMED = {"numbers": X, "tokens": Y[:, None]}
NEW_DICTS = {
    "a missing key": ({"numbers": X}, "X is a dict of numbers, but in fit it was a dict of numbers,"
                                      " tokens. Pass the same"),
    "another key": (NAMED | {"more": X}, "X is a dict of more, numbers, tokens, but in fit"),
    "an array": (X, "X is an array or SliceDataset, but in fit it was a dict of numbers, tokens"),
    "another width": ({"numbers": X[:, :3], "tokens": Y[:, None]},
                      r"does not take X of numbers of shape \(30, 3\).*In fit, X was of numbers of"
                      r" shape \(30, 4\)"),
    "tokens out of range": (NAMED | {"tokens": Y[:, None] + 10}, "out of range"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), NEW_DICTS.values(), ids=NEW_DICTS)
def test_bad_dicts_to_predict(rows, message):
    """A dict has the names of that in fit, and what the module takes."""
    net = classifier(module=TwoInputs, callbacks=None, max_epochs=1)
    estimator = pruned(net, retrain_epochs=1).fit(NAMED, Y)
    for method in (estimator.predict, estimator.predict_proba):
        with pytest.raises(ValueError, match=message):
            method(rows)


def test_sequences_of_another_length():
    """What the module takes is taken, also of another shape than in fit."""
    net = classifier(module=TwoInputs, callbacks=None, max_epochs=1)
    estimator = pruned(net, retrain_epochs=1).fit(NAMED, Y)
    longer = NAMED | {"tokens": np.repeat(Y[:, None], 5, axis=1)}
    np.testing.assert_allclose(
        estimator.predict_proba(longer), estimator.predict_proba(NAMED), rtol=1e-5
    )
