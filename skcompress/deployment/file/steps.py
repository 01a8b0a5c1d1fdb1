"""Steps of a pipeline before the net: which of scikit-learn's transformers a file can hold."""

import re
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from ..._sklearn import InvalidParameterError, validate_parameter_constraints
from .contents import Entry, Specs, Steps
from .errors import FileError, check

# By class: parameters, fitted arrays, and other fitted attributes that ``transform`` reads.
STEPS: dict[type, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    StandardScaler: (("with_mean", "with_std"), ("mean_", "scale_"), ()),
    MinMaxScaler: (("feature_range", "clip"), ("min_", "scale_"), ()),
    MaxAbsScaler: ((), ("scale_",), ()),
    RobustScaler: (("with_centering", "with_scaling"), ("center_", "scale_"), ()),
    Normalizer: (("norm",), (), ()),
    QuantileTransformer: (("output_distribution",), ("quantiles_", "references_"), ()),
    SimpleImputer: (
        ("missing_values", "strategy", "fill_value", "keep_empty_features"),
        ("statistics_",),
        ("_fit_dtype", "_fill_dtype"),
    ),
    PCA: (("whiten",), ("components_", "mean_", "explained_variance_"), ("n_components_",)),
}
_BY_NAME = {kind.__name__: kind for kind in STEPS}
_Scalar = (bool, int, float, str, type(None))
_NUMBERS = re.compile(r"[<|][iuf][1248]")
_MAX_FEATURES = 1 << 22


def write_steps(steps: Steps) -> tuple[list, list[Entry]]:
    """Describe the steps of a pipeline, and return their arrays.

    Raises
    ------
    ValueError
        If a step is none of those that a file can hold, or would not come back as it is.
    """
    described: list[list] = []
    entries = []
    for i, (name, step) in enumerate(steps):
        if type(step) not in STEPS:
            raise ValueError(
                f"The pipeline's step {name!r} is a {type(step).__name__}, which a file cannot"
                f" hold; it holds {', '.join(sorted(_BY_NAME))}. Save the rest of the pipeline by"
                " itself, pipeline[-1], and transform the rows before predict."
            )
        params, arrays, others = STEPS[type(step)]
        found = {key: _plain(name, key, getattr(step, key)) for key in params}
        fitted: dict[str, Any] = {"n_features_in_": int(step.n_features_in_)}
        if hasattr(step, "feature_names_in_") and i == 0:
            fitted["feature_names_in_"] = [str(n) for n in step.feature_names_in_]
        fitted |= {key: _plain(name, key, getattr(step, key)) for key in others}
        own = [
            Entry(f".{i}.{key}", _tensor(name, key, getattr(step, key)))
            for key in arrays
            if getattr(step, key, None) is not None
        ]
        while name in [before for before, *_ in described]:  # in pipelines inside of pipelines
            name += "-"
        _check_comes_back(name, step, [type(step).__name__, found, fitted], i, own)
        described.append([name, type(step).__name__, found, fitted])
        entries += own
    return described, entries


def _plain(name: str, key: str, value: Any) -> Any:
    """Turn a parameter into what JSON holds."""
    if isinstance(value, np.dtype):
        return value.str
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_plain(name, key, v) for v in value]
    if isinstance(value, _Scalar):
        return value
    raise ValueError(f"The pipeline's step {name!r} has {key}={value!r}, which a file cannot hold.")


def _tensor(name: str, key: str, value: Any) -> torch.Tensor:
    array = np.asarray(value)
    try:
        # Objects that are numbers are those that an imputer fills in.
        return torch.from_numpy(array.astype(np.float64) if array.dtype == object else array)
    except (TypeError, ValueError):  # such as an array of strings
        raise ValueError(
            f"The pipeline's step {name!r} has {key} of type {np.asarray(value).dtype}, which a"
            " file cannot hold."
        ) from None


