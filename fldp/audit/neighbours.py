"""The same-randomness neighbour test: two neighbouring cohorts, the same noise, one subtraction.

With equal noise the difference of two releases is the sensitivity itself. One pair of runs shows
what statistics need thousands of runs for; and it is blind to a fault in the noise, which cancels.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import real, whole
from fldp.audit.canaries import (
    CANARIES,
    CohortPair,
    absent,
    cohort,
    expected,
    flat,
    layout_of,
    neighbours,
    pair,
)
from fldp.mechanism.clipping import FlatClip
from fldp.mechanism.release import RoundWarning

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# How far beyond the sensitivity counts: float32 sums round, faults move by percent.
_TOLERANCE = 1e-3
# The case in which the noised fraction within C, an adaptive clip's own query, is compared.
UNCLIPPED = "unclipped"
# The noise of that fraction is estimated from so many releases.
_SEEDS = 200
# Its upper confidence bound, which is what convicts, is exceeded with this probability.
_ALARM = 1e-6
# So many releases of either neighbour tell whether their noise is the same.
_NOISES = 8
# Then its correlation is 1, or less where clients draw something too; 0 where draws are shifted.
_SHARED = 0.5
# Norm, in units of C, of those beyond it.
_BEYOND = 2.0
# In units of that, the norm of one that is just within.
_WITHIN = 0.499
# numpy's legacy generator takes a seed of 32 bits.
_WORD = 2**32


class Caller:
    """A pipeline as a function of updates and a seed.

    Parameters
    ----------
    fn : callable
        `fn(updates, generator=...)`, which gets a seeded generator, or `fn(updates)`, for which the
        global seeds of torch and numpy are set.
    """

    def __init__(self, fn: Callable[..., object]) -> None:
        self.fn = fn
        self.takes_generator = "generator" in inspect.signature(fn).parameters

    def release(self, updates: object, seed: int) -> Any:
        """What the pipeline returns, as it returns it.

        Parameters
        ----------
        updates : Tensor or list
            A cohort as the pipeline takes it.
        seed : int
            Of its noise.

        Returns
        -------
        object
            A mean or a `Release`.
        """
        with warnings.catch_warnings():
            # Cohorts of zeros, and of what is not finite, are what an audit tries.
            warnings.simplefilter("ignore", RoundWarning)
            if self.takes_generator:
                return self.fn(updates, generator=torch.Generator().manual_seed(seed))
            torch.manual_seed(seed)
            np.random.seed(seed % _WORD)  # noqa: NPY002 - foreign code may use the global generator
            return self.fn(updates)

    def __call__(self, updates: object, seed: int) -> Tensor:
        """The release as one vector (d,)."""
        return flat(self.release(updates, seed))


@dataclass(frozen=True)
class NeighbourResult:
    """How far the release moved between neighbours, over how far the plan says it may move.

    Parameters
    ----------
    ratios : dict of str to float
        One entry per canary, and "unclipped" where the release holds an adaptive clip's noised
        fraction: then mean and fraction together, over what the plan pays for both.
    claimed_sensitivity : float
        How far the sum may move, in units of the updates.
    aligned : bool
        False where neighbours get different noise at one seed, so that nothing can be compared.

    Examples
    --------
    >>> found = NeighbourResult({"huge": 1.0}, claimed_sensitivity=1.0, aligned=True)
    >>> found.ratios["huge"] <= 1
    True
    """

    ratios: dict[str, float]
    claimed_sensitivity: float
    aligned: bool = True

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.ratios.values())

    @property
    def violated(self) -> bool:
        """Whether a release moved further than the plan says, beyond rounding."""
        return self.aligned and self.worst > 1.0 + _TOLERANCE

    def statement(self) -> str:
        """The result in plain words, with what it presumes."""
        if not self.aligned:
            return (
                "Not comparable, and so not convicted: at one seed the noise differs between "
                "neighbours (cohorts of different size, or with other updates), because something "
                "is drawn for the clients before the noise. Draw the noise first, or use "
                "audit.pipeline."
            )
        case = max(self.ratios, key=lambda k: self.ratios[k])
        verdict = "no violation found, which is no proof"
        if self.violated:
            verdict = "a violation"
        return (
            f"Worst neighbours: {case!r}, {self.worst:.3g} times the claimed sensitivity "
            f"{self.claimed_sensitivity:g} of the sum: {verdict}. The noise itself is not tested. "
            "This presumes that at one seed the noise is the same for both neighbours."
        )


def neighbour_test(
    fn: Callable[..., object],
    plan: PrivacyPlan,
    *,
    like: object = 256,
    clip_norm: float = 1.0,
    seed: int = 0,
    repeats: int = 3,
) -> NeighbourResult:
    """Run a pipeline on neighbouring cohorts with the same noise; compare with the sensitivity.

    First, under add-or-remove, cohorts of zeros of two sizes are compared: where their noise is
    another one (and not the same at another scale), `fn` draws for each client before the noise,
    and the result says that nothing can be compared instead of convicting it. So it does where a
    canary shifts the noise: then `fn` draws as many numbers before it as the updates ask for.

    Parameters
    ----------
    fn : callable
        `fn(updates)` or `fn(updates, generator=...)`, which returns the mean or a `Release`.
        Without a generator argument the global seeds are set.
    plan : PrivacyPlan
        What `fn` claims to follow; its adjacency says what neighbours are.
    like : int or structure
        d for updates that are a matrix (c, d), else the structure of one of a list of updates.
    clip_norm : float
        C.
    seed, repeats : int
        Each canary is tried with `repeats` seeds, from `seed` on.

    Returns
    -------
    NeighbourResult

    Raises
    ------
    ValueError
        When two runs on the same input differ: the noise must repeat.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=16)
    >>> def fn(updates, generator):
    ...     return fldp.aggregate(updates, plan, generator=generator)
    >>> neighbour_test(fn, plan).violated
    False
    """
    whole("repeats", repeats)
    test = _Test(Caller(fn), plan, like, real("clip_norm", clip_norm), seed)
    ratios = dict[str, float]()
    shifted = set()
    for case in CANARIES:
        pairs = [pair(case, plan, like, clip_norm, seed + i) for i in range(repeats)]
        ratios[case] = max(test.ratio(two, seed + i) for i, two in enumerate(pairs))
        if 1.0 + _TOLERANCE < ratios[case] < math.inf and not test.same_noise(pairs[-1]):
            shifted.add(case)
    unclipped = test.unclipped_ratio()
    if unclipped is not None:
        ratios[UNCLIPPED] = unclipped
        if shifted:  # it presumes the same noise as well
            shifted.add(UNCLIPPED)
    comparable = {case: ratio for case, ratio in ratios.items() if case not in shifted}
    if shifted and max(comparable.values(), default=0.0) > 1.0 + _TOLERANCE:
        return NeighbourResult(comparable, test.sensitivity, test.aligned())
    return NeighbourResult(ratios, test.sensitivity, not shifted and test.aligned())


@dataclass(frozen=True)
class _Test:
    """What is tested, and with which seeds."""

    call: Caller
    plan: PrivacyPlan
    like: object
    clip_norm: float
    seed: int

    @property
    def sensitivity(self) -> float:
        """How far the sum may move between neighbours."""
        return FlatClip(self.clip_norm).sensitivity(self.plan.adjacency)

    def run(self, rows: Tensor, seed: int) -> Tensor:
        """The release (d,) of the cohort `rows` (c, d)."""
        return self.call(cohort(rows, self.like), seed)

    def ratio(self, two: CohortPair, seed: int) -> float:
        """How far the release moves between two neighbours, over how far it may."""
        first = self.run(two.present, seed)
        again = self.run(two.present, seed)
        other = self.run(two.absent, seed)
        if not torch.equal(first.nan_to_num(), again.nan_to_num()):
            raise ValueError(
                "the noise differs between two runs: let fn take a generator, and start each "
                "call from the same state"
            )
        moved = float((first - other).norm()) * self.plan.denominator / self.sensitivity
        return moved if math.isfinite(moved) else math.inf

    def same_noise(self, two: CohortPair) -> bool:
        """Whether two neighbours get the same noise at the same seed, up to a common factor.

        What differs from seed to seed is the noise. Where the number of draws before it depends on
        the updates, the neighbours' noise is not the same, and their difference says nothing.
        """
        noises = []
        for rows in (two.present, two.absent):
            drawn = [self.run(rows, self.seed + i) for i in range(_NOISES)]
            stack = torch.stack(drawn).nan_to_num()
            noises.append(stack - stack.mean(dim=0))
        scale = float(noises[0].norm() * noises[1].norm())
        return scale == 0 or float((noises[0] * noises[1]).sum()) / scale > _SHARED

    def aligned(self) -> bool:
        """Whether cohorts of zeros of two sizes get the same noise, up to a common factor.

        A factor is no other noise: a mean over who came, or noise that grows with them, is a fault
        that the canaries measure.
        """
        clients = expected(self.plan)
        if self.plan.adjacency != "add-or-remove" or clients == 1:
            return True
        size = layout_of(self.like).total
        many = self.run(torch.zeros(clients, size), self.seed)
        few = self.run(torch.zeros(clients - 1, size), self.seed)
        scale = float(many.norm() * few.norm())
        return scale == 0 or float(many @ few) / scale > 1 - _TOLERANCE

    def unclipped_ratio(self) -> float | None:
        """How far mean and fraction within C move together, over what the plan pays, if at all.

        Half of the others are beyond C, so that the fraction is far from 0 and 1, where it is cut
        off. A canary beyond C is compared with its absence. In units of their own noise the moves
        of the mean, Δ/σ, and of the bits, b/σ_b, must together stay within 1/z, or 2/z under
        replace-one.
        """
        with_canary, without = self._half_beyond()
        first = self.call.release(cohort(with_canary, self.like), self.seed)
        other = self.call.release(cohort(without, self.like), self.seed)
        fractions = [getattr(release, "unclipped", None) for release in (first, other)]
        if fractions[0] is None or fractions[1] is None:
            return None
        updates = cohort(without, self.like)
        drawn = [self.call.release(updates, self.seed + i) for i in range(_SEEDS)]
        noise = _largest_noise([float(release.unclipped) for release in drawn])
        if noise == 0:
            return math.inf
        bits = abs(float(fractions[0]) - float(fractions[1])) / noise
        mean = float((flat(first) - flat(other)).norm()) / float(first.noise_std)
        units = FlatClip(1.0).sensitivity(self.plan.adjacency)
        return self.plan.noise_multiplier * math.hypot(mean, bits) / units

    def _half_beyond(self) -> tuple[Tensor, Tensor]:
        """Neighbours (c, d), every second client beyond C, with a canary beyond C and without."""
        size = layout_of(self.like).total
        others = torch.zeros(expected(self.plan) - 1, size)
        others[::2, 0] = _BEYOND * self.clip_norm
        canary = torch.zeros(size)
        canary[1] = _BEYOND * self.clip_norm
        with_canary, without = neighbours(others, canary, self.plan.adjacency)
        if absent(self.plan.adjacency):  # another client, just within C: its bit differs too
            without[-1] = -_WITHIN * canary
        return with_canary, without


def _largest_noise(fractions: list[float]) -> float:
    """An upper confidence bound on the standard deviation of these; infinite where they are cut."""
    from scipy.stats import chi2

    values = np.array(fractions)
    if ((values <= 0) | (values >= 1)).any():
        return math.inf
    freedom = len(values) - 1
    return float(values.std(ddof=1) * math.sqrt(freedom / chi2.ppf(_ALARM, freedom)))
