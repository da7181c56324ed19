"""The same-randomness neighbour test: two neighbouring cohorts, the same noise, one subtraction.

With equal noise the difference of two releases is the sensitivity itself. One pair of runs shows
what statistics need thousands of runs for; and it is blind to a fault in the noise, which cancels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import real, whole
from fldp.audit.canaries import CANARIES, Canaries, Pair, cohort, flat, neighbours, pair
from fldp.mechanism.updates import Layout

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

__all__ = [
    "CANARIES",
    "Canaries",
    "NeighbourResult",
    "caller",
    "cohort",
    "flat",
    "neighbour_test",
    "pair",
]

# How far beyond the sensitivity counts: float32 sums round, faults move by percent.
_TOLERANCE = 1e-3
# The case in which the noised fraction within C, an adaptive clip's own query, is compared.
UNCLIPPED = "unclipped"
# The noise of that fraction is estimated from so many releases; its upper confidence bound, which
# is what convicts, is exceeded with probability 1e-6.
_SEEDS, _ALARM = 200, 1e-6
# So many releases of either neighbour tell whether their noise is the same: its correlation is 1,
# or less where clients draw something too, and 0 where the draws are shifted.
_NOISES, _SHARED = 8, 0.5
# Norms in units of C: of those beyond it; and, in units of that, of one that is just within.
_BEYOND, _WITHIN = 2.0, 0.499


class Caller:
    """`fn` as a function of (updates, seed): by a `generator` argument, else the global seeds."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.takes_generator = "generator" in inspect.signature(fn).parameters

    def release(self, updates: Any, seed: int) -> Any:
        """What `fn` returns for these updates with this seed."""
        if self.takes_generator:
            return self.fn(updates, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - foreign code may use the global generator
        return self.fn(updates)

    def __call__(self, updates: Any, seed: int) -> Tensor:
        return flat(self.release(updates, seed))


def caller(fn: Callable[..., Any]) -> Caller:
    """See `Caller`."""
    return Caller(fn)


@dataclass(frozen=True)
class NeighbourResult:
    """How far the release moved between neighbours, over how far the plan says it may move.

    `ratios` has one entry per canary, and "unclipped" where the release holds an adaptive clip's
    noised fraction: then mean and fraction together, over what the plan pays for both. `aligned` is
    False where neighbours get different noise at one seed, so that nothing can be compared.
    """

    ratios: dict[str, float]
    claimed_sensitivity: float
    aligned: bool = True

    @property
    def worst(self) -> float:
        return max(self.ratios.values())

    @property
    def violated(self) -> bool:
        return self.aligned and self.worst > 1.0 + _TOLERANCE

    def statement(self) -> str:
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
    fn: Callable[..., Any],
    plan: PrivacyPlan,
    *,
    like: Any = 256,
    clip_norm: float = 1.0,
    seed: int = 0,
    repeats: int = 3,
) -> NeighbourResult:
    """Run `fn` on neighbouring cohorts with the same noise and compare with the sensitivity.

    First, under add-or-remove, cohorts of zeros of two sizes are compared: where their noise is
    another one (and not the same at another scale), `fn` draws for each client before the noise,
    and the result says that nothing can be compared instead of convicting it. So it does where a
    canary shifts the noise: then `fn` draws as many numbers before it as the updates ask for.

    Parameters
    ----------
    fn : `fn(updates)` or `fn(updates, generator=...)`, which returns the mean or a `Release`.
        Without a generator argument the global seeds are set.
    plan : what `fn` claims to follow; its adjacency says what neighbours are.
    like : d for updates that are a matrix (c, d), else the structure of one of a list of updates.
    clip_norm : C.
    seed, repeats : each canary is tried with `repeats` seeds, from `seed` on.

    Raises ValueError when two runs on the same input differ: the noise must repeat.

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=16)
    >>> def fn(updates, generator):
    ...     return fldp.aggregate(updates, plan, generator=generator)
    >>> neighbour_test(fn, plan).violated
    False
    """
    call, ratios = Caller(fn), dict[str, float]()
    real("clip_norm", clip_norm)
    whole("repeats", repeats)
    sensitivity = clip_norm * (2.0 if plan.adjacency == "replace-one" else 1.0)
    shifted = set()
    for case in CANARIES:
        for i in range(repeats):
            two = pair(case, plan, like, clip_norm, seed + i)
            first, again, other = (
                call(cohort(r, like), seed + i) for r in (two.present, two.present, two.absent)
            )
            if not torch.equal(first.nan_to_num(), again.nan_to_num()):
                raise ValueError(
                    "the noise differs between two runs: let fn take a generator, and start each "
                    "call from the same state"
                )
            moved = float((first - other).norm()) * plan.denominator / sensitivity
            ratios[case] = max(ratios.get(case, 0.0), moved if math.isfinite(moved) else math.inf)
        if 1.0 + _TOLERANCE < ratios[case] < math.inf and not _same_noise(call, two, like, seed):
            shifted.add(case)
    ratio = _unclipped_ratio(call, plan, like, clip_norm, seed)
    if ratio is not None:
        ratios[UNCLIPPED] = ratio
        if shifted:  # it presumes the same noise as well
            shifted.add(UNCLIPPED)
    comparable = {case: r for case, r in ratios.items() if case not in shifted}
    if shifted and max(comparable.values(), default=0.0) > 1.0 + _TOLERANCE:
        return NeighbourResult(comparable, sensitivity, _aligned(call, plan, like, seed))
    aligned = not shifted and _aligned(call, plan, like, seed)
    return NeighbourResult(ratios, sensitivity, aligned)


