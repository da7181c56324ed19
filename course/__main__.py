"""``python -m course``: build the assignments, grade submissions, try answers."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from pathlib import Path

from course import batch, box, builder, checks, gradescope, hostile, trial
from course.grading import Grade

HERE = Path(__file__).resolve().parent.parent
GRADES = HERE / "build" / "grades"
# Of a reason, in the table on the screen.
SHOWN = 150


def _show(one: Grade) -> None:
    of = one.assignment.points() if one.assignment else 0.0
    print(f"{one.file:34.34} {one.mark():5.2f} /{of:3g} {one.seconds:6.1f} s  {one.reason[:SHOWN]}")
    sys.stdout.flush()


def _build(arguments: argparse.Namespace) -> None:
    for name in arguments.names or checks.names():
        assignment = checks.load(name)
        place = builder.write(assignment)
        gradescope.write(assignment, place)
        print(f"{place.relative_to(HERE)}: {assignment.points():g} points")


def _graded(folder: Path, out: Path, key: str, assignment: str, jobs: int) -> None:
    why = box.why_not_isolated()
    if why:
        if worse := box.why_not_plain():
            raise ValueError(f"this system makes no box ({why}), and {worse}")
        print(f"NOT ISOLATED: this system makes no box ({why}). {box.WHAT_PLAIN_MEANS}")
    # Before anybody is graded: where nothing can be written, that would be for nothing.
    out.mkdir(parents=True, exist_ok=True)
    run = batch.Batch(key, not why, assignment, jobs)
    batch.write(run.grade(folder, _show), out)
    print(f"marks: {out / 'marks.csv'}; a page for each student: {out / 'feedback'}")


def _grade(arguments: argparse.Namespace) -> None:
    key = batch.course_key()
    _graded(arguments.folder, arguments.out, key, arguments.assignment, arguments.jobs)


def _demo(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="submissions-") as folder:
        hostile.write(Path(folder))
        key = secrets.token_hex(batch.SHORTEST_KEY)
        _graded(Path(folder), arguments.out, key, hostile.ASSIGNMENT, arguments.jobs)


def _try(arguments: argparse.Namespace) -> None:
    for name in arguments.names or checks.names():
        for line in trial.lines(checks.load(name)):
            print(line)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m course", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="write all versions into build/assignments")
    build.add_argument("names", nargs="*", help="default: every assignment")
    build.set_defaults(run=_build)
    grade = commands.add_parser("grade", help="grade a folder of submissions")
    grade.add_argument("folder", type=Path)
    grade.add_argument("--assignment", default="", choices=["", *checks.names()])
    grade.set_defaults(run=_grade)
    demo = commands.add_parser(
        "demo", help="grade twenty synthetic submissions, most of them hostile"
    )
    demo.set_defaults(run=_demo)
    for command, out in ((grade, GRADES), (demo, GRADES / "demo")):
        command.add_argument("--out", type=Path, default=out, help=f"default: {out}")
        command.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    attempt = commands.add_parser(
        "try", help="solution, untouched version and tried answers, unboxed"
    )
    attempt.add_argument("names", nargs="*", help="default: every assignment")
    attempt.set_defaults(run=_try)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
