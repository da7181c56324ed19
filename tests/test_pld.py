"""The privacy-loss kernel against direct integrals, brute force and dp-accounting."""

from __future__ import annotations

import math

import inversion
import numpy as np
import pytest

from fldp import accounting
from fldp.accounting import curve, pairs, pld
from fldp.accounting.composition import rounds_of
from fldp.accounting.gaussian_pairs import Fixed, Subsampled


def sf(x):
    return 0.5 * math.erfc(x * math.sqrt(0.5))


def pair(kind, q, z):
    return Fixed(q, z) if kind == "fixed" else Subsampled(kind, q, z)


def one_round(kind, q, z, delta=None, epsilon=None, rounds=1):
    return pld.solve([([(1.0, pair(kind, q, z))], rounds)], delta=delta, epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 2.0])
@pytest.mark.parametrize(("q", "z"), [(1e-3, 0.5), (0.2, 1.0), (0.9, 3.0)])
def test_one_remove_round_matches_its_integral(q, z, epsilon):
    x = z * z * math.log((math.expm1(epsilon) + q) / q) + 0.5
    truth = q * sf((x - 1) / z) - (math.expm1(epsilon) + q) * sf(x / z)
    found = one_round("remove", q, z, epsilon=epsilon)
    assert truth * (1 - 1e-9) <= found <= truth * 1.01


@pytest.mark.parametrize("delta", [1e-100, 1e-60, 1e-30, 1e-12, 1e-3, 0.2])
@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (5.0, 50), (0.5, 100)])
def test_full_participation_matches_the_closed_form_down_to_tiny_delta(z, rounds, delta):
    truth = accounting.gaussian_epsilon(math.sqrt(rounds) / z, delta)
    found = one_round("remove", 1.0, z, delta=delta, rounds=rounds)
    assert truth <= found <= truth * (1 + 1e-3)
    doubled = one_round("replace", 1.0, 2 * z, delta=delta, rounds=rounds)
    assert truth <= doubled <= truth * (1 + 1e-3)


