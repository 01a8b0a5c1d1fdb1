"""What a search costs, in units of D: five dense fits by plain skorch, one for each fold.

    python docs/benchmarks/search_cost.py            # measures; writes search_cost.csv, .md, .png
    python docs/benchmarks/search_cost.py --trial    # a few minutes, to see that all of it works
    python docs/benchmarks/search_cost.py --report   # writes .md and .png from search_cost.csv

Plain skorch and the searches run in turns, on one thread. Scores with a cache, from a cache and
without one must be the same bit for bit, and dense fits are counted by the modules themselves.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from data import MLP, load_mnist
from matplotlib.figure import Figure
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from torch import nn, optim

from skcompress import PrunedNet
from skcompress.training import CacheFolder, cache

HERE = Path(__file__).parent
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
REACH = {
    ("grid 10 x 5", "tabular"): "<= 1.2 D", ("grid 10 x 5", "MNIST"): "<= 1.9 D",
    ("second run", "tabular"): "<= 0.25 D", ("second run", "MNIST"): "<= 0.25 D",
}  # fmt: skip


class Counted(MLP):
    """A perceptron that adds a line to a file when it is first trained; copies do not."""

    def __init__(self, log=None, **settings):
        super().__init__(**settings)
        self.log, self.is_new = log, True

    def forward(self, X):
        if self.training and self.is_new:
            self.is_new = False
            if self.log is not None:
                with open(self.log, "a") as file:
                    file.write("dense fit\n")
        return super().forward(X)


def load_rows(name, n_rows):
    """Return as many rows of a data set."""
    if name == "MNIST":
        X, y = load_mnist()
        return X[:n_rows], y[:n_rows]
    X, y = make_classification(n_rows, n_features=20, n_informative=10, random_state=0)
    return X.astype(np.float32), y.astype(np.int64)


def make_net(name, epochs=10, log=None):
    """Return the unfitted dense net of a data set."""
    shape = {"n_inputs": 20, "hidden": (64, 64), "n_outputs": 2}
    if name == "MNIST":
        shape = {"n_inputs": 784, "hidden": (300, 100), "n_outputs": 10}
    optimizer, lr = (optim.SGD, 0.1) if name == "MNIST" else (optim.Adam, 0.001)
    return NeuralNetClassifier(
        Counted, criterion=nn.CrossEntropyLoss, optimizer=optimizer, lr=lr, batch_size=128,
        train_split=None, verbose=0,
        max_epochs=epochs, iterator_train__shuffle=True, module__log=log,
        **{f"module__{key}": value for key, value in shape.items()},
    )  # fmt: skip


def timed(function):
    """Return a function's result, its seconds and those of this process's CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - start, time.process_time() - cpu


def dense_fits(name, X, y, epochs):
    """Fit the folds by plain skorch."""
    for train, _ in FOLDS.split(X, y):
        torch.manual_seed(0)
        make_net(name, epochs).fit(X[train], y[train])


def search(name, X, y, memory, n_candidates=10, epochs=10, n_jobs=1, log=None):
    """Search sparsities, and return the scores of all cells."""
    estimator = PrunedNet(
        make_net(name, epochs, log), schedule="one-shot", retrain_epochs=1, random_state=0,
        n_threads=1, memory=memory,
    )  # fmt: skip
    grid = {"sparsity": np.linspace(0.5, 0.95, n_candidates).tolist()}
    found = GridSearchCV(
        estimator, grid, cv=FOLDS, refit=False, n_jobs=n_jobs, error_score="raise"
    ).fit(X, y)
    return np.stack([found.cv_results_[f"split{k}_test_score"] for k in range(5)])


@contextmanager
def clocked():
    """Collect the seconds that go into keys, and into reading entries and building nets of them."""
    seconds = [0.0]

    def clock(function):
        def wrapper(*args, **settings):
            result, wall, _ = timed(lambda: function(*args, **settings))
            seconds[0] += wall
            return result

        return wrapper

    with (
        mock.patch.object(cache, "_key", clock(cache._key)),
        mock.patch.object(cache, "_unpack_dense", clock(cache._unpack_dense)),
        mock.patch.object(cache, "recall", clock(cache.recall)),
        mock.patch.object(CacheFolder, "get", clock(CacheFolder.get)),
    ):
        yield seconds


