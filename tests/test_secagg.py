"""Whole rounds: above the threshold the sum is exact whoever drops out, below it there is none."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

import fldp
from fldp.mechanism import secagg, secagg_client
from fldp.mechanism.release import SkippedRound
from fldp.mechanism.secagg import Client, Round, Rules

# What becomes of a client.
STAYS, NO_SHARES, NO_UPLOAD, NO_ANSWER = range(4)


def who(fates: Sequence[int], fate: int) -> list[int]:
    return [client for client, one in enumerate(fates) if one == fate]


def succeeds(rules: Rules, graph: dict[int, tuple[int, ...]], fates: Sequence[int]) -> bool:
    """Whether a round must give the sum, said again from the protocol's definition."""
    shared = {u for u, fate in enumerate(fates) if fate != NO_SHARES}
    uploaded = {u for u in shared if fates[u] != NO_UPLOAD}
    answered = {u for u in uploaded if fates[u] != NO_ANSWER}
    if len(uploaded) < rules.min_uploads:
        return False
    for u in uploaded:
        holders = {u, *graph[u]}
        if min(len(holders & shared), len(holders & answered)) < rules.shares:
            return False
    for u in shared - uploaded:
        has_partners = bool(uploaded.intersection(graph[u]))
        if has_partners and len(answered.intersection(graph[u])) < rules.shares:
            return False
    return True


def outcome(rules: Rules, fates: Sequence[int], vectors: np.ndarray[Any, Any]) -> bool:
    """Run a round and hold it against what it must do; whether there was a sum."""
    one = Round(rules)
    must = succeeds(rules, one.graph, fates)
    try:
        found = one.run(
            vectors,
            no_shares=who(fates, NO_SHARES),
            no_upload=who(fates, NO_UPLOAD),
            no_answer=who(fates, NO_ANSWER),
        )
    except ValueError:
        found = None
    assert must == (found is not None), fates
    if found is None:
        return False
    kept = [u for u, fate in enumerate(fates) if fate in (STAYS, NO_ANSWER)]
    wanted = vectors[kept].astype(object).sum(axis=0) % (1 << rules.bits)
    assert found.tolist() == wanted.tolist(), fates
    return True


def vectors_of(rules: Rules, seed: int = 0) -> np.ndarray[Any, Any]:
    source = np.random.default_rng(seed)
    found = source.integers(0, 1 << rules.bits, (rules.clients, rules.size))
    found[0] = (1 << rules.bits) - 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("survivors", "colluders", "threshold"), [(2, 0, 2), (2, 1, 2), (3, 0, 3)])
def test_every_way_to_drop_out(survivors: int, colluders: int, threshold: int) -> None:
    """All 256 fates of four clients."""
    rules = Rules(4, 3, 16, survivors, colluders, threshold=threshold)
    vectors = vectors_of(rules)
    sums = sum(outcome(rules, fates, vectors) for fates in itertools.product(range(4), repeat=4))
    assert 10 < sums < 200


@pytest.mark.slow
@settings(max_examples=examples(25))
@given(st.data())
def test_rounds_on_a_sparse_graph(data: st.DataObject) -> None:
    clients = data.draw(st.integers(12, 26), "clients")
    gone = clients // 4
    rules = Rules(
        clients,
        size=data.draw(st.integers(1, 20), "size"),
        bits=data.draw(st.integers(8, 32), "bits"),
        min_survivors=clients - gone,
        colluders=0,
        degree=8,
        security=1,
    )
    assert not rules.is_complete
    fates = [STAYS] * clients
    for _ in range(data.draw(st.integers(0, gone + 1), "leave")):
        fates[data.draw(st.integers(0, clients - 1))] = data.draw(st.integers(1, 3))
    outcome(rules, fates, vectors_of(rules, data.draw(st.integers(0, 100), "seed")))


@pytest.mark.parametrize("bits", [8, 9, 12, 16, 17, 20, 24, 31, 32])
def test_the_sum_is_exact_at_every_width(bits: int) -> None:
    rules = Rules(5, 11, bits, min_survivors=3, colluders=0)
    assert outcome(rules, [STAYS, NO_UPLOAD, STAYS, NO_ANSWER, STAYS], vectors_of(rules))


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_vectors_may_be_signed_or_not(kind: type) -> None:
    rules = Rules(3, 4, 32, min_survivors=3, colluders=0)
    assert outcome(rules, [STAYS] * 3, vectors_of(rules).astype(kind))


def test_whose_neighbours_never_shared_leaves_no_mask() -> None:
    rules = Rules(40, 1, 16, min_survivors=33, colluders=0, degree=6, security=1)
    one = Round(rules)
    near = one.graph[7]
    vectors = vectors_of(rules)
    kept = [u for u in range(40) if u != 7 and u not in near]
    found = one.run(vectors, no_shares=near, no_upload=[7])
    assert found.tolist() == (vectors[kept].sum(axis=0) % (1 << 16)).tolist()


