# ruff: noqa: E501
"""Epsilon, delta and noise multiplier of the Gaussian mechanism, composed over rounds.

The unit is whatever was clipped to norm C and noised once per round: a client's update. Local epochs,
batch sizes and client data sizes do not enter. ``noise_multiplier`` is always the noise's standard
deviation on the sum divided by C; under ``replace-one`` the sensitivity 2C is handled here.

The default accountant, ``"pld"``, is our own (:mod:`fldp.pld`; without sampling, Balle & Wang's closed
form): an upper bound, with looseness of a few 1e-4. Opacus' own stand behind the same signature:

- ``"prv"``: an upper bound, up to 0.01 too high in absolute terms;
- ``"rdp"``: an upper bound, 5-20 % too high in practice, with a floor near 0.1 at delta = 1e-5;
- ``"gdp"``: a central-limit *approximation* that can lie far below the truth: it warns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fldp import pld

SAMPLINGS = ("poisson", "fixed", "none")
ADJACENCIES = ("add-or-remove", "zero-out", "replace-one")
ACCOUNTANTS = ("pld", "prv", "rdp", "gdp")
_Z_RANGE = {True: (5e-3, 1e8), False: (0.05, 1e3)}  # ours; Opacus' own fail outside theirs


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: use one of {', '.join(map(repr, choices))}")


def _number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str)) or not low < number < high:
        limit = "positive and finite" if high == math.inf else f"in ({low:g}, {high:g})"
        raise ValueError(f"{name}={value!r}: it must be a number {limit}")
    return number


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}={value!r}: it must be an integer of at least 1")
    return int(value)


@dataclass(frozen=True)
class Event:
    """What one mechanism ran, ``rounds`` times: the thing an accountant composes.

    Parameters
    ----------
    noise_multiplier
        Noise standard deviation on the sum, in clip norms.
    sampling_rate, sampling
        q in (0, 1] and who took part: "poisson", "fixed" (q = m/N exactly, ``clients`` = N) or "none".
    rounds
        How often.
    clients, cap
        Population N, and a hard cap on a Poisson cohort (a uniform subset is kept), if there was one.

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
        _number("noise_multiplier", self.noise_multiplier)
        _one_of("sampling", self.sampling, SAMPLINGS)
        _count("rounds", self.rounds)
        rate = self.sampling_rate
        if not (isinstance(rate, (int, float, np.number)) and 0 < rate <= 1):
            raise ValueError(
                f"sampling_rate={rate!r}: it must be in (0, 1], the share m/N of clients"
            )
        if self.sampling == "none" and rate != 1:
            raise ValueError(
                f"sampling='none' with sampling_rate={rate}: no amplification is claimed, so leave the "
                "rate at 1, or name the sampling"
            )
        if self.clients is not None:
            _count("clients", self.clients)
        if self.sampling == "fixed":
            if self.clients is None:
                raise ValueError("sampling='fixed': give clients, the population N")
            cohort = rate * self.clients
            if abs(cohort - round(cohort)) > 1e-6 * cohort or round(cohort) < 1:
                raise ValueError(
                    f"sampling='fixed': sampling_rate * clients = {cohort:g} is not a whole cohort; "
                    "use sampling_rate = m / N"
                )
        if self.cap is not None:
            _count("cap", self.cap)
            if self.sampling != "poisson" or self.clients is None:
                raise ValueError(f"cap={self.cap}: a cap needs sampling='poisson' and clients=N")

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Event:
        """The inverse of :meth:`to_dict`."""
        return cls(**fields)


# ---- no sampling: T Gaussians are one Gaussian with mu = sqrt(T) / z


