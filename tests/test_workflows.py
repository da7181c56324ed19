"""The workflows and the scripts they call: pinned, bounded, quoted, and doing what they say."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import release_notes
import twins
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((HERE / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def unquoted_versions(text: str) -> list[str]:
    """Versions that YAML reads as numbers: 3.10 becomes 3.1."""
    lists = re.findall(r"^\s*-?\s*[\w-]*(?:python|version)[\w-]*:\s*(.+)$", text, re.M)
    values = [part.strip(" []") for found in lists for part in found.split(",")]
    return [value for value in values if re.fullmatch(r"\d+(\.\d+)?", value)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_pinned_bounded_and_may_do_no_more_than_it_must(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow: dict[Any, Any] = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    for line in text.splitlines():
        if "uses:" in line:
            assert PINNED.search(line), line
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert "permissions" in job
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            # What others can write, such as a branch's name, is no part of a command.
            assert "${{ github.event" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_versions_are_words(path: Path) -> None:
    assert unquoted_versions(path.read_text(encoding="utf-8")) == []


def test_an_unquoted_version_is_found() -> None:
    assert unquoted_versions("python-version: 3.10\n") == ["3.10"]
    assert unquoted_versions('python: ["3.10", 3.11]\n') == ["3.11"]
    assert unquoted_versions('version: 2\npython-version: "3.10"\n') == ["2"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for script in re.findall(r"tools/[\w.]+", text):
        assert (HERE / script).exists()
    makefile = (HERE / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"run: make ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


# What `newest.yml` installs; the standard library of its oldest Python lacks what is younger.
EXTRAS = ("dev", "verify")
YOUNGER = {"tomllib"}
FOLDERS = ("tests", "tools", "book/_ext", ".")


def brought(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """The distributions that installing one brings, itself included."""
    found, asked = set(), [(name, extras)]
    while asked:
        name, extras = asked.pop()
        found.add(canonicalize_name(name))
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # not on this platform, or an older one
            continue
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": one}) for one in ("", *extras)):
                continue
            if canonicalize_name(requirement.name) not in found:
                asked.append((requirement.name, tuple(requirement.extras)))
    return found


def imported(path: Path) -> set[str]:
    """The modules that a file needs to be imported at all."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own(module: str) -> Path | None:
    """The file of a module of this repository."""
    paths = (HERE / folder / f"{module.replace('.', '/')}.py" for folder in FOLDERS)
    return next((path for path in paths if path.exists()), None)


def lacking(files: list[Path], there: set[str]) -> set[tuple[str, str]]:
    """File and module, where a file, or what it imports of ours, imports what is not there."""
    distributions = importlib.metadata.packages_distributions()
    seen, found = set(files), set()
    files = list(files)
    while files:
        path = files.pop()
        for module in imported(path):
            mine = own(module)
            if mine is not None and mine not in seen:
                seen.add(mine)
                files.append(mine)
            top = module.partition(".")[0]
            ours = mine or own(top) or (HERE / top).is_dir()
            if ours or top in sys.stdlib_module_names - YOUNGER:
                continue
            if not {canonicalize_name(one) for one in distributions.get(top, [])} & there:
                found.add((path.name, top))
    return found


@pytest.mark.slow
def test_the_weekly_run_has_what_its_tests_import() -> None:
    text = (HERE / ".github/workflows/newest.yml").read_text(encoding="utf-8")
    assert f'".[{",".join(EXTRAS)}]"' in text
    ignored = {HERE / name for name in re.findall(r"--ignore (\S+)", text)}
    assert all(path.exists() for path in ignored)
    files = [path for path in (HERE / "tests").rglob("*.py") if not ignored & {path, *path.parents}]
    assert len(files) > 100
    there = brought("fldp", EXTRAS)
    assert lacking(files, there) == set()
    # it sees what is lacking: this file's tools read the book with the book's own parser
    assert ("myst.py", "myst_parser") in lacking([Path(__file__)], there)


