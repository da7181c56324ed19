"""The rules of a round: what is left out is chosen safely, what gives too much away is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from conftest import plan_for
from hypothesis import given
from hypothesis import strategies as st

from fldp.mechanism.release import SkippedRound
from fldp.mechanism.secagg import Client
from fldp.mechanism.secagg_graph import smallest
from fldp.mechanism.secagg_rules import Rules
from fldp.mechanism.skellam import Skellam


def rules(**changes: Any) -> Rules:
    settings = {"clients": 100, "size": 10, "bits": 16, "min_survivors": 75, "colluders": 5}
    return Rules(**{**settings, **changes})


def test_what_is_left_out_is_the_smallest_that_is_safe() -> None:
    found = rules()
    assert (found.degree, found.threshold) == smallest(100, colluders=5, dropped=20) == (48, 6)
    assert (found.min_uploads, found.dropouts) == (80, 20)
    assert not found.is_complete
    # Few clients are all neighbours, and the threshold is half-way between both sides.
    few = rules(clients=10, min_survivors=6, colluders=1)
    assert few.is_complete
    assert (few.degree, few.threshold) == (9, 5)


def test_a_round_without_dropouts_or_colluders_has_a_threshold_too() -> None:
    for clients in (3, 4, 100):
        found = rules(clients=clients, min_survivors=clients, colluders=0)
        assert 2 <= found.shares <= clients
    assert rules(clients=3, min_survivors=3, colluders=0, threshold=3).shares == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clients": 2}, "clients is 2"),
        ({"clients": 2_000_000}, "give at most 1000000"),
        ({"size": 0}, "size is 0"),
        ({"size": 2**41}, "give at most"),
        ({"bits": 7}, "bits is 7"),
        ({"bits": 33}, "bits is 33"),
        ({"min_survivors": 1}, "min_survivors is 1"),
        ({"colluders": -1}, "colluders is -1"),
        ({"colluders": 26}, "no round could ever be unmasked"),
        ({"degree": 46}, "could cut 100 clients in two"),
        ({"degree": 49}, "give an even number"),
        ({"degree": 100}, "degree is 100"),
        ({"threshold": 5}, "give at least 6, which 5 colluders do not reach"),
        ({"threshold": 1}, "threshold is 1"),
        ({"threshold": 49}, "at most 48"),
        ({"degree": 99, "threshold": 81}, "at most 80"),
        ({"degree": 99, "threshold": 5}, "give at least 6"),
        ({"security": 0}, "security is 0"),
        ({"security": 257}, "security is 257"),
        ({"nonce": bytes(15)}, "give 16 bytes"),
        ({"nonce": "a" * 16}, "give 16 bytes"),
    ],
)
def test_what_gives_too_much_away_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rules(**changes)


def test_rules_cross_the_wire() -> None:
    sent = rules()
    assert Rules.from_bytes(sent.to_bytes()) == sent
    assert Rules.from_bytes(sent.to_bytes()).tag == sent.tag
    # Whole numbers of other types are those numbers.
    assert rules(clients=100.0).to_bytes()[:-16] == sent.to_bytes()[:-16]


def test_the_tag_is_that_of_one_round_and_all_its_rules() -> None:
    base = rules()
    assert rules().tag != base.tag, "two rounds have one nonce"
    changes: dict[str, Any] = {
        "clients": 101,
        "size": 11,
        "bits": 17,
        "min_survivors": 76,
        "colluders": 4,
        "degree": 50,
        "threshold": 7,
        "security": 39,
        "nonce": bytes(16),
    }
    assert [field.name for field in fields(Rules)] == list(changes)
    tags = {replace(base, **{name: value}).tag for name, value in changes.items()}
    assert len(tags | {base.tag}) == 1 + len(changes)


@given(st.binary(max_size=80))
def test_other_bytes_are_refused_with_a_sentence(data: bytes) -> None:
    for given_bytes in (data, data.ljust(len(rules().to_bytes()), b"\0")):
        try:
            found = Rules.from_bytes(given_bytes)
        except ValueError:
            continue
        assert found.to_bytes() == given_bytes


def test_a_number_beyond_the_round_is_nobody() -> None:
    assert rules().check_client(99) == 99
    for number in (100, -1, 1.5, "0", None):
        with pytest.raises(ValueError, match="client"):
            rules().check_client(number)  # type: ignore[arg-type]


def test_rules_of_a_plan_are_its_numbers_and_its_grids() -> None:
    plan = plan_for(40, trust="distributed", min_survivors=20, colluders=3, rounds=5)
    grid = Skellam(bits=20).grid(plan, 600)
    found = Rules.for_plan(plan, 30, grid)
    assert (found.clients, found.size, found.bits) == (30, 1024, 20)
    assert (found.min_survivors, found.colluders, found.min_uploads) == (20, 3, 23)
    assert found.nonce != Rules.for_plan(plan, 30, grid).nonce
    assert Rules.for_plan(plan, 30, grid, nonce=found.nonce) == found
    with pytest.raises(SkippedRound, match="22 clients came, fewer than min_survivors = 20 and 3"):
        Rules.for_plan(plan, 22, grid)
    with pytest.raises(ValueError, match="at most 40"):
        Rules.for_plan(plan, 41, grid)
    with pytest.raises(ValueError, match="trust is 'central'"):
        Rules.for_plan(plan_for(40), 40, grid)
    with pytest.raises(ValueError, match=r"give NoisyContribution\.grid"):
        Rules.for_plan(plan, 30, None)  # type: ignore[arg-type]


def test_a_plan_that_no_protocol_can_keep_is_refused_whoever_comes() -> None:
    plan = plan_for(40, trust="distributed", min_survivors=1)
    grid = Skellam(bits=20).grid(plan, 600)
    for clients in (0, 1, 40):
        with pytest.raises(ValueError, match="the plan's min_survivors is 1") as refused:
            Rules.for_plan(plan, clients, grid)
        assert refused.type is ValueError


def test_two_clients_are_too_few_and_end_no_training() -> None:
    plan = plan_for(40, trust="distributed", min_survivors=2)
    grid = Skellam(bits=20).grid(plan, 600)
    with pytest.raises(SkippedRound, match="2 clients came, and the protocol needs 3"):
        Rules.for_plan(plan, 2, grid)
    assert Rules.for_plan(plan, 3, grid).min_uploads == 2


@pytest.mark.parametrize("other", [Skellam(bits=24), Skellam(bits=16)])
def test_other_bits_than_the_grids_are_other_rules(other: Skellam) -> None:
    """Of (x mod 2^16) + (y mod 2^16) modulo 2^20 one sees how many wrapped around."""
    plan = plan_for(40, trust="distributed", min_survivors=20)
    found = Rules.for_plan(plan, 30, Skellam(bits=20).grid(plan, 600))
    theirs = Rules.for_plan(plan, 30, other.grid(plan, 600), nonce=found.nonce)
    assert theirs.tag != found.tag
    client = Client(found, 0)
    peers = [Client(theirs, number).advertise() for number in range(1, 30)]
    with pytest.raises(ValueError, match="of another round, or of other rules"):
        client.share(peers)


def test_what_the_graph_leaves_is_small_beside_delta() -> None:
    for rounds, delta, bits in [(5, 1e-5, 40), (10**4, 1e-9, 55), (1, 1e-100, 256)]:
        plan = plan_for(
            200, trust="distributed", min_survivors=100, colluders=3, rounds=rounds, delta=delta
        )
        found = Rules.for_plan(plan, 200, Skellam().grid(plan, 600))
        assert found.security == bits
        if bits < 256:
            assert rounds * 2.0 ** (1 - bits) <= 1e-3 * delta
