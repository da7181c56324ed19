"""The searches: they meet the budget, waste little, ask few questions, and end."""

from __future__ import annotations

import math
import random
import tracemalloc
import warnings

import pytest

from fldp import accounting
from fldp.accounting import Event, epsilon_of, pld


def spent(z, *, delta, rounds, q, **more):
    return accounting.epsilon(
        noise_multiplier=z, delta=delta, rounds=rounds, sampling_rate=q, **more
    )


@pytest.fixture
def asked(monkeypatch):
    """How often the kernel was asked in full."""
    calls = []
    solve = pld.solve

    def counted(rounds, **question):
        calls.append(question)
        return solve(rounds, **question)

    monkeypatch.setattr(pld, "solve", counted)
    return calls


# ---- noise


@pytest.mark.parametrize(
    ("rounds", "q", "delta", "epsilon"),
    [
        (30, 0.1, 1e-5, 1e-3),
        (1, 0.01, 1e-5, 2e-3),
        (100, 0.5, 1e-6, 3e-4),
        (1000, 0.001, 1e-6, 1e-3),
        (5, 0.64, 7.4e-7, 2.7e-4),
        (66241, 0.072, 5.9e-4, 2.4e-3),
        (500, 0.003, 1e-7, 1e-5),
    ],
)
def test_a03_calibration_towards_zero(rounds, q, delta, epsilon, asked):
    z = accounting.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=q)
    assert len(asked) <= 16
    assert 0.999 * epsilon <= spent(z, delta=delta, rounds=rounds, q=q) <= epsilon


@pytest.mark.parametrize("seed", range(4))
def test_a03_calibration_from_next_to_nothing_to_no_privacy(seed, asked):
    draw = random.Random(seed)
    for _ in range(6):
        epsilon, q = 10 ** draw.uniform(-5, 4), 10 ** draw.uniform(-4, 0)
        rounds, delta = int(10 ** draw.uniform(0, 4)), 10 ** draw.uniform(-12, -1)
        del asked[:]
        try:
            z = accounting.noise_multiplier(
                epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=q
            )
        except ValueError as error:
            # almost nobody is ever drawn, which this delta allows for
            assert "almost no noise" in str(error)  # noqa: PT017
            assert -math.expm1(rounds * math.log1p(-q)) < 1.01 * delta
            continue
        assert len(asked) <= 40
        found = spent(z, delta=delta, rounds=rounds, q=q)
        assert found <= epsilon
        assert found >= 0.999 * epsilon, (epsilon, delta, rounds, q)


@pytest.mark.parametrize("epsilon", [1e5, 5.9e6])
def test_a03_where_epsilon_answers_so_does_calibration(epsilon):
    run = {"delta": 1e-5, "rounds": 10, "q": 0.5}
    z = accounting.noise_multiplier(epsilon=epsilon, delta=1e-5, rounds=10, sampling_rate=0.5)
    assert 0.999 * epsilon <= spent(z, **run) <= epsilon


def test_a07_epsilon_zero_is_the_noise_whose_variation_is_delta():
    for q, rounds, adjacency in (
        (1.0, 3, "zero-out"),
        (0.1, 30, "zero-out"),
        (0.2, 5, "replace-one"),
    ):
        run = {"delta": 1e-3, "rounds": rounds, "q": q, "adjacency": adjacency}
        z = accounting.noise_multiplier(
            epsilon=0.0, delta=1e-3, rounds=rounds, sampling_rate=q, adjacency=adjacency
        )
        assert spent(z, **run) == 0.0
        assert spent(0.99 * z, **run) > 0.0


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"epsilon": 1.0, "delta": 0.0}, "delta is 0.0"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta is 1.0"),
        ({"delta": 5e-324}, "delta is 4.94066e-324: give at least 1e-300"),
        ({"delta": 1e-310, "sampling_rate": 0.1}, "give at least 1e-300"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"epsilon": 1e8}, "ask for at most 1e\\+07"),
        ({"sampling_rate": 0.0}, "nobody takes part, so any noise does"),
        ({"delta": 0.5, "sampling_rate": 0.1, "rounds": 1}, "almost no noise already gives 0"),
        ({"epsilon": 0.0, "accountant": "rdp", "sampling_rate": 0.1}, "use accountant='pld'"),
        ({"accountant": "moments"}, "accountant is 'moments'"),
    ],
)
def test_a07_budgets_without_an_answer_say_why(question, words):
    with pytest.raises(ValueError, match=words):
        accounting.noise_multiplier(**{"epsilon": 1.0, "delta": 1e-5, "rounds": 10} | question)


@pytest.mark.parametrize("adjacency", ["zero-out", "replace-one"])
@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_calibration_for_known_participation(adjacency, sampling):
    setting = {
        "delta": 1e-5, "rounds": 60, "sampling_rate": 0.25, "sampling": sampling, "clients": 480,
        "adjacency": adjacency, "known": True,
    }  # fmt: skip
    z = accounting.noise_multiplier(epsilon=8.0, **setting)
    assert 0.999 * 8 <= accounting.epsilon(noise_multiplier=z, **setting) <= 8
    assert accounting.max_rounds(
        epsilon=8.0, noise_multiplier=z, **{k: v for k, v in setting.items() if k != "rounds"}
    ) in (60, 61)


