"""Who is connected, and who may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization
from flwr.serverapp import Grid

from fldp._checks import shown

# What an inner strategy may ask for nodes before it is told that it waits for ever.
_PATIENCE = 5


class Roster:
    """The public keys of the clients' nodes: one key, one client.

    Without authentication a device that starts again is two nodes, and its data count twice in one
    round: the sensitivity is 2C, and no plan accounts for that. A node that shows a key of the
    roster was authenticated, and a key is connected once.

    Parameters
    ----------
    keys : iterable of bytes or str
        Each as `ssh-keygen` writes it for `flwr supernode register`, or in PEM.

    Raises
    ------
    ValueError
        For what is no key, for one that stands twice, and for none at all.
    """

    def __init__(self, keys: Iterable[bytes | str]) -> None:
        if isinstance(keys, (bytes, str)):
            raise ValueError(f"roster is {shown(keys)}: give a list of public keys")
        given = [_canonical(key) for key in keys]
        self._keys = frozenset(given)
        if not given:
            raise ValueError("the roster is empty: give the public key of each client's node")
        if len(self._keys) < len(given):
            raise ValueError("a public key stands twice in the roster: one key is one client")

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, nodes: Collection[Any]) -> None:
        """ValueError unless each node shows a key of the roster, and none shows another's.

        Parameters
        ----------
        nodes : collection of NodeInfo
            Those that are connected.
        """
        seen = set()
        for node in nodes:
            try:
                key = _canonical(node.public_key)
            except ValueError:
                key = b""
            if key not in self._keys:
                raise ValueError(
                    f"node {node.node_id} shows no key of the roster: start the SuperLink with "
                    "--enable-supernode-auth, and register the roster's nodes alone"
                )
            if key in seen:
                raise ValueError(f"node {node.node_id} shows another node's key: end one of them")
            seen.add(key)


def _canonical(key: bytes | str) -> bytes:
    """One form of a public key, whatever it is written in."""
    raw = key.encode() if isinstance(key, str) else key
    try:
        if raw.lstrip().startswith(b"-----"):
            found: Any = serialization.load_pem_public_key(raw)
        else:
            found = serialization.load_ssh_public_key(raw)
    except Exception:
        raise ValueError(
            f"{shown(key)} is no public key: give it as ssh-keygen writes it, or in PEM"
        ) from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(found.public_bytes(serialization.Encoding.DER, form))


def connected(grid: Grid, clients: int, roster: Roster | None) -> list[int]:
    """The connected nodes, of which each is a client, in order.

    Parameters
    ----------
    grid : Grid
        Flower's.
    clients : int
        N.
    roster : Roster, optional
        Whose keys they must show; None asks for none.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        For more nodes than clients, and for one that is not in the roster.
    """
    # A node that is listed twice is one.
    infos = {info.node_id: info for info in grid.get_nodes()}
    nodes = sorted(infos)
    if len(nodes) > clients:
        raise ValueError(
            f"{len(nodes)} nodes are connected and the plan is for {clients} clients: calibrate "
            "for the most that may connect, and let authenticated nodes connect alone"
        )
    if roster is not None:
        roster.check(infos.values())
    return nodes


class OneReply(Grid):
    """The grid that an inner strategy sees: as many nodes as it wants, and no way to talk to them.

    Parameters
    ----------
    strategy : Strategy
        Who will ask.
    """

    def __init__(self, strategy: Any) -> None:
        names = ("min_available_nodes", "min_train_nodes")
        self._count = max(1, *(int(getattr(strategy, name, 1)) for name in names))
        self._asked = 0

    def get_node_ids(self) -> Iterable[int]:
        """Numbers of nodes that are nobody."""
        self._asked += 1
        if self._asked > _PATIENCE:
            raise ValueError("the inner strategy waits for more nodes than it says it needs")
        return range(self._count)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError("the inner strategy may not talk to nodes: it sees noisy means alone")

    run = property(_refuse)
    set_run = _refuse
    create_message = _refuse
    push_messages = _refuse
    pull_messages = _refuse
    send_and_receive = _refuse
