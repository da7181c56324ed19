"""Checks as they are declared, found and run."""

import math

import pytest

from course import checks, grading, tried
from course.calls import Here, Oracle, Raised
from course.draws import Draw
from course.parts import Part


def write(folder, source):
    place = folder / "planted"
    place.mkdir()
    (place / "checks.py").write_text("from course import Part, check, hidden\n" + source)
    return folder


ONE = "@check('f', points=2)\ndef one(call, draw):\n    '''Hint.'''\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "has no checks"),
        ("@check('f', points=2)\ndef one(call, draw):\n    pass\n", "docstring"),
        (ONE + ONE, "two checks of one name"),
        (ONE.replace("2", "0"), "worth 0 points"),
        (ONE.replace("'f'", "'a question'"), "identifier"),
    ],
)
def test_a_module_of_checks_that_is_wrong_is_refused(tmp_path, source, says):
    with pytest.raises(ValueError, match=says):
        checks.load("planted", write(tmp_path, source))


def test_an_assignment_that_is_not_there():
    with pytest.raises(ValueError, match="clip-and-noise"):
        checks.load("nothing")


def outcome(body, public=True):
    check = checks.Check("f", "one", 2.0, "The hint.", public, body)
    return grading.run(check, Here({"f": lambda x: x, "bad": lambda: 1 / 0}), Draw("k", ["n"]))


def failing(call, draw):
    if call("f", 1) != 2:
        raise AssertionError("because 1 is not 2")


def test_a_passed_check_earns_its_points():
    found = outcome(lambda call, draw: None)
    assert (found.earned, found.told) == (2.0, "")


def test_a_failed_check_tells_the_hint_and_what_happened_only_where_it_is_public():
    assert outcome(failing).told == "The hint. (because 1 is not 2)"
    hidden = outcome(failing, public=False)
    assert hidden.told == "The hint."
    assert hidden.detail == "because 1 is not 2"
    assert hidden.earned == 0


def test_the_words_of_an_exception_are_told_only_where_the_check_is_public():
    def raising(call, draw):
        call("bad")

    assert "division by zero" in outcome(raising).told
    hidden = outcome(raising, public=False)
    assert hidden.told == "The hint. (bad raised ZeroDivisionError)"


@pytest.mark.parametrize(
    ("fraction", "earned"), [(0.5, 1.0), (1.0, 2.0), (7.0, 2.0), (-1.0, 0.0), (math.nan, 0.0)]
)
def test_a_part_is_between_nothing_and_all(fraction, earned):
    assert outcome(lambda call, draw: Part(fraction, "the rest", score=0.5)).earned == earned


def test_what_breaks_a_check_is_a_lost_point():
    found = outcome(lambda call, draw: call("f", [1])["key"])
    assert found.earned == 0
    assert "nothing could be computed" in found.told


def test_a_function_sees_copies_and_the_check_sees_what_became_of_them():
    def spoils(items):
        items.append(3)

    call = Here({"spoils": spoils})
    sent = [1, 2]
    call("spoils", sent)
    assert sent == [1, 2]
    assert call.after == [[1, 2, 3]]


def test_a_function_of_the_check_answers_so_often_and_no_more():
    def asks(box):
        return [box(x) for x in range(3)]

    assert Here({"asks": asks})("asks", Oracle(lambda x: 2 * x, calls=3)) == [0, 2, 4]
    with pytest.raises(Raised, match="no questions left"):
        Here({"asks": asks})("asks", Oracle(lambda x: 2 * x, calls=2))


def test_what_several_checks_need_is_made_once():
    made = []

    def fails():
        made.append(1)
        raise AssertionError("no")

    call = Here({})
    assert [call.once("run", lambda: made.append(0)) for _ in range(2)] == [None, None]
    for _ in range(2):
        with pytest.raises(AssertionError, match="no"):
            call.once("other", fails)
    assert made == [0, 1]


@pytest.mark.parametrize(
    "source",
    [
        "@wrong('clip')\ndef clip(x):\n    '''No word of its own.'''\n",
        "@wrong('clip')\ndef clip__a(x):\n    return x\n",
        "def clip__a(x):\n    '''Neither right nor wrong.'''\n",
    ],
)
def test_a_tried_answer_that_is_not_declared_as_it_must_be_is_refused(tmp_path, source):
    assignment = checks.load("planted", write(tmp_path, ONE))
    (assignment.folder / "tried.py").write_text(source)
    with pytest.raises(ValueError, match="function__word"):
        tried.load(assignment)


def test_a_tried_answer_to_no_question_is_refused(tmp_path):
    assignment = checks.load("planted", write(tmp_path, ONE))
    text = "@wrong('g')\ndef g__a(x):\n    '''Of another assignment.'''\n"
    (assignment.folder / "tried.py").write_text(text)
    with pytest.raises(ValueError, match="not there: g"):
        tried.load(assignment)
