"""Files that students hand in, whatever they are."""

import json
import os

import pytest

from course import batch, submissions
from course.submissions import find, read
from course.worker import only_checks


def notebook(*sources, **metadata):
    cells = [{"cell_type": "code", "source": source, "metadata": {}} for source in sources]
    return json.dumps({"cells": cells, "metadata": metadata})


def test_a_file_or_a_folder_is_a_student(tmp_path):
    (tmp_path / "ada.ipynb").write_text(notebook())
    nested = tmp_path / "bob" / "clip-and-noise" / "student.ipynb"
    nested.parent.mkdir(parents=True)
    nested.write_text(notebook())
    copy = tmp_path / "bob" / ".ipynb_checkpoints" / "student.ipynb"
    copy.parent.mkdir()
    copy.write_text(notebook())
    (tmp_path / "cat").mkdir()
    (tmp_path / ".hidden").write_text("")
    names = {(student, path.name) for student, path in find(tmp_path)}
    assert names == {("ada", "ada.ipynb"), ("bob", "student.ipynb"), ("cat", "cat")}
    assert "no plain file" in read("cat", tmp_path / "cat").refused


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        find(tmp_path / "nothing")


def test_the_assignment_stands_in_the_notebook(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(notebook("x = 1", fldp={"assignment": "clip-and-noise"}))
    assert read("a", path).assignment == "clip-and-noise"
    path.write_text(notebook("x = 1", fldp={"assignment": "../../etc"}))
    assert read("a", path).assignment == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"cells": [',
        "[]",
        '{"cells": 3}',
        "[" * 100_000,
        '{"cells": [' + "9" * 10_000 + "]}",
        json.dumps({"cells": [{}] * 3_000}),
    ],
)
def test_what_is_no_notebook_has_a_reason(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    assert "notebook" in read("a", path).refused


@pytest.mark.parametrize("cell", [3, None, {}, {"cell_type": "code", "source": 3}, {"source": [1]}])
def test_odd_cells_are_no_harm(tmp_path, cell):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    assert read("a", path).refused == ""


def test_half_a_character_becomes_one_that_can_be_written(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text('{"cells": [{"cell_type": "code", "source": "x = \'\\ud800\'"}]}')
    assert read("a", path).cells == ["x = '?'"]


def test_nothing_is_followed_waited_for_or_read_to_no_end(tmp_path):
    target = tmp_path / "solution.json"
    target.write_text(notebook("x = 1"))
    link = tmp_path / "link.ipynb"
    link.symlink_to(target)
    assert "link" in read("link", link).refused
    pipe = tmp_path / "pipe.ipynb"
    os.mkfifo(pipe)
    assert "no plain file" in read("pipe", pipe).refused
    large = tmp_path / "large.ipynb"
    with large.open("wb") as file:
        file.truncate(submissions.LARGEST_FILE + 1)
    assert "larger" in read("large", large).refused
    outside = tmp_path / "folder"
    outside.symlink_to("/etc")
    assert "link" in read("folder", outside).refused
    gone = tmp_path / "gone.ipynb"
    assert "cannot be read" in read("gone", gone).refused


def test_a_name_that_is_no_text_and_one_that_moves_the_cursor_can_be_shown(tmp_path):
    for name in (b"\xff\xfe.ipynb", b"\x1b[2J.ipynb", "\u202eb.ipynb".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write(notebook())
    for student, path in find(tmp_path):
        one = read(student, path)
        assert one.refused == ""
        assert (one.student + one.file).isprintable()
        (one.student + one.file).encode()


def test_written_answers_are_found(tmp_path):
    cell = {"cell_type": "markdown", "source": ["<!-- written: report -->\n", "Mine.\n"]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    assert read("a", path).written == {"report": "Mine."}


def test_of_two_by_one_student_the_later_counts(tmp_path):
    first, second = tmp_path / "Ada.ipynb", tmp_path / "ada" / "b.ipynb"
    second.parent.mkdir()
    for age, path in ((100, first), (200, second)):
        path.write_text(notebook())
        os.utime(path, (age, age))
    kept = batch.latest([read(student, path) for student, path in find(tmp_path)])
    refused = {one.path.name: one.refused for one in kept}
    assert refused["b.ipynb"] == ""
    assert "changed later" in refused["Ada.ipynb"]
    first.write_text(notebook(fldp={"assignment": "clip-and-noise"}))
    kept = batch.latest([read(student, path) for student, path in find(tmp_path)])
    assert {one.refused for one in kept} == {""}


def test_what_a_system_leaves_is_nobodys_and_a_hidden_notebook_is_somebodys(tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    for name in ("ada/hw.ipynb", "ada/._hw.ipynb", "._ada.ipynb", ".DS_Store", ".ipynb"):
        (tmp_path / name).write_text(notebook())
    assert {path.name for _, path in find(tmp_path)} == {"hw.ipynb", ".ipynb"}


def test_a_second_notebook_that_does_not_say_what_it_is_gets_no_second_mark(tmp_path):
    said, silent = tmp_path / "ada" / "a.ipynb", tmp_path / "ada" / "b.ipynb"
    said.parent.mkdir()
    said.write_text(notebook(fldp={"assignment": "clip-and-noise"}))
    silent.write_text(notebook())
    found = [read(student, path) for student, path in find(tmp_path)]
    kept = batch.latest(found, "clip-and-noise")
    assert sorted(bool(one.refused) for one in kept) == [False, True]


def test_a_file_that_cannot_be_read_does_not_stand_for_one_that_can(tmp_path):
    for age, name in ((100, "a.ipynb"), (200, "b.ipynb")):
        path = tmp_path / "ada" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(notebook() if age == 100 else "broken")
        os.utime(path, (age, age))
    kept = batch.latest([read(student, path) for student, path in find(tmp_path)])
    assert {one.path.name: one.refused[:14] for one in kept} == {
        "a.ipynb": "",
        "b.ipynb": "not a notebook",
    }


@pytest.mark.parametrize(
    ("source", "skipped"),
    [
        ('check("clip")', True),
        ('# mine\ncheck("clip")\ncheck("claim")', True),
        ("# @title Public checks: run this cell", True),
        ("x = check('clip')", False),
        ("", False),
        ("(((", False),
        ("\0", False),
    ],
)
def test_cells_that_only_check_are_not_run(source, skipped):
    assert only_checks(source) is skipped


def test_a_written_answer_without_its_first_line_is_found(tmp_path):
    """Whoever selects all and writes replaces that line, too."""
    own = {"fldp": {"written": "report"}}
    cells = [
        {"cell_type": "markdown", "source": "Mine."},
        {"cell_type": "markdown", "source": "Mine, too.", "metadata": own},
        {"cell_type": "markdown", "source": "Odd.", "metadata": {"fldp": ["written"]}},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert read("a", path).written == {"report": "Mine, too."}