def hockey_stick(u, v, q, z, epsilon):
    """E_Q[(P/Q - e^epsilon)_+] of (1-q)N(0)+qN(u) against (1-q)N(0)+qN(v) in the plane."""
    axis = np.linspace(-8 * z - 2, 8 * z + 2, 801)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    density = lambda c: np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2) / (2 * z * z))  # noqa: E731
    rest = (1 - q) * density((0, 0))
    gap = rest + q * density(u) - math.exp(epsilon) * (rest + q * density(v))
    cell = (axis[1] - axis[0]) ** 2 / (2 * math.pi * z * z)
    return float(np.maximum(gap, 0).sum() * cell)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_no_configuration_of_a_fixed_cohort_beats_the_worst_one(epsilon):
    q, z = 0.2, 1.0
    bound = one_round("fixed", q, z, epsilon=epsilon)
    worst = hockey_stick((2, 0), (0, 0), q, z, epsilon)
    assert worst * (1 - 1e-3) <= bound <= worst * 1.01
    rng = np.random.default_rng(0)
    for _ in range(8):
        ball = rng.normal(size=(3, 2))
        ball /= np.maximum(1, np.linalg.norm(ball, axis=1, keepdims=True))
        u, v = ball[0] - ball[2], ball[1] - ball[2]
        assert hockey_stick(u, v, q, z, epsilon) <= bound * (1 + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_opposite_updates_are_the_worst_replacement_under_poisson(epsilon):
    q, z = 0.3, 0.9
    bound = one_round("replace", q, z, epsilon=epsilon)
    worst = hockey_stick((1, 0), (-1, 0), q, z, epsilon)
    assert worst * (1 - 1e-3) <= bound <= worst * 1.01
    for angle in np.linspace(0, math.pi, 9):
        for size in (0.4, 1.0):
            v = (size * math.cos(angle), size * math.sin(angle))
            assert hockey_stick((1, 0), v, q, z, epsilon) <= bound * (1 + 1e-3)


def test_a_composed_fixed_cohort_lies_between_known_bounds():
    """Lower: the worst data set known (Poisson at z/2). Upper: Wang et al. 2019, 83.9 and 143."""
    for q, z, rounds, delta, low, high in [
        (0.1, 1.0, 100, 1e-5, 31.370995, 83.9),
        (100 / 3400, 1.0, 1500, 3400**-1.1, 38.549087, 143.0),
    ]:
        found = one_round("fixed", q, z, delta=delta, rounds=rounds)
        assert low < found < 0.5 * high


def test_a_mixture_lies_between_its_parts():
    parts = [(1.0, pair("remove", 0.05, 1.0))], [(1.0, pair("replace", 0.2, 0.8))]
    low, high = (pld.solve([(p, 50)], delta=1e-5) for p in parts)
    both = [(0.7, parts[0][0][1]), (0.3, parts[1][0][1])]
    assert low < pld.solve([(both, 50)], delta=1e-5) < high


def test_both_directions_are_needed_and_never_exceed_the_moment_bound():
    for q, z, rounds in [(0.01, 1.0, 1000), (0.3, 2.0, 20), (0.9, 5.0, 100)]:
        for kind in ("remove", "add", "replace", "fixed"):
            run = [([(1.0, pair(kind, q, z))], rounds)]
            found = pld.solve(run, delta=1e-6)
            assert 0 < found <= pld.ceiling(run, 1e-6) * (1 + 1e-3)


def test_the_grid_is_a_dial_and_every_setting_is_an_upper_bound():
    run = [([(1.0, pair("remove", 0.01, 0.7))], 500)]
    fine = pld.solve(run, delta=1e-6, accuracy=1e-6)
    for accuracy in (1e-2, 1e-3, 1e-4):
        found = pld.solve(run, delta=1e-6, accuracy=accuracy)
        assert fine <= found * (1 + 1e-6) <= fine * (1 + 3 * accuracy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "q", "z", "rounds", "delta"),
    [
        ("remove", 2.9e-5, 0.386, 8, 3e-6),  # the grid itself moves mass below the true support
        ("remove", 1.5e-4, 0.626, 3, 9e-9),
        ("remove", 2.7e-4, 0.691, 13, 4.5e-9),
        ("remove", 1.2e-4, 0.958, 9910, 4e-10),  # round-off of the transform is near delta
        ("fixed", 1.8e-5, 1.95, 16346, 1.4e-12),
        ("remove", 0.0042, 0.309, 2, 8e-5),
    ],
)
def test_rare_large_losses_are_as_tight(kind, q, z, rounds, delta):
    run = [([(1.0, pair(kind, q, z))], rounds)]
    fine = pld.solve(run, delta=delta, accuracy=4e-5)
    assert fine * (1 - 1e-4) <= pld.solve(run, delta=delta) <= fine * (1 + 1e-3)


@pytest.mark.slow
def test_random_settings_against_dp_accounting():
    distributions = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    rng = np.random.default_rng(7)
    seen = 0
    while seen < 4:
        q, z = 10 ** rng.uniform(-3, -0.1), 10 ** rng.uniform(-0.3, 0.7)
        rounds, delta = int(10 ** rng.uniform(0, 3)), 10 ** rng.uniform(-10, -3)
        found = accounting.epsilon(noise_multiplier=z, delta=delta, rounds=rounds, sampling_rate=q)
        if not 0.2 <= found <= 20:
            continue
        truth = distributions.from_gaussian_mechanism(
            z, sampling_prob=q, value_discretization_interval=1e-4
        ).self_compose(rounds)
        assert found == pytest.approx(truth.get_epsilon_for_delta(delta), rel=2e-3)
        seen += 1


