"""The floors of the package: imports go down only, and techniques do not import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "skcompress"
GROUND = {
    "activations",
    "layers",
    "moments",
    "_sklearn",
    "_version",
    "row_axes",
    "rows",
    "graph",
    "inputs",
    "prediction",
    "probe",
    "refusals",
    "stubs",
    "training",
    "base",
}
WINGS = {"pruning", "quantization", "distillation"}
UPPER = {"selection", "deployment"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path):
    """Name the part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path):
    """Name the parts of the package that a file imports."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
        elif node.level == 0 and node.module.split(".")[0] == "skcompress":
            yield [*node.module.split("."), "__init__"][1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    """The ground floor imports no technique, and a technique no other and nothing above it."""
    imports, own = set(imported_parts(path)), part(path)
    allowed = {own} | GROUND
    if own in UPPER:
        allowed |= WINGS | UPPER
    if own in {"__init__", "__main__"}:
        allowed |= WINGS | UPPER | {"__init__"}
    assert imports <= allowed


def test_every_part_stands_on_a_floor():
    """A new folder or module is given a floor, or the rule above says nothing about it."""
    parts = {part(path) for path in FILES}
    assert parts <= GROUND | WINGS | UPPER | {"__init__", "__main__"}


def test_private_scikit_learn_has_one_door():
    """Only ``_sklearn.py`` imports names of scikit-learn that begin with an underscore."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                private = [name for name in names if name.startswith("_")]
                assert not private or path.name == "_sklearn.py", f"{path}: {private}"


def test_files_fit_on_a_few_screens():
    """No file of the package or of its tests is longer than 300 lines."""
    files = [*FILES, *Path(__file__).parent.rglob("*.py")]
    lengths = {str(path): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
