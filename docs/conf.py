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
]
exclude_patterns = ["_build"]

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


def strip_code(app, doctree):
    """Drop the blank line that doctest needs at the end of an example."""
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
    app.connect("doctree-read", strip_code)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
