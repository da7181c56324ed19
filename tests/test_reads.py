"""tools/reads.py counts what it says: on files whose measures are known, and on the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import reads

PLAIN = '''"""What this is, in a line.

And in a second one.
"""


# Why this is so.
def one(first: int, second: int) -> int:
    """The sum."""
    return first + second
'''


def write(root: Path, text: str, floor: str = "accounting") -> Path:
    folder = root / "fldp" / floor
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "a.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_code_is_counted_and_misses_no_aim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reads.measure([write(tmp_path, PLAIN)])
    assert (found.lines, found.code, found.documentation, found.comments) == (10, 2, 5, 1)
    assert found.lengths == [2]
    assert found.complexity == (1, "a.one")
    assert found.parameters == (2, "a.one")
    assert list(found.missed()) == []
    assert reads.main(["--check", "--root", str(tmp_path)]) == 0
    assert "No aim is missed." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("    x = 1 if first else 2", "conditional expressions"),
        ("    x, y = first, second", "assignments to tuples"),
        ("    x: Any = first", "Any per 100"),
        ("    if first and second:\n        x = [y for y in range(3)]\n" * 4, "complexity 13"),
        ("    def many(a, b, c, d, e, *, f, g, h, i): ...", "9 parameters of a.many"),
        ("    x = 1  # fmt: skip\n" * 11, "switched off 11 times"),
        ("    x = 1\n" * 200, "% of the lines are comments"),
        ("    x = 1\n" * 200, "% of the lines are documentation"),
    ],
)
def test_each_missed_aim_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    write(tmp_path, PLAIN.replace("    return", f"{code}\n    return"))
    write(tmp_path, PLAIN, floor="plan")
    assert reads.main(["--root", str(tmp_path)]) == 0
    assert reads.main(["--check", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert words in said
    assert "plan:" not in said


def test_public_calls_may_have_more_parameters_and_self_is_none(tmp_path: Path) -> None:
    names = ", ".join("abcdefghi")
    path = write(tmp_path, f"class A:\n    def f(self, a): ...\ndef train(*, {names}): ...\n")
    assert reads.measure([path]).parameters == (1, "a.f")


@pytest.mark.slow
def test_the_package_has_a_row_for_each_floor(capsys: pytest.CaptureFixture[str]) -> None:
    assert reads.main([]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line]
    assert {"top", "accounting", "plan", "mechanism", "simulation", "audit", "fldp"} <= {*rows}
