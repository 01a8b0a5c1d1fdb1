"""What a fitted net costs: bytes and seconds, and scorers for them."""

import contextlib
import time
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from skorch.dataset import get_len
from skorch.utils import multi_indexing

from ..deployment.file.artifact import to_bytes
from ..deployment.file.contents import through, unwrap

_WARM_UP_CALLS = 3


def size_in_bytes(estimator: Any, X: Any = None) -> int:
    """Return the size of the file that :func:`skcompress.save` writes, in bytes.

    All of it counts: weights, masks, integers and scales, biases and buffers, labels, names, how
    the module computes, and the steps of a pipeline before the net. Nothing is written.

    Where no such file can be written, the size is that of as much as can: a module that cannot be
    traced counts without its list of operations (``save(..., graph=False)``), and so does a skorch
    net by itself without `X`, for it does not remember what rows it takes. Of a pipeline with a
    step that a file cannot hold, the net alone counts.

    Parameters
    ----------
    estimator : object
        A fitted compressed net, a skorch net, a Pipeline with either as its last step, a fitted
        search (its ``best_estimator_`` counts), or a FrozenEstimator around any of them.
    X : array-like of shape (n_samples, ...) or dict of arrays, default=None
        Rows as `estimator` takes them; only for a skorch net by itself.

    Returns
    -------
    size : int
        Bytes.

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
    >>> 50 < size_in_bytes(net.initialize()) < 150  # 4 * 3 weights and 3 biases of 4 bytes
    True
    """
    try:
        return len(to_bytes(estimator, X))
    except NotFittedError:
        raise
    except ValueError:
        steps, fitted = unwrap(estimator)
    if steps:  # one of them may be what no file can hold
        with contextlib.suppress(ValueError):
            return len(to_bytes(fitted, None if X is None else through(steps, X)))
    return len(to_bytes(fitted, graph=False))


def size_scorer(estimator: Any, X: Any = None, y: Any = None) -> int:
    """Score a fitted estimator by its size: :func:`size_in_bytes`, negative as greater is better.

    Parameters
    ----------
    estimator : object
        As in :func:`size_in_bytes`.
    X : array-like, default=None
        As in :func:`size_in_bytes`.
    y : ignored
        Present because scikit-learn's scorers take it.

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
    >>> size_scorer(net.initialize()) < -50
    True
    """
    return -size_in_bytes(estimator, X)


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
