"""How a cohort's updates become one mean: privately under a plan, plainly without one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fldp.accounting.events import RoundEvent
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.clipping import Clip
from fldp.mechanism.collection import fewest
from fldp.mechanism.contribution import Contribution, Seen, joined
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.release import PrivateDiagnostics, RoundWarning, SkippedRound
from fldp.mechanism.updates import Layout
from fldp.plan import PrivacyPlan
from fldp.plan.ledger import Ledger


class Averaged(NamedTuple):
    """The mean of a round (d,), and what goes with it.

    `mean` is None for a round that was skipped; `event` is what it cost, None without a plan;
    `private` is what the server saw.
    """

    mean: Tensor | None
    clip_norm: float
    event: RoundEvent | None
    private: PrivateDiagnostics


@dataclass
class Weights:
    """How much clients count.

    Parameters
    ----------
    each : Tensor, optional
        A number for each of the N clients, private; None counts everyone once.
    cap : float, optional
        The most that a client counts, public: with a plan it sets the noise.
    total : float, optional
        W, the public sum of min(weight, cap) over all clients; None: m·cap stands in.
    """

    each: Tensor | None = None
    cap: float | None = None
    total: float | None = None

    def of(self, ids: Tensor) -> Tensor | None:
        """The weights of clients `ids`; made-up clients of an audit count as much as any may."""
        if self.each is None or self.cap is None:
            return None
        given = torch.full((len(ids),), self.cap, dtype=torch.float64)
        known = ids < len(self.each)
        given[known] = self.each[ids[known]].double()
        return given

    def denominator(self, cohort: float, clients: int) -> float:
        """What a sum is divided by: m, m·cap, or q·W; public."""
        if self.total is not None:
            return cohort / clients * self.total
        return cohort * (self.cap or 1.0)


@dataclass
class Averaging:
    """Takes the updates of one round after another.

    Guarantee: with a plan, that of `PrivateAggregator`, with the run's own clip and noise.

    Parameters
    ----------
    plan : PrivacyPlan, optional
        None: clipped or not, no noise, no guarantee.
    layout : Layout
        The structure of a row, so that a clip knows its layers.
    clip : Clip, optional
        The run's; None, without a plan only, clips nothing.
    noise : Gaussian
        The run's.
    weights : Weights
        How much clients count.
    denominator : float
        What the sum is divided by without a plan.
    """

    plan: PrivacyPlan | None
    layout: Layout
    clip: Clip | None
    noise: Gaussian
    weights: Weights
    denominator: float

    def words(self) -> list[str]:
        """What a statement of the plan alone does not say of this run's noise."""
        words = [self.noise.statement()]
        cap = self.weights.cap
        if cap is not None:
            words.append(
                f"Weights: a clipped update counts up to {cap:.10g} times. So the noise on each "
                f"sum has {cap:.10g} times the std above, and the mean divides by "
                f"{self.denominator:.10g}. Both numbers are taken as public: what was learned from "
                "the clients to choose them is not covered."
            )
        if self.plan is not None and self.clip is not None:
            words.append(self.clip.statement(self.plan))
        return words

    def mean(
        self,
        chunks: Iterable[tuple[Tensor, Tensor]],
        ledger: Ledger | None,
        round: int,
        count: int,
    ) -> Averaged:
        """The mean of a round; its event is on disk before the mean exists.

        Under distributed trust a round of fewer clients than the plan's `min_survivors` is skipped
        and spent, with a warning: there is no mean, and nobody trains.

        Parameters
        ----------
        chunks
            Pairs of client numbers (c,) and their updates (c, d), made when they are asked for.
        ledger, round
            Where the event is recorded, and under which number.
        count
            How many clients there are in all chunks.
        """
        if self.plan is None or self.clip is None:
            return self._plain(chunks)
        aggregator = PrivateAggregator(
            self.layout,
            self.plan,
            self.clip,
            weight_cap=self.weights.cap,
            weight_total=self.weights.total,
            noise=self.noise,
        )
        least = fewest(self.plan)
        if count >= least:
            for ids, rows in chunks:
                aggregator.add(rows, self.weights.of(ids))
        try:
            release = aggregator.release(ledger, round)
        except SkippedRound:
            norm = float(self.clip.norm)
            warnings.warn(
                f"round {round} was skipped: {count} clients came, and the plan's min_survivors is "
                f"{least}. Nothing was released, the model did not move, and the round is spent",
                RoundWarning,
                stacklevel=2,
            )
            return Averaged(None, norm, aggregator.event, joined([]).counted(count))
        # A grid's mean comes in float64; rounding it is post-processing.
        mean = release.mean.to(self.layout.empty.dtype)
        return Averaged(mean, release.clip_norm, release.event, release.private)

    def _plain(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> Averaged:
        total = self.layout.empty.new_zeros(self.layout.total)
        half = None
        if self.clip is not None:
            half = Contribution(self.layout, self.clip, weight_cap=self.weights.cap)
        seen: list[Seen] = []
        for ids, rows in chunks:
            if half is None:
                total += self._weighted(ids, rows)
                seen.append(Seen.of_rows(rows))
                continue
            bounded = half.bound(rows, half.weights(self.weights.of(ids), len(rows)))
            for start, stop, factors in bounded.columns:
                part = bounded.rows[:, start:stop]
                total[start:stop] += factors.to(part.dtype) @ part
            seen.append(bounded.seen)
        norm = math.inf
        if self.clip is not None:
            norm = float(self.clip.norm)
        private = joined(seen).counted()
        private.warn()
        return Averaged(total / self.denominator, norm, None, private)

    def _weighted(self, ids: Tensor, rows: Tensor) -> Tensor:
        factors = self.weights.of(ids)
        if factors is None:
            return rows.sum(0)
        return factors.clamp(max=self.weights.cap).to(rows) @ rows
