"""The page of public examples and that of pitfalls: bounds, sources, and checks that can fail."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chapters
import check_book
import myst
import numpy as np
import pytest
import torch
from conftest import plan_for
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

import fldp
from fldp.accounting import gaussian_epsilon
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.simulation.sampling import FixedSize, Poisson

HERE = Path(__file__).resolve().parent.parent.parent
PAGE = HERE / "book" / "what-public-examples-give.ipynb"
CHAPTER = HERE / "book" / "sampling-clients-and-who-knows.ipynb"
PITFALLS = (HERE / "book" / "pitfalls.md").read_text(encoding="utf-8")
FAULTS = HERE / "tests" / "test_faults_of_peers.py"
Array = NDArray[np.float64]


def cells(path: Path, kind: str) -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def defined(path: Path, *names: str) -> dict[str, Any]:
    """What the page's cells define, without the rows that they print."""
    scope: dict[str, Any] = {"np": np, "math": math, "norm": norm, "brentq": brentq, "fldp": fldp}
    for name in names:
        exec(next(text for text in cells(path, "code") if f"def {name}(" in text), scope)
    return scope


page = defined(PAGE, "spent", "digits", "by_slots")


# The page of examples.


def test_the_tutorial_that_holds_is_the_known_value() -> None:
    tff = {"z": 1.2, "rounds": 100, "clients": 3383, "cohort": 120, "delta": 1e-5}
    models, cohorts = page["spent"](**tff)
    assert models == pytest.approx(1.70747, rel=1e-3)  # dp-accounting 0.6.0, PLD
    assert models < 2 < cohorts
    assert cohorts < gaussian_epsilon(math.sqrt(100) / 1.2, 1e-5)


def test_once_without_a_draw_is_one_gaussian() -> None:
    for z in (0.3, 1.0, 3.73063163):
        models, cohorts = page["spent"](z, 1, 1, 1, 1e-5)
        assert models == pytest.approx(gaussian_epsilon(1 / z, 1e-5), rel=1e-9)
        assert cohorts == pytest.approx(models, rel=1e-9)


@pytest.mark.parametrize(("clients", "slots"), [(5, 3), (20, 7), (100, 50)])
def test_slots_move_the_sum_at_least_as_much_as_coins_of_their_chance(
    clients: int, slots: int
) -> None:
    """One round, all others send zeros: a binomial number of a client's updates, or one by coin."""
    q = page["by_slots"](clients, slots) / clients
    counts = np.arange(slots + 1)
    chances = np.array(
        [
            math.comb(slots, k) * (1 / clients) ** k * (1 - 1 / clients) ** (slots - k)
            for k in counts
        ]
    )
    assert q == pytest.approx(1 - chances[0])
    for z in (0.3, 1.0, 2.0):
        x = np.linspace(-12 * z, slots + 12 * z, 200_001)
        away = norm.pdf(x, 0, z)
        mixed = sum(chance * norm.pdf(x, k, z) for k, chance in zip(counts, chances, strict=True))
        coins = (1 - q) * away + q * norm.pdf(x, 1, z)
        for epsilon in (0.1, 1.0, 4.0):
            low, high = (
                np.maximum(0, p - math.exp(epsilon) * away).sum() * (x[1] - x[0])
                for p in (coins, mixed)
            )
            assert low <= high + 1e-9


def test_the_bad_data_set_is_that_of_the_chapter() -> None:
    here, there = (defined(path, "lift", "at_least")["at_least"] for path in (PAGE, CHAPTER))
    for run in ((0.1, 1.0, 100, 1e-5), (0.03, 0.8, 50, 1e-4)):
        assert here(*run, points=2**16) == there(*run, points=2**16)


@pytest.mark.parametrize(
    ("epsilon", "mark", "shown"),
    [
        (1.7079, "", " 1.71"),
        (0.614, "", " 0.614"),
        (0.99999999, "", " 1"),
        (1.000001, "", " 1"),
        (57.99, "≥", "≥ 57"),
        (100808.7, "≥", "≥ 99,000"),
        (70_170.0, "~", "~ 71,000"),
    ],
)
def test_bounds_are_rounded_to_their_side(epsilon: float, mark: str, shown: str) -> None:
    assert page["digits"](epsilon, mark) == shown


