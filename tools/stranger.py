"""A stranger to this machine: the clone, who works in it, and a row for each thing tried.

Shared by the modules of the release check; needs a Python of 3.9 or newer, nothing installed.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# What a stranger's shell has. Certificates and proxies belong to the network, not to the project.
PLAIN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
NETWORK = re.compile(
    r"(?i).*(_proxy|_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR)|PIP_CERT|NODE_EXTRA_CA_CERTS"
)


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
        self.alone = folder / "alone"
        self.home.mkdir()
        self.alone.mkdir()
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

    def find(self, *programs: str) -> str | None:
        """The first of these programs that the stranger has."""
        paths = (shutil.which(program, path=PLAIN["PATH"]) for program in programs)
        return next(filter(None, paths), None)

    def run(
        self, *command: str, folder: Path | None = None, more: Mapping[str, str] | None = None
    ) -> tuple[int, float]:
        """Exit status and seconds of a command; its output goes to ours.

        Parameters
        ----------
        folder
            Where it runs; the clone by default.
        more
            What its environment has besides the stranger's.
        """
        print(f"\n$ {' '.join(command)}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            cwd=folder or self.clone,
            env={**self.environment, **(more or {})},
            start_new_session=True,
            **self.account,
        )
        try:
            status = process.wait()
        finally:
            if process.poll() is None:  # we are ended: what make has started must end, too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return status, time.monotonic() - started

    def check(
        self,
        what: str,
        *command: str,
        folder: Path | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Row:
        """The row of one command: it passes if its exit status is 0."""
        status, seconds = self.run(*command, folder=folder, more=more)
        if status == 0:
            return Row(what, "pass", seconds=seconds)
        return Row(what, "FAIL", f"exit status {status}", seconds)


def clone(stranger: Stranger) -> Row:
    """HEAD, as a stranger gets it."""
    command = ["git", "clone", "--quiet", "--depth", "1", f"file://{HERE}", str(stranger.clone)]
    status = subprocess.run(command, check=False).returncode
    if status:
        return Row("a clone of HEAD", "FAIL", f"git's exit status is {status}")
    for folder in (stranger.clone, stranger.home, stranger.alone):
        stranger.own(folder)
    changes = ["git", "status", "--porcelain"]
    changed = subprocess.run(changes, cwd=HERE, capture_output=True, check=False).stdout
    return Row("a clone of HEAD", "pass", "without what is not committed" if changed else "")


def free_gb(folder: Path) -> float:
    """Disk that is left, in GB."""
    return shutil.disk_usage(folder).free / 1e9


def size(folder: Path) -> str:
    """The disk that a folder takes, in words."""
    taken = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=False)
    return f"{int(taken.stdout.split()[0] or 0) / 1000:.1f} GB on disk"
