"""dp-accounting's events and Opacus' histories."""

from __future__ import annotations

import sys

import pytest

from fldp.accounting import (
    Approximate,
    Concentrated,
    Event,
    Laplace,
    epsilon_of,
    from_opacus,
    to_dp_accounting,
)


@pytest.mark.slow
@pytest.mark.parametrize("adjacency", ["add-or-remove", "replace-one"])
def test_a08_dp_accounting_gives_a_second_opinion(adjacency):
    library = pytest.importorskip("dp_accounting")
    accountants = pytest.importorskip("dp_accounting.pld")
    events = [
        Event(1.0, 0.01, "poisson", 100),
        Event(5.0, rounds=3),
        Event(2.0, 0.1, "poisson", 10, 100, cap=20),
    ]
    relation = {
        "add-or-remove": library.NeighboringRelation.ADD_OR_REMOVE_ONE,
        "replace-one": library.NeighboringRelation.REPLACE_ONE,
    }[adjacency]
    accountant = accountants.PLDAccountant(neighboring_relation=relation)
    theirs = accountant.compose(to_dp_accounting(events)).get_epsilon(1e-5)
    assert epsilon_of(events, 1e-5, adjacency) == pytest.approx(theirs, rel=1e-3)


def test_a08_every_kind_has_its_counterpart():
    library = pytest.importorskip("dp_accounting")
    events = [
        Event(1.0, 0.25, "fixed", 3, clients=40),
        Laplace(2.0, 4),
        Concentrated(0.1, 5),
        Event(2.0, 1.0, "poisson", known=True),
    ]
    exported = to_dp_accounting(events).events
    assert [e.count for e in exported] == [3, 4, 5, 1]
    fixed, laplace, zcdp, plain = (e.event for e in exported)
    assert (fixed.source_dataset_size, fixed.sample_size) == (40, 10)
    assert isinstance(laplace, library.LaplaceDpEvent)
    assert zcdp.rho == 0.1
    assert plain.noise_multiplier == 2.0


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Approximate(0.1, 0.0), "no event for an"),
        (Event(1.0, 0.1, "poisson", known=True), "known participation"),
        ("event", "events hold"),
    ],
)
def test_what_dp_accounting_has_no_event_for_is_refused(event, words):
    pytest.importorskip("dp_accounting")
    with pytest.raises(ValueError, match=words):
        to_dp_accounting([event])


def test_without_dp_accounting_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ValueError, match=r"fldp\[verify\]"):
        to_dp_accounting([Event(1.0)])


def test_a08_the_history_of_an_opacus_accountant():
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    for z, rate, steps in ((1.1, 0.01, 50), (0.9, 1.0, 2)):
        for _ in range(steps):
            accountant.step(noise_multiplier=z, sample_rate=rate)
    events = from_opacus(accountant.history)
    assert [e.rounds for e in events] == [50, 2]
    assert epsilon_of(events, 1e-5) <= accountant.get_epsilon(1e-5)
    assert epsilon_of(events, 1e-5, accountant="rdp") == pytest.approx(
        accountant.get_epsilon(1e-5), rel=1e-9
    )


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (None, "history is None"),
        ("abc", "history is 'abc'"),
        ([(1.0, 0.1)], "give triples"),
        ([7], "give triples"),
        ([(0.0, 0.1, 3)], "noise_multiplier is 0.0"),
        ([(1.0, 2.0, 3)], "sampling_rate is 2.0"),
        ([(1.0, 0.1, 2.5)], "rounds is 2.5"),
    ],
)
def test_what_is_no_history_is_refused(history, words):
    with pytest.raises(ValueError, match=words):
        from_opacus(history)
