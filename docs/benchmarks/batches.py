"""Seconds of fits, retraining and predictions, against plain skorch's on the same data.

    python docs/benchmarks/batches.py            # measures, writes batches.csv and batches.md
    python docs/benchmarks/batches.py --report   # writes batches.md from batches.csv

Both sides run in turns, on one thread. Fits and retraining must leave the same bits.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data import MLP, load_mnist
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier
from torch import nn, optim

from skcompress import PrunedNet
from skcompress.training.loop import Data, dense_fit, retrain

HERE = Path(__file__).parent
N_PREDICTED = 20_000
# Figure, data, optimizer, and the part of skorch's time that it may take at most.
CASES = [
    ("dense fit", "tabular", "Adam", "1/1.6"),
    ("dense fit", "MNIST MLP", "SGD", "1/1.1"),
    ("dense fit", "MNIST CNN", "Adam", "1"),
    ("retraining", "tabular", "Adam", "1/2.2"),
    ("retraining", "tabular", "SGD", "1/2.8"),
    ("retraining", "MNIST MLP", "SGD", "1/1.2"),
    ("predict", "tabular", "Adam", "1/12"),
    ("predict", "MNIST MLP", "SGD", "1/1.6"),
    ("predict", "MNIST CNN", "Adam", "1"),
]


class CNN(nn.Sequential):
    """A small network for images of 28 x 28."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16 * 49, 10),
        )  # fmt: skip


def load_rows(name):
    """Return rows to fit, and rows to predict."""
    if name == "tabular":
        X, y = make_classification(N_PREDICTED, n_features=20, n_informative=10, random_state=0)
        X, y = X.astype(np.float32), y.astype(np.int64)
        return (X[:4000], y[:4000]), X
    X, y = load_mnist()
    X = X.reshape(-1, 1, 28, 28) if name == "MNIST CNN" else X
    return (X[:3000], y[:3000]), X[:N_PREDICTED]


def make_net(name, optimizer):
    """Return an initialized net, the same each time."""
    module, settings = {
        "tabular": (MLP, {"n_inputs": 20, "hidden": (64, 64), "n_outputs": 2}),
        "MNIST MLP": (MLP, {"n_inputs": 784, "hidden": (300, 100)}),
        "MNIST CNN": (CNN, {}),
    }[name]
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, optimizer=getattr(optim, optimizer),
        lr=0.001 if optimizer == "Adam" else 0.1, batch_size=128, train_split=None, verbose=0,
        max_epochs=3 if name == "MNIST CNN" else 10, iterator_train__shuffle=True,
        **{f"module__{key}": value for key, value in settings.items()},
    ).initialize()  # fmt: skip


def training(figure, name, optimizer, rows):
    """Return what to run by turns: functions that train, and return the weights."""

    def skorch():
        net = make_net(name, optimizer)
        return net, (lambda: net.fit(*rows) if figure == "dense fit" else net.partial_fit(*rows))

    def ours():
        net, data = make_net(name, optimizer), Data(*rows)
        if figure == "dense fit":
            return net, lambda: dense_fit(net, data)
        settings = {"epochs": net.max_epochs, "lr": None, "rate": lambda _: 1.0}
        return net, lambda: retrain(net, data, **settings, after_step=lambda _: None)

    def timed(prepare):
        net, run = prepare()
        torch.manual_seed(1)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        return seconds, nn.utils.parameters_to_vector(net.module_.parameters()).detach()

    return lambda: timed(skorch), lambda: timed(ours)


def predicting(name, optimizer, rows, X):
    """Return what to run by turns: functions that predict, with validation in ours only."""
    net = make_net(name, optimizer).set_params(max_epochs=1)
    estimator = PrunedNet(net, retrain_epochs=1, random_state=0).fit(*rows)

    def timed(predict):
        start = time.perf_counter()
        probabilities = predict(X)
        return time.perf_counter() - start, torch.from_numpy(probabilities)

    return (lambda: timed(estimator.net_.predict_proba)), (lambda: timed(estimator.predict_proba))


def measure(figure, name, optimizer, repeats):
    """Yield the seconds of both sides, by turns, after a first turn to warm up."""
    rows, X = load_rows(name)
    if figure == "predict":
        skorch, ours = predicting(name, optimizer, rows, X)
    else:
        skorch, ours = training(figure, name, optimizer, rows)
    for turn in range(repeats + 1):
        (theirs_s, theirs), (ours_s, got) = skorch(), ours()
        same = torch.equal(theirs, got)
        if figure != "predict" and not same:
            raise AssertionError(f"{figure}, {name}, {optimizer}: the weights differ")
        torch.testing.assert_close(theirs, got)
        if turn:
            yield {"figure": figure, "data": name, "optimizer": optimizer, "turn": turn,
                   "skorch": round(theirs_s, 4), "skcompress": round(ours_s, 4)}  # fmt: skip


def report(table):
    """Return the table of ratios in Markdown."""
    lines = [
        "# Batches from arrays, against plain skorch",
        "",
        f"skorch's seconds over ours: ratio of the medians of {table.turn.max()} interleaved runs,"
        " and the range of the runs' own ratios. One thread, batches of 128, torch"
        f" {torch.__version__.split('+')[0]}. Tabular: 4,000 x 20, MLP 20-64-64-2, 10 epochs; MNIST"
        " MLP: 3,000 rows, 784-300-100-10, 10 epochs; MNIST CNN: 3,000 rows, 2 convolutions, 3"
        " epochs. Predictions: 20,000 rows by `predict_proba`, ours with its validation.",
        "Weights after fits and retraining are the same bit for bit; the script stops if not.",
        "",
        "| figure | data | optimizer | skorch, s | skcompress, s | times faster | range | reach |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figure, name, optimizer, reach in CASES:
        part = table[(table.figure == figure) & (table.data == name)]
        part = part[part.optimizer == optimizer]
        if not len(part):
            continue
        theirs, ours = part.skorch.median(), part.skcompress.median()
        ratios = part.skorch / part.skcompress
        lines.append(
            f"| {figure} | {name} | {optimizer} | {theirs:.3f} | {ours:.3f} |"
            f" **{theirs / ours:.2f}** | {ratios.min():.2f}-{ratios.max():.2f} | {reach} |"
        )
    return "\n".join([*lines, "", "By `python docs/benchmarks/batches.py`.", ""])


def main():
    """Measure, or only report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="only write the table anew")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the results go")
    arguments = parser.parse_args()
    path = arguments.folder / "batches.csv"
    if not arguments.report:
        torch.set_num_threads(1)
        rows = []
        for figure, name, optimizer, _ in CASES:
            rows.extend(measure(figure, name, optimizer, arguments.repeats))
            print(report(pd.DataFrame(rows)).split("\n")[-4], flush=True)
        pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
    (arguments.folder / "batches.md").write_text(report(pd.read_csv(path)))


if __name__ == "__main__":
    main()