def _erfcx(x: float) -> float:
    """exp(x^2) erfc(x) for x >= 0."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    y = 1 / (2 * x * x)
    return (1 - y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y)))) / (x * math.sqrt(math.pi))


def _log_gaussian_delta(mu: float, epsilon: float) -> float:
    root = math.sqrt(0.5)
    near, far = (epsilon / mu - mu / 2) * root, (epsilon / mu + mu / 2) * root
    if near < 0:
        tail = math.exp(-near * near) * _erfcx(far)
        return math.log(max(0.5 * (math.erfc(near) - tail), 1e-300))
    return math.log(max(0.5 * (_erfcx(near) - _erfcx(far)), 1e-300)) - near * near


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The upper end of the last bracket of the root of a decreasing ``f``, to the last bits."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        low, high = (middle, high) if f(middle) > 0 else (low, middle)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian mechanism with sensitivity/noise ratio ``mu`` (Balle & Wang 2018).

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    mu, epsilon = _number("mu", mu), _number("epsilon", epsilon, -1e-300)
    return math.exp(_log_gaussian_delta(mu, epsilon))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of a Gaussian mechanism with sensitivity/noise ratio ``mu`` (Balle & Wang 2018).

    >>> round(gaussian_epsilon(1.0, 1e-5), 6)
    4.377178
    """
    mu, goal = _number("mu", mu), math.log(_number("delta", delta, 0, 1))
    if _log_gaussian_delta(mu, 0.0) <= goal:
        return 0.0
    high = mu * mu / 2 + mu * (1 + math.sqrt(-2 * goal))
    return _bisect(lambda e: _log_gaussian_delta(mu, e) - goal, 0.0, high)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest sensitivity/noise ratio ``mu`` that is (epsilon, delta)-DP; z = sqrt(T) / mu.

    >>> round(1 / gaussian_mu(1.0, 1e-5), 6)
    3.730632
    """
    epsilon, goal = _number("epsilon", epsilon), math.log(_number("delta", delta, 0, 1))
    f = lambda x: _log_gaussian_delta(math.exp(-x), epsilon) - goal  # noqa: E731
    return math.exp(-_bisect(f, -30.0, 60.0))


# ---- events to privacy-loss distributions


def _binomial_sf(k: int, n: int, p: float) -> float:
    """P[Bin(n, p) > k]."""
    if k >= n:
        return 0.0
    i = np.arange(max(0, k + 1), n + 1)
    if p == 1:
        return 1.0
    steps = np.log((n - i[1:] + 1) / i[1:]) + math.log(p) - math.log1p(-p)
    start = i[0]
    first = math.lgamma(n + 1) - math.lgamma(start + 1) - math.lgamma(n - start + 1)
    first += start * math.log(p) + (n - start) * math.log1p(-p)
    return float(min(1.0, np.exp(first + np.concatenate([[0.0], np.cumsum(steps)])).sum()))


def _parts(event: Event, adjacency: str, direction: str) -> list[pld.Part]:
    """The dominating pair of one round as a mixture of the kernel's kinds."""
    q, z = float(event.sampling_rate), float(event.noise_multiplier)
    if event.sampling == "fixed" and q < 1:
        if adjacency != "replace-one":
            raise ValueError(
                f"sampling='fixed' with adjacency={adjacency!r}: a missing client is replaced by another "
                "one, so account with adjacency='replace-one' (it covers zero-out), or use Poisson"
            )
        return [(1.0, "fixed", q, z)]
    kind = "replace" if adjacency == "replace-one" else direction if q < 1 else "remove"
    parts: list[pld.Part] = [(1.0, kind, q, z)]
    if event.cap is not None and event.clients is not None and event.cap < event.clients:
        # with this chance the cap binds for a sampled target, who then takes another client's place
        full = _binomial_sf(event.cap - 1, event.clients - 1, q)
        over = _binomial_sf(event.cap, event.clients, q)
        if full > 0 and over > 0:
            rate = min(1.0, over * event.cap / full / event.clients)
            parts = [(1 - full, kind, q, z), (full, "replace", rate, z / 2)]
    return [p for p in parts if p[0] > 0]


def _is_gaussian(event: Event) -> bool:
    return event.sampling_rate == 1 and (event.cap is None or event.cap >= (event.clients or 0))


