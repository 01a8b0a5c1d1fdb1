"""The body of a file: a description in JSON, then the tensors, through two coders."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ...quantization.tensors import QuantizedTensor
from .contents import Entry
from .errors import MAX_ADAPTIVE_TEXT, MAX_EMPTY, MAX_TENSORS, check
from .integers import check_description, describe, n_extra, padded_size
from .tensors import (
    DTYPES,
    Streams,
    code_dense,
    code_masked,
    code_quantized,
    compress,
    dtype_name,
)
from .text import code_length, code_text, primed_coder

_LONGEST_TEXT = 1 << 24
# Memory in bytes, as measured: of a character of the description, which becomes objects; of a part
# of a tensor's name, which becomes a module; and, while it is decoded, of an element beside its
# own bytes, masked or quantized, and of a scale.
_OF_TEXT, _OF_NAME = 32, 4096
_OF_MASKED, _OF_QUANTIZED, _OF_SCALE = 32, 112, 24
_FLAG = 10


@dataclass
class Parts:
    """What a file holds.

    Parameters
    ----------
    about : dict
        The description; from a file, and so not to be trusted beyond its form.
    tensors, masks, quantized : dict
        By name.
    """

    about: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)


def write_parts(about: dict[str, Any], entries: list[Entry]) -> bytes:
    """Write a description and tensors down."""
    streams = Streams(primed_coder())
    about = about | {"tensors": [_described(entry) for entry in entries]}
    text = _as_text(about)
    code_length(streams.coder, len(text))
    if streams.coder.bit(int(len(text) > MAX_ADAPTIVE_TEXT), [_FLAG], _FLAG):
        streams.past(text, len(text))
    else:
        code_text(streams.coder, text)
    for entry, described in zip(entries, about["tensors"], strict=True):
        _, shape, how, dtype = _complete(described)
        if entry.quantized is not None:
            code_quantized(streams, entry.quantized, how, dtype, shape)
        elif entry.mask is not None:
            code_masked(streams, entry.tensor, entry.mask, dtype, shape)
        else:
            code_dense(streams, entry.tensor, dtype, shape)
    coded = streams.coder.finish()
    bulk = compress(bytes(streams.bulk)) if streams.bulk else b""
    return _length_bytes(len(coded)) + coded + bulk


def _as_text(about: dict[str, Any]) -> bytes:
    """Write a description as JSON, which is no longer than what will be read."""
    try:
        text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "A label or name has a character that cannot be written,"
            f" {error.object[error.start]!r}: {error.reason}. Give the classes or columns other"
            " names."
        ) from error
    n_tensors = len(about["tensors"])
    if len(text) > _LONGEST_TEXT or n_tensors > MAX_TENSORS:
        raise ValueError(
            f"The net has {n_tensors} tensors and a description of {len(text)} bytes; a file holds"
            f" at most {MAX_TENSORS} and {_LONGEST_TEXT}."
        )
    return text


def read_parts(body: bytes, max_bytes: int) -> Parts:
    """Undo :func:`write_parts`.

    Raises
    ------
    FileError
        If `body` is not what that function writes, or takes more memory than `max_bytes`.
    """
    length, start = _read_length(body)
    check(start + length <= len(body), "it ends too early")
    streams = Streams(primed_coder(body[start : start + length]), body[start + length :])
    size = code_length(streams.coder, 0)
    check(size <= min(_LONGEST_TEXT, max_bytes // _OF_TEXT), f"its description has {size} bytes")
    if streams.coder.bit(0, [_FLAG], _FLAG):
        text = streams.past(b"", size)
    else:
        check(size <= MAX_ADAPTIVE_TEXT, f"its description has {size} bytes")
        text = code_text(streams.coder, b"", size)
    parts = Parts(_parse(text))
    n_tensors = len(parts.about["tensors"])
    check(n_tensors <= MAX_TENSORS, f"it has {n_tensors} tensors")
    described = [_checked(d) for d in parts.about["tensors"]]
    total = _OF_TEXT * size + _memory(described)
    check(
        total <= max_bytes,
        f"its tensors take {total} bytes to decode; pass a larger max_bytes if you trust it",
    )
    for name, shape, how, dtype in described:
        check(name not in parts.tensors, f"two tensors have the name {name!r}")
        _read_tensor(streams, parts, name, shape, how, dtype)
    return parts


def _memory(described: list[list]) -> int:
    """Return how much memory it takes to decode tensors, one after the other, and to hold them."""
    held = largest = 0
    for name, shape, how, dtype in described:
        size, width = math.prod(shape), np.dtype(DTYPES[dtype]).itemsize
        # Of what stays, a mask and packed integers have up to three bytes.
        held += size * (width + 3 * (how[0] != "d")) + _OF_NAME * (1 + name.count("."))
        working = size * (_OF_MASKED if how[0] == "m" else 3 * width)
        if how[0] == "q":
            # The last group of each row is filled up.
            working = padded_size(how, shape) * _OF_QUANTIZED + n_extra(how, shape) * _OF_SCALE
        largest = max(largest, working)
    return held + largest


def _read_tensor(
    streams: Streams, parts: Parts, name: str, shape: list[int], how: list, dtype: str
) -> None:
    if how[0] == "q":
        quantized = code_quantized(streams, None, how, dtype, shape)
        parts.tensors[name], parts.quantized[name] = quantized.dequantize(), quantized
        if how[4]:
            parts.masks[name] = quantized.mask
    elif how[0] == "m":
        parts.tensors[name], parts.masks[name] = code_masked(streams, None, None, dtype, shape)
    else:
        parts.tensors[name] = code_dense(streams, None, dtype, shape)


def _described(entry: Entry) -> list:
    """Describe a tensor: name, shape, how it is stored, and its type if that is unusual."""
    how = ["d"]
    if entry.quantized is not None:
        how = describe(entry.quantized)
    elif entry.mask is not None:
        how = ["m"]
    dtype = dtype_name(entry.tensor)
    described = [entry.name, list(entry.tensor.shape), how, dtype]
    # What is as usual is left out.
    while described[2:] and described[-1] in ("float32", ["d"]):
        described.pop()
    return described


def _complete(described: list) -> list:
    return [*described, *(["d"], "float32")[len(described) - 2 :]]


def _checked(described: Any) -> list:
    """Refuse a description of a tensor that :func:`_described` would not write."""
    good = isinstance(described, list) and 2 <= len(described) <= 4
    check(good, "a tensor is not described")
    name, shape, how, dtype = _complete(described)
    good = isinstance(name, str) and isinstance(shape, list) and len(shape) <= 8
    good = good and all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
    good = good and isinstance(dtype, str) and dtype in DTYPES
    good = good and isinstance(how, list) and len(how) > 0 and how[0] in ("d", "m", "q")
    check(good, "a tensor is described in no known way")
    empty = math.prod(shape) == 0 and max(shape) > MAX_EMPTY
    check(not empty, f"a tensor without elements has the shape {shape}")
    check(how[0] == "d" or len(shape) > 0, "a tensor of no dimension has no mask")
    if how[0] == "q":
        check(dtype in ("float32", "float64"), f"quantized weights are of type {dtype}")
        check_description(how, shape)
    return [name, shape, how, dtype]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        check(False, f"its description cannot be read ({error})")
        raise
    good = isinstance(about, dict) and isinstance(about.get("tensors"), list)
    check(good, "its description does not describe tensors")
    return about


def _length_bytes(length: int) -> bytes:
    """Write a length down, seven bits a byte."""
    result = bytearray()
    while length > 127:
        result.append(length & 127 | 128)
        length >>= 7
    return bytes([*result, length])


def _read_length(body: bytes) -> tuple[int, int]:
    """Return a length, and where it ends."""
    length = 0
    for i, byte in enumerate(body[:5]):
        length |= (byte & 127) << 7 * i
        if byte < 128:
            return length, i + 1
    check(False, "it has no length")
    raise AssertionError