@pytest.mark.slow
def test_too_much_is_refused_in_plain_words():
    with pytest.raises(ValueError, match="use more noise"):
        one_round("remove", 0.5, 1e-3, delta=1e-5, rounds=10**9)


# ---- against a second way that knows no grid (inversion.py)


def settings_for_inversion(seed, count):
    """Random settings and their epsilon, with what inversion makes of them."""
    rng = np.random.default_rng(seed)
    found = 0
    while found < count:
        z, q = 10 ** rng.uniform(-0.7, 2.5), 10 ** rng.uniform(-4, -0.02)
        rounds, log_delta = int(10 ** rng.uniform(0.3, 7)), rng.uniform(-35, -1)
        adjacency = ("add-or-remove", "replace-one")[rng.integers(2)]
        events = [accounting.Event(z, q, "poisson", rounds)]
        epsilon = accounting.epsilon_of(events, math.exp(log_delta), adjacency)
        if epsilon < 1e-6:
            continue
        kinds = ["replace"] if adjacency == "replace-one" else ["remove", "add"]
        at = [inversion.log_delta(epsilon, [(kind, q, z, rounds)]) for kind in kinds]
        below = [
            inversion.log_delta(epsilon * (1 - 1e-3), [(kind, q, z, rounds)]) for kind in kinds
        ]
        if None in at or None in below:
            continue
        found += 1
        yield events, adjacency, epsilon, log_delta, max(at), max(below)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a04_random_settings_hold_and_waste_a_permille_at_most(seed):
    for events, adjacency, epsilon, log_delta, at, below in settings_for_inversion(seed, 6):
        assert at <= log_delta + 1e-6, (events, adjacency, epsilon)
        assert below >= log_delta, (events, adjacency, epsilon)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 5))
def test_a02_delta_holds_at_random_settings_and_is_near(seed):
    for events, adjacency, epsilon, _, at, below in settings_for_inversion(seed, 6):
        found = math.log(accounting.delta_of(events, epsilon, adjacency))
        assert at - 1e-6 <= found, (events, adjacency, epsilon)
        # never looser than what a permille of epsilon is in delta, and half a percent for free
        assert found <= at + 0.005 + (below - at), (events, adjacency, epsilon)


def test_mixed_rounds_against_inversion():
    events = [
        accounting.Event(1.1, 0.03, "poisson", 200),
        accounting.Event(4.0, 0.4, "poisson", 30),
        accounting.Event(9.0, rounds=5),
    ]
    for direction in ("remove", "add"):
        rounds = [(direction, 0.03, 1.1, 200), (direction, 0.4, 4.0, 30), ("remove", 1.0, 9.0, 5)]
        truth = inversion.log_delta(1.5, rounds)
        run = rounds_of(events, "add-or-remove", direction)
        assert truth <= math.log(pld.solve(run, epsilon=1.5)) <= truth + 5e-3


@pytest.mark.parametrize("rounds", [10**5, 10**7])
def test_a05_very_many_rounds_take_stages_and_stay_exact(rounds):
    run = [([(1.0, pair("remove", 1e-4, 50.0))], rounds)]
    epsilon = pld.solve(run, delta=1e-5)
    assert inversion.log_delta(epsilon, [("remove", 1e-4, 50.0, rounds)]) <= math.log(1e-5) + 1e-6
    below = inversion.log_delta(epsilon * (1 - 1e-3), [("remove", 1e-4, 50.0, rounds)])
    assert below >= math.log(1e-5)


def test_a05_ten_thousand_million_rounds_are_as_those_of_the_central_limit():
    run = [([(1.0, pair("remove", 1e-4, 50.0))], 10**10)]
    found = pld.solve(run, delta=1e-5)
    limit = accounting.gaussian_epsilon(1e-4 * math.sqrt(1e10 * math.expm1(50.0**-2)), 1e-5)
    assert limit < found < limit * (1 + 2e-3)


