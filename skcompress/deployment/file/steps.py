"""Steps of a pipeline before the net: which of scikit-learn's transformers a file can hold."""

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from .contents import Entry
from .errors import check

# By class: parameters, fitted arrays, and other fitted attributes that ``transform`` reads.
STEPS: dict[type, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    StandardScaler: (("with_mean", "with_std"), ("mean_", "scale_"), ()),
    MinMaxScaler: (("feature_range", "clip"), ("min_", "scale_"), ()),
    MaxAbsScaler: ((), ("scale_",), ()),
    RobustScaler: (("with_centering", "with_scaling"), ("center_", "scale_"), ()),
    Normalizer: (("norm",), (), ()),
    SimpleImputer: (
        ("missing_values", "strategy", "fill_value", "keep_empty_features"),
        ("statistics_",),
        ("_fit_dtype", "_fill_dtype"),
    ),
    PCA: (("whiten",), ("components_", "mean_", "explained_variance_"), ("n_components_",)),
}
_BY_NAME = {kind.__name__: kind for kind in STEPS}
_Scalar = (bool, int, float, str, type(None))


def write_steps(steps: list[tuple[str, Any]]) -> tuple[list, list[Entry]]:
    """Describe the steps of a pipeline, and return their arrays.

    Raises
    ------
    ValueError
        If a step is none of those that a file can hold.
    """
    described, entries = [], []
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
        if hasattr(step, "feature_names_in_"):
            fitted["feature_names_in_"] = [str(n) for n in step.feature_names_in_]
        fitted |= {key: _plain(name, key, getattr(step, key)) for key in others}
        for key in arrays:
            value = getattr(step, key, None)
            if value is not None:
                tensor = torch.from_numpy(np.asarray(value))
                entries.append(Entry(f"steps.{i}.{key}", tensor))
        described.append([name, type(step).__name__, found, fitted])
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


def read_steps(described: Any, tensors: dict[str, torch.Tensor]) -> list[tuple[str, Any]]:
    """Build the transformers that a file describes, taking their arrays from `tensors`.

    Raises
    ------
    FileError
        If a step is not described as :func:`write_steps` does it.
    """
    check(isinstance(described, list) and len(described) <= 100, "its steps are not a list")
    steps = []
    for i, step in enumerate(described):
        good = isinstance(step, list) and [type(p) for p in step] == [str, str, dict, dict]
        check(good and step[1] in _BY_NAME, f"step {i} is none that it could hold")
        name, kind, params, fitted = step
        known, arrays, others = STEPS[_BY_NAME[kind]]
        params = {key: tuple(v) if isinstance(v, list) else v for key, v in params.items()}
        check(set(params) <= set(known), f"step {i} has parameters that are not known")
        check(set(fitted) <= {*others, "n_features_in_", "feature_names_in_"}, f"step {i} is odd")
        check(type(fitted.get("n_features_in_")) is int, f"step {i} has no number of features")
        transformer = _BY_NAME[kind](**params)
        vars(transformer).update({key: _read(key, value) for key, value in fitted.items()})
        for key in arrays:
            tensor = tensors.pop(f"steps.{i}.{key}", None)
            setattr(transformer, key, None if tensor is None else tensor.numpy())
        if isinstance(transformer, SimpleImputer):
            transformer.indicator_ = None
        steps.append((name, transformer))
    return steps


def _read(key: str, value: Any) -> Any:
    if key == "feature_names_in_":
        return _names(value)
    if key.endswith("_dtype"):
        check(value in ("<f4", "<f8", "<i8", "<i4"), f"{key} is no type of numbers")
        return np.dtype(value)
    check(isinstance(value, _Scalar), f"{key} is no number")
    return value


def _names(value: Any) -> np.ndarray:
    good = isinstance(value, list) and all(isinstance(name, str) for name in value)
    check(good, "its names of features are not strings")
    return np.array(value, dtype=object)
