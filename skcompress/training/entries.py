"""Entries of the cache: tensors, and facts in JSON, in one file of the safetensors format."""

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from .keys import array_digest
from .state import UncacheableError


class DamagedEntryError(Exception):
    """Raised for a file that is not what was written."""


@dataclasses.dataclass
class Entry:
    """The result of a stage.

    Parameters
    ----------
    facts : dict
        Of what JSON knows.
    tensors : dict of Tensor
        On the CPU.
    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def encode(self, value: Any) -> Any:
        """Turn a value into what JSON knows; tensors and arrays in it join those of the entry.

        Raises
        ------
        UncacheableError
            If the value is of another type than numbers, strings, tensors, arrays, containers
            and dataclasses of this library.
        """
        if value is None or type(value) in (bool, int, float, str):
            return value
        if _is_json(value):
            return {"json": value}
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        for kind, (applies, encode, _) in _CODECS.items():
            if applies(value):
                return {kind: encode(self, value)}
        raise UncacheableError(f"a {type(value).__qualname__} is no tensor and no plain value")

    def decode(self, coded: Any) -> Any:
        """Undo :meth:`encode`."""
        if isinstance(coded, list):
            return [self.decode(item) for item in coded]
        if not isinstance(coded, dict):
            return coded
        ((kind, content),) = coded.items()
        if kind == "json":
            return content
        return _CODECS[kind][2](self, content)

    def add_tensor(self, tensor: Tensor, name: str | None = None) -> str:
        """Add a copy of a tensor; return its name."""
        name = f"#{len(self.tensors)}" if name is None else name
        plain = tensor.detach().to("cpu", copy=True)
        self.tensors[name] = plain.contiguous()
        return name


def _is_json(value: Any) -> bool:
    """Tell whether JSON gives back the same, type by type."""
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if type(value) is list:
        return all(_is_json(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _encode_array(entry: Entry, array: np.ndarray) -> Any:
    if array.dtype.kind in "biuf":
        return [entry.add_tensor(torch.from_numpy(np.array(array)))]
    if array.dtype.kind in "UO":
        return [[entry.encode(item) for item in array.ravel().tolist()], list(array.shape),
                array.dtype.str]  # fmt: skip
    raise UncacheableError(f"an array of {array.dtype} is no tensor and no plain value")


def _decode_array(entry: Entry, coded: list) -> np.ndarray:
    if len(coded) == 1:
        return entry.tensors[coded[0]].numpy()
    items, shape, dtype = coded
    return np.array([entry.decode(item) for item in items], dtype=dtype).reshape(shape)


def _encode_dataclass(entry: Entry, value: Any) -> list:
    fields = {f.name: entry.encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [type(value).__module__, type(value).__qualname__, fields]


def _decode_dataclass(entry: Entry, coded: list) -> Any:
    module, name, fields = coded
    kind = getattr(importlib.import_module(module), name)
    return kind(**{field: entry.decode(content) for field, content in fields.items()})


def _is_own_dataclass(value: Any) -> bool:
    own = type(value).__module__.startswith("skcompress.")
    return own and dataclasses.is_dataclass(value)


def _decode_scalar(entry: Entry, coded: list) -> Any:
    return np.dtype(coded[0]).type(coded[1])


# How to tell a kind of value, to encode it, and to decode it.
_CODECS: dict[str, tuple[Callable, Callable, Callable]] = {
    "scalar": (
        lambda value: isinstance(value, np.generic) and value.dtype.kind in "biufU",
        lambda entry, value: [value.dtype.str, value.item()],
        _decode_scalar,
    ),
    "dict": (
        lambda value: type(value) is dict,
        lambda entry, value: [[entry.encode(k), entry.encode(v)] for k, v in value.items()],
        lambda entry, coded: {entry.decode(k): entry.decode(v) for k, v in coded},
    ),
    "tuple": (
        lambda value: type(value) is tuple,
        lambda entry, value: [entry.encode(item) for item in value],
        lambda entry, coded: tuple(entry.decode(item) for item in coded),
    ),
    "set": (
        lambda value: type(value) is set,
        lambda entry, value: [entry.encode(item) for item in value],
        lambda entry, coded: {entry.decode(item) for item in coded},
    ),
    "tensor": (
        lambda value: type(value) is Tensor,
        lambda entry, value: entry.add_tensor(value),
        lambda entry, coded: entry.tensors[coded],
    ),
    "array": (lambda value: type(value) is np.ndarray, _encode_array, _decode_array),
    "dataclass": (_is_own_dataclass, _encode_dataclass, _decode_dataclass),
}


def to_bytes(entry: Entry, key: str) -> bytes:
    """Write an entry and its checksum, which is of its key as well."""
    facts = json.dumps(entry.facts)
    checksum = _checksum(key, facts, entry.tensors)
    try:
        return save(entry.tensors, {"facts": facts, "checksum": checksum})
    except (KeyError, ValueError) as error:  # a type that the format does not know
        raise UncacheableError(f"tensors cannot be written: {error}") from error


def read(path: Path) -> Entry | None:
    """Read an entry; None if there is no such file. Its name is its key.

    Raises
    ------
    DamagedEntryError
        If the file is not what :func:`to_bytes` wrote.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = load(data)
        intact = _checksum(path.stem, header["facts"], tensors) == header["checksum"]
        facts = json.loads(header["facts"])
    except Exception as error:  # damage takes any form
        raise DamagedEntryError(str(error)) from error
    if not intact:
        raise DamagedEntryError("its checksum is another one")
    return Entry(facts, tensors)


def _checksum(key: str, facts: str, tensors: dict[str, Tensor]) -> str:
    parts = [key, facts]
    for name in sorted(tensors):
        tensor = tensors[name]
        data = array_digest(tensor.flatten().view(torch.uint8).numpy())
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {data}")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()
