"""What is taken apart for a file, and what is refused for what it adds."""

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE
from sklearn.impute import SimpleImputer
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDataset
from torch.utils.data import TensorDataset, default_convert

from skcompress import load, save, size_in_bytes
from tests.deployment.file.modules import pruned
from tests.pruning_modules import MLP, classification, classifier, regression, regressor


def two_classes():
    """Return an unfitted net for two classes."""
    return classifier(MLP, module__n_outputs=2)


@pytest.mark.parametrize(
    "outer",
    [
        FixedThresholdClassifier(pruned(two_classes()), threshold=0.9),
        TunedThresholdClassifierCV(pruned(two_classes()), cv=2),
        BaggingClassifier(pruned(two_classes()), n_estimators=2),
        make_pipeline(StandardScaler(), FixedThresholdClassifier(pruned(two_classes()))),
    ],
    ids=lambda outer: type(outer).__name__,
)
def test_what_changes_predictions_is_refused_by_name(outer, tmp_path):
    """A threshold or a vote would be lost without a word."""
    X, y = classification()
    name = type(outer[-1] if hasattr(outer, "steps") else outer).__name__
    with pytest.raises(NotFittedError):
        save(outer, tmp_path / "net.skc")
    outer.fit(X, y % 2)
    for call in (size_in_bytes, lambda fitted: save(fitted, tmp_path / "net.skc")):
        with pytest.raises(TypeError, match=f"cannot hold what a {name} does"):
            call(outer)
    assert not list(tmp_path.iterdir())


def test_what_changes_targets_or_columns_is_refused_by_name(tmp_path):
    """Numbers would come back in other units, or from other columns."""
    X, y = regression()
    net = pruned(regressor(MLP, module__n_outputs=1))
    outer = TransformedTargetRegressor(net, transformer=StandardScaler()).fit(X, y)
    with pytest.raises(TypeError, match="what a TransformedTargetRegressor does"):
        save(outer, tmp_path / "net.skc")
    selector = RFE(net)
    selector.estimator_ = net.fit(X, y)
    with pytest.raises(TypeError, match="what a RFE does"):
        save(selector, tmp_path / "net.skc")


def test_rows_as_wide_as_the_steps_make_them(tmp_path):
    """An imputer drops a column without values; the net is asked for those that are left."""
    X, y = classification()
    wider = np.hstack([np.full((len(X), 1), np.nan, np.float32), X])
    pipeline = make_pipeline(SimpleImputer(), classifier())
    with pytest.warns(UserWarning, match="Skipping features"):
        pipeline.fit(wider, y)
    save(pipeline, tmp_path / "net.skc")
    loaded = load(tmp_path / "net.skc")
    with pytest.warns(UserWarning, match="Skipping features"):
        np.testing.assert_array_equal(loaded.predict_proba(wider), pipeline.predict_proba(wider))


@pytest.mark.parametrize("kind", [list, "frame", "dataset"], ids=str)
def test_rows_in_any_form(kind, tmp_path):
    """They tell the net's inputs, whatever holds them."""
    X, _ = classification()
    net = classifier().initialize()
    rows = X.tolist()
    if kind == "frame":
        rows = pytest.importorskip("pandas").DataFrame(X)
    elif kind == "dataset":
        rows = SliceDataset(TensorDataset(default_convert(X)), idx=0)
    save(net, tmp_path / "net.skc", rows)
    given = load(tmp_path / "net.skc").predict_proba(X)
    np.testing.assert_array_equal(given, net.predict_proba(X))
