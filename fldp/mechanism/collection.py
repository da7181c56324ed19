"""The server's half of a round: bounded contributions are summed, noised and released once.

What reaches the sum is within C·cap: the client's half, :mod:`fldp.mechanism.contribution`, sees to
that, and what comes from another process is bounded here again. Nothing but the noisy mean depends
on who came: the noise, the denominator and the precision of the result follow from the plan; under
distributed and local trust the noise level tells the count, which is public there.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, NoReturn

import torch
from numpy.typing import ArrayLike

from fldp._checks import shown, whole
from fldp.mechanism.clipping import Clip, as_clip, bounded_rows, flat_factors
from fldp.mechanism.contribution import (
    Bounded,
    BoundedParts,
    Contribution,
    Message,
    Seen,
    SeenOne,
    joined,
)
from fldp.mechanism.intake import check_plan, check_weights, identifiers, twice
from fldp.mechanism.noise import Gaussian, as_noise, check_scale
from fldp.mechanism.release import PrivateDiagnostics, Release, SkippedRound, keep_beside
from fldp.mechanism.skellam import LatticeSum
from fldp.mechanism.summation import MOST, RunningSum
from fldp.mechanism.turnout import fewest, most, shares, told
from fldp.plan.ledger import Ledger

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# What the noise is measured against may differ from the plan's z by rounding alone.
_ROUNDING = 1e-9


class Collection:
    """Sums, noises and releases the bounded contributions of one round.

    Guarantee: the release is the output of `event` under the plan's adjacency and trust model, if
    no contribution exceeds C·cap; `receive` makes sure of that for messages from elsewhere. One
    release is made whoever asks, from whatever thread; a collection cannot be copied, pickled or
    used in a forked process, because each copy could release the same data again.

    Parameters
    ----------
    plan : PrivacyPlan
        The plan that was accounted.
    like : update, module or Layout
        The structure of the mean.
    clip : float or Clip
        C, or a clip; one that asks a query is moved once, after the release.
    weight_cap, weight_total, noise
        As for `PrivateAggregator`.

    Raises
    ------
    ValueError
        For settings that the plan does not account for.

    Examples
    --------
    In two processes, the client runs a `Contribution` with the same clip and cap:

    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> server = Collection(plan, torch.zeros(4), clip=1.0)
    >>> client = Contribution(torch.zeros(4), clip=1.0)
    >>> for number in range(1000):
    ...     message = client.encode(torch.full((4,), 0.5))  # crosses the network
    ...     server.receive(message, client=number)
    >>> bool((server.release().mean - 0.5).abs().max() < 0.1)
    True
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        like: object,
        clip: float | Clip = 1.0,
        *,
        weight_cap: float | None = None,
        weight_total: float | None = None,
        noise: Gaussian | None = None,
    ) -> None:
        check_plan(plan)
        weight_cap, weight_total = check_weights(weight_cap, weight_total)
        if plan.cohort > MOST / 2:
            raise ValueError(f"one sum holds at most {MOST} clients: m = {plan.cohort:g} is more")
        self.plan = plan
        self.noise = as_noise(noise, None)
        self.noise.check(plan)
        self._owner = as_clip(clip)
        # Its copy of the clip is the round's: the C that clips is the C that noises.
        self.half = Contribution(like, self._owner, weight_cap=weight_cap)
        self.layout = self.half.layout
        self.denominator = float(plan.denominator) * (weight_cap or 1.0)
        if weight_total is not None:
            self.denominator = float(plan.sampling_rate) * weight_total
        cap = weight_cap or 1.0
        self._set_noise(cap)
        self._sum = self.noise.begin(plan, self.layout, self.std, self.half.clip.norm * cap)
        self.half.room = self._sum.room
        self._seen: list[Seen | SeenOne] = []
        self._count = 0
        self._malformed = 0
        self._problem: str | None = None
        self._released = False
        # Whether secure aggregation has brought the whole sum, with all its uploads.
        self._complete = False
        self._names: set[Hashable] = set()
        # Who adds and then releases holds it all the while.
        self.lock = threading.RLock()
        self._process = os.getpid()

    def _set_noise(self, cap: float) -> None:
        """The standard deviations, and the event that they make; ValueError unless accounted."""
        plan = self.plan
        clip = self.half.clip
        self.noise.check_clip(clip)
        z, self._bit_noise = clip.noise_split(
            plan.noise_multiplier, plan.denominator, plan.adjacency
        )
        if clip.queries and plan.trust == "local":
            raise ValueError("adaptive clipping needs a noised sum of bits: not local trust")
        self.std = z * clip.norm * cap
        ran = clip.joint(z, self._bit_noise, plan.adjacency)
        accounted = plan.event.noise_multiplier
        if not math.isclose(ran, accounted, rel_tol=_ROUNDING):
            raise ValueError(f"the plan accounts for z = {accounted}, not {ran}")
        (self.event,) = self.noise.events(plan, 1, self.layout.total + clip.queries)
        # Local and distributed noise grows with the root of the count.
        growth = 1.0
        if plan.trust != "central":
            growth = math.sqrt(most(plan))
        if clip.queries:
            check_scale(self._bit_noise * growth, torch.float64)
        for std in (self.std, self.std * growth):
            check_scale(std, self.layout.empty.dtype)
            check_scale(std / self.denominator, self.layout.empty.dtype)

    @property
    def room(self) -> float:
        """The share of C that a client's half leaves for the rounding of this sum."""
        return self.half.room

    def tile(self, rows: int) -> int:
        """A number of rows, near `rows`, that is fast to add at once."""
        return self._sum.whole(rows)

    def __reduce__(self) -> NoReturn:
        raise ValueError("a collection is not copied or pickled: a copy could release again")

    def check_open(self) -> None:
        """ValueError after the release, and in a forked process."""
        if os.getpid() != self._process:
            raise ValueError("this aggregator belongs to another process: a fork is a copy")
        if self._released:
            raise ValueError(
                "this aggregator has released, or skipped its round: a second release of the same "
                "data is not accounted; start a new one for the next round"
            )

    def admit(self, client: object, count: int) -> str | None:
        """Count `count` contributions in; what is wrong with their senders, or None.

        Raises
        ------
        ValueError
            Beyond the number of clients that the plan accounts for, for identifiers that are none,
            and after `receive_sum`; nothing is counted then.
        """
        # A count that grew would let a sum with too few shares of noise pass for enough.
        if self._complete:
            raise ValueError("this round has the sum of secure aggregation, and takes no other row")
        names = identifiers(client, count)
        again = twice(names, self._names)
        if again is not None:
            return f"client {again!r} is in this round already: it counts once"
        limit = most(self.plan)
        if self._count + count > limit:
            raise ValueError(f"the plan accounts for at most {limit} clients in a round")
        self._count += count
        self._names.update(names)
        return None

    def refuse(self, problem: str) -> None:
        """Count one contribution as malformed: it adds nothing."""
        self._problem = self._problem or problem
        self._malformed += 1

    def add(self, bounded: Bounded) -> None:
        """Add what the client's half has bounded, and `admit` has counted in.

        Raises
        ------
        ValueError
            After the release.
        """
        self.check_open()
        self._seen.append(bounded.seen)
        self.noise.accumulate_(self._sum, bounded.rows, bounded.columns)

    @property
    def takes_parts(self) -> bool:
        """Whether `add_parts` may be called: float32 on the CPU, and noise that adds as ours."""
        empty = self.layout.empty
        usual = empty.dtype == torch.float32 and empty.device.type == "cpu"
        plain = type(self.noise).accumulate_ is Gaussian.accumulate_
        return usual and plain and type(self._sum) is RunningSum

    def add_parts(self, one: BoundedParts) -> None:
        """As `add`, for one contribution where it lies, if `takes_parts`."""
        self.check_open()
        if not isinstance(self._sum, RunningSum):
            raise ValueError(f"{self.noise!r} takes no contribution in parts: use add")
        self._seen.append(one.seen)
        self._sum.add_parts_(one.parts, one.factor)

    def receive(self, message: Message, client: object = None) -> None:
        """Take one client's message from another process; it is bounded again.

        Parameters
        ----------
        message : Message
            What `Contribution.encode` returned there. A vector of another shape or kind, or one
            beyond C·cap, is no message of an honest client: it is malformed, or brought back
            within.
        client : hashable, optional
            An identifier; a second message of the same client is malformed.

        Raises
        ------
        ValueError
            After the release, after `receive_sum`, and beyond the number of clients that the plan
            accounts for; nothing is counted then.
        """
        with self.lock:
            self.check_open()
            problem = self.admit(client, 1)
            try:
                bounded = self._bounded(message)
            except Exception as error:  # whatever was sent, the round goes on
                problem = problem or str(error)
            if problem is None:
                self.add(bounded)
            else:
                self.refuse(problem)

    def receive_sum(self, total: ArrayLike, uploads: int) -> None:
        """Take what secure aggregation has added up: all of a round, with the clients' noise.

        The noise that is in it is the clients': this trusts that so many uploads are in the sum,
        each of which a `NoisyContribution` of this plan, clip, cap and rotation seed made, and
        that `secagg.Rules.for_plan` ruled the protocol. If that skipped the round, there is no sum
        to give: `release` skips it too, and records that it is spent.

        The server has seen the sum by then. Where a crash before `release` must not leave it out of
        the ledger, `ledger.record(collection.event, round)` before the protocol unmasks, and call
        `release()` without a ledger.

        Parameters
        ----------
        total : array or Tensor
            The sum of the clients' vectors modulo 2^bits, (D,).
        uploads : int
            How many are in it; a round of fewer than the plan's min_survivors and colluders is
            skipped by `release`.

        Raises
        ------
        ValueError
            After the release, when something has been added, beyond the number of clients that the
            plan accounts for, for a plan without distributed trust, noise that is not Skellam's,
            and what is no such sum.
        """
        with self.lock:
            self.check_open()
            if self.plan.trust != "distributed":
                raise ValueError(f"trust is {self.plan.trust!r}: the server has no sum to take")
            if self._count or self._complete:
                raise ValueError("a round has one sum, and nothing beside it: start a new one")
            if not isinstance(self._sum, LatticeSum):
                raise ValueError(f"{self.noise!r} takes no sum of whole numbers: use Skellam noise")
            steps = self._sum.checked(total)
            self.admit(None, whole("uploads", uploads, 0))
            self._sum.take(steps)
            self._complete = True

    def _bounded(self, message: Message) -> Bounded:
        """A message that may hold anything, within C·cap."""
        layout = self.layout
        sent = layout.rows(message.vector, layout.empty.new_empty(layout.total), one=True)
        cap = self.half.weight_cap or 1.0
        # A copy: whoever sent it may still write to it between its norm and the sum. Without its
        # weight it is of the size of an update, whose norm never leaves the range.
        rows, norms, finite = bounded_rows(sent / cap)
        factors = flat_factors(norms, self.half.clip.norm, self.room) * cap
        # A client's own word on whether it was within C counts as one bit, whatever it says.
        within = float(int(message.half_bits) > 0)
        answered = finite & bool(message.half_bits)
        scales = torch.full((1,), within, dtype=torch.float64)
        return Bounded(rows, [(0, layout.total, factors)], Seen(norms, scales, finite, answered))

    def release(self, ledger: Ledger | None = None, round: int | None = None) -> Release:
        """The noisy mean of everything added; the collection is finished afterwards.

        Parameters
        ----------
        ledger : Ledger, optional
            Its account gets the event on disk before the release exists.
        round : int, optional
            The number of the round, for the ledger.

        Returns
        -------
        Release

        Raises
        ------
        ValueError
            On a second call, and when the release would take the ledger beyond the plan's (ε, δ):
            nothing is released then.
        SkippedRound
            When fewer clients took part than the plan's `min_survivors` and `colluders`: nothing is
            released, and the event is recorded all the same, so that a round is spent whoever
            comes.
        """
        with self.lock:
            self.check_open()
            if ledger is not None:
                self._pay(ledger, round)
            self._released = True
            least = fewest(self.plan)
            if self._count < least:
                raise SkippedRound(
                    f"{self._count} clients took part, fewer than {told(self.plan)}, whose "
                    "noise the plan counts on: no release, and the round is spent. Go on with the "
                    "next one; plan.skips() has the chance"
                )
            spread = self._spread()
            release = self._finish(self.std * spread, self._bit_noise * spread)
            del self._sum, self._seen
            return release

    def _pay(self, ledger: Ledger, round: int | None) -> None:
        if not isinstance(ledger, Ledger):
            raise ValueError(f"ledger is {shown(ledger)}: give a fldp.Ledger(path, plan), or None")
        held = ledger.plan
        # Others may release into this ledger: what it affords stays so until it is recorded.
        with ledger.one_at_a_time:
            if held is not None and not held.affords([*ledger.events, self.event]):
                raise ValueError(
                    f"this release would take {ledger.path} beyond ε = "
                    f"{held.target_epsilon:g} at δ = {held.delta:g}: refused"
                )
            ledger.record(self.event, round)

    def _spread(self) -> float:
        """How much more noise arrived than the accounted noise, as a ratio; 1 for central trust."""
        if self.plan.trust == "central":
            return 1.0
        # Under local trust each client brings all of the noise.
        return math.sqrt(self._count / shares(self.plan))

    def _finish(self, std: float, bit_noise: float) -> Release:
        mean = self.noise.finish(self._sum, std, self.denominator)
        private, half_bits = self._diagnostics()
        unclipped = None
        if self.half.clip.queries:
            bits = self.noise.count(half_bits, bit_noise)
            unclipped = self._owner.observe(bits, self.plan.denominator)
        release = Release(
            mean=self.layout.restore(mean),
            noise_std=self.noise.marginal(std, self._sum) / self.denominator,
            denominator=self.denominator,
            event=self.event,
            clip_norm=self.half.clip.norm,
            reproducible=self.noise.reproducible,
            unclipped=unclipped,
        )
        keep_beside(release, private)
        private.warn()
        return release

    def _diagnostics(self) -> tuple[PrivateDiagnostics, int]:
        """What is not for release, and the raw sum of half-shifted bits, in halves."""
        seen = joined(self._seen)
        private = seen.counted(self._count, self._malformed, self._problem)
        return private, int(seen.half_bits().sum())
