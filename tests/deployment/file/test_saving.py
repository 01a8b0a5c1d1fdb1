"""How a file gets where it belongs: whole or not at all, and as what was there before."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skcompress import PrunedNet, load, save
from skcompress.deployment.file import artifact, layout
from tests.pruning_modules import classification, classifier


@pytest.fixture(scope="module")
def net():
    """Return a net, and rows for it."""
    return classifier().initialize(), classification()[0]


def test_links_and_modes_stay(net, tmp_path):
    """What a link points to is replaced, and remains as readable as it was."""
    target, link = tmp_path / "target.skc", tmp_path / "link.skc"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    save(net[0], link, net[1])
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    load(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.skc", "target.skc"]


def test_a_new_file_has_the_usual_mode(net, tmp_path):
    """As any other file of the user."""
    (tmp_path / "usual").touch()
    save(net[0], tmp_path / "net.skc", net[1])
    assert (tmp_path / "net.skc").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_long_names_and_bytes(net, tmp_path):
    """As long as the file system takes, in whatever type it takes."""
    path = os.fsencode(tmp_path / ("x" * 251 + ".skc"))
    save(net[0], path, net[1])
    np.testing.assert_allclose(load(path).predict_proba(net[1]), net[0].predict_proba(net[1]),
                               atol=1e-6)  # fmt: skip


def test_several_threads_write_one_file(net, tmp_path):
    """Each writes all of it, and the last one stays."""
    path = tmp_path / "net.skc"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: save(net[0], path, net[1]), range(4)))
    load(path)
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_is_said_first(net, tmp_path, monkeypatch):
    """Before the coding, which may take a while."""
    monkeypatch.setattr(artifact, "to_bytes", None)
    with pytest.raises(FileNotFoundError, match=r"There is no folder '.*none'"):
        save(net[0], tmp_path / "none" / "net.skc", net[1])
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save(net[0], tmp_path, net[1])


def test_what_was_there_stays_when_writing_fails(net, tmp_path, monkeypatch):
    """Nothing is left beside it."""
    path = tmp_path / "net.skc"
    path.write_bytes(b"old")

    def no_space(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        save(net[0], path, net[1])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_labels_that_no_file_can_hold(tmp_path):
    """A lone surrogate, such as Python makes of bytes that are no text."""
    X, y = classification()
    labels = np.array(["a", "b\udcff", "c"], dtype=object)[y]
    pruned = PrunedNet(classifier(max_epochs=1), retrain_epochs=1).fit(X, labels)
    with pytest.raises(ValueError, match=r"cannot be written, .*udcff.*other names"):
        save(pruned, tmp_path / "net.skc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", ["MAX_TENSORS", "_LONGEST_TEXT"])
def test_more_than_would_be_read(net, tmp_path, monkeypatch, limit):
    """What load refuses is not written in the first place."""
    monkeypatch.setattr(layout, limit, 1)
    with pytest.raises(ValueError, match=r"tensors .* a file holds at most"):
        save(net[0], tmp_path / "net.skc", net[1])
    assert not list(tmp_path.iterdir())
