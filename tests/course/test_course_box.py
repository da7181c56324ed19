"""The box: what a submission can see and do, and what becomes of one that does not answer."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from course import box, brought, proxy
from course.calls import Oracle, Raised
from course.proxy import Student, family
from course.values import Seed

WHY = box.why_not_isolated()
isolated = pytest.mark.skipif(bool(WHY), reason=f"no namespaces here: {WHY}")
pytestmark = pytest.mark.slow

LOOKS = """
import glob, os, socket, subprocess

def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__

def connects():
    socket.create_connection(("127.0.0.1", 22), 2)

def lists(path):
    return tried(lambda: sorted(os.listdir(path)))

def writes(path):
    return tried(lambda: open(path, "a").write("x"))

def reads(path):
    return tried(lambda: open(path).read())

def network():
    return tried(connects)

def processes():
    return [p for p in os.listdir("/proc") if p.isdigit()]

def privileges():
    return [line for line in open("/proc/self/status") if line.startswith(("Cap", "NoNewPrivs"))]

def runs(command):
    return subprocess.run(command, capture_output=True).returncode

def environment():
    return dict(os.environ)

def library():
    return os.__file__
"""
ANSWERS = """
import os, sys, torch

def same(x):
    return x

def adds(items):
    items += [1]
    items[0].mul_(2)

def draws(generator):
    return torch.randn(3, generator=generator)

def asks(box, times):
    return [box(torch.ones(2) * k) for k in range(times)]

def large():
    return torch.zeros(20_000_000)

def deep():
    made = []
    for _ in range(100_000):
        made = [made]
    return made

def odd():
    return object()

def raises(*args):
    raise KeyError("mine")

def tells(x):
    raise type(f"It_was_{x}", (Exception,), {})()

def leaves():
    os._exit(3)

def loops():
    while True:
        pass

def takes():
    return len([bytearray(b"x" * 10**8) for _ in range(60)])

def recurses():
    return recurses()
