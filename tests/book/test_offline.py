"""The archive of the site: one folder, the same bytes twice, every link inside leads somewhere."""

from __future__ import annotations

import os
import zipfile
from datetime import date
from pathlib import Path

import check_links
import downloads
import offline
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "_build" / "html"
DAY = date(2026, 11, 23)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A built site of two pages, with what only a host asks for."""
    built = tmp_path / "html"
    for name in ("_static/cards", "_sources/book", "book"):
        (built / name).mkdir(parents=True)
    for name in (
        "index.html", "book/one.html", "404.html", "sitemap.xml", ".nojekyll", ".buildinfo",
        "_static/cards/one.png", "_static/fldp.css", "_sources/book/map.md",
        "_sources/book/one.ipynb",
    ):  # fmt: skip
        (built / name).write_text(name)
    return built


def test_an_archive_is_one_folder_of_what_a_reader_uses(site: Path, tmp_path: Path) -> None:
    count = offline.pack(site, tmp_path / "a.zip", "fldp-book-1.0", DAY)
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = packed.namelist()
        assert packed.read("fldp-book-1.0/book/one.html") == b"book/one.html"
    inside = ["_sources/book/map.md", "_static/fldp.css", "book/one.html", "index.html"]
    assert names == [f"fldp-book-1.0/{name}" for name in inside]
    assert count == len(inside)


def test_the_same_pages_give_the_same_bytes(site: Path, tmp_path: Path) -> None:
    offline.pack(site, tmp_path / "a.zip", "book", DAY)
    for path in site.rglob("*"):
        os.utime(path, (0, 0))
    (site / "index.html").chmod(0o600)
    offline.pack(site, tmp_path / "b.zip", "book", DAY)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_without_a_book_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["offline.py", "--root", str(tmp_path)])
    assert offline.main() == 1
    assert "make book" in capsys.readouterr().err


def test_the_front_page_offers_what_is_published_by_its_name() -> None:
    version, _ = offline.release(ROOT)
    assert downloads.ARCHIVE.format(version=version) == f"{offline.name(version)}.zip"
    assert f"_build/{downloads.PDF}" in (ROOT / "tools/publish.sh").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the book is not built: make book")
def test_every_link_of_the_unpacked_pages_leads_somewhere(tmp_path: Path) -> None:
    offline.pack(SITE, tmp_path / "a.zip", "book", DAY)
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        packed.extractall(tmp_path)
    assert list(check_links.broken(tmp_path / "book")) == []
