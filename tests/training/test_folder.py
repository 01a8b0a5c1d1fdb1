"""The folder of the cache: one process computes, damage is found, old entries go."""

import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

from skcompress.training import CacheFolder
from skcompress.training.entries import Entry, to_bytes
from tests.contract_modules import assert_same_state, state
from tests.training.cache_modules import append, counted, n_fits, rows
from tests.training.test_cache import search

X, Y = rows()
GRID = {"sparsity": [0.5, 0.9]}


def entries(folder):
    """List the entries, the dense net's and the estimator's."""
    return sorted(CacheFolder(folder).path.glob("*.safetensors"))


def compute_once(folder, log, key):
    """Ask for a result that takes a while; note each time that it is computed."""

    def compute():
        append(log, "computed")
        time.sleep(0.3)
        return torch.arange(3.0)

    return CacheFolder(folder).once(
        key, compute, lambda x: to_bytes(Entry({}, {"x": x}), key), lambda entry: entry.tensors["x"]
    )


def test_racing_processes_compute_once(tmp_path):
    """Of processes that ask at the same time, one computes and the others wait for it."""
    CacheFolder(tmp_path / "cache").check()
    context = multiprocessing.get_context("fork")
    arguments = [(tmp_path / "cache", tmp_path / "log", key) for key in ["a", "b"] * 4]
    with context.Pool(8) as pool:
        results = pool.starmap(compute_once, arguments, chunksize=1)
    assert n_fits(tmp_path / "log") == 2
    for result in results:
        assert torch.equal(result, torch.arange(3.0))


def search_and_save(log, folder, path):
    """Search, and write the scores into a file."""
    np.save(path, search(counted(log, folder), GRID))


def start(*arguments):
    """Start a search of ten cells in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=search_and_save, args=arguments)
    process.start()
    return process


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_killed_search_goes_on(tmp_path):
    """Killed again and again, a search repeats no stage that was completed."""
    log, folder, rng = tmp_path / "log", tmp_path / "cache", np.random.default_rng(0)
    counted().fit(X, Y)  # what torch imports late is there when processes are forked
    n_killed = 0
    for n_wanted in (1, 3, 4, 6, 9):
        process = start(log, folder, tmp_path / "scores.npy")
        while process.is_alive() and len(entries(folder)) < n_wanted:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.1))
        n_killed += process.is_alive()
        process.kill()
        process.join()
    assert n_killed > 0
    done = {path: path.stat().st_ino for path in entries(folder)}
    assert len(done) >= 9
    process = start(log, folder, tmp_path / "scores.npy")
    process.join()
    # A dense fit that was under way when its process was killed is begun again.
    assert 5 <= n_fits(log) <= 5 + n_killed
    assert len(entries(folder)) == 5 + 10
    assert {path: path.stat().st_ino for path in done} == done
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), search(counted(), GRID))


def truncate(path):
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Change one bit of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(path):
    """Leave nothing."""
    path.write_bytes(b"")


def rewrite(path):
    """Change a fact, and nothing about the form."""
    path.write_bytes(path.read_bytes().replace(b"facts", b"fakts"))


@pytest.mark.parametrize("damage", [truncate, flip, empty, rewrite], ids=lambda f: f.__name__)
def test_damaged_entries_are_computed_anew(damage, tmp_path):
    """Damage is reported once for each entry, and mended."""
    log, folder = tmp_path / "log", tmp_path / "cache"
    first = counted(log, folder).fit(X, Y)
    for path in entries(folder):
        damage(path)
    with pytest.warns(UserWarning, match="is damaged") as warned:
        second = counted(log, folder).fit(X, Y)
    assert len(warned) == len(entries(folder)) == 2
    assert n_fits(log) == 2
    third = counted(log, folder).fit(X, Y)
    assert n_fits(log) == 2
    assert_same_state(state(first), state(second))
    assert_same_state(state(first), state(third))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
@pytest.mark.parametrize("inner", [False, True])
def test_folders_that_others_write_to_are_refused(mode, inner, tmp_path):
    """The folder and the one in it are refused, before any training."""
    folder = CacheFolder(tmp_path / "cache")
    folder.check()
    (folder.path if inner else tmp_path / "cache").chmod(mode)
    with pytest.raises(ValueError, match=r"Others can write to the cache folder .*chmod go-w"):
        counted(tmp_path / "log", tmp_path / "cache").fit(X, Y)
    assert n_fits(tmp_path / "log") == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_folders_of_others_are_refused(tmp_path, monkeypatch):
    """A folder that belongs to another user is refused."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        counted(memory=tmp_path / "cache").fit(X, Y)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_new_folders_are_private(tmp_path):
    """Whatever the umask is, a folder that is made here is refused to nobody but others."""
    before = os.umask(0)
    try:
        counted(memory=tmp_path / "deep" / "cache").fit(X, Y)
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "cache").stat().st_mode & 0o077 == 0
    assert len(entries(tmp_path / "deep" / "cache")) == 2