def test_stages_and_one_grid_give_the_same(monkeypatch):
    run = [([(1.0, pair("replace", 0.02, 1.0))], 30_000), ([(1.0, pair("remove", 1.0, 40.0))], 7)]
    one_grid = pld.solve(run, delta=1e-8, accuracy=1e-5)
    monkeypatch.setattr(curve, "_STAGE_FROM", 1)
    staged = pld.solve(run, delta=1e-8, accuracy=1e-5)
    assert staged == pytest.approx(one_grid, rel=3e-5)
    laws = []
    compose = curve.Law.composed
    monkeypatch.setattr(
        curve.Law, "composed", lambda *args: (laws.append(args[1]), compose(*args))[1]
    )
    pld.solve(run, delta=1e-8)
    assert laws


# ---- the faults of the old kernel


@pytest.mark.parametrize(
    ("z", "q", "delta"),
    [(286.6, 0.856, 6.4e-6), (1e4, 0.01, 1e-8), (0.3, 0.02, 1e-4), (1e8, 0.9, 1e-10)],
)
@pytest.mark.parametrize("kind", ["remove", "add", "replace", "fixed"])
def test_a04_one_round_is_exact(z, q, delta, kind):
    found = one_round(kind, q, z, delta=delta)
    if found > 0:
        assert pair(kind, q, z).profile(found) <= delta * (1 + 1e-9)
        assert pair(kind, q, z).profile(found * (1 - 1e-6)) >= delta
    known = {286.6: 0.0074086}
    if kind == "remove" and z in known:
        assert found == pytest.approx(known[z], rel=1e-3)


@pytest.mark.parametrize("rounds", [2, 3, 10])
@pytest.mark.parametrize(("z", "q", "delta"), [(286.6, 0.856, 6.4e-6), (1e3, 0.5, 1e-6)])
def test_a04_few_rounds_of_much_noise_are_tight(z, q, delta, rounds):
    run = [([(1.0, pair("remove", q, z))], rounds)]
    fine = pld.solve(run, delta=delta, accuracy=1e-5)
    assert fine * (1 - 1e-6) <= pld.solve(run, delta=delta) <= fine * (1 + 1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 20.0, 60.0])
@pytest.mark.parametrize("rounds", [1, 4])
def test_p13_a_tiny_delta_is_told_as_it_is(epsilon, rounds):
    truth = accounting.gaussian_delta(math.sqrt(rounds) / 2, epsilon)
    found = one_round("remove", 1.0, 2.0, epsilon=epsilon, rounds=rounds)
    assert truth * (1 - 1e-9) <= found <= truth * 1.01


def test_p13_below_the_least_delta_the_least_is_told():
    assert one_round("remove", 0.1, 2.0, epsilon=500.0, rounds=3) == 1e-300
    assert one_round("add", 0.1, 2.0, epsilon=5.0, rounds=3) == 1e-300


@pytest.mark.slow
def test_a_finer_grid_than_there_may_be_gives_a_looser_bound_not_none():
    run = [([(1.0, pair("remove", 1e-3, 0.5))], 1000)]
    usual = pld.solve(run, delta=1e-5)
    strained = pld.solve(run, delta=1e-5, accuracy=1e-12)
    assert usual * (1 - 1e-3) <= strained <= usual * (1 + 1e-2)


def test_moments_bound_from_above():
    run = [([(1.0, pair("remove", 0.05, 1.0))], 100), ([(1.0, pairs.approximate(0.1, 1e-7))], 2)]
    assert pld.solve(run, delta=1e-5) <= pld.ceiling(run, 1e-5) * (1 + 1e-3)
    assert pld.ceiling(run, 1e-7) == math.inf
    assert pld.solve(run, epsilon=3.0) <= pld.delta_ceiling(run, 3.0) * (1 + 1e-3)


# ---- the trace


