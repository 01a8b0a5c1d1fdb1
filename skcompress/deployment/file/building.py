"""Build a predictor from what a file holds, none of which is trusted."""

import re
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import nn

from ...quantization.integers import IntegerModule
from .errors import check
from .interpreter import Interpreter
from .layout import Parts
from .predictor import RULES, InterpretedModule, LoadedClassifier, LoadedNet, LoadedRegressor
from .steps import read_steps

_LABELS = re.compile(r"[<>|][biufU]\d{1,4}|\|O")
# Rows at once, and bytes of labels.
_MAX_BATCH = 1 << 20
_MAX_LABELS = 1 << 26


def predictor(parts: Parts) -> Any:
    """Build the fitted predictor that a file holds."""
    about = parts.about
    if "operations" not in about:
        raise ValueError(
            "The file was saved with graph=False and cannot predict by itself. Pass the net that"
            " its weights are for: load(path, estimator=net)."
        )
    tensors = dict(parts.tensors)
    specs = read_specs(about.get("inputs"))
    steps = read_steps(about.get("steps", []), tensors, specs)
    loaded = _loaded(about)
    loaded._row_specs = specs
    loaded._about = {key: about[key] for key in about if key not in ("steps", "tensors")}
    names = [name for name, _, _ in specs]
    interpreter = Interpreter(about["operations"], len(specs), len(tensors))
    given = None if names[0] is None else names
    module: nn.Module = InterpretedModule(interpreter, tensors, list(tensors), given).eval()
    _check_output(interpreter, loaded, tensors)
    if "activations" in about:
        module = IntegerModule(module, parts.quantized, activation_ranges(about, parts))
    loaded.module_, loaded.masks_, loaded.quantized_ = module, parts.masks, parts.quantized
    loaded._input_names = None if names[0] is None else sorted(names)
    if names[0] is None and specs[0][2]:
        loaded.n_features_in_ = specs[0][2][0]
    if "names" in about:
        check(isinstance(about["names"], list), "its names of features are not a list")
        loaded.feature_names_in_ = np.array([str(n) for n in about["names"]], dtype=object)
    if not steps:
        return loaded
    last = "net"
    while last in dict(steps):
        last += "-"
    return Pipeline([*steps, (last, loaded)])


def _loaded(about: dict[str, Any]) -> LoadedNet:
    """Make the predictor itself, which has no module yet."""
    kind, batch = about.get("kind"), about.get("batch")
    check(kind in ("classifier", "regressor"), "it is neither a classifier nor a regressor")
    good = isinstance(batch, int) and batch != 0
    check(good, "it predicts no number of rows at once")
    assert isinstance(batch, int)
    check(about.get("rule") in RULES, "its outputs follow no known rule")
    loaded: LoadedNet
    if kind == "classifier":
        loaded = LoadedClassifier()
        loaded.classes_ = read_classes(about.get("classes"))
        threshold = about.get("threshold")
        check(threshold is None or isinstance(threshold, float), "its threshold is no number")
        loaded._threshold = threshold
    else:
        loaded = LoadedRegressor()
        loaded._target_ndim = 1 if about.get("columns") == 1 else 2
    loaded._rule = about["rule"]
    # skorch takes -1 for all rows at once.
    loaded._batch = min(batch if batch > 0 else _MAX_BATCH, _MAX_BATCH)
    return loaded


def _check_output(interpreter: Interpreter, loaded: LoadedNet, tensors: dict) -> None:
    """See on shapes alone that the operations give what the predictor needs."""
    n_rows = 2
    given = [
        torch.empty((n_rows, *shape), dtype=torch.from_numpy(np.empty(0, dtype)).dtype,
                    device="meta")
        for _, dtype, shape in loaded._row_specs
    ]  # fmt: skip
    output, share = interpreter.check(given, [tensor.to("meta") for tensor in tensors.values()])
    good = isinstance(output, torch.Tensor) and output.dim() > 0 and len(output) == n_rows
    check(good, "its operations give no prediction for each row")
    if isinstance(loaded, LoadedClassifier):
        wide = 1 if loaded._rule in ("sigmoid", "binary") else len(loaded.classes_)
        check(output.numel() == n_rows * wide, "it has not one output for each class")
        check(wide > 1 or len(loaded.classes_) == 2, "it has not one output for each class")
    # What a row takes does not depend on how many there are.
    loaded._batch = min(loaded._batch, int(n_rows / max(share, 1 / _MAX_BATCH)))


def read_specs(described: Any) -> list:
    """Check what a file says of its inputs."""
    good = isinstance(described, list) and 0 < len(described) <= 1000
    check(good, "it does not say what it takes")
    for spec in described:
        good = isinstance(spec, list) and len(spec) == 3
        good = good and (isinstance(spec[0], str) or (spec[0] is None and len(described) == 1))
        good = good and spec[1] in ("float32", "float64", "int64", "bool")
        good = good and isinstance(spec[2], list) and len(spec[2]) < 8
        good = good and all(type(n) is int and 0 <= n < 1 << 31 for n in spec[2])
        check(good, "it does not say what it takes")
    return described


def read_classes(described: Any) -> np.ndarray:
    """Build the labels that a file describes."""
    if type(described) is int:
        check(0 < described <= _MAX_LABELS // 8, f"it has {described} classes")
        return np.arange(described)
    good = isinstance(described, list) and len(described) == 2 and isinstance(described[0], str)
    good = good and _LABELS.fullmatch(described[0]) is not None and isinstance(described[1], list)
    good = good and all(isinstance(v, (bool, int, float, str)) for v in described[1])
    check(good, "its labels are neither numbers nor strings")
    size = np.dtype(described[0]).itemsize * len(described[1])
    check(size <= _MAX_LABELS, f"its labels take {size} bytes")
    return np.array(described[1], dtype=described[0])


def activation_ranges(about: dict[str, Any], parts: Parts) -> dict | None:
    """Check what a file says of the ranges of activations."""
    ranges = about["activations"]
    known = [q for q in parts.quantized.values() if q.format in ("symmetric", "affine")]
    check(len(known) == len(parts.quantized), "its weights are no integers")
    if ranges == "dynamic":
        return None
    good = isinstance(ranges, dict) and ranges.keys() == parts.quantized.keys()
    good = good and all(
        isinstance(r, list) and len(r) == 2 and all(isinstance(v, float) for v in r)
        for r in ranges.values()
    )
    check(good, "its ranges of activations are not known")
    return {name: (low, high) for name, (low, high) in ranges.items()}
