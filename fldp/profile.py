"""A plan as curves (δ over ε, an attacker's errors) and as the events of dp-accounting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp.checks import between

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# The trade-off curve is the envelope of the tests that this many ε allow; δ of the last is so small
# that one more would move it by less.
_LINES = 120
_LEAST_DELTA = 1e-9


def numbers(name: str, values: ArrayLike | Sequence[float], high: float) -> list[float]:
    """`values` as floats from 0 to `high`, or a ValueError that names the wrong one."""
    return [between(f"one of {name}", value, high) for value in np.ravel(np.asarray(values))]


def deltas(plan: PrivacyPlan, epsilons: ArrayLike) -> NDArray[np.float64]:
    """See `PrivacyPlan.curve`."""
    run = [dataclasses.replace(plan.event, rounds=plan.rounds)]
    asked = numbers("epsilons", epsilons, np.inf)
    return np.array([accounting.delta_of(run, epsilon, plan.adjacency) for epsilon in asked])


def tradeoff(plan: PrivacyPlan, alphas: ArrayLike) -> NDArray[np.float64]:
    """See `PrivacyPlan.tradeoff`."""
    alpha = np.array(numbers("alphas", alphas, 1.0))
    run = [dataclasses.replace(plan.event, rounds=plan.rounds)]
    last = accounting.epsilon_of(run, _LEAST_DELTA, plan.adjacency)
    epsilons = last * np.linspace(0.0, 1.0, _LINES)
    missed = np.zeros_like(alpha)
    for epsilon, delta in zip(epsilons, deltas(plan, epsilons), strict=True):
        # (ε, δ) allows no test with less (Kairouz, Oh & Viswanath 2015), in either direction
        steep = 1 - delta - np.exp(epsilon) * alpha
        flat = np.exp(-epsilon) * (1 - delta - alpha)
        missed = np.maximum(missed, np.maximum(steep, flat))
    return missed


def to_dp_accounting(plan: PrivacyPlan) -> Any:
    """See `PrivacyPlan.to_dp_accounting`."""
    event, z = plan.event, plan.noise_multiplier
    if event.sampling != "none" and event.known:
        raise ValueError("dp-accounting's PLD has no adversary who knows who took part")
    if event.sampling == "fixed":
        raise ValueError("dp-accounting's PLD cannot express a draw of fixed size")
    try:
        import dp_accounting as dp
    except ImportError:
        raise ValueError("dp-accounting is not installed: pip install 'fldp[verify]'") from None
    one: Any = dp.GaussianDpEvent(z)
    if event.cap is not None:
        one = dp.TruncatedSubsampledGaussianDpEvent(plan.clients, event.sampling_rate, event.cap, z)
    elif event.sampling == "poisson":
        one = dp.PoissonSampledDpEvent(event.sampling_rate, one)
    return dp.SelfComposedDpEvent(one, plan.rounds)
