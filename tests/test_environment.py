"""The environment can be had anywhere: the lock, the declared bounds, how it is made."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import lock
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parent.parent
LOCK = (HERE / "requirements.txt").read_text(encoding="utf-8")
DIRECT = (HERE / "requirements.in").read_text(encoding="utf-8")
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared() -> dict[str, str]:
    """Name -> ``Requires-Python`` of every installed distribution that has the pinned version."""
    found, pins = {}, lock.pins(LOCK)
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.name)
        if Version(distribution.version).public == pins.get(name):
            found[name] = distribution.metadata.get("Requires-Python", "")
    return found


def test_w01_the_lock_holds_what_the_public_registry_has() -> None:
    assert lock.faults(LOCK, DIRECT, {}) == []


def test_w02_every_pinned_package_admits_the_oldest_python() -> None:
    if Path(sys.prefix).resolve() != (HERE / ".venv").resolve():
        pytest.skip("not the environment that the Makefile made from the lock: versions differ")
    admits = declared()
    assert sorted(admits) == sorted(lock.pins(LOCK)), "not the locked versions: make ready"
    assert lock.faults(LOCK, DIRECT, admits) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("torch==2.13.0", "torch==2.13.0+cpu", "no public registry"),
        ("torch==2.13.0", "torch>=2.13.0", "not pinned to one version"),
        ("torch==2.13.0", "torch==2.12.0", "not torch==2.13.0"),
        ("torch==2.13.0\n", "", "torch is in requirements.in and not in the lock"),
        ("torch==2.13.0", "torch==2.13.0\ntriton==3.7.1", "CUDA"),
        ("torch==2.13.0", "torch==2.13.0\nnvidia-nvtx==13.0.85", "CUDA"),
    ],
)
def test_w01_a_planted_fault_is_refused(old: str, new: str, words: str) -> None:
    assert LOCK.count(f"\n{old}") == 1
    found = lock.faults(LOCK.replace(f"\n{old}", f"\n{new}"), DIRECT, {})
    assert any(words in fault for fault in found), found


def test_w02_a_package_for_newer_pythons_is_refused() -> None:
    planted = LOCK.replace("soupsieve==", "soupsieve==4.1.2  # was ")
    found = lock.faults(planted, DIRECT, {"soupsieve": ">=3.11.5"})
    assert found == [f"soupsieve==4.1.2 wants Python >=3.11.5: the oldest is {lock.OLDEST}"]
    assert lock.faults(planted, DIRECT, {"soupsieve": ">=3.11"}) == []


def test_the_package_declares_lower_bounds_only() -> None:
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert [part.operator for part in requirement.specifier] == [">="], text
        assert requirement.url is None


def test_the_lock_satisfies_the_declared_bounds() -> None:
    pins = lock.pins(LOCK)
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["verify"], *extras["book"], *extras["dev"]]:
        requirement = Requirement(text)
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not in the lock"
        assert requirement.specifier.contains(version), (text, version)


def bootstrap(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Status and standard error of tools/bootstrap.sh in an empty folder."""
    done = subprocess.run(
        ["bash", str(HERE / "tools" / "bootstrap.sh"), ".venv", ".venv/.ready", *arguments],
        cwd=folder, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def stand_in(folder: Path, body: str) -> str:
    """The path of a command that behaves as `body` says."""
    path = folder / "a python"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.11.0", "3.11.1", "3.14.0"])
def test_w02_a_python_that_the_lock_is_not_for_is_refused(tmp_path: Path, version: str) -> None:
    probe = '[ "$1" = --version ] && echo "Python VERSION" && exit\nexec "REAL" -c "$(CODE)"'
    numbers = tuple(map(int, version.split(".")))
    code = f"printf '%s\\n' 'import sys; sys.version_info = {numbers}' \"$2\""
    body = probe.replace("VERSION", version).replace("REAL", sys.executable).replace("CODE", code)
    status, said = bootstrap(tmp_path, stand_in(tmp_path, body))
    assert status == 1
    assert f"a python: Python {version}\n" in said
    assert "make book PYTHON=" in said
    assert not (tmp_path / ".venv").exists()


def test_w02_a_python_without_venv_and_pip_is_told_what_to_do(tmp_path: Path) -> None:
    body = '[ "$1" = -m ] && echo "no module $2" && exit 1\nexit 0'
    status, said = bootstrap(tmp_path, stand_in(tmp_path, body))
    assert status == 1
    assert "no module venv" in said, "the reason must be shown"
    assert "apt install python3-venv" in said
    assert not (tmp_path / ".venv").exists()


def test_w01_the_choice_of_torch_is_cpu_or_nothing(tmp_path: Path) -> None:
    status, said = bootstrap(tmp_path, TORCH="gpu")
    assert status == 1
    assert said == "TORCH is 'gpu': give TORCH=cpu for the build without CUDA, or leave it out.\n"


# `python -m venv FOLDER` makes another of its kind; whatever else it is asked is well.
MAKES_ITSELF = '[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo made "$3"'


def flower(folder: Path, pins: str = "") -> str:
    """What tools/flower.sh prints in a folder, with a stand-in for Python, `pins` added."""
    (folder / "tools").mkdir(parents=True, exist_ok=True)
    for name in ("tools/flower.sh", "pyproject.toml", "requirements.txt"):
        shutil.copy(HERE / name, folder / name)
    with (folder / "requirements.txt").open("a") as file:
        file.write(pins)
    python = stand_in(folder, f"{MAKES_ITSELF}\nexit 0")
    done = subprocess.run(
        ["bash", "tools/flower.sh", ".cache/flower", python, "deploy"],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder.parent / "home")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_flowers_environment_is_made_once_and_anew_in_a_moved_folder(tmp_path: Path) -> None:
    assert "made .cache/flower" in flower(tmp_path / "here")
    assert flower(tmp_path / "here") == ""
    (tmp_path / "here").rename(tmp_path / "there")
    assert "made .cache/flower" in flower(tmp_path / "there")


def test_flowers_environment_follows_the_books_torch_there_and_back(tmp_path: Path) -> None:
    for pins in ("", "torch==0\n", ""):
        assert "Installing" in flower(tmp_path, pins)
        assert flower(tmp_path, pins) == ""


@pytest.mark.parametrize("name", ["a clone", "a,clone", "a%clone"])
def test_flowers_environment_lies_where_its_superlink_finds_its_tables(
    tmp_path: Path, name: str
) -> None:
    (made,) = re.findall("made (.*)", flower(tmp_path / name))
    assert Path(made).parent == tmp_path / "home" / ".cache"
    assert not (tmp_path / name / ".cache").exists()
    assert flower(tmp_path / name).startswith(f"The environment is {made}, as Flower")


@pytest.mark.slow
def test_a_release_check_skips_with_a_reason_what_the_machine_lacks() -> None:
    git = shutil.which("git")
    read = git and subprocess.run([git, "log", "-1"], cwd=HERE, capture_output=True, check=False)
    if not read or read.returncode:
        pytest.skip("no git here, or not a checkout that it may read")
    done = subprocess.run(
        [sys.executable, str(HERE / "tools" / "release_check.py"), "--python", "/no/python3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("pass", "skip", "FAIL"))]
    assert rows[0].startswith("pass  a clone of HEAD")
    assert all(row.startswith("skip  ") and "no /no/python3" in row for row in rows[2:])
    for what in ("make book", "make test", "make pdf", "make browser", "twins", "links", "Colab"):
        assert any(what in row for row in rows[2:]), what
