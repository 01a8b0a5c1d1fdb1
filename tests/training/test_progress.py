"""scikit-learn's callbacks hear of every epoch, and its progress bar shows them, nested."""

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from skcompress import PrunedNet, QuantizedNet
from tests.contract_modules import assert_same_state, blobs, classifier, pruned, state

X, Y = blobs()
HEARD = []


class Listener:
    """Writes down which tasks begin and end, with how many parts."""

    max_propagation_depth = None

    def setup(self, estimator, context):
        HEARD.append(("setup", 0))

    def on_fit_task_begin(self, estimator, context):
        HEARD.append((context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        HEARD.append(("end of " + context.task_name, context.max_subtasks))

    def teardown(self, estimator, context):
        HEARD.append(("teardown", 0))


@pytest.fixture(autouse=True)
def _forget():
    HEARD.clear()


def listened(estimator):
    """Fit an estimator that is listened to."""
    return estimator.set_callbacks(Listener()).fit(X, Y)


def task(name, n_epochs):
    """Return what is heard of a stage."""
    epoch = [("epoch", 0), ("end of epoch", 0)]
    return [(name, n_epochs), *(n_epochs * epoch), ("end of " + name, n_epochs)]


def whole(*stages):
    """Return what is heard of a fit."""
    parts = [entry for stage in stages for entry in stage]
    return [("setup", 0), ("fit", None), *parts, ("end of fit", None), ("teardown", 0)]


def test_epochs_are_heard():
    """The dense fit and retraining report each epoch."""
    listened(pruned(classifier(max_epochs=3), retrain_epochs=2))
    assert whole(task("dense fit", 3), task("retraining", 2)) == HEARD


def test_inner_estimators_report_to_the_outer_ones():
    """What is fitted inside is heard outside; a frozen net is not trained."""
    inner = pruned(classifier(max_epochs=3), retrain_epochs=2)
    listened(QuantizedNet(inner, retrain_epochs=1, random_state=0))
    assert whole(task("dense fit", 3), task("retraining", 2), task("retraining", 1)) == HEARD
    HEARD.clear()
    listened(PrunedNet(FrozenEstimator(inner.fit(X, Y)), retrain_epochs=1, random_state=0))
    assert whole(task("retraining", 1)) == HEARD


def test_cached_stages_are_not_heard(tmp_path):
    """What comes from the cache has no epochs."""
    estimator = pruned(classifier(max_epochs=3), retrain_epochs=2, memory=tmp_path / "cache")
    listened(estimator)
    HEARD.clear()
    listened(estimator)
    assert whole() == HEARD


def test_after_an_error_callbacks_are_torn_down():
    """A fit that fails ends what was set up."""
    with pytest.raises(ValueError, match="at least two classes"):
        pruned().set_callbacks(Listener()).fit(X, np.zeros(len(X)))
    assert HEARD[0] == ("setup", 0)
    assert HEARD[-1] == ("teardown", 0)


def test_callbacks_change_no_bits():
    """Listening disturbs nothing, and leaves nothing behind in the nets."""
    plain, heard = pruned().fit(X, Y), listened(pruned())
    assert_same_state(state(plain), state(heard))
    assert vars(plain.estimator_).keys() == vars(heard.estimator_).keys()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_shows_nested_bars(n_jobs, capsys):
    """Bars of the search, of its cells and of their epochs, and no line of skorch's."""
    pytest.importorskip("rich")
    pipeline = make_pipeline(StandardScaler(), pruned(classifier(max_epochs=3, verbose=1)))
    search = GridSearchCV(pipeline, {"prunednet__sparsity": [0.5, 0.7]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    shown = capsys.readouterr().out
    assert shown.count("PrunedNet - dense fit") == 2 * 2 + 1
    assert shown.count("PrunedNet - retraining") == 2 * 2 + 1
    assert "GridSearchCV - fit" in shown
    assert "train_loss" not in shown


class Twice(NeuralNetClassifier):
    def fit(self, X, y=None):
        super().fit(X, y)
        return super().fit(X, y)


def test_a_net_that_trains_for_longer_than_it_says():
    """Its further epochs are not reported, and that is all."""
    estimator = listened(pruned(classifier(Twice, max_epochs=3), retrain_epochs=2))
    assert whole(task("dense fit", 3), task("retraining", 2)) == HEARD
    assert len(estimator.estimator_.history_) == 3