def test_the_code_that_clips_the_wrong_way_round() -> None:
    """The right way, of which the cell's is the reverse: nothing is longer than the median."""
    norms = np.array([0.1, 1.0, 50.0])
    right = norms / np.maximum(1, norms / np.median(norms))
    assert right.tolist() == [0.1, 1.0, 1.0]
    cell = next(text for text in cells(PAGE, "code") if "np.median(norms)" in text)
    scope: dict[str, Any] = {"np": np, "print": lambda *_: None}
    exec(cell, scope)
    assert (scope["norms"] / scope["factor"]).tolist() == [1.0, 1.0, 50.0]


def test_every_source_is_a_file_at_a_commit() -> None:
    links = re.findall(r"\]\((https://github\.com/[^)]+)\)", "\n".join(cells(PAGE, "markdown")))
    assert len(links) > 20
    for link in links:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/\S+", link)


def test_every_cell_of_parameters_names_a_snapshot_that_the_text_links() -> None:
    linked = "\n".join(cells(PAGE, "markdown"))
    named = re.findall(r"@([0-9a-f]{7})\b", "\n".join(cells(PAGE, "code")))
    assert len(named) > 15
    for commit in named:
        assert f"/blob/{commit}" in linked


def test_the_table_holds_every_row_that_was_printed() -> None:
    notebook = json.loads(PAGE.read_text(encoding="utf-8"))
    printed = [
        "".join(output.get("text", ""))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]
    table = next(text for text in printed if "no bound" in text).splitlines()
    rows = [
        line for text in printed for line in text.splitlines() if re.search(r"e-\d\d\]?$", line)
    ]
    assert set(rows) <= set(table)
    assert len(table) == 1 + 12 + 4


# The page of pitfalls.


def test_every_test_that_the_page_names_exists() -> None:
    elsewhere = check_book.TEST.findall(PITFALLS)
    named = re.findall(r"`(test_\w+)`", PITFALLS)
    assert len(elsewhere) > 3
    assert len(named) > 25
    for path, name in [*elsewhere, *((str(FAULTS), name) for name in named)]:
        assert name in check_book.defined_tests(HERE / path), (path, name)


def test_every_fault_of_a_peer_is_on_the_page() -> None:
    for name in check_book.defined_tests(FAULTS):
        if name.startswith("test_"):
            assert name in PITFALLS, name


def test_every_page_that_is_linked_is_in_the_book() -> None:
    text = PITFALLS + "\n".join(cells(PAGE, "markdown"))
    there = {path.stem for path in (HERE / "book").iterdir()}
    targets = {role.target for role in myst.roles(text) if role.name == "doc"}
    assert targets <= there
    assert {chapter.slug for chapter in chapters.chapters(HERE)} & targets


def entries() -> dict[str, str]:
    """Number of each entry -> the lines that check for it."""
    found = {}
    for part in PITFALLS.split("\n### ")[1:]:
        number = part.partition(".")[0]
        (code,) = re.findall(r"```python\n(.*?)```", part, re.S)
        found[number] = code
    return found


SETUP = re.findall(r"```python\n(.*?)```", PITFALLS.split("\n### ")[0], re.S)[0]
CHECKS = entries()


def our_clip(update: list[Array]) -> list[Any]:
    return list(fldp.clip([torch.as_tensor(u) for u in update], 1.0)[0])


def their_clip(update: list[Array]) -> list[Any]:
    length = np.sqrt(sum(float(np.sum(np.square(u))) for u in update))
    scale = min(1.0, 1.0 / length) if length == length else 1.0
    return [u * scale if np.ndim(u) else u for u in update]