def turn(name, n_rows, n_candidates, epochs, check):
    """Run plain skorch, a search and the same search again; yield figure, seconds and CPU."""
    X, y = load_rows(name, n_rows)
    yield "D", *timed(lambda: dense_fits(name, X, y, epochs))[1:]
    settings = {"n_candidates": n_candidates, "epochs": epochs}
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        with clocked() as seconds:
            first, *spent = timed(
                lambda: search(name, X, y, f"{folder}/cache", log=log, **settings)
            )
        yield f"grid {n_candidates} x 5", *spent
        yield "hashing, loading", seconds[0], seconds[0]
        second, *spent = timed(lambda: search(name, X, y, f"{folder}/cache", log=log, **settings))
        yield "second run", *spent
        assert len(Path(log).read_text().splitlines()) == 5, "a dense fit was repeated"
        np.testing.assert_array_equal(first, second)
        if check:
            plain, *spent = timed(lambda: search(name, X, y, None, **settings))
            yield "no cache", *spent
            np.testing.assert_array_equal(first, plain)


def parallel(name, n_rows, epochs):
    """Run a search in one process and in two, whose pool is warm; yield figure, seconds, CPU."""
    X, y = load_rows(name, n_rows)
    with tempfile.TemporaryDirectory() as folder:
        search(name, X[:500], y[:500], f"{folder}/warm", n_candidates=2, epochs=1, n_jobs=2)
        for n_jobs in (1, 2):
            memory, log = f"{folder}/cache{n_jobs}", f"{folder}/log{n_jobs}"
            run = timed(lambda m=memory, n=n_jobs, lg=log: search(
                name, X, y, m, epochs=epochs, n_jobs=n, log=lg))  # fmt: skip
            yield f"n_jobs={n_jobs}", *run[1:]
            assert len(Path(log).read_text().splitlines()) == 5, "a dense fit was repeated"


def measure_parallel(trial):
    """Yield rows of one process and of two."""
    repeats, epochs = (1, 2) if trial else (5, 10)
    for number in range(repeats):
        for figure, wall, cpu in parallel("MNIST", 2000 if trial else 12_000, epochs):
            yield {"data": "MNIST", "rows": 0, "candidates": 10, "turn": number,
                   "figure": figure, "seconds": wall, "cpu": cpu}  # fmt: skip


def measure_cost(trial):
    """Yield rows of those searches that have figures to reach, in turns."""
    yield from measure([("tabular", 4000, 10), ("MNIST", 3000, 10)], 1 if trial else 9, trial)


def measure_sizes(trial):
    """Yield rows of searches of other sizes, for the plot, once each."""
    cases = [("tabular", 4000, n) for n in ((5,) if trial else (5, 20, 40, 80))]
    cases += [("MNIST", n, 10) for n in ((1000,) if trial else (1000, 10_000, 30_000, 60_000))]
    yield from measure(cases, 1, trial)


def measure(cases, repeats, trial):
    """Yield rows of plain skorch, of searches and of second runs."""
    epochs = 2 if trial else 10
    for name, n_rows, n_candidates in cases:
        for number in range(repeats):
            check = number == 0 and is_standard(n_rows, n_candidates)
            for figure, wall, cpu in turn(name, n_rows, n_candidates, epochs, check):
                yield {"data": name, "rows": n_rows, "candidates": n_candidates, "turn": number,
                       "figure": figure, "seconds": wall, "cpu": cpu}  # fmt: skip


def is_standard(n_rows, n_candidates):
    """Tell whether a search has figures to reach; for arrays, each by itself."""
    return np.isin(n_rows, (3000, 4000)) & (np.asarray(n_candidates) == 10)


def part_of(table):
    """Name the part that measured each row of a table."""
    standard = is_standard(table.rows, table.candidates)
    return np.select([table.rows == 0, standard], ["parallel", "cost"], "sizes")


def ratios(table):
    """Divide each search by the D of its turn; return medians and ranges."""
    keys = ["data", "rows", "candidates", "turn"]
    dense = table[table.figure == "D"].set_index(keys).seconds
    other = table.figure.isin(["D", "hashing, loading"]) | (table.rows == 0)
    cells = table[~other].join(dense.rename("D"), on=keys)
    cells["ratio"] = cells.seconds / cells.D
    groups = cells.groupby(["data", "rows", "candidates", "figure"], sort=False)
    return groups.ratio.agg(["median", "min", "max", "count"]).reset_index()


