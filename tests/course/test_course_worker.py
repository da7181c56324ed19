"""The worker: what becomes of cells that are not all Python."""

import io

import pytest

from course.worker import Worker, python_of


def loaded(*cells):
    worker = Worker(io.BytesIO(), io.BytesIO())
    return worker, worker.load(list(cells), [])


@pytest.mark.parametrize(
    "line", ["%matplotlib inline", "!ls", "files = !ls", "a, b = %time f()", "print?", "?print"]
)
def test_lines_of_ipython_are_left_out(line):
    worker, errors = loaded(f"one = 1\n{line}\ntwo = 2\nif two:\n    {line}")
    assert not errors
    assert (worker.space["one"], worker.space["two"]) == (1, 2)


def test_a_cell_that_needed_such_a_line_is_told_so():
    _, (error,) = loaded("files = !ls\nprint(files)")
    assert error == (
        "code cell 1: NameError: name 'files' is not defined "
        "(line 1: not Python but IPython's, and left out)"
    )


def test_python_stays_as_it_is():
    source = 'text = """\n%is\n!this\n"""\nx = 7 % 4 != 3'
    assert python_of(source) == (source, [])
