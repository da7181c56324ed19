"""simulation.draws: one keyed stream, in which nobody's draw depends on anybody else."""

from __future__ import annotations

import hmac
import math
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.simulation.draws import PURPOSES, Draws, _key_of
from fldp.simulation.sampling import Everyone, FixedSize, MinSeparation, Poisson

# Any change of these numbers changes every seeded run on every machine.
KNOWN = [
    [15960179659439453170, 1461758189512163503],
    [8002317982363854445, 9644469521005939469],
    [18106753548586739924, 15446516334795050754],
]


def test_known_words_on_every_machine() -> None:
    assert Draws(1).words("cohort", 5, range(3)).tolist() == KNOWN


def test_words_are_aes_of_client_and_counter_under_a_round_key() -> None:
    key = hmac.digest(_key_of(1), b"cohort|5|", "sha256")
    block = (2).to_bytes(8, "little") + (0).to_bytes(8, "little")
    sealed = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)
    assert [int.from_bytes(sealed[:8], "little"), int.from_bytes(sealed[8:], "little")] == KNOWN[2]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**40), st.sampled_from(PURPOSES), st.integers(0, 10**6),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True), st.integers(1, 9),
    st.integers(0, 2**40),
)  # fmt: skip
def test_p03_a_clients_words_depend_on_nobody_else(
    seed: int, purpose: str, round: int, clients: list[int], count: int, first: int
) -> None:
    together = Draws(seed).words(purpose, round, clients, count, first)
    for client, words in zip(clients, together, strict=True):
        alone = Draws(seed).words(purpose, round, [client], count + 4, first)[0]
        assert words.tolist() == alone[:count].tolist()


def test_p03_purposes_rounds_clients_and_counters_are_apart() -> None:
    draws, seen = Draws(9), set()
    for purpose in PURPOSES:
        for round in (0, 1, 11, 2**32):
            found = draws.words(purpose, round, [0, 1, 256, 2**32], 6)
            again = draws.words(purpose, round, [0], 2, 2**32)
            seen |= {int(word) for word in np.concatenate([found.ravel(), again.ravel()])}
    assert len(seen) == len(PURPOSES) * 4 * (4 * 6 + 2)


@pytest.mark.parametrize("other", [
    2**32 + 5, -5, 5 + 2**64, 5 + 2**256, -(2**31) + 5, 5 << 8, 5 << 32, 0, 133, -251,
])  # fmt: skip
def test_p03_no_two_seeds_share_a_stream(other: int) -> None:
    """torch's own generator keeps 32 bits: there seed + 2**32 is the same stream."""
    one, two = (Draws(s).words("cohort", 0, range(50)).ravel() for s in (5, other))
    assert not np.intersect1d(one, two).size
    old = [torch.Generator().manual_seed(5 + k).initial_seed() % 2**32 for k in (0, 2**32)]
    assert old[0] == old[1]


def test_p03_a_thousand_seeds_are_a_thousand_keys() -> None:
    seeds = [s << shift for s in range(-200, 200) for shift in (0, 8, 64, 300)]
    assert len({_key_of(s) for s in seeds}) == len(set(seeds))


@pytest.mark.parametrize("seed", [1.0, "1", True, b"1", [1]])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="give a whole number"):
        Draws(seed)
    assert Draws(np.int64(7)).same(Draws(7))


def test_p03_without_a_seed_the_key_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    urandom = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or urandom(n))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    one = Draws()
    assert asked == [32]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert not one.same(Draws())
    assert not one.seeded
    assert "secret" in repr(one)
    assert one.state_dict()["key"] not in repr(vars(Draws(3)))


def test_words_are_uniform() -> None:
    """65,536 words, each bit and each top byte; a false alarm in a million each at 5 deviations."""
    words = Draws(0).words("training", 3, range(8192), 8).ravel()
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    deviations = (bits.mean(0) - 0.5) / (0.5 / math.sqrt(len(words)))
    assert np.abs(deviations).max() < 5.5
    counts = np.bincount((words >> np.uint64(56)).astype(int), minlength=256)
    chi = ((counts - 256) ** 2 / 256).sum()
    assert abs(chi - 255) < 5 * math.sqrt(2 * 255)


@pytest.mark.parametrize(
    "sampler", [Poisson(0.1), Poisson(0.3, 40), FixedSize(30), MinSeparation(7), Everyone()]
)
def test_p03_participations_are_counted_by_drawing(sampler: Any) -> None:
    draws, served = Draws(11), np.zeros(200, int)
    most = draws.participations(sampler, 200, 25)
    for round in range(25):
        served[sampler.sample(200, draws, round).numpy()] += 1
        assert most[round] == served.max()
    assert draws.most_participations(sampler, 200, 25) == most[-1]
    assert draws.most_participations(sampler, 200, 0) == 0


def test_state_continues_and_a_renewed_stream_repeats_nothing_but_slots() -> None:
    one, two = Draws(), Draws(0)
    two.load_state_dict(one.state_dict())
    for purpose in PURPOSES:
        words = [d.words(purpose, 4, range(9)).tolist() for d in (one, two)]
        assert words[0] == words[1]
    two.renew()
    for purpose in PURPOSES:
        words = [d.words(purpose, 4, range(9)).tolist() for d in (one, two)]
        assert (words[0] == words[1]) == (purpose == "slots")
    fixed = [Draws(3), Draws(3)]
    for draws in fixed:
        draws.renew(b"restart 1")
    assert fixed[0].seeds(0, [1, 2]) == fixed[1].seeds(0, [1, 2]) != Draws(3).seeds(0, [1, 2])
    assert pickle.loads(pickle.dumps(one)).same(one)


def test_unknown_purposes_and_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="purpose is 'noise'"):
        Draws().words("noise", 0, [1])
    with pytest.raises(ValueError, match=r"give a fldp\.simulation\.draws\.Draws"):
        Draws.of(5)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_seed_gives_the_same_words_in_another_process() -> None:
    code = (
        "from fldp.simulation.draws import Draws\n"
        "print(Draws(1).words('cohort', 5, range(3)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(KNOWN)