def _same_noise(call: Caller, two: Pair, like: Any, seed: int) -> bool:
    """Whether two neighbours get the same noise at the same seed, up to a common factor.

    What differs from seed to seed is the noise. Where the number of draws before it depends on the
    updates, the neighbours' noise is not the same, and their difference says nothing.
    """
    noises = []
    for rows in (two.present, two.absent):
        drawn = [call(cohort(rows, like), seed + i) for i in range(_NOISES)]
        stack = torch.stack(drawn).nan_to_num()
        noises.append(stack - stack.mean(dim=0))
    scale = float(noises[0].norm() * noises[1].norm())
    return scale == 0 or float((noises[0] * noises[1]).sum()) / scale > _SHARED


def _aligned(call: Caller, plan: PrivacyPlan, like: Any, seed: int) -> bool:
    """Whether cohorts of zeros of two sizes get the same noise, up to a common factor.

    A factor is no other noise: a mean over who came, or noise that grows with them, is a fault that
    the canaries measure.
    """
    clients = max(1, math.floor(plan.cohort))
    if plan.adjacency != "add-or-remove" or clients == 1:
        return True
    size = Layout(torch.zeros(like) if isinstance(like, int) else like).total
    many, few = (call(cohort(torch.zeros(c, size), like), seed) for c in (clients, clients - 1))
    scale = float(many.norm() * few.norm())
    return scale == 0 or float(many @ few) / scale > 1 - _TOLERANCE


def _unclipped_ratio(
    call: Caller, plan: PrivacyPlan, like: Any, clip_norm: float, seed: int
) -> float | None:
    """How far mean and fraction within C move together, over what the plan pays; None without one.

    Half of the others are beyond C, so that the fraction is far from 0 and 1, where it is cut off.
    A canary beyond C is compared with its absence. In units of their own noise the moves of the
    mean, Δ/σ, and of the bits, b/σ_b, must together stay within 1/z (2/z under replace-one).
    """
    clients = max(1, math.floor(plan.cohort))
    layout = Layout(torch.zeros(like) if isinstance(like, int) else like)
    others = torch.zeros(clients - 1, layout.total)
    others[::2, 0] = _BEYOND * clip_norm
    canary = torch.zeros(layout.total)
    canary[1] = _BEYOND * clip_norm
    with_canary, without = neighbours(others, canary, plan.adjacency)
    if plan.adjacency == "replace-one":  # by another client just within C: its bit differs too
        without[-1] = -_WITHIN * canary
    first, other = (call.release(cohort(rows, like), seed) for rows in (with_canary, without))
    fractions = [getattr(release, "unclipped", None) for release in (first, other)]
    if fractions[0] is None or fractions[1] is None:
        return None
    drawn = [call.release(cohort(without, like), seed + i) for i in range(_SEEDS)]
    noise = _largest_noise([float(release.unclipped) for release in drawn])
    if noise == 0:
        return math.inf
    bits = abs(float(fractions[0]) - float(fractions[1])) / noise
    mean = float((flat(first) - flat(other)).norm()) / float(first.noise_std)
    units = 2.0 if plan.adjacency == "replace-one" else 1.0
    return plan.noise_multiplier * math.hypot(mean, bits) / units


def _largest_noise(fractions: list[float]) -> float:
    """An upper confidence bound on the standard deviation of these; infinite where they are cut."""
    from scipy.stats import chi2

    values = np.array(fractions)
    if ((values <= 0) | (values >= 1)).any():
        return math.inf
    freedom = len(values) - 1
    return float(values.std(ddof=1) * math.sqrt(freedom / chi2.ppf(_ALARM, freedom)))
