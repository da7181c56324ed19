"""The box wherever Python and the package lie, and whoever grades."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from course import box, brought

WHY = box.why_not_isolated()
ROOT = Path(box.__file__).resolve().parent.parent
# One that owns nothing, and has no box of a batch either.
NOBODY = "65534"
AS_NOBODY = [*box._as_user(NOBODY), "env"]
TRIES = """
from course import box
from course.proxy import Student

why = box.why_not_isolated()
assert not why, why
student = Student([CELL], isolated=True)
print(student("looks", PLACE))
student.stop()
"""
CELL = """
import os

def looks(place):
    found = [os.path.join(root, name) for root, _, names in os.walk(place) for name in names]
    return [path for path in found if path.endswith(("of-another.ipynb", "batch.py"))]
"""


@pytest.fixture
def folder():
    """A folder below /tmp that others may enter; pytest's own are for one user.

    Its space has a digit behind it, which a list of mounts writes as \\0400.
    """
    with tempfile.TemporaryDirectory(prefix="a folder 0") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def environment(place, python=None):
    """An environment in which everything is there that is here; its program."""
    python = python or sys._base_executable
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "here.pth").write_text("\n".join(here) + "\n")
    return place / "bin" / "python"


def course(place):
    """The engine and the package, with something beside them that nobody is to see."""
    for name in ("course", "fldp"):
        shutil.copytree(ROOT / name, place / name)
    (place / "of-another.ipynb").write_text("")
    return place


def tried(python, place, before=(), cell=CELL, **more):
    """What a box shows of this place that this Python makes with the engine that lies there."""
    program = f"CELL = {cell!r}\nPLACE = {str(place)!r}\n{TRIES}"
    told = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", **more}
    command = [*before, str(python), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=told, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def boxed(test):
    """A test that makes a box, which takes seconds."""
    return pytest.mark.slow(
        pytest.mark.skipif(bool(WHY), reason=f"no namespaces here: {WHY}")(test)
    )


@boxed
def test_everything_below_tmp_in_a_folder_with_a_space(folder):
    place = course(folder)
    assert tried(environment(place / ".venv"), place) == "[]"


@boxed
def test_an_environment_that_is_a_link(folder):
    place = course(folder)
    environment(folder / "elsewhere")
    (place / ".venv").symlink_to("elsewhere")
    assert tried(place / ".venv" / "bin" / "python", place) == "[]"


@boxed
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no folder in memory")
def test_an_environment_in_the_folder_in_memory(folder):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        assert tried(environment(Path(memory) / "env"), course(folder)) == "[]"


@boxed
def test_the_course_within_the_folder_that_python_is_installed_in(folder):
    """As with an environment made in the repository's own root, or a home that is a prefix."""
    place = course(folder)
    assert tried(environment(place), place) == "[]"


@boxed
def test_a_grader_who_keeps_new_files_from_others(folder):
    before = ["bash", "-c", 'umask 077; exec "$@"', "bash"]
    assert tried(environment(folder / ".venv"), course(folder), before) == "[]"


@boxed
@pytest.mark.skipif(os.geteuid() != 0, reason="who is no root is an ordinary user already")
def test_an_ordinary_user(folder):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    programs = [sys._base_executable, f"/usr/bin/{version}"]
    may = [p for p in programs if runs([*AS_NOBODY, p, "-c", ""])]
    if not may or not runs([*AS_NOBODY, "unshare", "--user", "--map-root-user", "true"]):
        pytest.skip("no other user may run this version of Python, or make a namespace")
    place = course(folder)
    python = environment(place / ".venv", may[0])
    if not runs([*AS_NOBODY, python, "-c", "import torch"]):
        pytest.skip("no other user may read what is installed")
    assert tried(python, place, AS_NOBODY, HOME=str(folder)) == "[]"


def runs(command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@boxed
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder to be bound")
def test_what_is_mounted_below_is_read_only_too(folder):
    """And keeps options that a user's namespace may not take away."""
    place = course(folder)
    mounts = """
mkdir .venv
mount -t tmpfs -o nosuid,nodev,noatime,size=200m x .venv
cp -a "$1/." .venv
mount -t tmpfs -o nosuid,nodev,size=1m y .venv/lib/within
shift
exec "$@"
"""
    source = folder / "made"
    environment(source)
    (source / "lib" / "within").mkdir()
    before = ["unshare", "--mount", "bash", "-ec", mounts, "bash", str(source)]
    opens = "def looks(place):\n    open(place + '/.venv/lib/within/x', 'a')\n"
    with pytest.raises(AssertionError, match="Read-only file system"):
        tried(place / ".venv" / "bin" / "python", place, before, cell=opens)


def test_a_home_that_is_a_prefix_is_not_shown(monkeypatch, tmp_path):
    for name in ("bin", "lib", "submissions"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shown = [Path(path) for path in brought.folders()]
    assert tmp_path / "bin" in shown
    assert not any((tmp_path / "submissions").is_relative_to(path) for path in shown)


def test_a_course_among_the_packages_is_not_shown(monkeypatch):
    monkeypatch.setattr(brought, "HERE", Path(os.__file__).resolve().parent / "course")
    with pytest.raises(OSError, match="move the course elsewhere"):
        brought.lines()
    box.why_not_isolated.cache_clear()
    try:
        assert "move the course elsewhere" in box.why_not_isolated() or WHY
    finally:
        box.why_not_isolated.cache_clear()


def test_every_link_on_the_way_to_python_is_followed(monkeypatch, tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / "three/bin/python").write_text("")
    (tmp_path / "two/bin/python").symlink_to(tmp_path / "three/bin/python")
    (tmp_path / "one/bin/python").symlink_to("../../two/bin/python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "one/bin/python"))
    assert {str(tmp_path / name / "bin") for name in ("one", "two", "three")} <= set(
        brought.folders()
    )


def test_packages_of_a_user_are_found_again(monkeypatch):
    monkeypatch.setattr("site.ENABLE_USER_SITE", True)
    monkeypatch.setattr("site.getuserbase", lambda: "/home/ada/.local")
    assert brought.environment()["PYTHONUSERBASE"] == "/home/ada/.local"


def test_a_path_that_the_list_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(brought, "folders", lambda: ["/a\tb"])
    with pytest.raises(OSError, match="a tab or a line's end"):
        brought.lines()
