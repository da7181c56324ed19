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
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fldp import pld
from fldp.checks import choice, real, whole

SAMPLINGS = ("poisson", "fixed", "none")
ADJACENCIES = ("add-or-remove", "zero-out", "replace-one")
ACCOUNTANTS = ("pld", "prv", "rdp", "gdp")
_OPACUS = {"prv": "PRVAccountant", "rdp": "RDPAccountant", "gdp": "GaussianAccountant"}
_Z_RANGE = {True: (5e-3, 1e8), False: (0.05, 1e3)}  # ours; Opacus' own fail outside theirs


@dataclass(frozen=True)
class Event:
    """What one mechanism ran, `rounds` times: the thing an accountant composes.

    `sampling` is "poisson" or "fixed" at `sampling_rate` q = m/N, or "none" (q = 1). `clients` is
    N; `cap` a hard cap on a Poisson cohort (a uniform subset is kept). Both need N.

    >>> Event(1.0, 0.01, "poisson", rounds=100).to_dict()["rounds"]
    100
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    sampling: str = "none"
    rounds: int = 1
    clients: int | None = None
    cap: int | None = None

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("noise_multiplier", real("noise_multiplier", self.noise_multiplier))
        put("rounds", whole("rounds", self.rounds))
        choice("sampling", self.sampling, SAMPLINGS)
        try:
            put("sampling_rate", float(self.sampling_rate))
        except (TypeError, ValueError):
            put("sampling_rate", math.nan)
        q, problem = self.sampling_rate, ""
        for name in ("clients", "cap"):
            if getattr(self, name) is not None:
                put(name, whole(name, getattr(self, name)))
        if not 0 < q <= 1:
            problem = f"sampling_rate is {q}: give the share m/N of clients, in (0, 1]"
        elif self.sampling == "none" and q != 1:
            problem = (
                f"sampling_rate is {q} with sampling='none': no amplification is claimed, so leave "
                "the rate at 1, or name the sampling"
            )
        elif self.cap is not None and (self.sampling != "poisson" or self.clients is None):
            problem = f"cap is {self.cap}: a cap needs sampling='poisson' and clients=N"
        elif self.sampling == "fixed" and self.clients is None:
            problem = "clients is None with sampling='fixed': give the population N"
        elif self.sampling == "fixed" and self.clients is not None:
            m = q * self.clients
            if abs(m - round(m)) > 1e-6 * m or round(m) < 1:
                problem = f"sampling_rate is {q} with sampling='fixed': {m:g} is not a whole cohort"
        if problem:
            raise ValueError(problem)

    @property
    def everyone(self) -> bool:
        """Whether every client takes part for certain: then the round is a plain Gaussian."""
        return self.sampling_rate == 1 and (self.cap is None or self.cap >= (self.clients or 0))

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Event:
        """The inverse of :meth:`to_dict`."""
        return cls(**fields)


def _erfcx(x: float) -> float:
    """exp(x^2) erfc(x) for x >= 0."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    y = 1 / (2 * x * x)
    return (1 - y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y)))) / (x * math.sqrt(math.pi))


