"""What installing fldp into Colab would change: ``python tools/colab.py``.

Resolves the package's dependencies at the public registry beside what Colab's image holds
(`tests/data/colab_packages.txt`), every version of which must stay. Exits with 1 where one would
have to move, or where more than Opacus would be added.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import lock
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parent.parent
IMAGE = HERE / "tests" / "data" / "colab_packages.txt"
PYTHON = "3.13"
# What may come with fldp.
ADDED = {"opacus"}
# What the image has and its list here leaves out: cffi's own.
UNLISTED = {"pycparser"}


def image() -> dict[str, str]:
    """Name -> version of what is there, without the label of Colab's own builds."""
    found = lock.pins(IMAGE.read_text(encoding="utf-8"))
    return {name: Version(version).public for name, version in found.items()}


def dependencies() -> list[str]:
    """What the package asks for."""
    metadata = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[str] = metadata["project"]["dependencies"]
    return found


def changes(
    wanted: Iterable[str], there: Mapping[str, str], asks: Callable[[str], Iterable[str]]
) -> set[str]:
    """What would be added or replaced, by walking through the requirements.

    What is there and fits is kept, and has what it needs itself; what is not there is added, and
    asks for more.

    Parameters
    ----------
    wanted : iterable of str
        Requirements.
    there : mapping of str to str
        Name -> version.
    asks : callable
        The requirements of a name that is not there.

    Returns
    -------
    set of str
        Names that are added; for one that is replaced, the requirement that it does not fit.
    """
    found: set[str] = set()
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name in there:
            if there[name] not in requirement.specifier:
                found.add(str(requirement))
        elif name not in found:
            found |= {name, *changes(asks(name), there, asks)}
    return found


def main() -> int:
    """Ask the registry."""
    there = image()
    with tempfile.TemporaryDirectory() as folder:
        wanted, kept, output = (Path(folder) / name for name in ("in.txt", "kept.txt", "out.txt"))
        wanted.write_text("\n".join(dependencies()), encoding="utf-8")
        pins = [f"{name}=={version}" for name, version in there.items()]
        kept.write_text("\n".join(pins), encoding="utf-8")
        options = ("--constraint", str(kept), "--output-file", str(output))
        complaint = lock.resolve(wanted, PYTHON, lock.PLATFORMS[0], *options)
        if complaint:
            print(f"Something that Colab has would be replaced.\n{complaint}", file=sys.stderr)
            return 1
        resolved = lock.pins(output.read_text(encoding="utf-8"))
    added = set()
    for name in resolved.keys() - there.keys() - UNLISTED:
        # torch of the public registry brings CUDA in packages of their own; Colab's build has it.
        if not name.startswith(lock.CUDA):
            added.add(name)
    print("Beside fldp would be installed:", ", ".join(sorted(added)))
    print(f"{len(resolved.keys() & there.keys())} packages would stay as they are")
    return int(added != ADDED)


if __name__ == "__main__":
    sys.exit(main())
