"""A batch: every submission has a mark and a reason, and what is written can be opened safely."""

import csv
import os

import pytest

from course import __main__ as commands
from course import batch, box, checks, feedback, hostile
from course.checks import Assignment, Check
from course.grading import Grade, Outcome
from course.rubric import Criterion

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The twenty, graded once."""
    folder = tmp_path_factory.mktemp("demo")
    hostile.write(folder / "submissions")
    run = batch.Batch(KEY, not box.why_not_isolated(), hostile.ASSIGNMENT, os.cpu_count() or 1)
    grades = run.grade(folder / "submissions", lambda one: None)
    batch.write(grades, folder / "out")
    return {one.student: one for one in grades}, folder / "out"


@pytest.mark.slow
@pytest.mark.skipif(bool(box.why_not_isolated()), reason="no namespaces here")
def test_twenty_submissions_get_what_they_earned(demo):
    grades, _ = demo
    cases = hostile.cases()
    assert len(cases) == len(grades) == 20
    wrong = {}
    for case in cases:
        one = grades[case.name]
        if one.mark() != case.mark or case.says not in one.reason:
            wrong[case.name] = (one.mark(), case.mark, one.reason)
    assert not wrong
    assert not any("LEAK" in outcome.detail for one in grades.values() for outcome in one.outcomes)
    assert all(one.isolated for one in grades.values())


@pytest.mark.slow
def test_marks_and_pages_are_written_for_all(demo):
    grades, out = demo
    with (out / "marks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["student"] for row in rows} == set(grades)
    assert all(row["reason"] for row in rows)
    for row in rows:
        questions = [row[name] for name in hostile.FUNCTIONS]
        assert float(row["mark"]) == pytest.approx(sum(map(float, questions)))
    assert len(list((out / "feedback").glob("*/*.html"))) == 20


def graded(student="ada", **more):
    check = Check("clip", "the_norm", 1.0, "A hint & <more>.", True, lambda call, draw: None)
    assignment = Assignment("planted", checks.ASSIGNMENTS / "nowhere", (check,))
    outcome = Outcome(check, 0.0, check.hint, "<script>alert(1)</script>")
    return Grade(student, "a.ipynb", assignment, [outcome], **more)


def test_a_page_escapes_all_that_a_student_wrote():
    criteria = [Criterion("report", "Whose", 2, "all", "some")]
    one = graded("<b>ada</b>", notes=["<img src=x>"], written={"report": "<i>mine</i>"})
    text = feedback.page(one, criteria)
    for forbidden in ("<script", "<img", "<b>ada", "<i>mine"):
        assert forbidden not in text
    assert "&lt;script&gt;" in text


def test_what_was_not_isolated_says_so(tmp_path):
    one = graded(isolated=False)
    assert "not isolated" in feedback.page(one, [])
    batch.write([one], tmp_path)
    assert ",not isolated," in (tmp_path / "marks.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("student", ["..", "a/b", "x" * 250, "é" * 250, "My Homework (final)", ""])
def test_a_page_has_a_name_of_its_own_that_is_a_name(student, tmp_path):
    name = feedback.page_name(student)
    assert "/" not in name
    (tmp_path / name).write_text("")
    assert name != feedback.page_name(student + "!")


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    batch.write([graded("=HYPERLINK(1)"), graded("@x"), graded("-1")], tmp_path)
    with (tmp_path / "marks.csv").open(encoding="utf-8") as file:
        assert [row["student"] for row in csv.DictReader(file)] == ["'=HYPERLINK(1)", "'@x", "'-1"]


def test_without_a_key_nothing_is_graded(tmp_path, monkeypatch, capsys):
    for key in ("", "short"):
        monkeypatch.setenv(batch.KEY, key)
        assert commands.main(["grade", str(tmp_path)]) == 1
        assert "token_hex" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(batch.KEY, KEY)
    assert commands.main(["grade", str(tmp_path / "nothing")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_where_nothing_can_be_written_nobody_is_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(batch.KEY, KEY)
    monkeypatch.setattr(batch, "grade", lambda *arguments: pytest.fail("graded"))
    (tmp_path / "taken").write_text("")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ada.ipynb").write_text('{"cells": []}')
    out = str(tmp_path / "taken" / "out")
    asked = ["grade", str(tmp_path / "in"), "--assignment", hostile.ASSIGNMENT, "--out", out]
    assert commands.main(asked) == 1
    assert "taken" in capsys.readouterr().err


def test_a_submission_without_assignment_has_a_reason_and_stops_nobody(tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "ada.ipynb").write_text('{"cells": []}')
    (folder / "bob.ipynb").write_text("nothing")
    (folder / "cat").symlink_to("/etc/passwd")
    grades = batch.Batch(KEY, isolated=True).grade(folder, lambda one: None)
    reasons = {one.student: one.reason for one in grades}
    assert "which assignment" in reasons["ada"]
    assert "not a notebook" in reasons["bob"]
    assert "link" in reasons["cat"]


def test_only_the_assignment_that_was_asked_for_is_graded(tmp_path):
    other = '{"cells": [], "metadata": {"fldp": {"assignment": "clip-and-noise"}}}'
    (tmp_path / "ada.ipynb").write_text(other)
    (one,) = batch.Batch(KEY, True, "another").grade(tmp_path, lambda one: None)
    assert one.reason == "it is clip-and-noise, and not another"


def test_a_grader_that_fails_fails_for_one(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError("no more processes")

    monkeypatch.setattr(batch, "grade", broken)
    (tmp_path / "ada.ipynb").write_text('{"cells": []}')
    run = batch.Batch(KEY, isolated=True, assignment=hostile.ASSIGNMENT)
    (one,) = run.grade(tmp_path, lambda one: None)
    assert one.mark() == 0
    assert "the grader failed: OSError" in one.reason


def test_as_root_without_another_user_nobody_is_graded_outside_a_box(tmp_path, monkeypatch, capsys):
    """A submission that ended every process it may would end the machine's."""
    monkeypatch.setenv(batch.KEY, KEY)
    monkeypatch.setattr(box, "why_not_isolated", lambda: "none here")
    monkeypatch.setattr(box.os, "geteuid", lambda: 0)
    monkeypatch.setattr(box, "_other_user_runs", lambda *command: False)
    monkeypatch.setattr(batch.Batch, "grade", lambda *arguments: pytest.fail("graded"))
    assert commands.main(["grade", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "would run as root" in capsys.readouterr().err
