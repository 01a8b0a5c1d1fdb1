"""What the files beside the package promise to each other."""

import re
import tomllib
from pathlib import Path

import skcompress
from skcompress import _version

ROOT = Path(__file__).parents[1]


def test_readme_has_two_commands_that_set_up():
    """README sets up with one command for the demonstration and one for the tests."""
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m skcompress")
    assert "-m pytest" in commands[1]
    assert all("-c .ci/constraints.txt" in command for command in commands)


def test_ci_takes_the_test_command_from_readme():
    """The script greps README for the command instead of having one of its own."""
    script = (ROOT / ".ci/run").read_text()
    assert "README.md" in script
    assert "-m pytest" not in script


def test_version_has_one_source():
    """The distribution takes its version from the package, and states none of its own."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert ROOT / settings["tool"]["hatch"]["version"]["path"] == Path(_version.__file__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", skcompress.__version__)


def test_links_of_readme_lead_somewhere():
    """They are paths in the repository, so that they work on GitHub as well."""
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    inside = [link for link in links if not link.startswith("https://")]
    assert {"docs/user_guide/pruning.md", "notebooks/01_quickstart.ipynb"} <= set(inside)
    assert [link for link in inside if not (ROOT / link).exists()] == []
