"""A clip norm that follows the updates, and pays for looking at them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fldp._checks import real
from fldp.mechanism.clipping import LARGEST, SMALLEST, FlatClip, per_adjacency

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# The default σ_b is this part of the expected cohort (Andrew et al. 2021, section 2.2).
_SHARE_OF_COHORT = 20
# A fraction this part of the way from γ to 0 or to 1 stands at that end.
_NEAR_AN_END = 3 / 4


class AdaptiveClip(FlatClip):
    """A flat clip norm that follows a quantile of the update norms (Andrew et al. 2021).

    Each round also sums half-shifted bits, +1/2 for an update within C, -1/2 beyond it, and 0 for
    one that is malformed or zero, with noise of standard deviation σ_b = `count_noise`. The round
    as a whole costs the plan's z, because the updates' own multiplier z_Δ is larger:
    z^-2 = z_Δ^-2 + (s / σ_b)^2. So the quantile is paid. The bits' sensitivity s, while the updates
    move by C, is 1/2 under every adjacency, so that an account in one holds in the others as it
    does without a query:

    - add-or-remove: a client brings its bit or does not.
    - zero-out: a zeroed client answers 0, because its update is zero.
    - replace-one: the bit may move by 1, while the updates move by 2C.

    Afterwards C becomes C·exp(-η (b̃ - γ)); noise is always added at the C that clipped. While the
    noisy fraction b̃ stays at the same end, the step grows up to `acceleration` times:
    post-processing, free of cost, and a norm wrong by 1,000 is right in 30 rounds. With
    `acceleration` 1 the update is the published one.

    Parameters
    ----------
    initial : float
        The clip norm C of the first round.
    quantile : float
        γ, the fraction of updates that should pass unclipped.
    learning_rate : float
        η, at most 2.
    count_noise : float, optional
        σ_b; None is a twentieth of the expected cohort, m/20.
    acceleration : float
        The longest step, in units of the published one, at most 10.

    Raises
    ------
    ValueError
        For values out of these ranges; and at the first round where σ_b leaves nothing for the
        updates.

    Examples
    --------
    >>> z_delta, count_noise = AdaptiveClip().noise_split(1.0, cohort=100)
    >>> round(z_delta, 4), count_noise
    (1.005, 5.0)
    """

    queries = 1

    def __init__(
        self,
        initial: float = 0.1,
        quantile: float = 0.5,
        learning_rate: float = 0.2,
        count_noise: float | None = None,
        acceleration: float = 5.0,
    ) -> None:
        super().__init__(initial)
        self.quantile = real("quantile", quantile, 1)
        self.learning_rate = real("learning_rate", learning_rate)
        self.acceleration = real("acceleration", acceleration)
        if not (self.learning_rate <= 2 and 1 <= self.acceleration <= 10):
            raise ValueError(
                f"learning_rate is {self.learning_rate:g} and acceleration {self.acceleration:g}: "
                "learning_rate must be in (0, 2] and acceleration in [1, 10]"
            )
        self.count_noise = None if count_noise is None else real("count_noise", count_noise)
        # How many rounds the fraction has stood at one end, negative at the lower.
        self.streak = 0

    def bit_sensitivity(self, adjacency: str) -> float:
        """How far the sum of half-shifted bits moves while the updates move by C.

        Parameters
        ----------
        adjacency : str
            As for `sensitivity`.
        """
        return per_adjacency(adjacency, 0.5, 0.5, 0.5)

    def noise_split(
        self, z: float, cohort: float | None = None, adjacency: str = "add-or-remove"
    ) -> tuple[float, float]:
        """The updates' own multiplier z_Δ and the bits' σ_b, for a joint multiplier z.

        Parameters
        ----------
        z : float
            The plan's.
        cohort : float, optional
            m; needed where `count_noise` is not given.
        adjacency : str
            As for `sensitivity`.

        Returns
        -------
        (float, float)
            z_Δ and σ_b.

        Raises
        ------
        ValueError
            Where z ≥ σ_b / s: the bits alone would spend more than the round may.
        """
        if self.count_noise is None and cohort is None:
            raise ValueError("count_noise defaults to a twentieth of the cohort: give the cohort")
        sigma = self.count_noise
        if sigma is None:
            sigma = (cohort or 0.0) / _SHARE_OF_COHORT
        least = z * self.bit_sensitivity(adjacency)
        if least >= sigma:
            raise ValueError(
                f"z = {z:.4g} under {adjacency!r} needs count_noise above {least:.4g}, got "
                f"{sigma:.4g}: the bits alone would spend more than the round may; raise "
                "count_noise or the cohort"
            )
        share = least / sigma
        return z / math.sqrt((1 - share) * (1 + share)), sigma

    def statement(self, plan: PrivacyPlan) -> str:
        return (
            "Clip: C follows a noised count of the updates within it. Updates and count have noise "
            "of their own, which together is the z above."
        )

    def observe(self, noisy_bits: float, cohort: float) -> float:
        """Move C by the noised sum of half-shifted bits.

        Parameters
        ----------
        noisy_bits : float
            The sum.
        cohort : float
            m, the public denominator.

        Returns
        -------
        float
            b̃, the noisy fraction of updates within C.
        """
        fraction = min(max(noisy_bits / cohort + 0.5, 0.0), 1.0)
        gap = fraction - self.quantile
        end = self._end(fraction)
        if end * self.streak >= 0 and end != 0:
            self.streak += end
        else:
            self.streak = end
        boost = min(float(max(1, abs(self.streak))), self.acceleration)
        moved = self.norm * math.exp(-self.learning_rate * gap * boost)
        self.norm = min(max(moved, SMALLEST), LARGEST)
        return fraction

    def _end(self, fraction: float) -> int:
        """-1 where hardly anything passes unclipped, +1 where hardly anything is clipped."""
        if fraction <= self.quantile * (1 - _NEAR_AN_END):
            return -1
        return int(fraction >= self.quantile + (1 - self.quantile) * _NEAR_AN_END)