def _rounds(events: Sequence[Event], adjacency: str, direction: str) -> list[pld.Round]:
    plain = [e for e in events if _is_gaussian(e)]
    rounds: list[pld.Round] = []
    if plain:
        rounds.append(([(1.0, "remove", 1.0, 1 / _mu(plain, adjacency))], 1))
    merged: dict[Event, int] = {}
    for e in events:
        if not _is_gaussian(e):
            key = replace(e, rounds=1)
            merged[key] = merged.get(key, 0) + e.rounds
    return rounds + [(_parts(e, adjacency, direction), n) for e, n in merged.items()]


def _mu(events: Sequence[Event], adjacency: str) -> float:
    reach = 2 if adjacency == "replace-one" else 1
    return reach * math.sqrt(sum(e.rounds / e.noise_multiplier**2 for e in events))


def _ask(
    events: Sequence[Event], adjacency: str, delta: float | None, epsilon: float | None = None
) -> float:
    """Epsilon at ``delta``, or delta at ``epsilon`` when ``delta`` is None, by closed form or PLD."""
    if all(_is_gaussian(e) for e in events):
        mu = _mu(events, adjacency)
        return gaussian_epsilon(mu, delta) if delta else gaussian_delta(mu, epsilon or 0.0)
    one_way = adjacency == "replace-one"
    remove = pld.solve(_rounds(events, adjacency, "remove"), delta=delta, epsilon=epsilon)
    if one_way:
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


# ---- Opacus' accountants


def _opacus_epsilon(
    events: Sequence[Event], delta: float, adjacency: str, accountant: str
) -> float:
    for e in events:
        if e.sampling == "fixed" or e.cap is not None:
            raise ValueError(
                f"accountant={accountant!r} knows neither fixed-size cohorts nor caps: use accountant='pld'"
            )
        if adjacency == "replace-one" and e.sampling_rate != 1:
            raise ValueError(
                f"accountant={accountant!r} has no replace-one for sampled clients: use accountant='pld'"
            )
    scale = 0.5 if adjacency == "replace-one" else 1.0
    history = [(scale * e.noise_multiplier, float(e.sampling_rate), e.rounds) for e in events]
    try:
        from opacus import accountants
    except ImportError as error:
        raise ValueError(f"accountant={accountant!r} needs Opacus: pip install opacus") from error
    if accountant == "gdp":
        if len(history) != 1:
            raise ValueError("accountant='gdp' takes one kind of round: use accountant='pld'")
        warnings.warn(
            "accountant='gdp' is a central-limit approximation and can under-report epsilon, up to "
            "eightfold: it is no guarantee",
            UserWarning,
            stacklevel=4,
        )
    names = {"prv": "PRVAccountant", "rdp": "RDPAccountant", "gdp": "GaussianAccountant"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = getattr(accountants, names[accountant])()
            tool.history = history
            found = float(tool.get_epsilon(delta))
    except Exception as error:
        raise ValueError(
            f"Opacus' {accountant!r} accountant fails here ({type(error).__name__}: {error}): "
            "use accountant='pld'"
        ) from error
    if not math.isfinite(found):
        raise ValueError(f"Opacus' {accountant!r} accountant gives {found}: use accountant='pld'")
    return max(0.0, found)


# ---- the public functions


def _check(adjacency: str, accountant: str, events: Sequence[Event]) -> None:
    _one_of("adjacency", adjacency, ADJACENCIES)
    _one_of("accountant", accountant, ACCOUNTANTS)
    for e in events:
        if not isinstance(e, Event):
            raise ValueError(f"events hold {e!r}: give fldp.Event objects")


def epsilon_of(
    events: Sequence[Event],
    delta: float,
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
) -> float:
    """Epsilon of rounds that may differ in noise and sampling, composed adaptively.

    >>> run = [Event(1.0, 0.01, "poisson", rounds=50), Event(2.0, 0.02, "poisson", rounds=50)]
    >>> 0.5 < epsilon_of(run, delta=1e-5) < 1.5
    True
    """
    delta = _number("delta", delta, 0, 1)
    events = list(events)
    _check(adjacency, accountant, events)
    if not events:
        return 0.0
    if accountant != "pld":
        return _opacus_epsilon(events, delta, adjacency, accountant)
    return _ask(events, adjacency, delta)


def delta_of(events: Sequence[Event], epsilon: float, adjacency: str = "add-or-remove") -> float:
    """Delta of rounds that may differ in noise and sampling, at this epsilon.

    >>> 0 < delta_of([Event(1.0, 0.01, "poisson", rounds=50)], epsilon=1.0) < 1e-5
    True
    """
    epsilon = _number("epsilon", epsilon, -1e-300)
    events = list(events)
    _check(adjacency, "pld", events)
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
    """Epsilon that ``rounds`` rounds spend: an upper bound (``gdp``: an approximation).

    Parameters
    ----------
    noise_multiplier
        z: noise standard deviation on the sum, in clip norms.
    delta
        In (0, 1); well below 1/N.
    rounds
        Global rounds, not local steps.
    sampling_rate, sampling
        Share q of clients per round and how they are chosen: "poisson" (each on its own), "fixed" (exactly
        q N, without replacement; replace-one only; needs ``clients``), "none" (q = 1).
    adjacency
        "add-or-remove", "zero-out" (the same number) or "replace-one".
    accountant
        "pld", "prv", "rdp" or "gdp": see the module.
    clients, cap
        Population, for "fixed" and for a hard ``cap`` on a Poisson cohort.

    >>> round(epsilon(noise_multiplier=1.0, delta=1e-5, rounds=100, sampling_rate=0.01), 2)
    0.72
    """
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap)
    return epsilon_of([event], delta, adjacency, accountant)