def test_an_ordinary_calibration_asks_few_questions(asked):
    for epsilon, delta, q, rounds in ((8.0, 1e-5, 0.01, 1000), (1.0, 1e-6, 0.03, 1500)):
        del asked[:]
        accounting.noise_multiplier(epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=q)
        assert len(asked) <= 6


# ---- Opacus


def test_a05_prv_that_would_not_end_is_refused_before_it_begins(monkeypatch):
    from opacus import accountants

    def never(*args, **kwargs):
        raise AssertionError("asked")

    monkeypatch.setattr(accountants.PRVAccountant, "get_epsilon", never)
    for z, rounds, q in ((0.05, 60, 0.25), (0.3, 10**6, 0.1), (0.1, 1125, 0.0267)):
        with pytest.raises(ValueError, match="grid points, more than"):
            spent(z, delta=1e-5, rounds=rounds, q=q, accountant="prv")
    with pytest.raises(ValueError, match="grid points, more than"):
        accounting.noise_multiplier(
            epsilon=1000.0, delta=1e-5, rounds=1125, sampling_rate=0.0267, accountant="prv"
        )


@pytest.mark.slow
def test_a05_a_search_by_prv_starts_next_to_its_end(monkeypatch):
    from opacus import accountants

    ask, asked = accountants.PRVAccountant.get_epsilon, []

    def counted(self, delta, **more):
        asked.append(self.history)
        return ask(self, delta, **more)

    monkeypatch.setattr(accountants.PRVAccountant, "get_epsilon", counted)
    z = accounting.noise_multiplier(
        epsilon=8.0, delta=1e-5, rounds=200, sampling_rate=0.02, accountant="prv"
    )
    assert len(asked) <= 6
    assert 0.999 * 8 <= spent(z, delta=1e-5, rounds=200, q=0.02, accountant="prv") <= 8


def test_gdp_warns_once_however_often_it_is_asked():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        accounting.noise_multiplier(
            epsilon=2.0, delta=1e-5, rounds=100, sampling_rate=0.05, accountant="gdp"
        )
    assert [w.category for w in caught] == [UserWarning]


# ---- rounds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsilon", "z", "q"),
    [(1.0, 50.0, 1e-4), (3.0, 1.0, 0.02), (0.1, 5.0, 1e-3), (900.0, 0.2, 0.1)],
)
def test_a05_max_rounds_asks_few_questions_and_is_the_last(epsilon, z, q, asked):
    rounds = accounting.max_rounds(epsilon=epsilon, delta=1e-5, noise_multiplier=z, sampling_rate=q)
    assert len(asked) <= 30
    assert spent(z, delta=1e-5, rounds=rounds, q=q) <= epsilon
    more = rounds + 1 + rounds // 10**6
    assert spent(z, delta=1e-5, rounds=more, q=q) > epsilon * (1 - 1e-6)


def test_max_rounds_at_its_ends():
    ask = {"delta": 1e-5, "noise_multiplier": 100.0}
    assert accounting.max_rounds(epsilon=1e-3, **ask) == 0
    assert accounting.max_rounds(epsilon=0.0, **ask) == 0
    assert accounting.max_rounds(epsilon=0.0, delta=0.1, noise_multiplier=100.0) > 100
    with pytest.raises(ValueError, match=r"1e\+15 rounds fit"):
        accounting.max_rounds(epsilon=100.0, delta=1e-5, noise_multiplier=1e12)
    with pytest.raises(ValueError, match="any number of rounds fits"):
        accounting.max_rounds(epsilon=1.0, sampling_rate=0.0, **ask)


# ---- caps


def test_a05_a_cap_on_a_hundred_million_clients_takes_little_memory():
    tracemalloc.start()
    capped = epsilon_of([Event(1.0, 0.01, "poisson", 100, 10**8, cap=10**6 + 4000)], 1e-9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # bytes; a number for each client would be 800e6
    assert capped > epsilon_of([Event(1.0, 0.01, "poisson", 100)], 1e-9) * (1 - 1e-3)


def test_a05_far_above_the_cohort_a_cap_costs_nothing_at_any_size():
    for clients in (10**4, 10**8, 10**12):
        free = Event(2.0, 0.01, "poisson", 50)
        capped = Event(2.0, 0.01, "poisson", 50, clients, cap=clients // 10)
        assert epsilon_of([capped], 1e-9) == pytest.approx(epsilon_of([free], 1e-9), rel=1e-3)


def test_a_rate_next_to_zero_has_more_rounds_than_can_be_counted():
    with pytest.raises(ValueError, match="rounds fit"):
        accounting.max_rounds(
            epsilon=1.0, delta=1e-5, noise_multiplier=5.0, sampling_rate=5e-324,
            adjacency="zero-out",
        )  # fmt: skip
