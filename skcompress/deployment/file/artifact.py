"""Save a fitted estimator to one small file, and load it without running any code from it."""

import os
import secrets
import stat
import zlib
from pathlib import Path
from typing import Any

from ...training.isolation import isolated
from .building import predictor
from .capture import capture, check_program, output_rule
from .contents import Contents, Entry, contents, loaded_entries, unwrap
from .errors import FileError, check
from .layout import Parts, read_parts, write_parts
from .order import sort_units
from .predictor import LoadedNet
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
    with isolated():  # skorch's batches draw numbers, and torch traces one module at a time
        steps, fitted = unwrap(estimator)
        if isinstance(fitted, LoadedNet):
            about, entries = fitted._about, loaded_entries(fitted)
        else:
            about, entries = _taken_apart(contents(estimator, X), graph)
    if steps:
        described, arrays = write_steps(steps)
        about, entries = about | {"steps": described}, entries + arrays
    body = write_parts(about, entries)
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body


def _taken_apart(found: Contents, graph: bool) -> tuple[dict[str, Any], list[Entry]]:
    """Say in words how a net predicts, and list its tensors."""
    if not graph:
        return found.description, found.entries
    try:
        return _with_graph(found)
    except ValueError as error:
        raise ValueError(
            f"{error} With graph=False, the weights are saved without the way in which the module"
            " computes, for load(path, estimator=net) alone."
        ) from error


def _with_graph(found: Contents) -> tuple[dict[str, Any], list[Entry]]:
    """Add the operations, and list the tensors in the order in which they number them."""
    captured = capture(found)
    program = captured.program
    rule, width = output_rule(found)
    about = found.description | {"rule": rule, "operations": program.operations}
    if about["kind"] == "classifier":
        about.setdefault("classes", width)
    entries = found.entries + [Entry(name, t) for name, t in program.constants.items()]
    order = {name: i for i, name in enumerate(program.tensors)}
    entries = sorted(entries, key=lambda entry: order.get(entry.name, len(order)))
    if captured.units is not None and any(e.mask is not None or e.quantized for e in entries):
        entries = sort_units(entries, captured.units)
    check_program(found, program, entries)
    return about, entries


def save(estimator: Any, path: str | os.PathLike, X: Any = None, *, graph: bool = True) -> None:
    """Save a fitted estimator to one file, with everything that predicting takes.

    Parameters
    ----------
    estimator : object
        A fitted compressed net, a fitted skorch net, a Pipeline with either as its last step and
        scalers, imputers or a PCA before it, a fitted search (its ``best_estimator_``), a
        FrozenEstimator around any of them, or what :func:`skcompress.load` returned.
    path : path
        Where to write; what is there is replaced at once, when all is written, and keeps its mode.
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
        If `estimator` holds no skorch net, or changes the predictions of one.
    FileNotFoundError
        If there is no folder to write to.

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
    # What a link points to is replaced, and not the link.
    path = Path(os.path.realpath(os.fsdecode(path)))
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; save writes one file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save a file in.")
    data = to_bytes(estimator, X, graph=graph)
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with beside.open("xb") as file:
            file.write(data)
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
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
    data = Path(os.fsdecode(path)).read_bytes()
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
    estimator : skorch net, compressed net or Pipeline, default=None
        Fitted or not, where the weights go, to train on. It is not changed: what is returned is a
        copy of it. A pipeline's file goes into a pipeline of the same steps. None returns a
        predictor that needs no module.
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
        with isolated():  # a fresh module draws its weights
            return restore(parts, estimator)
    try:
        return predictor(parts)
    except (FileError, ValueError):
        raise
    except Exception as error:  # a hostile file may fail in more ways than can be foreseen
        raise FileError(f"This is not a file that skcompress can read: {error}.") from error
