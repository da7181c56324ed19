"""Where a submission runs: a process that sees and reaches next to nothing.

Isolated: Linux namespaces for files, processes, network and IPC, made by util-linux (`box.sh`), for
an ordinary user too where the system allows it. Else a plain process with limits, which the marks
and the feedback then call not isolated.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from course import brought
from course.brought import INSIDE

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "box.sh"
# `pivot_root` is among the administrator's programs.
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"
# systemd's range of users that nobody else has; each box of a batch run by root gets its own.
USERS = range(61_184, 65_520)
NAMESPACES = ["--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
# Where this fails every submission would end, as if each had failed.
NEEDED = (sys.executable, "-c", "import course.values, fldp.mechanism; print('here')")
# From a cold disk; else two seconds.
TRIAL_SECONDS = 120
# Of what the system says about a box that could not be made.
REASON = 200
WHAT_PLAIN_MEANS = (
    "Submissions run in plain processes with limits of time, memory and files, which a hostile one "
    "can leave; CSV and feedback say so. Started by root, each runs as a user of its own; else all "
    "run as the grader's, and one can end the grader and every other. On Linux, allow user "
    "namespaces or run as root."
)
AS_ROOT = (
    "submissions would run as root, in no box, and one could end or change everything on this "
    "machine: no other user can run this Python with the course. Grade as an ordinary user, or put "
    "both where every user may read"
)

_turn = itertools.count()


def _environment(path: str, home: str) -> dict[str, str]:
    """The whole environment of a submission: none of the grader's, so no key."""
    return {
        "PATH": SEARCHED,
        "PYTHONPATH": path,
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Two threads on small tensors are slower than one, and each counts in the limit.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        **brought.environment(),
    }


def _as_user(user: str) -> list[str]:
    """What runs a command as another user who may nothing."""
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*drop, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]


@cache
def _other_user_runs(*command: str) -> bool:
    """Whether another user can be made to run this: not every root may, in a container."""
    if os.geteuid() != 0:
        return False
    # `env` starts it as that user: `setpriv` itself may still reach what only root may.
    trial = [*_as_user(str(USERS[0])), "env", *command]
    told = _environment(str(HERE.parent), "/tmp")
    try:
        done = subprocess.run(
            trial, env=told, cwd="/", capture_output=True, timeout=TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _own_user(*command: str) -> str:
    """A user without anything, where one can be made to run this; else ""."""
    return str(USERS[next(_turn) % len(USERS)]) if _other_user_runs(*command) else ""


def _isolated(root: str, command: list[str]) -> list[str]:
    user = _own_user("true")
    mapped = [] if user else ["--user", "--map-root-user"]
    return ["unshare", *mapped, *NAMESPACES, "--", "bash", str(SCRIPT), root, user, *command]


def _plain(command: list[str]) -> list[str]:
    """A plain process; of another user where the grader is root."""
    user = _own_user(*NEEDED)
    return [*_as_user(user), *command] if user else command


def why_not_plain() -> str:
    """Why a plain process is not to be thought of either; "" where it is."""
    return AS_ROOT if os.geteuid() == 0 and not _other_user_runs(*NEEDED) else ""


@cache
def why_not_isolated() -> str:
    """Why this system makes no box, in its own words; "" where it does."""
    if not sys.platform.startswith("linux"):
        return f"namespaces are Linux's, and this is {sys.platform}"
    with tempfile.TemporaryDirectory(prefix="box-") as root:
        try:
            environment = _environment(INSIDE, "/tmp") | {"BRING": brought.lines()}
            done = subprocess.run(
                _isolated(root, [*NEEDED]),
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{type(error).__name__}: {error}"[:REASON]
    if done.returncode == 0 and done.stdout.strip() == "here":
        return ""
    return done.stderr.strip()[-REASON:] or f"unshare ended with {done.returncode}"


class Process:
    """The worker, started, with pipes for its input and output.

    Parameters
    ----------
    isolated : bool
        In a box, or as a plain process.

    Attributes
    ----------
    popen : subprocess.Popen
        What was started; in the box, the process outside that holds it.
    has_own_user : bool
        Whether nobody else's processes count in the limit of its user's.
    """

    def __init__(self, isolated: bool) -> None:
        self._folder = tempfile.mkdtemp(prefix="box-")
        self.has_own_user = isolated or _other_user_runs(*NEEDED)
        command = [sys.executable, "-m", "course.worker"]
        if isolated:
            environment = _environment(INSIDE, "/tmp") | {"BRING": brought.lines()}
            command = _isolated(self._folder, command)
        else:
            environment = _environment(str(HERE.parent), self._folder)
            command = _plain(command)
            os.chmod(self._folder, 0o777)
        self.popen = subprocess.Popen(
            command,
            env=environment,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Kill whatever runs in it."""
        # Outside a box, children that stay in the session; in a box all go with the first.
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.popen.kill()

    def end(self) -> None:
        """Kill whatever runs in it, and remove what it left."""
        self.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)
