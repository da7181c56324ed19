"""How private integer noise is: its exact Gaussian-DP parameter.

Noise that is added under secure aggregation is whole numbers. It needs no account of its own:

**Theorem.** Let X be symmetric integer noise with a log-concave probability mass function and the
distribution function F, let Φ be the standard normal's, and

    m₁ = sup over k of Φ⁻¹F(k) - Φ⁻¹F(k - 1).

Add independent copies of X to every coordinate of an integer vector that one client moves by at
most v. The release is m₁‖v‖₂-GDP (Dong, Roth & Su 2022): whatever separates the two worlds does no
better than the best test of N(0, 1) against N(m₁‖v‖₂, 1). This holds in any dimension, for rounds
that follow one another adaptively, for a v that is itself random with ‖v‖₂ bounded, and under
Poisson sampling with "add-or-remove" or "zero-out". In one dimension no smaller number holds for a
shift of 1.

*One coordinate, a shift s > 0.* The ratio P[X = k - s] / P[X = k] does not fall as k grows, because
the mass function is log-concave. So the best tests (Neyman & Pearson) of X against X + s are
"at least k", and their mixtures: the trade-off curve is the polygon through the points
(P[X ≥ k], P[X < k - s]). The Gaussian's curve, β = Φ(-Φ⁻¹(α) - m), is convex, so the polygon lies
above it if and only if its corners do. With α = 1 - F(k - 1) and β = F(k - 1 - s) that says
m ≥ Φ⁻¹F(k - 1) - Φ⁻¹F(k - 1 - s): a sum of s increments over single steps, each at most m₁. So the
curve lies above the Gaussian's of m₁s, for s = 1 of no smaller m; by symmetry for s < 0 as well.

*The supremum is finite.* For Skellam noise of variance μ the increments vanish in the tails. The
slope of log Φ at x < 0 is at least |x|, so an increment that ends in b = Φ⁻¹F(k) is at most
h / |b|, where h = log(F(k) / F(k - 1)); and Φ(-x) ≥ e^(-x²) / 4 makes |b| at least
√(-log F(k) - log 4). Let k = -n with n ≥ μ. The ratio r = P[X = k - 1] / P[X = k] lies between
μ / (2n + 2 + μ) and 1/2 (Amos 1974), and F(k) ≤ P[X = k] / (1 - r), so that h ≤ log(2 / r) grows as
log n, while -log F(k) grows as n log n: the increment is of the order √(log n / n). (For the
discrete Gaussian of parameter σ they tend to 1/σ, and for noise of bounded support m₁ is infinite.)

*What is computed.* Up to μ = 10^6 `skellam_gdp` takes the largest of the increments that end where
log F > -600, wherever it is. A corner beyond has an error smaller than one that was looked at, of
e^-550 at most: leaving them out adds (1 + e^ε)·e^-550 a coordinate to δ at most, far below what
`Skellam.events` allows for the sampler. In every scan the largest increment was the one at the
centre, which is not proved, and nothing rests on it. Round-off is covered by 10^-9 of m₁; that it
is below 10^-10 was compared, not proved.

*Above it a bound is proved: m₁ ≤ √(μ + 4) / μ for μ ≥ 3.* Let c bound the second differences of
-log P[X = k], and let h² - h⁴/4 ≥ c. Then m₁ ≤ h. For suppose Φ⁻¹F(k) > a + h with
a = Φ⁻¹F(k - 1). Cut the normal law into bins of width h, by Q(j) = Φ(a + h(j - k + 1)). A bin that
begins at x has the mass φ(x)·∫ e^(-xu - u²/2) du over [0, h]. Of -log φ the second differences are
h²; the logarithm of the integral has as its second derivative in x the variance of a law on [0, h],
at most h²/4, and so second differences of h⁴/4 at most. Hence log(P[X = j] / Q's bin j) is convex
in j. It is positive at k, since Q(k - 1) = F(k - 1) and Q(k) < F(k); and as the masses below k are
equal and Q has more above, it is at most 0 for some j < k and for some j > k: no convex function.
For c take 1/μ + 9/(4μ²). At the centre the second difference is 2 log(I_0(μ) / I_1(μ)), and
I_1 / I_0 ≥ μ / (1/2 + √(μ² + 9/4)) (Amos 1974). At n ≥ 1 it is -log(1 - τ) with the Turánian
τ = 1 - I_(n-1) I_(n+1) / I_n² ≤ 1 / √(μ² + n² - 1/4) < 1/μ (Baricz 2015, "Bounds for Turánians of
modified Bessel functions"; y = x I_n' / I_n satisfies x y' = x² + n² - y² and τ = y' / x, and
y² ≥ x² + n² - x² / √(x² + n² - 1/4), as the root u of the right side begins no higher and has
x u' ≤ x² + n² - u²). The choice h² = 1/μ + 4/μ² fits for μ ≥ 3.

*Many coordinates, many rounds.* If a pair's curve lies above another pair's, it is a
post-processing of that pair (Blackwell). Products of post-processings are post-processings of
products, adaptively too, and the product of Gaussians with parameters mᵢ is one with √(Σ mᵢ²). A
random v makes mixtures over v, whose divergences are at most the largest. Under Poisson sampling a
client that is not drawn adds nothing, so that (1 - q)Q + qP stands against Q: a post-processing of
the Gaussian's own, by the same map as P against Q (Zhu, Dong & Wang 2022).

*What does not follow.* Where one client's draw moves who else takes part (`fixed`, `cap`), or where
either world adds something ("replace-one") under amplification, the worst case is a triple of laws,
and domination of pairs says nothing of triples. `mechanism.skellam` refuses these. Without
amplification "replace-one" is a pair again, with twice the sensitivity.

No statement of the theorem in print is known to us; the proof is short, and
`tests/test_lattice.py` holds it against exact lattice distributions.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp._checks import real

# As far as log F is looked at: e^-600, far beyond where the sampler stops (2^-235 = e^-163).
_DEEPEST = -600.0
# A Skellam law reaches it within so many standard deviations, and so many steps where it is narrow.
_REACH, _STEPS = 40, 200
# Of the backward recurrence: so many more steps forget its start in double precision.
_RUN_UP, _RUN_UP_STEPS = 10, 60
# Above this variance the bound that is proved is within 2·10^-6 of m₁, and no scan is needed.
_SCANNED = 1e6
# Of m₁, ten times what its round-off was seen to be.
_ROUND_OFF = 1e-9
# A log-concave mass function, up to the rounding of its logarithms.
_CONCAVE = 1e-9
# Its total, likewise.
_NORMAL = 1e-6
# Where a law may end: noise of bounded support has no m₁, and what is beyond e^-80 does not matter.
_END = -80.0
_HALF = math.log(0.5)


def skellam_logpmf(variance: float, reach: int) -> NDArray[np.float64]:
    """Log probabilities of -`reach` to 0 under Skellam noise of mean 0.

    A Skellam variable is the difference of two independent Poisson variables of mean variance/2. By
    a backward recurrence of ratios of Bessel functions, so that they are right to a relative 1e-13
    however small they are.

    Parameters
    ----------
    variance
        μ, positive.
    reach
        A whole number; the mass beyond it must be negligible.

    Returns
    -------
    array
        (reach + 1,), rising.

    Raises
    ------
    ValueError
        For a variance that is none.

    Examples
    --------
    >>> np.exp(skellam_logpmf(2.0, 40))[-2:].round(4).tolist()
    [0.2153, 0.3085]
    """
    variance = real("variance", variance)
    ratios = np.empty(reach)
    ratio = 0.0
    for k in range(reach + _RUN_UP_STEPS + int(_RUN_UP * math.sqrt(variance)), 0, -1):
        # I_k / I_(k-1) at the argument μ.
        ratio = 1.0 / (2 * k / variance + ratio)
        if k <= reach:
            ratios[k - 1] = ratio
    falling = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    total = 2 * np.exp(falling).sum() - 1
    return (falling - math.log(total))[::-1]


def lattice_gdp(logpmf: ArrayLike) -> float:
    """m₁ of symmetric log-concave integer noise, by the module's theorem.

    Parameters
    ----------
    logpmf
        The log probabilities of -K, ..., 0; those of 1 to K are the same. K must be so large that
        that of -K is below -80: the law is taken to go on geometrically.

    Returns
    -------
    float
        m₁: with noise of this law a client that moves an integer vector by v in Euclidean norm is
        m₁‖v‖-GDP.

    Raises
    ------
    ValueError
        For what is no symmetric log-concave law, and for one that ends too early: then the theorem
        does not hold.

    Examples
    --------
    The discrete Gaussian of parameter 1 has a little more than the Gaussian's 1:

    >>> k = np.arange(-30, 1)
    >>> weights = np.exp(-k**2 / 2)
    >>> round(lattice_gdp(np.log(weights / (2 * weights.sum() - 1))), 6)
    1.04576
    """
    # Here: a calibration needs none of it.
    from scipy.special import ndtri_exp

    found = _checked(logpmf)
    # What is below -K, as if it went on with the ratio of the last two.
    found[0] -= math.log1p(-math.exp(found[0] - found[1]))
    below = np.logaddexp.accumulate(found)
    below = below[below > _DEEPEST]
    # F(-1) and F(0) are (1 ∓ P[X = 0]) / 2: the quantile of the one is minus that of the other.
    quantiles = ndtri_exp(np.minimum(below, _HALF))
    quantiles[-1] = -quantiles[-2]
    return float(np.diff(quantiles).max())


def _checked(logpmf: ArrayLike) -> NDArray[np.float64]:
    """The log probabilities as an array; ValueError unless the theorem holds for them."""
    found = np.asarray(logpmf, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError("logpmf is no vector: give the log probabilities of -K, ..., 0")
    # Below every double there is nothing; within the law a gap is one.
    found = found[np.argmax(found > -np.inf) :].copy()
    total = 2 * np.exp(found).sum() - np.exp(found[-1]) if len(found) > 1 else 0.0
    if not abs(total - 1) <= _NORMAL:
        raise ValueError(
            f"logpmf sums to {total:.6g} over -K, ..., K: give log probabilities of -K, ..., 0, "
            "with K so large that they sum to 1"
        )
    steps = np.diff(found)
    # Going up to the centre each step is smaller than the one before, and none goes down.
    rising = bool(np.all(steps > 0))
    concave = bool(np.all(np.diff(steps) <= _CONCAVE * (1 + np.abs(steps[1:]))))
    if not (rising and concave):
        raise ValueError(
            "logpmf is not log-concave, with its peak at 0: the theorem is about such noise alone"
        )
    if found[0] > _END:
        raise ValueError(
            f"logpmf begins with {found[0]:.4g}: give a K whose log probability is below {_END:g}; "
            "noise that ends there has no m₁"
        )
    return found


@lru_cache(maxsize=1024)
def skellam_gdp(variance: float) -> float:
    """m₁ of Skellam noise: about (1 + 1/6μ) / √μ, and exact for small μ.

    Parameters
    ----------
    variance
        μ, positive: that of the whole noise, the sum of the honest clients' shares.

    Returns
    -------
    float
        m₁, as `lattice_gdp`, raised by 10^-9 for round-off; above a variance of 10^6 the bound
        √(μ + 4) / μ.

    Raises
    ------
    ValueError
        For a variance that is none.

    Examples
    --------
    >>> round(skellam_gdp(100.0) * 100.0**0.5, 8)
    1.00167571
    """
    variance = real("variance", variance)
    if variance > _SCANNED:
        return math.sqrt(variance + 4) / variance
    reach = int(_REACH * math.sqrt(variance) + _STEPS)
    return lattice_gdp(skellam_logpmf(variance, reach)) * (1 + _ROUND_OFF)
