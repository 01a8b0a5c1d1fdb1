"""Write the tables of what is refused into the pages of the user guide.

After a change of a table in the code::

    python docs/refusals.py

A test compares the pages with the code.
"""

import re
from pathlib import Path

from skcompress.distillation.refusals import REFUSALS as DISTILLATION
from skcompress.pruning.refusals import REFUSALS as PRUNING
from skcompress.quantization.refusals import REFUSALS as QUANTIZATION

GUIDE = Path(__file__).parent / "user_guide"
TABLES = {"pruning": PRUNING, "distillation": DISTILLATION, "quantization": QUANTIZATION}
FRAME = re.compile(r"(?<=<!-- refusals -->\n).*?(?=<!-- end of refusals -->)", re.DOTALL)


def refusal_table(refusals):
    """Return the combinations that an estimator refuses as a Markdown table."""
    rows = [f"| {as_code(r.combination)} | {as_code(r.message)} |" for r in refusals]
    return "\n".join(["", "| combination | what the error says |", "|---|---|", *rows, "", ""])


def as_code(text):
    """Set names of parameters and their values as code."""
    value = r"'[^']*'"
    names = rf"\b\w+=(?:{value}|\w+(?:\.\d+)?)?|(?<!\w){value}|\b\w+_\w*|\b\w+\(\)"
    return re.sub(names, r"`\g<0>`", text)


def with_table(name):
    """Return a page of the guide with the table of today's code."""
    page = (GUIDE / f"{name}.md").read_text(encoding="utf-8")
    table = refusal_table(TABLES[name])
    page, count = FRAME.subn(lambda match: table, page)
    if count != 1:
        raise ValueError(f"{name}.md needs one place for the table of refusals; it has {count}.")
    return page


if __name__ == "__main__":
    for name in TABLES:
        (GUIDE / f"{name}.md").write_text(with_table(name), encoding="utf-8")
