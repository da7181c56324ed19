"""The zip for Gradescope, unpacked and called as Gradescope calls it."""

import json
import os
import subprocess
import zipfile

import pytest

from course import builder, checks, gradescope
from course.batch import KEY

ASSIGNMENT = "clip-and-noise"


def test_the_zip_has_what_gradescope_asks_for_and_no_solution(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    gradescope.write(checks.load(ASSIGNMENT), tmp_path)
    with zipfile.ZipFile(tmp_path / "gradescope.zip") as file:
        names = set(file.namelist())
        assert {"setup.sh", "run_autograder", "course/box.sh", "course/worker.py"} <= names
        assert f"assignments/{ASSIGNMENT}/checks.py" in names
        assert not any(word in name for name in names for word in ("master", "noise/tried", "key"))
        for script in ("setup.sh", "run_autograder"):
            assert file.getinfo(script).external_attr >> 16 == 0o755
            text = file.read(script).decode()
            assert "{" not in text.replace("${", "")
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_key_goes_along_where_it_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "k" * 20)
    gradescope.write(checks.load(ASSIGNMENT), tmp_path)
    with zipfile.ZipFile(tmp_path / "gradescope.zip") as file:
        assert file.read(gradescope.KEY_FILE) == b"k" * 20
    assert (tmp_path / "gradescope.zip").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_it_grades_what_was_handed_in(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "k" * 20)
    for name in ("submission", "results"):
        (tmp_path / name).mkdir()
    made = builder.version(checks.load(ASSIGNMENT), solved=True)
    (tmp_path / "submission" / "hw.ipynb").write_text(builder.text_of(made), encoding="utf-8")
    who = {"users": [{"email": "ada@example.org", "name": "Ada"}]}
    (tmp_path / "submission_metadata.json").write_text(json.dumps(who))
    gradescope.grade(ASSIGNMENT, tmp_path)
    found = json.loads((tmp_path / "results" / "results.json").read_text())
    assert found["score"] == found["max_score"] == 10
    assert sum(test["max_score"] for test in found["tests"]) == 10
    assert {test["output"] for test in found["tests"]} == {"passed"}
    os.remove(tmp_path / "submission" / "hw.ipynb")
    gradescope.grade(ASSIGNMENT, tmp_path)
    found = json.loads((tmp_path / "results" / "results.json").read_text())
    assert found["score"] == 0
    assert "one notebook" in found["output"]
