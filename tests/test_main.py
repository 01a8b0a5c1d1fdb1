import sys

import pytest
from sklearn.model_selection import StratifiedKFold

from skcompress import __main__ as demonstration


def test_small_demonstration(monkeypatch, tmp_path, capsys):
    """A grid of two candidates and two folds ends in a table, a conclusion and a picture."""
    grid = {"prunednet__criterion": ["magnitude", "random"], "prunednet__sparsity": [0.8]}
    monkeypatch.setattr(demonstration, "GRID", grid)
    monkeypatch.setattr(demonstration, "FOLDS", StratifiedKFold(2))
    monkeypatch.setattr(demonstration, "EPOCHS", 2)
    picture = tmp_path / "picture.png"
    demonstration.main(["--output", str(picture), "--n-jobs", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if " ms" in line]
    assert rows == ["(dense)", "magnitude", "random"]
    assert sum(line.endswith("<- chosen") for line in lines) == 1
    assert any(line.startswith("Chosen: the smallest net") for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("missing", ["rich.progress", "matplotlib"])
def test_missing_extras_are_named_before_the_search(monkeypatch, missing):
    """Without rich or matplotlib the demonstration ends at once and says what to install."""
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, missing.split(".")[0], None)
    with pytest.raises(SystemExit, match=r"pip install 'skcompress\[demo\]'"):
        demonstration.progress_bar()
