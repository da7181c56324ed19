"""Events: plain data that comes back from its dictionary, and refuses what makes no sense."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.accounting import (
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Filtered,
    Laplace,
    event_from_dict,
)
from fldp.accounting.filters import Filter

EVENTS = [
    Event(1.0, 0.25, "poisson", 3, clients=40, cap=12),
    Event(2.0, 0.1, "fixed", 3, clients=40, known=True),
    Event(7.0),
    Laplace(2.0, rounds=3),
    Approximate(0.5, 1e-6, rounds=2),
    Concentrated(0.1, rounds=7),
    Filtered(2.0, Filter((1.0, -0.5), (1.0, 0.1)), 3, 4, rounds=9, run="a"),
    Filtered(2.0, Filter((1.0,), (1.0, 0.5)), 3, 4, sampling_rate=0.5, known=True),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_events_survive_their_dictionary(event):
    fields = json.loads(json.dumps(event.to_dict()))
    assert event_from_dict(fields) == event
    assert ("kind" in fields) == (not isinstance(event, Event))
    assert isinstance(event, AnyEvent)
    if isinstance(event, Event):
        assert event_from_dict(fields) == event


def test_a_dictionary_of_the_first_version_is_an_event():
    fields = {
        "noise_multiplier": 1.0, "sampling_rate": 0.25, "sampling": "poisson", "rounds": 3,
        "clients": 40, "cap": None,
    }  # fmt: skip
    assert event_from_dict(fields) == Event(1.0, 0.25, "poisson", 3, 40)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (None, "not NoneType"),
        ([1], "not list"),
        ({}, "noise_multiplier, sampling_rate"),
        ({"noise_multiplier": 1.0, "batch": 3}, "batch"),
        ({"kind": "cauchy"}, "choose one of 'laplace'"),
        ({"kind": []}, "choose one of"),
        ({"kind": "laplace", "rho": 1}, "noise_multiplier, rounds"),
        ({"kind": "concentrated", "rho": 0}, "rho is 0"),
        ({"kind": "filtered", "noise_multiplier": 1.0}, "a filter is None"),
        (
            {"kind": "filtered", "filter": {"num": [1.0], "den": [1.0]}, "rho": 1},
            "participations, separation",
        ),
    ],
)
def test_what_is_no_event_is_refused_in_words(fields, words):
    with pytest.raises(ValueError, match=words):
        event_from_dict(fields)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Event(1e-200), "between 1e-09 and 1e\\+12"),
        (lambda: Event(1e300), "between 1e-09 and 1e\\+12"),
        (lambda: Event(1.0, known=1), "known is 1"),
        (lambda: Event(1.0, rounds=10**400), "at most 1e\\+15"),
        (lambda: Event(1.0, 0.5, "fixed", clients=7), "not a whole cohort"),
        (lambda: Laplace(0.0), "noise_multiplier is 0.0"),
        (lambda: Laplace(1.0, rounds=0), "rounds is 0"),
        (lambda: Approximate(-1.0, 0.0), "epsilon is -1.0"),
        (lambda: Approximate(math.inf, 0.0), "epsilon is inf"),
        (lambda: Approximate(1.0, 1.5), "delta is 1.5"),
        (lambda: Concentrated(math.nan), "rho is nan"),
        (lambda: Concentrated(1e300), "rho is 1e\\+300"),
    ],
)
def test_a06_values_out_of_range_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400),
    st.lists(st.integers(), max_size=2), st.complex_numbers(max_magnitude=2),
)  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.lists(HOSTILE, min_size=1, max_size=7))
def test_a06_an_event_is_made_or_refused_by_a_valueerror(values):
    for kind in (Event, Laplace, Approximate, Concentrated):
        names = list(kind.__dataclass_fields__)
        fields = dict(zip(names, values, strict=False))
        try:
            event = kind(**fields)
        except ValueError:
            continue
        except TypeError:  # the first arguments are missing: Python's own message
            assert len(fields) < 2
            continue
        assert event_from_dict(event.to_dict()) == event
