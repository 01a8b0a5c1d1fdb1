"""What a fitted net costs: bytes and seconds, and scorers for them."""

import math
import time
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from skorch.dataset import get_len
from skorch.utils import multi_indexing
from torch import Tensor

from ..training.nets import plain_module

_WARM_UP_CALLS = 3
# Where scikit-learn's meta-estimators keep the one estimator that they fitted.
_WRAPPED = ("best_estimator_", "estimator_", "regressor_")


def size_in_bytes(estimator: Any) -> int:
    """Count the bytes that the parameters and buffers of a fitted net take.

    Every parameter and every buffer of the module counts once, also where layers share it. A
    tensor of n values takes n times its element size (4 bytes for float32). Where a pruning mask
    is given and that is smaller, the tensor takes a bit mask and the values that stay:
    ceil(n / 8) + kept * element size. A quantized weight takes its codes, scales, zero points and
    codebook (``QuantizedTensor.n_bytes``). Not counted are the module's code, names and shapes, a
    pipeline's other steps, and the criterion.

    Parameters
    ----------
    estimator : object
        A fitted compressed net (it has ``net_``, and ``masks_`` or ``quantized_``), a skorch net, a
        Pipeline with either as its last step, a fitted search (its ``best_estimator_`` counts),
        or a FrozenEstimator around any of them.

    Returns
    -------
    size : int
        Bytes, at least 0.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If `estimator` holds no skorch net.

    Examples
    --------
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress import size_in_bytes
    >>> net = NeuralNetClassifier(nn.Linear, module__in_features=4, module__out_features=3)
    >>> size_in_bytes(net.initialize())  # 4 * 3 weights and 3 biases of 4 bytes
    60
    """
    fitted = _fitted(estimator)
    module = plain_module(getattr(fitted, "net_", fitted).module_)
    masks, quantized = getattr(fitted, "masks_", {}), getattr(fitted, "quantized_", {})
    # A mask may bear the second name of a parameter that two layers share.
    named = dict(module.named_parameters(remove_duplicate=False))
    kept = {id(p): int(masks[name].sum()) for name, p in named.items() if name in masks}
    coded = {id(p): quantized[name].n_bytes for name, p in named.items() if name in quantized}
    tensors = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    return sum(
        coded[key] if key in coded else _tensor_bytes(tensor, kept.get(key))
        for key, tensor in tensors.items()
    )


def _fitted(estimator: Any) -> Any:
    """Find the compressed net, or the skorch net, that predicts."""
    if hasattr(estimator, "net_") or hasattr(estimator, "module_"):
        return estimator
    if hasattr(estimator, "steps"):
        return _fitted(estimator.steps[-1][1])
    for name in _WRAPPED:
        if hasattr(estimator, name):
            return _fitted(getattr(estimator, name))
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)
    raise TypeError(
        f"No fitted skorch net found in {type(estimator).__name__}. Pass a fitted PrunedNet or"
        " skorch net, a Pipeline that ends in one, or a search that was refitted with one."
    )


def _tensor_bytes(tensor: Tensor, kept: int | None) -> int:
    """Bytes of a tensor of which `kept` values stay; None: no mask."""
    dense = tensor.numel() * tensor.element_size()
    if kept is None:
        return dense
    return min(dense, math.ceil(tensor.numel() / 8) + kept * tensor.element_size())


def size_scorer(estimator: Any, X: Any = None, y: Any = None) -> int:
    """Score a fitted estimator by its size: :func:`size_in_bytes`, negative as greater is better.

    Parameters
    ----------
    estimator : object
        As in :func:`size_in_bytes`.
    X, y : ignored
        Present because scikit-learn's scorers take them.

    Returns
    -------
    score : int
        Minus the number of bytes.

    Examples
    --------
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress.selection import size_scorer
    >>> net = NeuralNetClassifier(nn.Linear, module__in_features=4, module__out_features=3)
    >>> size_scorer(net.initialize())
    -60
    """
    return -size_in_bytes(estimator)


def latency(
    estimator: Any, X: Any, *, batch_size: int = 1, n_repeats: int = 50, n_threads: int | None = 1
) -> float:
    """Measure the median time of one call of ``predict_proba``, or ``predict`` without one.

    Every call predicts the same first rows of `X`, after three calls that are not timed. The time
    is that of the whole estimator as it is called: a pipeline's other steps, validation and
    conversion included. Zeros in a weight matrix do not make a call faster; removed units do.

    Parameters
    ----------
    estimator : object
        Any fitted classifier or regressor.
    X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset
        Rows to predict, at least `batch_size`.
    batch_size : int, default=1
        Rows per call, at least 1.
    n_repeats : int, default=50
        Timed calls, at least 1.
    n_threads : int or None, default=1
        Threads of torch during the calls, at least 1; None leaves them as they are. The thread
        count is restored afterwards.

    Returns
    -------
    seconds : float
        Median over the calls, in seconds per call.

    Raises
    ------
    ValueError
        If `batch_size`, `n_repeats` or `n_threads` is no integer of at least 1, or `X` has fewer
        rows than `batch_size`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from skcompress.selection import latency
    >>> X = np.zeros((4, 2))
    >>> seconds = latency(DummyClassifier().fit(X, [0, 1, 0, 1]), X, batch_size=2)
    >>> 0 < seconds < 1
    True
    """
    _check_counts(batch_size=batch_size, n_repeats=n_repeats)
    if n_threads is not None:
        _check_counts(n_threads=n_threads)
    rows = _first_rows(X, batch_size)
    call = getattr(estimator, "predict_proba", None) or estimator.predict
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads or threads)
        times = [_seconds(call, rows) for _ in range(_WARM_UP_CALLS + n_repeats)]
    finally:
        torch.set_num_threads(threads)
    return float(np.median(times[_WARM_UP_CALLS:]))


def latency_scorer(estimator: Any, X: Any, y: Any = None, **settings: Any) -> float:
    """Score a fitted estimator by its speed: :func:`latency`, negative as greater is better.

    Parameters
    ----------
    estimator, X : object, array-like
        As in :func:`latency`.
    y : ignored
        Present because scikit-learn's scorers take it.
    **settings
        Further parameters of :func:`latency`, for ``functools.partial(latency_scorer,
        batch_size=32)``.

    Returns
    -------
    score : float
        Minus the median seconds per call.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.model_selection import cross_validate
    >>> from skcompress.selection import latency_scorer
    >>> scoring = {"one row": latency_scorer, "ten rows": partial(latency_scorer, batch_size=10)}
    >>> X, y = np.zeros((40, 2)), np.arange(40) % 2
    >>> scores = cross_validate(DummyClassifier(), X, y, cv=2, scoring=scoring)
    >>> bool((scores["test_ten rows"] < 0).all())
    True
    """
    return -latency(estimator, X, **settings)


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} must be an integer of at least 1; got {count!r}.")


def _first_rows(X: Any, batch_size: int) -> Any:
    if get_len(X) < batch_size:
        raise ValueError(
            f"X has {get_len(X)} rows, fewer than batch_size={batch_size}. Pass more rows or a"
            " smaller batch_size."
        )
    return multi_indexing(X, slice(0, batch_size))


def _seconds(call: Any, rows: Any) -> float:
    start = time.perf_counter()
    call(rows)
    return time.perf_counter() - start
