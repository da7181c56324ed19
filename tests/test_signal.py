"""Signal to noise of a release, and what reaches a target."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from fldp.accounting.filters import fractional
from fldp.accounting.fitting import banded
from fldp.plan import PrivacyPlan, calibrate
from fldp.plan.signal import lasting

BASE = {"epsilon": 8.0, "delta": 1e-3, "rounds": 60, "clients": 480, "cohort": 120}


def test_the_noise_of_m_messages_adds_up_under_local_trust() -> None:
    central = calibrate(**BASE)
    local = calibrate(**BASE, trust="local")
    assert central.snr(100) == pytest.approx(120 / (central.noise_multiplier * 10))
    assert local.snr(100) == pytest.approx(math.sqrt(120) / (local.noise_multiplier * 10))


@pytest.mark.parametrize("ask", [lambda plan: plan.snr(0), lambda plan: plan.needed(0.0, 10)])
def test_what_is_no_ratio_or_dimension_is_refused(ask) -> None:
    with pytest.raises(ValueError, match="give a "):
        ask(calibrate(**BASE))


@pytest.mark.parametrize("trust", ["central", "distributed", "local"])
def test_needed_reaches_the_target_and_no_less(trust: str) -> None:
    settings = BASE | {"trust": trust, "min_survivors": 9 if trust == "distributed" else None}
    plan = calibrate(**settings)
    target = 0.8 * calibrate(**settings | {"cohort": 480}).snr(650)
    found = plan.needed(target, 650)
    m = found["cohort"]
    at = [calibrate(**settings | {"cohort": k}).snr(650) for k in (m - 1, m)]
    assert at[0] < target <= at[1] * 1.001
    wider = dataclasses.replace(plan, clients=found["clients"], cohort=found["clients"] / 4)
    assert wider.snr(650) >= target * (1 - 1e-9)
    assert plan.needed(100 * target, 650)["cohort"] is None


def limited(**changes: Any) -> PrivacyPlan:
    facts: dict[str, Any] = {
        "epsilon": 2.0, "delta": 1e-3, "rounds": 64, "clients": 480, "sampling": "none",
        "separation": 8,
    }  # fmt: skip
    return calibrate(**facts | changes)


def test_noise_that_cancels_counts_as_what_the_sums_keep() -> None:
    plan = limited(correlation=fractional(6))
    assert lasting(limited()) == lasting(calibrate(**BASE)) == 1
    # By hand: rows of the prefix sums of C⁻¹, beside those of independent noise.
    sums = np.cumsum(fractional(6).inverse(64))
    rows = [np.linalg.norm(sums[:t]) for t in range(1, 65)]
    ratio = np.linalg.norm(rows) / np.linalg.norm(np.sqrt(np.arange(1, 65)))
    assert lasting(plan) == pytest.approx(ratio)
    assert plan.snr(650) == pytest.approx(60 / (plan.noise_multiplier * ratio * math.sqrt(650)))
    # At the same ε: more noise in a round, and less in the model.
    assert plan.noise_multiplier > limited().noise_multiplier
    assert plan.snr(650) > limited().snr(650)


def test_what_is_needed_counts_it_as_well() -> None:
    plan = limited(cohort=10, correlation=fractional(6))
    target = 3.49 * plan.snr(650)
    found = plan.needed(target, 650)
    assert found == {"cohort": 35, "clients": 1676}
    for cohort, enough in ((34, False), (35, True)):
        other = limited(cohort=cohort, correlation=fractional(6))
        assert (other.snr(650) >= target * (1 - 1e-9)) == enough


@pytest.mark.slow
def test_so_does_the_smallest_cohort_of_turns_by_coins() -> None:
    coins = {"sampling": "poisson", "correlation": banded(64, 8, 8, bands=4)}
    target = 0.8 * limited(cohort=60, **coins).snr(650)
    m = limited(cohort=20, **coins).needed(target, 650)["cohort"]
    assert isinstance(m, int)
    at = [limited(cohort=cohort, **coins).snr(650) for cohort in (m - 1, m)]
    assert at[0] < target <= at[1] * 1.001


def test_no_cohort_is_enough_where_there_are_more_turns_than_clients() -> None:
    """It was a raw IndexError: not one client comes to each round."""
    few = {"epsilon": 8.0, "delta": 1e-3, "rounds": 20, "clients": 5, "cohort": 0.4}
    plan = calibrate(**few, sampling="poisson", separation=10, correlation="banded")
    assert plan.needed(1.0, 1000)["cohort"] is None
