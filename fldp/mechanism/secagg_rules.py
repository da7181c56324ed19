"""The public rules of one round of secure aggregation, which every message is bound to."""

from __future__ import annotations

import hashlib
import math
import os
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fldp._checks import shown, whole
from fldp.mechanism.secagg_graph import (
    LEAST_THRESHOLD,
    MOST_SECURITY,
    SECURITY,
    check_degree,
    check_security,
    is_connected,
    least_threshold,
    least_threshold_of_all,
    smallest,
)
from fldp.mechanism.secagg_masks import check_bits

if TYPE_CHECKING:
    from fldp.mechanism.grid import Grid
    from fldp.plan import PrivacyPlan

# Clients, size, bits, survivors, colluders, degree, threshold, security; then the nonce.
_FORM = struct.Struct(">IQHIIIIH16s")
NONCE_BYTES = 16
TAG_BYTES = 16
# The graph and its bounds are held by one process: beyond it a round is many rounds.
MOST_CLIENTS = 1_000_000
# A vector of 2^40 integers fits no machine.
_MOST_SIZE = 1 << 40
# Of δ, what the chances that `security` leaves may take over all rounds of a plan.
_SMALL_SHARE = 1e-3
# A ring has three at least; and a sum over one honest client is that client's vector.
_LEAST_CLIENTS, _LEAST_SURVIVORS = 3, 2