def delta(
    *,
    noise_multiplier: float,
    epsilon: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
) -> float:
    """Delta that ``rounds`` rounds spend at this ``epsilon``; arguments as in :func:`epsilon`.

    >>> delta(noise_multiplier=1.0, epsilon=0.74, rounds=100, sampling_rate=0.01) < 1.1e-5
    True
    """
    if accountant != "pld":
        _one_of("accountant", accountant, ACCOUNTANTS)
        raise ValueError(f"accountant={accountant!r} gives epsilon only: use accountant='pld'")
    event = Event(noise_multiplier, sampling_rate, sampling, rounds, clients, cap)
    return delta_of([event], epsilon, adjacency)


def noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
) -> float:
    """The noise multiplier z for a budget: ``0.999 * epsilon <= epsilon(z) <= epsilon``.

    Arguments as in :func:`epsilon`. ValueError says the smallest epsilon that can be reached, if this one
    cannot.

    >>> round(noise_multiplier(epsilon=8.0, delta=1e-5, rounds=100), 3)
    6.002
    """
    target, delta = _number("epsilon", epsilon), _number("delta", delta, 0, 1)
    event = Event(1.0, sampling_rate, sampling, rounds, clients, cap)
    _check(adjacency, accountant, [event])
    if accountant == "pld" and _is_gaussian(event):
        return _mu([event], adjacency) / gaussian_mu(target, delta) * (1 + 1e-10)

    def trial(x: float) -> list[Event]:
        return [replace(event, noise_multiplier=math.exp(x))]

    def full(x: float) -> float:
        return epsilon_of(trial(x), delta, adjacency, accountant)

    def guess(x: float) -> float:
        return max(1e-9, pld.estimate(_rounds(trial(x), adjacency, "remove"), delta))

    def rough(x: float) -> float:
        rounds = _rounds(trial(x), adjacency, "remove")
        return pld.solve(rounds, delta=delta, epsilon=target, accuracy=16 * pld.ACCURACY)

    x, slope = 0.0, -1.5
    if accountant == "pld":
        x, slope = _settle(guess, target, x, slope, 1e-2, exact=False)
        x, slope = _settle(rough, target, x, slope, 3e-3, exact=False)
    ours = accountant == "pld"
    return math.exp(_settle(full, target, x, slope, 8e-4, exact=True, ours=ours)[0])


