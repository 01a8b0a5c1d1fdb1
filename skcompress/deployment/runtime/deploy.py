"""deploy: the form of a fitted net that predicts fastest on this machine."""

import time
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier
from skorch.dataset import get_len
from skorch.utils import multi_indexing

from ..._sklearn import Interval, validate_parameter_constraints
from ...prediction import winners
from ..onnx.fitted import Fitted, fitted, unwrapped
from .predictor import Content, Deployed, DeployedClassifier, DeployedRegressor

# By how much integers must be faster than floating point, which is exact, to be kept: what lies
# below is within the noise of such measurements.
MARGIN = 0.95
CONSTRAINTS = {
    "batch_sizes": ["array-like"],
    "tolerance": [Interval(Real, 0, None, closed="left")],
    "n_threads": [Interval(Integral, 1, None, closed="left")],
    "n_repeats": [Interval(Integral, 1, None, closed="left")],
    "verbose": ["verbose"],
}


def deploy(
    estimator: Any,
    X: Any,
    *,
    batch_sizes: Sequence[int] = (1,),
    tolerance: float = 0.003,
    n_threads: int = 1,
    n_repeats: int = 50,
    verbose: int | bool = 0,
) -> Any:
    """Return a fitted predictor on onnxruntime, in the form that is fastest on this machine.

    Tried are floating point ("fp32"), 8-bit integers with ranges that each batch gives ("int8
    dynamic") or that `X` gave ("int8 static"), and, where ``QuantizedNet`` rounds activations,
    its own integers ("int8 as fitted"). Convolutions whose channels are no multiple of 16, as
    after the removal of some, are also tried with channels of zeros added ("fp32 padded", "int8
    dynamic padded"), for which onnxruntime has a faster way. Those whose predictions for `X` stay
    within the tolerance are timed in turns, and the fastest one is kept: by the geometric mean over
    the batch sizes.

    Parameters
    ----------
    estimator : object
        Fitted, as ``export_onnx`` takes it.
    X : array-like, dict of arrays or frame
        Rows like those to be predicted, some hundreds of them: ranges are measured on them, and
        predictions compared.
    batch_sizes : sequence of int, default=(1,)
        Numbers of rows per call that matter.
    tolerance : float >= 0, default=0.003
        For a classifier, the share of rows in `X` whose predicted label may differ from the
        estimator's; for a regressor, the root mean squared difference, as a part of the standard
        deviation of the estimator's predictions.
    n_threads : int >= 1, default=1
        Threads of a call.
    n_repeats : int >= 1, default=50
        Timed calls of each form and batch size.
    verbose : int or bool, default=0
        Print the message if positive.

    Returns
    -------
    deployed : DeployedClassifier or DeployedRegressor
        With ``predict``, ``predict_proba`` and ``classes_``. It pickles. ``form_`` is the form
        kept, ``report_`` a frame of what was measured, ``message_`` what that means in words.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As ``export_onnx``.
    ImportError
        If the packages of the extra ``onnx`` are not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress import PrunedNet, deploy
    >>> X = np.random.RandomState(0).randn(200, 8).astype("float32")
    >>> y = np.where(X[:, 0] > 0, "right", "left")
    >>> class MLP(nn.Sequential):
    ...     def __init__(self, hidden=32):
    ...         super().__init__(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    >>> net = NeuralNetClassifier(MLP, criterion=nn.CrossEntropyLoss, train_split=None)
    >>> pruned = PrunedNet(net, granularity="unit", random_state=0).fit(X, y)
    >>> deployed = deploy(pruned, X)
    >>> bool((deployed.predict(X) == pruned.predict(X)).mean() >= 0.997)
    True
    """
    given = {"batch_sizes": batch_sizes, "tolerance": tolerance, "n_threads": n_threads}
    given |= {"n_repeats": n_repeats, "verbose": verbose}
    validate_parameter_constraints(CONSTRAINTS, given, caller_name="deploy")
    sizes = [int(n) for n in batch_sizes]
    if not sizes or min(sizes) < 1:
        raise ValueError(f"batch_sizes needs numbers of rows, at least 1; got {batch_sizes!r}.")
    candidates = _candidates(estimator, X, n_threads)
    differences = {name: _difference(estimator, c, X) for name, c in candidates.items()}
    kept = {n: c for n, c in candidates.items() if n == "fp32" or differences[n] <= tolerance}
    report = _measured(estimator, kept, X, sizes, n_repeats, n_threads)
    form = _fastest(report)
    report["difference"] = report["form"].map(differences).fillna(0.0)
    chosen = kept[form]
    chosen.form_, chosen.report_ = form, report
    left_out = {n: d for n, d in differences.items() if n not in kept}
    chosen.message_ = _message(estimator, report, form, left_out, tolerance)
    if verbose:
        print(chosen.message_)
    return chosen


