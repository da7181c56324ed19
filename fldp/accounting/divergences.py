"""More than one (epsilon, delta): the privacy curve, Rényi divergences, the trade-off curve."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fldp._checks import between, choice, listed, real
from fldp.accounting.account import delta_of, epsilon_of
from fldp.accounting.composition import mu_of, prepared, rounds_of
from fldp.accounting.events import (
    ADJACENCIES,
    Approximate,
    Concentrated,
    Event,
    Events,
    Laplace,
)
from fldp.accounting.gaussian import Array
from fldp.accounting.guide import log_sum

# Lines that bound the trade-off curve from below: how many, and the delta at which they end.
_LINES, _LAST_DELTA = 96, 1e-9
# A quadrature for one order reaches this many standard deviations beyond the place of its peak.
_BEYOND = 14.0
_NODES = 1 << 21


def privacy_curve(
    events: Events, epsilons: ArrayLike, *, adjacency: str = "add-or-remove", group: int = 1
) -> NDArray[np.float64]:
    """Delta at each epsilon: the (epsilon, delta) curve of what ran, an upper bound at each point.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.
    epsilons
        Values >= 0, of any shape.

    Returns
    -------
    numpy.ndarray
        The deltas, in the shape of `epsilons`.

    Raises
    ------
    ValueError
        As :func:`fldp.accounting.delta_of`.

    Examples
    --------
    >>> privacy_curve([Event(1.0)], [0.0, 1.0, 2.0]).round(4).tolist()
    [0.3829, 0.1269, 0.0209]
    """
    at = _numbers("epsilons", epsilons)
    deltas = [delta_of(events, e, adjacency, group) for e in at.ravel().tolist()]
    return np.array(deltas).reshape(at.shape)


def renyi(
    events: Events, orders: ArrayLike, *, adjacency: str = "add-or-remove", group: int = 1
) -> NDArray[np.float64]:
    """Rényi divergences of what ran, exact to 1e-6: what an RDP accountant adds up (Mironov 2017).

    Of the two directions the larger one. Infinite for an (epsilon, delta) step with delta > 0.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.
    orders
        Values > 1, of any shape; with sampled rounds up to about 1e5 noise multipliers.

    Returns
    -------
    numpy.ndarray
        The divergences, in the shape of `orders`.

    Raises
    ------
    ValueError
        For events that do not fit the adjacency, and for orders out of range.

    Examples
    --------
    >>> renyi([Event(2.0, rounds=3)], [2.0, 4.0]).round(6).tolist()
    [0.75, 1.5]
    """
    at = _numbers("orders", orders)
    if at.size and not (at > 1).all():  # at 1 it is the Kullback-Leibler divergence
        raise ValueError(f"orders hold {at.min():g}: give orders > 1")
    counted = prepared(events, adjacency, group)
    values = [_renyi(counted, adjacency, group, order) for order in at.ravel().tolist()]
    return np.array(values).reshape(at.shape)


def _renyi(events: Events, adjacency: str, group: int, order: float) -> float:
    total = 0.0
    rest = []
    for event in events:
        if isinstance(event, Event) and event.everyone:
            total += order * mu_of([event], adjacency, group) ** 2 / 2
        elif isinstance(event, Laplace):
            total += event.rounds * _renyi_of_laplace(event.noise_multiplier / group, order)
        elif isinstance(event, Concentrated):
            total += event.rounds * group**2 * event.rho * order
        elif isinstance(event, Approximate) and event.delta > 0:
            return math.inf
        else:
            rest.append(event)
    if not rest:
        return total
    directions = ("remove", "add") if adjacency != "replace-one" else ("remove",)
    return total + max(_log_moment(rest, adjacency, d, group, order) for d in directions)


def _renyi_of_laplace(b: float, order: float) -> float:
    """Mironov 2017, Table II; in logarithms."""
    high = math.log(order / (2 * order - 1)) + (order - 1) / b
    low = math.log((order - 1) / (2 * order - 1)) - order / b
    return (max(high, low) + math.log1p(math.exp(-abs(high - low)))) / (order - 1)


def _log_moment(events: Events, adjacency: str, direction: str, group: int, order: float) -> float:
    """The Rényi divergence by quadrature, which follows the order's peak."""
    least = min([e.noise_multiplier for e in events if isinstance(e, Event)], default=1.0)
    reach = _BEYOND + 2 * order * group / least
    # three nodes to a standard deviation, on both sides
    if 6 * reach > _NODES:
        raise ValueError(
            f"orders hold {order:g}: too large at noise_multiplier={least:g}; give smaller orders"
        )
    total = 0.0
    for parts, n in rounds_of(events, adjacency, direction, group):
        logs = []
        for weight, pair in parts:
            loss, log_weight = pair.nodes(reach, _NODES)
            logs.append(math.log(weight) + log_sum((order - 1) * loss + log_weight))
        total += n * log_sum(np.array(logs))
    return max(0.0, total / (order - 1))


def tradeoff(
    events: Events, alphas: ArrayLike, *, adjacency: str = "add-or-remove", group: int = 1
) -> NDArray[np.float64]:
    """The least type II error of any test for a client, at each type I error: a lower bound.

    Whoever sees what ran and tests whether a client was there (or what it had) makes the one error
    with chance alpha and the other with at least this one (Wasserman & Zhou 2010; Dong, Roth & Su
    2022). It is the upper envelope of the lines that belong to the points of the privacy curve,
    taken at 96 of them: a little below the exact curve.

    Parameters
    ----------
    events, adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.
    alphas
        Type I errors, 0 to 1, of any shape.

    Returns
    -------
    numpy.ndarray
        The type II errors, in the shape of `alphas`.

    Raises
    ------
    ValueError
        As :func:`fldp.accounting.delta_of`.

    Examples
    --------
    >>> tradeoff([Event(1.0)], [0.05, 0.5]).round(2).tolist()
    [0.74, 0.16]
    """
    choice("adjacency", adjacency, ADJACENCIES)
    at = _numbers("alphas", alphas)
    for alpha in at.ravel().tolist():
        between("alphas", alpha)
    last = epsilon_of(events, _LAST_DELTA, adjacency, group=group)
    if math.isinf(last):  # some step fails with a larger chance: as far as there is a curve
        last = 50.0
    epsilons = last * np.linspace(0, 1, _LINES) ** 1.5
    deltas = privacy_curve(events, epsilons, adjacency=adjacency, group=group)
    kept = 1 - deltas[:, None]
    flat = at.ravel()[None, :]
    with np.errstate(divide="ignore"):
        log_grown = epsilons[:, None] + np.log(flat)
    # beyond e^700 the first line is far below 0
    first = kept - np.exp(np.minimum(log_grown, 700.0))
    lines = np.maximum(first, (kept - flat) * np.exp(-epsilons)[:, None])
    return np.asarray(np.maximum(0.0, lines.max(axis=0))).reshape(at.shape)


def _numbers(name: str, values: ArrayLike) -> Array:
    """`values` as an array of floats, else a ValueError."""
    is_array = isinstance(values, int | float | np.number | np.ndarray)
    given = np.asarray(values if is_array else listed(name, values))
    if given.dtype.kind not in "iuf" or not np.isfinite(given).all():
        raise ValueError(f"{name} hold something that is no finite number: give numbers")
    if given.size and given.min() < 0:
        real(name, float(given.min()))
    return given.astype(np.float64)