def _check_comes_back(name: str, step: Any, described: list, i: int, own: list[Entry]) -> None:
    """Refuse a step that would do something else when it is loaded."""
    tensors = {entry.name: entry.tensor for entry in own}
    rows = 3 * np.random.default_rng(0).normal(size=(8, step.n_features_in_))
    try:
        [(_, again)] = read_steps([[name, *described]], tensors, first=i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows without names, and without what is missing
            if isinstance(step, SimpleImputer):
                rows[::2] = step.missing_values
                rows = rows.astype(step._fit_dtype)
            given, expected = (np.asarray(s.transform(rows)) for s in (again, step))
        good = np.array_equal(given, expected, equal_nan=True)
    except (ValueError, TypeError):
        good = False
    if not good:
        raise ValueError(
            f"The pipeline's step {name!r}, {step!r}, has settings that a file cannot hold: it"
            " would transform otherwise when it is loaded. Save the rest of the pipeline by itself,"
            " pipeline[-1], and transform the rows before predict."
        )


def read_steps(
    described: Any, tensors: dict[str, torch.Tensor], specs: Specs | None = None, *, first: int = 0
) -> Steps:
    """Build the transformers that a file describes, taking their arrays from `tensors`.

    Parameters
    ----------
    described : list
        From a file, and so not to be trusted.
    tensors : dict of Tensor
    specs : list or None
        What the net takes, which the steps have to give; None where it is not known.
    first : int, default=0
        The number that the first of the steps has in the names of its arrays.

    Raises
    ------
    FileError
        If a step is not described as :func:`write_steps` does it, or cannot transform rows.
    """
    check(isinstance(described, list) and len(described) <= 100, "its steps are not a list")
    steps: Steps = []
    for i, step in enumerate(described, first):
        good = isinstance(step, list) and [type(p) for p in step] == [str, str, dict, dict]
        check(good and step[1] in _BY_NAME, f"step {i} is none that it could hold")
        good = step[0] not in dict(steps) and "__" not in step[0]
        check(good, f"its step {i} has the name {step[0]!r}")
        name, kind, params, fitted = step
        steps.append((name, _read_step(i, kind, params, fitted, tensors)))
    _try(steps, specs)
    return steps


def _read_step(i: int, kind: str, params: dict, fitted: dict, tensors: dict) -> Any:
    known, arrays, others = STEPS[_BY_NAME[kind]]
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in params.items()}
    check(set(params) <= set(known), f"step {i} has parameters that are not known")
    check(set(fitted) <= {*others, "n_features_in_", "feature_names_in_"}, f"step {i} is odd")
    n_features = fitted.get("n_features_in_")
    good = type(n_features) is int and 0 < n_features <= _MAX_FEATURES
    check(good, f"step {i} has no number of features")
    transformer = _BY_NAME[kind](**params)
    try:
        validate_parameter_constraints(transformer._parameter_constraints, params, kind)
    except InvalidParameterError as error:
        check(False, f"step {i} is a {kind} with settings that it does not take ({error})")
    vars(transformer).update({key: _read(key, value) for key, value in fitted.items()})
    for key in arrays:
        array = tensors.pop(f".{i}.{key}", None)
        setattr(transformer, key, None if array is None else array.numpy())
    if isinstance(transformer, SimpleImputer):
        transformer.indicator_ = None
    # What stands after it was fitted on arrays, whatever the user has set for other estimators.
    return transformer.set_output(transform="default")


def _try(steps: Steps, specs: Specs | None) -> None:
    """Pass rows through the steps, each as wide as it says, to the net."""
    if not steps:
        return
    rows = np.zeros((2, steps[0][1].n_features_in_))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows without names
            for name, step in steps:
                check(rows.shape[1] == step.n_features_in_, f"step {name!r} takes other rows")
                rows = np.asarray(step.transform(rows))
                check(rows.dtype.kind in "iuf" and rows.ndim == 2, f"step {name!r} gives no rows")
    except FileError:
        raise
    except Exception as error:  # whatever scikit-learn finds wrong
        check(False, f"its steps do not fit together ({error})")
    fits = specs is None or [list(shape) for _, _, shape in specs] == [[rows.shape[1]]]
    check(fits, "its steps do not give what the net takes")


def _read(key: str, value: Any) -> Any:
    if key == "feature_names_in_":
        return _names(value)
    if key.endswith("_dtype"):
        good = isinstance(value, str) and _NUMBERS.fullmatch(value) is not None
        check(good, f"{key} is no type of numbers")
        return np.dtype(value)
    check(isinstance(value, _Scalar), f"{key} is no number")
    return value


def _names(value: Any) -> np.ndarray:
    good = isinstance(value, list) and all(isinstance(name, str) for name in value)
    check(good, "its names of features are not strings")
    return np.array(value, dtype=object)
