"""Pin requirements.in into requirements.txt, or check what is pinned: ``python tools/lock.py``.

The lock is what a stranger's machine can install, by construction: it is resolved from the public
registry alone (no wheel folder or other index of this machine is asked), for the oldest patch
release of Python that the book supports, from wheels only. Versions that are pinned and still fit
stay; ``--upgrade`` moves them all. ``--check`` writes nothing: it asks the registry whether the
lock resolves for every supported Python and platform.

What only torch's CUDA build needs is left out. pip takes it with that build, which pins it exactly,
and a machine with the CPU build is spared several GB.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent.parent
DIRECT, LOCK = HERE / "requirements.in", HERE / "requirements.txt"
OLDEST = "3.11.2"  # Debian 12's; tools/bootstrap.sh refuses what is older
PYTHONS = (OLDEST, "3.11.7", "3.12.0", "3.13.0")
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin")
MACOS = "14.0"  # the oldest that torch has wheels for
CUDA = ("cuda-", "nvidia-", "triton")
HEADER = f"""# `make lock` wrote this from requirements.in, for Python {OLDEST} and newer.
# Only versions that the public registry has; what torch's CUDA build needs comes with that build.
"""


def requirements(text: str) -> list[Requirement]:
    """The requirements of a file's text, without comments and blank lines."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def pins(lock: str) -> dict[str, str]:
    """Name -> version of every line that pins exactly one version."""
    found = {}
    for requirement in requirements(lock):
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if len(exact) == 1:
            found[canonicalize_name(requirement.name)] = exact[0]
    return found


def faults(lock: str, direct: str, admits: Mapping[str, str]) -> list[str]:
    """What is wrong with a lock, a sentence each.

    Parameters
    ----------
    lock, direct
        The texts of requirements.txt and requirements.in.
    admits
        Name -> the Pythons that the pinned version declares (``Requires-Python``).
    """
    found, pinned = [], pins(lock)
    for requirement in requirements(lock):
        name = canonicalize_name(requirement.name)
        version = pinned.get(name)
        if version is None:
            found.append(f"{requirement} is not pinned to one version: name==version")
        elif "+" in version:
            found.append(f"{name}=={version} has a local label, which no public registry has")
        if name.startswith(CUDA):
            found.append(f"{name} belongs to torch's CUDA build: the CPU build must not pull it in")
        if not SpecifierSet(admits.get(name, "")).contains(OLDEST):
            found.append(f"{name}=={version} wants Python {admits[name]}: the oldest is {OLDEST}")
    for requirement in requirements(direct):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"{requirement.name} is in requirements.in and not in the lock")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"the lock has {requirement.name}=={version}, not {requirement}")
    return found


def resolve(source: Path, python: str, platform: str, *options: str) -> str:
    """Resolve `source` at the public registry; the resolver's complaint, "" if there is none."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise SystemExit(f"{sys.executable} has no uv beside it: run `make lock`")
    # Settings of this machine (other indexes, wheel folders, constraints) must take no part.
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_"))}
    alone["MACOSX_DEPLOYMENT_TARGET"] = MACOS
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--no-annotate", "--no-header"]
    command += ["--only-binary", ":all:", "--python-version", python, "--python-platform", platform]
    command += [*options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    return done.stderr.strip() if done.returncode else ""


def write(*options: str) -> int:
    """Resolve requirements.in and write the lock; 1 if there is no solution."""
    with tempfile.TemporaryDirectory() as folder:
        resolved = Path(folder) / LOCK.name
        shutil.copy(LOCK, resolved)  # what is pinned is preferred
        output = ("--output-file", str(resolved))
        complaint = resolve(DIRECT, OLDEST, PLATFORMS[0], *output, *options)
        if complaint:
            print(f"The lock is as it was.\n{complaint}", file=sys.stderr)
            return 1
        lines = resolved.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(CUDA)]
    LOCK.write_text(HEADER + "\n".join(kept) + "\n", encoding="utf-8")
    print(f"{LOCK.name}: {len(kept)} packages")
    return 0


def check() -> int:
    """Ask the registry whether the lock resolves wherever the book is said to build; 1 if not."""
    text = LOCK.read_text(encoding="utf-8")
    found = faults(text, DIRECT.read_text(encoding="utf-8"), {})
    for python, platform in itertools.product(PYTHONS, PLATFORMS):
        complaint = resolve(LOCK, python, platform)
        print(f"Python {python} on {platform}: {complaint or 'resolves'}", flush=True)
        if complaint:
            found.append(f"no solution for Python {python} on {platform}")
    print("\n".join(found) or f"{LOCK.name} is in order")
    return 1 if found else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    raise SystemExit(check() if arguments == ["--check"] else write(*arguments))
