"""The processes of a deployment on one machine: started, found, killed, and none forgotten.

Flower starts processes of its own, some in sessions of their own, which outlive those that started
them. So each carries a mark in its environment, which its children inherit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

MARK = "FLDP_DEPLOYMENT"
Found = TypeVar("Found")
# Seconds between two looks.
GLANCE = 0.5
# Seconds that a command of Flower's may take on a busy machine.
COMMAND = 120


class Fault(Exception):
    """Something is not as it should be."""


def until(what: str, seconds: float, look: Callable[[], Found | None]) -> Found:
    """The first answer of `look` that is not empty; a Fault after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(GLANCE)
    raise Fault(f"{what}: not within {seconds:.0f} seconds")


def check_place(program: str | os.PathLike[str]) -> None:
    """A Fault where a SuperLink that lies here would find no tables for its database.

    Flower 1.42 names the folder of its tables to alembic in a list whose separators are spaces and
    commas, and in a text where % is no letter.

    Parameters
    ----------
    program : path
        Of Flower's package.
    """
    path = Path(program).resolve()
    if set(" ,%").intersection(str(path)):
        raise Fault(
            f"Flower is installed in {path.parent}: its SuperLink keeps no database where the path "
            "has a space, a comma or a percent sign; make the environment elsewhere"
        )


class Processes:
    """Those of one deployment, by the name of who was started.

    Parameters
    ----------
    folder : Path
        For their logs, and what Flower keeps for each.
    settings : dict
        Of their environment, the same for all.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self.mark = f"{os.getpid()}.{time.time_ns()}"
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """What a process sees: a home of its own, as if on a machine of its own."""
        # Flower finds its other programs by name.
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {
            "PATH": programs,
            "FLWR_HOME": str(self.folder / name),
            MARK: f"{self.mark}.{name}",
        }
        return os.environ | self.settings | own

    def start(self, name: str, *command: str) -> None:
        """In the background; what it says goes to `name`.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            try:
                self._started[name] = subprocess.Popen(
                    command,
                    env=self.environment(name),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                raise Fault(f"{command[0]} does not start: {error.strerror}") from None

    def ended(self, name: str) -> bool:
        """Whether what was started under this name has ended by itself."""
        return self._started[name].poll() is not None

    def ask(self, name: str, *command: str) -> str:
        """What a command prints; a Fault where it fails."""
        try:
            done = subprocess.run(
                command,
                env=self.environment(name),
                capture_output=True,
                text=True,
                timeout=COMMAND,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Fault(f"{' '.join(command)}: not within {COMMAND} seconds") from None
        if done.returncode:
            raise Fault(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def running(self, name: str = "", program: str = "") -> list[int]:
        """The numbers of the processes that `name` started, or anybody, and that run `program`."""
        found = []
        for process in Path("/proc").iterdir():
            # A process may end while it is looked at, or be another user's.
            with contextlib.suppress(OSError):
                starter = self._starter(process)
                command = (process / "cmdline").read_text(errors="replace")
                if starter and name in ("", starter) and program in command:
                    found.append(int(process.name))
        return found

    def _starter(self, process: Path) -> str:
        """Under which name a process was started; "" for what is none of these."""
        begin = f"{MARK}={self.mark}."
        for variable in (process / "environ").read_text(errors="replace").split("\0"):
            if variable.startswith(begin):
                return variable.removeprefix(begin)
        return ""

    def kill(self, name: str = "", program: str = "") -> None:
        """With no warning, as a power cut does: SIGKILL, until none is left."""
        while found := self.running(name, program):
            for number in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            for started in self._started.values():
                started.poll()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()
