"""CacheFolder: a folder of results that processes share, each of them computed once."""

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import joblib
from filelock import FileLock

from .entries import DamagedEntryError, Entry, read

T = TypeVar("T")
NAME = "skcompress"
SUFFIX, LOCK, PART = ".safetensors", ".lock", ".part"
# Unfinished files of processes that were killed are older than that.
ABANDONED = 24 * 3600.0
# What was warned of.
TOLD: set[str] = set()
# Bytes that this process has written to a folder since it last looked through it.
_WRITTEN: dict[Path, int] = {}


@dataclass(frozen=True)
class CacheFolder:
    """A folder of results of stages, for the `memory` of estimators; a path means one as well.

    Parameters
    ----------
    location : str or path
        Where the entries go, into a folder of their own. It is made if it is not there. Nobody
        else may write to it: entries are trusted.
    max_bytes : int >= 0, default=10_000_000_000
        Once there is more, the entries that were not used for the longest time go.

    Examples
    --------
    >>> import tempfile
    >>> from skcompress.training import CacheFolder
    >>> with tempfile.TemporaryDirectory() as location:
    ...     folder = CacheFolder(location, max_bytes=10**9)
    ...     folder.clear()
    ...     folder.n_bytes
    0
    """

    location: str | os.PathLike
    max_bytes: int = 10_000_000_000

    @property
    def path(self) -> Path:
        """The folder of the entries."""
        return Path(self.location).expanduser() / NAME

    @property
    def n_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> None:
        """Remove all entries. Fits that are under way elsewhere go on, and write theirs anew."""
        for suffix in (SUFFIX, PART, LOCK):
            for path in self.path.glob("*" + suffix):
                path.unlink(missing_ok=True)

    def check(self) -> None:
        """Make the folder if it is not there; refuse one that others can write to.

        Raises
        ------
        ValueError
            If it cannot be made, if its permissions or its owner let others write, or if
            `max_bytes` is no number of bytes.
        """
        if not os.fspath(self.location):
            raise ValueError("memory is an empty path; give a folder, or None.")
        number = isinstance(self.max_bytes, Integral) and not isinstance(self.max_bytes, bool)
        if not number or self.max_bytes < 0:
            raise ValueError(f"max_bytes is {self.max_bytes!r}; give a whole number, at least 0.")
        try:
            for folder in (self.path.parent, self.path):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"memory={str(self.location)!r} cannot be a folder: {error}. Give a path where you"
                " can write."
            ) from error
        if os.name != "posix":
            return
        for folder in (self.path.parent, self.path):
            status = folder.stat()
            if status.st_mode & 0o022:
                raise ValueError(
                    f"Others can write to the cache folder {str(folder)!r}, whose entries would"
                    f" be trusted. Take that away with `chmod go-w {folder}`, or give another"
                    " memory=."
                )
            if status.st_uid != os.geteuid():
                raise ValueError(
                    f"The cache folder {str(folder)!r} belongs to another user, whose entries"
                    " would be trusted. Give a folder of your own as memory=."
                )

    def get(self, key: str) -> Entry | None:
        """Read an entry, and note that it was used; None if there is none, or a damaged one."""
        path = self.file(key)
        try:
            entry = read(path)
        except DamagedEntryError:
            return None
        if entry is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def once(
        self,
        key: str,
        compute: Callable[[], T],
        pack: Callable[[T], bytes | None],
        unpack: Callable[[Entry], T | None],
    ) -> T:
        """Return the result of a stage: from its entry, or computed by one process alone.

        Parameters
        ----------
        key : str
        compute : callable
        pack : callable
            Turns the result into the bytes of an entry, or None if that cannot be done.
        unpack : callable
            Turns an entry into the result, or None if something that it needs is gone.
        """
        found = self._unpacked(key, unpack)
        if found is not None:
            return found
        lock = FileLock(self.path / (key + LOCK), mode=0o600)
        try:
            lock.acquire(poll_interval=0.02)
        except OSError as error:  # a folder that can only be read
            self._warn(error)
            return compute()
        try:
            # Whoever held the lock may have written it meanwhile.
            self._remove_damaged(key)
            found = self._unpacked(key, unpack)
            if found is not None:
                return found
            result = compute()
            data = pack(result)
            if data is not None:
                self._write(key, data)
            return result
        finally:
            lock.release()

    def _unpacked(self, key: str, unpack: Callable[[Entry], T | None]) -> T | None:
        entry = self.get(key)
        return None if entry is None else unpack(entry)

    def file(self, key: str) -> Path:
        """Return where the entry of a key is, or will be."""
        return self.path / (key + SUFFIX)

    def _remove_damaged(self, key: str) -> None:
        """Remove a damaged entry, and say so; the caller holds its lock."""
        path = self.file(key)
        try:
            read(path)
        except DamagedEntryError as error:
            path.unlink(missing_ok=True)
            warnings.warn(
                f"The cached result {str(path)!r} is damaged ({error}); it is computed anew.",
                UserWarning,
                stacklevel=2,
            )

    def _write(self, key: str, data: bytes) -> None:
        """Write a file that is there as a whole or not at all."""
        part = None
        try:
            with tempfile.NamedTemporaryFile(
                dir=self.path, prefix=key, suffix=PART, delete=False
            ) as part:
                part.write(data)
            os.replace(part.name, self.file(key))
            self._evict(key, len(data))
        except OSError as error:  # a full disk is no reason to lose the result
            if part is not None:
                with contextlib.suppress(OSError):
                    os.unlink(part.name)
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        warn_once(f"Results could not be cached in {str(self.path)!r}: {reason}.")

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each entry was last used, its bytes and its path."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as files:
            for file in files:
                if not file.name.endswith((SUFFIX, PART)):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat()
                    yield status.st_mtime, status.st_size, Path(file.path)

    def _evict(self, newest: str, n_bytes: int) -> None:
        """Remove what is too much, but not the entry that was just written.

        Looking through a folder takes the longer the more is there, so that each process looks
        when it has written a hundredth of what there may be.
        """
        _WRITTEN[self.path] = written = _WRITTEN.get(self.path, self.max_bytes) + n_bytes
        if written <= self.max_bytes / 100:
            return
        _WRITTEN[self.path] = 0
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for used, size, path in entries:
            abandoned = path.suffix == PART and used < time.time() - ABANDONED
            old = path.suffix == SUFFIX and total > self.max_bytes and path != self.file(newest)
            if abandoned or old:
                path.unlink(missing_ok=True)
                path.with_suffix(LOCK).unlink(missing_ok=True)
                total -= size


def warn_once(message: str) -> None:
    """Warn of something once in a process, not for each cell of a search."""
    if message not in TOLD:
        TOLD.add(message)
        warnings.warn(message, UserWarning, stacklevel=2)


def as_folder(memory: Any) -> CacheFolder | None:
    """Turn what users give as `memory` into a folder; None stays None."""
    if isinstance(memory, joblib.Memory):
        memory = memory.location
    if memory is None or isinstance(memory, CacheFolder):
        return memory
    return CacheFolder(memory)
