"""The neighbour test: the same noise on neighbouring inputs finds what statistics cannot."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fldp
from fldp.neighbours import neighbour_test


def plan_of(epsilon: float) -> fldp.PrivacyPlan:
    return fldp.calibrate(epsilon=epsilon, delta=1e-5, rounds=1, clients=16)


def correct(plan: fldp.PrivacyPlan) -> Any:
    return lambda updates, generator=None: fldp.aggregate(updates, plan, 1.0, generator=generator)


def test_structured_updates_reach_the_pipeline_and_per_tensor_clipping_is_caught() -> None:
    plan, like = plan_of(2.0), [torch.zeros(4, 4), torch.zeros(4), torch.zeros(2, 4)]

    def per_tensor(updates: Any, generator: Any = None) -> Any:
        clipped = [[fldp.clip(t, 1.0)[0] for t in u] for u in updates]
        total = torch.stack([torch.cat([t.flatten() for t in u]) for u in clipped]).sum(0)
        noise = torch.randn(total.shape, generator=generator) * plan.noise_multiplier
        return (total + noise) / plan.denominator

    assert not neighbour_test(correct(plan), plan, like=like).violated
    found = neighbour_test(per_tensor, plan, like=like)
    assert found.ratios["spread"] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert found.violated
    assert "violation" in found.statement()


def test_no_pipeline_of_the_package_fails_the_neighbour_test() -> None:
    from benchmarks.audits import LIKE
    from benchmarks.audits import correct as pipelines

    for name, (fn, plan) in pipelines().items():
        assert not neighbour_test(fn, plan, like=LIKE).violated, name


def test_noise_of_its_own_is_refused() -> None:
    plan = plan_of(1.0)
    with pytest.raises(ValueError, match="noise differs"):
        neighbour_test(lambda u: fldp.aggregate(u, plan, 1.0), plan)
