"""deploy: the form of a fitted net that predicts fastest on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from skorch.dataset import get_len

from ..._sklearn import Interval, validate_parameter_constraints
from ...inputs import to_dtype
from ...prediction import winners
from ..onnx.fitted import steps_of, unwrapped
from .candidates import FORMS, candidates
from .timing import fastest, mean_speed_up, measure

CONSTRAINTS = {
    "batch_sizes": ["array-like"],
    "forms": ["array-like", None],
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
    forms: Sequence[str] | None = None,
    tolerance: float = 0.003,
    n_threads: int = 1,
    n_repeats: int = 50,
    verbose: int | bool = 0,
) -> Any:
    """Return a fitted predictor on onnxruntime, in the form that is fastest on this machine.

    Tried are floating point ("fp32"), 8-bit integers with ranges that each row gives ("int8
    dynamic", one row at a time) or that `X` gave ("int8 static"; beside convolutions also in linear
    layers alone, "int8 linear"), and, where ``QuantizedNet`` rounds activations, its own integers
    ("int8 as fitted"). Convolutions whose channels are no multiple of 16, as after the removal of
    some, are also tried with channels of zeros added (names that end in "padded"), for which
    onnxruntime has a faster way; recurrent layers over many steps also in spans of steps ("fp32 in
    spans"), which suit the caches where rows come in batches. Those whose predictions for `X` stay
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
    forms : sequence of str, default=None
        Which of the forms to try; None means all. With one, the result does not depend on timings.
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
    ValueError
        If no form predicts within the tolerance.
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
    given = {"batch_sizes": batch_sizes, "forms": forms, "tolerance": tolerance}
    given |= {"n_threads": n_threads, "n_repeats": n_repeats, "verbose": verbose}
    validate_parameter_constraints(CONSTRAINTS, given, caller_name="deploy")
    _check_lists(batch_sizes, forms)
    X = _checked_rows(estimator, X)
    found, failed = candidates(estimator, X, forms, n_threads)
    threshold = next(iter(found.values())).content.threshold
    expected = _decisions(estimator, X, threshold)
    differences = {n: _difference(_decisions(c, X, threshold), expected) for n, c in found.items()}
    kept = {name: c for name, c in found.items() if differences[name] <= tolerance}
    _check_kept(kept, differences, tolerance)
    calls = {"estimator": _predicts(estimator)} | {n: _predicts(c) for n, c in kept.items()}
    report = measure(calls, X, [int(n) for n in batch_sizes], n_repeats, n_threads)
    form = fastest(report)
    report["difference"] = report["form"].map(differences).fillna(0.0)
    far = {n: _too_far(d, tolerance) for n, d in differences.items() if n not in kept}
    message = _message(estimator, report, form, far | failed)
    chosen = kept[form]
    chosen.set_params(content=replace(chosen.content, report=report, message=message))
    if verbose:
        print(message)
    return chosen


def _check_lists(batch_sizes: Sequence[int], forms: Sequence[str] | None) -> None:
    sizes = list(batch_sizes)
    if not sizes or not all(isinstance(n, Integral) and n >= 1 for n in sizes):
        raise ValueError(f"batch_sizes needs numbers of rows, at least 1; got {batch_sizes!r}.")
    if forms is not None and not (len(forms) and set(forms) <= set(FORMS)):
        raise ValueError(f"forms needs names out of {list(FORMS)}; got {forms!r}.")


def _checked_rows(estimator: Any, X: Any) -> Any:
    """Return rows as the estimator itself takes them; skorch converts nothing."""
    X = np.asarray(X) if isinstance(X, (list, tuple)) else X
    if not get_len(X):
        raise ValueError("X has no rows; deploy measures on them. Pass some hundreds.")
    net = unwrapped(estimator)
    return to_dtype(X, net.module_) if isinstance(net, NeuralNet) and net.initialized_ else X


def _decisions(estimator: Any, X: Any, threshold: float | None) -> np.ndarray:
    """Return numbers of the predicted classes, or a regressor's predictions."""
    if is_classifier(estimator):
        return winners(estimator.predict_proba(X), threshold)
    return estimator.predict(X)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Measure how far predictions are apart, in the terms of the tolerance."""
    if ours.dtype.kind in "iu":
        return float((ours != theirs).mean())
    spread = float(np.std(theirs))
    return float(np.sqrt(np.mean((ours - theirs.reshape(ours.shape)) ** 2))) / (spread or 1.0)


def _too_far(difference: float, tolerance: float) -> str:
    return f"its predictions differ by {difference:.2g}, more than tolerance={tolerance}"


def _check_kept(kept: Mapping, differences: Mapping[str, float], tolerance: float) -> None:
    if not kept:
        found = ", ".join(f"{name}: {d:.2g}" for name, d in differences.items())
        raise ValueError(
            f"No form predicts what the estimator does within tolerance={tolerance}; they differ"
            f" by {found}. Where floating point differs by much, the net computes what a graph does"
            " not, such as an infer or predict_proba of its own, or in double precision."
        )


def _predicts(estimator: Any) -> Any:
    return estimator.predict_proba if is_classifier(estimator) else estimator.predict


def _message(estimator: Any, report: pd.DataFrame, form: str, left_out: Mapping[str, str]) -> str:
    """Say in words what was found, also where compression brought no speed."""
    speed = mean_speed_up(report)
    parts = [f"Kept: {form}, {speed[form]:.3g} times as fast as the estimator itself."]
    if speed[form] < 1:
        parts.append("That is slower: on this machine, predict with the estimator.")
    if form.startswith("fp32") and any(name.startswith("int8") for name in speed.index):
        parts.append(f"Integers bring no speed on this machine: {form} is as fast, or faster.")
    parts += [f"Left out: {name}, since {reason}." for name, reason in left_out.items()]
    outer = unwrapped(estimator)
    inner = steps_of(outer)[-1] if isinstance(outer, Pipeline) else outer
    masks = getattr(inner, "masks_", {})
    if any(not bool(mask.all()) for mask in masks.values()):
        parts.append(
            "Single weights that are zero make the file smaller and no call faster;"
            " granularity='unit' removes what makes calls slow."
        )
    return " ".join(parts)
