from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skcompress import compression_report

CV_RESULTS = {
    "params": [
        {"net__criterion": "magnitude", "net__sparsity": 0.5},
        {"net__criterion": "magnitude", "net__sparsity": 0.9},
        {"net__criterion": "random"},
    ],
    "mean_test_accuracy": np.array([0.90, 0.95, np.nan]),
    "std_test_accuracy": np.array([0.01, 0.02, np.nan]),
    "rank_test_accuracy": np.array([2, 1, 3], dtype=np.int32),
    "mean_test_size": np.array([-500.0, -100.0, np.nan]),
    "mean_test_latency": np.array([-5e-4, -1e-4, np.nan]),
    "split0_test_latency": np.array([-11e-4, -1e-4, np.nan]),
    "split1_test_latency": np.array([-2e-4, -1e-4, np.nan]),
    "split2_test_latency": np.array([-2e-4, -1e-4, np.nan]),
}
BASELINE = {
    "test_accuracy": np.array([0.96, 0.98]),
    "test_size": np.array([-1000, -1000]),
    "test_latency": np.array([-3e-4, -1e-4]),
}


def test_one_row_per_candidate():
    """Scores keep their sign, costs lose it, and the search's own choice is marked.

    One fold's latency that another process disturbed does not show in the median.
    """
    report = compression_report(SimpleNamespace(cv_results_=CV_RESULTS, best_index_=1))
    expected = pd.DataFrame(
        {
            "criterion": ["magnitude", "magnitude", "random"],
            "sparsity": [0.5, 0.9, np.nan],
            "accuracy": [0.90, 0.95, np.nan],
            "accuracy_std": [0.01, 0.02, np.nan],
            "size": [500.0, 100.0, np.nan],
            "latency": [2e-4, 1e-4, np.nan],
            "rank": pd.array([2, 1, 3], dtype="Int64"),
            "chosen": [False, True, False],
        }
    )
    pd.testing.assert_frame_equal(report, expected, check_index_type=False)


def test_baseline_is_the_first_row():
    """A cross-validated baseline gets the same columns, without parameters, rank or choice."""
    report = compression_report(CV_RESULTS, baseline=BASELINE)
    assert report.index.tolist() == ["baseline", 0, 1, 2]
    first = report.loc["baseline"]
    assert first["accuracy"] == pytest.approx(0.97)
    assert first["accuracy_std"] == pytest.approx(0.01)
    assert (first["size"], first["latency"]) == (1000, pytest.approx(2e-4))
    assert first[["criterion", "sparsity", "rank"]].isna().all()
    assert not report["chosen"].any()
    assert report["rank"].dtype == "Int64"


def test_latency_is_optional():
    """A search that did not measure latency has no such column, with a baseline or without."""
    cv_results = {key: value for key, value in CV_RESULTS.items() if "latency" not in key}
    assert "latency" not in compression_report(cv_results)
    assert "latency" not in compression_report(cv_results, baseline=BASELINE)


def test_metrics_may_have_other_names():
    """Metrics are found, and columns named, by the names that `scoring` gives them."""
    cv_results = {
        "params": [{"sparsity": 0.5}],
        "mean_test_r2": [0.7],
        "std_test_r2": [0.1],
        "rank_test_r2": [1],
        "mean_test_bytes": [-8],
        "mean_test_ms": [-2],
        "split0_test_ms": [-2],
    }
    report = compression_report(cv_results, score="r2", size="bytes", latency="ms")
    columns = ["sparsity", "r2", "r2_std", "bytes", "ms", "rank", "chosen"]
    assert report.columns.tolist() == columns


def test_ambiguous_parameters_keep_their_names():
    """Names that would clash with each other or with a metric stay whole."""
    params = {"a__lr": 1, "b__lr": 2, "net__size": 3, "net__bits": 4}
    report = compression_report(CV_RESULTS | {"params": [params] * 3})
    assert report.columns[:4].tolist() == ["a__lr", "b__lr", "net__size", "bits"]
    assert report["size"].iloc[0] == 500


def test_unknown_metrics_are_named():
    """A metric that was not measured is named, in the search and in the baseline."""
    with pytest.raises(ValueError, match=r"'mean_test_f1'.*\['accuracy', 'size', 'latency'\]"):
        compression_report(CV_RESULTS, score="f1")
    with pytest.raises(ValueError, match=r"not scored by \['accuracy', 'size'\]; it has"):
        compression_report(CV_RESULTS, baseline={"test_score": np.ones(2)})
