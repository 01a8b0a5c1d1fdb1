"""The smallest file: LeNets on MNIST, the whole file counted.

    python docs/benchmarks/file.py choose --net LeNet-300-100   # writes file_choose.csv
    python docs/benchmarks/file.py final --net LeNet-300-100    # writes file.csv
    python docs/benchmarks/file.py report                       # writes file.md

`choose` tries densities with a seed of its own and looks at validation rows only; `final` takes for
three other seeds the least density that reaches each goal there. The method is that of recipe.py.
Bytes are those of the file that ``save`` writes; the error is that of what ``load`` returns. With
`--keep FOLDER` the files stay, and the integers as the net had them, for file_peer.py.
"""

import argparse
import lzma
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from lenets import NETS, error, load_parts
from pruning_report import markdown
from quantization import append
from recipe import compress, fit_dense

from skcompress import load, save
from skcompress.training.isolation import isolated

HERE = Path(__file__).parent
CHOOSE_SEED, FINAL_SEEDS = 100, (0, 1, 2)
DENSITIES = {"LeNet-300-100": (0.02, 0.025), "LeNet-5": (0.0075, 0.008, 0.0085, 0.01, 0.015)}
# Epochs of pruning and of rounding: five minutes of one core, about.
EPOCHS = {"LeNet-300-100": (64, 8), "LeNet-5": (10, 3)}
RATES = {"LeNet-300-100": 0.006, "LeNet-5": 0.004}
BITS, FLOAT_BITS = 3, 12
# Points of validation error above the dense net's that count as no loss when choosing, and the
# validation error that is to give 1.0% on other rows.
MARGIN, ONE_PERCENT = 0.1, 0.95
GOALS = {"LeNet-300-100": ("no loss",), "LeNet-5": ("no loss", "1.0% error")}
REACH = {
    ("LeNet-300-100", "no loss"): 130, ("LeNet-5", "no loss"): 220, ("LeNet-5", "1.0% error"): 450,
}  # fmt: skip
# Bytes of the weights alone, and test errors in percent, as published; counts are not comparable.
PUBLISHED = [
    ("LeNet-300-100", "Deep Compression (Han 2016)", "40x", 1.58),
    ("LeNet-300-100", "Bayesian Compression (Louizos 2017)", "58x", None),
    ("LeNet-300-100", "Oktay 2020", "124x", 1.9),
    ("LeNet-5", "Deep Compression (Han 2016)", "39x", 0.74),
    ("LeNet-5", "Bayesian Compression (Louizos 2017)", "419x", 1.0),
    ("LeNet-5", "Oktay 2020", "606x", 1.0),
    ("LeNet-5", "MIRACLE (Havasi 2019)", "1110x", 0.96),
]


def dense_bytes(dense):
    """Count the bytes of the dense net's parameters."""
    return sum(p.numel() * p.element_size() for p in dense.module_.parameters())


def integers(quantized):
    """Return the integers of the weights, by name."""
    tensors = quantized.quantized_.items()
    return {n: (t.grid.levels[t.codes] * t.mask).numpy().astype(np.int8) for n, t in tensors}


def standard_coders(quantized):
    """Return the bytes of the same integers, a byte each, in standard coders."""
    raw = b"".join(weights.tobytes() for weights in integers(quantized).values())
    return {"zlib": len(zlib.compress(raw, 9)), "lzma": len(lzma.compress(raw, preset=9))}


def cell(name, dense, density, seed, parts, folder):
    """Compress one net, save and load it, and return what was measured."""
    train, valid, test = parts
    start, cpu = time.perf_counter(), time.process_time()
    epochs, rounding = EPOCHS[name]
    _, quantized = compress(
        dense, train, density, RATES[name], epochs, seed, BITS, rounding, FLOAT_BITS
    )
    path = Path(folder) / f"{name}_{density}_{seed}.skc"
    save(quantized, path)
    np.savez(path.with_suffix(".npz"), **integers(quantized))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    size, loaded = path.stat().st_size, load(path)
    return {
        "net": name, "seed": seed, "density": density,
        "dense_valid": error(dense, valid), "dense_test": error(dense, test),
        "valid": error(loaded, valid), "test": error(loaded, test),
        "dense_bytes": dense_bytes(dense), "bytes": size, **standard_coders(quantized),
        "seconds": round(seconds), "cpu": round(cpu),
    }  # fmt: skip


