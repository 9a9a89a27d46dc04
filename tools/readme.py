"""Writes the README's table of systems from their docstrings: `python -m tools.readme`."""

import pathlib
import re
import sys

from tfgen import listing, run

README = pathlib.Path(__file__).parent.parent / "README.md"
_TABLE = re.compile(r"(<!-- systems: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str) -> str:
    """The README's text with the table as it should be."""
    return _TABLE.sub(lambda match: match[1] + listing.markdown() + match[2], text)


if __name__ == "__main__":
    run.write_text(README, written(README.read_text(encoding="utf-8")))
    sys.exit()
