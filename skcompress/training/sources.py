"""What a class or a function was written as: which code of the user's a result depends on."""

import dis
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

# The script that runs, and what spawned workers call it.
SCRIPT = ("__main__", "__mp_main__")
# Set by Python, abc, pickling or torch, and no part of what was written.
_INCIDENTAL = frozenset(
    {"__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__annotations__"}
    | {"__slotnames__", "__abstractmethods__", "_abc_impl"}
    | {"__firstlineno__", "__static_attributes__", "_backward_cls"}
)


@lru_cache(maxsize=1024)
def library_version(module: str) -> str | None:
    """Return the version of the library that a module belongs to; None for a user's own module.

    Python's own modules have Python's version.
    """
    top = module.partition(".")[0]
    file = _where(module)
    if file is None:
        return None if top in SCRIPT else _python()
    parts = Path(file).parts
    if top != "skcompress" and not {"site-packages", "dist-packages"} & set(parts):
        standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
        return _python() if any(Path(file).is_relative_to(path) for path in standard) else None
    return _version(top)


def _where(module: str) -> str | None:
    """Return the file of a module, or the folder of a package without one.

    A package may have parts in several folders, the user's among them.
    """
    while module:
        found = sys.modules.get(module)
        file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", [])), None)
        if file is not None and Path(file).is_absolute():
            return str(file)
        module = module.rpartition(".")[0]
    return None


def _version(top: str) -> str:
    if isinstance(version := getattr(sys.modules.get(top), "__version__", None), str):
        return version
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def by_value(written: Any) -> bool:
    """Tell whether a class or function can be found nowhere but in memory.

    Those of a notebook, of a script and of the inside of a function are such. Worker processes
    receive them by value, so that there is no file to read there.
    """
    module = sys.modules.get(written.__module__)
    if written.__module__ in SCRIPT or module is None:
        return True
    try:
        return attrgetter(written.__qualname__)(module) is not written
    except AttributeError:
        return True


@lru_cache(maxsize=4096)
def library_words(written: Any) -> tuple[str, ...] | None:
    """Name a class, its bases, or a function, with their libraries' versions; None for a user's."""
    parts = (written,) if isinstance(written, FunctionType) else written.__mro__
    words = [type(written).__name__]
    for part in parts:
        version = library_version(part.__module__)
        if version is None or by_value(part):
            return None
        words += part.__module__, part.__qualname__, version
    return tuple(words)


def user_files(module: str) -> dict[str, bytes]:
    """Read a user's module, and those of the user's that it takes classes and functions from.

    Returns
    -------
    files : dict of bytes
        Texts by the names of the modules, sorted.
    """
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in found or file is None or library_version(name) is not None:
            continue
        try:
            found[name] = Path(file).read_bytes()
        except OSError:  # in an archive, or gone since; what is in memory counts anyway
            continue
        waiting.extend(_imported(sys.modules[name]))
    return dict(sorted(found.items()))


_WRITTEN = (type, FunctionType, BuiltinFunctionType)


def _imported(module: ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, _WRITTEN) and isinstance(value.__module__, str):
            yield value.__module__


def class_body(cls: type) -> dict[str, Any]:
    """Return what was written in the body of a class, by name, sorted."""
    body = {
        name: value
        for name, value in vars(cls).items()
        # Slots stand in __slots__ as well.
        if name not in _INCIDENTAL and not isinstance(value, MemberDescriptorType)
    }
    return dict(sorted(body.items()))


def function_parts(function: FunctionType) -> dict[str, Any]:
    """Return all that a call of a function depends on but its arguments.

    That is its code, defaults and closure, and the globals that the code names.
    """
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            cells.append(None)
    names = [n for n in _global_names(function.__code__) if n[0] in function.__globals__]
    return {
        "code": function.__code__,
        "defaults": (function.__defaults__, function.__kwdefaults__),
        "closure": cells,
        "attributes": vars(function),
        "globals": {".".join(name): _value(function.__globals__, name) for name in names},
    }


def _value(namespace: dict[str, Any], name: tuple[str, ...]) -> Any:
    """Return what a name with dots means, as far as it goes through modules."""
    value = namespace[name[0]]
    for attribute in name[1:]:
        if not isinstance(value, ModuleType) or not hasattr(value, attribute):
            break
        value = getattr(value, attribute)
    return value


def code_parts(code: CodeType) -> tuple:
    """Return what code does, without where it was written."""
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_code, code.co_exceptiontable, code.co_consts, names, counts


@lru_cache(maxsize=1024)
def _global_names(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """List the globals that code names, with the attributes that it takes of them."""
    names: set[tuple[str, ...]] = set()
    name: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(name)  # the one before may have nothing after it but this
            name = (instruction.argval,)
        elif name and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            name = (*name, instruction.argval)
        elif instruction.opname not in ("CACHE", "PRECALL"):
            names.add(name)
            name = ()
    names.discard(())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(_global_names(constant))
    return tuple(sorted(names))
