"""Pages say what the notebook says."""

from dataclasses import replace

import pytest

from course import checks, rubric
from course.headings import headings, title


@pytest.mark.parametrize("name", checks.names())
def test_every_question_has_a_heading(name):
    assignment = checks.load(name)
    asked = {*assignment.questions, *(c.question for c in rubric.load(assignment))}
    found = headings(assignment)
    assert set(found) == asked
    assert all(heading[0].isdigit() for heading in found.values())
    assert title(assignment) != name


def test_without_a_notebook_names_do(tmp_path):
    bare = replace(checks.load("clip-and-noise"), folder=tmp_path)
    assert title(bare) == "clip-and-noise"
    assert headings(bare) == {}
