"""Auditing a function: honest for sound pipelines, and it notices what would make it dishonest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from conftest import correct

import fldp
from fldp.audit.pipelines import check_independence, pipeline, within

DELTA = 1e-5


def plan_of(epsilon: float, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"delta": DELTA, "rounds": 1, "clients": 16} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


@pytest.mark.slow
@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
@pytest.mark.parametrize("canaries", [1, 12])
def test_the_package_itself_is_not_flagged(adjacency: str, canaries: int) -> None:
    plan = plan_of(2.0, adjacency=adjacency)
    found = pipeline(correct(plan), plan, like=64, runs=200, canaries=canaries, confidence=0.999)
    assert not found.violated
    assert found.runs == (2000 if canaries == 1 else 200)
    assert adjacency in found.tested


@pytest.mark.slow
@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
@pytest.mark.parametrize("canaries", [1, 12])
def test_too_little_noise_is_refuted_and_said_so(adjacency: str, canaries: int) -> None:
    plan = plan_of(1.0, adjacency=adjacency)
    weak = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 10)
    found = pipeline(correct(weak), plan, like=64, canary="orthogonal", runs=400, canaries=canaries)
    assert found.violated
    assert "REFUTED" in found.statement()


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_a_thousand_runs_recover_most_of_epsilon(epsilon: float) -> None:
    plan = plan_of(epsilon, clients=64)
    found = pipeline(correct(plan), plan, like=128, canaries=64, method="gdp")
    assert (found.method, found.runs) == ("betting-gdp", 1000)
    assert found.lower_bound is not None
    assert 0.7 * epsilon <= found.lower_bound <= epsilon
    plain = pipeline(correct(plan), plan, like=128, canaries=64)
    assert plain.lower_bound is not None
    assert plain.lower_bound > 0.4 * epsilon


@pytest.mark.slow
def test_a_function_without_a_generator_is_seeded_or_says_what_is_not_known() -> None:
    plan = plan_of(2.0)

    def seeded(updates: torch.Tensor) -> torch.Tensor:
        total = torch.stack([fldp.clip(u)[0] for u in updates]).sum(0)
        return (total + plan.noise_multiplier * torch.randn(8)) / plan.denominator

    assert pipeline(seeded, plan, like=8, runs=50).note == ""
    secret = pipeline(lambda u: fldp.aggregate(u, plan), plan, like=8, runs=50)
    assert "could not be checked whether it remembers" in secret.statement()


@pytest.mark.slow
def test_updates_that_fn_changes_in_place_are_not_used_again() -> None:
    plan = plan_of(1.0)

    def in_place(updates: torch.Tensor, generator: Any) -> Any:
        release = fldp.aggregate(updates, plan, generator=generator)
        updates.zero_()
        return release

    found = pipeline(in_place, plan, like=8, canary="orthogonal", runs=300, seed=1)
    again = pipeline(correct(plan), plan, like=8, canary="orthogonal", runs=300, seed=1)
    assert found.lower_bound == again.lower_bound


def test_independent_runs_pass_and_dependent_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(400) < 0.5
    for _ in range(200):  # refused with probability 1e-6 each
        check_independence(within(present + rng.normal(size=400), present))
    walk = np.cumsum(rng.normal(size=400))
    with pytest.raises(ValueError, match="not independent"):
        check_independence(within(walk, present))
    drift = np.linspace(0, 2, 400) + rng.normal(size=400)
    with pytest.raises(ValueError, match="not independent"):
        check_independence(within(drift, present))


@pytest.mark.slow
def test_bad_input_is_refused() -> None:
    plan = plan_of(1.0)
    fn = correct(plan)
    for match, call in (
        ("same whatever", lambda: pipeline(lambda u: torch.zeros(64), plan, like=64, runs=20)),
        ("one per client of", lambda: pipeline(fn, plan, canaries=17)),
        ("canary is", lambda: pipeline(fn, plan, canary="parrot")),
        ("canaries is", lambda: pipeline(fn, plan, canaries=0)),
        ("runs is", lambda: pipeline(fn, plan, runs=0)),
        ("method is", lambda: pipeline(fn, plan, method="one-run")),
        ("method is", lambda: pipeline(fn, plan, canaries=4, method="clopper-pearson")),
        ("confidence is", lambda: pipeline(fn, plan, canary="huge", confidence=95)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
