"""Which grid, which modulus, and how much integer noise: public numbers that follow from a plan.

A finer grid rounds less, and needs a larger modulus: the sum, with its noise, must fit into 2^bits
but for six standard deviations. What wraps around is wrong, and no less private. All lengths here
are in steps of the grid, and one client's largest contribution C·cap is Δ of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from fldp._checks import whole
from fldp.accounting.lattice import skellam_gdp
from fldp.mechanism.rotation import padded
from fldp.mechanism.rounding import longest
from fldp.mechanism.turnout import likely, shares

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# The moduli that are tried when none is given, and those that may be given.
USUAL_BITS = (16, 20, 24, 32)
FEWEST_BITS, MOST_BITS = 8, 32
# Half a modulus, in standard deviations of the sum: beyond them 2·10^-9 of its entries wrap.
DEVIATIONS = 6.0
# The noise beyond that of a Gaussian with which a number of bits is good enough, and with which a
# stated number of bits is too few.
_GOOD, _USELESS = 1.01, 2.0
# No finer than it pays: below a standard deviation of 2^14 steps one table draws all of the noise,
# and an excess of a thousandth is nothing.
_WIDE, _NOTHING = 2.0**14, 1.001
# Nor wider than a thousand draws from the widest table, nor longer than int64 squares allow.
_WIDEST, _FINEST = 2.0**19, 2.0**26
# A grid coarser than one contribution tells nothing; how often the search for the finest halves.
_COARSEST, _HALVINGS = 1.0, 60
# Shares are whole multiples of 2^-20 steps², so that fractions stay short.
_PARTS = 1 << 20
# Below this variance m₁ is asked for; above, (1 + 1/6μ)/√μ is right to 10^-3 and better.
_NARROW = 10.0
# So many digits does each turn of its search add that four are enough.
_TURNS = 4
# By so much a variance is raised that turned out too small for z.
_MORE = 1e-7


class Terms(NamedTuple):
    """What a grid is made for.

    Parameters
    ----------
    noise_multiplier : float
        z, which the noise must reach.
    size : int
        d.
    uploads : int
        How many clients a sum is prepared for.
    shares : int
        How many shares of noise make up z.
    arriving : int
        How many arrive in such a sum.

    Examples
    --------
    >>> Terms(1.0, 650, uploads=100, shares=80, arriving=100).size
    650
    """

    noise_multiplier: float
    size: int
    uploads: int
    shares: int
    arriving: int

    @classmethod
    def of(cls, plan: PrivacyPlan, size: int) -> Terms:
        """Those of a plan, for vectors of d coordinates.

        Parameters
        ----------
        plan : PrivacyPlan
            Central or distributed trust.
        size : int
            d.

        Returns
        -------
        Terms
        """
        uploads = likely(plan)
        arriving = uploads if plan.trust == "distributed" else 1
        return cls(plan.noise_multiplier, size, uploads, shares(plan), arriving)


@dataclass(frozen=True)
class Grid:
    """A grid and its noise. Guarantee: `limit` and `share` give at least the z of the terms.

    Parameters
    ----------
    bits : int
        Sums are taken modulo 2^bits.
    width : int
        D: how many whole numbers a client's vector has, the power of two from d on.
    fineness : float
        Δ: how many steps C·cap is.
    limit : int
        S²: the largest squared norm of a client's rounded vector, in steps.
    share : Fraction
        The variance of one share of the noise, in steps².
    shares : int
        How many shares make up the accounted noise.
    overhead : float
        The standard deviation of noise and rounding together, over that of the Gaussian with the
        same guarantee.

    Examples
    --------
    >>> grid = finest(Terms(1.0, 650, uploads=100, shares=80, arriving=100), bits=16)
    >>> grid.noise_multiplier >= 1.0, grid.overhead < 1.001
    (True, True)
    """

    bits: int
    width: int
    fineness: float
    limit: int
    share: Fraction
    shares: int
    overhead: float

    @property
    def norm(self) -> float:
        """S, the largest norm of a client's rounded vector, in steps: the root of `limit`."""
        return math.sqrt(self.limit)

    @property
    def variance(self) -> float:
        """μ, that of the accounted noise, in steps²."""
        return float(self.share * self.shares)

    @property
    def noise_multiplier(self) -> float:
        """z of the Gaussian that hides at most as well: 1 / (S·m₁)."""
        return 1 / (self.norm * skellam_gdp(self.variance))


