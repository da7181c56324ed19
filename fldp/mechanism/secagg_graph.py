"""Who shares masks with whom: a ring in random order, and how many neighbours are enough.

With all others as neighbours a client pays for n - 1 of them. Bell et al. (2020) let each have k
neighbours only: the clients stand on a circle in random order and know the k/2 before and the k/2
behind them (a Harary graph). The server may then learn the sum over a part of the clients if
colluders and dropouts cut the circle in two, or a client's secrets if many of its neighbours
collude. `degree` chooses k so that both have a negligible chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fldp._checks import between, whole

# log2 of the chances that are allowed: of a privacy failure, and of a round that gives no sum.
SECURITY = 40
CORRECTNESS = 20
# Of the keys, in bits.
MOST_SECURITY = 256
# A share of n clients is rounded up to a number of them, unless rounding alone made it more.
_ROUNDING = 1e-9
# No client's secret is ever any single other's to reveal.
LEAST_THRESHOLD = 2
# Where more neighbours are needed, so many collude or drop out that everybody is one; and what a
# stranger's rules ask for is checked in milliseconds.
MOST_SPARSE = 512


class Degree(NamedTuple):
    """How many neighbours a client has, and how many of them can reveal a secret of its.

    Parameters
    ----------
    degree : int
        k: even, or n - 1, which is everyone.
    threshold : int
        t: so many shares give a secret.

    Examples
    --------
    >>> Degree(degree=48, threshold=6).threshold
    6
    """

    degree: int
    threshold: int


def degree(clients: int, corrupt: float, drop: float, security: int = SECURITY) -> Degree:
    """The smallest sufficient number of neighbours, and its threshold.

    Guarantee, over the random order of the circle, for any c = corrupt·n colluders and any
    drop·n dropouts that were chosen without knowing it:

    1. some client has t or more colluding neighbours: chance below 2^-security. Union bound over
       the n clients; each one's k neighbours are k of n - 1 without replacement (hypergeometric,
       in exact integers).
    2. colluders and dropouts cut the others in two: chance below 2^-security. That takes k/2
       removed clients in a row; union bound over the n places where they may begin, each of
       chance at most (corrupt + drop)^(k/2).
    3. some client keeps fewer than t neighbours that have not dropped: chance at most 2^-20, the
       same union bound; the round would give no sum.

    These are union bounds of our own, not the theorem of Bell et al. (2020, "Secure Single-Server
    Aggregation with (Poly)Logarithmic Overhead"), which is about the same graph. Where no smaller
    k up to 512 will do, k is n - 1: then 1 and 2 hold with certainty, and t lies half-way between
    the colluders and those who stay.

    Parameters
    ----------
    clients : int
        n, at least 3.
    corrupt : float
        The share of clients that may collude with the server, in [0, 1].
    drop : float
        The share that may drop out of a round, at whatever stage, in [0, 1].
    security : int
        From 1 to 256, by default 40: a chance of 10^-12.

    Returns
    -------
    Degree
        (k, t).

    Raises
    ------
    ValueError
        Where fewer than two honest clients are left, and for what is out of range.

    Examples
    --------
    >>> degree(1000, corrupt=0.05, drop=0.2).degree
    50
    """
    clients = whole("clients", clients, 3)
    colluders = _count(between("corrupt", corrupt), clients)
    dropped = _count(between("drop", drop), clients)
    security = check_security(security)
    return smallest(clients, colluders, dropped, security)


def check_security(security: int) -> int:
    """A number of bits, from 1 to those of the keys, else a ValueError."""
    security = whole("security", security)
    if security > MOST_SECURITY:
        raise ValueError(f"security is {security}: keys give {MOST_SECURITY} at most")
    return security


def _count(share: float, clients: int) -> int:
    return math.ceil(share * clients - _ROUNDING)


def smallest(clients: int, colluders: int, dropped: int, security: int = SECURITY) -> Degree:
    """As `degree`, for numbers of clients.

    Parameters
    ----------
    clients : int
        n.
    colluders, dropped : int
        How many of them may collude, and how many may drop out.
    security : int
        As for `degree`.

    Returns
    -------
    Degree
        (k, t).

    Examples
    --------
    >>> smallest(100, colluders=5, dropped=20)
    Degree(degree=48, threshold=6)
    """
    if clients - colluders - dropped < 2:
        raise ValueError(
            f"of {clients} clients {colluders} may collude and {dropped} drop out: fewer than two "
            "honest ones are left, and a sum over one of them hides nothing"
        )
    for neighbours in range(2, min(clients - 1, MOST_SPARSE + 1), 2):
        if not is_connected(clients, colluders + dropped, neighbours, security):
            continue
        threshold = least_threshold(clients, colluders, neighbours, security)
        if _recovers(clients, dropped, neighbours, threshold):
            return Degree(neighbours, threshold)
    return Degree(clients - 1, least_threshold_of_all(clients, colluders, dropped))


def is_connected(clients: int, removed: int, neighbours: int, security: int) -> bool:
    """Whether those who are not removed stay connected, but for a chance of 2^-security.

    Parameters
    ----------
    clients, removed, neighbours : int
        n, colluders and dropouts together, and k, which is even or n - 1.
    security : int
        As for `degree`.

    Returns
    -------
    bool
        The second bound of `degree`, in exact integers.

    Examples
    --------
    >>> is_connected(100, 25, 48, 40), is_connected(100, 25, 46, 40)
    (True, False)
    """
    if neighbours == clients - 1:
        return True
    run = neighbours // 2
    # Without replacement the chance of a run is smaller still than the power of the share.
    return (clients * removed**run) << security < clients**run


def least_threshold(clients: int, colluders: int, neighbours: int, security: int) -> int:
    """The smallest t that the colluders around no client reach, but for a chance of 2^-security.

    Parameters
    ----------
    clients, colluders, neighbours : int
        n, c and k.
    security : int
        As for `degree`.

    Returns
    -------
    int
        k + 1, which no threshold is, where k shares are too few.

    Examples
    --------
    >>> least_threshold(1000, 50, 50, 40)
    21
    """
    if neighbours == clients - 1:
        return max(LEAST_THRESHOLD, colluders + 1)
    counts = _cohorts(colluders, clients - 1 - colluders, neighbours)
    cohorts = sum(counts)
    # How many of these cohorts have t or more colluders; t comes down from k + 1.
    found = 0
    threshold = neighbours + 1
    while threshold > LEAST_THRESHOLD:
        found += counts[threshold - 1]
        if (clients * found) << security >= cohorts:
            break
        threshold -= 1
    return threshold


def least_threshold_of_all(clients: int, colluders: int, dropped: int) -> int:
    """A threshold for the complete graph: half-way between what both sides need."""
    middle = (colluders + clients - dropped) // 2 + 1
    return max(LEAST_THRESHOLD, middle)


def _recovers(clients: int, dropped: int, neighbours: int, threshold: int) -> bool:
    """The third bound of `degree`."""
    counts = _cohorts(clients - 1 - dropped, dropped, neighbours)
    return (clients * sum(counts[:threshold])) << CORRECTNESS <= sum(counts)


def _cohorts(marked: int, others: int, size: int) -> list[int]:
    """How many cohorts of a size have 0, 1, ..., `size` of the marked clients."""
    left = [1]
    right = [1]
    for count in range(size):
        # From one binomial coefficient to the next the division has no remainder.
        left.append(left[-1] * (marked - count) // (count + 1))
        right.append(right[-1] * (others - count) // (count + 1))
    return [left[count] * right[size - count] for count in range(size + 1)]


def ring(order: Sequence[int], neighbours: int) -> dict[int, tuple[int, ...]]:
    """The neighbours of each client on a circle.

    Parameters
    ----------
    order : sequence of int
        The clients, as they stand. It may be public; it must be random, and drawn after it is
        settled who colludes.
    neighbours : int
        k: even, or n - 1, which is everyone.

    Returns
    -------
    dict
        Client -> its neighbours, ascending.

    Raises
    ------
    ValueError
        For a client twice, and for another k.

    Examples
    --------
    >>> ring([0, 1, 2, 3, 4, 5], 2)[0]
    (1, 5)
    """
    clients = len(order)
    if len(set(order)) != clients:
        raise ValueError("a client stands twice in the order: give each once")
    check_degree(clients, neighbours)
    reach = neighbours // 2
    # With an even number of clients no two sides of the circle have n - 1 of them.
    if neighbours == clients - 1:
        return {one: tuple(sorted(set(order) - {one})) for one in order}
    found = {}
    for place, one in enumerate(order):
        steps = [*range(-reach, 0), *range(1, reach + 1)]
        found[one] = tuple(sorted(order[(place + step) % clients] for step in steps))
    return found


def check_degree(clients: int, neighbours: int) -> int:
    """k if there is such a graph of n clients, else a ValueError."""
    neighbours = whole("degree", neighbours)
    most = min(clients - 2, MOST_SPARSE)
    fits = neighbours == clients - 1 or (neighbours % 2 == 0 and neighbours <= most)
    if not fits:
        raise ValueError(
            f"degree is {neighbours}: give an even number up to {most}, or {clients - 1}, which is "
            "everyone"
        )
    return neighbours
