"""Accuracy of pruning methods at equal epochs, optimizer and choice of learning rates.

Two steps, so that no setting is chosen on what is reported::

    python docs/benchmarks/pruning.py tune --data digits    # writes pruning_digits_tune.csv
    python docs/benchmarks/pruning.py final --data digits   # writes pruning_digits.csv
    python docs/benchmarks/pruning.py report                # writes pruning.md

`tune` tries each learning rate of every method on a split of its own (MNIST: rows of their own);
`final` takes the best for each method, sparsity and number of epochs, on 5 folds by another seed.
PrunedNet's defaults have no setting to tune. Rows are written as they come, and a second run
goes on where the first ended.
"""

import argparse
import csv
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data import dense_net, load
from joblib import Parallel, delayed
from methods import METHODS, OURS, PEER_RATES, PEERS, RATES, Cell
from pruning_report import best_rates, write_report
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

import skcompress.pruning.obs as obs_module
from skcompress.training.isolation import isolated, seed_generators

HERE = Path(__file__).parent
SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99)
EPOCHS = (5, 10)
TUNE_SEED, FINAL_SEED = 1, 2


def fit_dense(data, X, y, seed):
    """Fit the dense net that all methods of a fold start from."""
    with isolated(n_threads=1):
        seed_generators(seed)
        return dense_net(data).fit(X, y)


def weights_left(fitted):
    """Count the weight-matrix entries that are not zero."""
    module = getattr(fitted, "net_", fitted).module_
    return sum(int((layer.weight != 0).sum()) for layer in module if hasattr(layer, "weight"))


def run_cell(cell, fold, dense, X, y, train, test):
    """Fit and score one cell; return its row."""
    with isolated(n_threads=1):
        seed_generators(cell.seed)
        start = time.perf_counter()
        try:
            fitted = METHODS[cell.method](cell, dense, X[train], y[train])
        except ValueError as error:
            print(f"{cell}: {error}", flush=True)
            return None
        seconds = time.perf_counter() - start
        accuracy = float((fitted.predict(X[test]) == y[test]).mean())
    dense_accuracy = float((dense.predict(X[test]) == y[test]).mean())
    return asdict(cell) | {
        "fold": fold, "accuracy": accuracy, "dense_accuracy": dense_accuracy,
        "weights": weights_left(fitted), "seconds": round(seconds, 2),
    }  # fmt: skip


def remember_obs(fold_costs):
    """Let the cells of a fold share the costs of exact OBS, which depend on the dense net only."""
    compute = obs_module.removal_costs

    def removal_costs(weight, moment):
        key = (weight.numpy().tobytes(), moment.numpy().tobytes())
        if hash(key) not in fold_costs:
            fold_costs[hash(key)] = compute(weight, moment)
        return fold_costs[hash(key)]

    obs_module.removal_costs = removal_costs
    return compute


def run_fold(data, rows, fold, train, test, cells, path):
    """Run all cells of one fold that are not in the file yet."""
    torch.set_num_threads(1)
    done = set()
    if path.exists():
        table = pd.read_csv(path)
        done = set(zip(table.fold, table.method, table.sparsity, table.epochs, table.lr.fillna(-1),
                       strict=True))  # fmt: skip
    X, y = rows
    dense = fit_dense(data, X[train], y[train], seed=fold)
    compute = remember_obs({})
    for cell in cells:
        lr = -1.0 if np.isnan(cell.lr) else cell.lr
        if (fold, cell.method, cell.sparsity, cell.epochs, lr) in done:
            continue
        row = run_cell(replace(cell, seed=fold), fold, dense, X, y, train, test)
        if row is not None:
            append(path, row)
    obs_module.removal_costs = compute


def append(path, row):
    """Add a row to a CSV file in one write, so that workers may share the file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def tuning_cells(data):
    """Every learning rate for every method but the defaults; one number of epochs for both."""
    return [
        Cell(data, method, sparsity, EPOCHS[0], lr, 0)
        for sparsity in SPARSITIES
        for method in METHODS
        if method != OURS
        for lr in (PEER_RATES if method in PEERS else RATES)
    ]


def final_cells(data):
    """Each method with its frozen rate; the defaults with none."""
    rates = best_rates(pd.read_csv(HERE / f"pruning_{data}_tune.csv"))
    return [
        Cell(data, method, sparsity, epochs, rates.get((method, sparsity), np.nan), 0)
        for epochs in EPOCHS
        for sparsity in SPARSITIES
        for method in METHODS
        if method == OURS or (method, sparsity) in rates
    ]


def main():
    """Run one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["tune", "final", "report"])
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--only", default="", help="methods whose name has this in it")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.step == "report":
        write_report(HERE)
        return
    tune, final = load(arguments.data)
    if arguments.step == "tune":
        rows, cells, name = tune, tuning_cells(arguments.data), f"pruning_{arguments.data}_tune.csv"
        splitter = StratifiedShuffleSplit(1, test_size=0.2, random_state=TUNE_SEED)
        splits = splitter.split(*rows)
    else:
        rows, cells, name = final, final_cells(arguments.data), f"pruning_{arguments.data}.csv"
        splits = StratifiedKFold(5, shuffle=True, random_state=FINAL_SEED).split(*rows)
    cells = [cell for cell in cells if arguments.only in cell.method]
    Parallel(n_jobs=arguments.jobs)(
        delayed(run_fold)(arguments.data, rows, fold, train, test, cells, HERE / name)
        for fold, (train, test) in enumerate(splits)
    )


if __name__ == "__main__":
    main()
