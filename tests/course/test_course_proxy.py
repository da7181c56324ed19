"""What the system does to a process is not the submission's fault."""

import pytest

from course import deadline, proxy
from course.calls import Raised
from course.link import Ended, Gone, Late
from course.proxy import Student
from course.values import encode


class Process:
    popen = None

    def end(self):
        pass


def student_with(monkeypatch, messages):
    """A student whose process says these one after the other, or raises them."""
    said = iter(messages)

    class Link:
        def send(self, message, end):
            pass

        def receive(self, end):
            message = next(said)
            if isinstance(message, Exception):
                raise message
            return message

    def opened(student):
        student._process = Process()
        link = Link()
        link.receive(None)
        return link

    monkeypatch.setattr(Student, "_open", opened)
    monkeypatch.setattr(proxy, "PAUSE_SECONDS", 0.0)
    return Student(["x = 1", "y = 2"], isolated=False)


READY = {"ready": True}
LOADED = [READY, {"cell": 0}, {"errors": []}]
ONE = {"out": encode(1), "after": []}


def test_a_process_that_could_not_start_is_started_again(monkeypatch):
    student = student_with(monkeypatch, [Ended(), Late(), *LOADED, ONE])
    assert student("f") == 1
    assert student.errors == []


def test_one_that_never_starts_is_not_called_a_fault(monkeypatch):
    student = student_with(monkeypatch, [Ended()] * proxy.MOST_STARTS)
    with pytest.raises(Gone, match="not graded, and nothing that the submission did"):
        student.start()


def test_a_call_that_was_ended_is_made_once_more(monkeypatch):
    student = student_with(monkeypatch, [*LOADED, Ended(), *LOADED, ONE])
    assert student("f") == 1
    student = student_with(monkeypatch, [*LOADED, Ended(), *LOADED, Ended()])
    with pytest.raises(Raised, match="f: the process ended"):
        student("f")


def test_a_cell_that_was_ended_is_run_once_more(monkeypatch):
    student = student_with(monkeypatch, [READY, {"cell": 0}, Ended(), *LOADED, ONE])
    assert student("f") == 1
    assert student.errors == []


def test_a_submission_that_always_ends_elsewhere_is_given_up(monkeypatch):
    """The number of a cell comes from the box, so each start may end at another one."""
    most = proxy.MOST_ENDED + proxy.MOST_SKIPPED + 1
    ends = [said for at in range(most) for said in (READY, {"cell": at}, Ended())]
    student = student_with(monkeypatch, ends)
    student.cells = ["x = 1"] * (2 * most)
    with pytest.raises(Gone, match="the cells could not be run: the process ended"):
        student.start()


def test_what_came_too_late_is_not_tried_again(monkeypatch):
    student = student_with(monkeypatch, [*LOADED, Late()])
    with pytest.raises(Raised, match=r"f: it did not answer in time \(20 seconds\)"):
        student("f")


def test_questions_to_the_grader_are_not_asked_twice(monkeypatch):
    asked = {"ask": 0, "args": []}
    student = student_with(monkeypatch, [*LOADED, asked, Ended()])
    with pytest.raises(Raised, match="the process ended"):
        student("f", lambda: 1)


def test_what_it_asks_is_read_in_its_own_time(monkeypatch):
    """Only the grader's function counts in nobody's time: reading may be made to last."""
    clock = [0.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: clock[0])
    read = proxy.decode

    def slow(*given):
        clock[0] += 3.0
        return read(*given)

    def oracle(value):
        clock[0] += 50.0
        return value

    asked = {"ask": 0, "args": [encode(1)]}
    student = student_with(monkeypatch, [*LOADED, asked, {"error": "f raised ValueError"}])
    monkeypatch.setattr(proxy, "decode", slow)
    with pytest.raises(Raised):
        student("f", oracle)
    assert student._left == proxy.TOTAL_SECONDS - 3.0