@pytest.mark.parametrize(
    ("run", "delta"),
    [
        ([([(1.0, pair("remove", 0.01, 1.0))], 100)], 1e-5),
        ([([(1.0, pair("add", 0.01, 1.0))], 1000)], 1e-6),
        ([([(1.0, pair("fixed", 0.05, 2.0))], 50)], 1e-5),
        ([([(1.0, pair("remove", 1e-3, 2.0))], 20_000), ([(1.0, pairs.Shifted(9.0))], 3)], 1e-7),
    ],
)
def test_a_trace_is_the_search_itself(run, delta):
    told = pld.trace(run, delta=delta)
    assert told.answer == pld.solve(run, delta=delta)
    assert [turn.then == "the answer" for turn in told.turns] == [False] * (len(told.turns) - 1) + [
        True
    ]
    # every turn is an upper bound, and the least is told
    assert told.answer == min(turn.found for turn in told.turns)
    assert told.guess.log_delta == pytest.approx(math.log(delta))
    for turn in told.turns:
        assert turn.delta == pytest.approx(delta)
        assert turn.low < turn.found < turn.high
        assert turn.points >= (turn.high - turn.low) / turn.step
        # what is added is a small part of delta
        assert 0 <= turn.truncated <= 1e-6 * delta
        assert 0 < turn.round_off <= 1e-3 * delta


def test_a_trace_asks_the_pairs_once_for_each_turn(monkeypatch):
    asked = []
    cells = Subsampled.cells
    monkeypatch.setattr(Subsampled, "cells", lambda *args: (asked.append(args), cells(*args))[1])
    told = pld.trace([([(1.0, pair("remove", 0.01, 1.0))], 100)], delta=1e-5)
    # more only where a step is mended
    assert len(told.turns) <= len(asked) <= 3 * len(told.turns)


def test_a_trace_for_delta_and_one_that_needs_no_grid():
    run = [([(1.0, pair("remove", 0.01, 1.0))], 100)]
    told = pld.trace(run, epsilon=0.5)
    assert told.answer == pld.solve(run, epsilon=0.5) == min(turn.found for turn in told.turns)
    assert {turn.epsilon for turn in told.turns} == {0.5}
    alone = pld.trace([([(1.0, pair("remove", 0.01, 1.0))], 1)], delta=1e-5)
    assert alone.turns == ()
    assert alone.guess is None
    assert str(alone).startswith("answer: ")
    assert pld.trace(run, delta=0.9) == (0.0, None, ())


def test_a_trace_as_text_has_a_column_for_each_turn_and_rounds_up():
    told = pld.trace([([(1.0, pair("remove", 0.01, 1.0))], 100)], delta=1e-5)
    lines = str(told).splitlines()
    assert lines[0].startswith("saddle point: epsilon 0.87")
    assert lines[1].split() == ["turn", "1", "turn", "2", "turn", "3"]
    assert [line.split()[0] for line in lines[2:-1]] == list(pld.Turn._fields)
    found = next(line for line in lines if line.startswith("found")).split()[1:]
    assert all(float(a) >= turn.found for a, turn in zip(found, told.turns, strict=True))
    assert float(lines[-1].removeprefix("answer: ")) >= told.answer
    assert max(map(len, lines)) <= 76


@pytest.mark.slow
def test_a_trace_tells_of_grids_that_cannot_be_made():
    told = pld.trace([([(1.0, pair("remove", 1e-3, 0.5))], 1000)], delta=1e-5, accuracy=1e-12)
    coarser = [turn for turn in told.turns if turn.then == "coarser grid"]
    assert coarser
    assert all(turn.points == 0 and math.isnan(turn.found) for turn in coarser)


@pytest.mark.parametrize("question", [{}, {"delta": 1e-5, "epsilon": 1.0}])
def test_one_of_delta_and_epsilon_is_asked_about(question):
    with pytest.raises(ValueError, match="give one of the two"):
        pld.solve([([(1.0, pair("remove", 0.01, 1.0))], 100)], **question)
