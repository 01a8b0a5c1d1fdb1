"""Accuracy, size and latency of small nets that are taught, beside those of their teachers.

Two steps, so that no setting is chosen on what is reported::

    python docs/benchmarks/distillation.py tune --data digits    # writes distillation_digits_tune.csv
    python docs/benchmarks/distillation.py final --data digits   # writes distillation_digits.csv
    python docs/benchmarks/distillation.py report                # writes distillation.md

`tune` tries each alpha and temperature for each teacher on splits of its own; `final` takes the best
for each teacher, on 5 folds by other seeds. Rows are written as they come, and a second run goes on
where the first ended.
"""  # noqa: E501

import argparse
import pickle
import time
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data import tensor_bytes
from distillation_report import best_settings, write_report
from distillation_teachers import WIDTHS, Remembering, load, net, teachers
from joblib import Parallel, delayed
from pruning import append
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from skcompress import DistilledNet
from skcompress.distillation.teachers import NetTeacher
from skcompress.training.isolation import isolated

HERE = Path(__file__).parent
ALPHAS, TEMPERATURES = (0.3, 0.7, 1.0), (1.0, 2.0, 4.0)
TUNE_SEED, FINAL_SEEDS = 100, (0,)
ALONE, IN_SAMPLE = "student alone", "forest, in-sample"


def student(data, method, alpha, temperature, seed, remember):
    """Return the unfitted student of a method; its teacher may remember earlier fits."""
    small = net(data, WIDTHS[data][0])
    if method == ALONE:
        return NetTeacher(small, random_state=seed)
    teacher = teachers(data)["forest" if method == IN_SAMPLE else method]
    teacher = Remembering(teacher) if remember else teacher
    return DistilledNet(
        small, teacher, alpha=alpha, temperature=temperature, random_state=seed,
        cv="in-sample" if method == IN_SAMPLE else 5,
    )  # fmt: skip


def n_bytes(fitted):
    """Size of what predicts: a net's tensors, or the pickle of another estimator."""
    if hasattr(fitted, "net_"):
        return tensor_bytes(fitted)
    return len(pickle.dumps(fitted))


def microseconds(fitted, X, repeats=20):
    """Return the median time of predict_proba on some rows, in microseconds."""
    fitted.predict_proba(X)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fitted.predict_proba(X)
        times.append(time.perf_counter() - start)
    return round(1e6 * float(np.median(times)), 1)


def measured(fitted, X, y, repeats):
    """Return what is reported of a fitted estimator."""
    probabilities = fitted.predict_proba(X)
    return {
        "accuracy": float((fitted.classes_[probabilities.argmax(1)] == y).mean()),
        "log_loss": log_loss(y, np.clip(probabilities, 1e-7, 1), labels=fitted.classes_),
        "bytes": n_bytes(fitted),
        "us_1": microseconds(fitted, X[:1], repeats),
        "us_256": microseconds(fitted, X[:256], repeats),
    }


def run_cell(data, method, alpha, temperature, seed, fold, train, test, path, tuning):
    """Fit and measure one estimator on one fold, unless the file has it."""
    key = {"method": method, "alpha": alpha, "temperature": temperature,
           "seed": seed, "fold": fold}  # fmt: skip
    if path.exists():
        done = pd.read_csv(path)
        if (done[list(key)] == pd.Series(key)).all(axis=1).any():
            return
    torch.set_num_threads(1)
    X, y = load(data)
    with isolated(n_threads=1):
        start = time.perf_counter()
        if method.startswith("teacher: "):
            fitted = clone(teachers(data)[method.removeprefix("teacher: ")])
            states = {n: seed for n in fitted.get_params() if n.endswith("random_state")}
            fitted.set_params(**states)
        else:
            fitted = student(data, method, alpha, temperature, seed, remember=tuning)
        fitted.fit(X[train], y[train])
        seconds = time.perf_counter() - start
        row = key | measured(fitted, X[test], y[test], 3 if tuning else 20)
    row |= {"teacher_score": getattr(fitted, "teacher_score_", -1.0),
            "n_train": len(train), "n_test": len(test), "seconds": round(seconds, 2)}  # fmt: skip
    append(path, row)


def run_cells(data, cells, path, tuning):
    """Run cells one after the other."""
    for cell in cells:
        run_cell(data, *cell, path, tuning)
    Remembering.fitted.clear()


def tuning_cells(data):
    """Every alpha and temperature for every teacher, on a split of its own."""
    X, y = load(data)
    splits = StratifiedShuffleSplit(1, test_size=0.2, random_state=TUNE_SEED).split(X, y)
    for (fold, (train, test)), name in product(enumerate(splits), teachers(data)):
        for alpha, temperature in product(ALPHAS, TEMPERATURES):
            yield name, alpha, temperature, TUNE_SEED, fold, train, test


def final_cells(data):
    """Each teacher and its student with frozen settings, and the student alone."""
    best = best_settings(pd.read_csv(HERE / f"distillation_{data}_tune.csv"))
    X, y = load(data)
    methods = {ALONE: (0.0, 1.0), **best, IN_SAMPLE: best["forest"]}
    methods |= {f"teacher: {name}": (0.0, 1.0) for name in teachers(data)}
    for seed in FINAL_SEEDS:
        folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
        for fold, (train, test) in enumerate(folds):
            for method, (alpha, temperature) in methods.items():
                yield method, alpha, temperature, seed, fold, train, test


def main():
    """Run one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["tune", "final", "report"])
    parser.add_argument("--data", choices=list(WIDTHS), default="digits")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--first", type=int, help="cells to run, for a try")
    arguments = parser.parse_args()
    if arguments.step == "report":
        write_report(HERE)
        return
    tuning = arguments.step == "tune"
    cells = list((tuning_cells if tuning else final_cells)(arguments.data))
    path = HERE / f"distillation_{arguments.data}{'_tune' if tuning else ''}.csv"
    # Cells of one teacher and one split share a process, and with it what is remembered.
    groups = groupby(cells[: arguments.first], key=lambda cell: (cell[0], cell[3], cell[4]))
    Parallel(n_jobs=arguments.jobs)(
        delayed(run_cells)(arguments.data, list(group), path, tuning) for _, group in groups
    )


if __name__ == "__main__":
    main()