def finest(terms: Terms, bits: int, deviations: float = DEVIATIONS) -> Grid | None:
    """The finest grid that fits a modulus, or is as fine as it pays.

    Parameters
    ----------
    terms : Terms
        What it is made for.
    bits : int
        Sums are taken modulo 2^bits.
    deviations : float
        Half the modulus, in standard deviations of the sum.

    Returns
    -------
    Grid or None
        None where not even a step as long as a contribution fits.

    Examples
    --------
    >>> grid = finest(Terms(1.0, 10**4, uploads=100, shares=100, arriving=100), bits=16)
    >>> round(grid.overhead, 3)
    1.0
    """
    half = 2.0 ** (bits - 1)

    def fits(fineness: float) -> bool:
        variance = _variance(terms, fineness)
        wide = math.sqrt(variance * terms.arriving / terms.shares) > _WIDEST
        return not wide and deviations * _spread(terms, fineness, variance) <= half

    def pays(fineness: float) -> bool:
        variance = _variance(terms, fineness)
        wide = math.sqrt(variance * terms.arriving / terms.shares) > _WIDE
        return not wide or _overhead(terms, fineness, variance) > _NOTHING

    if not fits(_COARSEST):
        return None
    fineness = _largest(lambda x: fits(x) and pays(x))
    return _made(terms, bits, fineness)


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest fineness for which it holds, where it does for all smaller ones."""
    low, high = _COARSEST, _FINEST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _made(terms: Terms, bits: int, fineness: float) -> Grid:
    """The grid of a fineness, with noise enough by the account itself."""
    variance = _variance(terms, fineness)
    while True:
        share = Fraction(math.ceil(variance / terms.shares * _PARTS), _PARTS)
        whole_noise = float(share * terms.shares)
        width = padded(terms.size)
        grid = Grid(
            bits=bits,
            width=width,
            fineness=fineness,
            limit=longest(fineness, width),
            share=share,
            shares=terms.shares,
            overhead=_overhead(terms, fineness, whole_noise),
        )
        if grid.noise_multiplier >= terms.noise_multiplier:
            return grid
        variance *= 1 + _MORE


def _variance(terms: Terms, fineness: float) -> float:
    """Next to the μ for which z = 1 / (S·m₁)."""
    plain = terms.noise_multiplier**2 * longest(fineness, padded(terms.size))
    variance = plain
    # Each turn brings it some digits nearer.
    for _ in range(_TURNS):
        excess = (1 + 1 / (6 * variance)) ** 2
        if variance < _NARROW:
            excess = skellam_gdp(variance) ** 2 * variance
        variance = plain * excess
    return variance


def _spread(terms: Terms, fineness: float, variance: float) -> float:
    """The standard deviation of a coordinate of the sum, if all clients send the same."""
    aligned = (terms.uploads * fineness) ** 2 / padded(terms.size)
    # Rounding at random moves a coordinate by half a step at most.
    rounding = terms.uploads / 4
    return math.sqrt(aligned + rounding + variance * terms.arriving / terms.shares)


def _overhead(terms: Terms, fineness: float, variance: float) -> float:
    arriving = terms.arriving / terms.shares
    # Rounding a coordinate that may lie anywhere between two steps has the variance 1/6.
    found = math.sqrt(variance * arriving + terms.uploads / 6) / fineness
    return found / (terms.noise_multiplier * math.sqrt(arriving))


@lru_cache(maxsize=256)
def grid_for(terms: Terms, bits: int | None = None) -> Grid:
    """The grid of a round.

    Parameters
    ----------
    terms : Terms
        What it is made for.
    bits : int, optional
        8 to 32. None: the first of 16, 20, 24 and 32 with which noise and rounding together stay
        within a hundredth of the Gaussian's standard deviation.

    Returns
    -------
    Grid

    Raises
    ------
    ValueError
        Where the modulus is too small: with the stated bits noise and rounding would be more than
        twice the Gaussian's, or with 32 more than a hundredth above it.

    Examples
    --------
    >>> grid_for(Terms(1.0, 10**6, uploads=10**4, shares=10**4, arriving=10**4)).bits
    20
    """
    if bits is None:
        for tried in USUAL_BITS:
            grid = finest(terms, tried)
            if grid is not None and grid.overhead <= _GOOD:
                return grid
        raise ValueError(
            f"no grid of {MOST_BITS} bits is fine enough for z = {terms.noise_multiplier:.4g}, d = "
            f"{terms.size} and {terms.uploads} clients: use fewer clients, less noise or Gaussian()"
        )
    bits = whole("bits", bits)
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"bits is {bits}: give {FEWEST_BITS} to {MOST_BITS}, or None")
    grid = finest(terms, bits)
    if grid is None or grid.overhead > _USELESS:
        found = "no grid fits"
        if grid is not None:
            found = f"the noise would be {grid.overhead:.3g} times a Gaussian's"
        enough = grid_for(terms).bits
        raise ValueError(
            f"bits is {bits}: too few for z = {terms.noise_multiplier:.4g}, d = {terms.size} and "
            f"{terms.uploads} clients ({found}); give {enough}, or None"
        )
    return grid
