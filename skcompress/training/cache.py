"""Stages of a fit that are computed once for all the cells of a search, and for the next search.

A stage is the dense fit of a net, the whole fit of an estimator, or what a teacher says. Each has
a key of all that its result depends on.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet

from .entries import Entry, to_bytes
from .fitted import changed_params, check_same, pack_net, unpack_net
from .folder import CacheFolder, as_folder, warn_once
from .isolation import draw_seed, seed_generators, stage_seed
from .keys import Known, digest
from .loop import Data, dense_fit
from .nets import copy_net, fitted_net, is_frozen, slim_net
from .recall import recall, remember
from .settings import settings
from .state import UncacheableError

LIBRARIES = ("torch", "skorch", "skcompress")


@dataclass
class _Fit:
    """What the nested stages of one call of ``fit`` share."""

    known: Known = field(default_factory=dict)
    keys: dict[int, tuple[Any, str]] = field(default_factory=dict)


_FIT: ContextVar[_Fit | None] = ContextVar("_FIT", default=None)


@contextlib.contextmanager
def _outermost() -> Iterator[_Fit]:
    fit = _FIT.get()
    if fit is not None:
        yield fit
        return
    fit = _Fit()
    token = _FIT.set(fit)
    try:
        yield fit
    finally:
        _FIT.reset(token)


def cached_fit(estimator: Any, seed: int, inputs: Any, compute: Callable[[], None]) -> None:
    """Fit an estimator in place: by its entry, or by `compute`.

    Parameters
    ----------
    estimator : BaseCompressedNet
        Its `memory` and `random_state` say whether there is a cache.
    seed : int
    inputs : object
        All that ``fit`` was given.
    compute : callable
    """
    with _outermost() as fit:
        folder = cache_folder(estimator)
        # As pairs: what stands in a dict counts with all that it has learned.
        params = [p for p in estimator.get_params(deep=False).items() if p[0] not in _NEUTRAL]
        key = _key(fit, folder, "fit", type(estimator), params, inputs, seed)
        if folder is None or key is None:
            compute()
            return

        def fitted() -> Any:
            compute()
            return estimator

        folder.once(
            key,
            compute=fitted,
            pack=lambda result: _packed(key, _pack_estimator, fit, result),
            unpack=lambda entry: _unpack_estimator(fit, folder, estimator, entry, seed),
        )
        fit.keys[id(estimator)] = estimator, key


# They change no result, or stand in the key in another form.
_NEUTRAL = ("memory", "verbose", "random_state", "n_threads")


def cached_dense_fit(folder: CacheFolder | None, net: NeuralNet, data: Data, seed: int) -> Any:
    """Fit an unfitted skorch net in place, or give it what its entry tells.

    Returns
    -------
    net : NeuralNet
    """

    def compute() -> NeuralNet:
        seed_generators(seed)
        return dense_fit(net, data)

    with _outermost() as fit:
        rows = data.X, data.y, data.sample_weight, data.soft
        key = _key(fit, folder, "dense", net, rows, seed)
        if folder is None or key is None:
            return compute()
        if recall(folder.file(key), net):
            fit.keys[id(net)] = net, key
            return net
        blank = clone(net)
        result = folder.once(
            key,
            compute=compute,
            pack=lambda result: _packed(key, _pack_dense, result, blank, seed),
            unpack=lambda entry: _unpack_dense(net, entry, seed, folder.file(key)),
        )
        fit.keys[id(result)] = result, key
        return result


def cached_array(
    folder: CacheFolder | None, inputs: Any, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return an array that `compute` returns for these inputs."""
    with _outermost() as fit:
        key = _key(fit, folder, "array", inputs)
        if folder is None or key is None:
            return compute()
        return folder.once(
            key,
            compute=compute,
            pack=lambda array: to_bytes(Entry({}, {"array": torch.from_numpy(array)}), key),
            unpack=lambda entry: entry.tensors["array"].numpy(),
        )


def cache_folder(estimator: Any) -> CacheFolder | None:
    """Return where an estimator's stages are cached; None where they are not."""
    folder = as_folder(estimator.memory)
    if folder is None:
        return None
    if not isinstance(estimator.random_state, Integral):
        given = type(estimator.random_state).__name__
        _tell(f"random_state is no integer but {given}, so that no two fits are the same")
        return None
    return folder


def _key(fit: _Fit, folder: CacheFolder | None, *values: Any) -> str | None:
    """Return the key of a stage; None if there is no cache, or the stage cannot be cached."""
    if folder is None:
        return None
    versions = [_version(name) for name in LIBRARIES]
    try:
        return digest(versions, settings(), *values, known=fit.known)
    except UncacheableError as error:
        _tell(str(error))
        return None