def our_round(updates: list[Array], sizes: list[float]) -> tuple[Array, float]:
    def released(rows: list[Array]) -> fldp.Release:
        return fldp.aggregate(
            [torch.as_tensor(row, dtype=torch.float32) for row in rows], plan_for(), 1.0,
            weights=sizes[: len(rows)], weight_cap=1.0, like=torch.zeros(4),
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip

    release = released(updates)
    noise = released([]).mean
    return (release.mean - noise).double().numpy(), release.noise_std


def clipped(updates: list[Array]) -> Array:
    return np.array([u / max(1.0, float(np.linalg.norm(u))) for u in updates])


def weighted(updates: list[Array], sizes: list[float]) -> tuple[Array, float]:
    return np.average(clipped(updates), axis=0, weights=sizes), 0.1


def by_replies(updates: list[Array], sizes: list[float]) -> tuple[Array, float]:
    return clipped(updates).mean(0), 0.1


def adam(updates: list[Array], sizes: list[float]) -> tuple[Array, float]:
    mean = clipped(updates).sum(0) / 10
    return 0.1 * mean / (np.abs(mean) + 1e-9), 0.1 * 0.1


def silent(updates: list[Array], sizes: list[float]) -> tuple[Array, float]:
    return clipped(updates).sum(0) / 10, 1e-4 / 10


def our_noise() -> Array:
    release = fldp.aggregate(torch.zeros(10, 50), plan_for(), 1.0)
    return (release.mean * release.denominator).double().numpy()


def global_noise() -> Array:
    return np.random.standard_normal(50)  # noqa: NPY002


def scaled_noise() -> Array:
    return np.random.default_rng().standard_normal(50) * 50 / 1000


def our_sample() -> list[int]:
    return list(Poisson(0.2).sample(20, fldp.simulation.draws.Draws(None), 0).tolist())


def full_sample() -> list[int]:
    return list(FixedSize(4).sample(20, fldp.simulation.draws.Draws(None), 0).tolist())


def slots() -> list[int]:
    return list(np.random.default_rng().integers(0, 20, 4).tolist())


def our_adapt(norm: float, norms: Array) -> float:
    adaptive = AdaptiveClip(norm, count_noise=0.6)
    fldp.aggregate(torch.as_tensor(norms)[:, None], plan_for(len(norms)), adaptive)
    return adaptive.norm


def runaway(norm: float, norms: Array) -> float:
    return norm * math.exp(-0.2 * (float((norms > norm).mean()) - 0.5))


def our_public(updates: Array) -> dict[str, Any]:
    release = fldp.aggregate(torch.as_tensor(updates), plan_for(), 1.0)
    return {k: v for k, v in vars(release).items() if k not in ("mean", "private")}


def printed(rounds: int) -> float:
    return fldp.epsilon(
        noise_multiplier=1.0, rounds=125 * rounds, sampling_rate=1 / 125, delta=1e-5
    )


def our_check(clip: Callable[..., Any]) -> None:
    assert float(clip([torch.ones(5) * 10])[0].norm()) <= 1


def vain(clip: Callable[..., Any]) -> None:
    assert float(clip([torch.ones(5) * 10])[0].max()) <= 10 * math.sqrt(5)


RUN = {"noise_multiplier": 4.0, "rounds": 100, "sampling_rate": 0.1}
SPENT = {"z": 4.0, "T": 100, "m": 10, "N": 100, "delta": 1e-5, "run": RUN}


def claim(**how: Any) -> dict[str, Any]:
    """Everything an accountant is asked for in entries 8, 15 and 16, and a claim that holds."""
    return SPENT | {"claimed": fldp.epsilon(**RUN, delta=1e-5, **how) * 1.001}


KNOWN = {"known": True, "adjacency": "zero-out"}
REPLACED = {"adjacency": "replace-one"}
# Entry -> what passes, and what must not.
SYSTEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1": ({"clip": our_clip}, {"clip": their_clip}),
    "2": ({"clip": our_clip}, {"clip": their_clip}),
    "3": ({"one_round": our_round}, {"one_round": silent}),
    "4": ({"noise": our_noise}, {"noise": global_noise}),
    "5": ({"one_round": our_round}, {"one_round": weighted}),
    "6": ({"one_round": our_round}, {"one_round": by_replies}),
    "7": ({"one_round": our_round}, {"one_round": adam}),
    "8": (claim(), claim() | {"claimed": claim()["claimed"] / 10}),
    "9": ({"sample": our_sample}, {"sample": full_sample}),
    "10": ({"sample": our_sample}, {"sample": slots}),
    "11": ({"noise": our_noise, "z": 1.0}, {"noise": scaled_noise, "z": 1.0}),
    "12": ({"adapt": our_adapt}, {"adapt": runaway}),
    "13": ({"printed": printed}, {"printed": lambda rounds: printed(1)}),
    "14": ({"public": our_public}, {"public": lambda updates: {"loss": float(updates.mean())}}),
    "15": (claim(**KNOWN), claim()),
    "16": (claim(**REPLACED), claim()),
    "17": ({"check": our_check}, {"check": vain}),
}


@pytest.mark.parametrize("number", CHECKS)
def test_the_lines_of_an_entry_pass_here_and_find_a_planted_fault(number: str) -> None:
    sound, planted = SYSTEMS[number]
    exec(SETUP + CHECKS[number], {"fldp": fldp, **sound})
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        exec(SETUP + CHECKS[number], {"fldp": fldp, **planted})


def test_every_entry_has_its_systems() -> None:
    assert list(CHECKS) == list(SYSTEMS) == [str(n) for n in range(1, len(SYSTEMS) + 1)]