def test_zizmor_finds_nothing() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("zizmor is not installed: it is in the lock, make ready")
    command = [str(zizmor), "--offline", "--quiet", "--no-progress", str(HERE / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


CHANGELOG = """# Changelog

## 0.3.0 - 2027-01-02

### Added

- A thing.

## 0.2.0 - 2026-11-26

- Another.
"""


def test_the_notes_of_a_release_are_its_section() -> None:
    assert release_notes.notes("v0.3.0", "0.3.0", CHANGELOG) == "### Added\n\n- A thing.\n"
    assert release_notes.notes("v0.2.0", "0.2.0", CHANGELOG) == "- Another.\n"


@pytest.mark.parametrize(
    ("tag", "version", "words"),
    [
        ("v0.3.1", "0.3.0", "tag v0.3.0"),
        ("0.3.0", "0.3.0", "tag v0.3.0"),
        ("v0.4.0", "0.4.0", "no section"),
        ("v0x2.0", "0x2.0", "no section"),
    ],
)
def test_a_tag_that_is_no_release_is_refused(tag: str, version: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        release_notes.notes(tag, version, CHANGELOG)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with a built book, as the workflow has it."""
    root = tmp_path / "checkout"
    for name in ("book", "tools", "fldp", "_build/html/notebooks", "_build/html/_sources", ".venv"):
        (root / name).mkdir(parents=True)
    (root / ".venv/bin").symlink_to(Path(sys.executable).parent)
    shutil.copy(HERE / "tools/publish.sh", root / "tools/publish.sh")
    (root / "LICENSE-book").write_text("the licence\n")
    (root / "fldp/__init__.py").write_text('__version__ = "0.3.0"\n')
    (root / "_build/html/index.html").write_text("a page\n")
    (root / "_build/html/_sources/a.ipynb").write_text("with boxes\n")
    (root / "_build/html/_sources/map.md").write_text("a source\n")
    (root / "_build/html/notebooks/a.ipynb").write_text("{}\n")
    (root / "_build/fldp.pdf").write_text("the book on paper\n")
    (root / "_build/fldp-book-0.3.0.zip").write_text("the pages\n")
    (root / "tools/twins.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "sys.exit((Path(sys.argv[2]) / 'a.ipynb').read_text() != '{}\\n')\n"
    )
    git(root, "init", "--quiet")
    git(root, "add", "LICENSE-book", "fldp")
    git(root, "commit", "--quiet", "--message", "A source")
    git(tmp_path, "init", "--quiet", "--bare", "there.git")
    git(root, "push", "--quiet", str(tmp_path / "there.git"), "HEAD:refs/tags/v0.3.0")
    return root


def git(where: Path, *words: str) -> str:
    who = ["-c", "user.name=fldp", "-c", "user.email=fldp@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=where, check=True, capture_output=True)
    return done.stdout.decode()


def publish(root: Path) -> int:
    command = ["bash", str(root / "tools/publish.sh"), str(root.parent / "there.git")]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_what_was_built_is_published_as_one_commit(checkout: Path) -> None:
    there = checkout.parent / "there.git"
    for _ in range(2):  # a second run replaces the first
        assert publish(checkout) == 0
    assert git(there, "rev-list", "--count", "gh-pages").strip() == "1"
    names = set(git(there, "ls-tree", "-r", "--name-only", "gh-pages").split())
    made = {"fldp.pdf", "fldp-book-0.3.0.zip", "_sources/map.md"}
    assert names == {"LICENSE", ".nojekyll", "index.html", "notebooks/a.ipynb", *made}


@pytest.mark.parametrize("made", ["fldp.pdf", "fldp-book-0.3.0.zip"])
def test_a_book_without_what_its_front_page_offers_is_not_published(
    checkout: Path, made: str
) -> None:
    (checkout / "_build" / made).unlink()
    assert publish(checkout) != 0


def test_other_notebooks_on_the_branch_than_the_books_fail(checkout: Path) -> None:
    (checkout / "_build/html/notebooks/a.ipynb").write_text("another\n")
    assert publish(checkout) != 0


def test_notebooks_that_install_a_tag_that_is_not_there_are_not_published(checkout: Path) -> None:
    git(checkout.parent / "there.git", "tag", "--delete", "v0.3.0")
    assert publish(checkout) != 0
    assert git(checkout.parent / "there.git", "branch", "--list", "gh-pages") == ""


def test_notebooks_that_would_install_another_package_are_not_published(checkout: Path) -> None:
    (checkout / "LICENSE-book").write_text("another licence\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "A sentence of the book")
    assert publish(checkout) == 0
    (checkout / "fldp/new.py").write_text("what the tag has not\n")
    git(checkout, "add", "fldp")
    git(checkout, "commit", "--quiet", "--message", "A change of the package")
    assert publish(checkout) != 0


def test_the_version_of_the_twins_is_the_package_s() -> None:
    import fldp

    assert twins.version() == fldp.__version__
