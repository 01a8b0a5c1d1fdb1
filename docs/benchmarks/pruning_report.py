"""Tables and verdicts of the pruning benchmark, computed from its rows."""

from pathlib import Path

import numpy as np
import pandas as pd
from methods import METHODS, OURS, PEER_RATES, PEERS, RATES
from scipy import stats

DATA = {"digits": "scikit-learn's digits, MLP 64-100-50-10",
        "mnist": "10,000 rows of MNIST, MLP 784-300-100-10"}  # fmt: skip
MARGIN = 0.2


def best_rates(tuned):
    """Return the learning rate of best mean accuracy, by method and sparsity."""
    means = tuned.groupby(["method", "sparsity", "lr"]).accuracy.mean().reset_index()
    best = means.loc[means.groupby(["method", "sparsity"]).accuracy.idxmax()]
    return dict(zip(zip(best.method, best.sparsity, strict=True), best.lr, strict=True))


def paired(rows, method, other):
    """Return the mean difference over folds in points and its 95% t interval."""
    by_fold = rows.pivot(index="fold", columns="method", values="accuracy")
    difference = 100 * (by_fold[method] - by_fold[other]).dropna()
    mean, n = difference.mean(), len(difference)
    half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def accuracy_table(rows):
    """Return mean accuracy in percent and its spread over folds, methods by sparsities."""
    groups = rows.groupby(["method", "sparsity"]).accuracy
    cells = groups.agg(lambda a: f"{100 * a.mean():.2f} ± {100 * a.std(ddof=1):.2f}")
    table = cells.unstack("sparsity").reindex(m for m in METHODS if m in set(rows.method))
    return table.fillna("–")


def seconds_column(rows):
    """Return the median seconds of a method's cells, which share a busy machine."""
    return rows.groupby("method").seconds.median().map("{:.1f}".format)


def verdicts(rows):
    """Compare the defaults with the better of the tuned peers at each sparsity."""
    lines = []
    for (epochs, sparsity), cell in rows.groupby(["epochs", "sparsity"]):
        means = cell.groupby("method").accuracy.mean()
        peer = means[list(PEERS)].idxmax()
        mean, low, high = paired(cell, OURS, peer)
        lines.append({
            "epochs": epochs, "sparsity": sparsity, "best peer": peer,
            "difference, points": f"{mean:+.2f}", "95% interval": f"[{low:+.2f}, {high:+.2f}]",
            "not worse by 0.2": "yes" if mean >= -MARGIN else "no",
            "interval above zero": "yes" if low > 0 else "no",
        })  # fmt: skip
    return pd.DataFrame(lines)


def markdown(table, index=True):
    """Write a table in Markdown."""
    table = table.reset_index() if index else table
    lines = [[str(c) for c in table.columns], ["---"] * len(table.columns)]
    lines += [[str(v) for v in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def complete(cells):
    """Keep the methods that have all folds of all cells; return the names of the others too.

    Cells are run in the order of their sparsities, and one that a method cannot reach is in no
    fold: a method is through when it has the highest sparsity.
    """
    n_folds = cells[cells.method == OURS].fold.nunique()
    counts = cells.groupby(["method", "sparsity"]).fold.nunique().unstack("sparsity")
    done = counts.index[(counts.min(axis=1) == n_folds) & counts[cells.sparsity.max()].notna()]
    rest = [name for name in METHODS if name not in done]
    return cells[cells.method.isin(done)], rest


def listed(rates):
    """Write rates as words."""
    *first, last = [f"{rate:g}" for rate in rates]
    return f"{', '.join(first)} or {last}"


def section(data, rows):
    """Write the part of a data set."""
    dense = 100 * rows.groupby("fold").dense_accuracy.first()
    parts = [
        f"## {DATA[data]}\n",
        f"The dense net has {dense.mean():.2f} ± {dense.std(ddof=1):.2f} % accuracy"
        f" (mean and standard deviation over {len(dense)} folds).\n",
        "### The defaults against torch.nn.utils.prune\n",
        "The peer may choose its learning rate and whether it stays constant or falls as a"
        " cosine; the better of the two is taken at each sparsity. Differences are paired by"
        " fold. torch's pruning sets all its masks at once, so where the row `one-shot, magnitude`"
        " below is as good as torch's, the gain is that of the gradual schedule.\n",
        markdown(verdicts(rows), index=False),
    ]
    for epochs, cells in rows.groupby("epochs"):
        cells, rest = complete(cells)
        table = accuracy_table(cells).assign(seconds=seconds_column(cells))
        parts += [f"### Accuracy in percent, {epochs} epochs of retraining\n", markdown(table)]
        refused = [name for name in rest if name not in set(rows.method)]
        missing = [name for name in rest if name not in refused]
        if refused:
            parts.append(
                f"Refused by PrunedNet before training, as its error explains: {'; '.join(refused)}"
                " (exact OBS is for layers of a few hundred inputs).\n"
            )
        if missing:
            parts.append(f"Without rows for all of the cells yet: {'; '.join(missing)}.\n")
    return "\n".join(parts)


def write_report(folder):
    """Write pruning.md from the rows that are there."""
    text = [
        "# Pruning: accuracy by method\n",
        "Written by `python docs/benchmarks/pruning.py report` from the rows beside it. Every"
        " method starts from the same dense net of its fold, with the same optimizer (Adam) and"
        " the same epochs. Each but the defaults has the best of several learning rates, chosen"
        f" on another split (digits) or other rows (MNIST): {listed(RATES)} times the dense net's,"
        f" for torch's pruning {listed(PEER_RATES)} times, since the defaults take 5."
        " `units` and the small dense net have"
        " as many weights as the others keep; the small net trains for all of the dense and the"
        " retraining epochs. A method that cannot reach a size shows a dash. Seconds are medians"
        " on a shared machine with one thread, a rough guide.\n",
    ]
    for data in DATA:
        path = Path(folder) / f"pruning_{data}.csv"
        if path.exists():
            text.append(section(data, pd.read_csv(path)))
    report = "\n".join(text)
    (Path(folder) / "pruning.md").write_text(report)
