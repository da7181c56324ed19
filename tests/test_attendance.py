"""Limits on participations: what a plan makes of them, and that a run holds to them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fldp
from fldp.accounting import Event, Filtered, delta_of, epsilon_of, gaussian_mu
from fldp.accounting.filters import Filter, fractional, independent
from fldp.accounting.fitting import banded, blt
from fldp.plan import PrivacyPlan, attendance
from fldp.plan.ledger import Ledger, grouped
from fldp.plan.report import report
from fldp.simulation.attendance import Attendance


def limited(**changes: Any) -> PrivacyPlan:
    facts: dict[str, Any] = {
        "epsilon": 8.0, "delta": 1e-3, "rounds": 64, "clients": 480, "sampling": "none",
        "separation": 8, "adjacency": "zero-out",
    }  # fmt: skip
    return fldp.calibrate(**facts | changes)


# A filter that is no fit, and takes no time.
NOISE = Filter((1.0, -0.8), (1.0, -0.2))


def test_a_client_pays_for_its_participations_and_not_for_all_rounds() -> None:
    """64 rounds, every eighth: z of 8 and not of 64."""
    every = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=64, clients=480, cohort=60,
                           sampling="none")  # fmt: skip
    assert every.noise_multiplier == pytest.approx(3.840, abs=1e-3)
    assert limited().noise_multiplier == pytest.approx(1.3577, abs=1e-4)
    assert limited().noise_multiplier == pytest.approx(math.sqrt(8) / gaussian_mu(8.0, 1e-3))


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
def test_z_is_sensitivity_over_mu(adjacency: str) -> None:
    plan = limited(correlation=NOISE, adjacency=adjacency)
    moved = NOISE.sensitivity(64, 8, 8) * (2 if adjacency == "replace-one" else 1)
    assert plan.noise_multiplier == pytest.approx(moved / gaussian_mu(8.0, 1e-3), rel=1e-9)
    assert 7.99 < plan.epsilon() <= 8.0
    assert plan.gdp_mu == pytest.approx(gaussian_mu(8.0, 1e-3), rel=1e-9)
    assert plan.zcdp == pytest.approx(plan.gdp_mu**2 / 2)


def test_a_deployments_published_guarantee_is_reproduced() -> None:
    """Gboard es-ES: ρ = .1506840, of k = 3 at a normalised z, is ε = 3.4240 at δ = 1e-10."""
    rho = 0.1506840
    z = math.sqrt(3 / (2 * rho))
    plan = PrivacyPlan(
        noise_multiplier=z, delta=1e-10, rounds=1000, clients=10**6, cohort=6500, sampling="none",
        trust="central", adjacency="zero-out", accountant="pld", target_epsilon=4.0,
        separation=300, participations=3, correlation=independent(),
    )  # fmt: skip
    assert z == pytest.approx(3.1551, abs=1e-4)
    assert plan.zcdp == pytest.approx(rho)
    assert plan.epsilon() == pytest.approx(3.4240, abs=5e-5)


def test_the_epsilon_of_a_run_that_stopped_is_that_of_its_rounds() -> None:
    plan = limited(correlation=NOISE)
    for rounds in (1, 8, 9, 40, 64):
        moved = NOISE.sensitivity(rounds, 8, 8)
        expected = epsilon_of([Event(plan.noise_multiplier / moved)], 1e-3, "zero-out")
        assert plan.epsilon(rounds) == pytest.approx(expected, rel=1e-12)
    assert plan.epsilon(0) == 0


def test_the_second_clients_round_is_what_costs() -> None:
    # A client that comes once pays for one round however many there are.
    once = limited(participations=1, correlation=None, cohort=7)
    assert once.epsilon(1) == once.epsilon(64)
    assert limited().epsilon(8) < limited().epsilon(9)


def test_who_knows_the_cohort_learns_no_more() -> None:
    plan = limited(correlation=NOISE)
    known = plan.cohort_known()
    assert known["epsilon"] == known["epsilon_bound"] == known["epsilon_all"] == plan.epsilon()
    assert (known["mean"], known["bound"], known["rounds"]) == (8, 8, 8)
    # Under coins they learn more.
    poisson = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=64, clients=480, cohort=60)
    assert poisson.cohort_known()["epsilon"] > 2 * poisson.epsilon()


def test_a_plan_keeps_the_very_coefficients() -> None:
    plan = limited(correlation=blt(64, 8, 8, 1))
    text = plan.to_json()
    again = PrivacyPlan.from_json(text)
    assert again == plan
    assert hash(again) == hash(plan)
    assert json.loads(text) == plan.to_dict()
    assert again.correlation == blt(64, 8, 8, 1)
    assert again.epsilon() == plan.epsilon()


def test_a_plan_without_limits_is_written_as_ever() -> None:
    """Old plans stay readable, and new ones are read by who knows nothing of limits."""
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    fields = plan.to_dict()
    assert not {"separation", "participations", "correlation"} & set(fields)
    assert PrivacyPlan.from_dict(fields) == plan
    named = fields | {"separation": None, "participations": None, "correlation": None}
    assert PrivacyPlan.from_dict(named) == plan


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"correlation": {"num": [1.0], "den": [1.0, 0.1, 1.0] + [0.9] * 20}}, "rise"),
        ({"correlation": {"num": [1.0], "den": [1.0, -0.5] + [0.0] * 20 + [0.1]}}, "rise"),
        ({"correlation": {"num": [1.0, math.nan], "den": [1.0]}}, "holds nan"),
        ({"correlation": {"num": [0.0], "den": [1.0]}}, "begins with 0"),
        ({"correlation": {"num": [1.0, -3.0], "den": [1.0]}}, "rise|outgrow"),
        ({"correlation": {"num": [1.0]}}, "a filter is"),
        ({"correlation": "blt"}, "a filter is 'blt'"),
        ({"correlation": None}, "correlation is None"),
        ({"separation": None}, "separation is None"),
        ({"participations": None}, "participations is None"),
        ({"participations": 0}, "participations is 0"),
        ({"separation": 2.5}, "separation is 2.5"),
        ({"sensitivity": 0.1}, "unknown fields"),
    ],
)
def test_a_hostile_plan_is_refused(changes: dict[str, Any], told: str) -> None:
    fields = limited().to_dict() | changes
    with pytest.raises(ValueError, match=told):
        PrivacyPlan.from_dict(fields)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trust": "distributed", "min_survivors": 40}, "trust='distributed'"),
        ({"trust": "local"}, "trust='local'"),
        ({"sampling": "fixed", "cohort": 60, "adjacency": "replace-one"}, "sampling='fixed'"),
        ({"sampling": "poisson", "cohort": 60, "cap": 90}, "leave the cap out"),
        ({"sampling": "poisson", "cohort": 30, "participations": 3}, "separation alone"),
        ({"sampling": "poisson", "cohort": 30, "correlation": NOISE}, "coins hide a client only"),
        ({"cohort": 100}, "at most 60 a round"),
        ({"participations": 4, "cohort": 60}, "at most 30 a round"),
        ({"correlation": "tree"}, "correlation is 'tree'"),
        ({"correlation": 3}, "correlation is 3"),
        ({"separation": None, "correlation": "blt"}, "without a limit"),
        ({"separation": 0}, "separation is 0"),
        ({"participations": -1}, "participations is -1"),
        ({"correlation": Filter((1.0,), (1.0, 0.1, 1.0) + (1.0,) * 9)}, "rise"),
    ],
)
def test_what_does_not_go_with_limits_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        limited(**changes)


@pytest.mark.parametrize("trust", ["distributed", "local"])
@pytest.mark.parametrize("limit", [{"separation": 8}, {"participations": 3}])
def test_limits_are_of_central_trust_also_without_correlation(
    trust: str, limit: dict[str, int]
) -> None:
    shared = {"min_survivors": 40, "colluders": 2} if trust == "distributed" else {}
    facts: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-3, "rounds": 64, "clients": 480}
    told = rf"^separation is \d with trust='{trust}': .* use trust='central'$"
    with pytest.raises(ValueError, match=told):
        fldp.calibrate(**facts, **limit, **shared, trust=trust, sampling="none")
    # By hand, as well: there the noise of a client's participations is as large, and no more.
    by_hand = limited().to_dict() | {"trust": trust, **shared}
    with pytest.raises(ValueError, match=told):
        PrivacyPlan.from_dict(by_hand)
    # What distributed trust accounts for instead: all rounds, or the stated coins.
    plain = fldp.calibrate(**facts, **shared, trust=trust, cohort=60, sampling="none")
    assert plain.event.rounds == 1
    assert [event.rounds for event in plain.events()] == [64]


def test_what_is_not_said_follows() -> None:
    assert (limited().cohort, limited().participations) == (60, 8)
    assert limited(rounds=60).participations == 8
    assert limited(participations=5).participations == 5
    assert limited(participations=99).participations == 8
    few = limited(separation=None, participations=4)
    assert (few.separation, few.cohort) == (1, 30)
    assert limited().correlation == independent()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["independent", "fractional", "blt", "banded"])
def test_a_name_is_fitted_to_the_run(name: str) -> None:
    plan = limited(correlation=name)
    fitted = {
        "independent": independent(), "blt": blt(64, 8, 8), "banded": banded(64, 8, 8),
        "fractional": plan.correlation,
    }  # fmt: skip
    assert plan.correlation == fitted[name]
    assert plan.correlation is not None
    assert plan.epsilon() <= 8.0


@pytest.mark.slow
def test_accountants_of_opacus_see_one_gaussian() -> None:
    plan = limited(correlation=NOISE, accountant="rdp")
    assert plan.epsilon() <= 8.0
    exact = epsilon_of(plan.events(), plan.delta, plan.adjacency)
    assert exact <= plan.epsilon()


def test_the_statement_says_who_may_come_and_what_it_costs() -> None:
    told = " ".join(limited(correlation=NOISE).statement().split())
    assert "takes part at most 8 times, at least 8 rounds apart" in told
    assert "not for all 64 rounds" in told
    assert "correlated over the rounds by a filter of order 1" in told
    assert "std at least z·C" in told
    assert "and who took part, but no updates" in told
    assert "no client more often or sooner than stated" in told
    assert "at most once (" in " ".join(limited(participations=1).statement().split())
    fresh = " ".join(limited().statement().split())
    assert "Gaussian, fresh in each round, std z·C" in fresh
    assert "grid" not in fresh.split("It does not cover")[0]


def test_a_report_and_a_check_of_such_a_plan() -> None:
    plan = limited(correlation=NOISE)
    assert "8" in report(plan).to_markdown()
    assert plan.curve([8.0])[0] <= 1e-3
    assert plan.group(2) > plan.epsilon()
    assert plan.to_dp_accounting().events[0].count == 1


def test_noise_and_cohort_that_are_needed_follow_the_limits() -> None:
    plan = limited(correlation=NOISE)
    more = plan.needed(2 * plan.snr(100), 100)
    assert more["clients"] == 960
    assert more["cohort"] is None  # only an eighth may come


# --- Runs count by their names.


def event(rounds: int = 1, run: str = "a", **changes: Any) -> Filtered:
    facts: dict[str, Any] = {"participations": 2, "separation": 4}
    return Filtered(2.0, NOISE, rounds=rounds, run=run, **facts | changes)


def mu(*moved: float) -> float:
    return math.sqrt(sum(m**2 for m in moved)) / 2.0


def test_the_rounds_of_one_run_count_together() -> None:
    alone = epsilon_of([event(20)], 1e-5)
    assert epsilon_of([event()] * 20, 1e-5) == pytest.approx(alone, rel=1e-12)
    assert epsilon_of([event(8), event(12)], 1e-5) == pytest.approx(alone, rel=1e-12)
    # Not as if they were independent.
    assert alone > epsilon_of([Event(2.0, rounds=2)], 1e-5)


def test_a_second_run_is_counted_again() -> None:
    """Planted: a copy that merged runs would count k participations once."""
    moved = NOISE.sensitivity(20, 2, 4)
    both = epsilon_of([event(20), event(20, "b")], 1e-5)
    assert both == pytest.approx(epsilon_of([Event(1 / mu(moved, moved))], 1e-5), rel=1e-12)
    merged = epsilon_of([event(40)], 1e-5)
    assert both > 1.2 * merged


def test_events_without_a_name_are_not_added_up_by_guessing() -> None:
    with pytest.raises(ValueError, match="name no run"):
        epsilon_of([event(run=""), event(run="")], 1e-5)
    with pytest.raises(ValueError, match="name no run"):
        delta_of([event(run=""), event(3, run="")], 1.0)
    assert epsilon_of([event(5, run="")], 1e-5) > 0


def test_two_runs_without_a_name_are_not_one_long_run() -> None:
    plan = limited()
    whole = plan.events()
    assert len(grouped(whole * 2)) == 2
    with pytest.raises(ValueError, match="name no run"):
        plan.spent(whole * 2)
    with pytest.raises(ValueError, match="name no run"):
        plan.affords(whole * 2)


def test_a_ledger_takes_nothing_that_leaves_it_without_an_account(tmp_path: Path) -> None:
    (unnamed,) = limited().events(10)
    first = replace(unnamed, run="a")
    path = tmp_path / "spent"
    with Ledger(path, limited()) as ledger:
        for event in (first, unnamed, replace(first, rounds=2), replace(first, run="b")):
            ledger.record(event)
    with Ledger(path) as ledger:
        for event in (unnamed, replace(first, noise_multiplier=9.0)):
            with pytest.raises(ValueError, match=r"name no run|name the run 'a' and differ"):
                ledger.record(event)
        assert len(ledger.events) == 4
        # Two participations in each of three runs.
        six = Event(limited().noise_multiplier, rounds=6)
        assert ledger.epsilon() == pytest.approx(epsilon_of([six], 1e-3, "zero-out"))


@pytest.mark.parametrize("changes", [
    {"noise_multiplier": 9.0}, {"participations": 1}, {"filter": NOISE},
])  # fmt: skip
def test_one_run_has_one_noise(changes: dict[str, Any]) -> None:
    first = replace(limited().events(10)[0], run="a")
    with pytest.raises(ValueError, match="name the run 'a' and differ"):
        epsilon_of([first, replace(first, **changes)], 1e-5, "add-or-remove")
    assert epsilon_of([first, replace(first, run="b", **changes)], 1e-5, "add-or-remove") > 0


def test_a_report_with_a_seed_counts_every_run(tmp_path: Path) -> None:
    plan = limited(sampling="poisson", cohort=30, correlation=independent())
    one, two = (replace(plan.events()[0], run=name) for name in "ab")
    found = []
    for runs in ([one], [one, two]):
        with Ledger(tmp_path / str(len(runs)), plan) as ledger:
            for event in runs:
                ledger.record(event)
            found.append(report(plan, ledger, participations=3).found[0].epsilon)
    assert found[0] == pytest.approx(plan.seeded_epsilon(3))
    moved = Event(plan.noise_multiplier, rounds=2 * 3)
    assert found[1] == pytest.approx(epsilon_of([moved], 1e-3, "zero-out"))


def test_coins_of_turns_are_not_recorded_where_they_are_seen(tmp_path: Path) -> None:
    coins = Filtered(2.0, independent(), 4, 5, rounds=20, run="a", sampling_rate=0.1)
    shared = fldp.calibrate(
        epsilon=4.0, delta=1e-5, rounds=20, clients=1000, cohort=100, sampling="none",
        trust="distributed", min_survivors=80,
    )  # fmt: skip
    with Ledger(tmp_path / "spent", shared) as ledger:
        with pytest.raises(ValueError, match="draws that nobody sees"):
            ledger.record(coins)
        ledger.record(replace(coins, known=True))


@pytest.mark.parametrize(("rate", "group"), [(1.0, 1), (1.0, 2), (0.1, 2)])
def test_correlated_noise_hides_no_participation_that_is_known(rate: float, group: int) -> None:
    """Planted: a run without coins forgot that its participations are known."""
    seen = Filtered(2.0, independent(), 4, 5, rounds=20, sampling_rate=rate, known=True)
    assert epsilon_of([seen], 1e-5, "zero-out", group=group) > 0
    with pytest.raises(ValueError, match="cannot hide that a client was there"):
        epsilon_of([seen], 1e-5, "add-or-remove", group=group)


def test_a_run_composes_with_what_else_was_released() -> None:
    moved = NOISE.sensitivity(20, 2, 4)
    both = epsilon_of([event(20), Event(3.0)], 1e-5)
    expected = epsilon_of([Event(1 / math.hypot(mu(moved), 1 / 3))], 1e-5)
    assert both == pytest.approx(expected, rel=1e-12)


def test_a_group_moves_so_many_times_as_much() -> None:
    moved = NOISE.sensitivity(20, 2, 4)
    expected = epsilon_of([Event(2.0 / moved)], 1e-5, group=3)
    assert epsilon_of([event(20)], 1e-5, group=3) == pytest.approx(expected, rel=1e-12)


def test_a_plan_affords_its_rounds_once() -> None:
    plan = limited(correlation=NOISE)
    (first,) = plan.events(64)
    one, other = replace(first, run="a"), replace(first, run="b")
    assert plan.affords([replace(one, rounds=1)] * 64)
    assert not plan.affords([replace(one, rounds=1)] * 65)
    # Two halves of two runs are more than one run: a client may take part eight times in each.
    half = [replace(one, rounds=32), replace(other, rounds=32)]
    assert plan.owns(half[0])
    assert plan.owns(half[1])
    moved = NOISE.sensitivity(32, 8, 8)
    z = plan.noise_multiplier
    expected = epsilon_of([Event(z / moved), Event(z / moved)], 1e-3, "zero-out")
    assert plan.spent(half) == pytest.approx(expected, rel=1e-12)
    assert not plan.owns(Event(z))
    assert not plan.owns(replace(one, participations=9))


def test_a_report_of_two_runs_counts_both(tmp_path: Path) -> None:
    plan = limited(correlation=NOISE, epsilon=20.0)
    (whole,) = plan.events()
    with fldp.Ledger(tmp_path / "ledger", plan) as book:
        book.record(replace(whole, run="a", rounds=40))
        alone = plan.report(book)
        assert "40 of the 64 rounds are spent" in alone.to_markdown()
        book.record(replace(whole, run="b", rounds=30))
        both = plan.report(book)
        assert both.epsilon == pytest.approx(book.epsilon(), rel=1e-9)
        assert both.epsilon > plan.epsilon(64)
        text = both.to_markdown()
        assert "40 of the 64 rounds are spent" in text
        assert "30 other releases are counted in" in text
        assert book.epsilon(adjacency="replace-one") > book.epsilon()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"filter": "blt"}, "filter is 'blt'"),
        ({"run": 7}, "run is 7"),
        ({"known": 1}, "known is 1"),
        ({"sampling_rate": 1.5}, "sampling_rate is 1.5"),
        ({"sampling_rate": 0.5}, "coins hide a client only"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"separation": 0}, "separation is 0"),
        ({"filter": Filter((1.0,), (1.0, -0.5)), "separation": 1, "rounds": 5}, "rise"),
    ],
)
def test_an_event_that_is_none_is_refused(changes: dict[str, Any], told: str) -> None:
    facts: dict[str, Any] = {
        "noise_multiplier": 2.0, "filter": NOISE, "participations": 2, "separation": 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match=told):
        Filtered(**facts | changes)


# --- The amplified banded mechanism.


def coins(**changes: Any) -> PrivacyPlan:
    facts: dict[str, Any] = {
        "epsilon": 2.0, "delta": 1e-6, "rounds": 200, "clients": 10_000, "cohort": 100,
        "separation": 8, "correlation": banded(200, 25, 8),
    }  # fmt: skip
    return fldp.calibrate(**facts | changes)


def test_groups_that_take_turns_are_poisson_rounds_of_their_turns() -> None:
    plan = coins()
    norm = float(np.linalg.norm(plan.correlation.den))  # type: ignore[union-attr]
    z = fldp.noise_multiplier(epsilon=2.0, delta=1e-6, rounds=25, sampling_rate=0.08)
    assert plan.noise_multiplier == pytest.approx(z * norm, rel=1e-3)
    alone = Event(plan.noise_multiplier / norm, 0.08, "poisson", 25)
    assert plan.epsilon() == pytest.approx(epsilon_of([alone], 1e-6), rel=1e-9)
    # After 9 rounds some client had its second turn.
    (two,) = plan.events(9)
    assert two.equivalent().rounds == 2  # type: ignore[union-attr]
    # One group of everybody is DP-FedAvg.
    plain = coins(separation=1, correlation="independent")
    assert plain.noise_multiplier == pytest.approx(
        fldp.noise_multiplier(epsilon=2.0, delta=1e-6, rounds=200, sampling_rate=0.01), rel=2e-3
    )


def test_who_knows_how_the_coins_fell_learns_more() -> None:
    plan = coins()
    known = plan.cohort_known()
    assert plan.epsilon() < known["epsilon"] < known["epsilon_bound"] < known["epsilon_all"]
    assert (known["mean"], known["rounds"]) == (2.0, 25)
    norm = float(np.linalg.norm(plan.correlation.den))  # type: ignore[union-attr]
    z = plan.noise_multiplier / norm
    expected = epsilon_of([Event(z, 0.08, "poisson", 25, known=True)], 1e-6, "zero-out")
    assert known["epsilon"] == pytest.approx(expected, rel=1e-9)
    assert plan.seeded_epsilon(3) == pytest.approx(epsilon_of([Event(z, rounds=3)], 1e-6))
    told = " ".join(plan.statement().split())
    assert "one of 8 groups" in told
    assert "secret coin, of chance 0.08" in told


def test_a_group_of_devices_gains_nothing_by_coins_in_turns() -> None:
    plan = coins()
    moved = plan.correlation.sensitivity(200, 25, 8)  # type: ignore[union-attr]
    expected = epsilon_of([Event(plan.noise_multiplier / moved)], 1e-6, group=2)
    assert plan.group(2) == pytest.approx(expected, rel=1e-9)


# --- The run holds to it.


def test_a_client_that_comes_too_early_is_not_let_in() -> None:
    there = Attendance(clients=5, participations=9, separation=4)
    there.admit(torch.tensor([0, 2]), round=0)
    there.admit(torch.tensor([1]), round=1)
    with pytest.raises(ValueError, match="client 2, which took part in round 1:"):
        there.admit(torch.tensor([2, 3]), round=3)
    # Nobody of that round was let in.
    there.admit(torch.tensor([3]), round=3)
    there.admit(torch.tensor([0, 2]), round=4)


def test_a_client_that_comes_too_often_is_not_let_in() -> None:
    there = Attendance(clients=5, participations=2, separation=1)
    for t in range(2):
        there.admit(torch.tensor([4]), round=t)
    with pytest.raises(ValueError, match="took part 2 times before"):
        there.admit(torch.tensor([0, 4]), round=7)
    again = Attendance(clients=5, participations=2, separation=1)
    again.load_state_dict(there.state_dict())
    with pytest.raises(ValueError, match="took part 2 times before"):
        again.admit(torch.tensor([4]), round=7)


def test_the_first_round_may_have_anybody() -> None:
    Attendance(clients=3, participations=1, separation=10**6).admit(torch.arange(3), round=0)


def test_a_plan_without_limits_has_nobody_at_the_door() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    assert Attendance.of(plan, 480) is None
    assert Attendance.of(None, 480) is None
    assert attendance.period(plan) == 1
    assert Attendance.of(limited(), 480) is not None


def test_fractional_powers_may_be_asked_for_by_their_coefficients() -> None:
    assert limited(correlation=fractional(4)).correlation == fractional(4)
