"""Build and test what is committed as a stranger would: ``python3 tools/release_check.py``.

HEAD is cloned into an empty folder with a space in its path. There an unprivileged user runs
README's two commands with the distribution's own python3 and nothing of this machine's pip
configuration. What the machine lacks is skipped, with the reason. The exit status is 1 if anything
failed. Needs git, make and a Python of 3.9 or newer, nothing installed.

On a machine that keeps a torch wheel on its disk, ``FLDP_WHEELS=folder`` saves the download of
several GB; that the lock resolves is asked of the public registry alone either way.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# What a stranger's shell has. Certificates and proxies belong to the network, not to the project.
PLAIN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
NETWORK = re.compile(r"(?i).*(_proxy|_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR)|PIP_CERT")
NEEDED_GB = {True: 3, False: 10}  # of disk, pip's cache included: with FLDP_WHEELS, without


@dataclass
class Row:
    """One line of the summary."""

    what: str
    verdict: str  # "pass", "FAIL" or "skip"
    words: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.verdict}  {self.what:<42} {self.seconds:6.0f} s  {self.words}".rstrip()


class Stranger:
    """Runs commands in the clone as an unprivileged user, in an environment without settings.

    Parameters
    ----------
    folder
        An empty folder; the stranger's home and the clone are made in it.
    wheels
        A folder that pip may take wheels from, or None.
    """

    def __init__(self, folder: Path, wheels: Path | None) -> None:
        self.home = folder / "home"
        self.clone = folder / "a clone"
        self.home.mkdir()
        network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        self.environment = {**PLAIN, **network, "HOME": str(self.home)}
        if wheels is not None:
            self.environment["PIP_FIND_LINKS"] = str(wheels)
        self.account: dict[str, object] = {}
        self.name = pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self.name = "nobody"

    def own(self, folder: Path) -> None:
        """Give a folder and all that is in it to the stranger."""
        if self.account:
            account = (self.account["user"], self.account["group"])
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, *account, follow_symlinks=False)  # type: ignore[arg-type]

    def run(self, *command: str) -> tuple[int, float]:
        """Exit status and seconds of a command in the clone; its output goes to ours."""
        print(f"\n$ {' '.join(command)}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(  # type: ignore[call-overload]
            command, cwd=self.clone, env=self.environment, start_new_session=True, **self.account
        )
        try:
            status = process.wait()
        finally:
            if process.poll() is None:  # we are ended: what make has started must end, too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return status, time.monotonic() - started


def checked(stranger: Stranger, what: str, *command: str) -> Row:
    """The row of one command: it passes if its exit status is 0."""
    status, seconds = stranger.run(*command)
    if status == 0:
        return Row(what, "pass", seconds=seconds)
    return Row(what, "FAIL", f"exit status {status}", seconds)


def clone(stranger: Stranger) -> Row:
    """HEAD, as a stranger gets it."""
    command = ["git", "clone", "--quiet", "--depth", "1", f"file://{HERE}", str(stranger.clone)]
    status = subprocess.run(command, check=False).returncode
    if status:
        return Row("a clone of HEAD", "FAIL", f"git's exit status is {status}")
    stranger.own(stranger.clone)
    stranger.own(stranger.home)
    changes = ["git", "status", "--porcelain"]
    changed = subprocess.run(changes, cwd=HERE, capture_output=True, check=False).stdout
    return Row("a clone of HEAD", "pass", "without what is not committed" if changed else "")


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
    free = shutil.disk_usage(folder).free / 1e9
    needed = NEEDED_GB[wheels is not None]
    return f"{free:.0f} GB of disk free, {needed} needed" if free < needed else ""


def size(folder: Path) -> str:
    """The disk that a folder takes, in words."""
    taken = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=False)
    return f"{int(taken.stdout.split()[0] or 0) / 1000:.1f} GB on disk"


def check(folder: Path, python: str, wheels: Path | None) -> list[Row]:
    """All rows; what cannot be done is skipped."""
    stranger = Stranger(folder, wheels)
    rows = [clone(stranger)]
    unprivileged = stranger.name != "root"
    rows.append(Row("an unprivileged user", "pass" if unprivileged else "skip", stranger.name))
    steps = (
        ("the pinned environment, with " + python, ("make", "ready", f"PYTHON={python}")),
        ("the lock, at the public registry", (".venv/bin/python", "tools/lock.py", "--check")),
        ("make book", ("make", "book")),
        ("make test", ("make", "test")),
        ("make book, the second time", ("make", "book")),
    )
    reason = lacking(folder, python, wheels)
    for what, command in steps:
        if rows[0].verdict == "FAIL" or reason:
            rows.append(Row(what, "skip", reason or "there is no clone"))
            continue
        rows.append(checked(stranger, what, *command))
        if command[1] == "ready" and rows[-1].verdict == "pass":
            rows[-1].words = size(stranger.clone / ".venv")
        elif command[1] == "ready":
            reason = "there is no environment"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="/usr/bin/python3", help="the distribution's own")
    wheels = os.environ.get("FLDP_WHEELS")
    parser.add_argument("--wheels", type=Path, default=wheels, help="default: FLDP_WHEELS")
    parser.add_argument("--keep", action="store_true", help="leave the clone where it is")
    arguments = parser.parse_args()
    # A check that is ended from outside removes what it has made, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="fldp release check "))
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
