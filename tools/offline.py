"""Pack the built site to be read without a network: ``python tools/offline.py``.

Writes ``_build/fldp-book-VERSION.zip``: one folder, whose ``index.html`` opens from a file. The
same pages give the same bytes, whenever and by whom they are packed.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from datetime import date
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent.parent
# What only a host or a search engine asks for, and what the build keeps for itself.
HOSTS = ("404.html", "robots.txt", "sitemap.xml", ".nojekyll", "_static/cards")
KEPT = (".buildinfo", "objects.inv.bak")
# A notebook is downloaded as its twin; the source of any other page is what its button downloads.
SOURCES, REPLACED = "_sources", ".ipynb"
# Who may do what with a file, as an archive holds it: everybody reads.
READABLE = 0o100644 << 16
# Zlib's strongest.
LEVEL = 9


def release(root: Path) -> tuple[str, date]:
    """The version of the book and the day of its release, from CITATION.cff."""
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    return str(cited["version"]), date.fromisoformat(str(cited["date-released"]))


def name(version: str) -> str:
    """What the archive and the folder in it are called."""
    return f"fldp-book-{version}"


def pages(site: Path) -> list[Path]:
    """The files that a reader without a network uses, in order."""
    left_out = {site / one for one in (*HOSTS, *KEPT)}
    files = [path for path in site.rglob("*") if path.is_file()]
    left_out |= set((site / SOURCES).rglob(f"*{REPLACED}"))
    return sorted(path for path in files if not left_out & {path, *path.parents})


def pack(site: Path, archive: Path, folder: str, day: date) -> int:
    """Write the archive; the number of its files."""
    files = pages(site)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as packed:
        for path in files:
            inside = f"{folder}/{path.relative_to(site).as_posix()}"
            entry = zipfile.ZipInfo(inside, (day.year, day.month, day.day, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = READABLE
            packed.writestr(entry, path.read_bytes())
    return len(files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=HERE, help="the folder with CITATION.cff")
    root = parser.parse_args().root.resolve()
    site = root / "_build" / "html"
    if not (site / "index.html").exists():
        print(f"{site} has no index.html. Build the book first: make book", file=sys.stderr)
        return 1
    version, day = release(root)
    archive = root / "_build" / f"{name(version)}.zip"
    count = pack(site, archive, name(version), day)
    print(f"{archive}, {count} files, {archive.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
