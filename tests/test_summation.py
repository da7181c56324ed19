"""Running sums: what rounding adds to them is bounded, whatever the other clients send.

An attack chooses the other clients' values so that a sum rounds differently with one client more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_for
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fldp.mechanism import aggregation, summation
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.clipping import PerLayerClip
from fldp.mechanism.summation import ROUNDING, RunningSum, group_size

CANARY = 0.99


def ladder(clients: int, size: float = 1.0) -> list[float]:
    """Others between whom a canary of `CANARY` pushes a float32 sum across a power of two.

    Half of them bring the sum just below 2^k. The rest send minus half of the spacing of float32
    numbers above 2^k: it vanishes in a sum above, and is subtracted in full from one below.
    """
    power = 2.0 ** math.floor(math.log2(0.53 * clients * size))
    # In steps of 2^-9, so that float32 makes no error before the sum is there.
    first, steps = math.ceil(power / (0.99 * size)), int((power - 0.25) * 2**9)
    each, larger = divmod(steps, first)
    big = [(each + 1) * 2.0**-9] * larger + [each * 2.0**-9] * (first - larger)
    small = -power * 2.0**-24
    return big + [small] * (clients - 1 - first)


def misaligned(group: int, clients: int) -> list[float]:
    """Others who round up in every group if there is one row before them, and not if there is none.

    The first rows of a group stay below a power of two, where what follows is a number of float32.
    When the groups shift by one, a large row from the group before brings them just above.
    """
    power = 2.0 ** math.floor(math.log2(group / 2))
    first = math.floor(power / 0.99) + 1
    small = power * 2.0**-24 * 1.001
    pattern = [0.99] * (first - 1) + [small] * (group - first) + [0.99]
    return (pattern * (clients // group + 1))[: clients - 1]


def float32_chain(values: Iterable[float]) -> float:
    """The running sum that float32 makes: what the attack is built against."""
    total = np.float32(0)
    for value in values:
        total += np.float32(value)
    return float(total)


def columns(rows: Tensor) -> list[tuple[int, int, Tensor]]:
    return [(0, rows.shape[1], torch.ones(len(rows), dtype=torch.float64))]


def running(values: list[float], size: int, clients: int, step: int) -> float:
    """The first coordinate of a running sum of rows (v, 0, ..., 0), handed over `step` at a time"""
    total = RunningSum(size, torch.empty(0), clients)
    for first in range(0, len(values), step):
        part = torch.tensor(values[first : first + step])
        rows = torch.zeros(len(part), size)
        rows[:, 0] = part
        total.add_(rows, columns(rows))
    return float(total.read(0, 1))


def test_the_shares_of_the_bound_add_up() -> None:
    """The arithmetic of the module's docstring."""
    worst = RunningSum(10**6, torch.empty(0), clients=1000)
    assert worst._group == 12
    assert 0.9 * ROUNDING < worst.room <= ROUNDING
    small = RunningSum(650, torch.empty(0), clients=400, most=100_000)
    assert small._group == 0
    assert small.room < 1e-6
    assert RunningSum(10**7, torch.empty(0), clients=10, most=10).room < 1e-5
    assert summation._cost(summation._LONGEST) <= summation._UNITS
    assert summation._LONGEST * 2.0**-24 < 2.0**-16
    assert (summation._TREE, summation._PERIOD) == (512, 4096)
    # The costliest tree is a chain: sums of 2, 3, ..., k rows and k products.
    for k in range(1, 60):
        assert sum(range(2, k + 1)) + k <= summation._cost(k)


def test_p05_the_attack_works_on_a_float32_running_sum() -> None:
    """A client moves the sum by 1.5 % too much among 1,000 and by 15 C among 40,462."""
    for clients, more in ((1000, 0.014), (5000, 0.3), (40_462, 15.0)):
        others = ladder(clients)
        first = others.index(others[-1])
        whole = float32_chain([*others[:first], CANARY, *others[first:]])
        assert whole - float32_chain(others) > CANARY + more


Route = Callable[[PrivateAggregator, list[float], int], None]


def padded(values: list[float], size: int) -> Tensor:
    rows = torch.zeros(len(values), size)
    rows[:, 0] = torch.tensor(values)
    return rows


def singly(aggregator: PrivateAggregator, values: list[float], size: int) -> None:
    for row in padded(values, size):
        aggregator.add(row)


def in_matrices(aggregator: PrivateAggregator, values: list[float], size: int) -> None:
    for part in padded(values, size).split(3):
        aggregator.add(part)


