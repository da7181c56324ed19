"""A client's half of a round of secure aggregation: it masks once, and helps to unmask once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fldp._checks import shown
from fldp.mechanism.secagg_keys import (
    NONCE_BYTES,
    PAIR,
    SEALING,
    Pairing,
    opened,
    sealed,
    self_key,
)
from fldp.mechanism.secagg_masks import mask_, packed, reduced, word_of
from fldp.mechanism.secagg_messages import (
    Answer,
    PublicKeys,
    Request,
    SealedShares,
    Upload,
    collected,
)
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.shamir import SECRET_BYTES, SHARE_BYTES, split

# What a client does in a round, in this order, and why not twice.
_STEPS = {
    "share": "its secrets are in shares: other shares of them would join with these",
    "upload": "it has uploaded: a second vector under the same masks would show the difference",
    "unmask": "it has answered: two answers could hold both kinds of share of one client",
}


class Client:
    """One client in one round: `advertise`, `share`, `upload`, `unmask`, each once and in order.

    Guarantee, against a server that follows the protocol and keeps everything it sees (semi-honest)
    and works with up to `rules.colluders` clients: of this client's vector they learn what the sum
    over all honest survivors says, and nothing else; see `Rules` for the chance that is left. If
    fewer than `rules.min_uploads` clients uploaded, this client does not help to unmask, and
    nothing is learned at all. Every key is fresh, used once, and forgotten after the answer.

    Not guaranteed: anything against a server that deviates. It could hand out public keys of its
    own, because nothing but the channel says whose a key is, and name different survivors to
    different clients. Nor is it checked what a client uploads: whoever sends nonsense spoils the
    sum. `rules` must be the caller's own, not what a server says they are.

    Parameters
    ----------
    rules : Rules
        Of this round.
    me : int
        This client's number.

    Examples
    --------
    Three clients; a server would pass on what they send.

    >>> rules = Rules(clients=3, size=2, bits=16, min_survivors=3, colluders=0)
    >>> clients = [Client(rules, number) for number in range(3)]
    >>> keys = [client.advertise() for client in clients]
    >>> boxes = []
    >>> for client in clients:
    ...     boxes += client.share(key for key in keys if key.sender != client.me)
    >>> for client in clients:
    ...     own = [box for box in boxes if box.receiver == client.me]
    ...     upload = client.upload(own, np.array([1, 2]))
    >>> from fldp.mechanism.secagg_messages import Request
    >>> len(clients[0].unmask(Request(rules.tag, (0, 1, 2))).seeds)
    3
    """

    def __init__(self, rules: Rules, me: int) -> None:
        if not isinstance(rules, Rules):
            raise ValueError(f"rules are {shown(rules)}: give secagg.Rules")
        self.rules = rules
        self.me = rules.check_client(me)
        # Label -> this client's own key pair for that, until it has shared.
        self._own = {label: Pairing(label, rules.tag, self.me) for label in (SEALING, PAIR)}
        self._public = PublicKeys(
            rules.tag, self.me, self._own[SEALING].public, self._own[PAIR].public
        )
        self._seed = os.urandom(SECRET_BYTES)
        # Neighbour -> key in common with it.
        self._box_keys: dict[int, bytes] = {}
        self._mask_keys: dict[int, bytes] = {}
        # Whose secrets this client holds shares of -> the share of its seed, and that of its key.
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._done: list[str] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self) -> NoReturn:
        raise ValueError("a client is not copied or pickled: a copy could answer a second time")

    def advertise(self) -> PublicKeys:
        """The public keys, for the server to pass on to the neighbours.

        Returns
        -------
        PublicKeys
            The same at every call.
        """
        return self._public

    def share(self, peers: Iterable[PublicKeys]) -> list[SealedShares]:
        """Split both secrets among the neighbours.

        Parameters
        ----------
        peers : iterable of PublicKeys
            Of the neighbours: at most the degree, and with this client the threshold at least.

        Returns
        -------
        list of SealedShares
            One for each neighbour.

        Raises
        ------
        ValueError
            For keys of another round, of this client, of nobody, of a client twice, of low order,
            or that two clients have; for too few neighbours or too many; for a second call.
        """
        rules = self.rules
        with self._lock:
            self._check_turn("share")
            keys = collected(peers, PublicKeys, rules)
            if self.me in keys:
                raise ValueError(f"client {self.me} is no neighbour of its own")
            # With its own share it holds one more than it has neighbours.
            if not rules.shares - 1 <= len(keys) <= rules.neighbours:
                raise ValueError(
                    f"{len(keys)} neighbours: client {self.me} needs {rules.shares - 1} at least, "
                    f"or nobody could unmask it, and has {rules.neighbours} at most"
                )
            public = [key for one in (self._public, *keys.values()) for key in (one.box, one.mask)]
            if len(set(public)) < len(public):
                raise ValueError("two public keys are the same: one of them is a copy")
            self._box_keys = {v: self._own[SEALING].key(v, one.box) for v, one in keys.items()}
            self._mask_keys = {v: self._own[PAIR].key(v, one.mask) for v, one in keys.items()}
            secret = self._own[PAIR].secret()
            self._own.clear()
            self._done.append("share")
            return self._sealed_shares(sorted(keys), secret)

    def _sealed_shares(self, peers: list[int], secret: bytes) -> list[SealedShares]:
        holders = [self.me, *peers]
        # A share at zero would be the secret.
        points = [holder + 1 for holder in holders]
        seeds = split(self._seed, points, self.rules.shares)
        keys = split(secret, points, self.rules.shares)
        shares = dict(zip(holders, zip(seeds, keys, strict=True), strict=True))
        # Its own share counts as any other's: whoever answers gives one.
        self._held[self.me] = shares.pop(self.me)
        messages = []
        for peer, (seed, key) in shares.items():
            context = SealedShares.context(self.rules.tag, self.me, peer)
            # One key for both directions: the nonces must differ, and random ones do.
            nonce = os.urandom(NONCE_BYTES)
            box = sealed(self._box_keys[peer], nonce, seed + key, context)
            messages.append(SealedShares(self.rules.tag, self.me, peer, box))
        return messages

    def upload(self, boxes: Iterable[SealedShares], vector: NDArray[np.integer]) -> Upload:
        """Mask the vector: with a mask in common with every neighbour that shared, and one alone.

        Parameters
        ----------
        boxes : iterable of SealedShares
            What the neighbours sealed for this client; who sent none has dropped out.
        vector : array
            Integers (d,) in [0, 2^bits), this client's share of the noise in them.

        Returns
        -------
        Upload
            Uniformly random to whoever lacks the masks.

        Raises
        ------
        ValueError
            For a vector of another kind, shape or range; for a box of another round, receiver or
            sender, or that does not open; for too few; for a second call.
        """
        rules = self.rules
        with self._lock:
            self._check_turn("upload")
            words = _as_words(vector, rules)
            held = self._opened(boxes)
            if len(held) < rules.shares - 1:
                raise ValueError(
                    f"{len(held)} neighbours shared their secrets: client {self.me} needs "
                    f"{rules.shares - 1} at least, or nobody could unmask it"
                )
            self._held |= held
            # Against a server that learns this client's key, because it seemed to drop out.
            own = self_key(self._seed, rules.tag, self.me)
            # Of two neighbours one adds their mask and the other takes it away: it cancels.
            added = [self._mask_keys[v] for v in held if v > self.me]
            taken = [self._mask_keys[v] for v in held if v < self.me]
            # Before anything is masked: whatever happens below, these masks are not used again.
            self._done.append("upload")
            mask_(words, [own, *added], taken)
            return Upload(rules.tag, self.me, packed(reduced(words, rules.bits), rules.bits))

    def _opened(self, boxes: Iterable[SealedShares]) -> dict[int, tuple[bytes, bytes]]:
        held = {}
        for sender, message in collected(boxes, SealedShares, self.rules).items():
            if message.receiver != self.me:
                raise ValueError(
                    f"the shares for client {message.receiver} came to client {self.me}"
                )
            if sender not in self._box_keys:
                raise ValueError(f"client {sender} is no neighbour of client {self.me}")
            context = message.context(message.tag, sender, self.me)
            plain = opened(self._box_keys[sender], message.box, context)
            if plain is None:
                raise ValueError(f"the shares of client {sender} do not open: they were changed")
            held[sender] = (plain[:SHARE_BYTES], plain[SHARE_BYTES:])
        return held

    def unmask(self, request: Request) -> Answer:
        """Help to unmask the sum, once: of each neighbour one kind of share.

        Parameters
        ----------
        request : Request
            Who uploaded. A request that is refused was not answered, and another may be.

        Returns
        -------
        Answer
            For who uploaded the share of its own mask, for who did not that of its key.

        Raises
        ------
        ValueError
            For fewer than `rules.min_uploads` uploads, where who names the survivors leaves this
            client out or names one that never shared its secrets, and for a second call.
        """
        rules = self.rules
        with self._lock:
            self._check_turn("unmask")
            if not isinstance(request, Request):
                raise ValueError(f"{shown(request)} is no message of the kind Request")
            request.check(rules)
            survivors = set(request.survivors)
            for survivor in survivors:
                rules.check_client(survivor)
            if len(survivors) < rules.min_uploads:
                raise ValueError(
                    f"{len(survivors)} uploads: below {rules.min_uploads}, {rules.min_survivors} "
                    f"honest ones and {rules.colluders} colluders, nothing is unmasked"
                )
            if self.me not in survivors:
                raise ValueError(f"client {self.me} did upload, and the request says it did not")
            unheard = survivors & self._mask_keys.keys() - self._held.keys()
            if unheard:
                raise ValueError(
                    f"client {min(unheard)} is said to have uploaded, and sent no shares"
                )
            seeds = {u: seed for u, (seed, _) in self._held.items() if u in survivors}
            keys = {u: key for u, (_, key) in self._held.items() if u not in survivors}
            self._done.append("unmask")
            self._forget()
            return Answer(rules.tag, self.me, seeds, keys)

    def _forget(self) -> None:
        """After the answer no secret is needed."""
        self._seed = b""
        self._box_keys = {}
        self._mask_keys = {}
        self._held = {}

    def _check_turn(self, step: str) -> None:
        """ValueError unless `step` is what comes next, in the process that began."""
        if os.getpid() != self._process:
            raise ValueError("this client began in another process: a copy could answer again")
        if step in self._done:
            raise ValueError(
                f"client {self.me} did '{step}' in this round: {_STEPS[step]}; make a new Client "
                "for a new round"
            )
        following = list(_STEPS)[len(self._done)]
        if step != following:
            raise ValueError(f"'{step}' is not next for client {self.me}: '{following}' is")


def _as_words(vector: NDArray[np.integer], rules: Rules) -> NDArray[np.unsignedinteger]:
    """A new array of the words that are masked; ValueError unless it is a vector of the round."""
    if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "iu":
        raise ValueError(f"vector is {shown(vector)}: give a numpy array of integers")
    # A subclass may have its own idea of adding a mask.
    vector = np.asarray(vector)
    if vector.shape != (rules.size,):
        raise ValueError(f"vector has shape {vector.shape}: this round sums ({rules.size},)")
    if vector.min() < 0 or int(vector.max()) >> rules.bits:
        raise ValueError(
            f"vector goes from {vector.min()} to {vector.max()}: give values in [0, 2^{rules.bits})"
        )
    return np.array(vector, word_of(rules.bits), order="C")
