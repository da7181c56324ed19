"""What every committed notebook must be: executed in order, clean, small, and readable alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import colab
import colab_button
import myst
import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pybtex.database import parse_string

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTERS = sorted((HERE / "book").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the version of every notebook that is read alone."""
    folder = tmp_path_factory.mktemp("colab")
    assert colab.main([str(folder)]) == 0
    return folder


def code_of(found: Iterable[Any]) -> list[str]:
    return [myst.source_of(cell) for cell in found if cell["cell_type"] == "code"]


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


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_notebook_opened_alone_shows_no_raw_directive(path: Path, alone: Path) -> None:
    raw = re.compile(r"^[`:]{3,}\s*\{|\{[\w:+-]+\}`|^\([\w:.-]+\)=$|^:label:", re.M)
    for text in myst.markdown(cells(alone / path.name)):
        assert not raw.search(text), text


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_notebook_opened_alone_runs_the_same_code(path: Path, alone: Path) -> None:
    import nbformat  # takes seconds to load

    written = nbformat.read(alone / path.name, as_version=4)
    nbformat.validate(written)
    assert code_of(written.cells) == code_of(cells(path))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{term}`noise <noise multiplier>` and {term}`delta`", "*noise* and *delta*"),
        ("{cite}`a` {cite:t}`b`", "[Tramèr 2020] van der Berg et al. (2021)"),
        ("{prf:ref}`thm` in\n{prf:ref}`one\nhere <thm>`", "the theorem “T” in\none here"),
        ("`{term}` and `{cite}`", "`{term}` and `{cite}`"),
        ("```\n{cite}`a`\n```", "```\n{cite}`a`\n```"),
        ("(x)=\n## H\n$$\na\n$$ (eq)", "## H\n$$\na\n$$"),
        ("[next](b.ipynb#c), [out](https://a.b/c.md)", "[next](SITE/book/b.html#c), [out]"),
        (
            "{doc}`b` and\n{doc}`this\none <b>`",
            "[B](SITE/book/b.html) and\n[this one](SITE/book/b.html)",
        ),
        ("- item\n\n  ```{math}\n  x\n  ```", "- item\n\n  $$\n  x\n  $$"),
        (
            "::::{note} Or\nSo:\n:::{tip}\nhi\n:::\n::::",
            "> **Note (Or)**\n>\n> So:\n> > **Tip**\n> >\n> > hi",
        ),
        ("```{image} a/b.png\n:alt: It rises.\n```", "![It rises.](SITE/_images/b.png)"),
    ],
)
def test_what_myst_becomes(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = """
        @book{a, author = {Tram{\\`e}r, Florian}, year = 2020}
        @book{b, author = "Ann van der Berg and B. Bo and Cy Co", year = {2021}}
    """
    works = parse_string(entries, bib_format="bibtex").entries
    cited = {key: colab.short(key, entry) for key, entry in works.items()}
    monkeypatch.setattr(colab, "bibliography", lambda: cited)
    found = colab.Converter([], {"thm": "the theorem “T”", "page b": "B"}).text(text)
    assert shown.replace("SITE", colab.site()) in found


def test_an_unknown_directive_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="does not know the directive 'mystery'"):
        colab.Converter([], {}).text("```{mystery}\n```")


@pytest.mark.slow
def test_the_button_names_what_the_workflow_publishes(alone: Path, tmp_path: Path) -> None:
    """The workflow's own lines, run in a small repository, make the file that the button opens."""
    workflow = yaml.safe_load((HERE / ".github/workflows/colab.yml").read_text(encoding="utf-8"))
    publish = workflow["jobs"]["publish"]["steps"][-1]["run"]
    there, checkout = tmp_path / "github.git", tmp_path / "checkout"
    shutil.copytree(alone, tmp_path / "colab")

    def git(*words: str, cwd: Path = checkout) -> str:
        who = ["-c", "user.name=fldp", "-c", "user.email=fldp@example.org"]
        done = subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)
        return done.stdout.decode()

    git("init", "--quiet", "--bare", str(there), cwd=tmp_path)
    git("clone", "--quiet", str(there), str(checkout), cwd=tmp_path)
    (checkout / "LICENSE-book").write_text("the licence\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "A source")
    environment = {**os.environ, "RUNNER_TEMP": str(tmp_path), "GITHUB_SHA": "0123abc"}
    for _ in range(2):  # a second run replaces the first
        git("switch", "--quiet", "--detach", "HEAD~0")
        subprocess.run(["bash", "-ec", publish], cwd=checkout, env=environment, check=True)
        git("switch", "--quiet", "--detach", git("rev-list", "--all", "--grep=A source").strip())
        git("branch", "--quiet", "-D", "colab")
    assert git("rev-list", "--count", "origin/colab").strip() == "1"
    published = set(git("ls-tree", "--name-only", "origin/colab").split())
    assert published == {"LICENSE", *(path.name for path in CHAPTERS)}
    for path in CHAPTERS:
        address = colab_button.address_of("fldp/fldp", f"book/{path.stem}")
        assert address.endswith(f"/github/fldp/fldp/blob/colab/{path.name}")


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
