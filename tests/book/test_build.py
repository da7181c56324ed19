"""A broken book does not build: each breakage is planted in a copy and must fail the build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent.parent

PAGE = "# A page\n\n(a-target)=\n## A section\n\nSee {ref}`a-target`.\n"


def build(
    root: Path, code: str = "print(6 * 7)", page: str = PAGE
) -> subprocess.CompletedProcess[str]:
    """Build a copy of the book's configuration with one page and one notebook."""
    (root / "book").mkdir(parents=True)
    for name in ("_static", "_templates", "_ext", "references.bib"):
        source = HERE / "book" / name
        if source.is_dir():
            shutil.copytree(source, root / "book" / name)
        elif source.exists():
            shutil.copy(source, root / "book" / name)
    shutil.copy(HERE / "_config.yml", root)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/one\n"
    )
    (root / "book" / "index.md").write_text(page)
    import nbformat  # takes seconds to load

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A notebook"), nbformat.v4.new_code_cell(code)],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(notebook, root / "book" / "one.ipynb")
    command = [
        sys.executable,
        str(HERE / "tools" / "build_book.py"),
        "--root",
        str(root),
        "--workers",
        "1",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_intact_copy_builds_and_shows_the_executed_output(tmp_path: Path) -> None:
    result = build(tmp_path / "copy")
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "copy" / "_build" / "html" / "book" / "one.html").read_text(encoding="utf-8")
    assert "42" in page


@pytest.mark.slow
def test_a_crashing_cell_fails_the_build_and_is_named(tmp_path: Path) -> None:
    result = build(tmp_path / "copy", code="raise RuntimeError('planted')")
    assert result.returncode != 0
    assert "planted" in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("# A page\n\nSee {ref}`no-such-label`.\n", "no-such-label"),
        ("# A page\n\n```{image} no-such-image.png\n```\n", "no-such-image.png"),
        ("# A page\n\n{cite}`nobody1900`\n", "nobody1900"),
    ],
    ids=["broken reference", "missing image", "unknown citation"],
)
def test_a_broken_page_fails_the_build_and_is_named(tmp_path: Path, page: str, words: str) -> None:
    result = build(tmp_path / "copy", page=page)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr
