"""The chapter on the clip norm: its rule converges, the one that it warns of does not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import fldp

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "the-clip-norm.ipynb"
ROUNDS = 60


def source(words: str) -> str:
    """The code cell that has these words in it."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return next(text for text in code if words in text)


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    """The names that the chapter's cells define for its rule."""
    scope: dict[str, Any] = {"math": math, "torch": torch, "m": 120}
    for words in ("def follow(", "def within(", "def path("):
        exec(source(words), scope)
    return scope


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_counting_those_within_leads_to_the_median(chapter: dict[str, Any], start: float) -> None:
    found = chapter["path"](start, chapter["within"], rounds=ROUNDS)
    assert found[-1] == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("start", [0.9, 1.1])
def test_counting_those_beyond_leads_away(chapter: dict[str, Any], start: float) -> None:
    found = chapter["path"](start, chapter["beyond"], rounds=ROUNDS)
    assert not 0.01 < found[-1] < 100


def test_the_rule_is_the_one_of_the_package(chapter: dict[str, Any]) -> None:
    rng, norms = torch.Generator().manual_seed(3), torch.linspace(0.2, 2.0, 120)
    each = fldp.AdaptiveClip(initial=0.7, acceleration=1.0)
    ours = chapter["follow"](0.7, norms, rng, chapter["within"], sigma_b=0.0)
    bits = ((norms <= each.norm).float() - 0.5).sum().item()
    each.observe(bits, 120)
    assert ours == pytest.approx(each.norm)


def test_signal_over_noise_has_the_plans_ceiling() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    scope: dict[str, Any] = {"math": math, "torch": torch}
    scope |= {"m": plan.cohort, "z": plan.noise_multiplier, "d": 650}
    exec(source("def clipped("), scope)
    exec(source("def forecast("), scope)
    same = torch.ones(50, 650)
    assert scope["forecast"](same, 0.1) == pytest.approx(plan.snr(650))
    assert scope["forecast"](same, 2.0) == pytest.approx(plan.snr(650))
    mixed = torch.randn(50, 650, generator=torch.Generator().manual_seed(0))
    assert scope["forecast"](mixed, 0.1) < plan.snr(650)


def test_noise_at_the_next_clip_is_worth_what_the_chapter_says() -> None:
    """Where nobody is clipped the next C is exp(-0.1) times this one, and so is the multiplier."""
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    each = fldp.AdaptiveClip(initial=1.0, acceleration=1.0)
    each.observe(60.0, 120)
    late = plan.noise_multiplier * each.norm
    paid = fldp.epsilon(noise_multiplier=late, delta=1e-3, rounds=60, sampling_rate=0.25)
    assert paid == pytest.approx(9.48, abs=0.01)
