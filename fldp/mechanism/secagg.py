"""A server that sees only the sum: secure aggregation modulo 2^bits, with dropouts.

The protocol is that of Bonawitz et al. (2017, "Practical Secure Aggregation for Privacy-Preserving
Machine Learning") on the sparse graph of Bell et al. (2020, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead"), both for a server that follows the protocol. Every two neighbours
agree on a mask that one adds and the other takes away; every client adds a mask of its own besides;
the secrets behind both are in shares with the neighbours. Who drops out before uploading leaves
masks behind, which its neighbours' shares of its key take away; who uploads has its own mask taken
away by their shares of its seed. Nobody ever gives both.

A round in four steps; the server passes on what it is given:

=============  ===================  =======================  ==============================
step           a client does        and sends                the server passes on
=============  ===================  =======================  ==============================
keys           `Client.advertise`   `PublicKeys`             to the neighbours
shares         `Client.share`       a `SealedShares` for     to each neighbour its own, which
                                    each neighbour           it cannot read
masked vector  `Client.upload`      an `Upload`              nothing: it adds them up
unmasking      `Client.unmask`      an `Answer`              nothing: `Server.total`
=============  ===================  =======================  ==============================

Guarantee, against a semi-honest server with up to `Rules.colluders` clients at its side: it learns
the sum over all honest survivors, of which there are `Rules.min_survivors` at least, who dropped
out, and nothing else of a vector: as long as X25519, HKDF-SHA256, AES-256 and ChaCha20-Poly1305
hold, and but for the chance that `Rules` states. With too few uploads it learns nothing, because
clients refuse.

Not guaranteed. A server that deviates from the protocol: no public key is certified here, so it
could put its own in their place, read every share and unmask every client; whoever fears that needs
identity keys that are certified elsewhere, the consistency check of Bonawitz et al. and a graph
that the server does not choose, none of which is offered, because one without the others protects
nobody. Channels between client and server are the caller's (TLS); the seals are against other
readers, and against messages that go astray. The sum itself hides nothing that it shows: that is
what noise in the vectors is for. Nor are vectors checked: one client can spoil the sum. Clients
that a server makes up count as colluders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fldp._checks import shown
from fldp.mechanism.secagg_client import Client
from fldp.mechanism.secagg_graph import Degree, degree
from fldp.mechanism.secagg_messages import (
    Answer,
    PublicKeys,
    Request,
    SealedShares,
    Upload,
)
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.secagg_server import Server

__all__ = [
    "Answer",
    "Client",
    "Degree",
    "PublicKeys",
    "Request",
    "Round",
    "Rules",
    "SealedShares",
    "Server",
    "Upload",
    "degree",
]
_Sent = TypeVar("_Sent", PublicKeys, SealedShares, Upload, Request, Answer)


class Round:
    """One whole round in one process, for tests and for looking at: all clients and the server.

    Every message crosses as bytes. A round runs once: its keys are used once.

    Parameters
    ----------
    rules : Rules
        Of this round.

    Attributes
    ----------
    uploads : dict
        Client -> its `Upload`, as the server saw it.
    bytes_up, bytes_down : array
        What each client sent and was sent, (n,).

    Examples
    --------
    Five clients, of whom one disappears before it uploads and one after:

    >>> rules = Rules(clients=5, size=3, bits=16, min_survivors=3, colluders=1)
    >>> vectors = np.arange(15).reshape(5, 3)
    >>> Round(rules).run(vectors, no_upload=[4], no_answer=[0]).tolist()
    [18, 22, 26]
    >>> vectors[:4].sum(axis=0).tolist()
    [18, 22, 26]
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._server = Server(rules)
        self._clients = [Client(rules, number) for number in range(rules.clients)]
        self._ran = False
        self.uploads: dict[int, Upload] = {}
        self.bytes_up = np.zeros(rules.clients, np.int64)
        self.bytes_down = np.zeros(rules.clients, np.int64)

    @property
    def graph(self) -> dict[int, tuple[int, ...]]:
        """Client -> its neighbours."""
        return dict(self._server.graph)

    def run(
        self,
        vectors: NDArray[np.integer],
        no_shares: Sequence[int] = (),
        no_upload: Sequence[int] = (),
        no_answer: Sequence[int] = (),
    ) -> NDArray[np.int64]:
        """The sum over who uploads, modulo 2^bits.

        Parameters
        ----------
        vectors : array
            Integers (n, d) in [0, 2^bits), a row for each client.
        no_shares, no_upload, no_answer : sequence of int
            Who drops out before sharing its secrets, before uploading, before answering.

        Returns
        -------
        array
            Integers (d,) in [0, 2^bits).

        Raises
        ------
        SkippedRound
            Where too few upload, or too few answer.
        ValueError
            For vectors of another shape, kind or range, and for a second call.

        Examples
        --------
        >>> rules = Rules(clients=3, size=1, bits=8, min_survivors=2, colluders=0)
        >>> Round(rules).run(np.array([[200], [100], [1]])).tolist()  # 301 modulo 256
        [45]
        """
        rules = self.rules
        if np.shape(vectors) != (rules.clients, rules.size):
            raise ValueError(
                f"vectors are {shown(vectors)}: give integers ({rules.clients}, {rules.size})"
            )
        late = {rules.check_client(number) for number in no_shares}
        gone = {rules.check_client(number) for number in no_upload}
        silent = {rules.check_client(number) for number in no_answer}
        if self._ran:
            raise ValueError("this round has run: its keys are used once, make a new Round")
        self._ran = True
        sharing = [client for client in self._clients if client.me not in late]
        self._exchange(sharing)
        uploading = [client for client in sharing if client.me not in gone]
        for client in uploading:
            boxes = [self._down(client.me, box) for box in self._server.shares_for(client.me)]
            upload = client.upload(boxes, vectors[client.me])
            self.uploads[client.me] = self._up(client.me, upload)
            self._server.add_upload(self.uploads[client.me])
        request = self._server.request()
        for client in uploading:
            if client.me not in silent:
                answer = client.unmask(self._down(client.me, request))
                self._server.add_answer(self._up(client.me, answer))
        return self._server.total()

    def _exchange(self, sharing: Sequence[Client]) -> None:
        """Keys of everybody, and shares of those who still live."""
        for client in self._clients:
            self._server.add_keys(self._up(client.me, client.advertise()))
        for client in sharing:
            keys = [self._down(client.me, key) for key in self._server.keys_for(client.me)]
            boxes = [self._up(client.me, box) for box in client.share(keys)]
            self._server.add_shares(boxes)

    def _up(self, client: int, message: _Sent) -> _Sent:
        """A message as it arrives at the server."""
        data = message.to_bytes()
        self.bytes_up[client] += len(data)
        return type(message).from_bytes(data)

    def _down(self, client: int, message: _Sent) -> _Sent:
        """A message as it arrives at a client."""
        data = message.to_bytes()
        self.bytes_down[client] += len(data)
        return type(message).from_bytes(data)
