"""plan.extrapolation: both ε, and which of them is a guarantee."""

from __future__ import annotations

import re

import pytest

import fldp


def test_the_noise_on_the_mean_and_the_rate_stay() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120)
    both = fldp.extrapolate(plan, clients=4800)
    small, large = both.simulated, both.federation
    assert small == plan
    assert large.sampling_rate == small.sampling_rate
    ratio = large.noise_multiplier / large.denominator
    assert ratio == pytest.approx(small.noise_multiplier / small.denominator)
    assert large.epsilon() < small.epsilon()
    assert "SIMULATION" in both.statement()
    assert max(map(len, both.statement().splitlines())) <= 76


@pytest.mark.parametrize("clients", [150, 160, 300, 4800])
def test_p12_both_pairs_are_rounded_up(clients: int) -> None:
    plan = fldp.calibrate(epsilon=1.0, delta=clients**-1.1, rounds=10, clients=clients)
    both = fldp.extrapolate(plan, clients=7 * clients)
    found = re.findall(r"ε = (\S+) \(δ = ([^,]+),", str(both))
    for ran, printed in zip((both.simulated, both.federation), found, strict=True):
        assert float(printed[0]) >= ran.epsilon()
        assert float(printed[1]) >= ran.delta


def test_a_larger_local_federation_keeps_the_noise_on_the_mean() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=400, trust="local")
    larger = fldp.extrapolate(plan, clients=1600).federation
    assert larger.snr(100) == pytest.approx(plan.snr(100))
    assert larger.noise_multiplier == pytest.approx(2 * plan.noise_multiplier)


def test_survivors_and_cap_grow_with_the_federation() -> None:
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120, trust="distributed",
        min_survivors=119, cap=150,
    )  # fmt: skip
    larger = fldp.extrapolate(plan, clients=777).federation
    assert larger.min_survivors == 192
    assert larger.cap == 243
    assert larger.snr(100) == pytest.approx(plan.snr(100))


def test_a_smaller_population_is_refused() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120)
    with pytest.raises(ValueError, match="clients is 100"):
        fldp.extrapolate(plan, clients=100)


@pytest.mark.parametrize("clients", [481, 777, 1001, 48_000])
def test_p12_the_printed_noise_gives_the_printed_epsilon(clients: int) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=480, cohort=120)
    both = fldp.extrapolate(plan, clients=clients)
    shown = re.search(r"\(z = ([^)]*)\)", both.statement())
    assert shown is not None
    assert float(shown[1]) >= both.federation.noise_multiplier


@pytest.mark.parametrize(("few", "many"), [(51, 120_479), (49, 10**6 + 1)])
def test_a06_everybody_stays_everybody(few: int, many: int) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=1, clients=few)
    assert fldp.extrapolate(plan, clients=many).federation.cohort == many


def test_of_everybody_no_more_collude_than_come() -> None:
    """58/14 of 14 uploads are 58; a rounded factor made one colluder more, and was refused."""
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=1, clients=14, trust="distributed",
        min_survivors=7, colluders=7,
    )  # fmt: skip
    larger = fldp.extrapolate(plan, clients=58).federation
    assert (larger.min_survivors, larger.colluders) == (29, 29)
