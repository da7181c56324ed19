"""Canaries: clients made up by an auditor, whose presence the release should hide.

`pair` makes two neighbouring cohorts that differ in one canary; `Canaries` is the hook of
`fldp.train`: many canaries in one run, each there or not by its own coin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import real, whole
from fldp.audit.scores import own_stream
from fldp.mechanism.updates import Layout

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

CANARIES = ("orthogonal", "opposed", "huge", "spread", "nan")
# What the quiet clients of a cohort send, in units of C: too little to be clipped.
_QUIET = 0.01
# By how much a loud canary exceeds C.
_LOUD = 100.0
# Directions shorter than this are not divided by their length.
_TINY = 1e-9
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_COINS = 0xC0125
# The log of a likelihood ratio is exact up to this exponent.
_LARGEST_EXPONENT = 700.0
# What stands for an infinity: its sums and squares are still finite.
_LARGEST = 1e200


def flat(release: object) -> Tensor:
    """A release as one vector.

    Parameters
    ----------
    release : object
        A `Release`, a tensor or array, a mapping or a list of tensors.

    Returns
    -------
    Tensor
        (d,) in float64.

    Examples
    --------
    >>> flat({"a": torch.ones(1, 2), "b": [3.0]})
    tensor([1., 1., 3.], dtype=torch.float64)
    """
    mean: Any = getattr(release, "mean", release)
    if callable(mean):  # a tensor's own method
        mean = release
    if isinstance(mean, (Tensor, np.ndarray)):
        return torch.as_tensor(mean).detach().double().reshape(-1)
    parts = mean.values() if isinstance(mean, Mapping) else mean
    return torch.cat([torch.as_tensor(p).detach().double().reshape(-1) for p in parts])


def layout_of(like: object) -> Layout:
    """The layout of updates, from d or from the structure of one.

    Parameters
    ----------
    like : int or structure
        d for updates that are flat, else an update, a module or a state dict.

    Returns
    -------
    Layout
    """
    return Layout(torch.zeros(like) if isinstance(like, int) else like)


def absent(adjacency: str) -> float:
    """What a canary that is not there sends instead, as a multiple of what it would send.

    Parameters
    ----------
    adjacency : str
        "add-or-remove", "zero-out" or "replace-one".

    Returns
    -------
    float
        -1 or 0.
    """
    return -1.0 if adjacency == "replace-one" else 0.0


@dataclass(frozen=True)
class CohortPair:
    """Two neighbouring cohorts that differ in the last client: the canary.

    Parameters
    ----------
    present, absent : Tensor
        The updates (c, d) with the canary, and those without it.
    direction : Tensor
        A unit vector (d,): where the canary points.
    """

    present: Tensor
    absent: Tensor
    direction: Tensor


def pair(
    case: str, plan: PrivacyPlan, like: object, clip_norm: float = 1.0, seed: int = 0
) -> CohortPair:
    """Neighbouring cohorts whose canary is built to break one thing.

    - "orthogonal": norm C among quiet clients.
    - "opposed": norm C against clients that all point the other way.
    - "huge": 100 C.
    - "spread": 100 C, the same norm in every tensor.
    - "nan": 100 C in one coordinate, and a NaN in the last.

    Parameters
    ----------
    case : str
        One of the above.
    plan : PrivacyPlan
        Whose adjacency says what neighbours are, and whose cohort how many clients there are.
    like : int or structure
        d, or the structure of an update.
    clip_norm : float
        C.
    seed : int
        Of the directions.

    Returns
    -------
    CohortPair

    Raises
    ------
    ValueError
        For another case, and for updates of a single coordinate.
    """
    if case not in CANARIES:
        raise ValueError(f"canary is {case!r}: choose one of {CANARIES}")
    layout = layout_of(like)
    size = layout.total
    if size < 2:
        raise ValueError(f"a canary needs a direction: the release has {size} coordinate")
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(size, generator=generator)
    others = torch.randn(expected(plan) - 1, size, generator=generator)
    others *= _QUIET * clip_norm / others.norm(dim=1, keepdim=True).clamp(min=_TINY)
    if case == "spread":
        for _, start, stop in layout.slices:
            direction[start:stop] /= direction[start:stop].norm()
    elif case == "nan":
        direction = torch.eye(1, size)[0]
    direction /= direction.norm()
    reach = clip_norm
    if case == "opposed":
        others = -clip_norm * direction.expand_as(others).clone()
    elif case != "orthogonal":
        reach *= _LOUD
    canary = reach * direction
    if case == "nan":
        canary[-1] = math.nan
    return CohortPair(*neighbours(others, canary, plan.adjacency), direction)


def expected(plan: PrivacyPlan) -> int:
    """The clients of a cohort, at least one.

    Parameters
    ----------
    plan : PrivacyPlan
        The plan.

    Returns
    -------
    int
    """
    return max(1, math.floor(plan.cohort))


def neighbours(others: Tensor, canary: Tensor, adjacency: str) -> tuple[Tensor, Tensor]:
    """Two cohorts, with and without a canary, as the adjacency has it.

    Parameters
    ----------
    others : Tensor
        The other clients' updates (c - 1, d).
    canary : Tensor
        The canary's (d,).
    adjacency : str
        "add-or-remove", "zero-out" or "replace-one".

    Returns
    -------
    (Tensor, Tensor)
        (c, d) with the canary in the last place, and the cohort without it.
    """
    present = torch.cat([others, canary[None]])
    if adjacency == "add-or-remove" and len(others) > 0:
        return present, others
    without = present.clone()
    without[-1] = -canary if adjacency == "replace-one" else 0.0
    return present, without


def cohort(rows: Tensor, like: object) -> Tensor | list[Any]:
    """Updates as a pipeline takes them.

    Parameters
    ----------
    rows : Tensor
        Flat updates (c, d).
    like : int or structure
        d, or the structure of an update.

    Returns
    -------
    Tensor or list
        The matrix, or a list of `like`'s structure.
    """
    if isinstance(like, int):
        return rows
    layout = Layout(like)
    return [layout.restore(row) for row in rows]


class Canaries:
    """Canary clients of one training: each takes part by a fair coin and has a direction to itself.

    Whenever the sampler draws a canary that is in, it sends its direction at `loudness` times C,
    which the clip brings down to C; one that its coin left out sends nothing: zeros, or the
    opposite direction under replace-one. The directions have disjoint supports, random signs on
    random coordinates, and are orthogonal: canaries hide none of one another, and all of them
    together take O(d) memory. What each round releases is scored at once.

    A score is the log-likelihood ratio, up to what others send, of a canary that takes part with
    chance q in each round (an attacker who does not know who took part): the best there is against
    Gaussian noise. Give `scores` and `included` to `audit.one_run`.

    Parameters
    ----------
    count : int
        How many canaries, k; the last k of the plan's N clients.
    size : int
        d, the number of coordinates of an update; at least k.
    plan : PrivacyPlan
        The plan of the run, for N, m, q, z and the adjacency.
    clip_norm : float
        C, at the beginning if it adapts.
    loudness : float
        The norm of what a canary sends, over C: above 1, so that the clip is tried as well.
    seed : int, optional
        Of coins and directions; None takes them from the operating system. A seed is for tests:
        whoever knows it knows the coins.

    Raises
    ------
    ValueError
        For more canaries than coordinates, or than clients of the plan.

    Examples
    --------
    >>> import fldp
    >>> from fldp import audit
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=1, clients=600)
    >>> canaries = Canaries(500, 650, plan=plan)
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> history = fldp.train(torch.nn.Linear(64, 10), people, plan, canaries=canaries)
    >>> found = audit.one_run(canaries.scores, canaries.included,
    ...                       delta=1e-5, plan=plan)
    >>> found.lower_bound > 1 and not found.violated
    True
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        plan: PrivacyPlan,
        clip_norm: float = 1.0,
        loudness: float = 10.0,
        seed: int | None = None,
    ) -> None:
        self.count = whole("count", count)
        self.size = whole("size", size)
        self.plan = plan
        self.clip_norm = real("clip_norm", clip_norm)
        self.loudness = real("loudness", loudness)
        if self.count > self.size:
            raise ValueError(
                f"{count} canaries in {size} dimensions cannot be orthogonal: take at most {size}"
            )
        if self.count > plan.clients:
            raise ValueError(f"{count} canaries, but the plan is for {plan.clients} clients")
        rng = own_stream(_COINS, seed)
        self.included = rng.random(self.count) < 0.5
        self._sum = np.zeros(self.count)
        self._rounds = 0
        # Block j of the shuffled coordinates is canary j's; blocks differ in size by at most one.
        self._order = torch.from_numpy(rng.permutation(self.size))
        self._starts = np.linspace(0, self.size, self.count + 1).astype(np.int64)
        widths = np.diff(self._starts)
        signs = rng.integers(0, 2, self.size) * 2.0 - 1.0
        self._values = torch.from_numpy(signs / np.sqrt(np.repeat(widths, widths)))

    @property
    def scores(self) -> np.ndarray:
        """What speaks for each canary's presence, (k,); higher is surer. One release at least."""
        if self._rounds == 0:
            raise ValueError("no release was observed: run the training with these canaries first")
        return self._sum.copy()

    @property
    def _first(self) -> int:
        """The number of the first canary among the plan's clients."""
        return self.plan.clients - self.count

    def rows(self, ids: Tensor, round: int) -> Tensor:
        """Raw updates of some canary clients in a round.

        Parameters
        ----------
        ids : Tensor
            Their numbers (c,) among the plan's N.
        round : int
            The number of the round; a canary sends the same in every round.

        Returns
        -------
        Tensor
            (c, d).

        Raises
        ------
        ValueError
            For a client that is no canary.
        """
        found = torch.zeros(len(ids), self.size)
        reach = self.loudness * self.clip_norm
        instead = absent(self.plan.adjacency) * reach
        for row, client in zip(found, ids.tolist(), strict=True):
            canary = client - self._first
            if not 0 <= canary < self.count:
                raise ValueError(
                    f"client {client} is no canary: they are the clients {self._first} to "
                    f"{self.plan.clients - 1}"
                )
            own = slice(self._starts[canary], self._starts[canary + 1])
            factor = reach if self.included[canary] else instead
            row[self._order[own]] = factor * self._values[own].float()
        return found

    def project(self, vector: object) -> np.ndarray:
        """Inner products with the canaries' directions.

        Parameters
        ----------
        vector : object
            A release (d,), in any structure.

        Returns
        -------
        numpy.ndarray
            (k,), finite.

        Raises
        ------
        ValueError
            For a release of another size.
        """
        values = flat(vector)
        if len(values) != self.size:
            raise ValueError(f"the release has {len(values)} coordinates, expected {self.size}")
        weighted = (values[self._order] * self._values).numpy()
        # What is not finite tells everything about the canary that it belongs to.
        weighted = np.nan_to_num(weighted, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
        return np.add.reduceat(weighted, self._starts[:-1])

    def observe(self, release_mean: object, round: int) -> None:
        """Score what a round released.

        Parameters
        ----------
        release_mean : object
            The mean, (d,) or in any structure.
        round : int
            The number of the round; all count alike.
        """
        self._rounds += 1
        z = self.plan.noise_multiplier
        q = self.plan.sampling_rate
        # In units of the noise: N(0, 1) without the canary, N(1/z, 1) in a round it takes part in.
        x = self.project(release_mean) * self.plan.denominator / (z * self.clip_norm)
        score = _log_mixture(x, 1 / z, q)
        if self.plan.adjacency == "replace-one":
            score -= _log_mixture(-x, 1 / z, q)
        self._sum += score

    def final(self, change: object) -> None:
        """Score a final model alone.

        Parameters
        ----------
        change : object
            How the training changed the model, (d,) or in any structure.
        """
        self._rounds += 1
        self._sum += self.project(change)


def _log_mixture(x: np.ndarray, shift: float, rate: float) -> np.ndarray:
    """log of (1 - q) N(0, 1) + q N(shift, 1) over N(0, 1) at x."""
    exponent = np.clip(x * shift - shift * shift / 2, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    if rate >= 1:
        return exponent
    return np.log1p(rate * np.expm1(exponent))
