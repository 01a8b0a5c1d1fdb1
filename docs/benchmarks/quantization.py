"""Accuracy of rounding weights to few bits: nearest, reconstructed and retrained.

    python docs/benchmarks/quantization.py run --data digits   # writes quantization_digits.csv
    python docs/benchmarks/quantization.py run --data mnist
    python docs/benchmarks/quantization.py report              # writes quantization.md

Every method starts from the same dense net of its fold. All settings are the library's defaults,
so there is none to choose. Rows are written as they come, and a second run goes on where the
first ended. The peer is onnxruntime's own static quantization: ``pip install onnx onnxruntime``.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data import dense_net, load, tensor_bytes
from pruning_report import DATA, markdown, paired
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold

from skcompress import QuantizedNet
from skcompress.training.isolation import isolated, seed_generators

HERE = Path(__file__).parent
SEED = 4
WIDTHS = (8, 4, 3, 2, 1)
EPOCHS = 5
METHODS = {
    "nearest": {},
    "reconstruct": {"rounding": "reconstruct"},
    "retrained": {"retrain_epochs": EPOCHS},
    "codebook, retrained": {"format": "codebook", "retrain_epochs": EPOCHS},
    "nearest, dynamic activations": {"activations": "dynamic"},
    "nearest, static activations": {"activations": "static"},
}
PEER = "onnxruntime, static"
# The dense net with the epochs that retraining has: at 16 bits nothing is rounded to speak of.
CONTROL = "trained on, not rounded"
# What the guide advises at a width, and the points that it may lose at most.
LIMITS = {8: ("nearest", 0.1), 4: ("reconstruct", 0.5), 2: ("retrained", 1.5)}


def ours(dense, X, y, bits, settings):
    """Quantize a fitted dense net."""
    return QuantizedNet(FrozenEstimator(dense), bits=bits, random_state=0, **settings).fit(X, y)


def onnx_static(dense, X, X_test):
    """Predict with onnxruntime's quantize_static, calibrated on all training rows."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Rows(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"X": part} for part in np.array_split(X, 10)])

        def get_next(self):
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "dense.onnx"), Path(folder, "int8.onnx")
        write_mlp(dense.module_, source)
        quantize_static(source, target, Rows(), weight_type=QuantType.QInt8, per_channel=True)
        session = onnxruntime.InferenceSession(target)
        return session.run(None, {"X": X_test})[0].argmax(1), target.stat().st_size


def write_mlp(module, path):
    """Write an MLP of linear layers and ReLUs as an ONNX graph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, name = [], [], "X"
    for i, layer in enumerate(module):
        if isinstance(layer, torch.nn.Linear):
            for kind, tensor in (("W", layer.weight.T), ("b", layer.bias)):
                array = np.ascontiguousarray(tensor.detach().numpy())
                tensors.append(numpy_helper.from_array(array, f"{kind}{i}"))
            nodes.append(helper.make_node("MatMul", [name, f"W{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], [f"y{i}"]))
        else:
            nodes.append(helper.make_node("Relu", [name], [f"y{i}"]))
        name = f"y{i}"
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", width])
        for n, width in (("X", module[0].in_features), (name, module[-1].out_features))
    ]
    graph = helper.make_graph(nodes, "mlp", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)


def run_fold(data, fold, X, y, train, test, path):
    """Run what is not in the file yet."""
    done = set()
    if path.exists():
        table = pd.read_csv(path)
        done = set(zip(table.fold, table.bits, table.method, strict=True))
    with isolated(n_threads=1):
        seed_generators(fold)
        dense = dense_net(data).fit(X[train], y[train])
        base = float((dense.predict(X[test]) == y[test]).mean())
        for bits, method in cells():
            if (fold, bits, method) in done:
                continue
            start = time.perf_counter()
            if method == PEER:
                predicted, size = onnx_static(dense, X[train], X[test])
            else:
                settings = METHODS["retrained" if method == CONTROL else method]
                fitted = ours(dense, X[train], y[train], bits, settings)
                predicted, size = fitted.predict(X[test]), tensor_bytes(fitted)
            seconds = round(time.perf_counter() - start, 2)
            accuracy = float((predicted == y[test]).mean())
            append(path, {"fold": fold, "bits": bits, "method": method, "accuracy": accuracy,
                          "dense": base, "bytes": size, "dense_bytes": tensor_bytes(dense),
                          "seconds": seconds})  # fmt: skip


def cells():
    """List widths and methods; integers for activations and the peer have 8 bits."""
    yield 16, CONTROL
    for bits in WIDTHS:
        for method in [*METHODS, PEER]:
            if bits == 8 or not ("activations" in method or method == PEER):
                yield bits, method


def append(path, row):
    """Add a row to a CSV file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def with_dense(rows):
    """Add the dense net as a method, so that differences can be paired by fold."""
    dense = rows[["fold", "dense"]].drop_duplicates().rename(columns={"dense": "accuracy"})
    return pd.concat([rows, dense.assign(method="dense")])


