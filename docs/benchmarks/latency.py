"""Latency of deployed nets, as ratios to skorch's predict_proba on the dense net.

    python docs/benchmarks/latency.py            # measures, writes latency.csv and latency.md
    python docs/benchmarks/latency.py --only LSTM  # one net anew, the others as they were
    python docs/benchmarks/latency.py --report   # writes latency.md from latency.csv
    python docs/benchmarks/latency.py --trial    # few rows, epochs and repeats; prints, writes none

One thread. Each round calls every candidate, in a random order, so that what else runs on the
machine disturbs all of them alike, and none always comes after the same other one. A deployed net
is called as an estimator, checks included; the peers are called as they are, with inputs that are
checked and converted beforehand.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from data import MLP, load_mnist
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet, QuantizedNet, deploy
from skcompress.deployment.onnx.model import to_onnx
from skcompress.deployment.runtime.forms import forms

HERE = Path(__file__).parent
BATCHES = (1, 32, 1024)
# The very graph that our estimator runs, by onnxruntime alone: what there is to reach here.
GRAPH = "its graph alone"
# Net, how it is compressed, and the ratios to reach at batches of 1, 32 and 1024 rows.
CASES = [
    ("MLP 784-300-100-10", "int8", (8, 12, 12)),
    ("MLP 784-300-100-10", "half, int8", (10, 16, 18)),
    ("MLP 1024-1024-1024-10", "half, int8", (10, 18, 16)),
    ("CNN", "as it is", (10, 7, 5)),
    ("CNN", "half", (13, 10, 6)),
    ("LSTM(128)", "half, int8", (8, 3, 2)),
]


class CNN(nn.Sequential):
    """Two convolutions with pooling, and two linear layers, for images of 28 x 28."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip


class LSTM(nn.Module):
    """A recurrent layer that is read at its last step."""

    def __init__(self, n_inputs=16, hidden=128, n_outputs=4):
        super().__init__()
        self.layer = nn.LSTM(n_inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, n_outputs)

    def forward(self, X):
        return self.head(self.layer(X)[0][:, -1])


def sequences(n_rows, seed=0):
    """Return noise of 100 steps and 16 features, with a pulse somewhere that tells the class."""
    rng = np.random.default_rng(seed)
    pulses = np.random.default_rng(1).normal(size=(4, 5, 16))
    X, y = rng.normal(size=(n_rows, 100, 16)), rng.integers(4, size=n_rows)
    for row, label, start in zip(X, y, rng.integers(60, 95, size=n_rows), strict=True):
        row[start : start + 5] += 2 * pulses[label]
    return X.astype(np.float32), y


def rows_of(net, trial):
    """Return rows to fit and rows to test."""
    n_fit, n_test = (3000, 2000) if trial else (50_000, 10_000)
    if net.startswith("LSTM"):
        n_fit = min(n_fit, 8000)
        X, y = sequences(n_fit + n_test)
    else:
        X, y = load_mnist()
        X = X.reshape(-1, 1, 28, 28) if net == "CNN" else X
        X, y = (np.concatenate([a[:n_fit], a[60_000 : 60_000 + n_test]]) for a in (X, y))
        if "1024" in net:
            X = np.pad(X, ((0, 0), (120, 120)))
    return (X[:n_fit], y[:n_fit]), (X[n_fit:], y[n_fit:])


def dense_net(net, trial):
    """Return the unfitted dense net."""
    modules = {
        "MLP 784-300-100-10": (MLP, {"n_inputs": 784, "hidden": (300, 100)}),
        "MLP 1024-1024-1024-10": (MLP, {"n_inputs": 1024, "hidden": (1024, 1024)}),
        "CNN": (CNN, {}),
        "LSTM(128)": (LSTM, {}),
    }
    module, params = modules[net]
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, train_split=None,
        iterator_train__shuffle=True, verbose=0, lr=0.002 if "LSTM" in net else 0.001,
        batch_size=128, max_epochs=2 if trial else 10,
        **{f"module__{name}": value for name, value in params.items()},
    )  # fmt: skip


def compressed(dense, how, trial):
    """Return the unfitted estimator that is deployed, around the very net it is compared with."""
    if how == "as it is":
        return dense
    estimator = FrozenEstimator(dense)
    if "half" in how:
        estimator = PrunedNet(
            estimator, granularity="unit", sparsity=0.5, scope="layer",
            retrain_epochs=1 if trial else 5, random_state=0,
        )  # fmt: skip
    if "int8" not in how:
        return estimator
    # A recurrent layer would run step by step with ranges of its own; onnxruntime has a kernel.
    activations = None if dense.module is LSTM else "static"
    return QuantizedNet(estimator, activations=activations, random_state=0)


def session_call(model):
    """Return onnxruntime's prediction, all rows in one call and nothing checked."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    name = session.get_inputs()[0].name
    return lambda X: session.run(None, {name: X})[0]


def openvino_call(graph):
    """Return OpenVINO's prediction, compiled for each number of rows, without copies."""
    import openvino

    core, requests = openvino.Core(), {}
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}

    def call(X):
        if len(X) not in requests:
            model = core.read_model(graph.SerializeToString(), b"")
            model.reshape(X.shape)
            requests[len(X)] = core.compile_model(model, "CPU", settings).create_infer_request()
        return requests[len(X)].infer({0: X}, share_inputs=True, share_outputs=True)[0]

    return call


