"""Keys of cached results: digests of all that a result depends on, equal in every process."""

import contextlib
import hashlib
import random
from array import array
from collections.abc import Iterator
from functools import cached_property, lru_cache
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar
from weakref import ReferenceType

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import Tensor
from xxhash import xxh3_128

from .nets import is_frozen
from .sources import (
    SCRIPT,
    by_value,
    class_body,
    code_parts,
    function_parts,
    library_version,
    library_words,
    user_files,
)
from .state import UncacheableError, fitted_state, reduced_parts

# Settings of estimators that change how a fit is made, and not its result.
_NO_RESULT = ("memory", "verbose")
_GENERATORS = (np.random.RandomState, np.random.Generator, torch.Generator, random.Random)
# Those behind the functions of numpy, Python and torch, which each fit seeds.
_FUNCTIONS: tuple[Any, ...] = (np.random.rand, random.random)
_SEEDED = (*(function.__self__ for function in _FUNCTIONS), torch.default_generator)
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)}
)
# What stands before a function that is written, and has nothing else that counts.
_WRAPPERS = (staticmethod, classmethod, cached_property, type(lru_cache(len)))
# Digests of arrays, of code and of files that are known already.
Known = dict[int | str, tuple[Any, str]]


def digest(*values: Any, known: Known | None = None) -> str:
    """Return a digest of values: data, parameters, estimators, classes and functions.

    Parameters
    ----------
    *values : object
        Classes and functions of libraries count by name and version, those of the user by their
        code and by the text of their files. Other objects count by what pickle would save.
    known : dict, default=None
        Digests of arrays, classes and functions by their id, each with the thing itself, and of the
        files of modules by their names; new ones are added.

    Raises
    ------
    UncacheableError
        If a value cannot be looked into, or is a random generator, which has no seed to tell.

    Examples
    --------
    >>> import numpy as np
    >>> from skcompress.training.keys import digest
    >>> digest({"rows": np.arange(3)}) == digest({"rows": np.arange(3)})
    True
    >>> digest(np.arange(3)) == digest(np.arange(3.0))
    False
    """
    description = _Description({} if known is None else known)
    try:
        for value in values:
            description.add(value)
    except RecursionError as error:  # a set that contains itself, by way of something else
        raise UncacheableError("an object is too deep, or contains itself in a set") from error
    return description.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Return a digest of an array of numbers, as fast as its memory can be read.

    Nobody is kept from making arrays of one digest on purpose.
    """
    result = xxh3_128(f"{array.dtype.str} {array.shape}".encode())
    result.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return str(result.hexdigest())


class _Description:
    """Writes values into a hash, each with its type, so that no two read the same."""

    def __init__(self, known: Known, is_code: bool = False) -> None:
        self.words: list[str] = []
        self.known = known
        # Objects that contain the one that is written now, and tensors, which may be shared; by id.
        self.path: dict[int, int] = {}
        self.tensors: dict[int, tuple[int, Tensor]] = {}
        # Classes and functions, which may call each other, and modules whose files are written.
        self.code: dict[int, tuple[int, Any]] = {}
        self.files: set[str] = set()
        # Whether this is about a class or function, and whether what is written now stands inside
        # of a frozen estimator.
        self.is_code = is_code
        self.is_frozen = False
        # Whether estimators count with what they have learned: ``clone`` does not reach them.
        self.is_learned = is_code

    def hexdigest(self) -> str:
        # With their lengths, so that it counts where one word ends and the next begins.
        lengths = array("Q", map(len, self.words)).tobytes()
        text = "".join(self.words).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(
            len(lengths).to_bytes(8, "little") + lengths + text, digest_size=20
        ).hexdigest()

    def write(self, *words: str) -> None:
        self.words += words

    def add(self, value: Any) -> None:
        value = value.item() if isinstance(value, np.generic) and value.dtype != object else value
        if type(value) in _ATOMS:
            self.write(type(value).__name__, repr(value))
        elif isinstance(value, Tensor):
            self.add_tensor(value)
        elif isinstance(value, np.ma.MaskedArray):
            self.add(["masked", value.data, np.ma.getmaskarray(value), value.fill_value])
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            self.write("array", self.of_array(value))
        elif any(value is generator for generator in _SEEDED):
            self.write("global generator", type(value).__name__)
        elif isinstance(value, _GENERATORS) and not self.is_frozen:
            raise UncacheableError(f"a {type(value).__name__} is no integer seed")
        else:
            self.add_nested(value)

    def add_nested(self, value: Any) -> None:
        """Write what contains other values, and may contain itself."""
        depth = len(self.path)
        if id(value) in self.path:
            self.write("contained in", str(depth - 1 - self.path[id(value)]))
            return
        self.path[id(value)] = depth
        if isinstance(value, ReferenceType):
            self.write("weak reference")
            self.add(value())
        elif isinstance(value, _WRAPPERS):
            self.write("wrapper", type(value).__name__)
            self.add(value.func if isinstance(value, cached_property) else value.__wrapped__)
        elif isinstance(value, (type, FunctionType)):
            self.add_written(value)
        elif isinstance(value, CodeType):
            self.write("code", _digest_of_code(value))
        elif isinstance(value, ModuleType):
            self.write("module", value.__name__)
            self.add_files(value.__name__)
        elif isinstance(value, (BaseEstimator, NeuralNet)):
            self.add_estimator(value)
        else:
            self.add_parts(value)
        del self.path[id(value)]

    def of_array(self, array: np.ndarray) -> str:
        if id(array) not in self.known:
            self.known[id(array)] = array, array_digest(array)
        return self.known[id(array)][1]

    def of_code(self, value: type | FunctionType) -> str:
        """Return the digest of a class or function, which the stages of a fit have in common."""
        if id(value) not in self.known:
            code = _Description(self.known, is_code=True)
            code.add_written(value)
            self.known[id(value)] = value, code.hexdigest()
        return self.known[id(value)][1]

    def add_tensor(self, tensor: Tensor) -> None:
        if id(tensor) in self.tensors:
            self.write("shared tensor", str(self.tensors[id(tensor)][0]))
            return
        self.tensors[id(tensor)] = len(self.tensors), tensor
        self.write("tensor", type(tensor).__name__, str(tensor.dtype), str(tensor.requires_grad))
        if getattr(tensor, "__dict__", None):
            self.add(vars(tensor))
        if torch.nn.parameter.is_lazy(tensor):
            return
        if tensor.layout is not torch.strided:
            raise UncacheableError(f"a tensor of layout {tensor.layout} cannot be looked into")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        self.write(str(tuple(plain.shape)), str(tensor.is_contiguous() or tensor.stride()))
        self.write(array_digest(plain.flatten().view(torch.uint8).numpy()))

    def add_written(self, value: Any) -> None:
        """Write a class or a function: of a library by its name, of the user by all it is."""
        words = library_words(value)
        if words is not None:
            self.write(*words)
            return
        if not self.is_code and not self.is_frozen:
            self.write("code", self.of_code(value))
            return
        if id(value) in self.code:
            self.write("written before", str(self.code[id(value)][0]))
            return
        self.code[id(value)] = len(self.code), value
        # Workers make classes of functions anew, and inside of another function.
        self.write(type(value).__name__, value.__name__)
        if isinstance(value, type) and type(value) is not type:
            self.add(type(value))
        for part in (value,) if isinstance(value, FunctionType) else value.__mro__:
            if not by_value(part):
                self.write(part.__module__, part.__qualname__)
                self.add_files(part.__module__)
                if library_version(part.__module__) is not None:
                    continue
            # Also where there is a file, which may say something else by now.
            self.add(function_parts(part) if isinstance(part, FunctionType) else class_body(part))

    def add_files(self, module: str) -> None:
        """Write the version of a library, or the user's files; each once is enough."""
        version = library_version(module)
        if version is not None:
            self.write(version)
            return
        if module not in self.files:
            self.files.add(module)
            if module not in self.known:
                self.known[module] = None, _digest_of_files(module)
            self.write(self.known[module][1])

    def add_estimator(self, estimator: Any) -> None:
        """Write an estimator's parameters, and all that it has learned if it is frozen."""
        self.write("estimator", repr(vars(estimator).get("_metadata_request")))
        self.add(type(estimator))
        learned = self.is_frozen or self.is_learned
        state = fitted_state(estimator) if learned else estimator.get_params(deep=False)
        outside, self.is_frozen = self.is_frozen, self.is_frozen or is_frozen(estimator)
        for name, value in sorted(state.items()):
            if name not in _NO_RESULT:
                self.write(name)
                self.add(value)
        self.is_frozen = outside

    def add_parts(self, value: Any) -> None:
        self.write(type(value).__name__)
        if isinstance(value, (set, frozenset)):
            self.write(*sorted(digest(item) for item in value))
        elif isinstance(value, (list, tuple)):
            self.add_items(value)
        elif isinstance(value, MappingProxyType) or type(value) is dict:
            with self.as_it_is():
                self.add_items(dict(value))
        elif isinstance(value, TypeVar):
            self.write(value.__name__)
        elif isinstance(value, property):
            self.add([value.fget, value.fset, value.fdel])
        else:
            with self.as_it_is():
                self.add_reduced(value)

    @contextlib.contextmanager
    def as_it_is(self) -> Iterator[None]:
        """Note that ``clone`` copies what is written inside with what estimators have learned."""
        outside, self.is_learned = self.is_learned, True
        yield
        self.is_learned = outside

    def add_items(self, value: Any) -> None:
        if type(value) not in (dict, list, tuple):
            self.add([type(value), getattr(value, "__dict__", None)])
        self.write(str(len(value)))
        for item in value.items() if isinstance(value, dict) else value:
            for part in item if isinstance(value, dict) else (item,):
                self.add(part)

    def add_reduced(self, value: Any) -> None:
        """Write what pickle would save."""
        reduced = reduced_parts(value)
        if not isinstance(reduced, str):
            self.add(reduced)
            return
        module = str(getattr(value, "__module__", ""))
        self.write(module, reduced)
        if module not in SCRIPT:  # its compiled code may be the user's
            self.add_files(module)


@lru_cache(maxsize=4096)
def _digest_of_code(code: CodeType) -> str:
    return digest(code_parts(code))


def _digest_of_files(module: str) -> str:
    text = b"".join(
        part for name, text in user_files(module).items()
        for part in (f"{name} {len(text)} ".encode(), text)
    )  # fmt: skip
    return hashlib.blake2b(text, digest_size=20).hexdigest()