def _version(library: str) -> str:
    return str(__import__(library).__version__)


def _tell(reason: str) -> None:
    warn_once(f"A stage of this fit is not cached: {reason}. It is computed each time.")


def _packed(key: str, pack: Callable[..., Entry], *args: Any) -> bytes | None:
    try:
        return to_bytes(pack(*args), key)
    except UncacheableError as error:
        _tell(str(error))
        return None


def _pack_dense(net: NeuralNet, blank: NeuralNet, seed: int) -> Entry:
    entry = Entry({})
    params = changed_params(net, blank)
    base = _initialized(clone(blank), params, seed)
    entry.facts = {"params": entry.encode(params), "net": pack_net(entry, net, base)}
    check_same(net, _unpack_dense(blank, entry, seed))
    return entry


def _unpack_dense(net: NeuralNet, entry: Entry, seed: int, file: Path | None = None) -> NeuralNet:
    _initialized(net, entry.decode(entry.facts["params"]), seed)
    unpack_net(entry, entry.facts["net"], net, {})
    if file is not None:
        remember(file, net)
    return net


def _initialized(net: NeuralNet, params: dict[str, Any], seed: int) -> NeuralNet:
    """Initialize a net as its training did, with the widths that the data gave it."""
    vars(net).update(params)
    # What a module draws while it is built may be in its attributes.
    seed_generators(seed)
    return net.initialize()


def _pack_estimator(fit: _Fit, estimator: Any) -> Entry:
    entry, inner = Entry({}), estimator.estimator_
    known = None if is_frozen(inner) else fit.keys.get(id(inner))
    if known is None and not is_frozen(inner):
        raise UncacheableError("what it wraps is not cached")
    base = fitted_net(inner)
    given = {n: p for n, v in _fitted(estimator).items() for p in _params_that_are(estimator, v)}
    values = {n: v for n, v in _fitted(estimator).items() if n not in given}
    entry.facts = {
        "attributes": entry.encode(values),
        "given": given,
        "inner": known and known[1],
        "net": pack_net(entry, estimator.net_, base),
    }
    parts = entry.facts["net"]["parts"].values()
    if "integers" in entry.facts["net"] or any(p and (p["changed"] or p["removed"]) for p in parts):
        rebuilt = copy_net(base)
        unpack_net(entry, entry.facts["net"], rebuilt, getattr(estimator, "quantized_", {}))
        slim_net(rebuilt)
        check_same(estimator.net_, rebuilt)
    return entry


def _fitted(estimator: Any) -> dict[str, Any]:
    """Return an estimator's fitted attributes, but for the nets."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if (name.endswith("_") and name not in ("estimator_", "net_"))
        or name in estimator.remembered
    }


def _params_that_are(estimator: Any, value: Any) -> list[str]:
    """Name the parameter that a fitted attribute is, such as a teacher that is frozen."""
    if not hasattr(value, "get_params"):
        return []
    return [n for n, v in estimator.get_params(deep=False).items() if v is value]


def _unpack_estimator(
    fit: _Fit, folder: CacheFolder, estimator: Any, entry: Entry, seed: int
) -> Any:
    """Give an estimator its fitted attributes; None if the entry of what it wraps is gone."""
    for name in [*_fitted(estimator)]:
        delattr(estimator, name)  # of an earlier fit
    vars(estimator).update(entry.decode(entry.facts["attributes"]))
    for name, param in entry.facts["given"].items():
        setattr(estimator, name, getattr(estimator, param))
    # What it wraps may depend on them.
    inner = _unpack_inner(fit, folder, estimator, entry.facts["inner"], seed)
    if inner is None:
        return None
    estimator.estimator_ = inner
    estimator.net_ = copy_net(fitted_net(inner))
    quantized = getattr(estimator, "quantized_", {})
    unpack_net(entry, entry.facts["net"], estimator.net_, quantized)
    estimator._slim()
    return estimator


def _unpack_inner(
    fit: _Fit, folder: CacheFolder, estimator: Any, key: str | None, seed: int
) -> Any:
    if key is None:
        return estimator.estimator
    seed = stage_seed(seed, "dense")
    inner = estimator._unfitted(seed)
    fit.keys[id(inner)] = inner, key
    if isinstance(inner, NeuralNet):
        inner.callbacks = "disable"  # they have done their part, and would be dropped next
        if recall(folder.file(key), inner):
            return inner
        entry = folder.get(key)
        return entry and _unpack_dense(inner, entry, seed, folder.file(key))
    own = as_folder(inner.memory)
    entry = None if own is None else own.get(key)
    if own is None or entry is None:
        return None
    return _unpack_estimator(fit, own, inner, entry, draw_seed(inner.random_state))
