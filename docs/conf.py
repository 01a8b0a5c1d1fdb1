"""Sphinx settings: `sphinx-build -W docs docs/_build` builds the pages without warnings."""

from skcompress import __version__

project = "skcompress"
author = "skcompress developers"
copyright = "2026, skcompress developers"
release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
# A glob in index.md whose folder has no page yet is no mistake.
suppress_warnings = ["toc.empty_glob"]

html_theme = "furo"
html_title = f"skcompress {release}"

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's Parameters sections give types in words
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
