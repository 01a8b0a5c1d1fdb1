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
from itertools import groupby, pairwise, product
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from distillation_report import best_settings, write_report
from joblib import Parallel, delayed
from pruning import append
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import DistilledNet
from skcompress.distillation.teachers import NetTeacher
from skcompress.selection import size_in_bytes
from skcompress.training.isolation import isolated

HERE = Path(__file__).parent
ALPHAS, TEMPERATURES = (0.3, 0.7, 1.0), (1.0, 2.0, 4.0)
TUNE_SEED, FINAL_SEEDS = 100, (0,)
ALONE, IN_SAMPLE = "student alone", "forest, in-sample"
# Hidden widths of student and large net.
WIDTHS = {"digits": ((12,), (256, 128)), "tabular": ((8,), (256, 128))}


class MLP(nn.Sequential):
    """A multilayer perceptron of any depth."""

    def __init__(self, widths):
        layers = []
        for first, second in pairwise(widths):
            layers += [nn.Linear(first, second), nn.ReLU()]
        super().__init__(*layers[:-1])


def load(name):
    """Return the rows of a data set; the table is generated, with a tenth of its labels wrong."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return (X / 16).astype(np.float32), y
    X, y = make_classification(
        2000, 20, n_informative=12, n_redundant=4, n_classes=4, n_clusters_per_class=4,
        class_sep=1.5, flip_y=0.1, random_state=0,
    )  # fmt: skip
    return X.astype(np.float32), y


class Remembering(ClassifierMixin, BaseEstimator):
    """A teacher that is fitted once for all the settings that are tried with it."""

    fitted = {}  # noqa: RUF012

    def __init__(self, teacher):
        self.teacher = teacher

    def fit(self, X, y):
        key = joblib.hash((self.teacher.get_params(), X, y))
        if key not in self.fitted:
            self.fitted[key] = self.teacher.fit(X, y)
        self.teacher_ = self.fitted[key]
        self.classes_ = self.teacher_.classes_
        return self

    def predict(self, X):
        return self.teacher_.predict(X)

    def predict_proba(self, X):
        return self.teacher_.predict_proba(X)


def net(data, hidden):
    """Return an unfitted net of a data set; student and large net differ in width alone."""
    n_inputs, n_outputs = {"digits": (64, 10), "tabular": (20, 4)}[data]
    return NeuralNetClassifier(
        MLP, module__widths=(n_inputs, *hidden, n_outputs), criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam, lr=0.005, max_epochs=30, batch_size=64, train_split=None,
        iterator_train__shuffle=True, verbose=0,
    )  # fmt: skip


def teachers(data):
    """Return the teachers of a data set by name."""
    large = NetTeacher(net(data, WIDTHS[data][1]))
    forest = RandomForestClassifier(200)
    boosting = HistGradientBoostingClassifier()
    return {
        "large net": large,
        "forest": forest,
        "boosting": boosting,
        "ensemble": VotingClassifier(
            [("net", large), ("forest", forest), ("boosting", boosting)], voting="soft"
        ),
    }


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
        return size_in_bytes(fitted)
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
