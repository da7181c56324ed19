"""Whole trainings: `fldp.train` as it runs, with canary clients; federations that are not ours."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import fldp
from fldp.audit.canaries import Canaries
from fldp.audit.trainings import federation, training

DELTA = 1e-5


@pytest.fixture(scope="module")
def people() -> fldp.clients.Population:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 10, generator=rng), torch.randint(0, 3, (60,), generator=rng)
    return fldp.clients.partition(x, y, clients=20, seed=0)


def plan_of(epsilon: float = 8.0, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"delta": DELTA, "rounds": 2, "clients": 320} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


MODEL = nn.Sequential(nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 3))


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
@pytest.mark.parametrize("cohort", [None, 100])
def test_training_is_within_its_plan_and_says_something(
    people: fldp.clients.Population, adjacency: str, cohort: int | None
) -> None:
    plan = plan_of(cohort=cohort, adjacency=adjacency)
    found = training(MODEL, people, plan, canaries=300, confidence=0.999, seed=1)
    assert not found.violated
    assert found.claimed == plan.epsilon()
    assert found.lower_bound is not None
    assert found.lower_bound > (1.0 if cohort is None else 0.1)
    assert adjacency in found.tested


@pytest.mark.parametrize("sampling", ["fixed", "none"])
def test_other_draws_are_audited_as_well(people: fldp.clients.Population, sampling: str) -> None:
    plan = plan_of(cohort=160, sampling=sampling, adjacency="replace-one")
    found = training(MODEL, people, plan, canaries=300, confidence=0.999, seed=2)
    assert not found.violated


def test_what_runs_with_too_little_noise_is_refuted(people: fldp.clients.Population) -> None:
    plan = plan_of(1.0)
    weak = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 8)
    # The run is under the weak plan; the claim is the stronger one's.
    found = training(MODEL, people, weak, canaries=300, seed=3)
    assert found.lower_bound is not None
    assert found.lower_bound > plan.epsilon()
    for method in ("gdp", "plan"):
        sharper = training(MODEL, people, weak, canaries=300, seed=3, method=method)
        assert sharper.lower_bound is not None
        assert sharper.lower_bound > found.lower_bound


def test_a_clip_that_does_nothing_is_refuted_in_training(
    people: fldp.clients.Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_pass(self: Any, rows: torch.Tensor, norms: torch.Tensor, *rest: Any) -> Any:
        return torch.ones(len(rows), 1, dtype=norms.dtype)

    monkeypatch.setattr(fldp.FlatClip, "factors", all_pass)
    found = training(MODEL, people, plan_of(1.0), canaries=300, seed=4)
    assert found.violated


def test_the_final_model_alone_and_several_runs(people: fldp.clients.Population) -> None:
    plan = plan_of()
    final = training(MODEL, people, plan, canaries=300, sees="model", seed=5)
    assert "final model alone" in final.tested
    assert final.lower_bound is not None
    assert final.lower_bound > 1
    pooled = training(MODEL, people, plan, canaries=300, runs=3, seed=5)
    assert pooled.runs == 3
    assert not pooled.violated


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out"])
def test_an_adaptive_clip_is_audited_under_both_adjacencies_of_a_left_out_canary(
    people: fldp.clients.Population, adjacency: str
) -> None:
    clip = fldp.AdaptiveClip(initial=1.0)
    plan = plan_of(adjacency=adjacency)
    found = training(MODEL, people, plan, canaries=300, clip=clip, confidence=0.999, seed=6)
    assert not found.violated


@pytest.mark.slow
@pytest.mark.parametrize("canary", ["natural", "record"])
def test_a_client_with_wrong_labels_is_a_replace_one_question(
    people: fldp.clients.Population, canary: str
) -> None:
    plan = plan_of(4.0, clients=20, delta=1e-3)
    found = training(MODEL, people, plan, canary=canary, runs=40, seed=7)
    assert found.claimed == dataclasses.replace(plan, adjacency="replace-one").epsilon()
    assert not found.violated
    assert found.runs == 80
    weak = dataclasses.replace(plan, noise_multiplier=0.02)
    local = fldp.LocalSGD(lr=2.0, epochs=3)
    loud = training(MODEL, people, weak, canary=canary, runs=40, seed=7, local=local)
    assert loud.lower_bound is not None
    assert loud.lower_bound > 0.2
    # Nobody else's records were touched.
    assert len(people) == 20


def test_a_run_without_seeds_takes_everything_from_the_system(
    people: fldp.clients.Population,
) -> None:
    first, second = (training(MODEL, people, plan_of(), canaries=300) for _ in range(2))
    assert first.curve.shape != second.curve.shape or (first.curve != second.curve).any()


def rounds_of(plan: fldp.PrivacyPlan, noise: float, canaries: Canaries, size: int) -> torch.Tensor:
    """A foreign federation of its own making: everyone, every round, a clipped noisy mean."""
    rng = torch.Generator().manual_seed(int(canaries.included[:30].sum()))
    change = torch.zeros(size)
    for t in range(plan.rounds):
        rows = canaries.rows(torch.arange(plan.clients), t)
        rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1)
        total = rows.sum(0) + noise * torch.randn(size, generator=rng)
        mean = total / plan.clients
        canaries.observe(mean, t)
        change += mean
    return change


def test_a_foreign_federation_is_audited_in_one_run() -> None:
    plan = plan_of(2.0, clients=400, rounds=3)

    def run(noise: float, sees: str) -> Any:
        def one(canaries: Canaries) -> Any:
            change = rounds_of(plan, noise, canaries, 1000)
            return change if sees == "model" else None

        return federation(one, plan, like=1000, canaries=400, sees=sees, seed=0)

    for sees in ("releases", "model"):
        sound, broken = run(plan.noise_multiplier, sees), run(plan.noise_multiplier / 20, sees)
        assert sound.lower_bound > 0.3
        assert not sound.violated
        assert broken.violated


def test_bad_input_is_refused(people: fldp.clients.Population) -> None:
    plan = plan_of()
    distributed = plan_of(trust="distributed", min_survivors=300, adjacency="zero-out")
    for match, call in (
        ("canary is", lambda: training(MODEL, people, plan, canary="parrot")),
        ("the plan is for 320", lambda: training(MODEL, people, plan, canaries=299)),
        ("sees is", lambda: training(MODEL, people, plan, canaries=300, sees="all")),
        ("trust is", lambda: training(MODEL, people, distributed, canaries=300)),
        ("no release", lambda: federation(lambda c: None, plan, like=500)),
        ("must return", lambda: federation(lambda c: None, plan, like=500, sees="model")),
        ("method is", lambda: federation(lambda c: None, plan, like=500, method="magic")),
        (
            "draws its cohorts",
            lambda: federation(lambda c: None, plan_of(cohort=100), like=500, method="gdp"),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
