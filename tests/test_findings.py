"""Results in words: rounded against the claim of the audit, with presumptions and a count."""

from __future__ import annotations

import json
import math
import re

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fldp
from fldp import audit
from fldp.audit.findings import PRESUMPTIONS, AuditResult, Session

matplotlib.use("Agg")


def test_results_are_drawn_and_stored() -> None:
    rng = np.random.default_rng(6)
    found = audit.from_scores(rng.normal(1, 1, 99), rng.normal(0, 1, 99), delta=0.01, claimed=3.0)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["violated"] is False
    assert stored["presumption"] == PRESUMPTIONS["clopper-pearson"]
    assert "Not tested" in found.statement()
    assert found.curve[:, 0].tolist() == [0, 0]
    assert found.curve[:, -1].tolist() == [1, 1]
    assert len(found.plot().get_lines()) == 3
    plan = fldp.calibrate(epsilon=3.0, delta=0.01, rounds=1, clients=10)
    lines = found.plot(plan=plan).get_lines()
    assert lines[-1].get_label() == "the plan's curve"
    assert lines[-1].get_ydata()[-1] == 1


@given(st.floats(1e-3, 50), st.floats(1e-3, 50))
def test_a_printed_bound_is_never_above_the_bound_nor_a_claim_below_it(
    bound: float, claimed: float
) -> None:
    result = AuditResult("clopper-pearson", 1e-5, 0.95, 100, bound, claimed=claimed)
    text = result.statement()
    found = re.search(r"ε is at least (\S+) at", text)
    said = re.search(r"The claim ε ≤ (\S+) is", text)
    assert found is not None
    assert said is not None
    assert float(found[1]) <= bound
    assert float(said[1]) >= claimed
    assert ("REFUTED" in text) == (bound > claimed)


def test_every_method_says_what_it_presumes() -> None:
    for method, presumption in PRESUMPTIONS.items():
        result = AuditResult(method, 1e-5, 0.95, 100, 2.0, 2.0, claimed=1.0)
        assert f"presumes that {presumption}" in result.statement()
    gaussian = [AuditResult(m, 1e-5, 0.95, 1, 2.0, claimed=1.0) for m in PRESUMPTIONS if "gdp" in m]
    assert len(gaussian) == 3
    assert {r.verdict for r in gaussian} == {"REFUTED if the noise is Gaussian"}


@pytest.mark.slow
def test_a_session_counts_and_shares_the_error() -> None:
    with Session(planned=4) as session:
        assert session.level == pytest.approx(0.9875)
        for shift in (0.0, 5.0):
            scores = np.linspace(0, 1, 300)
            found = audit.from_scores(
                scores + shift, scores, delta=0.0, confidence=session.level, claimed=1.0
            )
        plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=8)

        def fn(updates: object, generator: object) -> object:
            return fldp.aggregate(updates, plan, generator=generator)

        # Five canaries, one audit: what an audit calls itself is not counted again.
        audit.pipeline(fn, plan, like=8, runs=50, confidence=session.level)
    assert [r.number for r in session.results] == [1, 2, 3]
    assert session.joint == pytest.approx(1 - 3 * 0.0125)
    assert found.number == 2
    assert "audit 2 of a series" in found.statement()
    text = session.statement()
    assert "3 audits were made, 1 of them above the claim" in text
    assert "Audit 2: REFUTED" in text
    after = audit.from_scores(scores + 5, scores, delta=0.0)
    assert after.number is None
    assert len(session.results) == 3


def test_unplanned_audits_wear_the_confidence_out() -> None:
    session = Session(planned=1)
    for _ in range(30):
        session.add(AuditResult("one-run", 1e-5, 0.95, 1, 0.5, claimed=1.0))
    assert session.joint == 0
    assert "Only 1 were planned" in session.statement()


def test_what_is_not_finite_is_stored_as_none() -> None:
    stored = AuditResult("one-shot", 1e-5, math.nan, 1, estimate=1.0).to_dict()
    assert stored["confidence"] is None
    assert stored["ceiling"] is None
    assert "curve" not in stored


@pytest.mark.parametrize("claimed", [math.nan, -1.0, "1", [1.0], True, 1j, 10**400])
def test_u13_a_claim_that_is_no_epsilon_gets_a_sentence(claimed: object) -> None:
    with pytest.raises(ValueError, match="claimed is"):
        AuditResult("clopper-pearson", 1e-5, 0.95, 10, 1.0, claimed=claimed)  # type: ignore[arg-type]
    assert not AuditResult("clopper-pearson", 1e-5, 0.95, 10, 1.0, claimed=math.inf).violated
