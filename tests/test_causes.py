"""Each check finds what it is for, on histories made by hand; and says it in words that hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from test_symptoms import PLAN, history
from torch import nn

import fldp
from fldp.simulation import causes
from fldp.simulation.symptoms import Symptoms

HERE = Path(__file__).resolve().parent.parent
STEADY = [2.3 - 0.005 * t for t in range(12)]
ASTRAY = [2.3, 2.4, 2.35, 2.3, 2.45, 2.3, 2.4, 2.3, 2.45, 2.35, 2.4, 2.35]


def run(loss: list[float], clipped: list[float] | None = None, may_read: bool = True) -> Symptoms:
    return Symptoms(history(loss, clipped), may_read)


def long(given: Symptoms, length: float) -> Symptoms:
    """The same run, with a model of another length."""
    given.length = length
    return given


def test_malformed_contributions() -> None:
    given = history([1.0] * 4)
    assert not list(causes.lost(Symptoms(given, True)))
    given.private["malformed"] = [80.0] * 4
    (found,) = causes.lost(Symptoms(given, True))
    assert found.cause == "contributions are malformed"
    assert found.value == 0.8
    assert found.is_private
    assert found.is_likely
    given.private["malformed"] = [6.0] * 4
    (found,) = causes.lost(Symptoms(given, True))
    assert not found.is_likely


def test_a_few_zeros_are_no_fault_and_many_are() -> None:
    given = history([1.0] * 4)
    given.private["zero"] = [40.0] * 4
    assert not list(causes.lost(Symptoms(given, True)))
    given.private["zero"] = [90.0] * 4
    assert [found.cause for found in causes.lost(Symptoms(given, True))] == [
        "contributions are zero"
    ]


def test_skipped_rounds_are_seen_without_private_figures() -> None:
    given = history([1.0] * 4)
    given.private["skipped"] = [1, 1, 0, 0]
    # Under central trust it would tell who came.
    assert not list(causes.lost(Symptoms(given, False)))
    given.plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=12, clients=50, trust="distributed", min_survivors=40
    )
    (found,) = causes.lost(Symptoms(given, False))
    assert found.cause == "rounds were skipped"
    assert not found.is_private


def test_signal_is_the_plans_over_the_rounds_that_ran() -> None:
    small = run([1.0] * 12)
    assert not list(causes.faint_signal(small, PLAN))
    few = fldp.calibrate(epsilon=2.0, delta=1e-3, rounds=12, clients=20)
    small.d = 650
    (found,) = causes.faint_signal(small, few)
    assert found.value == pytest.approx(few.snr(650) * math.sqrt(12))
    assert found.cause == "too few clients for this noise"
    assert not found.is_private


@pytest.mark.parametrize("rounds", [1, 10, 100])
def test_the_ratio_of_a_whole_run_takes_clients_not_rounds(rounds: int) -> None:
    """N·μ/√d, whatever T is, where everybody takes part in every round."""
    plan = fldp.calibrate(epsilon=4.0, delta=1e-5, rounds=rounds, clients=50)
    mu = fldp.accounting.gaussian_mu(4.0, 1e-5)
    whole = plan.snr(650) * math.sqrt(rounds)
    assert whole == pytest.approx(50 * mu / math.sqrt(650), rel=1e-3)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_secret_cohorts_stay_below_the_ratio_of_everybody(epsilon: float) -> None:
    ceiling = 480 * fldp.accounting.gaussian_mu(epsilon, 1e-3) / math.sqrt(650)
    for cohort in (5, 48, 240):
        ratios = []
        for rounds in (1, 10, 100, 1000):
            plan = fldp.calibrate(
                epsilon=epsilon, delta=1e-3, rounds=rounds, clients=480, cohort=cohort
            )
            ratios.append(plan.snr(650) * math.sqrt(rounds))
        assert ratios == sorted(ratios)
        assert ratios[0] < 0.8 * ceiling
        assert ratios[-1] < ceiling


def test_more_rounds_are_called_useless_where_they_are() -> None:
    given = run([1.0] * 12)
    given.d = 650
    for cohort in (20, 5):
        plan = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=12, clients=20, cohort=cohort)
        if cohort == 20:
            plan = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=12, clients=20)
        (found,) = causes.faint_signal(given, plan)
        assert ("more rounds" in found.change) == (cohort == 20)


def test_noise_that_cancels_is_judged_by_what_stays() -> None:
    given = run([1.0] * 64)
    given.d = 5000
    facts: dict[str, Any] = {
        "epsilon": 2.0, "delta": 1e-3, "rounds": 64, "clients": 200, "sampling": "none",
        "separation": 8,
    }  # fmt: skip
    plain = fldp.calibrate(**facts)
    (alone,) = causes.faint_signal(given, plain)
    (less,) = causes.faint_signal(given, fldp.calibrate(**facts, correlation="blt"))
    assert less.value > 1.3 * alone.value
    assert "stays in sums of the rounds" in less.seen
    assert "stays in sums of the rounds" not in alone.seen
    # Of correlated noise more cancels over more rounds.
    assert "more rounds or" in alone.change
    assert "more rounds or" not in less.change


def test_a_remedy_by_model_size_reaches_the_ratio_it_names() -> None:
    large = run([1.0] * 12)
    large.d = 10**7
    (found,) = causes.faint_signal(large, PLAN)
    assert found.cause == "the model is too large for this population"
    carried = int(found.change.split("about ")[1].split(" ")[0].replace(",", ""))
    assert PLAN.snr(carried) * math.sqrt(12) == pytest.approx(2.0, rel=1e-3)


def test_the_clients_it_asks_for_are_enough() -> None:
    few = fldp.calibrate(epsilon=2.0, delta=1e-3, rounds=12, clients=20)
    given = run([1.0] * 12)
    given.d = 650
    (found,) = causes.faint_signal(given, few)
    asked = int(found.change.split("about ")[1].split(" ")[0].replace(",", ""))
    more = fldp.calibrate(epsilon=2.0, delta=1e-3, rounds=12, clients=asked)
    assert more.snr(650) * math.sqrt(12) >= 2.0


def test_a_clip_norm_that_nobody_reaches_is_private_knowledge() -> None:
    (found,) = causes.clip_too_large(run([1.0] * 4, [0.0] * 4))
    assert found.is_private
    assert not list(causes.clip_too_large(run([1.0] * 4, [0.0] * 4, may_read=False)))
    assert not list(causes.clip_too_large(run([1.0] * 4, [0.3, 0.0, 0.0, 0.0])))


@pytest.mark.parametrize(
    ("loss", "length", "clipped", "cause"),
    [
        (STEADY, 2.0, 0.5, "the server's learning rate is too small"),
        (STEADY, 60.0, 1.0, "the clip norm is too small"),
        (ASTRAY, 2.0, 1.0, "the steps lead nowhere: the clients' learning rate is too large"),
        (ASTRAY, 2.0, 0.5, "the steps lead nowhere: the clients' learning rate is too large, or C"),
        (ASTRAY, 60.0, 0.5, "the server's learning rate is too large"),
        ([3.0, 2, 2.6, 1.8, 2.4, 1.5, 1.9, 1.4, 1.7, 1.4, 1.6, 1.3], 60.0, 0.5, ""),
        (
            [*[3.0, 9.0] * 4, 2.3, 2.2, 2.3, 2.2],
            60.0,
            0.5,
            "the server's learning rate is too large",
        ),
        ([2.0, 1.0, math.inf, math.nan], 2.0, 0.5, "training diverges"),
        ([2.0, 1.0, 1e305, 1.7e308], 2.0, 0.5, "training diverges"),
        ([2.3, 2.4] * 6, math.inf, 0.5, "training diverges"),
        ([2.3] * 12, 2.0, 0.5, "nothing moves"),
        ([2.3] * 12, 0.0, 0.5, "nothing moves"),
        ([2.3 * 0.9**t for t in range(12)], 2.0, 0.5, ""),
    ],
)
def test_rates(loss: list[float], length: float, clipped: float, cause: str) -> None:
    given = long(run(loss, [clipped] * len(loss)), length)
    found = [finding.cause for finding in causes.wrong_rates(given)]
    assert found == ([cause] if cause else [])


@pytest.mark.parametrize("length", [2.0, 60.0])
def test_a_loss_that_fell_and_stayed_is_no_fault_of_the_rates(length: float) -> None:
    # A regression that explains a twentieth of the variance, and is done after four rounds.
    curve = [1.0, 0.97, 0.955, 0.95, 0.951, 0.95, 0.952, 0.951, 0.95, 0.951, 0.95, 0.951]
    (found,) = causes.wrong_rates(long(run(curve), length))
    assert found.cause == "the loss fell and then stayed"
    assert not found.is_likely
    slow = [1.0 - 0.004 * t for t in range(12)]
    (found,) = causes.wrong_rates(long(run(slow), 2.0))
    assert found.cause == "the server's learning rate is too small"


def test_a_clip_that_nobody_reaches_costs_nothing_without_noise() -> None:
    given = history([1.0] * 4, [0.0] * 4)
    given.plan = None
    assert not list(causes.clip_too_large(Symptoms(given, True)))


def test_noise_on_the_mean_is_that_of_the_trust() -> None:
    given = run([1.0] * 12)
    given.d = 10**6
    plan = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=12, clients=50, cohort=25, trust="local")
    (found,) = causes.faint_signal(given, plan)
    # The mean of 25 messages with noise z·C each.
    said = float(found.seen.split("noise of ")[1].split(" C")[0])
    assert said == pytest.approx(plan.noise_multiplier / 5, rel=0.05)


@pytest.mark.filterwarnings("ignore:accountant is 'gdp'")
def test_the_remedy_does_not_depend_on_what_the_accountant_can_do() -> None:
    plan = fldp.calibrate(
        epsilon=1.0, delta=1e-3, rounds=12, clients=50, cohort=20, accountant="gdp"
    )
    given = run([1.0] * 12)
    given.d = 100_001
    (found,) = causes.faint_signal(given, plan)
    assert found.cause == "too few clients for this noise"


def test_beside_a_run_of_one_round() -> None:
    one, free = history([1.0]), history([1.0])
    one.metric, free.metric = [0.5], [0.9]
    (found,) = causes.price_of_noise(Symptoms(one, True), Symptoms(free, True))
    assert found.value == pytest.approx(0.4)


def test_without_the_clipped_share_it_names_both() -> None:
    (found,) = causes.wrong_rates(long(run(ASTRAY, may_read=False), 2.0))
    assert found.cause.endswith("or C")
    assert not found.is_private


def test_it_stopped_too_early_or_too_late() -> None:
    given = history([2.3 * 0.9**t for t in range(12)])
    given.metric = [0.05 * t for t in range(12)]
    (found,) = causes.wrong_rounds(Symptoms(given, True))
    assert found.cause == "it stopped while it was still learning"
    assert not list(causes.wrong_rounds(Symptoms(history(given.loss), True)))
    given.metric = [0.9] * 12
    given.loss = [2.3, *[0.5] * 11]
    given.best_round = 2
    given.events = [PLAN.event] * 12
    (found,) = causes.wrong_rounds(Symptoms(given, True))
    assert found.cause.startswith("most of the budget")
    assert not found.is_likely
    spent = float(found.seen.split("ε was ")[1].split(" ")[0])
    assert spent >= PLAN.epsilon(rounds=2)


@pytest.mark.parametrize(("best", "is_early"), [(3, True), (4, False), (11, False)])
def test_two_thirds_of_the_budget_are_most_of_it(best: int, is_early: bool) -> None:
    given = history([2.3, *[0.5] * 11])
    given.metric = [0.9] * 12
    given.best_round = best
    given.events = [PLAN.event] * 12
    assert bool(list(causes.wrong_rounds(Symptoms(given, True)))) == is_early


def test_a_loss_alone_says_that_it_was_still_falling() -> None:
    given = history([2.0 ** (-t / 2) for t in range(12)])
    given.measure = "error"
    (found,) = causes.wrong_rounds(Symptoms(given, True))
    assert found.cause == "it stopped while it was still learning"


def test_beside_a_run_without_noise() -> None:
    noisy, free = history(STEADY), history([2.3 * 0.8**t for t in range(12)])
    noisy.metric, free.metric = [0.5] * 12, [0.9] * 12
    (found,) = causes.price_of_noise(Symptoms(noisy, True), Symptoms(free, True))
    assert found.value == pytest.approx(0.4)
    assert found.is_private
    assert not list(causes.not_the_noise(Symptoms(free, True)))
    (found,) = causes.not_the_noise(Symptoms(history(STEADY), True))
    assert "the server's learning rate is too small" in found.means


def test_every_chapter_that_is_named_is_there() -> None:
    text = Path(causes.__file__).read_text(encoding="utf-8")
    found = {part for part in text.split('"') if part.count("-") >= 2 and " " not in part}
    assert len(found) >= 5
    for name in found:
        assert (HERE / "book" / f"{name}.ipynb").exists(), name


def test_a_finding_prints_its_grade_and_whether_it_is_private() -> None:
    (found,) = causes.clip_too_large(run([1.0] * 4, [0.0] * 4))
    assert str(found).startswith("Likely: the clip norm is too large (private)\n  Seen: ")
    assert max(map(len, str(found).splitlines())) <= 76


def test_a_model_without_parameters_has_no_signal() -> None:
    given = history([1.0] * 4)
    given.model = nn.Identity()
    assert Symptoms(given, True).d == 0
