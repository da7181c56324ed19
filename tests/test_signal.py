"""Signal to noise of a release, and what reaches a target."""

from __future__ import annotations

import dataclasses
import math

import pytest

from fldp.plan import calibrate

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
