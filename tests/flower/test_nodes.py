"""Who is connected: no more than the plan says, and with a roster nobody twice."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.serverapp.strategy import FedAvg
from stand_in import Nodes, ones, plan, private, start

from fldp.flower.nodes import OneReply, Roster, connected


def key(form: str = "pem") -> bytes:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return written(public, form)


def written(public: ec.EllipticCurvePublicKey, form: str) -> bytes:
    if form == "pem":
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return public.public_bytes(serialization.Encoding.PEM, kind)
    kind = serialization.PublicFormat.OpenSSH
    return public.public_bytes(serialization.Encoding.OpenSSH, kind)


KEYS = [key() for _ in range(4)]


def test_nodes_with_keys_of_the_roster_take_part(tmp_path) -> None:
    nodes = Nodes([8, 5, 7], ones, dict(zip([5, 7, 8], KEYS, strict=False)))
    assert connected(nodes, 4, Roster(KEYS)) == [5, 7, 8]
    strategy = private(tmp_path, plan(cohort=None), roster=KEYS)
    strategy.start(nodes, start(), num_rounds=1)
    assert nodes.asked == [[5, 7, 8]]
    assert "one key, one client" in strategy.statement


def test_a_device_that_came_back_as_another_node_is_refused(tmp_path) -> None:
    """One device twice in a round is 2C."""
    nodes = Nodes([5, 6], ones, {5: KEYS[0], 6: KEYS[0]})
    with pytest.raises(ValueError, match="node 6 shows another node's key"):
        private(tmp_path, plan(), roster=KEYS).start(nodes, start())
    assert nodes.asked == []


@pytest.mark.parametrize("shown", [b"", b"some bytes", key()], ids=["none", "no key", "another"])
def test_a_node_without_a_key_of_the_roster_is_refused(tmp_path, shown) -> None:
    nodes = Nodes([5, 6], ones, {5: KEYS[0], 6: shown})
    with pytest.raises(ValueError, match=r"node 6 shows no key of the roster.*supernode-auth"):
        private(tmp_path, plan(), roster=KEYS).start(nodes, start())
    assert nodes.asked == []


def test_a_key_is_the_same_in_every_form() -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    text = written(public, "ssh").decode() + " comment@somewhere"
    nodes = Nodes([1], ones, {1: written(public, "pem")})
    assert connected(nodes, 1, Roster([text])) == [1]
    with pytest.raises(ValueError, match="twice in the roster"):
        Roster([text, written(public, "pem")])


def test_a_roster_larger_than_the_plan_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="the roster has 4 keys"):
        private(tmp_path, plan(clients=3, cohort=None), roster=KEYS)
    assert len(Roster(KEYS)) == 4


@pytest.mark.parametrize("keys", ["ssh-ed25519 AAAA", b"key"])
def test_one_key_is_no_roster(keys) -> None:
    with pytest.raises(ValueError, match="give a list of public keys"):
        Roster(keys)


def test_more_nodes_than_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="5 nodes are connected and the plan is for 4 clients"):
        connected(Nodes(range(5), ones), 4, None)


def test_an_inner_strategy_talks_to_nobody() -> None:
    grid = OneReply(FedAvg(min_available_nodes=7))
    assert list(grid.get_node_ids()) == [*range(7)]
    for talk in (grid.push_messages, grid.pull_messages, grid.send_and_receive, grid.set_run):
        with pytest.raises(ValueError, match="may not talk to nodes"):
            talk([])
    with pytest.raises(ValueError, match="may not talk to nodes"):
        grid.run  # noqa: B018


def test_an_inner_strategy_that_waits_for_ever_is_told() -> None:
    grid = OneReply(FedAvg())
    for _ in range(5):
        grid.get_node_ids()
    with pytest.raises(ValueError, match="waits for more nodes"):
        grid.get_node_ids()
