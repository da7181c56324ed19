"""The neighbour test: the same noise on neighbouring inputs finds what statistics cannot."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from conftest import correct

import fldp
from fldp.audit.neighbours import neighbour_test


def plan_of(epsilon: float = 2.0, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"delta": 1e-5, "rounds": 1, "clients": 16} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


def clipped(updates: torch.Tensor) -> torch.Tensor:
    return torch.stack([fldp.clip(row, 1.0)[0] for row in updates])


def noised(total: torch.Tensor, plan: fldp.PrivacyPlan, generator: Any) -> torch.Tensor:
    noise = plan.noise_multiplier * torch.randn(total.shape, generator=generator)
    return (total + noise) / plan.denominator


def test_structured_updates_reach_the_pipeline_and_per_tensor_clipping_is_caught() -> None:
    plan, like = plan_of(), [torch.zeros(4, 4), torch.zeros(4), torch.zeros(2, 4)]

    def per_tensor(updates: Any, generator: Any = None) -> Any:
        parts = [[fldp.clip(t, 1.0)[0] for t in u] for u in updates]
        total = torch.stack([torch.cat([t.flatten() for t in u]) for u in parts]).sum(0)
        return noised(total, plan, generator)

    assert not neighbour_test(correct(plan), plan, like=like).violated
    found = neighbour_test(per_tensor, plan, like=like)
    assert found.ratios["spread"] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert found.violated
    assert "a violation" in found.statement()


@pytest.mark.slow
def test_no_pipeline_of_the_package_fails_the_neighbour_test() -> None:
    from benchmarks.audits import LIKE
    from benchmarks.audits import correct as pipelines

    for name, (fn, plan) in pipelines().items():
        found = neighbour_test(fn, plan, like=LIKE)
        assert not found.violated, (name, found.ratios)
        assert found.aligned, name


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
def test_the_sensitivity_is_reached_and_not_exceeded(adjacency: str) -> None:
    plan = plan_of(adjacency=adjacency)
    found = neighbour_test(correct(plan), plan, like=64)
    assert 0.99 < found.worst <= 1.0
    assert found.claimed_sensitivity == (2.0 if adjacency == "replace-one" else 1.0)


def shuffles(updates: torch.Tensor, plan: fldp.PrivacyPlan, generator: Any) -> torch.Tensor:
    order = torch.randperm(len(updates), generator=generator)
    return noised(clipped(updates[order]).sum(0), plan, generator)


def rounds_at_random(updates: torch.Tensor, plan: fldp.PrivacyPlan, generator: Any) -> torch.Tensor:
    rows, grid = clipped(updates), 1e-4
    rows = torch.floor(rows / grid + torch.rand(rows.shape, generator=generator)) * grid
    return noised(rows.sum(0), plan, generator)


@pytest.mark.parametrize("sound", [shuffles, rounds_at_random], ids=lambda f: f.__name__)
def test_u07_sound_pipelines_that_draw_per_client_are_told_and_not_convicted(sound: Any) -> None:
    plan = plan_of()
    found = neighbour_test(lambda u, generator: sound(u, plan, generator), plan, like=64)
    assert found.worst > 10  # what the noise alone moves
    assert not found.violated
    assert "not convicted" in found.statement()
    # Under zero-out both cohorts draw alike, and the test is what it should be.
    zero_out = plan_of(adjacency="zero-out")
    tested = neighbour_test(lambda u, generator: sound(u, zero_out, generator), zero_out, like=64)
    assert tested.aligned
    assert not tested.violated


def test_u07_a_mean_over_who_came_is_a_fault_and_stays_convicted() -> None:
    plan = plan_of()

    def realised(updates: torch.Tensor, generator: Any) -> torch.Tensor:
        return noised(clipped(updates).sum(0), plan, generator) * plan.denominator / len(updates)

    found = neighbour_test(realised, plan, like=64)
    assert found.aligned
    assert found.violated


def adaptive(plan: fldp.PrivacyPlan, count_noise: float, sensitivity: float) -> Any:
    """A pipeline with an adaptive clip whose bits are paid as if they moved by `sensitivity`."""
    paid = (plan.noise_multiplier**-2 - (sensitivity / count_noise) ** 2) ** -0.5

    def fn(updates: torch.Tensor, generator: Any) -> Any:
        bits = (updates.norm(dim=1) <= 1).double() - 0.5
        total = clipped(updates).sum(0) + paid * torch.randn(updates.shape[1], generator=generator)
        noise = count_noise * torch.randn(1, generator=generator, dtype=torch.float64)
        fraction = float((bits.sum() + noise) / plan.denominator + 0.5)
        release = type("Release", (), {})()
        release.mean, release.noise_std = total / plan.denominator, paid / plan.denominator
        release.unclipped = min(max(fraction, 0.0), 1.0)
        return release

    return fn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adjacency", "sensitivity", "sound"),
    [
        ("add-or-remove", 0.5, True),
        ("zero-out", 0.5, False),
        ("zero-out", 1.0, True),
        ("replace-one", 0.5, True),
    ],
)
@pytest.mark.parametrize(("z", "clients", "count_noise"), [(1.9, 20, 2.0), (9.0, 100, 10.0)])
def test_p04_the_noised_fraction_is_compared_as_well(
    adjacency: str, sensitivity: float, sound: bool, z: float, clients: int, count_noise: float
) -> None:
    # The upper bound on the bits' noise is exceeded with probability 1e-6.
    plan = fldp.PrivacyPlan(
        z, 1e-5, 1, clients, float(clients), "none", "central", adjacency, "pld", 8.0
    )
    found = neighbour_test(adaptive(plan, count_noise, sensitivity), plan, like=32)
    assert found.violated is not sound, found.ratios
    assert (found.ratios["unclipped"] > 1) is not sound
    assert max(v for k, v in found.ratios.items() if k != "unclipped") < 1.001


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
def test_the_adaptive_clip_of_the_package_pays_for_its_query(adjacency: str) -> None:
    plan = plan_of(clients=100, adjacency=adjacency)

    def fn(updates: torch.Tensor, generator: Any) -> Any:
        return fldp.aggregate(updates, plan, fldp.AdaptiveClip(1.0), generator=generator)

    found = neighbour_test(fn, plan, like=32)
    assert "unclipped" in found.ratios
    assert not found.violated


def test_noise_of_its_own_is_refused() -> None:
    plan = plan_of(1.0)
    with pytest.raises(ValueError, match="noise differs"):
        neighbour_test(lambda u: fldp.aggregate(u, plan, 1.0), plan)
    with pytest.raises(ValueError, match="repeats"):
        neighbour_test(correct(plan), plan, repeats=0)


@pytest.mark.slow
@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out"])
def test_u07_draws_that_depend_on_the_updates_are_told_and_not_convicted(adjacency: str) -> None:
    plan = plan_of(adjacency=adjacency)

    def total(updates: Any, bound: float, generator: torch.Generator) -> torch.Tensor:
        kept = torch.zeros(64)
        for update in updates.nan_to_num(0, 0, 0):
            places = update.nonzero().flatten()
            sparse = torch.zeros(64)
            # one coin for each coordinate that is not zero
            sparse[places] = update[places] * (torch.rand(len(places), generator=generator) < 0.5)
            kept += fldp.clip(sparse, bound)[0]
        return kept

    def sound(updates: Any, generator: torch.Generator) -> torch.Tensor:
        before = total(updates, 1.0, generator)
        noise = plan.noise_multiplier * torch.randn(64, generator=generator)
        return (before + noise) / plan.denominator

    found = neighbour_test(sound, plan, like=64)
    assert found.worst > 5  # what the noise alone moves
    assert not found.violated
    assert "not convicted" in found.statement()

    def wrong(updates: Any, generator: torch.Generator) -> torch.Tensor:
        noise = plan.noise_multiplier * torch.randn(64, generator=generator)
        return (total(updates, 4.0, generator) + noise) / plan.denominator

    # noise that is drawn first is the same for both, and the clip at 4 C shows
    assert neighbour_test(wrong, plan, like=64).violated


def test_a_probe_of_zeros_warns_of_no_lost_round() -> None:
    plan = plan_of()

    def in_halves(updates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        halves = updates.chunk(2, dim=1)
        return torch.cat([fldp.aggregate(h, plan, generator=generator).mean for h in halves])

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert neighbour_test(in_halves, plan, like=20).violated
    assert said == []