def table(rows):
    """Return for each width and method what is lost, and what it takes."""
    lines = []
    for bits in (16, *WIDTHS):
        for method in [*METHODS, PEER, CONTROL]:
            cell = rows[(rows.bits == bits) & (rows.method == method)]
            if cell.empty:
                continue
            mean, low, high = paired(with_dense(cell), method, "dense")
            lines.append({
                "bits": bits, "method": method, "accuracy, %": f"{100 * cell.accuracy.mean():.2f}",
                "difference from dense, points": f"{mean:+.2f}",
                "95% interval": f"[{low:+.2f}, {high:+.2f}]",
                "bytes": int(cell.bytes.median()),
                "times smaller": f"{(cell.dense_bytes / cell.bytes).median():.1f}",
                "seconds": f"{cell.seconds.median():.1f}",
            })  # fmt: skip
    return pd.DataFrame(lines)


def verdicts(rows):
    """Return what the advised method loses at each width, and against the control."""
    lines, control = [], rows[rows.method == CONTROL]
    for bits, (method, limit) in LIMITS.items():
        cell = rows[(rows.bits == bits) & (rows.method == method)]
        mean, low, high = paired(with_dense(cell), method, "dense")
        trained_on = paired(pd.concat([cell, control]), method, CONTROL)[0]
        lines.append({
            "bits": bits, "advised": method, "may lose, points": limit,
            "difference from dense": f"{mean:+.2f}", "95% interval": f"[{low:+.2f}, {high:+.2f}]",
            "within": "yes" if mean >= -limit else "no",
            "difference from dense, trained on": f"{trained_on:+.2f}" * (method == "retrained"),
        })  # fmt: skip
    return pd.DataFrame(lines)


def write_report():
    """Write quantization.md from the rows."""
    parts = [
        "# Quantization: accuracy by bits and rounding\n",
        "Written by `python docs/benchmarks/quantization.py report` from the rows beside it. Every"
        " method starts from the dense net of its fold; differences are paired over 5 folds. All"
        " settings are defaults; retraining takes"
        f" {EPOCHS} epochs with the dense net's own optimizer and rate, which the dense net has not"
        " had: part of what it gains is theirs, which the row of 16 bits shows. Sizes are those of"
        " all parameters, packed, which a file codes further; those of onnxruntime are of its file,"
        " graph included. Seconds are medians on a shared machine with one thread, a rough"
        " guide.\n",
    ]
    for data, title in DATA.items():
        rows = pd.read_csv(HERE / f"quantization_{data}.csv")
        folds = rows.drop_duplicates("fold").dense
        parts += [
            f"## {title}\n",
            f"The dense net has {100 * folds.mean():.2f} ± {100 * folds.std(ddof=1):.2f} % accuracy"
            f" and takes {int(rows.dense_bytes.iloc[0]):,} bytes.\n",
            markdown(verdicts(rows), index=False),
            markdown(table(rows), index=False),
        ]
    (HERE / "quantization.md").write_text("\n".join(parts), encoding="utf-8")


def main():
    """Run one step of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["run", "report"])
    parser.add_argument("--data", choices=list(DATA), default="digits")
    arguments = parser.parse_args()
    if arguments.step == "report":
        write_report()
        return
    X, y = load(arguments.data)[1]
    path = HERE / f"quantization_{arguments.data}.csv"
    splits = StratifiedKFold(5, shuffle=True, random_state=SEED).split(X, y)
    for fold, (train, test) in enumerate(splits):
        run_fold(arguments.data, fold, X, y, train, test, path)


if __name__ == "__main__":
    main()
