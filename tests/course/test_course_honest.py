"""The checks of every assignment: fair to whoever solved it, and to nobody else."""

import math

import pytest
import torch

from course import checks, trial, tried
from course.calls import Here
from course.grading import mark

NAMES = checks.names()
TRIED = [(name, one) for name in NAMES for one in tried.load(checks.load(name))]
IDS = [f"{name}-{one.name}" for name, one in TRIED]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["first key", "second key"])
def test_the_solution_gets_full_marks_whatever_the_key(name, key):
    assignment = checks.load(name)
    grade = trial.solution(assignment, key)
    assert grade.mark() == pytest.approx(assignment.points()), grade.reason
    assert grade.reason == "full marks"


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_version_gets_nothing(name):
    grade = trial.untouched(checks.load(name))
    assert grade.mark() == 0, [o for o in grade.outcomes if o.earned]


@pytest.mark.parametrize(("name", "one"), TRIED, ids=IDS)
def test_a_wrong_answer_loses_marks_with_a_hint_and_a_right_one_does_not(name, one):
    assignment = checks.load(name)
    grade = trial.answer(assignment, one)
    points = grade.mark(one.question)
    if one.is_right:
        assert points == pytest.approx(assignment.points(one.question)), grade.reason
    else:
        assert points < assignment.points(one.question)
        assert f"{one.question}: " in grade.reason
        lost = [o for o in grade.outcomes if o.check.question == one.question and o.hint]
        assert lost
        assert all(outcome.told.startswith(outcome.hint) for outcome in lost)


# What is returned without a look at the question, and which of the arguments is.
CONSTANTS = (None, True, 0, 0.0, 1, -1, 0.5, 2.0, 1e-9, 1e9, math.inf, math.nan, "", [], {})
PLACES = range(4)


def _idle():
    """Functions that do not answer anything, and the share of a question that they may earn."""
    for value in CONSTANTS:
        yield f"returns {value!r}", 0.0, lambda *args, value=value: value
    yield "zeros for each", 0.0, lambda *args: torch.zeros(len(args[0]))
    yield "never", 0.0, lambda *args: {"refuted": False, "bound": 0.0}
    for place in PLACES:
        # A short update has to come back as it was.
        yield f"argument {place}", 0.25, lambda *args, place=place: args[place]


@pytest.mark.parametrize("name", NAMES)
def test_whoever_does_not_look_at_the_question_earns_nothing(name):
    assignment = checks.load(name)
    space = trial.space_of(trial._cells(assignment, True))
    earned = {}
    for question in assignment.questions:
        for what, share, function in _idle():
            idle = Here({**space, question: function})
            outcomes = mark(assignment, idle, trial.KEY, trial.STUDENT, question)
            points = sum(outcome.earned for outcome in outcomes)
            if points > share * assignment.points(question):
                earned[question, what] = points
    assert not earned


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_three_wrong_answers_and_both_kinds_of_check(name):
    assignment = checks.load(name)
    for question in assignment.questions:
        wrong = [o for n, o in TRIED if n == name and o.question == question and not o.is_right]
        assert len(wrong) >= 3, question
        kinds = {c.public for c in assignment.checks if c.question == question}
        assert kinds == {True, False}, question
