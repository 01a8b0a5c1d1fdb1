"""The documentation covers all that is public, and its tables come from the code."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import skcompress
from skcompress import (
    DistilledNet,
    PrunedNet,
    distillation,
    pruning,
    quantization,
    selection,
    training,
)
from skcompress._sklearn import StrOptions
from skcompress.pruning import CRITERIA
from skcompress.pruning.recovery import DEFAULT_EPOCHS

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/user_guide/pruning.md").read_text(encoding="utf-8")
DISTILLATION = (ROOT / "docs/user_guide/distillation.md").read_text(encoding="utf-8")
DOCUMENTED = set(
    re.findall(
        r"^\.\. auto(?:class|data|function):: (?:\w+\.)*(\w+)$",
        (ROOT / "docs/api.rst").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)
PUBLIC = {
    name
    for part in (skcompress, distillation, pruning, quantization, selection, training)
    for name in part.__all__
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_on_the_api_page(name):
    """The API page documents what the packages export."""
    assert name in DOCUMENTED


@pytest.mark.parametrize("function", CRITERIA.values(), ids=CRITERIA)
def test_criteria_are_on_the_api_page(function):
    """The API page documents the function behind each criterion."""
    assert function.__name__ in DOCUMENTED


@pytest.mark.parametrize("name", PrunedNet.__init__.__kwdefaults__)
def test_guide_mentions_every_parameter(name):
    """Each parameter of PrunedNet stands in the user guide, in code type."""
    assert re.search(rf"`{name}[`=]", GUIDE)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        (name, choice)
        for name, constraints in PrunedNet.parameter_constraints.items()
        for constraint in constraints
        if isinstance(constraint, StrOptions)
        for choice in sorted(constraint.options)
    ],
)
def test_guide_mentions_every_choice(name, choice):
    """Each choice of each parameter stands in the user guide, alone or with its parameter."""
    assert f'`"{choice}"`' in GUIDE or f'`{name}="{choice}"`' in GUIDE


def test_guide_knows_the_default_epochs():
    """The table of ways to recover has the number of epochs that the code has."""
    rows = [line for line in GUIDE.splitlines() if line.startswith('| `"fine-tune"`')]
    assert [row.split("|")[-2].strip() for row in rows] == [str(DEFAULT_EPOCHS)]


@pytest.mark.parametrize("name", DistilledNet.__init__.__kwdefaults__)
def test_guide_to_distillation_mentions_every_parameter(name):
    """Each parameter of DistilledNet stands in its user guide, in code type."""
    assert re.search(rf"`{name}[`=]", DISTILLATION)


@pytest.fixture(scope="module")
def tables():
    """Return the names of the script that writes the tables of refusals."""
    return runpy.run_path(str(ROOT / "docs/refusals.py"))


@pytest.mark.parametrize("name", ["pruning", "quantization", "distillation"])
def test_guide_has_the_refusals_of_the_code(tables, name):
    """The page has a row of two cells for each combination that is refused, and no other."""
    page = (ROOT / f"docs/user_guide/{name}.md").read_text(encoding="utf-8")
    (table,) = tables["FRAME"].findall(page)
    rows = [f"| {r.combination} | {r.message} |" for r in tables["TABLES"][name]]
    assert table.replace("`", "").split("\n")[3:-2] == rows, "run `python docs/refusals.py`"
    assert tables["with_table"](name) == page, "run `python docs/refusals.py`"


def test_every_technique_has_a_table(tables):
    """A wing of the package with refusals is not forgotten."""
    wings = {path.parent.name for path in (ROOT / "skcompress").glob("*/refusals.py")}
    assert set(tables["TABLES"]) == wings


def test_documentation_builds_without_warnings(tmp_path):
    """Sphinx builds every page, and a warning is an error."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("_build"))
    shutil.copy(ROOT / "README.md", tmp_path)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", "html"]
    build = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr
    assert "cannot be taken apart" in (tmp_path / "html/user_guide/pruning.html").read_text()
