"""The notes of a release, from CHANGELOG.md: ``python3 tools/release_notes.py v0.2.0``.

Refuses a tag that is not the package's version, or that the changelog does not have under a date.
Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def version() -> str:
    """The package's own, without importing it."""
    text = (HERE / "fldp" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.M)
    if found is None:
        raise ValueError("fldp/__init__.py has no line __version__ = ...")
    return found[1]


def notes(tag: str, current: str, changelog: str) -> str:
    """The section of a tag; a ValueError where tag, version and changelog do not agree.

    Parameters
    ----------
    tag : str
        Such as "v0.2.0".
    current : str
        The package's version.
    changelog : str
        The text of CHANGELOG.md.

    Returns
    -------
    str
    """
    if tag != f"v{current}":
        raise ValueError(f"the tag is {tag} and the package is {current}: tag v{current}")
    heading = rf"^## {re.escape(current)} - \d{{4}}-\d\d-\d\d$\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.M | re.S)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no section '## {current} - YYYY-MM-DD'")
    return found[1].strip() + "\n"


def main(argv: list[str]) -> int:
    try:
        text = notes(argv[0], version(), (HERE / "CHANGELOG.md").read_text(encoding="utf-8"))
    except (ValueError, IndexError) as error:
        print(f"release_notes: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
