"""The checks of every assignment: fair to whoever solved it, and to nobody else."""

import pytest

from course import checks, trial, tried

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


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_three_wrong_answers_and_both_kinds_of_check(name):
    assignment = checks.load(name)
    for question in assignment.questions:
        wrong = [o for n, o in TRIED if n == name and o.question == question and not o.is_right]
        assert len(wrong) >= 3, question
        kinds = {c.public for c in assignment.checks if c.question == question}
        assert kinds == {True, False}, question