def at_once(aggregator: PrivateAggregator, values: list[float], size: int) -> None:
    aggregator.add(padded(values, size))


def as_lists(aggregator: PrivateAggregator, values: list[float], size: int) -> None:
    for row in padded(values, size):
        aggregator.add([row[:1], row[1:]])


def weighted(aggregator: PrivateAggregator, values: list[float], size: int) -> None:
    aggregator.add(padded(values, size), weight=[0.5] * len(values))


ROUTES: dict[str, tuple[Route, dict[str, Any], float]] = {
    "singly": (singly, {}, 1.0),
    "in matrices": (in_matrices, {}, 1.0),
    "at once": (at_once, {}, 1.0),
    "as lists": (as_lists, {}, 1.0),
    "per layer": (as_lists, {"clip": PerLayerClip([0.9, math.sqrt(0.19)])}, 0.9),
    "weighted": (weighted, {"weight_cap": 0.5}, 0.5),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("route", sorted(ROUTES))
@pytest.mark.parametrize(
    ("clients", "size"),
    [(100, 2), (100, 3000), (1000, 2), (1000, 1500), (2000, 4500), (5000, 2)],
)
def test_p05_no_others_let_a_client_move_the_sum_beyond_the_sensitivity(
    monkeypatch: pytest.MonkeyPatch, route: str, clients: int, size: int
) -> None:
    """The sum is read before the noise. Rows are added as for large models, singly and in float32
    groups, unless the size is 2."""
    monkeypatch.setattr(aggregation, "_TILE", 0)
    if size > 1000:
        monkeypatch.setattr(summation, "_LEAST_ROUND", 0)
    add, options, scale = ROUTES[route]
    norm = 1.0 if "clip" not in options else scale
    others = ladder(clients, size=0.9 * norm)
    canary, first = 5.0, others.index(others[-1])
    like: Any = torch.zeros(size)
    if add is as_lists:
        like = [torch.zeros(1), torch.zeros(size - 1)]
    sums = []
    for values in ([*others[:first], canary, *others[first:]], others):
        aggregator = PrivateAggregator(like, plan_for(clients), **options)
        add(aggregator, values, size)
        aggregator._flush()
        sums.append(aggregator._server._sum.read())
    moved = float((sums[0] - sums[1]).norm())
    assert scale * (1 - 2 * ROUNDING) <= moved <= scale


@pytest.mark.parametrize("step", [1, 2, 5, 12, 30])
def test_p05_a_shift_of_all_groups_stays_within_the_bound(step: int) -> None:
    """One client less at the front moves every later row into another place of its group."""
    clients, size = 1000, 2000
    assert RunningSum(size, torch.empty(0), clients)._group == group_size(clients)
    group = group_size(clients)
    others = misaligned(group, clients)
    moved = running([CANARY, *others], size, clients, step) - running(others, size, clients, step)
    assert abs(moved - CANARY) <= ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("clients", [121, 300, 1000])
def test_p05_a_search_stays_within_the_bound_and_needs_it(clients: int) -> None:
    """Random ladders, patterns and scales: the worst is well above nothing, and within the room."""
    rng, worst, size = np.random.default_rng(clients), 0.0, 5000
    group = group_size(clients)
    for _ in range(60):
        attacks = [
            ladder(clients, float(rng.uniform(0.5, 1.0))),
            (ladder(group, float(rng.uniform(0.8, 1.0))) * clients)[: clients - 1],
            misaligned(int(rng.choice([4, group // 2, group])), clients),
        ]
        others = attacks[int(rng.integers(len(attacks)))]
        place = int(rng.choice([0, int(rng.integers(len(others))), len(others)]))
        step = int(rng.choice([1, 3, group]))
        both = [*others[:place], CANARY, *others[place:]]
        moved = running(both, size, clients, step) - running(others, size, clients, step)
        worst = max(worst, abs(moved - CANARY))
    assert ROUNDING / 10 < worst <= ROUNDING


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 140),
    st.sampled_from([1, 3, 200, 2000]),
    st.integers(1, 50),
    st.integers(140, 400),
    st.booleans(),
)
def test_every_sum_is_right_to_half_of_the_room(
    seed: int, count: int, size: int, step: int, clients: int, wide: bool
) -> None:
    """Against sums of exact products, for rows of norm 1 that cancel, grow, or are tiny."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, size)) * 10.0 ** rng.integers(-6, 1, (count, 1))
    rows += rng.integers(0, 2)
    rows /= np.maximum(1.0, np.linalg.norm(rows, axis=1, keepdims=True) * 1.001)
    matrix = torch.from_numpy(rows.astype("float64" if wide else "float32"))
    factors = torch.from_numpy(rng.uniform(0, 1, count)).to(matrix.dtype).double()
    total = RunningSum(size, matrix[:0, 0], clients if count > 60 else count, clients)
    cut = size // 3
    for first in range(0, count, step):
        part, f = matrix[first : first + step], factors[first : first + step]
        total.add_(part, [(0, cut, f), (cut, size, f)])
    assert total.room <= ROUNDING
    exact = [math.fsum(column) for column in (matrix.double() * factors[:, None]).t().tolist()]
    assert float((total.read() - torch.tensor(exact, dtype=torch.float64)).norm()) <= total.room / 2


def test_long_sums_move_to_a_new_running_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summation, "_PERIOD", 16)
    rows = torch.randn(3000, 40, generator=torch.Generator().manual_seed(0)) / 10
    for clients in (10, 300, 10**6):
        total = RunningSum(40, torch.empty(0), clients)
        for part in rows.split(7):
            total.add_(part, columns(part))
        assert total._far is not None
        assert torch.allclose(total.read(), rows.double().sum(0), atol=1e-4)
        assert torch.equal(total.read(3, 9), total.read()[3:9])


def test_more_clients_than_were_prepared_for_are_summed_in_float64() -> None:
    total = RunningSum(40_000, torch.empty(0), clients=20)
    rows = torch.full((300, 40_000), 0.01)
    for part in rows.split(10):
        total.add_(part, columns(part))
    assert total._group == 0
    assert total._spent <= summation._UNITS
    assert float((total.read() - 300 * float(rows[0, 0])).abs().max()) < 1e-5


@pytest.mark.parametrize("count", [0, 1, 2, 120, 121])
def test_a_single_group_holds_whatever_comes(count: int) -> None:
    total = RunningSum(3000, torch.empty(0), clients=121, most=121)
    rows = torch.ones(count, 3000)
    total.add_(rows, columns(rows))
    assert torch.equal(total.read(), torch.full((3000,), float(count), dtype=torch.float64))
    mean = total.noisy_mean([torch.ones(500), torch.ones(2500)], 3.0, 2.0)
    assert torch.equal(mean, torch.full((3000,), (count + 3) / 2))
    assert total._single
    assert total._wide is None


def test_groups_are_long_where_few_clients_come() -> None:
    assert group_size(1) == group_size(122) == 121
    for clients in range(122, 2000, 7):
        assert clients * (group_size(clients) + 3) / 2 <= summation._UNITS
    total = RunningSum(10_000, torch.empty(0), clients=1000)
    assert total.whole(10) == 12
    assert total.whole(109) == 108
    assert total.whole(3) == 3
    assert RunningSum(10_000, torch.empty(0, dtype=torch.float64), clients=10).whole(16) == 16


@pytest.mark.parametrize(("size", "clients", "most"), [
    (300_000, 40, 40), (300_000, 200, 200), (300_000, 200, 10**6), (300, 20, 10**6),
])  # fmt: skip
def test_a_row_in_parts_is_the_row(size: int, clients: int, most: int) -> None:
    """One float32 group, several, too many rows for them, and float64: within the bound."""
    total = RunningSum(size, torch.empty(0), min(clients, most), most)
    cuts = [size // 2, size // 4, size - size // 2 - size // 4]
    exact = torch.zeros(size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for number in range(clients + 3 * (most > clients)):
        row = torch.randn(size, generator=generator) / math.sqrt(size)
        factor = float(np.float32(0.1 + number / 100))
        exact += row.double() * factor
        if number % 5 == 4:
            # In between, rows of a matrix.
            total.add_(row[None], [(0, size, torch.tensor([factor]))])
        else:
            total.add_parts_(row.split(cuts), factor)
    bound = 1.2 * (0.1 + clients / 100)
    assert float((total.read() - exact).norm()) <= bound * max(total.room / 2, 1e-12)


def test_in_float64_a_product_of_float32_numbers_is_exact() -> None:
    total = RunningSum(2, torch.empty(0), 5, 10**6)
    value, factor = torch.tensor([1 / 3, 1e-30]), float(np.float32(0.7))
    total.add_parts_([value], factor)
    assert torch.equal(total.read(), value.double() * factor)
