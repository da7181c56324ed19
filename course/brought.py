"""What the box holds: Python and what is installed in it, the package, and two files of the engine.

Python may be anywhere (a distribution's, pyenv's, conda's, an environment in a folder below /tmp),
and may be reached by links. Of a folder that something is installed in only those parts are
brought that running it needs: the folder itself may be somebody's home, with submissions in it.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator
from pathlib import Path

import fldp

HERE = Path(__file__).resolve().parent
# Where the worker and the package stand inside.
INSIDE = "/box"
# `box.sh` brings these of the root folder itself.
OF_THE_ROOT = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
OF_THE_SYSTEM = (*OF_THE_ROOT, "libexec", "share")
OF_PYTHON = ("bin", "lib", "lib64", "pyvenv.cfg")
FILES = ("/etc/ld.so.cache", "/etc/alternatives")
# What reads the list takes a line for a pair of paths.
SEPARATORS = "\t\n"


def _program(path: str) -> Iterator[str]:
    """A program's path, and those of all links that it is reached by."""
    yield path
    while os.path.islink(path):
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        yield path
    yield os.path.realpath(path)


def _folders() -> set[str]:
    """All that the box shows at the place where it is outside."""
    found = {f"/usr/{part}" for part in OF_THE_SYSTEM}
    prefixes = {sys.prefix, sys.base_prefix}
    prefixes |= {os.path.dirname(os.path.dirname(path)) for path in _program(sys.executable)}
    # Of a program in /bin the folder is the root.
    found |= {f"{prefix}/{part}" for prefix in prefixes - {"/"} for part in OF_PYTHON}
    found |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    return {path for path in found if os.path.exists(path)}


def folders() -> list[str]:
    """All that the box shows at the place where it is outside; none lies within another.

    Raises
    ------
    OSError
        Where that would show the engine and with it whatever lies beside it.
    """
    chosen: list[str] = []
    covered = [f"/{name}/" for name in OF_THE_ROOT]
    # Sorted, a folder comes before what is in it.
    for path in sorted(_folders()):
        if not f"{path}/".startswith(tuple(covered)):
            chosen.append(path)
            covered.append(f"{path}/")
    for path in chosen:
        if HERE.is_relative_to(os.path.realpath(path)):
            raise OSError(f"it would show {path}, where the course lies: move the course elsewhere")
    return chosen


def lines() -> str:
    """What the box holds, as `box.sh` reads it: ``source<tab>target``.

    Raises
    ------
    OSError
        Where something cannot be brought.
    """
    pairs = [(path, path) for path in folders()]
    pairs += [(path, path) for path in FILES if os.path.exists(path)]
    pairs.append((str(Path(fldp.__file__).resolve().parent), f"{INSIDE}/fldp"))
    # The rest of the engine is not there: its __init__ neither.
    for name in ("worker.py", "values.py"):
        pairs.append((str(HERE / name), f"{INSIDE}/course/{name}"))
    for source, _ in pairs:
        if any(letter in source for letter in SEPARATORS):
            raise OSError(f"a path has a tab or a line's end in it: {source!r}")
    return "\n".join(f"{source}\t{target}" for source, target in pairs)


def environment() -> dict[str, str]:
    """What Python needs to be told of where it is installed; nothing else of the grader's."""
    told = {}
    if site.ENABLE_USER_SITE:
        told["PYTHONUSERBASE"] = site.getuserbase()
    # Some shared Pythons find their library by it.
    if paths := os.environ.get("LD_LIBRARY_PATH"):
        told["LD_LIBRARY_PATH"] = paths
    return told
