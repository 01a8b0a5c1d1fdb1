"""A search's candidates as a table: what each one keeps of the score, and what it costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .refit import fold_scores, mean_scores


def compression_report(
    results: Any,
    *,
    baseline: Mapping[str, Any] | None = None,
    score: str = "accuracy",
    size: str = "size",
    latency: str = "latency",
) -> pd.DataFrame:
    """Tabulate the candidates of a search: parameters, score and spread, size, latency.

    Parameters
    ----------
    results : object or dict
        A fitted search such as GridSearchCV, or its ``cv_results_``.
    baseline : dict, default=None
        What ``cross_validate`` returned for another estimator, usually the dense net, with the
        same `scoring` and the same folds. It becomes the first row.
    score : str, default="accuracy"
        Name of the metric in `scoring` that measures how good a candidate is.
    size : str, default="size"
        Name under which :func:`~skcompress.selection.size_scorer` stands in `scoring`.
    latency : str, default="latency"
        Name under which :func:`~skcompress.selection.latency_scorer` stands in `scoring`. Where
        the search did not measure it, the table has no such column.

    Returns
    -------
    report : DataFrame
        A row for each candidate, by its index in ``cv_results_``, after the row ``"baseline"``
        if there is one. The columns:

        - the parameters, without the names of the steps around them where they stay distinct;
        - `score` and `score` + ``"_std"``: mean and standard deviation over the folds;
        - `size`: mean over the folds, in bytes;
        - `latency`: median over the folds, in seconds, since another process may disturb one;
        - ``"rank"``: 1 for the candidate with the best score; missing for the baseline;
        - ``"chosen"``: whether the search's ``best_index_`` is this candidate. Given only
          ``cv_results_``, none is.

    Raises
    ------
    ValueError
        If the search, or the baseline, did not score by `score` or `size`.

    Examples
    --------
    >>> from skcompress import compression_report
    >>> cv_results = {
    ...     "params": [{"net__sparsity": 0.5}, {"net__sparsity": 0.9}],
    ...     "mean_test_accuracy": [0.92, 0.91], "std_test_accuracy": [0.01, 0.02],
    ...     "rank_test_accuracy": [1, 2], "mean_test_size": [-4000, -900]}
    >>> compression_report(cv_results)
       sparsity  accuracy  accuracy_std    size  rank  chosen
    0       0.5      0.92          0.01  4000.0     1   False
    1       0.9      0.91          0.02   900.0     2   False
    """
    cv_results = results if isinstance(results, Mapping) else results.cv_results_
    metrics = [score, f"{score}_std", size, latency, "rank", "chosen"]
    report = _parameters(cv_results["params"], reserved=metrics)
    report[score] = mean_scores(cv_results, score)
    report[f"{score}_std"] = np.asarray(cv_results[f"std_test_{score}"], dtype=float)
    report[size] = -mean_scores(cv_results, size)
    if f"mean_test_{latency}" in cv_results:
        report[latency] = -np.median(fold_scores(cv_results, latency), axis=0)
    # A nullable type: the baseline has no rank.
    report["rank"] = pd.array(cv_results[f"rank_test_{score}"], dtype="Int64")
    report["chosen"] = report.index == getattr(results, "best_index_", None)
    if baseline is None:
        return report
    return pd.concat([_baseline_row(baseline, score, size, latency), report])[report.columns]


def _parameters(candidates: Sequence[Mapping[str, Any]], reserved: Sequence[str]) -> pd.DataFrame:
    """One column per parameter, under the last part of its name where that is not ambiguous."""
    table = pd.DataFrame(list(candidates))
    short = [name.split("__")[-1] for name in table.columns]
    taken = Counter([*short, *reserved])
    return table.set_axis(
        [
            last if taken[last] == 1 else name
            for last, name in zip(short, table.columns, strict=True)
        ],
        axis="columns",
    )


def _baseline_row(baseline: Mapping[str, Any], score: str, size: str, latency: str) -> pd.DataFrame:
    missing = [name for name in (score, size) if f"test_{name}" not in baseline]
    if missing:
        raise ValueError(
            f"The baseline was not scored by {missing}; it has {list(baseline)}. Give"
            " cross_validate the same scoring as the search."
        )
    row = {
        score: np.mean(baseline[f"test_{score}"]),
        f"{score}_std": np.std(baseline[f"test_{score}"]),
        size: -np.mean(baseline[f"test_{size}"]),
        "rank": pd.NA,
        "chosen": False,
    }
    if f"test_{latency}" in baseline:
        row[latency] = -np.median(baseline[f"test_{latency}"])
    return pd.DataFrame(row, index=["baseline"]).astype({"rank": "Int64"})
