"""The server's half of a round of secure aggregation: it passes messages on, and sees the sum."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fldp._checks import shown
from fldp.mechanism.secagg_graph import ring
from fldp.mechanism.secagg_keys import PAIR, Pairing, self_key
from fldp.mechanism.secagg_masks import mask_, reduced, unpacked, word_of
from fldp.mechanism.secagg_messages import (
    Answer,
    PublicKeys,
    Request,
    SealedShares,
    Upload,
    collected,
    with_senders,
)
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.shamir import combine

# What comes in, in this order. What is asked of the server for the next step closes a step.
_STEPS = ("keys", "shares", "uploads", "answers", "nothing")


class Server:
    """A server of one round: messages in, messages out, and the sum over who uploaded.

    Guarantee: what comes in is checked for its round, its sender and its step before it counts, and
    a message that is refused changes nothing. It holds one vector, the running sum.

    Who calls it must know from whom a message came: `sender` in a message is what the sender says.

    Parameters
    ----------
    rules : Rules
        Of this round.

    Examples
    --------
    `secagg.Round` runs a whole round.

    >>> rules = Rules(clients=3, size=2, bits=16, min_survivors=2, colluders=0)
    >>> server = Server(rules)
    >>> server.graph[0]
    (1, 2)
    """

    def __init__(self, rules: Rules) -> None:
        if not isinstance(rules, Rules):
            raise ValueError(f"rules are {shown(rules)}: give secagg.Rules")
        self.rules = rules
        order = list(range(rules.clients))
        # Public, and drawn after it is settled who colludes.
        secrets.SystemRandom().shuffle(order)
        self.graph = ring(order, rules.neighbours)
        self._step = 0
        self._keys: dict[int, PublicKeys] = {}
        self._seen: set[bytes] = set()
        # Of no client: what it agrees on with a key is thrown away.
        self._trial = Pairing(PAIR, rules.tag, rules.clients)
        # Sender -> receiver -> what it sealed.
        self._boxes: dict[int, dict[int, SealedShares]] = {}
        self._uploaded: set[int] = set()
        self._answers: dict[int, Answer] = {}
        try:
            self._sum = np.zeros(rules.size, word_of(rules.bits))
        except MemoryError:
            raise ValueError(
                f"size is {rules.size}: this machine has no room for a sum of so many integers"
            ) from None

    def _open(self, step: str) -> None:
        """ValueError unless messages of a step are still taken."""
        if _STEPS[self._step] != step:
            raise ValueError(f"the server takes {_STEPS[self._step]} at this step, and no {step}")

    def _close(self, step: str) -> None:
        """The server has what it has of a step, and goes on."""
        if self._step > _STEPS.index(step):
            return
        self._open(step)
        self._step += 1

    def add_keys(self, message: PublicKeys) -> None:
        """Take a client's public keys.

        Parameters
        ----------
        message : PublicKeys
            Of a client that has sent none.

        Raises
        ------
        ValueError
            For another message, a second one of a client, one that comes late, and for keys that
            every neighbour would refuse: of low order, or that another client has.
        """
        self._open("keys")
        (found,) = collected([message], PublicKeys, self.rules).values()
        if found.sender in self._keys:
            raise ValueError(f"client {found.sender} has sent its keys")
        own = {found.box, found.mask}
        if len(own) < 2 or own & self._seen:
            raise ValueError(f"client {found.sender} sends a key that was sent before")
        # One client's bad key must not cost its neighbours the round.
        for key in own:
            self._trial.key(found.sender, key)
        self._seen |= own
        self._keys[found.sender] = found

    def keys_for(self, client: int) -> list[PublicKeys]:
        """The keys of a client's neighbours, for `Client.share`; closes the step of keys.

        Parameters
        ----------
        client : int
            One that has sent its own.

        Returns
        -------
        list of PublicKeys
            Of those neighbours that have sent theirs.
        """
        client = self.rules.check_client(client)
        self._close("keys")
        if client not in self._keys:
            raise ValueError(f"client {client} has sent no keys")
        return [self._keys[v] for v in self.graph[client] if v in self._keys]

    def add_shares(self, messages: Iterable[SealedShares]) -> None:
        """Take all that one client has sealed for its neighbours.

        Parameters
        ----------
        messages : iterable of SealedShares
            One for each neighbour that it was told of.

        Raises
        ------
        ValueError
            For other messages, several senders, a neighbour left out, a second call for a client,
            and where they come late.
        """
        self._open("shares")
        found: dict[int, SealedShares] = {}
        senders = set()
        for sender, message in with_senders(messages, SealedShares, self.rules):
            if message.receiver in found:
                raise ValueError(f"two boxes for client {message.receiver}: there is one")
            found[message.receiver] = message
            senders.add(sender)
        if len(senders) != 1:
            raise ValueError(f"shares of {len(senders)} clients: give those of one")
        (sender,) = senders
        if sender in self._boxes or sender not in self._keys:
            raise ValueError(f"client {sender} has sent its shares, or no keys before them")
        if found.keys() != {key.sender for key in self.keys_for(sender)}:
            raise ValueError(f"client {sender} must seal shares for each of its neighbours")
        self._boxes[sender] = found

    def shares_for(self, client: int) -> list[SealedShares]:
        """What neighbours sealed for a client, for `Client.upload`; closes the step of shares.

        Parameters
        ----------
        client : int
            One that has sent its own.

        Returns
        -------
        list of SealedShares
            Of those neighbours that have sent theirs.
        """
        client = self.rules.check_client(client)
        self._close("shares")
        if client not in self._boxes:
            raise ValueError(f"client {client} has sent no shares")
        return [self._boxes[v][client] for v in self._sharing(client)]

    def _sharing(self, client: int) -> list[int]:
        """The neighbours of a client that have shared their secrets."""
        return [v for v in self.graph[client] if v in self._boxes]

    def add_upload(self, message: Upload) -> None:
        """Add a client's masked vector to the sum.

        Parameters
        ----------
        message : Upload
            Of a client that has shared its secrets and has not uploaded.

        Raises
        ------
        ValueError
            For another message or length, a second one of a client, and one that comes late.
        """
        self._open("uploads")
        (found,) = collected([message], Upload, self.rules).values()
        if found.sender in self._uploaded or found.sender not in self._boxes:
            raise ValueError(f"client {found.sender} has uploaded, or shared no secrets before")
        self._sum += unpacked(found.data, self.rules.size, self.rules.bits)
        self._uploaded.add(found.sender)

    @property
    def survivors(self) -> tuple[int, ...]:
        """Who has uploaded, ascending."""
        return tuple(sorted(self._uploaded))

    def request(self) -> Request:
        """What is asked of everyone that uploaded; closes the step of uploads.

        Returns
        -------
        Request
            For `Client.unmask`.

        Raises
        ------
        SkippedRound
            For fewer than `rules.min_uploads` uploads: honest clients would refuse.
        """
        if self._step < _STEPS.index("uploads"):
            self._open("uploads")
        if len(self._uploaded) < self.rules.min_uploads:
            self._skip(
                f"{len(self._uploaded)} uploads, {self.rules.min_uploads} are needed: "
                f"{self.rules.min_survivors} honest ones and {self.rules.colluders} colluders"
            )
        self._close("uploads")
        return Request(self.rules.tag, self.survivors)

    def add_answer(self, message: Answer) -> None:
        """Take a client's answer.

        Parameters
        ----------
        message : Answer
            Of a client that has uploaded and has not answered.

        Raises
        ------
        ValueError
            For another message, a second one of a client, and one with other shares than asked.
        """
        self._open("answers")
        (found,) = collected([message], Answer, self.rules).values()
        sender = found.sender
        if sender in self._answers or sender not in self._uploaded:
            raise ValueError(f"client {sender} has answered, or not uploaded before")
        known = {sender, *self._sharing(sender)}
        right = found.seeds.keys() == known & self._uploaded
        if not right or found.keys.keys() != known - self._uploaded:
            raise ValueError(f"client {sender} answers with other shares than it was asked for")
        self._answers[sender] = found

    def total(self) -> NDArray[np.int64]:
        """The sum over the survivors, modulo 2^bits; closes the step of answers, once.

        Returns
        -------
        array
            Integers (d,) in [0, 2^bits).

        Raises
        ------
        SkippedRound
            For fewer answers than the threshold around one client.
        ValueError
            Where a share is false; and for a second call.
        """
        self._open("answers")
        tag = self.rules.tag
        added: list[bytes] = []
        taken = [self_key(self._secret(u, "seeds"), tag, u) for u in self.survivors]
        for u in sorted(self._boxes.keys() - self._uploaded):
            partners = [v for v in self._sharing(u) if v in self._uploaded]
            # Whose neighbours have all dropped out, its masks are in no upload.
            if not partners:
                continue
            pairing = Pairing(PAIR, tag, u, self._secret(u, "keys"))
            # A false share of a key shows here; one of a seed shows nowhere but in the sum.
            if pairing.public != self._keys[u].mask:
                raise ValueError(f"the shares of client {u}'s key give another: one is false")
            for v in partners:
                key = pairing.key(v, self._keys[v].mask)
                # What v did with it, the other way round.
                if u > v:
                    taken.append(key)
                else:
                    added.append(key)
        words = self._sum.copy()
        mask_(words, added, taken)
        self._close("answers")
        return reduced(words, self.rules.bits).astype(np.int64)

    def _secret(self, client: int, kind: str) -> bytes:
        """A client's seed or key, from the shares in the answers."""
        found = {}
        for sender, answer in self._answers.items():
            share = getattr(answer, kind).get(client)
            if share is not None:
                found[sender + 1] = share
        if len(found) < self.rules.shares:
            self._skip(
                f"{len(found)} answers hold a share of client {client}'s secret, "
                f"{self.rules.shares} are needed"
            )
        return combine(found, self.rules.shares)

    def _skip(self, why: str) -> NoReturn:
        # Here, because that module loads torch, which nothing else in this protocol needs.
        from fldp.mechanism.release import SkippedRound

        raise SkippedRound(f"{why}: the round is skipped, and nothing of it is seen")
