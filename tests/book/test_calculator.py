"""The calculator's page: its accountant, plans and words are the package's, and it needs nothing.

The comparisons run the page's scripts in node and are skipped where there is none. A few hundred
random settings here, a thousand in ``python -m benchmarks.calculator``.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fldp
from benchmarks import calculator
from fldp._text import down, fill, up

ROOT = Path(__file__).resolve().parent.parent.parent
STATIC = ROOT / "book" / "_static"
SCRIPTS = ("accountant.js", "plan.js", "calculator.js")
PAGE = (ROOT / "book" / "calculator.md").read_text(encoding="utf-8")

needs_node = pytest.mark.skipif(calculator.node() is None, reason="node is not installed")

BASE = {
    "clients": "480", "cohort": "120", "rounds": "60", "sampling": "poisson", "trust": "central",
    "survivors": "", "adjacency": "", "delta": "1e-3", "give": "epsilon", "epsilon": "8", "z": "",
}  # fmt: skip


def asked(**changes: str) -> dict[str, Any]:
    return {"ask": "plan", "texts": BASE | changes}


def in_python(texts: dict[str, str]) -> fldp.PrivacyPlan:
    """The plan that the package makes of the page's texts."""
    delta = float(texts["delta"]) if texts["delta"] else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a delta that is too weak
        return fldp.calibrate(
            epsilon=float(texts["epsilon"]),
            delta=delta,
            rounds=int(texts["rounds"]),
            clients=int(texts["clients"]),
            cohort=float(texts["cohort"]) if texts["cohort"] else None,
            sampling=texts["sampling"],
            trust=texts["trust"],
            adjacency=texts["adjacency"] or None,
            min_survivors=int(texts["survivors"]) if texts["survivors"] else None,
        )


def within(found: dict[str, Any]) -> None:
    """The promise of the page, on what was compared."""
    assert found["answered_differently"] == []
    assert found["lowest"] >= -1e-6
    assert found["highest"] <= 1e-3
    assert found["compared"] > 0.8 * found["cases"]


@needs_node
@pytest.mark.slow
def test_every_reference_case_is_within_a_thousandth_of_the_package() -> None:
    within(calculator.compared(calculator.references(), warm=0))


@needs_node
@pytest.mark.slow
def test_a_reference_case_is_within_a_thousandth_of_the_reference_itself() -> None:
    questions = [one for one in calculator.references() if one.get("truth", 0) >= 0.01]
    assert len(questions) > 50
    for one, answer in zip(questions, calculator.answers(questions), strict=True):
        assert -1e-6 <= answer["value"] / one["truth"] - 1 <= 1e-3, one


@needs_node
def test_random_settings_of_every_kind_are_within_a_thousandth() -> None:
    within(calculator.compared(calculator.random_questions(24, seed=7), warm=0))


@needs_node
def test_the_noise_for_a_budget_is_the_packages() -> None:
    within(calculator.compared(calculator.noise_questions(8, seed=8), warm=0))


@needs_node
@pytest.mark.slow
def test_many_random_settings_are_within_a_thousandth() -> None:
    within(calculator.compared(calculator.random_questions(240, seed=9), warm=0))
    within(calculator.compared(calculator.noise_questions(40, seed=10), warm=0))


@needs_node
@pytest.mark.slow
def test_extreme_settings_are_answered_or_refused_as_in_the_package() -> None:
    events = [
        fldp.Event(z, q, sampling, rounds, known=known)
        for z, q, sampling, rounds, known in [
            (1e-9, 1.0, "none", 1, False),
            (1e12, 1.0, "none", 1, False),
            (1e-5, 0.1, "poisson", 10, False),
            (0.02, 0.1, "poisson", 100, False),
            (50.0, 0.9, "poisson", 10**7, False),
            (3e4, 0.5, "poisson", 10**9, False),
            (1.0, 0.3, "poisson", 1, False),
            (3.0, 1e-3, "poisson", 10**9, True),
        ]
    ]
    questions = [
        calculator.question(event, delta, adjacency)
        for event, delta in itertools.product(events, (1e-5, 1e-300))
        for adjacency in ("zero-out", "replace-one")
    ]
    for one, answer in zip(questions, calculator.answers(questions), strict=True):
        mine = calculator.ours(one)
        if isinstance(mine, str):
            assert "message" in answer, one
        else:
            assert answer["value"] >= mine * (1 - 1e-6), one
            # where an epsilon says nothing any more the page has no long doubles to be as near
            near = 1e-3 if mine < 1e6 else 0.05
            assert answer["value"] <= max(mine * (1 + near), 1e-5), one