def add(folder, key, n_bytes, hours_ago):
    """Write an entry as if so many hours ago."""
    folder.once(
        key,
        lambda: torch.zeros(n_bytes, dtype=torch.uint8),
        lambda x: to_bytes(Entry({}, {"x": x}), key),
        lambda entry: entry.tensors["x"],
    )
    used = time.time() - 3600 * hours_ago
    os.utime(folder.path / f"{key}.safetensors", (used, used))


def names(folder):
    """List the keys of the entries."""
    return sorted(path.stem for path in folder.path.glob("*.safetensors"))


def test_an_entry_in_the_place_of_another(tmp_path):
    """It is damage as well."""
    folder = CacheFolder(tmp_path / "cache")
    folder.check()
    for key, n_bytes in (("first", 10), ("second", 20)):
        add(folder, key, n_bytes, hours_ago=1)
    first, second = (folder.path / f"{key}.safetensors" for key in ("first", "second"))
    first.write_bytes(second.read_bytes())
    assert folder.get("first") is None
    with pytest.warns(UserWarning, match="is damaged"):
        add(folder, "first", 10, hours_ago=1)
    assert len(folder.get("first").tensors["x"]) == 10


def test_the_least_recently_used_entries_go(tmp_path):
    """Entries that were read lately stay, and the newest one always does."""
    folder = CacheFolder(tmp_path / "cache", max_bytes=35_000)
    folder.check()
    for number in range(3):
        add(folder, f"entry{number}", 10_000, hours_ago=9 - number)
    assert names(folder) == ["entry0", "entry1", "entry2"]
    assert folder.get("entry0") is not None
    add(folder, "entry3", 10_000, hours_ago=0)
    assert names(folder) == ["entry0", "entry2", "entry3"]
    assert 30_000 < folder.n_bytes <= 35_000
    small = CacheFolder(tmp_path / "cache", max_bytes=0)
    small.once("last", lambda: 1, lambda x: to_bytes(Entry({"x": x}), "last"), lambda entry: 1)
    assert names(folder) == ["last"]


def test_clear(tmp_path):
    """Nothing is left of the entries, and a fit writes them again."""
    folder = CacheFolder(tmp_path / "cache")
    folder.clear()
    counted(memory=folder).fit(X, Y)
    assert folder.n_bytes > 0
    folder.clear()
    assert list(folder.path.iterdir()) == []
    counted(memory=folder).fit(X, Y)
    assert len(names(folder)) == 2


def test_abandoned_files_go(tmp_path):
    """What a killed process left half-written is removed after a day, and not before."""
    folder = CacheFolder(tmp_path / "cache")
    folder.check()
    for name, hours in [("old.part", 25), ("new.part", 1)]:
        (folder.path / name).write_bytes(b"half")
        used = time.time() - 3600 * hours
        os.utime(folder.path / name, (used, used))
    add(folder, "entry", 10, hours_ago=0)
    assert not (folder.path / "old.part").exists()
    assert (folder.path / "new.part").exists()


def test_a_full_disk_loses_no_result(tmp_path, monkeypatch):
    """If an entry cannot be written, the fit goes on with a warning."""

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="could not be cached .*No space left") as told:
        estimator = counted(memory=tmp_path / "cache").fit(X, Y)
    assert len(told) == 1  # of two stages, and of others later
    counted(memory=tmp_path / "cache", sparsity=0.7).fit(X, Y)
    assert estimator.score(X, Y) > 0.5
    # What was written in part does not stay.
    assert [path.suffix for path in (tmp_path / "cache" / "skcompress").iterdir()] == [".lock"] * 3


def test_a_folder_that_can_only_be_read(tmp_path, monkeypatch):
    """What is there is used, and what is not is computed, with a warning."""
    first = counted(memory=tmp_path / "cache").fit(X, Y)

    def fail(*args, **settings):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(FileLock, "acquire", fail)
    assert_same_state(state(first), state(counted(memory=tmp_path / "cache").fit(X, Y)))
    with pytest.warns(UserWarning, match="could not be cached .*Permission denied"):
        counted(memory=tmp_path / "cache", sparsity=0.7).fit(X, Y)


def test_what_is_no_folder_is_refused(tmp_path):
    """The error names the parameter, before any training."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"memory=.* cannot be a folder: .*Give a path where you"):
        counted(tmp_path / "log", tmp_path / "file").fit(X, Y)
    for size in ("2GB", None, -1, 0.5):
        with pytest.raises(ValueError, match=r"max_bytes is .*; give a whole number, at least 0"):
            counted(tmp_path / "log", CacheFolder(tmp_path / "cache", max_bytes=size)).fit(X, Y)
    assert n_fits(tmp_path / "log") == 0


def test_the_folder_may_be_in_the_home_folder(tmp_path, monkeypatch):
    """As shells have it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CacheFolder("~/cache").path.is_relative_to(tmp_path)