def _candidates(estimator: Any, X: Any, n_threads: int) -> dict[str, Deployed]:
    """Return predictors in all forms, by name."""
    try:
        from ..onnx.model import to_onnx
        from .forms import forms
    except ImportError as error:
        raise ImportError(
            "deploy needs the packages onnx, onnxruntime and skl2onnx: pip install"
            " 'skcompress[onnx]'"
        ) from error
    plain = to_onnx(estimator, X, labels=False, floats=True)
    outer = unwrapped(estimator)
    net = _fitted_inside(outer, X)
    kind = DeployedClassifier if is_classifier(net.estimator) else DeployedRegressor
    names = getattr(outer, "feature_names_in_", None)
    first = kind(_content(plain, net, names), n_threads)
    models = dict(forms(plain, first.feed(X)))
    if net.integers is not None:
        models["int8 as fitted"] = to_onnx(estimator, X, labels=False)
    return {name: kind(_content(m, net, names), n_threads) for name, m in models.items()}


def _fitted_inside(outer: Any, X: Any) -> Fitted:
    """Take apart the net, which may stand at the end of a Pipeline."""
    return fitted(outer.steps[-1][1]) if hasattr(outer, "steps") else fitted(outer, X)


def _content(model: Any, net: Fitted, feature_names: Any) -> Content:
    import onnx

    inputs = {}
    for info in model.graph.input:
        tensor = info.type.tensor_type
        shape = tuple(d.dim_value for d in tensor.shape.dim[1:])
        inputs[info.name] = shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    classes = net.classes
    if is_classifier(net.estimator) and classes is None:
        classes = np.arange(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    return Content(model.SerializeToString(), inputs, classes, net.threshold, feature_names)


def _difference(estimator: Any, candidate: Deployed, X: Any) -> float:
    """Measure how far predictions are from the estimator's, in the terms of the tolerance."""
    if isinstance(candidate, DeployedClassifier):
        ours, theirs = (
            winners(e.predict_proba(X), candidate.content.threshold) for e in (candidate, estimator)
        )
        return float((ours != theirs).mean())
    ours, theirs = candidate.predict(X), estimator.predict(X)
    spread = float(np.std(theirs))
    return float(np.sqrt(np.mean((ours - theirs.reshape(ours.shape)) ** 2))) / (spread or 1.0)


def _measured(
    estimator: Any,
    kept: Mapping[str, Deployed],
    X: Any,
    sizes: list[int],
    n_repeats: int,
    n_threads: int,
) -> pd.DataFrame:
    """Time the estimator and its forms in turns, so that what else runs here disturbs all alike."""
    calls = {"estimator": _predicts(estimator)} | {n: _predicts(c) for n, c in kept.items()}
    before, records = torch.get_num_threads(), []
    torch.set_num_threads(n_threads)
    try:
        for size in sizes:
            rows = multi_indexing(X, np.arange(size) % get_len(X))
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(n_repeats):
                for name, call in calls.items():
                    times[name].append(_seconds(call, rows))
            medians = {name: float(np.median(t)) for name, t in times.items()}
            records += [
                {"form": n, "batch_size": size, "microseconds": 1e6 * t,
                 "speed_up": medians["estimator"] / t}
                for n, t in medians.items()
            ]  # fmt: skip
    finally:
        torch.set_num_threads(before)
    return pd.DataFrame(records)


def _predicts(estimator: Any) -> Any:
    return getattr(estimator, "predict_proba", None) or estimator.predict


def _seconds(call: Any, rows: Any) -> float:
    """Time a call, after one that brings its weights to the cache."""
    call(rows)
    start = time.perf_counter()
    call(rows)
    return time.perf_counter() - start


def _means(report: pd.DataFrame) -> pd.Series:
    """Return the speed-up of each form over the estimator: geometric means over batch sizes."""
    return np.exp(np.log(report.set_index("form")["speed_up"]).groupby(level=0).mean())


def _fastest(report: pd.DataFrame) -> str:
    speed = _means(report).drop("estimator")
    best = str(speed.idxmax())
    return best if speed["fp32"] < MARGIN * speed[best] else "fp32"


def _message(
    estimator: Any, report: pd.DataFrame, form: str, left_out: dict[str, float], tolerance: float
) -> str:
    """Say in words what was found, also where compression brought no speed."""
    speed = _means(report)
    parts = [f"Kept: {form}, {speed[form]:.1f} times as fast as the estimator itself."]
    tried = [name for name in speed.index if name.startswith("int8")]
    if form.startswith("fp32") and tried:
        parts.append(f"Integers bring no speed on this machine: {form} is as fast, or faster.")
    parts += [
        f"Left out: {name}, whose predictions differ by {d:.2g}, more than tolerance={tolerance}."
        for name, d in left_out.items()
    ]
    outer = unwrapped(estimator)
    inner = unwrapped(outer.steps[-1][1]) if hasattr(outer, "steps") else outer
    masks = getattr(inner, "masks_", {})
    if any(not bool(mask.all()) for mask in masks.values()):
        parts.append(
            "Single weights that are zero make the file smaller and no call faster;"
            " granularity='unit' removes what makes calls slow."
        )
    return " ".join(parts)