"""


@pytest.fixture(scope="module")
def boxed():
    student = Student([LOOKS], isolated=True)
    yield student
    student.stop()


@pytest.fixture(scope="module", params=[pytest.param(True, marks=isolated), False])
def student(request):
    made = Student([ANSWERS, "broken = 1 / 0", "import sys\nsys.exit(1)"], isolated=request.param)
    yield made
    made.stop()


@isolated
def test_there_is_no_network(boxed):
    assert boxed("network") == "OSError"
    assert boxed("reads", "/proc/net/dev").count(":") == 1


@isolated
def test_there_is_nothing_of_the_grader(boxed):
    engine = os.path.dirname(os.path.abspath(box.__file__))
    assert boxed("lists", engine) == "FileNotFoundError"
    assert boxed("lists", "/box/course") == "['values.py', 'worker.py']"
    # Nothing, but for the way to where Python is installed.
    way = {path.split("/")[2] for path in brought.folders() if path.startswith("/tmp/")}
    assert boxed("lists", "/tmp") == str(sorted(way))
    assert boxed("reads", "/etc/shadow") == "FileNotFoundError"
    names = {"bin", "box", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin"}
    names |= {"tmp", "usr"}
    # And the way to where Python is installed.
    names |= {path.split("/")[1] for path in brought.folders()}
    assert set(boxed("lists", "/").strip("[]").replace("'", "").split(", ")) <= names


@isolated
def test_nothing_can_be_written_but_scratch(boxed):
    for path in ("/x", "/usr/x", "/box/course/worker.py", "/box/x", "/etc/passwd"):
        assert boxed("writes", path) in ("OSError", "PermissionError")
    assert boxed("writes", boxed("library")) in ("OSError", "PermissionError")
    assert boxed("writes", "/tmp/mine") == "1"


@isolated
def test_it_is_alone_and_has_no_privilege(boxed):
    assert boxed("processes") == ["1"]
    lines = boxed("privileges")
    assert {line.split()[1].strip("0") for line in lines if line.startswith("Cap")} == {""}
    assert [line.split()[1] for line in lines if line.startswith("NoNew")] == ["1"]
    for command in (
        ["mount", "-o", "remount,bind,rw", "/"],
        ["mount", "-t", "tmpfs", "x", "/tmp"],
        ["unshare", "--user", "--map-root-user", "true"],
        ["unshare", "--net", "true"],
    ):
        assert boxed("runs", command) != 0
    assert boxed("writes", "/proc/sys/user/max_user_namespaces") in ("OSError", "PermissionError")


@isolated
def test_the_key_is_not_in_its_environment(monkeypatch):
    monkeypatch.setenv("FLDP_COURSE_KEY", "secret" * 4)
    student = Student([LOOKS], isolated=True)
    try:
        found = student("environment")
    finally:
        student.stop()
    assert not any("secret" in value or "KEY" in name for name, value in found.items())
    assert "BRING" not in found


def test_values_go_there_and_back(student):
    for value in (None, True, 2.5, "é", [1, [2]], {"a": 1}):
        assert student("same", value) == value
    assert torch.equal(student("same", torch.arange(3)), torch.arange(3))


def test_what_went_wrong_in_a_cell_is_said(student):
    student("same", 1)
    assert student.errors == [
        "code cell 2: ZeroDivisionError: division by zero",
        "code cell 3: SystemExit: 1",
    ]


def test_a_change_in_place_is_seen(student):
    student("adds", [torch.ones(2)])
    assert student.after[0][0].tolist() == [2.0, 2.0]
    assert student.after[0][1] == 1


def test_a_seed_is_a_generator(student):
    assert torch.equal(student("draws", Seed(3)), student("draws", Seed(3)))
    assert not torch.equal(student("draws", Seed(3)), student("draws", Seed(4)))


def test_a_black_box_answers_from_here(student):
    def black_box(x):
        return float(x.sum()) + os.getpid()

    assert student("asks", Oracle(black_box, 3), 3) == [os.getpid() + 2 * k for k in range(3)]
    with pytest.raises(Raised, match="no questions left"):
        student("asks", Oracle(black_box, 2), 3)
    with pytest.raises(Raised, match="not answered"):
        student("asks", lambda x: x.no_such_thing, 1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "there is no function nothing"),
        ("large", "longer than 8 MB"),
        ("deep", "deeper than"),
        ("odd", "object cannot be sent"),
        ("raises", "raised KeyError: 'mine'"),
        ("recurses", "RecursionError"),
        ("leaves", "the process ended"),
    ],
)
def test_whatever_a_function_does_there_is_a_reason(student, name, says):
    with pytest.raises(Raised, match=says):
        student(name)
    assert student("same", 1) == 1


def test_a_hidden_check_is_not_told_on_by_the_name_of_an_exception(student):
    for name, said in (
        ("tells", "tells raised an exception"),
        ("raises", "raises raised KeyError"),
    ):
        with pytest.raises(Raised) as caught:
            student(name, 0.731)
        assert caught.value.what == said


def test_a_function_that_hung_is_not_called_again(student, monkeypatch):
    monkeypatch.setattr(proxy, "CALL_SECONDS", 1.0)
    with pytest.raises(Raised, match="did not answer in time"):
        student("loops")
    monkeypatch.undo()
    began = time.monotonic()
    with pytest.raises(Raised, match="not called again"):
        student("loops")
    assert time.monotonic() - began < proxy.CALL_SECONDS
    assert student("same", 1) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_whoever_takes_too_much_memory_is_ended(monkeypatch):
    monkeypatch.setattr(proxy, "MEMORY_BYTES", 1 << 30)
    student = Student([ANSWERS], isolated=not WHY)
    try:
        with pytest.raises(Raised, match="GB of memory"):
            student("takes")
    finally:
        student.stop()


@isolated
def test_nothing_lives_on():
    forks = "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        time.sleep(99)"
    student = Student([ANSWERS, forks], isolated=True)
    assert student("same", 1) == 1
    process = student._process
    assert process is not None
    lived = [Path(f"/proc/{pid}") for pid in family(process.popen.pid)]
    assert len(lived) >= 5
    student.stop()
    # The kernel ends them one after the other.
    while any(path.exists() for path in lived):
        time.sleep(0.05)


def test_a_cell_that_ends_the_process_is_left_out():
    student = Student(["import os\nos._exit(0)", ANSWERS], isolated=not WHY)
    try:
        assert student("same", 1) == 1
        assert student.errors == [
            "code cell 1 was left out, and what it defines is missing: the process ended"
        ]
    finally:
        student.stop()


FORGES = """
import gc, io
for file in [x for x in gc.get_objects() if isinstance(x, io.BufferedWriter)]:
    file.write(LINE.encode() + b"\\n")
    file.flush()
def same(x):
    return x
"""


@pytest.mark.parametrize(
    "line",
    [
        '{"errors": []}\n{"out": {"value": 1}, "after": []}',
        '{"errors": []}\n{"ask": 0, "args": []}',
        '{"errors": 3}',
        '{"cell": -1}',
    ],
)
def test_a_link_that_was_written_into_gives_nothing(line):
    student = Student([f"LINE = {line!r}", FORGES], isolated=not WHY)
    try:
        with pytest.raises(Raised):
            student("same", 1)
    finally:
        student.stop()
