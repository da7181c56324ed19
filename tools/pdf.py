"""Make the book as a PDF, ``_build/fldp.pdf``: ``python tools/pdf.py``.

Needs LaTeX and what turns a drawing into a PDF, as Debian packages them. Cells are not executed
again where the cache of ``make book`` has them. The exit status is not zero if something is missing
here, a reference leads nowhere, a letter is in no typeface, or a line sticks out of the column.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import build_book

HERE = build_book.HERE
# A program or a file of LaTeX -> the Debian package that has it.
PROGRAMS = {
    "xelatex": "texlive-xetex",
    "latexmk": "latexmk",
    "rsvg-convert": "librsvg2-bin",
}
FILES = {
    "tabulary.sty": "texlive-latex-extra",
    "tcolorbox.sty": "texlive-latex-extra",
    "newunicodechar.sty": "texlive-latex-extra",
    "unicode-math.sty": "texlive-latex-recommended",
    "tikz.sty": "texlive-pictures",
    "pzdr.tfm": "texlive-fonts-recommended",
}
FONTS = {
    "TeX Gyre Pagella": "fonts-texgyre",
    "TeX Gyre Pagella Math": "fonts-texgyre-math",
    "DejaVu Sans Mono": "fonts-dejavu-core",
}
# Points by which a line may stick out of the column: less is not seen.
MOST = 20.0
OVERFULL = re.compile(r"Overfull \\hbox \(([\d.]+)pt too wide\)([^\n]*)")
# LaTeX breaks the lines of its log after so many characters.
LOG_WIDTH = 79
WRONG = (
    "Missing character:",
    "There were undefined references",
    "LaTeX Warning: Reference",
    "LaTeX Warning: Hyper reference",
    "LaTeX Warning: Citation",
    "multiply-defined labels",
)


def missing() -> list[str]:
    """The Debian packages without which there is no PDF, in alphabetical order."""
    wanted = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    wanted |= {package for file, package in FILES.items() if not said("kpsewhich", file)}
    for family, package in FONTS.items():
        if family not in said("fc-match", "--format=%{family}", family):
            wanted.add(package)
    return sorted(wanted)


def said(*command: str) -> str:
    """What a program prints; nothing if it is not there."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def unbroken(log: str) -> str:
    """The log without the breaks that LaTeX makes in its long lines."""
    lines = log.split("\n")
    joined = [line if len(line) == LOG_WIDTH else f"{line}\n" for line in lines]
    return "".join(joined)


def faults(log: str) -> list[str]:
    """What a reader would stumble over, from the log of the last run of LaTeX."""
    text = unbroken(log)
    found = [line for line in text.split("\n") if line.startswith("!")]
    found += [line for line in text.split("\n") if any(word in line for word in WRONG)]
    found += [
        f"{points} pt too wide{where}"
        for points, where in OVERFULL.findall(text)
        if float(points) > MOST
    ]
    return list(dict.fromkeys(found))


def write(root: Path, out: Path) -> int:
    """The pages as LaTeX, strictly; the exit status."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root)]
    command += ["--builder", "latex", "--path-output", str(out), "-W", "-n", "--keep-going"]
    return subprocess.run(command, cwd=root, check=False).returncode


def typeset(folder: Path) -> int:
    """LaTeX, as often as its references need; the exit status."""
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-halt-on-error", "-silent"]
    return subprocess.run([*command, "fldp.tex"], cwd=folder, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=HERE, help="the folder with _config.yml")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    wanted = missing()
    if wanted:
        print("The PDF needs LaTeX, which is not all here. On Debian:", file=sys.stderr)
        print(f"  apt install --no-install-recommends {' '.join(wanted)}", file=sys.stderr)
        return 1
    root = arguments.root.resolve()
    if not build_book.execute(root, arguments.workers):
        print("No PDF was made: a cell crashed (see above).", file=sys.stderr)
        return 1
    started = time.perf_counter()
    out = root / "_build" / "pdf"
    if write(root, out):
        return 1
    folder = out / "_build" / "latex"
    failed = typeset(folder)
    wrong = faults((folder / "fldp.log").read_text(encoding="utf-8", errors="replace"))
    for line in wrong:
        print(line, file=sys.stderr)
    if failed or wrong:
        print(f"The PDF is not fit to be read; LaTeX's log is in {folder}.", file=sys.stderr)
        return 1
    made = shutil.copy(folder / "fldp.pdf", root / "_build" / "fldp.pdf")
    print(
        f"{made}, {Path(made).stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