def _log_delta(mu: float, epsilon: float) -> float:
    near, far = ((epsilon / mu + sign * mu / 2) * math.sqrt(0.5) for sign in (-1, 1))
    if near < 0:
        gap = math.erfc(near) - math.exp(-near * near) * _erfcx(far)
        return math.log(max(0.5 * gap, 1e-300))
    return math.log(max(0.5 * (_erfcx(near) - _erfcx(far)), 1e-300)) - near * near


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The upper end of the narrowest bracket of the root of a decreasing `f`."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return high


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian whose sensitivity/noise ratio is `mu` (Balle & Wang 2018, Thm 8).

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    return math.exp(_log_delta(real("mu", mu), epsilon and real("epsilon", epsilon)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a Gaussian whose sensitivity/noise ratio is `mu` (Balle & Wang 2018).

    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    mu, goal = real("mu", mu), math.log(real("delta", delta, 1))
    if _log_delta(mu, 0.0) <= goal:
        return 0.0
    high = mu * mu / 2 + mu * (1 + math.sqrt(-2 * goal))
    return _bisect(lambda e: _log_delta(mu, e) - goal, 0.0, high)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest sensitivity/noise ratio `mu` that is (epsilon, delta)-DP; z = sqrt(T) / mu.

    >>> round(1 / gaussian_mu(1.0, 1e-5), 6)
    3.730632
    """
    epsilon, goal = real("epsilon", epsilon), math.log(real("delta", delta, 1))
    return math.exp(-_bisect(lambda x: _log_delta(math.exp(-x), epsilon) - goal, -30.0, 60.0))


def _binomial_sf(k: int, n: int, p: float) -> float:
    """P[Bin(n, p) > k]."""
    if k >= n or p == 1:
        return float(k < n)
    i = np.arange(k + 1, n + 1)
    first = math.lgamma(n + 1) - math.lgamma(k + 2) - math.lgamma(n - k)
    first += (k + 1) * math.log(p) + (n - k - 1) * math.log1p(-p)
    steps = np.log((n - i[1:] + 1) / i[1:]) + math.log(p) - math.log1p(-p)
    return float(min(1.0, np.exp(first + np.concatenate([[0.0], np.cumsum(steps)])).sum()))


def _parts(event: Event, adjacency: str, direction: str) -> list[pld.Part]:
    """The dominating pair of one sampled round as a mixture of the kernel's kinds."""
    q, z, n, cap = event.sampling_rate, event.noise_multiplier, event.clients, event.cap
    if event.sampling == "fixed" and adjacency != "replace-one":
        raise ValueError(
            f"adjacency is {adjacency!r} with sampling='fixed': a client that is left out is "
            "replaced by another, so use adjacency='replace-one', or sampling='poisson'"
        )
    if event.sampling == "fixed":
        return [(1.0, "fixed", q, z)]
    kind = "replace" if adjacency == "replace-one" else direction if q < 1 else "remove"
    if n is None or cap is None or cap >= n:
        return [(1.0, kind, q, z)]
    # the cap binds with chance `full`; then a sampled target takes another client's place
    full, over = _binomial_sf(cap - 1, n - 1, q), _binomial_sf(cap, n, q)
    if full <= 0 or over <= 0:
        return [(1.0, kind, q, z)]
    bound = (full, "replace", min(1.0, over * cap / full / n), z / 2)
    return [bound] if full >= 1 else [(1 - full, kind, q, z), bound]


def _mu(events: Sequence[Event], adjacency: str) -> float:
    sensitivity = 2 if adjacency == "replace-one" else 1
    return sensitivity * math.sqrt(sum(e.rounds / e.noise_multiplier**2 for e in events))


def _rounds(events: Sequence[Event], adjacency: str, direction: str) -> list[pld.Round]:
    counts: dict[Event, int] = {}
    for e in events:
        if not e.everyone:
            one = replace(e, rounds=1)
            counts[one] = counts.get(one, 0) + e.rounds
    rounds: list[pld.Round] = [(_parts(e, adjacency, direction), n) for e, n in counts.items()]
    if plain := [e for e in events if e.everyone]:
        rounds.append(([(1.0, "remove", 1.0, 1 / _mu(plain, adjacency))], 1))
    return rounds


def _ask(
    events: Sequence[Event], adjacency: str, delta: float | None, epsilon: float | None = None
) -> float:
    """Epsilon at `delta`, or delta at `epsilon` when `delta` is None."""
    if all(e.everyone for e in events):
        mu = _mu(events, adjacency)
        return gaussian_epsilon(mu, delta) if delta else gaussian_delta(mu, epsilon or 0.0)
    remove = pld.solve(_rounds(events, adjacency, "remove"), delta=delta, epsilon=epsilon)
    if adjacency == "replace-one":
        return remove
    add = _rounds(events, adjacency, "add")
    if delta is None:
        return max(remove, pld.solve(add, epsilon=epsilon))
    bound = pld.ceiling(add, delta)
    if bound < 0.999 * remove:
        return remove
    try:
        return max(remove, pld.solve(add, delta=delta))
    except ValueError:  # next to zero the grid can be out of reach: the moment bound stands in
        return max(remove, bound)


def _opacus(events: Sequence[Event], delta: float, adjacency: str, accountant: str) -> float:
    name, sampled = f"accountant is {accountant!r}", any(not e.everyone for e in events)
    if any(e.sampling == "fixed" or e.cap is not None for e in events):
        raise ValueError(
            f"{name}: it knows no fixed-size cohorts and no caps; use accountant='pld'"
        )
    if adjacency == "replace-one" and sampled:
        raise ValueError(f"{name}: it has no replace-one for sampling; use accountant='pld'")
    if accountant == "gdp" and len(events) != 1:
        raise ValueError(f"{name}: it takes one kind of round only; use accountant='pld'")
    scale = 0.5 if adjacency == "replace-one" else 1.0
    try:
        from opacus import accountants

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = getattr(accountants, _OPACUS[accountant])()
            tool.history = [(scale * e.noise_multiplier, e.sampling_rate, e.rounds) for e in events]
            found = float(tool.get_epsilon(delta))
        if not math.isfinite(found):
            raise ArithmeticError(f"its epsilon is {found}")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name}: Opacus fails here ({reason}); use accountant='pld'") from error
    if accountant == "gdp":
        warnings.warn(
            f"{name}: a central-limit approximation, no guarantee; it can under-report eightfold",
            stacklevel=4,
        )
    return max(0.0, found)


def _checked(events: Sequence[Event], adjacency: str, accountant: str) -> list[Event]:
    choice("adjacency", adjacency, ADJACENCIES)
    choice("accountant", accountant, ACCOUNTANTS)
    for e in events:
        if not isinstance(e, Event):
            raise ValueError(f"events hold {e!r}: give fldp.Event objects")
    return list(events)


def epsilon_of(
    events: Sequence[Event],
    delta: float,
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
) -> float:
    """Epsilon of rounds that may differ in noise and sampling, settings fixed beforehand.

    >>> run = [Event(1.0, 0.01, "poisson", rounds=50), Event(2.0, 0.02, "poisson", rounds=50)]
    >>> 0.5 < epsilon_of(run, delta=1e-5) < 1.5
    True
    """
    delta, events = real("delta", delta, 1), _checked(events, adjacency, accountant)
    if not events:
        return 0.0
    if accountant != "pld":
        return _opacus(events, delta, adjacency, accountant)
    return _ask(events, adjacency, delta)


def delta_of(events: Sequence[Event], epsilon: float, adjacency: str = "add-or-remove") -> float:
    """Delta of rounds that may differ in noise and sampling, at this epsilon >= 0.

    >>> 0 < delta_of([Event(1.0, 0.01, "poisson", rounds=50)], epsilon=1.0) < 1e-5
    True
    """
    events, epsilon = _checked(events, adjacency, "pld"), epsilon and real("epsilon", epsilon)
    return _ask(events, adjacency, None, epsilon) if events else 0.0


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

    >>> round(epsilon(noise_multiplier=1.0, delta=1e-5, rounds=100, sampling_rate=0.01), 2)
    0.72
    """
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap)
    return epsilon_of([event], delta, adjacency, accountant)


def delta(
    *, noise_multiplier: float, epsilon: float, rounds: int, sampling_rate: float = 1.0,
    sampling: str = "poisson", adjacency: str = "add-or-remove", accountant: str = "pld",
    clients: int | None = None, cap: int | None = None,
) -> float:  # fmt: skip
    """Delta that a run spends at this `epsilon`; arguments as in :func:`epsilon`.

    >>> delta(noise_multiplier=1.0, epsilon=0.74, rounds=100, sampling_rate=0.01) < 1.1e-5
    True
    """
    if choice("accountant", accountant, ACCOUNTANTS) != "pld":
        raise ValueError(f"accountant is {accountant!r}: it gives epsilon only; use 'pld'")
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap)
    return delta_of([event], epsilon, adjacency)


def noise_multiplier(
    *, epsilon: float, delta: float, rounds: int, sampling_rate: float = 1.0,
    sampling: str = "poisson", adjacency: str = "add-or-remove", accountant: str = "pld",
    clients: int | None = None, cap: int | None = None,
) -> float:  # fmt: skip
    """The noise multiplier z for a budget: `0.999 * epsilon <= epsilon(z) <= epsilon`.

    Arguments as in :func:`epsilon`. An epsilon that cannot be reached raises a ValueError with the
    smallest that can.

    >>> round(noise_multiplier(epsilon=8.0, delta=1e-5, rounds=100), 3)
    6.002
    """
    target, delta = real("epsilon", epsilon), real("delta", delta, 1)
    event = Event(1.0, sampling_rate, sampling, rounds, clients, cap)
    if accountant == "pld" and event.everyone and _checked([event], adjacency, accountant):
        return _mu([event], adjacency) / gaussian_mu(target, delta) * (1 + 1e-10)

    try:
        return _search(target, delta, event, adjacency, accountant)
    except pld.OutOfReach:
        raise ValueError(
            f"epsilon is {target}: it is out of numerical reach here; ask for a value between "
            "0.01 and 500, or change delta or rounds"
        ) from None


def _search(target: float, delta: float, event: Event, adjacency: str, accountant: str) -> float:
    """Search log z: by the saddle point, then on a coarse grid, then for good."""

    def run(x: float) -> list[Event]:
        return [replace(event, noise_multiplier=math.exp(x))]

    def guess(x: float) -> float:
        return pld.estimate(_rounds(run(x), adjacency, "remove"), delta)

    def rough(x: float) -> float:
        one_way = _rounds(run(x), adjacency, "remove")
        return pld.solve(one_way, delta=delta, epsilon=target, accuracy=16 * pld.ACCURACY)

    def full(x: float) -> float:
        return epsilon_of(run(x), delta, adjacency, accountant)

    x, slope, ours = 0.0, -1.5, accountant == "pld"
    if ours and _checked([event], adjacency, accountant):
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