@dataclass(frozen=True)
class Rules:
    """What all parties of one round know: who counts, modulo what, and when a sum may be seen.

    Guarantee: with these rules a semi-honest server and `colluders` clients learn nothing of the
    others' vectors but the sum over all honest survivors, but for a chance below 2^(1-security)
    over the random order of the graph, which neither colluders nor dropouts knew; rules that would
    break this are refused.

    Parameters
    ----------
    clients : int
        n: they are numbered from 0.
    size : int
        d, integers in a vector.
    bits : int
        From 8 to 32: vectors are summed modulo 2^bits.
    min_survivors : int
        How many honest uploads the sum must have at least; where noise is in shares, the plan's
        `min_survivors`.
    colluders : int
        γ: how many clients may work with the server. Nobody can tell which uploads are honest, so a
        client refuses to unmask fewer than `min_survivors` + `colluders` uploads.
    degree : int, optional
        k, neighbours of a client; None: the smallest that keeps the guarantee, `secagg.degree`.
    threshold : int, optional
        t, shares that give a secret; None: the smallest that keeps the guarantee, and half-way
        between the colluders and the uploads where everybody is a neighbour.
    security : int
        By default 40 bits. It matters where not everybody is a neighbour.
    nonce : bytes, optional
        16 of them that no other round has; None: from the operating system.

    Raises
    ------
    ValueError
        For what is out of range, and for a degree or a threshold that gives too much away.

    Examples
    --------
    >>> rules = Rules(clients=100, size=650, bits=16, min_survivors=75, colluders=5)
    >>> rules.degree, rules.threshold, rules.min_uploads
    (48, 6, 80)
    """

    clients: int
    size: int
    bits: int
    min_survivors: int
    colluders: int
    degree: int | None = None
    threshold: int | None = None
    security: int = SECURITY
    nonce: bytes = field(default_factory=lambda: os.urandom(NONCE_BYTES))

    def __post_init__(self) -> None:
        least = {
            "clients": _LEAST_CLIENTS,
            "size": 1,
            "min_survivors": _LEAST_SURVIVORS,
            "colluders": 0,
            "security": 1,
        }
        for name, low in least.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low))
        object.__setattr__(self, "bits", check_bits(self.bits))
        if self.clients > MOST_CLIENTS or self.size > _MOST_SIZE:
            raise ValueError(
                f"{self.clients} clients with {self.size} integers each: give at most "
                f"{MOST_CLIENTS} and 2^40"
            )
        if self.min_uploads > self.clients:
            raise ValueError(
                f"{self.min_survivors} honest survivors and {self.colluders} colluders are more "
                f"than {self.clients} clients: no round could ever be unmasked"
            )
        check_security(self.security)
        if not isinstance(self.nonce, bytes) or len(self.nonce) != NONCE_BYTES:
            raise ValueError(f"nonce is {shown(self.nonce)}: give {NONCE_BYTES} bytes, or None")
        self._choose()

    def _choose(self) -> None:
        """Set what was left open, and refuse a degree or a threshold that gives too much away."""
        degree = self.degree
        if degree is None:
            degree = smallest(self.clients, self.colluders, self.dropouts, self.security).degree
        degree = check_degree(self.clients, degree)
        object.__setattr__(self, "degree", degree)
        if not is_connected(self.clients, self.colluders + self.dropouts, degree, self.security):
            raise ValueError(
                f"degree is {degree}: colluders and dropouts could cut {self.clients} clients in "
                f"two, with a chance that is not below 2^-{self.security}; leave it out, or give "
                "more"
            )
        fewest = least_threshold(self.clients, self.colluders, degree, self.security)
        threshold = self.threshold
        if threshold is None:
            threshold = fewest
            if self.is_complete:
                threshold = least_threshold_of_all(self.clients, self.colluders, self.dropouts)
        threshold = whole("threshold", threshold, LEAST_THRESHOLD)
        object.__setattr__(self, "threshold", threshold)
        # In the complete graph all who upload hold a share of each other's secrets, and their own.
        most = degree
        if self.is_complete:
            most = self.min_uploads
        if not fewest <= threshold <= most:
            raise ValueError(
                f"threshold is {threshold}: give at least {fewest}, which {self.colluders} "
                f"colluders do not reach, and at most {most}, or leave it out"
            )

    @property
    def min_uploads(self) -> int:
        """Uploads without which nothing is unmasked: honest survivors and colluders."""
        return self.min_survivors + self.colluders

    @property
    def dropouts(self) -> int:
        """How many clients may be missing."""
        return self.clients - self.min_uploads

    @property
    def neighbours(self) -> int:
        """k, as chosen."""
        assert self.degree is not None
        return self.degree

    @property
    def shares(self) -> int:
        """t, as chosen."""
        assert self.threshold is not None
        return self.threshold

    @property
    def is_complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.neighbours == self.clients - 1

    @cached_property
    def tag(self) -> bytes:
        """16 bytes that stand for this round and all its rules: part of each key and message."""
        return hashlib.sha256(b"fldp secagg: rules" + self.to_bytes()).digest()[:TAG_BYTES]

    def to_bytes(self) -> bytes:
        """For the wire.

        Returns
        -------
        bytes
            What `from_bytes` reads.
        """
        return _FORM.pack(
            self.clients,
            self.size,
            self.bits,
            self.min_survivors,
            self.colluders,
            self.neighbours,
            self.shares,
            self.security,
            self.nonce,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Rules:
        """From the wire; the caller compares them with the rules that were promised.

        Parameters
        ----------
        data : bytes
            From anyone.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError
            For anything else than rules that are allowed.
        """
        if not isinstance(data, bytes) or len(data) != _FORM.size:
            raise ValueError(f"rules are {_FORM.size} bytes: {shown(data)} are none")
        return cls(*_FORM.unpack(data))

    @classmethod
    def for_plan(
        cls, plan: PrivacyPlan, clients: int, grid: Grid, nonce: bytes | None = None
    ) -> Rules:
        """The rules of a round whose sum a plan accounts for, with noise on its grid.

        The server makes them; a client makes them as well, of its own plan and grid and the
        server's number of clients and nonce, and leaves where the two differ. Other bits than the
        grid's would tell how many entries wrapped around, which no noise covers; fewer survivors
        would be too little noise. `security` is 40 bits, or as many, up to the keys' 256, as keep
        the chance that is left below a thousandth of the plan's δ over all its rounds.

        Parameters
        ----------
        plan : PrivacyPlan
            Of distributed trust.
        clients : int
            n, who came to this round.
        grid : Grid
            `NoisyContribution.grid`, or `Skellam.grid(plan, d)`.
        nonce : bytes, optional
            The server's, at a client; None: a new one.

        Returns
        -------
        Rules

        Raises
        ------
        SkippedRound
            For fewer clients than the plan's `min_survivors` and `colluders`, or than three. The
            round is spent: `Collection.release(ledger)` records it, of a collection that got no
            sum.
        ValueError
            For another trust, for a plan with one honest survivor, whoever comes, and for more
            clients than the plan accounts for.

        Examples
        --------
        >>> import fldp
        >>> from fldp.mechanism.skellam import Skellam
        >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=200,
        ...                       trust="distributed", min_survivors=150, colluders=10)
        >>> rules = Rules.for_plan(plan, 200, Skellam().grid(plan, 650))
        >>> rules.size, rules.bits, rules.min_uploads
        (1024, 16, 160)
        """
        # Here, because these modules load torch, which nothing else in this protocol needs.
        from fldp.mechanism.grid import Grid
        from fldp.mechanism.intake import check_plan
        from fldp.mechanism.release import SkippedRound
        from fldp.mechanism.turnout import fewest, most, told

        check_plan(plan)
        if not isinstance(grid, Grid):
            raise ValueError(f"grid is {shown(grid)}: give NoisyContribution.grid, or Skellam.grid")
        if plan.min_survivors is None:
            raise ValueError(
                f"trust is {plan.trust!r}: secure aggregation is for a plan of 'distributed' trust"
            )
        if plan.min_survivors < _LEAST_SURVIVORS:
            raise ValueError(
                f"the plan's min_survivors is {plan.min_survivors}: a sum over one honest client "
                f"is that client's vector; make a plan with {_LEAST_SURVIVORS} or more"
            )
        clients = whole("clients", clients, 0)
        if clients > most(plan):
            raise ValueError(f"{clients} clients: the plan accounts for at most {most(plan)}")
        if clients < fewest(plan):
            raise SkippedRound(
                f"{clients} clients came, fewer than {told(plan)}, whose noise the plan counts on: "
                "nothing is asked of them. The round is spent, go on with the next one"
            )
        if clients < _LEAST_CLIENTS:
            raise SkippedRound(
                f"{clients} clients came, and the protocol needs {_LEAST_CLIENTS}: nothing is "
                "asked of them. The round is spent, go on with the next one"
            )
        if nonce is None:
            nonce = os.urandom(NONCE_BYTES)
        return cls(
            clients=clients,
            size=grid.width,
            bits=grid.bits,
            min_survivors=plan.min_survivors,
            colluders=plan.colluders,
            security=_security(plan),
            nonce=nonce,
        )

    def check_client(self, client: int) -> int:
        """The number of a client of this round, else a ValueError."""
        client = whole("client", client, 0)
        if client >= self.clients:
            raise ValueError(f"client {client} is none of the {self.clients} of this round")
        return client


def _security(plan: PrivacyPlan) -> int:
    """Bits with which T chances of 2^(1 - bits) are a small share of δ."""
    needed = 1 + math.ceil(math.log2(plan.rounds) - math.log2(_SMALL_SHARE * plan.delta))
    return min(max(SECURITY, needed), MOST_SECURITY)