@needs_node
@pytest.mark.parametrize(
    ("size", "times", "width"), [(1024, 100, 30), (8192, 1000, 90), (2048, 1, 7)]
)
def test_the_transform_errs_by_less_than_what_is_added_for_it(
    size: int, times: int, width: int
) -> None:
    """Against long doubles: what makes every answer of the page an upper bound."""
    mass = np.exp(-(np.linspace(-4, 4, width) ** 2)) * (1 + 0.5 * np.sin(np.arange(width)))
    mass /= mass.sum()
    law = {"first": -(width // 3), "mass": mass.tolist(), "noise": 0.0}
    question = {"ask": "summed", "law": law, "times": times, "size": size, "first": -7}
    [answer] = calculator.answers([question])
    around = np.zeros(size, np.longdouble)
    around[(np.arange(width) - width // 3) % size] = mass
    power = np.fft.rfft(around) ** times
    error = np.array(answer["mass"]) - np.roll(np.fft.irfft(power, size), 7)
    assert float(np.abs(error).max()) < 8 * answer["noise"]
    assert answer["noise"] < 1e-12


def combinations() -> list[dict[str, str]]:
    """Every combination of the page's choices, those that are refused included."""
    choices = itertools.product(
        ("central", "distributed", "local"),
        ("poisson", "fixed", "none"),
        ("", "add-or-remove", "zero-out", "replace-one"),
        ("120", ""),
    )
    return [
        BASE
        | {
            "trust": trust,
            "sampling": sampling,
            "adjacency": adjacency,
            "cohort": cohort,
            "survivors": "90" if trust == "distributed" else "",
        }
        for trust, sampling, adjacency, cohort in choices
    ]


@needs_node
def test_every_combination_is_refused_or_stated_in_the_packages_words() -> None:
    texts = combinations()
    found = calculator.answers([{"ask": "plan", "texts": one} for one in texts])
    refusals = 0
    for one, answer in zip(texts, found, strict=True):
        if "message" in answer:
            refusals += 1
            with pytest.raises(ValueError, match=re.escape(answer["message"])):
                in_python(one)
            assert answer["field"] == "adjacency"
            continue
        stated = "\n".join(fill(line) for line in answer["statement"])
        assert stated == in_python(one).statement(), one
    assert 10 < refusals < len(texts) / 2


@needs_node
def test_other_runs_are_stated_in_the_packages_words() -> None:
    texts = [
        BASE | {"clients": "1000000", "cohort": "1000.5", "rounds": "2000", "delta": ""},
        BASE | {"epsilon": "20", "delta": "0.01"},
        BASE | {"epsilon": "0.01", "delta": "1e-12", "rounds": "1"},
        BASE | {"trust": "distributed", "survivors": "110", "rounds": "500"},
        BASE | {"cohort": "480"},
        BASE | {"trust": "local", "clients": "7", "cohort": "3", "sampling": "fixed"},
    ]
    found = calculator.answers([{"ask": "plan", "texts": one} for one in texts])
    for one, answer in zip(texts, found, strict=True):
        assert "\n".join(fill(line) for line in answer["statement"]) == in_python(one).statement()


@needs_node
@pytest.mark.parametrize("give", ["epsilon", "z"])
def test_the_copied_lines_make_the_same_plan(give: str) -> None:
    """Run as they are, they give the plan that the page shows."""
    questions = [
        asked(give=give, z="1.3", **changes)
        for changes in (
            {},
            {"cohort": ""},
            {"sampling": "fixed", "adjacency": "replace-one", "cohort": "7"},
            {"trust": "distributed", "survivors": "90", "delta": ""},
            {"trust": "local", "adjacency": "replace-one", "epsilon": "0.5"},
            {"clients": "3_400", "cohort": "99.5", "rounds": "1500", "delta": ".0001304"},
        )
    ]
    for answer in calculator.answers(questions):
        names: dict[str, Any] = {"fldp": fldp}
        exec(answer["python"], names)
        made, page = names["plan"], answer["plan"]
        assert made.noise_multiplier == pytest.approx(page["z"], rel=1e-6)
        assert made.epsilon() == pytest.approx(page["epsilon"], rel=1e-6)
        assert made.cohort_known()["epsilon"] == pytest.approx(page["known"]["epsilon"], rel=1e-6)
        same = ("clients", "cohort", "rounds", "sampling", "trust", "adjacency", "delta")
        assert [getattr(made, name) for name in same] == [page[name] for name in same]
        assert made.min_survivors == page["minSurvivors"]
        assert "\n".join(fill(line) for line in answer["statement"]) == made.statement()


@needs_node
@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("clients", "", "The population is missing: give a whole number of at least 1"),
        ("clients", "4.5", "is 4.5: give a whole number"),
        ("clients", "-3", "is -3: give a whole number of at least 1"),
        ("clients", "1e400", "at most 1e+15"),
        ("cohort", "-1", "The cohort is -1: give a number above 0"),
        ("cohort", "1e-400", "is 1e-400: give a number above 0"),
        ("cohort", "481", "cohort is 481 but there are 480 clients"),
        ("rounds", "0", "is 0: give a whole number of at least 1"),
        ("rounds", "many", "is many"),
        ("delta", "1", "δ is 1: give a number between 0 and 1"),
        ("delta", "1e-400", "δ is 1e-400"),
        ("delta", "1e-310", "at least 1e-300"),
        ("delta", "0,001", "δ is 0,001"),
        ("epsilon", "Infinity", "ε is Infinity"),
        ("epsilon", "1e400", "ε is 1e400"),
        ("epsilon", "1e9", "ask for at most"),
        ("epsilon", "0x10", "ε is 0x10"),
        ("rounds", "9" * 100, "is 99999999999999999999…: give a whole number of at most 1e+09"),
        ("sampling", "dice", "choose one of"),
    ],
)
def test_what_is_no_answerable_number_is_refused_in_words(field: str, text: str, says: str) -> None:
    [answer] = calculator.answers([asked(**{field: text})])
    assert says in answer["message"]
    assert answer["field"] in (field, "")


@needs_node
def test_a_z_out_of_range_is_refused_in_words() -> None:
    found = calculator.answers([asked(give="z", z=z) for z in ("", "0", "-1", "1e-400", "1e13")])
    assert all(answer["field"] == "z" for answer in found)
    assert all(answer["message"].startswith("z is") for answer in found)


@needs_node
def test_numbers_are_rounded_as_in_the_package() -> None:
    values = [7.99601, 1e-5, 0.00112301, 0.0, 9.9996, 99999.5, 1e22, 123456.7, 2.5e-7, 0.25, 1e-310]
    questions = [
        {"ask": name, "value": value, "digits": digits}
        for value in values
        for name, digits in (("up", 4), ("up", 5), ("down", 5), ("general", 10), ("general", 6))
    ]
    theirs = {"up": up, "down": down, "general": lambda value, n: f"{value:.{n}g}"}
    for one, answer in zip(questions, calculator.answers(questions), strict=True):
        assert answer["value"] == theirs[one["ask"]](one["value"], one["digits"]), one


def test_a_lowered_answer_would_be_seen() -> None:
    found = {"answered_differently": [], "lowest": -2e-6, "highest": 0.0, "compared": 9, "cases": 9}
    with pytest.raises(AssertionError):
        within(found)
    assert math.isfinite(calculator.ours(calculator.references()[0]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_are_classic_and_load_nothing(name: str) -> None:
    """A module would not run from a file; whatever is loaded would not come with the book."""
    text = (STATIC / name).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|export)\b|import\(|fetch\(|XMLHttpRequest|https?://(?!www\.w3)",
                         text, re.MULTILINE)  # fmt: skip
    assert f'<script defer src="../_static/{name}">' in PAGE


def test_the_scripts_are_on_this_page_only() -> None:
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    others = [path for path in (ROOT / "book").glob("*.md") if path.name != "calculator.md"]
    for text in [config, *(path.read_text(encoding="utf-8") for path in others)]:
        assert not any(name in text for name in SCRIPTS)


def test_every_field_has_a_label_and_what_is_said_aloud_is_marked() -> None:
    labels = re.findall(r"<label.*?</label>", PAGE, re.DOTALL)
    inside = sum(len(re.findall(r"<(?:input|select)\b", label)) for label in labels)
    assert inside == len(re.findall(r"<(?:input|select)\b", PAGE)) > 10
    assert 'role="status" aria-live="polite"' in PAGE


def test_without_javascript_the_page_shows_python_that_runs() -> None:
    assert "needs JavaScript" in PAGE
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["plan"].epsilon() <= 8
