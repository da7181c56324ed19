"""To and from other libraries: dp-accounting's events, an Opacus accountant's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fldp._checks import listed, shown
from fldp.accounting.events import (
    AnyEvent,
    Approximate,
    Concentrated,
    Event,
    Independent,
    Laplace,
    by_run,
    checked,
)


def to_dp_accounting(events: Sequence[AnyEvent]) -> Any:
    """The same as one `dp_accounting.DpEvent`, for a second opinion.

    Noise multipliers stay in clip norms: give the accountant there the neighbouring relation that
    belongs to the adjacency, and it takes care of the rest (`REPLACE_ONE` for "replace-one", else
    `ADD_OR_REMOVE_ONE`). Needs the package dp-accounting.

    Parameters
    ----------
    events
        As in :func:`fldp.accounting.epsilon_of`.

    Returns
    -------
    dp_accounting.DpEvent
        A composition of them.

    Raises
    ------
    ValueError
        Where dp-accounting has no such event: (ε, δ) steps, known participation. If dp-accounting
        is not installed.

    Examples
    --------
    >>> to_dp_accounting([Event(1.0, 0.01, "poisson", rounds=9)]).events[0].count
    9
    """
    try:
        import dp_accounting as other
    except ImportError:
        raise ValueError("dp-accounting is not installed: pip install 'fldp[verify]'") from None
    composed = [
        other.SelfComposedDpEvent(_exported(event, other), event.rounds)
        for event in by_run(checked(events))
    ]
    return other.ComposedDpEvent(composed)


def _exported(event: Independent, other: Any) -> Any:
    """One round of the event."""
    if isinstance(event, Laplace):
        return other.LaplaceDpEvent(event.noise_multiplier)
    if isinstance(event, Concentrated):
        return other.ZCDpEvent(event.rho)
    if isinstance(event, Approximate):
        raise ValueError(f"{event}: dp-accounting has no event for an (epsilon, delta) step")
    if event.known and not event.everyone:
        raise ValueError("known=True: dp-accounting has no event for known participation")
    gaussian = other.GaussianDpEvent(event.noise_multiplier)
    if event.everyone:
        return gaussian
    if event.sampling == "fixed":
        clients = event.clients or 0
        cohort = round(event.sampling_rate * clients)
        return other.SampledWithoutReplacementDpEvent(clients, cohort, gaussian)
    if event.cap is not None:
        return other.TruncatedSubsampledGaussianDpEvent(
            event.clients, event.sampling_rate, event.cap, event.noise_multiplier
        )
    return other.PoissonSampledDpEvent(event.sampling_rate, gaussian)


def from_opacus(history: Iterable[tuple[float, float, int]]) -> list[Event]:
    """The events in the history of an Opacus accountant.

    Parameters
    ----------
    history
        `accountant.history`: triples (noise_multiplier, sample_rate, steps). Opacus samples by a
        coin per record.

    Returns
    -------
    list of Event
        Poisson rounds; at a rate of 1 everybody takes part.

    Raises
    ------
    ValueError
        For anything that is not such a triple.

    Examples
    --------
    >>> from_opacus([(1.1, 0.01, 500)])[0].to_dict()["rounds"]
    500
    """
    events = []
    for entry in listed("history", history):
        if not isinstance(entry, tuple | list) or len(entry) != 3:
            raise ValueError(
                f"history holds {shown(entry)}: give triples (noise_multiplier, sample_rate, steps)"
            )
        events.append(Event(entry[0], entry[1], "poisson", entry[2]))
    return events
