"""What every committed notebook must be: executed in order, clean, small, and readable alone."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTERS = sorted((HERE / "book").glob("*.ipynb"))
ALONE = sorted((HERE / "colab").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_there_are_notebooks() -> None:
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_outputs_are_stored_in_order_and_clean(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        expected = "raises-exception" in cell["metadata"].get("tags", [])
        for output in cell["outputs"]:
            assert output["output_type"] != "error" or expected, cell["source"]
            assert output.get("name") != "stderr", cell["source"]
    assert path.stat().st_size < 300 * 1024
    assert not re.search(
        r'"[^"]*/(?:home|root|tmp|Users)/[\w.-]', json.dumps([c["outputs"] for c in code])
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_first_code_cell_installs_fldp_where_it_is_missing(path: Path) -> None:
    first = next("".join(c["source"]) for c in cells(path) if c["cell_type"] == "code")
    assert "import fldp" in first
    assert "%pip install" in first
    assert "==" not in first


def test_the_notebooks_that_stand_alone_are_up_to_date() -> None:
    assert tool("colab").main(["--check"]) == 0, "run `make colab` and commit"


@pytest.mark.parametrize("path", ALONE, ids=lambda p: p.stem)
def test_a_notebook_opened_alone_shows_no_raw_directive(path: Path) -> None:
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            assert not re.search(
                r"^[`:]{3,}\s*\{|\{[\w:+-]+\}`|^\([\w:.-]+\)=$|^:label:", text, re.M
            ), text


def test_installing_fldp_on_colab_changes_nothing_that_is_there() -> None:
    frozen = dict(
        line.strip().lower().split("==")
        for line in (HERE / "tests/data/colab_packages.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    metadata = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in metadata["dependencies"]:
        requirement = Requirement(text)
        assert all(part.operator == ">=" for part in requirement.specifier), "lower bounds only"
        if requirement.name != "opacus":
            there = Version(frozen[requirement.name.lower()].split("+")[0])
            assert there in requirement.specifier, f"{requirement} would replace {there}"
    assert Version("3.13") in Requirement("python" + metadata["requires-python"]).specifier
