"""``python -m skcompress``: the smallest net for handwritten digits that is still accurate.

A cross-validated search over criteria and sparsities, its table and its picture.
"""

import argparse
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from .pruning import PrunedNet
from .selection import (
    CompressionDisplay,
    compression_report,
    latency_scorer,
    size_scorer,
    smallest_within_one_se,
)
from .selection.refit import fold_scores

GRID: dict[str, list[Any]] = {
    "prunednet__criterion": ["magnitude", "tempered-fisher", "random"],
    "prunednet__sparsity": [0.8, 0.9, 0.95, 0.98],
}
SCORING = {"accuracy": "accuracy", "size": size_scorer, "latency": latency_scorer}
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
EPOCHS = 12


class MLP(nn.Sequential):
    """A perceptron for 8 x 8 pixels and ten digits."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10)
        )


def pruned_pipeline(**settings: Any) -> Pipeline:
    """Return a scaler and a net that prunes itself, unfitted."""
    net = NeuralNetClassifier(
        MLP,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.005,
        max_epochs=EPOCHS,
        batch_size=128,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    pruned = PrunedNet(net, retrain_epochs=EPOCHS, random_state=0, n_threads=1, **settings)
    return make_pipeline(StandardScaler(), pruned)


def run_search(X: np.ndarray, y: np.ndarray, n_jobs: int) -> tuple[GridSearchCV, dict[str, Any]]:
    """Search the grid, and cross-validate the dense net on the same folds.

    Returns
    -------
    search : GridSearchCV
        Fitted, with the smallest net within one standard error of the best one.
    dense : dict
        What ``cross_validate`` returns for the net that is trained as long with nothing removed.
    """
    search = GridSearchCV(
        pruned_pipeline(),
        GRID,
        scoring=SCORING,
        refit=smallest_within_one_se(),
        cv=FOLDS,
        n_jobs=n_jobs,
        error_score="raise",
    )
    search.set_callbacks(progress_bar()).fit(X, y)
    dense = pruned_pipeline(sparsity=0.0)
    return search, cross_validate(dense, X, y, cv=FOLDS, scoring=SCORING, n_jobs=n_jobs)


def progress_bar() -> Any:
    """Return scikit-learn's progress bar, if what the demonstration needs is installed."""
    try:
        import matplotlib  # noqa: F401 - asked for before the search, not after it
        from sklearn.callback import ProgressBar

        return ProgressBar(max_propagation_depth=0)
    except ImportError as error:
        raise SystemExit(
            f"The demonstration needs rich and matplotlib: {error}. Install them with"
            " `pip install 'skcompress[demo]'`."
        ) from error


def format_report(report: pd.DataFrame) -> str:
    """Lay a report with a baseline out for a terminal, its groups set apart by blank lines."""
    dense = report.loc["baseline", "size"]
    heading = ("criterion", "sparsity", "accuracy", "size", "smaller", "latency", "")
    lines, group = [_line(heading)], None
    for name, row in report.iterrows():
        cells = (
            "(dense)" if name == "baseline" else row["criterion"],
            "" if name == "baseline" else f"{row['sparsity']:.0%}",
            f"{row['accuracy']:.1%} ± {row['accuracy_std']:.1%}",
            kilobytes(row["size"]),
            f"{dense / row['size']:.1f} x",
            f"{row['latency'] * 1e3:.2f} ms",
            "<- chosen" if row["chosen"] else "",
        )
        if cells[0] != group:
            lines.append("")
        group = cells[0]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    name, sparsity, accuracy, size, smaller, latency, mark = cells
    columns = f"{name:<16}{sparsity:>9}{accuracy:>16}{size:>10}{smaller:>10}{latency:>11}  {mark}"
    return columns.rstrip()


def kilobytes(size: float) -> str:
    """Write bytes as kB of 1,000."""
    return f"{size / 1000:.1f} kB"


def conclusion(report: pd.DataFrame, accuracies: np.ndarray, dense: Mapping[str, Any]) -> str:
    """Say in words what the chosen net gains and loses.

    Parameters
    ----------
    report : DataFrame
        With a baseline and a chosen candidate.
    accuracies : ndarray of shape (n_folds,)
        The chosen candidate's.
    dense : dict
        What ``cross_validate`` returned for the dense net on the same folds.
    """
    chosen, before = report[report["chosen"]].iloc[0], report.loc["baseline"]
    change = 100 * (accuracies - dense["test_accuracy"])
    text = (
        f"Chosen: the smallest net within one standard error of the most accurate one. Removing"
        f" {chosen['sparsity']:.0%} of the weights by {chosen['criterion']} makes the net"
        f" {before['size'] / chosen['size']:.1f} times smaller ({kilobytes(before['size'])} ->"
        f" {kilobytes(chosen['size'])}). Compared with the dense net, trained as long, accuracy"
        f" changes by {change.mean():+.1f} points ({before['accuracy']:.1%} ->"
        f" {chosen['accuracy']:.1%}); over the folds the change has a standard deviation of"
        f" {change.std():.1f} points. Zeros make a net smaller, not faster: for speed remove whole"
        " units, with granularity='unit'."
    )
    return textwrap.fill(text, width=80)


def save_picture(report: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against size, from 80 % up: below that nobody would ship a net."""
    display = CompressionDisplay(report).plot()
    display.ax_.set(title="Pruned nets for handwritten digits, 5 folds", ylim=(0.8, 1.0))
    display.figure_.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the search, print the table and the conclusion, save the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m skcompress",
        description="Search for the smallest net for handwritten digits that is still accurate.",
    )
    picture = Path("skcompress_digits.png")
    parser.add_argument("--output", type=Path, default=picture, help="where the picture goes")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes of the search")
    options = parser.parse_args(arguments)
    X, y = load_digits(return_X_y=True)
    n_fits = math.prod(map(len, GRID.values())) * FOLDS.get_n_splits()
    print(f"Pruning a net for {len(X)} digits: {n_fits} fits in {options.n_jobs} processes.")
    search, dense = run_search(X, y, options.n_jobs)
    report = compression_report(search, baseline=dense)
    print("\nMean and standard deviation over the folds, latency of predicting one row:\n")
    print(format_report(report))
    accuracies = fold_scores(search.cv_results_, "accuracy")[:, search.best_index_]
    print(f"\n{conclusion(report, accuracies, dense)}")
    save_picture(report, options.output)
    print(f"\nPicture: {options.output.resolve()}")


if __name__ == "__main__":
    main()
