"""A plan as curves (δ over ε, an attacker's errors) and as the events of dp-accounting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp import accounting
from fldp.account import rounds_of
from fldp.checks import between
from fldp.guide import Guide

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# The trade-off curve is the envelope of the tests that this many ε allow; δ of the last is so small
# that one more would move it by less.
_LINES = 120
_LEAST_DELTA = 1e-9
# The quadrature of Rényi divergences: standard deviations that the largest order may move the loss,
# and how many more are kept.
_FURTHEST = 500.0
_MARGIN = 10.0


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


def renyi(plan: PrivacyPlan, orders: ArrayLike) -> NDArray[np.float64]:
    """See `PrivacyPlan.renyi`."""
    order = np.array(numbers("orders", orders, np.inf))
    event = dataclasses.replace(plan.event, rounds=plan.rounds)
    furthest = 2 * float(order.max(initial=1.0)) / event.noise_multiplier
    if (order <= 1).any() or furthest > _FURTHEST:
        raise ValueError(
            f"orders are {order.tolist()}: give orders above 1, and at most "
            f"{_FURTHEST * event.noise_multiplier / 2:.4g}, beyond which no ε is worth a name"
        )
    if event.sampling == "none" or event.known:
        return _renyi_of_known(event, plan.adjacency, order)
    # outputs that far out carry the moment of the largest order, all but e^-50 of it
    log_delta = -((furthest + _MARGIN) ** 2) / 2
    found = np.zeros_like(order)
    for direction in ("remove", "add"):
        guide = Guide(rounds_of([event], plan.adjacency, direction), log_delta)
        found = np.maximum(found, guide.log_mgf(order - 1) / (order - 1))
    return found


def _renyi_of_known(
    event: accounting.Event, adjacency: str, order: NDArray[np.float64]
) -> NDArray[np.float64]:
    """In each round a Gaussian with chance q and nothing otherwise, and which of them is public."""
    sensitivity = 2.0 if adjacency == "replace-one" else 1.0
    exponent = order * (order - 1) * (sensitivity / event.noise_multiplier) ** 2 / 2
    if event.everyone:
        return np.asarray(event.rounds * exponent / (order - 1))
    q = event.sampling_rate
    round_ = np.logaddexp(np.log1p(-q), np.log(q) + exponent)
    return np.asarray(event.rounds * round_ / (order - 1))


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
