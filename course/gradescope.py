"""A zip for Gradescope: the same grader, called the way that Gradescope calls one.

Its containers allow no namespaces, as a rule, but run as root: submissions then run as another
user, in a plain process, and the page says that this is not isolated.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from course import batch, box, builder, checks
from course.batch import KEY, Batch
from course.checks import Assignment
from course.grading import Grade, Outcome
from course.submissions import Submission, find, read

HERE = Path(__file__).resolve().parent
# Gradescope's own places.
PLACE = Path("/autograder")
KEY_FILE = "course_key"
SETUP = """#!/bin/bash
# Gradescope runs this once, when the image is made.
set -e
apt-get update
apt-get install -y python3 python3-venv git util-linux
python3 -m venv {place}/venv
{place}/venv/bin/pip install "fldp @ git+{address}@v{release}"
chmod -R a+rX {place}/venv {place}/source
if [ -f {place}/source/{key_file} ]; then chmod 600 {place}/source/{key_file}; fi
"""
RUN = """#!/bin/bash
# Gradescope runs this for each submission.
cd {place}/source
chmod 700 {place}/results
export {key}="$(cat {key_file})"
exec {place}/venv/bin/python -m course.gradescope {name}
"""


def write(assignment: Assignment, place: Path) -> None:
    """``gradescope.zip``, with the course's key where it is set.

    Parameters
    ----------
    assignment : Assignment
        Which.
    place : Path
        The folder that it is written into.
    """
    address, release = builder.release()
    words = {
        "place": PLACE,
        "address": address,
        "release": release,
        "key": KEY,
        "key_file": KEY_FILE,
        "name": assignment.name,
    }
    path = place / "gradescope.zip"
    # It holds the key, and others may have an account here, submissions in plain processes too.
    path.touch()
    path.chmod(0o600)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
            # Executable for all, as Gradescope asks.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o755 << 16
            file.writestr(entry, text.format(**words))
        for module in sorted([*HERE.glob("*.py"), *HERE.glob("*.sh")]):
            file.write(module, f"course/{module.name}")
        # Not what was tried, where right answers are: a submission may be able to read it there.
        file.write(assignment.folder / "checks.py", f"assignments/{assignment.name}/checks.py")
        if key := os.environ.get(KEY, ""):
            file.writestr(KEY_FILE, key)


def _test(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    title = check.name.replace("_", " ") if check.public else "hidden check"
    return {
        "name": f"{check.question}: {title}",
        "score": round(outcome.earned, 2),
        "max_score": check.points,
        "output": outcome.told or "passed",
        "output_format": "text",
    }


def results(grade: Grade) -> dict[str, Any]:
    """A grade in Gradescope's words."""
    said = list(grade.notes)
    if not grade.isolated:
        said.append("Graded in a plain process, not isolated from the grader.")
    found: dict[str, Any] = {
        "score": grade.mark(),
        "output": "\n".join(said),
        "output_format": "text",
        "tests": [_test(outcome) for outcome in grade.outcomes],
    }
    if grade.score is not None:
        found["leaderboard"] = [{"name": "score", "value": round(grade.score, 4)}]
    return found


def _student(place: Path) -> str:
    content = json.loads((place / "submission_metadata.json").read_text(encoding="utf-8"))
    users = content.get("users") or [{}]
    return str(users[0].get("email") or users[0].get("name") or "student")


def grade(name: str, place: Path = PLACE) -> None:
    """Grade what Gradescope has put into its folder, and write its result.

    Parameters
    ----------
    name : str
        The assignment.
    place : Path
        Gradescope's folder.
    """
    assignment = checks.load(name)
    student = _student(place)
    files = [path for _, path in find(place / "submission")]
    if len(files) == 1:
        submission = read(student, files[0])
    else:
        why = f"hand in one notebook, not {len(files)} files"
        submission = Submission(student, place / "submission", refused=why)
    run = Batch(batch.course_key(), not box.why_not_isolated(), name)
    found = results(run.one(submission))
    found["max_score"] = assignment.points()
    text = json.dumps(found, indent=1)
    (place / "results" / "results.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    import sys

    grade(sys.argv[1])
