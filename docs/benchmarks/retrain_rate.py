"""The first learning rate of retraining, as a multiple of the dense net's own.

Writes retrain_rate.csv and retrain_rate.md beside itself::

    python docs/benchmarks/retrain_rate.py          # measures what the rows lack
    python docs/benchmarks/retrain_rate.py report   # the table alone

PrunedNet's default rate is chosen from this table. The splits are not those of pruning.py, on
whose rows the defaults are compared with others.
"""

import argparse
import csv
import functools
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data import MLP
from sklearn.datasets import load_diabetes, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn, optim

from skcompress import PrunedNet
from skcompress.training.isolation import isolated, seed_generators

HERE = Path(__file__).parent
FACTORS = (1.0, 2.0, 5.0, 10.0)
SPARSITIES = (0.8, 0.95)
# Seeds of pruning.py are below ten.
SEEDS = (11, 12, 13, 14)
# Optimizers that divide by a running size of the gradient, and those that do not.
NORMALIZING = {
    "Adam, 0.001": (optim.Adam, {"lr": 0.001}),
    "Adam, 0.01": (optim.Adam, {"lr": 0.01}),
    "RMSprop, 0.003": (optim.RMSprop, {"lr": 0.003}),
    "Adagrad, 0.03": (optim.Adagrad, {"lr": 0.03}),
    "Adadelta, 1": (optim.Adadelta, {"lr": 1.0}),
    "Rprop, 0.001": (optim.Rprop, {"lr": 0.001}),
}
PLAIN = {
    "SGD, 0.1": (optim.SGD, {"lr": 0.1}),
    "SGD, 1": (optim.SGD, {"lr": 1.0}),
    "SGD, 0.1, momentum 0.9": (optim.SGD, {"lr": 0.1, "optimizer__momentum": 0.9}),
    "SGD, 0.3, momentum 0.9": (optim.SGD, {"lr": 0.3, "optimizer__momentum": 0.9}),
    "ASGD, 0.1": (optim.ASGD, {"lr": 0.1}),
}
REGRESSION = {
    "Adam, 0.01": (optim.Adam, {"lr": 0.01}),
    "SGD, 0.03": (optim.SGD, {"lr": 0.03}),
    "SGD, 0.1": (optim.SGD, {"lr": 0.1}),
    "SGD, 0.01, momentum 0.9": (optim.SGD, {"lr": 0.01, "optimizer__momentum": 0.9}),
}
CASES = {"digits": NORMALIZING | PLAIN, "diabetes": REGRESSION}


@functools.cache
def load(data):
    """Return rows and targets of a data set."""
    if data == "digits":
        X, y = load_digits(return_X_y=True)
        return (X / 16).astype(np.float32), y.astype(np.int64)
    X, y = load_diabetes(return_X_y=True)
    return scale(X).astype(np.float32), scale(y).astype(np.float32)


def dense_net(data, optimizer, settings):
    """Return the unfitted dense net of a case."""
    shared = {
        "module": MLP, "optimizer": optimizer, "train_split": None, "verbose": 0,
        "iterator_train__shuffle": True, "max_epochs": 20, "batch_size": 64, **settings,
    }  # fmt: skip
    if data == "digits":
        return NeuralNetClassifier(criterion=nn.CrossEntropyLoss, **shared)
    return NeuralNetRegressor(module__n_inputs=10, module__n_outputs=1, **shared)


def split(data, seed):
    """Return training rows, test rows and their targets."""
    X, y = load(data)
    labels = y if data == "digits" else None
    return train_test_split(X, y, test_size=0.25, random_state=seed, stratify=labels)


def run_case(data, name, seed):
    """Yield the rows of one dense net: each factor and sparsity."""
    X, X_test, y, y_test = split(data, seed)
    with isolated(n_threads=1):
        seed_generators(seed)
        # A regressor of skorch takes and gives columns.
        dense = dense_net(data, *CASES[data][name]).fit(X, y if data == "digits" else y[:, None])
    before = dense.score(X_test, y_test)
    for factor, sparsity in product(FACTORS, SPARSITIES):
        pruned = PrunedNet(
            FrozenEstimator(dense), sparsity=sparsity, retrain_lr=factor * dense.lr,
            random_state=seed, n_threads=1,
        )  # fmt: skip
        try:
            after = pruned.fit(X, y).score(X_test, y_test)
        except ValueError as error:
            if "diverge" not in str(error):
                raise
            after = float("nan")
        yield {"data": data, "optimizer": name, "seed": seed, "factor": factor,
               "sparsity": sparsity, "dense": before, "pruned": after}  # fmt: skip


