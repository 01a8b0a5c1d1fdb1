"""Save a fitted estimator to one small file, and load it without running any code from it."""

import os
import zlib
from pathlib import Path
from typing import Any

from .building import predictor
from .capture import Captured, capture, output_rule
from .contents import Contents, Entry, contents
from .errors import FileError, check
from .layout import Parts, read_parts, write_parts
from .order import sort_units
from .restore import restore
from .steps import write_steps

MAGIC, VERSION = b"skc", 1


def to_bytes(estimator: Any, X: Any = None, *, graph: bool = True) -> bytes:
    """Return the contents of the file that :func:`skcompress.save` writes.

    Parameters
    ----------
    estimator, X, graph
        As in :func:`skcompress.save`.
    """
    found = contents(estimator, X)
    about, entries = dict(found.description), found.entries
    if graph:
        captured = _captured(found)
        program = captured.program
        rule, width = output_rule(found)
        about |= {"rule": rule, "operations": program.operations}
        if about["kind"] == "classifier":
            about.setdefault("classes", width)
        entries = entries + [Entry(name, t) for name, t in program.constants.items()]
        # Operations number the tensors in the order in which the file has them.
        order = {name: i for i, name in enumerate(program.tensors)}
        entries = sorted(entries, key=lambda entry: order.get(entry.name, len(order)))
        if captured.units is not None and any(e.mask is not None or e.quantized for e in entries):
            entries = sort_units(entries, captured.units)
    if found.steps:
        about["steps"], arrays = write_steps(found.steps)
        entries = entries + arrays
    body = write_parts(about, entries)
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body


def _captured(found: Contents) -> Captured:
    """Trace a module, and say what else there is where that fails."""
    try:
        return capture(found)
    except ValueError as error:
        raise ValueError(
            f"{error} With graph=False, the weights are saved without the way in which the module"
            " computes, for load(path, estimator=net) alone."
        ) from error


def save(estimator: Any, path: str | os.PathLike, X: Any = None, *, graph: bool = True) -> None:
    """Save a fitted estimator to one file, with everything that predicting takes.

    Parameters
    ----------
    estimator : object
        A fitted compressed net, a fitted skorch net, a Pipeline with either as its last step and
        scalers, imputers or a PCA before it, a fitted search (its ``best_estimator_``), or a
        FrozenEstimator around any of them.
    path : path
        Where to write; what is there is replaced at once, when all is written.
    X : array-like of shape (n_samples, ...) or dict of arrays, default=None
        A few rows as `estimator` takes them; only for a skorch net by itself, which does not
        remember what it was given.
    graph : bool, default=True
        Whether to write down how the module computes. Without that, the file is for
        ``load(path, estimator=net)`` alone; some modules cannot be written down.

    Raises
    ------
    ValueError
        If a part of the estimator is not one that a file can hold; the message says which.
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If `estimator` holds no skorch net.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skorch import NeuralNetClassifier
    >>> from torch import nn
    >>> from skcompress import load, save
    >>> net = NeuralNetClassifier(
    ...     nn.Linear, module__in_features=4, module__out_features=3,
    ...     criterion=nn.CrossEntropyLoss).initialize()
    >>> X = np.ones((2, 4), dtype=np.float32)
    >>> path = Path(tempfile.mkdtemp()) / "net.skc"
    >>> save(net, path, X)
    >>> bool((load(path).predict_proba(X) == net.predict_proba(X)).all())
    True
    """
    data = to_bytes(estimator, X, graph=graph)
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: str | os.PathLike, max_bytes: int) -> Parts:
    """Read a file's parts, and check that it is whole.

    Raises
    ------
    FileError
        If the file is damaged, of a newer version, or asks for more memory than it may.
    """
    data = Path(path).read_bytes()
    check(data[:3] == MAGIC and len(data) > 8, "it does not begin as one")
    if data[3] > VERSION:
        raise FileError(
            f"The file has format {data[3]}, and this version of skcompress reads up to format"
            f" {VERSION}. Install a newer version."
        )
    check(data[3] == VERSION, f"there is no format {data[3]}")
    check(zlib.crc32(data[8:]).to_bytes(4, "big") == data[4:8], "its checksum does not match")
    try:
        return read_parts(data[8:], max_bytes)
    except FileError:
        raise
    except Exception as error:  # a hostile file may fail in more ways than can be foreseen
        raise FileError(f"This is not a file that skcompress can read: {error}.") from error


def load(path: str | os.PathLike, estimator: Any = None, *, max_bytes: int = 1 << 32) -> Any:
    """Load what :func:`skcompress.save` wrote, without running any code from it.

    Parameters
    ----------
    path : path
        A file of any origin: one that is damaged or made to do harm is refused.
    estimator : skorch net or compressed net, default=None
        Fitted or not, where the weights go, to train on. It is not changed: what is returned is a
        copy of it. None returns a predictor that needs no module.
    max_bytes : int, default=2**32
        Refuse a file whose tensors take more memory to decode.

    Returns
    -------
    predictor : fitted classifier, regressor or Pipeline, or a copy of `estimator`

    Raises
    ------
    FileError
        A ValueError: if the file is damaged, of a newer version, or asks for too much.
    ValueError
        If `estimator` is not one that the weights fit.

    Examples
    --------
    See :func:`skcompress.save`.
    """
    parts = read(path, max_bytes)
    if estimator is not None:
        return restore(parts, estimator)
    try:
        return predictor(parts)
    except (FileError, ValueError):
        raise
    except Exception as error:  # a hostile file may fail in more ways than can be foreseen
        raise FileError(f"This is not a file that skcompress can read: {error}.") from error
