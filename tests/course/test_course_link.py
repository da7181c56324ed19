"""Lines to and from a process that may do anything."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from course.deadline import Deadline
from course.link import LONGEST, Gone, Link

SOON = 0.3
LATER = 60.0


@pytest.fixture
def linked():
    started = []

    def start(*command):
        popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(popen)
        return Link(SimpleNamespace(popen=popen))

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


def prints(text):
    return ("printf", "%s\\n", text)


def test_lines_go_there_and_back(linked):
    link = linked("cat")
    for number in range(3):
        link.send({"n": number, "text": "x" * 20_000}, Deadline(LATER))
        assert link.receive(Deadline(LATER))["n"] == number


@pytest.mark.parametrize(
    "text",
    ["nothing", "[]", "3", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}", '{"a":'],
)
def test_what_is_no_object_is_refused(linked, text):
    with pytest.raises(Gone, match="JSON"):
        linked(*prints(text)).receive(Deadline(LATER))


def test_silence_ends(linked):
    with pytest.raises(Gone, match="in time"):
        linked("sleep", "60").receive(Deadline(SOON))


def test_who_does_not_read_is_not_waited_for(linked):
    link = linked("sleep", "60")
    with pytest.raises(Gone, match="took nothing in"):
        link.send({"text": "x" * 1_000_000}, Deadline(SOON))


def test_who_is_gone_is_said_to_be(linked):
    link = linked("true")
    with pytest.raises(Gone, match="ended"):
        link.receive(Deadline(LATER))
    with pytest.raises(Gone, match="ended"):
        link.send({"text": "x" * 1_000_000}, Deadline(LATER))


def test_an_answer_without_end_is_cut(linked):
    endless = f"import sys\nwhile True:\n    sys.stdout.write('x' * {LONGEST // 8})"
    with pytest.raises(Gone, match="longer than"):
        linked(sys.executable, "-c", endless).receive(Deadline(LATER))
