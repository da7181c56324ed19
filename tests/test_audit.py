"""Audits: known values, honest confidence, power, and faults that must be caught."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from scipy.stats import binom

import fldp
from fldp import audit
from fldp.accounting import gaussian_epsilon, gaussian_mu

matplotlib.use("Agg")
DELTA = 1e-5
TRUTH = {
    e["name"]: e["value"]
    for e in json.loads((Path(__file__).parent / "data" / "ground_truth.json").read_text())
    if e["group"] == "audit"
}
KNOWN: dict[str, Callable[[], float]] = {
    "audit_cp_perfect_n100": lambda: audit.from_counts(0, 100, 0, 100, delta=DELTA),
    "audit_cp_perfect_n1000": lambda: audit.from_counts(0, 1000, 0, 1000, delta=DELTA),
    "audit_cp_perfect_n10000": lambda: audit.from_counts(0, 10**4, 0, 10**4, delta=DELTA),
    "audit_cp_tp900of1000_fp10of1000": lambda: audit.from_counts(10, 1000, 100, 1000, delta=DELTA),
    "audit_onerun_m1000_r1000_v600_d0": lambda: audit.one_run_epsilon(1000, 1000, 600, delta=0.0),
    "audit_onerun_m5000_r500_v480_d1e-05": lambda: audit.one_run_epsilon(
        5000, 500, 480, delta=DELTA
    ),
    "audit_gdp_tp900of1000_fp10of1000": lambda: audit.from_counts(
        10, 1000, 100, 1000, delta=DELTA, method="gdp"
    ),
    "audit_gdp_tp400of500_fp100of500": lambda: audit.from_counts(
        100, 500, 100, 500, delta=DELTA, method="gdp"
    ),
}


def plan_of(epsilon: float, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"delta": DELTA, "rounds": 1, "clients": 16} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


def correct(plan: fldp.PrivacyPlan) -> Callable[..., Any]:
    return lambda updates, generator=None: fldp.aggregate(updates, plan, 1.0, generator=generator)


def test_every_known_value_has_its_test() -> None:
    assert set(TRUTH) == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_values(name: str) -> None:
    assert KNOWN[name]() == pytest.approx(TRUTH[name], rel=1e-5)


@pytest.mark.parametrize(
    ("method", "threshold"),
    [
        ("clopper-pearson", "simultaneous"),
        ("clopper-pearson", "hold-out"),
        ("gdp", "simultaneous"),
        ("gdp", "hold-out"),
        ("gdp", 0.5),
    ],
)
def test_bounds_exceed_the_truth_no_more_often_than_stated(method: str, threshold: Any) -> None:
    rng, epsilon, repetitions = np.random.default_rng(1), 2.0, 200
    mu = gaussian_mu(epsilon, DELTA)
    violations = sum(
        audit.from_scores(
            rng.normal(1, 1 / mu, 200), rng.normal(0, 1 / mu, 200), delta=DELTA, confidence=0.9,
            method=method, threshold=threshold, claimed=epsilon,
        ).violated
        for _ in range(repetitions)
    )  # fmt: skip
    assert violations <= binom.ppf(0.999, repetitions, 0.1)


@pytest.mark.parametrize("method", ["clopper-pearson", "gdp"])
def test_many_canaries_with_shared_noise_keep_their_confidence(method: str) -> None:
    # The canaries of a run share half of their noise: the runs, not the canaries, are independent.
    rng, mu, violations = np.random.default_rng(2), gaussian_mu(1.0, DELTA), 0
    for _ in range(200):
        bits = rng.random((100, 8)) < 0.5
        shared = rng.normal(size=(100, 1)) + rng.normal(size=(100, 8))
        scores = bits + shared / (mu * math.sqrt(2))
        violations += audit.from_trials(
            scores, bits, delta=DELTA, confidence=0.9, method=method, claimed=1.0
        ).violated
    assert violations <= binom.ppf(0.999, 200, 0.1)


def test_a_betting_bound_covers_and_is_tight() -> None:
    rng = np.random.default_rng(3)
    bounds = [audit.mean_lower_bound(rng.beta(20, 20, 500), 0.9) for _ in range(300)]
    assert sum(b > 0.5 for b in bounds) <= binom.ppf(0.999, 300, 0.1)
    assert np.mean(bounds) > 0.49


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_a_thousand_runs_recover_most_of_epsilon(epsilon: float) -> None:
    plan = plan_of(epsilon, clients=64)
    found = audit.pipeline(correct(plan), plan, like=128, canaries=64, method="gdp")
    assert found.runs == 1000
    assert found.lower_bound is not None
    assert 0.7 * epsilon <= found.lower_bound <= epsilon


def test_the_one_run_audit_of_a_sum_stays_below_and_says_something() -> None:
    rng, epsilon = np.random.default_rng(4), 4.0
    mu = gaussian_mu(epsilon, DELTA)
    found = []
    for _ in range(200):
        bits = rng.random(1000) < 0.5
        scores = bits + rng.normal(0, 1 / mu, 1000)
        found.append(audit.one_run(scores, bits, delta=DELTA, confidence=0.9, claimed=epsilon))
    assert sum(f.violated for f in found) <= binom.ppf(0.999, 200, 0.1)
    assert np.median([f.lower_bound for f in found]) > 0.5


def test_equal_variances_reproduce_the_gaussian_mechanism() -> None:
    for mu in (0.3, 1.0, 3.0):
        assert audit.two_gaussians_epsilon(mu, 1.0, 1.0, DELTA) == pytest.approx(
            gaussian_epsilon(mu, DELTA), rel=1e-5
        )


def test_an_estimate_is_never_called_a_bound() -> None:
    rng, size = np.random.default_rng(5), 10_000
    cosines = 0.03 + rng.normal(0, size**-0.5, 200)
    found = audit.one_shot(cosines, size, delta=DELTA, claimed=0.1)
    assert found.lower_bound is None
    assert not found.violated
    assert "not a bound" in found.statement()
    assert found.estimate == pytest.approx(gaussian_epsilon(3.0, DELTA), rel=0.15)


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
def test_the_package_itself_is_not_flagged(adjacency: str) -> None:
    plan = plan_of(2.0, adjacency=adjacency)
    found = audit.pipeline(correct(plan), plan, like=64, runs=200)
    assert not found.violated
    tested = audit.neighbour_test(correct(plan), plan, like=64)
    assert not tested.violated
    assert tested.worst > 0.99


def test_structured_updates_reach_the_pipeline_and_per_tensor_clipping_is_caught() -> None:
    plan, like = plan_of(2.0), [torch.zeros(4, 4), torch.zeros(4), torch.zeros(2, 4)]

    def per_tensor(updates: Any, generator: Any = None) -> Any:
        clipped = [[fldp.clip(t, 1.0)[0] for t in u] for u in updates]
        total = torch.stack([torch.cat([t.flatten() for t in u]) for u in clipped]).sum(0)
        noise = torch.randn(total.shape, generator=generator) * plan.noise_multiplier
        return (total + noise) / plan.denominator

    assert not audit.neighbour_test(correct(plan), plan, like=like).violated
    found = audit.neighbour_test(per_tensor, plan, like=like)
    assert found.ratios["spread"] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert found.violated
    assert "violation" in found.statement()


def test_too_little_noise_is_refuted_and_said_so() -> None:
    plan = plan_of(1.0)
    weak = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 10)
    found = audit.pipeline(correct(weak), plan, like=64, canary="orthogonal", runs=500)
    assert found.violated
    assert "REFUTED" in found.statement()
    assert not audit.neighbour_test(correct(weak), plan, like=64).violated


@pytest.mark.parametrize("canary", ["worst", "natural", "record"])
def test_whole_trainings_stay_below_their_plan(canary: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 6, 10, generator=rng), torch.randint(0, 3, (8, 6), generator=rng)
    plan = plan_of(4.0, delta=1e-3, rounds=8, clients=9, cohort=5)
    found = audit.training(x, y, plan, canary=canary, runs=400)
    assert not found.violated
    assert found.claimed is not None
    weak = dataclasses.replace(plan, noise_multiplier=0.2)
    loud = audit.training(x, y, weak, canary=canary, runs=400)
    assert loud.lower_bound is not None
    assert loud.lower_bound > 1.0


def test_results_are_drawn_and_stored() -> None:
    rng = np.random.default_rng(6)
    found = audit.from_scores(rng.normal(1, 1, 99), rng.normal(0, 1, 99), delta=0.01, claimed=3.0)
    assert json.loads(json.dumps(found.to_dict()))["violated"] is False
    assert "Not tested" in found.statement()
    assert found.curve[:, 0].tolist() == [0, 0]
    assert found.curve[:, -1].tolist() == [1, 1]
    assert len(found.plot().get_lines()) == 3
    gdp = audit.from_scores([3.0] * 50 + [2.0], [0.0] * 50, delta=0.01, method="gdp")
    assert "presumes" in gdp.statement()


def test_bad_input_is_refused() -> None:
    plan = plan_of(1.0)
    with pytest.raises(ValueError, match="too few"):
        audit.from_scores([1.0, 2.0], [0.0, 0.0], delta=DELTA)
    with pytest.raises(ValueError, match="too few"):
        audit.one_run([1.0, 2.0, 3.0], [True, False, True], delta=DELTA)
    with pytest.raises(ValueError, match="too few"):
        audit.from_trials(np.eye(2), np.eye(2) > 0, delta=DELTA)
    for call in (
        lambda: audit.from_scores([1.0] * 99, [1.0] * 99, delta=DELTA),
        lambda: audit.from_trials(np.ones((9, 9)), np.ones((9, 9)), delta=DELTA),
        lambda: audit.one_run(np.ones(99), np.ones(99), delta=DELTA),
        lambda: audit.one_shot([0.1] * 5, 100, delta=DELTA),
    ):
        with pytest.raises(ValueError, match="equal"):
            call()
    with pytest.raises(ValueError, match="same whatever"):
        audit.pipeline(lambda u: torch.zeros(64), plan, like=64, runs=20)
    with pytest.raises(ValueError, match="method"):
        audit.from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, method="magic")
    with pytest.raises(ValueError, match="threshold"):
        audit.from_scores([1.0, 2.0] * 50, [0.0] * 99, delta=DELTA, threshold="best")
    with pytest.raises(ValueError, match="one per client of"):
        audit.pipeline(correct(plan), plan, canaries=17)
    with pytest.raises(ValueError, match="orthogonal"):
        audit.one_shot(np.linspace(0, 1, 20), 10, delta=DELTA)
    with pytest.raises(ValueError, match="canary is"):
        audit.pipeline(correct(plan), plan, canary="parrot")
    replace = plan_of(1.0, adjacency="replace-one")
    with pytest.raises(ValueError, match="replace-one"):
        audit.training(torch.randn(3, 2, 4), torch.zeros(3, 2).long(), replace)
    with pytest.raises(ValueError, match="noise differs"):
        audit.neighbour_test(lambda u: fldp.aggregate(u, plan, 1.0), plan)
    with pytest.raises(ValueError, match="between 0 and 1"):
        audit.mean_lower_bound([2.0])
    with pytest.raises(ValueError, match="correct"):
        audit.one_run_epsilon(10, 5, 6, delta=0)


def benchmark_faults() -> Any:
    from benchmarks.audits import faults

    return faults()


@pytest.mark.parametrize(
    "name",
    [
        "noise_over_sqrt_cohort", "missing_clip", "per_tensor_clip", "example_weighted_mean",
        "nan_bypass", "noise_at_next_clip_norm", "reused_noise_seed", "realised_denominator",
        "recipe_669",
    ],
)  # fmt: skip
def test_every_planted_fault_is_found(name: str) -> None:
    from benchmarks.audits import LIKE

    planted = benchmark_faults()
    assert len(planted) == 9
    fn, plan = planted[name]
    if audit.neighbour_test(fn, plan, like=LIKE).violated:
        return
    found = audit.pipeline(fn, plan, like=LIKE, canary="orthogonal", runs=400)
    assert found.violated, found.statement()


def test_no_pipeline_of_the_package_fails_the_neighbour_test() -> None:
    from benchmarks.audits import LIKE, correct

    for name, (fn, plan) in correct().items():
        assert not audit.neighbour_test(fn, plan, like=LIKE).violated, name


def test_one_shot_canaries_in_an_ordinary_training_estimate_its_epsilon() -> None:
    rounds, size, count = 10, 20_000, 400
    plan = plan_of(4.0, rounds=rounds, clients=count)
    rng = torch.Generator().manual_seed(0)
    canaries = torch.nn.functional.normalize(torch.randn(count, size, generator=rng), dim=1)
    total = sum(
        (fldp.aggregate(canaries, plan, 1.0, generator=rng).mean for _ in range(rounds)),
        torch.zeros(size),
    )
    cosines = canaries @ total / total.norm()
    found = audit.one_shot(cosines, size, delta=DELTA, claimed=plan.epsilon())
    assert found.estimate == pytest.approx(plan.epsilon(), rel=0.5)
    assert "not a bound" in found.statement()
