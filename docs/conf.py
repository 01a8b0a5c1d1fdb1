"""Sphinx settings: `sphinx-build -W docs docs/_build` builds the pages without warnings."""

import re
from pathlib import Path

from skcompress import __version__
from skcompress.distillation.refusals import REFUSALS as DISTILLATION
from skcompress.pruning.refusals import REFUSALS as PRUNING
from skcompress.quantization.refusals import REFUSALS as QUANTIZATION

project = "skcompress"
author = "skcompress developers"
copyright = "2026, skcompress developers"
release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
# What is generated is included by other pages.
exclude_patterns = ["_build", "generated"]

smartquotes = False  # quotes in docstrings are code

html_theme = "furo"
html_math_renderer = "mathml"  # formulas need no script from the network
html_title = f"skcompress {release}"

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's Parameters sections give types in words
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3


# Name of the generated page: the table of refusals that it shows.
REFUSALS = {"refusals": PRUNING, "refusals_distillation": DISTILLATION,
            "refusals_quantization": QUANTIZATION}  # fmt: skip


def refusal_table(refusals) -> str:
    """Return the combinations that an estimator refuses as a Markdown table."""
    rows = [f"| {as_code(r.combination)} | {as_code(r.message)} |" for r in refusals]
    return "\n".join(["| combination | what the error says |", "|---|---|", *rows, ""])


def as_code(text: str) -> str:
    """Set names of parameters and their values as code."""
    value = r"'[^']*'"
    return re.sub(rf"\b\w+=(?:{value}|\w+)?|(?<!\w){value}|\b\w+_\w*|\b\w+\(\)", r"`\g<0>`", text)


def write_refusals(app):
    folder = Path(app.srcdir, "generated")
    folder.mkdir(exist_ok=True)
    for name, refusals in REFUSALS.items():
        folder.joinpath(f"{name}.md").write_text(refusal_table(refusals), encoding="utf-8")


def strip_code(app, doctree):
    """Drop the blank line that doctest needs at the end of an example."""
    # Imported here, so that the tests can read the tables above without Sphinx.
    from docutils import nodes

    for block in doctree.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip()
        block[:] = [nodes.Text(block.rawsource)]


def write_formula(translator, node):
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    displayed = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=displayed)
    translator.body.append(f'<div class="math">{formula}</div>' if displayed else formula)
    raise nodes.SkipNode


def setup(app):
    app.connect("builder-inited", write_refusals)
    app.connect("doctree-read", strip_code)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