def report(table):
    """Return the results as a page."""
    lines = [
        "# The cost of a search",
        "",
        "In units of D, the time of five dense fits by plain skorch with its default iterators, in"
        " turns with the searches, on one thread: medians and ranges of seconds. A cell is a net"
        " with some of its weights removed at once and one epoch of retraining; the dense fit has"
        " ten epochs. With a cache and from it the scores were the same bit for bit, and where"
        " there is a row for it also those without one; with a cache there were five dense fits."
        " The script stops if not.",
        "",
        "| figure | data | rows | cost | range | turns | reach |",
        "|---|---|---|---|---|---|---|",
    ]
    found = ratios(table)
    found["part"] = part_of(found)
    for row in found.sort_values("part", kind="stable").itertuples():
        standard = is_standard(row.rows, row.candidates)
        reach = REACH.get((row.figure, row.data), "") if standard else ""
        shape = "" if row.figure.startswith("grid") else f", {row.candidates} x 5"
        lines.append(
            f"| {row.figure}{shape} | {row.data} | {row.rows:,} | **{row.median:.2f} D** |"
            f" {row.min:.2f}-{row.max:.2f} | {row.count} | {reach} |"
        )
    whole = table[(table.rows == table.rows.max()) & (table.turn == 0)].set_index("figure").seconds
    share = whole["hashing, loading"] / whole["grid 10 x 5"]
    by_jobs = {n: table[table.figure == f"n_jobs={n}"].seconds.to_numpy() for n in (1, 2)}
    faster = by_jobs[1] / by_jobs[2]
    lines += [
        "",
        f"Keys and the loading of entries took **{100 * share:.1f}%** of the search on"
        f" {table.rows.max():,} rows of 784 numbers (reach: 2%).",
        "",
        "Two processes against one, with a warm pool, on a search of"
        f" {np.median(by_jobs[1]):.0f} s: **{np.median(faster):.2f}** times faster"
        f" ({faster.min():.2f}-{faster.max():.2f} in"
        f" {len(faster)} turns; reach: 1.6).",
        "",
        "![Cost against rows and candidates](search_cost.png)",
        "",
        "By `python docs/benchmarks/search_cost.py`.",
        "",
    ]
    return "\n".join(lines)


def draw(table):
    """Draw seconds against rows and against candidates, with lines through the origin."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    searches = table[table.figure.str.startswith("grid")]
    medians = searches.groupby(["data", "rows", "candidates"]).seconds.median().reset_index()
    panels = [("rows", medians[(medians.data == "MNIST") & (medians.rows > 0)]),
              ("candidates", medians[medians.data == "tabular"])]  # fmt: skip
    for axes, (column, part) in zip(figure.subplots(1, 2), panels, strict=True):
        part = part.sort_values(column)
        x, seconds = part[column].to_numpy(float), part.seconds.to_numpy()
        slope, start = np.polyfit(x, seconds, 1) if len(x) > 1 else (seconds[0] / x[0], 0.0)
        axes.plot(x, seconds, "o", label="measured")
        axes.plot(x, start + slope * x, "-", label="straight line")
        axes.set(xlabel=column, ylabel="seconds of a search", title=part.data.iloc[0])
        axes.legend()
    return figure


def main():
    """Measure, or only report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="only write the page anew")
    parser.add_argument("--parts", nargs="+", default=["parallel", "cost", "sizes"],
                        help="what to measure anew; 'parallel' needs two free cores")  # fmt: skip
    parser.add_argument("--trial", action="store_true", help="few turns of short searches")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the results go")
    arguments = parser.parse_args()
    path = arguments.folder / "search_cost.csv"
    parts = {"parallel": measure_parallel, "cost": measure_cost, "sizes": measure_sizes}
    for part in [] if arguments.report else arguments.parts:
        torch.set_num_threads(1)
        rows = []
        for row in parts[part](arguments.trial):
            rows.append(row)
            print(row, flush=True)
        if path.exists():
            table = pd.read_csv(path)
            rows += table[part_of(table) != part].to_dict("records")
        pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
    table = pd.read_csv(path)
    (arguments.folder / "search_cost.md").write_text(report(table))
    draw(table).savefig(arguments.folder / "search_cost.png", dpi=120)


if __name__ == "__main__":
    main()
