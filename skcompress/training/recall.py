"""Dense nets that this process has taken from a cache, for the cells that come back to them."""

import contextlib
import copy
import os
import sys
import threading
from collections import OrderedDict
from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import Any

from skorch import NeuralNet
from skorch.history import History
from torch import nn

from .nets import copy_net

# A search comes back to its folds in turns, which are rarely more.
N_NETS, MAX_BYTES = 16, 2**26
_LOCK = threading.Lock()
# By the file of the entry: what tells that it is still the same, and the net.
_NETS: OrderedDict[Path, tuple[tuple[int, ...], NeuralNet]] = OrderedDict()


def remember(file: Path, net: NeuralNet) -> None:
    """Keep a copy of a net that was made of an entry, if it is small and of classes alone."""
    parts = _parts(net)
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    small = sum(tensor.nbytes for tensor in tensors) <= MAX_BYTES / N_NETS
    if not small or any(t.device.type != "cpu" for t in tensors):
        return
    if not all(isinstance(getattr(net, name), type) for name in _names(net)):
        return
    kept = copy_net(net)
    kept.callbacks, kept.history_ = "disable", copy.deepcopy(net.history_)
    _put(file, kept)


def recall(file: Path, net: NeuralNet) -> bool:
    """Turn an unfitted net, in place, into the one that is remembered of an entry.

    Returns
    -------
    found : bool
        False if there is none, the entry was removed or changed since, or one of the net's classes
        was defined anew, as in a notebook: the net is left as it was.
    """
    stamp, kept = _NETS.get(file, (None, None))
    if kept is None or stamp != _stamp(file) or not _has_classes_of_today(kept, net):
        return False
    own = {"verbose": net.verbose, "callbacks": net.callbacks}
    vars(net).update(vars(copy_net(kept)) | own)
    net._initialize_callbacks()
    net.history_ = History(copy.deepcopy(list(kept.history_ or [])))
    with contextlib.suppress(OSError):  # a folder that can only be read, or was just cleared
        os.utime(file)  # it was used
    _put(file, kept)
    return True


def _put(file: Path, kept: NeuralNet) -> None:
    """Keep a net as the one that was used last, for as long as its entry is what it is now."""
    stamp = _stamp(file)
    with _LOCK:
        _NETS.pop(file, None)
        if stamp is not None:
            _NETS[file] = stamp, kept
        while len(_NETS) > N_NETS:
            _NETS.popitem(last=False)


def _names(net: NeuralNet) -> list[str]:
    return [*net._modules, *net._criteria]


def _parts(net: NeuralNet) -> list[nn.Module]:
    parts = [getattr(net, name + "_") for name in _names(net)]
    return [part for part in parts if isinstance(part, nn.Module)]


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _has_classes_of_today(kept: NeuralNet, net: NeuralNet) -> bool:
    """Tell whether the classes of a net are those that their names mean now."""
    given = {n: v for n, v in vars(net).items() if isinstance(v, (type, FunctionType))}
    if any(vars(kept).get(name) is not value for name, value in given.items()):
        return False
    kinds = {type(layer) for part in _parts(kept) for layer in part.modules()}
    return type(kept) is type(net) and all(map(_is_found, kinds))


def _is_found(kind: Any) -> bool:
    try:
        return attrgetter(kind.__qualname__)(sys.modules[kind.__module__]) is kind
    except (AttributeError, KeyError):
        return False