@pytest.mark.parametrize("gone", [{"no_shares": [4, 5]}, {"no_upload": [4, 5]}])
def test_below_the_floor_there_is_no_sum(gone: dict[str, list[int]]) -> None:
    rules = Rules(6, 2, 16, min_survivors=4, colluders=1)
    with pytest.raises(SkippedRound, match="4 uploads, 5 are needed"):
        Round(rules).run(vectors_of(rules), **gone)


def test_below_the_threshold_there_is_no_sum() -> None:
    rules = Rules(6, 2, 16, min_survivors=4, colluders=1, threshold=4)
    with pytest.raises(SkippedRound, match="3 answers hold a share of client 0's secret, 4 are"):
        Round(rules).run(vectors_of(rules), no_answer=[0, 1, 2])


def test_a_round_runs_once() -> None:
    rules = Rules(3, 2, 16, min_survivors=3, colluders=0)
    one = Round(rules)
    one.run(vectors_of(rules))
    with pytest.raises(ValueError, match="its keys are used once, make a new Round"):
        one.run(vectors_of(rules))


@pytest.mark.parametrize(
    ("vectors", "gone", "says"),
    [
        (np.zeros((3, 3), int), (), r"give integers \(3, 2\)"),
        (np.zeros((2, 2), int), (), r"give integers \(3, 2\)"),
        (None, (), r"give integers \(3, 2\)"),
        (np.zeros((3, 2), int), (3,), "client 3 is none of the 3"),
        (np.zeros((3, 2)), (), "give a numpy array of integers"),
        (np.full((3, 2), -1), (), "goes from -1 to -1"),
    ],
)
def test_what_is_no_round_is_refused(vectors: Any, gone: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Round(Rules(3, 2, 16, min_survivors=3, colluders=0)).run(vectors, no_upload=gone)


def test_the_server_sees_the_sum_and_no_vector() -> None:
    rules = Rules(4, 500, 32, min_survivors=4, colluders=0)
    vectors = vectors_of(rules)
    one = Round(rules)
    assert one.run(vectors).tolist() == (vectors.sum(axis=0) % (1 << 32)).tolist()
    uploads = np.array([np.frombuffer(one.uploads[u].data, "<u4") for u in range(4)])
    # Any one agrees with an upload by chance once in 10^6.
    assert not (uploads == vectors).any()
    # Masks in common cancel; those of each client alone are still in the sum.
    assert not (uploads.sum(axis=0, dtype=np.uint32) == vectors.sum(axis=0) % (1 << 32)).any()


def test_bytes_are_those_of_the_messages() -> None:
    rules = Rules(100, 10_000, 16, min_survivors=75, colluders=5)
    assert rules.degree == 48
    small = Rules(10, 1000, 16, min_survivors=8, colluders=0)
    one = Round(small)
    one.run(vectors_of(small))
    vector = 2 * 1000
    # Keys, nine boxes, the upload, an answer of ten shares.
    wanted = (17 + 68) + 9 * (17 + 8 + 94) + (17 + 4 + vector) + (17 + 8 + 10 * 37)
    assert set(one.bytes_up) == {wanted}
    # Nine keys, nine boxes, ten bits in two bytes.
    assert set(one.bytes_down) == {9 * (17 + 68) + 9 * (17 + 8 + 94) + (17 + 2)}


def test_every_key_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mask is in exactly two uploads, or in one; those of two rounds have none in common."""
    seen: list[bytes] = []
    mask = secagg_client.mask_

    def noted(words: Any, added: Sequence[bytes], taken: Sequence[bytes]) -> None:
        seen.extend([*added, *taken])
        mask(words, added, taken)

    monkeypatch.setattr(secagg_client, "mask_", noted)
    rules = Rules(5, 1, 16, min_survivors=3, colluders=0)
    assert rules.is_complete
    for _ in range(2):
        Round(rules).run(vectors_of(rules))
    # In each of two rounds five masks of one client and ten of a pair.
    assert sorted(Counter(seen).values()) == [1] * 10 + [2] * 20


def test_the_face_is_one_module() -> None:
    assert fldp.mechanism.secagg is secagg
    assert {*secagg.__all__} >= {"Client", "Round", "Server", "Rules", "degree"}
    assert secagg.degree(100, 0.05, 0.2).degree == 48
    assert isinstance(Client(Rules(3, 1, 16, min_survivors=2, colluders=0), 0), secagg.Client)


def test_a_client_needs_no_torch() -> None:
    code = "import sys, fldp.mechanism.secagg; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
