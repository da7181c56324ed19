"""The ring of neighbours, and the bounds that say how many are enough."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy.stats import hypergeom

from fldp.mechanism.secagg_graph import (
    CORRECTNESS,
    SECURITY,
    Degree,
    _cohorts,
    check_degree,
    degree,
    is_connected,
    least_threshold,
    ring,
    smallest,
)

# At 40 bits and a fifth of dropouts: (clients, corrupt) -> (degree, threshold).
KNOWN = {
    (100, 0.05): (48, 6),
    (100, 0.1): (54, 11),
    (100, 0.2): (72, 21),
    (1000, 0.05): (50, 21),
    (1000, 0.1): (66, 31),
    (1000, 0.2): (98, 54),
    (10_000, 0.05): (60, 25),
    (10_000, 0.1): (76, 36),
    (10_000, 0.2): (120, 65),
    (50, 0.1): (49, 23),
}


@pytest.mark.parametrize(("clients", "corrupt"), KNOWN)
def test_the_known_degrees(clients: int, corrupt: float) -> None:
    assert degree(clients, corrupt, 0.2) == Degree(*KNOWN[clients, corrupt])


@pytest.mark.parametrize(("clients", "corrupt"), [key for key in KNOWN if key[0] >= 100])
def test_the_bounds_hold_in_floating_point_too(clients: int, corrupt: float) -> None:
    k, t = degree(clients, corrupt, 0.2)
    colluders = round(corrupt * clients)
    dropped = clients // 5

    def colluding(threshold: int) -> float:
        return float(clients * hypergeom.sf(threshold - 1, clients - 1, colluders, k))

    def cut(neighbours: int) -> float:
        return float(clients * (corrupt + 0.2) ** (neighbours // 2))

    staying = clients - 1 - dropped
    assert colluding(t) < 2.0**-SECURITY <= colluding(t - 1)
    assert cut(k) < 2.0**-SECURITY
    assert clients * hypergeom.cdf(t - 1, clients - 1, staying, k) <= 2.0**-CORRECTNESS
    # Two neighbours fewer would break a bound.
    fewer = least_threshold(clients, colluders, k - 2, SECURITY)
    lost = clients * hypergeom.cdf(fewer - 1, clients - 1, staying, k - 2)
    assert lost > 2.0**-CORRECTNESS or cut(k - 2) >= 2.0**-SECURITY


def test_where_all_neighbours_may_collude_no_threshold_is_enough() -> None:
    assert least_threshold(100, 60, 4, SECURITY) == 5


def parts(graph: dict[int, tuple[int, ...]], removed: set[int]) -> int:
    """How many components the graph has without some of its clients."""
    left = graph.keys() - removed
    found = 0
    while left:
        found += 1
        reached = [left.pop()]
        while reached:
            near = left.intersection(graph[reached.pop()])
            left -= near
            reached += near
    return found


def longest_run(removed: set[int], clients: int) -> int:
    """The longest run of removed clients on a circle in order."""
    run = longest = 0
    for place in range(2 * clients):
        run = run + 1 if place % clients in removed else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize(("clients", "k"), [(9, 4), (10, 4), (10, 6), (8, 2)])
def test_only_a_run_of_half_a_degree_cuts_the_circle(clients: int, k: int) -> None:
    graph = ring(range(clients), k)
    for size in range(clients - 1):
        sets = [set(one) for one in itertools.combinations(range(clients), size)]
        cut = [removed for removed in sets if parts(graph, removed) > 1]
        assert all(longest_run(removed, clients) >= k // 2 for removed in cut)
        # The chance over the random order, in exact numbers, is within the union bound.
        assert len(cut) / len(sets) <= clients * (size / clients) ** (k // 2)


def test_the_chance_of_too_many_colluding_neighbours_is_within_its_bound() -> None:
    clients, k, colluders = 12, 4, 3
    graph = ring(range(clients), k)
    sets = [set(one) for one in itertools.combinations(range(clients), colluders)]
    for bits in range(1, 6):
        t = least_threshold(clients, colluders, k, bits)
        bad = sum(any(len(s.intersection(near)) >= t for near in graph.values()) for s in sets)
        assert bad / len(sets) < 2.0**-bits


def test_cohorts_are_counted_exactly() -> None:
    for marked, others, size in ((0, 9, 4), (3, 8, 4), (30, 2, 6), (7, 7, 7)):
        wanted = [
            math.comb(marked, count) * math.comb(others, size - count) for count in range(size + 1)
        ]
        assert _cohorts(marked, others, size) == wanted
        assert sum(wanted) == math.comb(marked + others, size)


def test_where_most_are_gone_everybody_is_a_neighbour() -> None:
    k, t = degree(10_000, 0.45, 0.5)
    assert k == 9999
    assert 4500 < t <= 5000
    with pytest.raises(ValueError, match="give an even number up to 512, or 9999"):
        check_degree(10_000, 514)


def test_more_colluders_or_dropouts_never_need_fewer_neighbours() -> None:
    found = [smallest(200, colluders, 30).degree for colluders in range(0, 80, 8)]
    assert found == sorted(found)
    found = [smallest(200, 10, dropped).degree for dropped in range(0, 100, 10)]
    assert found == sorted(found)


@pytest.mark.parametrize("clients", [3, 5, 10, 30])
def test_few_clients_are_all_neighbours(clients: int) -> None:
    dropped = clients // 3
    colluders = (clients - dropped) // 4
    k, t = smallest(clients, colluders, dropped)
    assert k == clients - 1
    assert is_connected(clients, clients - 2, k, SECURITY)
    assert max(1, colluders) < t <= clients - dropped


def test_the_ring_is_regular_and_mutual() -> None:
    order = [5, 3, 0, 1, 4, 2, 6]
    graph = ring(order, 4)
    assert graph[5] == (0, 2, 3, 6)
    for one, near in graph.items():
        assert len(near) == 4
        assert one not in near
        assert all(one in graph[other] for other in near)
    assert all(len(near) == 6 for near in ring(order, 6).values())


@pytest.mark.parametrize("k", [0, 1, 3, 8, 10, 2.5])
def test_a_degree_that_no_ring_has_is_refused(k: float) -> None:
    with pytest.raises(ValueError, match="degree is"):
        check_degree(8, k)  # type: ignore[arg-type]


def test_what_hides_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two honest ones are left"):
        degree(10, 0.5, 0.5)
    with pytest.raises(ValueError, match="clients is 2"):
        degree(2, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"corrupt is 1\.5"):
        degree(10, 1.5, 0.0)
    with pytest.raises(ValueError, match="a client stands twice"):
        ring([0, 1, 1], 2)


def test_a_share_of_clients_is_rounded_up_unless_rounding_made_it_more() -> None:
    # .07·100 is 7.000000000000001 in floating point.
    assert degree(100, 0.07, 0.0) == smallest(100, 7, 0)
    assert degree(100, 0.071, 0.0) == smallest(100, 8, 0)
    assert math.ceil(0.07 * 100) == 8
