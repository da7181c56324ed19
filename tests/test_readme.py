"""The README is run as it stands: its Python as pasted, its commands as they are named."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
README = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def paste(blocks: list[str]) -> subprocess.CompletedProcess[str]:
    """Run blocks in order in one fresh process that has nothing but Python's own names."""
    code = "\n".join(blocks)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_w11_the_examples_run_as_pasted() -> None:
    _, *blocks = BLOCKS
    assert len(blocks) == 2
    done = paste(blocks)
    assert done.returncode == 0, done.stderr
    first, *statement = done.stdout.splitlines()
    accuracy, epsilon = map(float, first.split())
    assert accuracy > 0.5  # ten digits: guessing gives 0.1
    assert 7.9 < epsilon <= 8.0
    assert statement


@pytest.mark.slow
def test_the_recipe_gives_what_readme_and_front_page_say() -> None:
    front = (HERE / "book" / "index.md").read_text(encoding="utf-8")
    done = paste(BLOCKS[:1])
    assert done.returncode == 0, done.stderr
    kindest = re.search(r"1 +every model +client +zero-out +central +([\d.]+)", done.stdout)
    assert kindest is not None, done.stdout
    assert "claims ε\n    = 1" in done.stdout
    given = round(float(kindest[1]))
    assert f"claims ε = 1 and gives {given}" in README
    assert f"give {given}, on the kindest reading" in front


@pytest.mark.slow
def test_w11_a_name_that_no_block_defines_is_found() -> None:
    done = paste([*BLOCKS[1:], "print(mean_of_nobody)"])
    assert "NameError" in done.stderr


@pytest.mark.parametrize("command", re.findall(r"`fldp (\S.*?)`", README))
def test_the_command_lines_run(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fldp", *shlex.split(command)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/index.md"])
def test_every_make_target_exists(page: str) -> None:
    makefile = (HERE / "Makefile").read_text(encoding="utf-8")
    text = (HERE / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^ *|`)make (\w[\w-]*)", text, re.M))
    assert {"book", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    """A path stands for itself, for one in fldp/ or, if it is a test, for one in tests/."""
    text = (HERE / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.yml|\.json|\.in|\.txt|/))`", text))
    made = {"_build/twins/", "notebooks/"}
    folders = (HERE, HERE / "fldp", HERE / "tests")
    assert named
    for name in named - made:
        assert any((folder / name).exists() for folder in folders), name
