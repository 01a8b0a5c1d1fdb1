"""The smallest file at no loss: LeNets on MNIST, the whole file counted.

    python docs/benchmarks/file.py choose --net LeNet-300-100   # writes file_choose.csv
    python docs/benchmarks/file.py final --net LeNet-300-100    # writes file.csv
    python docs/benchmarks/file.py report                       # writes file.md

`choose` tries densities with a seed of its own and looks at validation rows only; `final` takes for
three other seeds the least density that loses at most the margin there. The recipe is that of
recipe.py. Bytes are those of the file that ``save`` writes; the error is that of what ``load``
returns.
"""

import argparse
import lzma
import tempfile
import time
import zlib
from pathlib import Path

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
DENSITIES = {"LeNet-300-100": (0.01, 0.015, 0.02, 0.03), "LeNet-5": (0.005, 0.01, 0.02)}
EPOCHS = {"LeNet-300-100": 40, "LeNet-5": 20}
RATE = 0.004
# Points of validation error above the dense net's that count as no loss.
MARGIN = 0.1
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


def standard_coders(quantized):
    """Return bits per weight of the same integers as bytes, in standard coders and in the file."""
    weights = [t.grid.levels[t.codes] * t.mask for t in quantized.quantized_.values()]
    raw = b"".join(w.numpy().astype(np.int8).tobytes() for w in weights)
    return {"zlib": len(zlib.compress(raw, 9)), "lzma": len(lzma.compress(raw, preset=9))}


def cell(name, dense, density, epochs, seed, parts):
    """Compress one net, save and load it, and return what was measured."""
    train, valid, test = parts
    start = time.perf_counter()
    _, quantized = compress(dense, train, density, RATE, epochs, seed)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.skc"
        save(quantized, path)
        size, loaded = path.stat().st_size, load(path)
    return {
        "net": name, "seed": seed, "density": density, "epochs": epochs,
        "dense_valid": error(dense, valid), "dense_test": error(dense, test),
        "valid": error(loaded, valid), "test": error(loaded, test),
        "dense_bytes": dense_bytes(dense), "bytes": size, **standard_coders(quantized),
        "seconds": round(seconds),
    }  # fmt: skip


def run(name, seed, densities, path, parts):
    """Run the densities that are not in the file yet for one seed."""
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["net", "seed", "density"])
    done = set(rows[(rows.net == name) & (rows.seed == seed)].density)
    left = [density for density in densities if density not in done]
    if not left:
        return
    with isolated(n_threads=1):
        dense = fit_dense(name, seed, parts[0])
        for density in left:
            append(path, cell(name, dense, density, EPOCHS[name], seed, parts))


def chosen(name):
    """Return the least density at no loss on validation rows, or the greatest there is."""
    rows = pd.read_csv(HERE / "file_choose.csv")
    rows = rows[rows.net == name]
    good = rows[rows.valid <= rows.dense_valid + MARGIN]
    return good.density.min() if len(good) else rows.density.max()


def write_report():
    """Write file.md from the rows."""
    rows = pd.read_csv(HERE / "file.csv")
    lines = []
    for (name, density), group in rows.groupby(["net", "density"]):
        lines.append({
            "net": name, "density": density, "seeds": len(group),
            "dense, test error %": f"{group.dense_test.mean():.2f}",
            "file, test error %": f"{group.test.mean():.2f} ± {group.test.std(ddof=1):.2f}",
            "bytes of the file": f"{group.bytes.mean():,.0f}",
            "times smaller": f"{(group.dense_bytes / group.bytes).mean():.0f}",
            "int8 + zlib": f"{group.zlib.mean():,.0f}", "int8 + lzma": f"{group.lzma.mean():,.0f}",
            "seconds": int(group.seconds.median()),
        })  # fmt: skip
    published = pd.DataFrame(
        [["–" if value is None else value for value in row] for row in PUBLISHED],
        columns=["net", "source", "times smaller", "test error %"],
    )
    (HERE / "file.md").write_text("\n".join([
        "# The smallest file at no loss\n",
        "Written by `python docs/benchmarks/file.py report` from the rows beside it. MNIST, 50,000"
        " rows to train, 10,000 to choose the density, its own test rows to report. Bytes are"
        " those of the whole file, and errors those of what `load` returns. The last columns have"
        " the same integers as bytes, without biases or anything else.\n",
        markdown(pd.DataFrame(lines), index=False),
        "\nPublished results; what they count as bytes differs, and leaves out the graph.\n",
        markdown(published, index=False),
    ]), encoding="utf-8")  # fmt: skip


def main():
    """Run one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["choose", "final", "report"])
    parser.add_argument("--net", choices=list(NETS), default="LeNet-300-100")
    arguments = parser.parse_args()
    if arguments.step == "report":
        write_report()
        return
    name, parts = arguments.net, load_parts()
    if arguments.step == "choose":
        run(name, CHOOSE_SEED, DENSITIES[name], HERE / "file_choose.csv", parts)
        return
    for seed in FINAL_SEEDS:
        run(name, seed, [chosen(name)], HERE / "file.csv", parts)


if __name__ == "__main__":
    main()