def measure(path):
    """Add the rows that a file lacks."""
    done = set()
    if path.exists():
        table = pd.read_csv(path)
        done = set(zip(table.data, table.optimizer, table.seed, strict=True))
    for data, seed in product(CASES, SEEDS):
        for name in CASES[data]:
            if (data, name, seed) not in done:
                append(path, list(run_case(data, name, seed)))


def append(path, rows):
    """Add rows to a CSV file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def cell(scores):
    """Write the mean score of the seeds, or how many of them diverged."""
    diverged = int(scores.isna().sum())
    return f"{diverged} of {len(scores)} diverged" if diverged else f"{scores.mean():.3f}"


def table(rows):
    """Lay the mean scores out: rows of optimizers and sparsities, columns of factors."""
    factors = " | ".join(f"{factor:g}x" for factor in FACTORS)
    lines = [f"| optimizer, lr | sparsity | dense | {factors} |"]
    lines.append("|---" * (3 + len(FACTORS)) + "|")
    for (name, sparsity), group in rows.groupby(["optimizer", "sparsity"], sort=False):
        cells = [cell(group[group.factor == factor].pruned) for factor in FACTORS]
        first = [name, f"{sparsity:g}", f"{group.dense.mean():.3f}"]
        lines.append("| " + " | ".join(first + cells) + " |")
    return "\n".join(lines) + "\n"


def gain(rows, names):
    """Return the mean gain of each factor over 1x, in points of the score, and what diverged."""
    chosen = rows[rows.optimizer.isin(names)]
    scores = chosen.pivot(index=["data", "optimizer", "seed", "sparsity"], columns="factor",
                          values="pruned")  # fmt: skip
    change = 100 * scores.sub(scores[1.0], axis=0)
    return "; ".join(
        f"{factor:g}x: mean {change[factor].mean():+.1f}, worst {change[factor].min():+.1f} points,"
        f" {int(scores[factor].isna().sum())} of {len(scores)} diverged"
        for factor in FACTORS[1:]
    )


def write_report(folder):
    """Write retrain_rate.md from the rows."""
    rows = pd.read_csv(folder / "retrain_rate.csv")
    digits, diabetes = rows[rows.data == "digits"], rows[rows.data == "diabetes"]
    plain = [name for name in REGRESSION if name.startswith("SGD")]
    text = [
        "# Retraining: the first learning rate\n",
        "Written by `python docs/benchmarks/retrain_rate.py` from the rows beside it. A dense net"
        f" is pruned gradually and retrained for 10 epochs, with a first rate of {FACTORS[0]:g} to"
        f" {FACTORS[-1]:g} times its own. Scores are means over {rows.seed.nunique()} splits, on"
        " rows that were held out; none is a split of the [benchmark](pruning.md).\n",
        "Against the net's own rate (1x), on digits:\n",
        f"- optimizers that divide by the size of the gradient: {gain(digits, NORMALIZING)}",
        f"- the others: {gain(digits, PLAIN)}\n",
        f"On diabetes, SGD: {gain(diabetes, plain)}.\n",
        "The default of `retrain_lr` follows: 5x for optimizers that divide by the size of the"
        " gradient, whose steps do not grow with it, and 1x for all others, whose own rate is often"
        " close to the largest one that is stable.\n",
        "## Accuracy on digits, MLP 64-100-50-10\n", table(digits),
        "A dense net near 0.1 is one that guesses: that rate is too high for it already.\n",
        "## Coefficient of determination on diabetes, MLP 10-100-50-1\n", table(diabetes),
    ]  # fmt: skip
    (folder / "retrain_rate.md").write_text("\n".join(text))


def main():
    """Measure, unless only the report is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["all", "report"], default="all", nargs="?")
    torch.set_num_threads(1)
    if parser.parse_args().step == "all":
        measure(HERE / "retrain_rate.csv")
    write_report(HERE)


if __name__ == "__main__":
    main()
