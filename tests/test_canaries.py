"""Canaries: orthogonal, within memory, as the hook of training asks, scored as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fldp
from fldp.audit.canaries import CANARIES, Canaries, flat, neighbours, pair


def plan_of(**changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-5, "rounds": 3, "clients": 40} | changes
    return fldp.calibrate(**options)


def test_directions_are_orthogonal_unit_vectors() -> None:
    canaries = Canaries(7, 50, plan=plan_of(), seed=0, loudness=1.0)
    canaries.included[:] = True
    rows = canaries.rows(torch.arange(33, 40), 0).double()
    torch.testing.assert_close(rows @ rows.T, torch.eye(7).double(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(canaries.project(rows[3]), np.eye(7)[3], atol=1e-6)


def test_a_canary_that_its_coin_left_out_sends_nothing_or_the_opposite() -> None:
    ids = torch.arange(30, 40)
    zero = Canaries(10, 50, plan=plan_of(), seed=0)
    rows = zero.rows(ids, 0)
    assert (rows.norm(dim=1) > 0).tolist() == zero.included.tolist()
    opposite = Canaries(10, 50, plan=plan_of(adjacency="replace-one"), seed=0)
    signs = np.sign(opposite.project(opposite.rows(ids, 0).sum(0)))
    np.testing.assert_array_equal(signs, np.where(opposite.included, 1, -1))


def test_coins_are_new_for_every_crowd_and_ours_alone() -> None:
    crowds = [Canaries(200, 400, plan=plan_of(clients=300)).included for _ in range(2)]
    assert not np.array_equal(*crowds)
    seeded = Canaries(200, 400, plan=plan_of(clients=300), seed=3).included
    assert not np.array_equal(seeded, np.random.default_rng(3).random(200) < 0.5)
    assert np.array_equal(seeded, Canaries(200, 400, plan=plan_of(clients=300), seed=3).included)


@pytest.mark.parametrize("adjacency", ["zero-out", "replace-one"])
def test_the_score_is_the_log_likelihood_ratio_of_the_releases(adjacency: str) -> None:
    plan = plan_of(cohort=10, adjacency=adjacency)
    canaries = Canaries(4, 4, plan=plan, seed=0)
    rng = torch.Generator().manual_seed(0)
    releases = torch.randn(3, 4, generator=rng, dtype=torch.float64)
    for i, release in enumerate(releases):
        canaries.observe(release, i)
    q, z = plan.sampling_rate, plan.noise_multiplier
    x = np.stack([canaries.project(r) for r in releases]) * plan.cohort

    def density(mean: float) -> np.ndarray:
        return np.exp(-((x - mean) ** 2) / (2 * z * z))

    present = (1 - q) * density(0) + q * density(1)
    absent = density(0)
    if adjacency == "replace-one":
        absent = (1 - q) * density(0) + q * density(-1)
    np.testing.assert_allclose(canaries.scores, np.log(present / absent).sum(0), rtol=1e-6)


def test_what_is_not_finite_is_the_surest_of_all() -> None:
    canaries = Canaries(4, 8, plan=plan_of(), seed=0)
    release = torch.zeros(8)
    release[int(canaries._order[0])] = float("nan")
    canaries.observe(release, 0)
    assert np.isfinite(canaries.scores).all()
    assert canaries.scores.argmax() == 0


def test_a_structure_is_one_vector() -> None:
    parts = {"a": torch.ones(2, 2), "b": np.zeros(3)}
    assert flat(parts).shape == (7,)
    assert flat(torch.ones(5)).shape == (5,)


@pytest.mark.parametrize("adjacency", ["add-or-remove", "zero-out", "replace-one"])
@pytest.mark.parametrize("case", CANARIES)
def test_a_pair_differs_in_the_canary_alone(case: str, adjacency: str) -> None:
    two = pair(case, plan_of(adjacency=adjacency), 16)
    assert torch.equal(two.present[:39], two.absent[:39])
    assert len(two.absent) == (39 if adjacency == "add-or-remove" else 40)
    if adjacency != "add-or-remove":
        wanted = -two.present[-1] if adjacency == "replace-one" else torch.zeros(16)
        assert torch.equal(two.absent[-1].nan_to_num(), wanted.nan_to_num())


def test_a_lonely_canary_is_zeroed_because_nobody_would_be_left() -> None:
    present, absent = neighbours(torch.zeros(0, 3), torch.ones(3), "add-or-remove")
    assert present.shape == absent.shape == (1, 3)


def test_bad_input_is_refused() -> None:
    for match, call in (
        ("orthogonal", lambda: Canaries(10, 9, plan=plan_of())),
        ("clients", lambda: Canaries(41, 100, plan=plan_of())),
        ("count", lambda: Canaries(0, 100, plan=plan_of())),
        ("clip_norm", lambda: Canaries(5, 100, plan=plan_of(), clip_norm=0.0)),
        ("no release", lambda: Canaries(5, 100, plan=plan_of()).scores),
        ("no canary", lambda: Canaries(5, 100, plan=plan_of()).rows(torch.tensor([3]), 0)),
        ("coordinates", lambda: Canaries(5, 100, plan=plan_of()).observe(torch.ones(99), 0)),
        ("coordinate", lambda: pair("huge", plan_of(), 1)),
        ("canary is", lambda: pair("parrot", plan_of(), 8)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
