"""Tables and verdicts of the distillation benchmark, computed from its rows."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

DATA = {
    "digits": "scikit-learn's digits; student 64-12-10, large net 64-256-128-10",
    "tabular": "A generated table, 2,000 rows, a tenth of the labels wrong; student 20-8-4,"
    " large net 20-256-128-4",
}
ALONE = "student alone"


def best_settings(tuned):
    """Return the alpha and temperature of best mean accuracy, by teacher; ties by log loss."""
    means = tuned.groupby(["method", "alpha", "temperature"])[["accuracy", "log_loss"]].mean()
    means = means.reset_index().sort_values(["accuracy", "log_loss"], ascending=[False, True])
    best = means.groupby("method", sort=False).first()
    return {name: (row.alpha, row.temperature) for name, row in best.iterrows()}


def paired(rows, method, other, column="accuracy"):
    """Return the mean difference over folds and seeds and its 95% interval.

    The folds of a cross-validation share training rows: the variance is corrected as by Nadeau
    and Bengio, "Inference for the generalization error", 2003.
    """
    by_fold = rows.pivot(index=["seed", "fold"], columns="method", values=column)
    difference = (by_fold[method] - by_fold[other]).dropna()
    n, ratio = len(difference), (rows.n_test / rows.n_train).mean()
    half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) * np.sqrt(1 / n + ratio)
    mean = difference.mean()
    return mean, mean - half, mean + half


def interval(rows, method, other, column, scale):
    """Write a paired difference with its interval."""
    mean, low, high = (scale * value for value in paired(rows, method, other, column))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" if scale > 1 else (
        f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    )  # fmt: skip


def table(rows):
    """Return one line for each method: scores, differences from the student alone, costs."""
    lines = []
    for method, cell in rows.groupby("method", sort=False):
        line = {
            "method": method if method.startswith(("teacher", ALONE)) else f"taught by {method}",
            "alpha": "" if cell.alpha.max() == 0 else f"{cell.alpha.iloc[0]:g}",
            "T": "" if cell.alpha.max() == 0 else f"{cell.temperature.iloc[0]:g}",
            "accuracy, %": f"{100 * cell.accuracy.mean():.2f}",
            "log loss": f"{cell.log_loss.mean():.3f}",
            "points against alone": "",
            "log loss against alone": "",
        }
        if method != ALONE:
            line["points against alone"] = interval(rows, method, ALONE, "accuracy", 100)
            line["log loss against alone"] = interval(rows, method, ALONE, "log_loss", 1)
        line |= {
            "bytes": f"{cell.bytes.median():,.0f}",
            "µs, 1 row": f"{cell.us_1.median():,.0f}",
            "µs, 256 rows": f"{cell.us_256.median():,.0f}",
            "s to fit": f"{cell.seconds.median():.1f}",
        }
        lines.append(line)
    return pd.DataFrame(lines)


def markdown(frame):
    """Write a table in Markdown."""
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.values.tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def verdicts(rows):
    """Say for each teacher whether it helps, by its intervals."""
    lines = []
    taught = [m for m in rows.method.unique() if m != ALONE and not m.startswith("teacher")]
    for method in taught:
        says = []
        for column, sign in (("accuracy", 1), ("log_loss", -1)):
            _, *ends = paired(rows, method, ALONE, column)
            low, high = sorted(sign * end for end in ends)
            says.append("helps" if low > 0 else "harms" if high < 0 else "does not surely change")
        lines.append(f"- Teaching by {method} {says[0]} the accuracy and {says[1]} the log loss.")
    return "\n".join(lines) + "\n"


def write_report(folder):
    """Write distillation.md from the rows that are there."""
    text = [
        "# Distillation: students, teachers and what they cost\n",
        "Written by `python docs/benchmarks/distillation.py report` from the rows beside it. All"
        " nets have the same optimizer (Adam, 0.005), batches (64) and epochs (30); boosting and"
        " the forest (200 trees) have scikit-learn's defaults. The ensemble averages large net,"
        " forest and boosting. Alpha and temperature were chosen for each teacher among nine on one"
        " split of the same rows, by another seed; the student alone has neither. Soft labels are"
        " out of fold, except where it says in-sample. Means over as many folds as the headings"
        " say; differences are paired, and their 95% intervals corrected for the rows that folds"
        " share. Bytes of a net are those of its tensors, of other estimators those of their"
        " pickle; the ensemble's"
        " are all of its members' as pickled. Times are medians of `predict_proba` with one thread"
        " on a shared machine, a rough guide.\n",
    ]
    for data, title in DATA.items():
        path = Path(folder) / f"distillation_{data}.csv"
        if path.exists():
            rows = pd.read_csv(path)
            folds = len(rows[["seed", "fold"]].drop_duplicates())
            text += [f"## {title}; {folds} folds\n", markdown(table(rows)), verdicts(rows)]
    report = "\n".join(text)
    (Path(folder) / "distillation.md").write_text(report)
    print(report)
