"""What students get: everything that they need, and nothing of the solution."""

import ast
import contextlib
import io
import json

import nbformat
import pytest
from release_notes import version as release

from course import builder, checks, embedding
from course.builder import BEGIN, STUB, source_of, tag_of

NAMES = checks.names()
# A line of code shorter than this says nothing: `return out`, `else:`.
TELLING = 25


def code_lines(text):
    """Lines of code that would give something away."""
    return {line.strip() for line in text.split("\n") if len(line.strip()) >= TELLING}


def solution_lines(assignment):
    """The lines that only the solution has."""
    inside = set()
    outside = set()
    for cell in builder.master(assignment):
        source = source_of(cell)
        tag = tag_of(cell)
        if tag == "answer":
            stub = builder.without_solution(source)
            inside |= code_lines(builder.with_solution(source)) - code_lines(stub)
        elif tag in ("solution", "written"):
            inside |= code_lines(source.partition("\n")[2] if tag == "written" else source)
        else:
            outside |= code_lines(source)
    return inside - outside


def hidden_texts(assignment):
    """Docstrings, names and lines of the hidden checks, and of what only they use."""
    source = (assignment.folder / "checks.py").read_text(encoding="utf-8")
    shown = code_lines(embedding.public(assignment))
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and any(
            check.name == node.name and not check.public for check in assignment.checks
        ):
            found |= {node.name, ast.get_docstring(node)}
            found |= code_lines(ast.get_source_segment(source, node)) - shown
    return {text for text in found if len(text) >= 8}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", ["student", "colab"])
def test_nothing_of_the_solution_or_a_hidden_check_is_in_what_students_get(name, version):
    assignment = checks.load(name)
    made = builder.colab(assignment) if version == "colab" else builder.version(assignment, False)
    texts = [source_of(cell) for cell in made["cells"]]
    text = "\n".join(texts)
    given = {line.strip() for line in text.split("\n")}
    assert not solution_lines(assignment) & given
    for hidden in hidden_texts(assignment):
        assert hidden not in text
    assert BEGIN not in text
    assert STUB in text


@pytest.mark.parametrize("name", NAMES)
def test_the_published_book_has_no_master(name):
    toc = (builder.HERE / "_toc.yml").read_text(encoding="utf-8")
    assert f"{name}/master" not in toc
    config = (builder.HERE / "_config.yml").read_text(encoding="utf-8")
    assert "only_build_toc_files: true" in config


@pytest.mark.parametrize("name", NAMES)
def test_masters_have_no_outputs_and_each_version_is_a_notebook(name):
    assignment = checks.load(name)
    for cell in builder.master(assignment):
        assert not cell.get("outputs")
    for made in (builder.version(assignment, True), builder.colab(assignment)):
        nbformat.validate(nbformat.reads(json.dumps(made), as_version=4))


def space_of(cells):
    """Run the cells as a notebook does; what was printed, and the names."""
    space = {"__name__": "__main__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for source in cells:
            with contextlib.suppress(NotImplementedError):
                exec(compile(source, "cell", "exec"), space)
    return printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_public_checks_run_in_the_notebook_alone(name):
    assignment = checks.load(name)
    public = sum(check.public for check in assignment.checks)
    solved = space_of(builder.code_of(builder.version(assignment, True)))
    assert solved.count("✓") == public, solved
    assert "✗" not in solved
    untouched = space_of(builder.code_of(builder.version(assignment, False)))
    assert untouched.count("✗") == public
    assert "still to be written" in untouched


@pytest.mark.parametrize("name", NAMES)
def test_the_embedded_checks_need_nothing_but_fldp(name):
    text = embedding.public(checks.load(name))
    tree = ast.parse(text)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    roots = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in imports
    }
    allowed = {"__future__", "collections", "base64", "binascii", "copy", "hashlib", "hmac"}
    allowed |= {"dataclasses", "functools", "itertools", "math", "random", "re", "statistics"}
    allowed |= {"typing", "unicodedata", "torch", "numpy", "fldp"}
    assert roots <= allowed
    assert "course" not in roots


def test_colab_installs_the_release():
    made = builder.colab(checks.load("clip-and-noise"))
    source = next(text for text in builder.code_of(made) if "%pip" in text)
    assert f"@v{release()}" in source
    assert "import fldp" in source


ANSWER = f"def f(x):\n    {BEGIN}\n    secret = x\n    return secret\n    {builder.END}"


def test_a_solution_becomes_a_line_at_its_own_place():
    assert builder.without_solution(ANSWER) == f"def f(x):\n    {STUB}"
    assert builder.with_solution(ANSWER) == "def f(x):\n    secret = x\n    return secret"


def planted(folder, cells, source):
    place = folder / "planted"
    place.mkdir(exist_ok=True)
    made = [
        {
            "cell_type": "code" if kind != "written" else "markdown",
            "metadata": {"tags": [kind] if kind else []},
            "source": text,
        }
        for kind, text in cells
    ]
    (place / "master.ipynb").write_text(json.dumps({"cells": made}))
    (place / "checks.py").write_text(source)
    return checks.load("planted", folder)


CHECK = """from course import check, hidden
@check("f", points=1)
def shown(call, draw):
    '''A hint.'''
    assert call("f", 1) == 1
@hidden("f", points=1)
def secret(call, draw):
    '''Another hint.'''
"""
CELLS = [("setup", "import math"), ("checks", "#"), ("answer", ANSWER), ("check", 'check("f")')]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (CELLS[1:], "tag setup"),
        (CELLS[:3], "calls"),
        ([*CELLS[:2], ("answer", "def f(x):\n    return x"), CELLS[3]], BEGIN),
        ([*CELLS, ("answr", "x = 1")], "one tag"),
        ([*CELLS, ("written", "My answer")], "begins with the line"),
    ],
)
def test_a_master_that_is_not_as_it_must_be_is_refused(tmp_path, cells, says):
    with pytest.raises(ValueError, match=says):
        builder.version(planted(tmp_path, cells, CHECK), solved=False)


def test_a_planted_master_is_built(tmp_path):
    made = builder.version(planted(tmp_path, CELLS, CHECK), solved=False)
    text = "\n".join(builder.code_of(made))
    assert "secret" not in text
    assert "shown" in text


def test_a_public_check_that_uses_a_hidden_one_is_refused(tmp_path):
    source = (
        CHECK
        + "@check('f', points=1)\ndef leaks(call, draw):\n    '''Hint.'''\n    secret(call, draw)\n"
    )
    assignment = planted(tmp_path, CELLS, source)
    with pytest.raises(ValueError, match="uses the hidden secret"):
        embedding.public(assignment)


def test_a_name_of_the_engine_is_not_taken_twice(tmp_path):
    source = (
        CHECK.replace("    assert call", "    encode(1)\n    assert call")
        + "def encode(x):\n    return x\n"
    )
    with pytest.raises(ValueError, match="encode is defined twice"):
        embedding.public(planted(tmp_path, CELLS, source))
