"""What the chapters on promises and observers say in figures, computed another way than there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, norm

import fldp
from fldp.audit import from_scores
from fldp.audit.findings import PRESUMPTIONS

HERE = Path(__file__).resolve().parent.parent.parent
AUDITS = 40
# The number of honest claims refuted at 95 % is exceeded with probability below 1e-4.
MOST_REFUTED = int(binom.isf(1e-4, AUDITS, 0.05))


def prose(chapter: str) -> str:
    cells = json.loads((HERE / "book" / f"{chapter}.ipynb").read_text("utf-8"))["cells"]
    text = " ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return " ".join(text.split())


def refuted(method: str, delta: float) -> tuple[int, str]:
    """How often an honest claim is refuted: five answers at ε = 0.3 each keep 1.5 at every δ."""
    p, count = 1 / (1 + math.exp(-0.3)), 0
    verdict = ""
    for seed in range(AUDITS):
        rng = np.random.default_rng(seed)
        present, absent = rng.binomial(5, p, 2000), rng.binomial(5, 1 - p, 2000)
        found = from_scores(present, absent, delta=delta, method=method, claimed=1.5)
        count += found.violated
        verdict = found.verdict if found.violated else verdict
    return count, verdict


def test_the_gaussian_audit_refutes_an_honest_program_and_says_what_it_presumes() -> None:
    count, verdict = refuted("gdp", delta=1e-5)
    assert count > AUDITS / 2
    assert verdict == "REFUTED if the noise is Gaussian"
    assert "the noise is Gaussian" in PRESUMPTIONS["gdp"]
    assert "A Gaussian audit is a bound only if the noise is Gaussian." in (
        prose("what-the-observer-can-do")
    )


def test_counting_errors_spares_the_honest_program() -> None:
    count, _ = refuted("clopper-pearson", delta=1e-5)
    assert count <= MOST_REFUTED


@pytest.mark.parametrize(("k", "epsilon"), [(1, 8.0), (2, 20.6), (3, 37.1)])
def test_a_group_of_k_pays_more_than_k_times_a_large_epsilon(k: int, epsilon: float) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    assert plan.group(k) == pytest.approx(epsilon, abs=0.05)
    assert k == 1 or plan.group(k) > 8.0 * k


def test_three_answers_reach_a_point_that_one_does_not() -> None:
    p, reached = 0.75, {}
    for answers in (1, 3):
        yeses = np.arange(answers, -1, -1)
        alpha = np.append(0, np.cumsum(binom.pmf(yeses, answers, 1 - p)))
        beta = np.append(1, 1 - np.cumsum(binom.pmf(yeses, answers, p)))
        reached[answers] = np.interp(0.1, alpha, beta) <= 0.4
    assert reached == {1: False, 3: True}
    assert "$(0.1, 0.4)$" in prose("what-the-observer-can-do")


def test_the_lines_of_the_opening_touch_the_curve_where_errors_are_rare() -> None:
    mu = fldp.accounting.gaussian_mu(8.0, delta=1e-3)
    cut = (8.0 + mu**2 / 2) / mu  # where the likelihood ratio is e^8
    alpha, beta = norm.sf(cut), norm.cdf(cut - mu)
    assert alpha < 1e-5
    assert math.exp(8.0) * alpha + beta == pytest.approx(1 - 1e-3, abs=1e-6)
    assert norm.cdf(mu / 2) == pytest.approx(0.85, abs=5e-3)
