"""plan.chain: whatever is done to a ledger's bytes, it is read right or refused in words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.accounting.events import Approximate, Concentrated, Event, Laplace
from fldp.plan import chain
from fldp.plan.chain import Entry

PATH = Path("ledger.jsonl")
ENTRIES = [
    Entry(Event(1.5, 0.1, "poisson"), "training", 1),
    Entry(Laplace(2.0), "histogram", None),
    Entry(Approximate(0.5, 1e-6), "figure", None),
    Entry(Concentrated(0.1, rounds=3), "census", None),
]


def written(entries: list[Entry] = ENTRIES) -> bytes:
    raw, previous = chain.seal(chain.header(None))
    content = raw + b"\n"
    for entry in entries:
        raw, previous = chain.seal(chain.line(entry, previous))
        content += raw + b"\n"
    return content


def test_what_is_written_is_read() -> None:
    content = written()
    found = chain.parse(content, PATH)
    assert found.entries == ENTRIES
    assert found.size == len(content)
    assert (found.torn, found.unfinished, found.plan) == (b"", False, None)
    assert chain.parse(b"", PATH) == chain.Content()


def test_every_line_carries_the_hash_of_the_one_before() -> None:
    lines = [json.loads(raw) for raw in written().splitlines()]
    for before, after in itertools.pairwise(lines):
        assert after["previous"] == before["hash"]
    assert lines[0]["fldp"] == chain.__version__


@given(cut=st.integers(0, len(written())))
@settings(deadline=None, max_examples=300)
def test_a_prefix_is_whole_lines_and_a_torn_one_or_no_ledger(cut: int) -> None:
    content = written()[:cut]
    if 0 < cut < len(chain.MAGIC):
        with pytest.raises(ValueError, match="not a ledger"):
            chain.parse(content, PATH)
        return
    found = chain.parse(content, PATH)
    whole = content.count(b"\n") + found.unfinished
    assert found.entries == ENTRIES[: max(0, whole - 1)]
    assert content[found.size :] == found.torn


@given(at=st.integers(0, len(written()) - 2), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=500)
def test_p09_one_changed_byte_is_refused_in_words(at: int, byte: int) -> None:
    content = bytearray(written())
    if content[at] == byte:
        return
    content[at] = byte
    with pytest.raises(ValueError, match=r"not a ledger|version|damaged|does not follow"):
        chain.parse(bytes(content), PATH)


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_p09_foreign_bytes_are_refused_in_words(content: bytes) -> None:
    if content and not content.startswith(chain.MAGIC):
        with pytest.raises(ValueError, match="ledger"):
            chain.parse(content, PATH)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_p09_lines_removed_inside_repeated_or_swapped_are_refused(number: int) -> None:
    lines = written().splitlines(keepends=True)
    removed = lines[:number] + lines[number + 1 :]
    repeated = [*lines[: number + 1], lines[number], *lines[number + 1 :]]
    swapped = list(lines)
    swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
    for changed in (removed, repeated, swapped):
        with pytest.raises(ValueError, match="does not follow the line before it"):
            chain.parse(b"".join(changed), PATH)


@pytest.mark.parametrize(
    "change",
    [
        {"event": None}, {"event": {}}, {"event": {"noise_multiplier": "much"}},
        {"event": {"kind": "future", "x": 1}}, {"label": 3}, {"round": "first"}, {"more": 1},
    ],
)  # fmt: skip
def test_p09_wrong_types_are_refused_even_in_an_intact_chain(change: dict) -> None:
    first, previous = chain.seal(chain.header(None))
    fields = chain.line(ENTRIES[0], previous) | change
    with pytest.raises(ValueError, match=r"line 2 (is damaged|holds an event)"):
        chain.parse(first + b"\n" + chain.seal(fields)[0] + b"\n", PATH)


@pytest.mark.parametrize("plan", [{}, {"noise_multiplier": 1.0}, [], "plan", 3])
def test_p09_a_plan_that_is_none_is_refused(plan: object) -> None:
    fields = chain.header(None) | {"plan": plan}
    with pytest.raises(ValueError, match="whose plan this version"):
        chain.parse(chain.seal(fields)[0] + b"\n", PATH)


def test_another_version_says_what_to_do() -> None:
    old = b'{"ledger": 1, "plan": null}\n{"round": 1, "event": {"noise_multiplier": 2.0}}\n'
    with pytest.raises(ValueError, match="carry over what was spent"):
        chain.parse(old, PATH)
    assert chain.old_events(old, PATH) == [Event(2.0)]
    assert chain.old_events(written(), PATH) is None
    with pytest.raises(ValueError, match="line 3 is damaged"):
        chain.old_events(old + b"{}\n", PATH)
    with pytest.raises(ValueError, match="version 3, this is version 2"):
        chain.parse(b'{"ledger": 3}\n', PATH)


def test_a_power_cut_may_leave_nuls_in_the_last_line() -> None:
    content = written()
    assert chain.parse(content + b'{"round": 5\0\0\0', PATH).torn == b'{"round": 5\0\0\0'
    assert chain.parse(content + b"\0\0", PATH).entries == ENTRIES
    with pytest.raises(ValueError, match="line 6 is damaged"):
        chain.parse(content + b"hello", PATH)