def run(name, seed, densities, path, parts, folder):
    """Run the densities that are not in the file yet for one seed."""
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["net", "seed", "density"])
    done = set(rows[(rows.net == name) & (rows.seed == seed)].density)
    left = [density for density in densities if density not in done]
    if not left:
        return
    with isolated(n_threads=1):
        dense = fit_dense(name, seed)
        for density in left:
            append(path, cell(name, dense, density, seed, parts, folder))


def chosen(name, goal):
    """Return the least density that reaches a goal on validation rows, or the greatest there is."""
    rows = pd.read_csv(HERE / "file_choose.csv")
    rows = rows[rows.net == name]
    limit = rows.dense_valid + MARGIN if goal == "no loss" else ONE_PERCENT
    good = rows[rows.valid <= limit]
    return good.density.min() if len(good) else rows.density.max()


def line(name, goal, rows):
    """Return one line of the table: the rows of the density that was chosen for a goal."""
    rows = rows[(rows.net == name) & (rows.density == chosen(name, goal))]
    dense, file = rows.dense_test.mean(), rows.test.mean()
    limit = dense + 0.15 if goal == "no loss" else 1.0
    smaller = (rows.dense_bytes / rows.bytes).mean()
    reached = file <= limit and smaller >= REACH[name, goal]
    return {
        "net": name, "goal": goal, "density": rows.density.iloc[0], "seeds": len(rows),
        "dense, test error %": f"{dense:.2f}",
        "file, test error %": f"{file:.2f} ± {rows.test.std(ddof=1):.2f}",
        "bytes of the file": f"{rows.bytes.mean():,.0f}", "times smaller": f"{smaller:.0f}",
        "to reach": REACH[name, goal], "reached": "yes" if reached else "no",
        "int8 + zlib": f"{rows.zlib.mean():,.0f}", "int8 + lzma": f"{rows.lzma.mean():,.0f}",
        "CPU seconds": int(rows.cpu.median()),
    }  # fmt: skip


def write_report():
    """Write file.md from the rows."""
    rows = pd.read_csv(HERE / "file.csv")
    lines = [line(name, goal, rows) for name in rows.net.unique() for goal in GOALS[name]]
    published = pd.DataFrame(
        [["–" if value is None else value for value in row] for row in PUBLISHED],
        columns=["net", "source", "times smaller", "test error %"],
    )
    (HERE / "file.md").write_text("\n".join([
        "# The smallest file\n",
        "Written by `python docs/benchmarks/file.py report` from the rows beside it. MNIST, 50,000"
        " rows to train, 10,000 to choose the density, its own test rows to report. No loss: the"
        " mean error is at most 0.15 point above the dense nets'. Bytes are those of the whole"
        " file, and errors those of what `load` returns. Columns of standard coders have the same"
        " integers as bytes, without biases or anything else. CPU seconds are those of pruning,"
        f" rounding and saving on one core, after the dense fit; weights have {BITS} bits, biases"
        f" {FLOAT_BITS}.\n",
        markdown(pd.DataFrame(lines), index=False),
        "\nPublished results; what they count as bytes differs, and leaves out the graph.\n",
        markdown(published, index=False), "",
    ]), encoding="utf-8")  # fmt: skip


def main():
    """Run one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["choose", "final", "report"])
    parser.add_argument("--net", choices=list(NETS), default="LeNet-300-100")
    parser.add_argument("--keep", type=Path, help="folder where the files stay")
    arguments = parser.parse_args()
    if arguments.step == "report":
        write_report()
        return
    name, parts = arguments.net, load_parts()
    with TemporaryDirectory() as folder:
        folder = arguments.keep or folder
        if arguments.step == "choose":
            run(name, CHOOSE_SEED, DENSITIES[name], HERE / "file_choose.csv", parts, folder)
            return
        densities = sorted({chosen(name, goal) for goal in GOALS[name]})
        for seed in FINAL_SEEDS:
            run(name, seed, densities, HERE / "file.csv", parts, folder)


if __name__ == "__main__":
    main()
