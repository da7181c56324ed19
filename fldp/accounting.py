"""Epsilon, delta and noise multiplier of the Gaussian mechanism, composed over rounds.

The unit is what was clipped to norm C and noised once per round: a client's update. Local epochs,
batch sizes and client data sizes do not enter. `noise_multiplier` is always the noise's standard
deviation on the sum divided by C; under "replace-one" the sensitivity 2C is handled here.

The default accountant, "pld", is our own (:mod:`fldp.pld`; without sampling the closed form of
Balle & Wang 2018): an upper bound, loose by a few 1e-4. Opacus' own stand behind the same
signature, without fixed-size cohorts, caps or sampled replace-one:

- "prv": an upper bound, up to 0.01 too high in absolute terms;
- "rdp": an upper bound, often 5-20 % too high, with a floor near 0.1 at delta = 1e-5;
- "gdp": a central-limit *approximation* that can lie far below the truth: it warns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fldp import pld
from fldp.account import ACCOUNTANTS, delta_of, epsilon_of, prepared, rounds_of
from fldp.account import _mu as _mu
from fldp.checks import choice, real, whole
from fldp.events import (
    ADJACENCIES,
    SAMPLINGS,
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Laplace,
    event_from_dict,
)
from fldp.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    zcdp_epsilon,
    zcdp_rho,
)

__all__ = [
    "ACCOUNTANTS",
    "ADJACENCIES",
    "SAMPLINGS",
    "AnyEvent",
    "Approximate",
    "Concentrated",
    "Event",
    "Laplace",
    "delta",
    "delta_of",
    "epsilon",
    "epsilon_of",
    "event_from_dict",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "max_rounds",
    "min_cohort",
    "noise_multiplier",
    "zcdp_epsilon",
    "zcdp_rho",
]

_Z_RANGE = {True: (5e-3, 1e8), False: (0.05, 1e3)}  # ours; Opacus' own fail outside theirs


def epsilon(
    *,
    noise_multiplier: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
    known: bool = False,
) -> float:
    """Epsilon that a run spends: an upper bound ("gdp": an approximation).

    Parameters
    ----------
    noise_multiplier
        z: noise standard deviation on the sum, in clip norms.
    delta, rounds
        delta in (0, 1), well below 1/N; global rounds, not local steps.
    sampling_rate, sampling
        The share q of clients per round, and how they are chosen: "poisson" (each on its own),
        "fixed" (exactly q N without replacement; replace-one only) or "none" (q = 1).
    adjacency, accountant
        "add-or-remove", "zero-out" (the same number) or "replace-one"; see the module.
    clients, cap
        The population, for "fixed" and for a hard `cap` on a Poisson cohort.
    known
        The adversary knows who took part, see :class:`Event`.

    >>> round(epsilon(noise_multiplier=1.0, delta=1e-5, rounds=100, sampling_rate=0.01), 2)
    0.72
    """
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap, known)
    return epsilon_of([event], delta, adjacency, accountant)


def delta(
    *, noise_multiplier: float, epsilon: float, rounds: int, sampling_rate: float = 1.0,
    sampling: str = "poisson", adjacency: str = "add-or-remove", accountant: str = "pld",
    clients: int | None = None, cap: int | None = None, known: bool = False,
) -> float:  # fmt: skip
    """Delta that a run spends at this `epsilon`; arguments as in :func:`epsilon`.

    >>> delta(noise_multiplier=1.0, epsilon=0.74, rounds=100, sampling_rate=0.01) < 1.1e-5
    True
    """
    if choice("accountant", accountant, ACCOUNTANTS) != "pld":
        raise ValueError(f"accountant is {accountant!r}: it gives epsilon only; use 'pld'")
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap, known)
    return delta_of([event], epsilon, adjacency)


def noise_multiplier(
    *, epsilon: float, delta: float, rounds: int, sampling_rate: float = 1.0,
    sampling: str = "poisson", adjacency: str = "add-or-remove", accountant: str = "pld",
    clients: int | None = None, cap: int | None = None, known: bool = False,
) -> float:  # fmt: skip
    """The noise multiplier z for a budget: `0.999 * epsilon <= epsilon(z) <= epsilon`.

    Arguments as in :func:`epsilon`. An epsilon that cannot be reached raises a ValueError with the
    smallest that can.

    >>> round(noise_multiplier(epsilon=8.0, delta=1e-5, rounds=100), 3)
    6.002
    """
    target, delta = real("epsilon", epsilon), real("delta", delta, 1)
    event = Event(1.0, sampling_rate, sampling, rounds, clients, cap, known)
    if accountant == "pld" and event.everyone and _plainly([event], adjacency, accountant):
        return _mu([event], adjacency) / gaussian_mu(target, delta) * (1 + 1e-10)

    try:
        return _search(target, delta, event, adjacency, accountant)
    except pld.OutOfReach:
        raise ValueError(
            f"epsilon is {target}: it is out of numerical reach here; ask for a value between "
            "0.01 and 500, or change delta or rounds"
        ) from None


def _plainly(events: list[Event], adjacency: str, accountant: str) -> list[AnyEvent]:
    choice("accountant", accountant, ACCOUNTANTS)
    return prepared(events, adjacency, 1)


def _search(target: float, delta: float, event: Event, adjacency: str, accountant: str) -> float:
    """Search log z: by the saddle point, then on a coarse grid, then for good."""

    def run(x: float) -> list[Event]:
        return [replace(event, noise_multiplier=math.exp(x))]

    def guess(x: float) -> float:
        return pld.estimate(rounds_of(run(x), adjacency, "remove"), delta)

    def rough(x: float) -> float:
        one_way = rounds_of(run(x), adjacency, "remove")
        return pld.solve(one_way, delta=delta, epsilon=target, accuracy=16 * pld.ACCURACY)

    def full(x: float) -> float:
        return epsilon_of(run(x), delta, adjacency, accountant)

    x, slope, ours = 0.0, -1.5, accountant == "pld"
    if ours and _plainly([event], adjacency, accountant):
        x, slope = _settle(guess, target, x, slope, 1e-2)
        # what the coarse grid adds in the ordinary case is known: aim above by as much
        x, slope = _settle(rough, target * (1 + 12.5 * pld.ACCURACY), x, slope, 1e-2)
    return math.exp(_settle(full, target, x, slope, 8e-4, _Z_RANGE[ours])[0])


def _settle(
    f: Callable[[float], float], target: float, x: float, slope: float, tol: float,
    final: tuple[float, float] | None = None,
) -> tuple[float, float]:  # fmt: skip
    """log z with f = target up to `tol` (`final`: from below), and the slope there; f decreases."""
    low, high = map(math.log, final or _Z_RANGE[True])
    aim = target * (1 - tol / 2) if final else target
    left = right = last = None
    for _ in range(100):
        value = f(x)
        y = math.log(max(value, 1e-12 * aim) / aim)
        if last is not None and last[0] != x and last[1] != y:
            slope = min(-0.05, (y - last[1]) / (x - last[0]))
        left, right = ((x, y), right) if y > 0 else (left, (x, y))
        edge = (left and x >= high) or (right and x <= low)
        if target * (1 - tol) <= value <= target * (1 if final else 1 + tol) or (
            edge and not final
        ):
            return (x if final or edge else x - y / slope), slope
        if edge and left:
            raise ValueError(
                f"epsilon is {target}: it cannot be reached, the smallest is {value:.4g}; ask for "
                "more, or change delta, rounds, sampling or accountant"
            )
        if edge:
            raise ValueError(
                f"epsilon is {target}: almost no noise already gives {value:.4g} at this delta; "
                "ask for less, or for a smaller delta"
            )
        last, step = (x, y), x - max(-1.5, min(1.5, y / slope))
        if left and right:
            width = right[0] - left[0]
            if abs(width) < 1e-12 * max(1.0, abs(x)):
                return right[0], slope
            if not left[0] + 0.01 * width < step < right[0] - 0.01 * width:
                step = 0.5 * (left[0] + right[0])
        x = min(high, max(low, step))
    raise ValueError(f"epsilon is {target}: no noise multiplier found; change it slightly")


def max_rounds(*, epsilon: float, delta: float, noise_multiplier: float, **setting: Any) -> int:
    """The most rounds that fit a budget, 0 if none; further arguments as in :func:`epsilon`.

    >>> max_rounds(epsilon=8.0, delta=1e-5, noise_multiplier=6.01)
    100
    """
    target, known = real("epsilon", epsilon), {"noise_multiplier": noise_multiplier, **setting}
    ask = globals()["epsilon"]

    def fits(rounds: int) -> bool:
        try:
            return bool(ask(rounds=rounds, delta=delta, **known) <= target)
        except ValueError:
            if rounds == 1 or known.get("accountant", "pld") != "pld":
                raise
            return False  # so many rounds are out of numerical reach

    good, bad = 0, 1
    while fits(bad):
        good, bad = bad, bad * 4
        if bad > 1 << 40:
            raise ValueError(f"noise_multiplier is {noise_multiplier}: 2**40 rounds fit; use less")
    while bad - good > 1:
        middle = min(bad - 1, max(good + 1, round(math.sqrt(good * bad))))
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def min_cohort(
    *, epsilon: float, delta: float, rounds: int, clients: int, noise_on_mean: float,
    sampling: str = "poisson", adjacency: str = "add-or-remove", accountant: str = "pld",
) -> int:  # fmt: skip
    """The smallest cohort m that meets a budget at a given noise on the *mean*.

    `noise_on_mean` is z/m, in clip norms: what the model tolerates, found without privacy at a
    small cohort (McMahan et al. 2018). z and m then grow together until epsilon fits.

    >>> min_cohort(epsilon=2.0, delta=1e-5, rounds=100, clients=3383, noise_on_mean=0.01)
    104
    """
    target, ratio = real("epsilon", epsilon), real("noise_on_mean", noise_on_mean)
    good, bad = whole("clients", clients), 0

    def spent(m: int) -> float:
        event = Event(ratio * m, m / clients, sampling, rounds, clients)
        return epsilon_of([event], delta, adjacency, accountant)

    if (best := spent(clients)) > target:
        raise ValueError(
            f"epsilon is {target}: even all {clients} clients give {best:.4g} at noise_on_mean="
            f"{ratio:g}; accept more noise, fewer rounds or a larger epsilon"
        )
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if spent(middle) <= target else (good, middle)
    return good