def _settle(
    f: Callable[[float], float],
    target: float,
    x: float,
    slope: float,
    tol: float,
    exact: bool,
    ours: bool = True,
) -> tuple[float, float]:
    """log z with f = target (within ``tol``; from below if ``exact``), and the slope there.

    A secant in logarithms inside a bracket; f decreases.
    """
    low, high = map(math.log, _Z_RANGE[ours])
    aim = target * (1 - tol / 2) if exact else target
    left = right = last = None
    for _ in range(100):
        value = f(x)
        y = math.log(max(value, 1e-12 * aim) / aim)
        if last is not None and last[0] != x and last[1] != y:
            slope = min(-0.05, (y - last[1]) / (x - last[0]))
        if target * (1 - tol) <= value <= target * (1 + (0 if exact else tol)):
            return x, slope
        left, right = ((x, y), right) if y > 0 else (left, (x, y))
        if not exact and ((left and x >= high) or (right and x <= low)):
            return x, slope
        if left and x >= high:
            raise ValueError(
                f"epsilon={target}: it cannot be reached; the smallest is {value:.4g}. Ask for more, "
                "or change delta, rounds, sampling or accountant"
            )
        if right and x <= low:
            raise ValueError(
                f"epsilon={target}: almost no noise already gives {value:.4g} at this delta: ask for "
                "less, or for a smaller delta"
            )
        last = (x, y)
        step = x - max(-1.5, min(1.5, y / slope))
        if left and right:
            width = right[0] - left[0]
            if abs(width) < 1e-12 * max(1.0, abs(x)):
                return right[0], slope
            if not left[0] + 0.01 * width < step < right[0] - 0.01 * width:
                step = 0.5 * (left[0] + right[0])
        x = min(high, max(low, step))
    raise ValueError(f"epsilon={target}: no noise multiplier found; change the target slightly")


def max_rounds(
    *,
    epsilon: float,
    delta: float,
    noise_multiplier: float,
    sampling_rate: float = 1.0,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
    clients: int | None = None,
    cap: int | None = None,
) -> int:
    """The most rounds that stay within (``epsilon``, ``delta``); 0 if one round is too many.

    >>> max_rounds(epsilon=8.0, delta=1e-5, noise_multiplier=6.01)
    100
    """
    target = _number("epsilon", epsilon)
    event = Event(noise_multiplier, sampling_rate, sampling, 1, clients, cap)

    def fits(rounds: int) -> bool:
        try:
            spent = epsilon_of([replace(event, rounds=rounds)], delta, adjacency, accountant)
        except ValueError:
            if rounds == 1 or accountant != "pld":
                raise
            return False
        return spent <= target

    good, bad = 0, 1
    while fits(bad):
        good, bad = bad, bad * 4
        if bad > 1 << 40:
            raise ValueError(
                f"noise_multiplier={noise_multiplier}: more than {good} rounds fit; any number in practice"
            )
    while bad - good > 1:
        middle = round(math.sqrt(good * bad)) if good else (good + bad) // 2
        middle = min(bad - 1, max(good + 1, middle))
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def min_cohort(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    clients: int,
    noise_on_mean: float,
    sampling: str = "poisson",
    adjacency: str = "add-or-remove",
    accountant: str = "pld",
) -> int:
    """The smallest expected cohort m that meets a budget at a given noise on the *mean*.

    ``noise_on_mean`` is z/m, in clip norms: what the model tolerates, tuned at a small cohort without
    privacy (McMahan et al. 2018). z and m then grow together until epsilon fits.

    >>> min_cohort(epsilon=2.0, delta=1e-5, rounds=100, clients=3383, noise_on_mean=0.01)
    104
    """
    target, ratio = _number("epsilon", epsilon), _number("noise_on_mean", noise_on_mean)
    clients = _count("clients", clients)

    def spent(m: int) -> float:
        event = Event(ratio * m, m / clients, sampling, rounds, clients)
        return epsilon_of([event], delta, adjacency, accountant)

    good, bad = clients, 0
    best = spent(clients)
    if best > target:
        raise ValueError(
            f"epsilon={target}: even all {clients} clients give {best:.4g} at noise_on_mean={ratio:g}; "
            "accept more noise on the mean, fewer rounds or a larger epsilon"
        )
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if spent(middle) <= target else (good, middle)
    return good
