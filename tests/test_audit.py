"""Audits: known values, honest confidence, power, and faults that must be caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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


def plan_of(epsilon: float, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"delta": DELTA, "rounds": 1, "clients": 16} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


def correct(plan: fldp.PrivacyPlan) -> Callable[..., Any]:
    return lambda updates, generator=None: fldp.aggregate(updates, plan, 1.0, generator=generator)


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


def test_bad_input_is_refused() -> None:
    plan = plan_of(1.0)
    with pytest.raises(ValueError, match="same whatever"):
        audit.pipeline(lambda u: torch.zeros(64), plan, like=64, runs=20)
    with pytest.raises(ValueError, match="one per client of"):
        audit.pipeline(correct(plan), plan, canaries=17)
    with pytest.raises(ValueError, match="canary is"):
        audit.pipeline(correct(plan), plan, canary="parrot")
    replace = plan_of(1.0, adjacency="replace-one")
    with pytest.raises(ValueError, match="replace-one"):
        audit.training(torch.randn(3, 2, 4), torch.zeros(3, 2).long(), replace)


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