def peers(dense, X, *, compile):
    """Return calls of other runtimes on the dense net, by name."""
    plain = to_onnx(dense, X[:2], labels=False)
    calls = {}
    for name, make in forms(plain, {"X": X[:2000]}).items():
        model = make()
        if model is not None:
            calls[f"onnxruntime {name}"] = session_call(model.SerializeToString())
    if find_spec("openvino") is None:
        print("OpenVINO is not installed")
    else:
        calls["OpenVINO"] = openvino_call(plain)
    module = dense.module_.eval()

    def eager(X, module=module):
        with torch.inference_mode():
            return module(torch.from_numpy(X)).softmax(1).numpy()

    calls["torch"] = eager
    if compile:
        fast = torch.compile(module, dynamic=True)
        calls["torch.compile"] = lambda X: eager(X, fast)
    return calls


def timed(calls, X, n_rounds):
    """Return the seconds of every call in every round."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call(X), call(X)
    # Whoever comes after torch finds caches and clock as it left them.
    rng = np.random.default_rng(0)
    for _ in range(n_rounds):
        for name in rng.permutation(list(calls)):
            call = calls[name]
            call(X)
            start = time.perf_counter()
            call(X)
            times[name].append(time.perf_counter() - start)
    return {name: np.array(t) for name, t in times.items()}


def measure(args):
    """Yield a record for each case, candidate and batch size."""
    fitted = {}
    for net, how, reach in CASES:
        if args.only and args.only not in net:
            continue
        train, test = rows_of(net, args.trial)
        if net not in fitted:
            dense = dense_net(net, args.trial).fit(*train)
            fitted[net] = dense, peers(dense, train[0], compile=args.compile)
        dense, others = fitted[net]
        estimator = compressed(dense, how, args.trial)
        estimator = estimator if estimator is dense else estimator.fit(*train)
        for batch, target in zip(BATCHES, reach, strict=True):
            deployed = deploy(estimator, train[0][:2000], batch_sizes=[batch])
            print(net, how, batch, deployed.message_)
            accuracy = [float((e.predict(test[0]) == test[1]).mean()) for e in (dense, deployed)]
            calls = {"skorch": dense.predict_proba, "skcompress": deployed.predict_proba}
            calls |= {GRAPH: session_call(deployed.content.model), **others}
            times = timed(calls, test[0][:batch].copy(), args.rounds if batch < 1000 else 20)
            for name, seconds in times.items():
                low, ratio, high = np.percentile(times["skorch"] / seconds, [25, 50, 75])
                yield {
                    "net": net, "compression": how, "batch": batch, "candidate": name,
                    "form": deployed.form_ if name == "skcompress" else "",
                    "microseconds": round(1e6 * float(np.median(seconds)), 1),
                    "ratio": round(float(ratio), 2),
                    "ratio_low": round(float(low), 2), "ratio_high": round(float(high), 2),
                    "reach": target if name == "skcompress" else "",
                    "accuracy_dense": round(accuracy[0], 4),
                    "loss_points": round(100 * (accuracy[0] - accuracy[1]), 2),
                }  # fmt: skip


def report(records):
    """Write the table of the guide."""
    ours = records[records.candidate == "skcompress"]
    lines = [
        "# Latency\n",
        "Ratios to skorch's `predict_proba` on the dense net, one thread: medians and quartiles"
        " over rounds of all candidates in a random order, for nets deployed for that batch size;"
        " beside them, those of the very graph that our estimator runs, all rows in one call of"
        " onnxruntime, without checks. Points lost are against the same dense net."
        " `docs/benchmarks/latency.py` prints them.\n",
        f"| net | compression | form | batch | ratio | quartiles | {GRAPH} | to reach |"
        " points lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    graph = records[records.candidate == GRAPH].ratio
    lines += [
        f"| {r.net} | {r.compression} | {r.form} | {r.batch} | {r.ratio} |"
        f" {r.ratio_low} to {r.ratio_high} | {alone} | {r.reach:g} | {r.loss_points} |"
        for r, alone in zip(ours.itertuples(), graph, strict=True)
    ]
    table = records.drop_duplicates(["net", "batch", "candidate"])
    table = table[~table.candidate.isin(["skorch", "skcompress", GRAPH])]
    table = table.pivot(index=["net", "batch"], columns="candidate", values="ratio")
    lines += ["\nPeers on the dense net:\n", "| net | batch | " + " | ".join(table) + " |"]
    lines += ["|" + "---|" * (2 + len(table.columns))]
    for (net, batch), row in table.iterrows():
        lines += [f"| {net} | {batch} | " + " | ".join(map(_ratio, row)) + " |"]
    return "\n".join(lines) + "\n"


def _ratio(value):
    """Write a ratio; a peer need not have a form for every net."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def main():
    """Measure, or report what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--only", help="part of a net's name")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        records = pd.DataFrame(measure(args))
        if args.trial:
            print(report(records))
            return
        if args.only:
            before = pd.read_csv(HERE / "latency.csv")
            records = pd.concat([before[~before.net.isin(records.net)], records])
        records.to_csv(HERE / "latency.csv", index=False)
    (HERE / "latency.md").write_text(report(pd.read_csv(HERE / "latency.csv")))


if __name__ == "__main__":
    main()
