"""Noise that is correlated over rounds, as one object: a rational filter.

Round t adds, in place of fresh noise g_t, what the filter num(x)/den(x) makes of g_1, ..., g_t. As
a matrix that is C⁻¹, lower triangular and the same along each diagonal, and C = den/num is what the
adversary can at best undo: whoever changes the inputs of the rounds by u changes the fresh noise by
C·u. So a client costs its sensitivity under C, and the release pays with the error of A·C⁻¹, A the
workload: what is made of the rounds, such as their sums so far. Independent noise is 1/1.

Every Toeplitz mechanism of the literature is one: fractional powers (1-x)^γ of the noise cut off
(Kalinin et al. 2026, arXiv 2505.12128, at γ = 1/2), buffered linear Toeplitz noise (Dvijotham et
al. 2024), banded C (Choquette-Choo et al. 2023). Coefficients that are fitted to a run come from
:mod:`fldp.accounting.fitting`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp._checks import between, listed, shown, whole

Array = NDArray[np.float64]

# More coefficients than any federation has memory for: each buffers a model.
MOST_COEFFICIENTS = 4096
# How far rounding may take a coefficient of C from where it should be: its largest, the first, is 1
# and each is a sum of products of numbers of that size.
_ROUNDING = 1e-10
# No coefficient of a filter whose C falls is near to this: with all poles at 1 and order 30 there
# are binomials of 1e8.
_LARGEST = 1e9
# How large the noise, or what a run keeps for it, may become beside the fresh noise of a round. In
# single precision 7 digits are kept: of noise 1e8 times larger than the fresh one nothing of the
# fresh one is left, and the release less what it took over from the last rounds is the data.
_LOUDEST = 1e3
# Up to this order a series by powers of a matrix beats the import of a library for it.
_SMALL_ORDER = 64
# Rounds at most: beyond, nobody waits for a series.
MOST_ROUNDS = 10**6


@dataclass(frozen=True)
class Filter:
    """C⁻¹ = num(x)/den(x), the filter that makes the noise of a run out of fresh noise.

    Parameters
    ----------
    num, den
        Coefficients of 1, x, x², ..., of which the first is 1: round t adds the fresh noise of
        round t itself at full size. `den` of (1,): a finite filter.

    Raises
    ------
    ValueError
        For what is no list of finite numbers that begins with 1.

    Examples
    --------
    >>> half = Filter((1.0, -0.5))  # takes half of the last round's noise back
    >>> half.inverse(3).tolist(), half.coefficients(3).tolist()
    ([1.0, -0.5, 0.0], [1.0, 0.5, 0.25])
    """

    num: tuple[float, ...]
    den: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("num", "den"):
            object.__setattr__(self, name, _polynomial(name, getattr(self, name)))

    @property
    def order(self) -> int:
        """How many numbers a run keeps for each coordinate of the model between two rounds."""
        return max(len(self.num), len(self.den)) - 1

    def coefficients(self, rounds: int) -> Array:
        """The first column of C, (rounds,): what a participation moves in each later round.

        Parameters
        ----------
        rounds
            T.

        Returns
        -------
        array
            It begins with 1.

        Examples
        --------
        >>> fractional(2, 0.5).coefficients(3).tolist()
        [1.0, 0.5, 0.25]
        """
        return _series(self.den, self.num, _rounds(rounds))

    def inverse(self, rounds: int) -> Array:
        """The first column of C⁻¹, (rounds,): how much of each earlier fresh noise a round adds.

        Parameters
        ----------
        rounds
            T.

        Returns
        -------
        array
            It begins with 1.

        Examples
        --------
        >>> fractional(2, 0.5).inverse(3).tolist()
        [1.0, -0.5, 0.0]
        """
        return _series(self.num, self.den, _rounds(rounds))

    def sensitivity(self, rounds: int, participations: int, separation: int) -> float:
        """How far one client moves the fresh noise of all rounds together, in clip norms.

        Exact: the worst client takes part in rounds 1, 1 + b, 1 + 2b, ..., k times, if the
        coefficients of C never rise and are never negative (Kalinin & Lampert 2024, theorem 2), or
        end before the client comes again, so that its participations do not overlap.

        Parameters
        ----------
        rounds
            T; of a run that stopped, the rounds it had.
        participations
            k, the most rounds in which any client takes part.
        separation
            b, the rounds from one participation of a client to its next, at least: r₂ - r₁.

        Returns
        -------
        float
            At least 1. What rounding may hide is added, never left out.

        Raises
        ------
        ValueError
            For coefficients that rise, or are negative, and overlap: no formula is known for them.
            For noise that grows over the rounds until a round's fresh noise is lost in rounding.

        Examples
        --------
        >>> independent().sensitivity(rounds=100, participations=9, separation=10)
        3.0
        >>> round(fractional(2, 0.5).sensitivity(100, participations=9, separation=10), 3)
        3.467
        """
        return _sensitivity(
            self,
            _rounds(rounds),
            whole("participations", participations),
            whole("separation", separation),
        )

    def error(self, rounds: int, workload: ArrayLike | None = None) -> float:
        """The error in what is made of the rounds, in standard deviations of the fresh noise.

        Parameters
        ----------
        rounds
            T.
        workload
            (T,), the weights of a round's release in its own result and the later ones; None: 1
            each, the sums so far, which are the models of a run with steps of one size.
            `momentum_workload` has those of a server with momentum.

        Returns
        -------
        float
            The root of the mean square over rounds.

        Raises
        ------
        ValueError
            For another number of weights than rounds.

        Examples
        --------
        >>> round(independent().error(100), 3)
        7.106
        >>> round(fractional(2, 0.5).error(100), 3)
        3.657
        """
        count = _rounds(rounds)
        noise = self.inverse(count)
        if workload is None:
            sums = np.cumsum(noise)
        else:
            weights = np.asarray(workload, dtype=float)
            if weights.shape != (count,):
                raise ValueError(
                    f"workload has shape {weights.shape}: give a weight for each of the {count} "
                    "rounds"
                )
            sums = _product(weights, noise)
        # The entry of lag t is there once for each of the T - t rounds that have it.
        return math.sqrt(float(sums**2 @ np.arange(count, 0, -1)) / count)

    def to_dict(self) -> dict[str, list[float]]:
        """The coefficients as lists, ready for JSON.

        Returns
        -------
        dict
            With `num` and `den`.

        Examples
        --------
        >>> fractional(2, 0.5).to_dict()
        {'num': [1.0, -0.5], 'den': [1.0]}
        """
        return {"num": list(self.num), "den": list(self.den)}

    @classmethod
    def from_dict(cls, fields: Any) -> Filter:
        """The filter of `to_dict`.

        Parameters
        ----------
        fields
            With `num` and `den`, and nothing else.

        Returns
        -------
        Filter
            Equal to the one that was written.

        Raises
        ------
        ValueError
            For anything else.

        Examples
        --------
        >>> Filter.from_dict(independent().to_dict()) == independent()
        True
        """
        if not isinstance(fields, dict) or set(fields) != {"num", "den"}:
            raise ValueError(
                f"a filter is {shown(fields)}: give a dict of its coefficients, num and den"
            )
        return cls(fields["num"], fields["den"])


def independent() -> Filter:
    """Fresh noise in every round, and nothing else.

    Returns
    -------
    Filter
        1/1.

    Examples
    --------
    >>> independent().order
    0
    """
    return Filter((1.0,))


def fractional(count: int, gamma: float = 0.5) -> Filter:
    """The first `count` coefficients of (1-x)^γ: noise that takes back some of the last rounds'.

    Noise goes into sums, which is 1/(1-x); with γ = 1 all but the last round's noise would cancel,
    and a client would move everything after it. At γ = 1/2 sum and noise share the burden equally,
    the best that is known in closed form without a limit on `count` (Fichtenberger et al. 2023);
    cut off, another γ may be better: `fitting.fitted_fractional` looks for it.

    Parameters
    ----------
    count
        p, of which p - 1 rounds of fresh noise are kept.
    gamma
        γ, 0 (independent noise) to 1.

    Returns
    -------
    Filter
        With `num` of p coefficients.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> fractional(4, 0.5).num
    (1.0, -0.5, -0.125, -0.0625)
    """
    gamma = between("gamma", gamma)
    count = whole("count", count)
    # r_i = r_{i-1} · (i - 1 - γ)/i, by the binomial series.
    steps = np.arange(1, count)
    ratios = (steps - 1 - gamma) / steps
    return Filter(tuple(np.concatenate([[1.0], np.cumprod(ratios)]).tolist()))


def momentum_workload(rounds: int, momentum: float) -> Array:
    """What a server with momentum makes of a release: its weights in this and the later models.

    Parameters
    ----------
    rounds
        T.
    momentum
        β, 0 to below 1; 0 gives the sums so far.

    Returns
    -------
    array
        (T,): 1, 1 + β, 1 + β + β², ...

    Raises
    ------
    ValueError
        For a momentum of 1 or more.

    Examples
    --------
    >>> momentum_workload(3, 0.5).tolist()
    [1.0, 1.5, 1.75]
    """
    beta = below_one("momentum", momentum)
    return np.cumsum(beta ** np.arange(_rounds(rounds), dtype=float))


def below_one(name: str, value: float) -> float:
    """`value` as a number from 0 to below 1.

    Parameters
    ----------
    name
        Of the argument, for the message.
    value
        What a caller gave.

    Returns
    -------
    float
        It.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> below_one("momentum", 0.9)
    0.9
    """
    found = between(name, value)
    if found == 1:
        raise ValueError(f"{name} is 1: give a number below 1, or nothing ever fades")
    return found


def stacked(coefficients: Array, times: int, separation: int) -> Array:
    """The sum of `times` copies of the coefficients, each `separation` later than the one before.

    Parameters
    ----------
    coefficients
        (T,).
    times, separation
        k and b; what would begin after T rounds is left out.

    Returns
    -------
    array
        (T,).

    Examples
    --------
    >>> stacked(np.array([1.0, 0.5, 0.25]), 2, 1).tolist()
    [1.0, 1.5, 0.75]
    """
    count = len(coefficients)
    width = min(separation, count)
    # In rows of `separation` rounds copies stand below each other: sums down a column, less those
    # of the copies that ended.
    rows = np.zeros(-(-count // width) * width)
    rows[:count] = coefficients
    sums = np.cumsum(rows.reshape(-1, width), axis=0)
    if times < len(sums):
        sums[times:] -= sums[:-times].copy()
    return sums.reshape(-1)[:count]


@functools.lru_cache(maxsize=256)
def _sensitivity(filter: Filter, rounds: int, participations: int, separation: int) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        moved = filter.coefficients(rounds)
    if not np.isfinite(moved).all():
        raise ValueError(
            f"{_named(filter)} has coefficients of C that outgrow all numbers within {rounds} "
            "rounds: no noise would be enough"
        )
    _refuse_loud(filter, rounds)
    last = int(np.flatnonzero(moved)[-1])
    if last >= separation:
        moved = _falling(filter, moved)
    total = stacked(moved, participations, separation)
    return float(np.linalg.norm(total))


def _refuse_loud(filter: Filter, rounds: int) -> None:
    """ValueError where fresh noise is lost beside what is added to it: C hides nothing then."""
    with np.errstate(over="ignore", invalid="ignore"):
        # What is kept goes as 1/den, also where num cancels it.
        parts = (filter.inverse(rounds), _series((1.0,), filter.den, rounds))
    largest = max(float(np.abs(part).max()) for part in parts)
    # NaN is below nothing.
    if not largest <= _LOUDEST:
        raise ValueError(
            f"{_named(filter)} makes noise that grows to {largest:.3g} times the fresh noise of a "
            f"round within {rounds} rounds, which is then lost in rounding, and hides nothing; "
            "take one of fldp.accounting.filters, or a den without a root below 1"
        )


def _falling(filter: Filter, moved: Array) -> Array:
    """Coefficients that never rise and are never negative; what rounding did is raised, not kept.

    The formula holds for the result, and what is nowhere smaller has no smaller sensitivity: the
    answer is an upper bound whatever the coefficients are.
    """
    raised = np.maximum.accumulate(np.abs(moved)[::-1])[::-1]
    if float((raised - moved).max()) > _ROUNDING:
        raise ValueError(
            f"{_named(filter)} has coefficients of C that rise or are negative, and reach into a "
            "client's next participation: no formula is known for their sensitivity; take one of "
            "fldp.accounting.filters, or fewer bands than the separation"
        )
    return raised


def _named(filter: Filter) -> str:
    return f"a filter of order {filter.order}"


def _rounds(rounds: int) -> int:
    count = whole("rounds", rounds)
    if count > MOST_ROUNDS:
        raise ValueError(f"rounds is {count}: correlated noise takes at most {MOST_ROUNDS}")
    return count


def _polynomial(name: str, values: Any) -> tuple[float, ...]:
    given = listed(name, values)
    if not 1 <= len(given) <= MOST_COEFFICIENTS:
        raise ValueError(f"{name} has {len(given)} coefficients: give 1 to {MOST_COEFFICIENTS}")
    found = []
    for value in given:
        number = isinstance(value, int | float | np.integer | np.floating)
        # NaN lies within no limits, and a whole number may be too large for a float.
        if isinstance(value, bool) or not number or not -_LARGEST <= value <= _LARGEST:
            raise ValueError(f"{name} holds {shown(value)}: give numbers of at most {_LARGEST:g}")
        found.append(float(value))
    if found[0] != 1:
        raise ValueError(
            f"{name} begins with {found[0]:g}: begin with 1, so that z is the noise that a round "
            "adds of its own"
        )
    return tuple(found)


def _series(top: Sequence[float], bottom: Sequence[float], count: int) -> Array:
    """The first `count` coefficients of top(x)/bottom(x)."""
    order = max(len(top), len(bottom)) - 1
    if len(bottom) == 1:
        found = np.zeros(count)
        found[: min(count, len(top))] = top[:count]
        return found
    if order > _SMALL_ORDER:
        from scipy.signal import lfilter

        impulse = np.zeros(count)
        impulse[0] = 1.0
        return np.asarray(lfilter(top, bottom, impulse), dtype=float)
    above, below = np.zeros(order + 1), np.zeros(order + 1)
    above[: len(top)] = top
    below[: len(bottom)] = bottom
    # The filter's state after the impulse, and what a round without input makes of a state.
    state = above[1:] - below[1:] * above[0]
    step = np.eye(order, k=1)
    step[:, 0] = -below[1:]
    # Row t reads the output of t rounds later off a state. With n rows and the n-th power of the
    # step there are 2n rows; with about √T rows, the states √T rounds apart are as many.
    rows = np.eye(1, order)
    while len(rows) ** 2 < count:
        rows = np.concatenate([rows, rows @ step])
        step = step @ step
    states = [state]
    while len(states) * len(rows) < count - 1:
        states.append(step @ states[-1])
    later = (np.array(states) @ rows.T).reshape(-1)
    return np.concatenate([above[:1], later[: count - 1]])


def _product(first: Array, second: Array) -> Array:
    """The first len(first) coefficients of the product of two series."""
    size = 2 * len(first)
    return np.fft.irfft(np.fft.rfft(first, size) * np.fft.rfft(second, size), size)[: len(first)]
