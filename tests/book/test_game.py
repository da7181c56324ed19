"""The theorems on promises and observers, on finite mechanisms, by the functions of their cells.

A mechanism is two arrays: the probabilities of its outcomes in world 0 and in world 1.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTERS = ("a-promise-about-odds", "what-the-observer-can-do")
TINY = 1e-10  # of a probability, times e^ε up to 10^5: rounding

many = settings(deadline=None, max_examples=100)
seeds = st.integers(0, 2**32 - 1)
epsilons = st.floats(0.0, 3.0)
sizes = st.integers(2, 7)


def taught(*names: str) -> SimpleNamespace:
    """Functions as the chapters' cells define them."""
    books = [HERE / "book" / f"{name}.ipynb" for name in CHAPTERS]
    cells = [cell for book in books for cell in json.loads(book.read_text("utf-8"))["cells"]]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"np": np, "math": math, "binom": binom}
    for name in names:
        exec(next(source for source in sources if f"def {name}(" in source), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})


game = taught("trade_off", "lines", "delta_at", "epsilon_at", "answers", "win", "days")


def draw(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random distribution; one outcome in five is impossible."""
    weights = rng.exponential(size=size) * (rng.random(size) > 0.2)
    weights[rng.integers(size)] += 0.1
    return weights / weights.sum()


def private(rng: np.random.Generator, size: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """A random ε-private pair: no ratio above e^ε or below e^-ε."""
    p = rng.dirichlet(np.ones(size))
    q = p * np.exp(epsilon * (rng.random(size) - 0.5))
    return p, q / q.sum()


def rates(P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """(α, β) of every test without coins, (2^n, 2): say 1 on a set of outcomes."""
    sets = np.array(list(product((0, 1), repeat=len(P))))
    return np.stack([sets @ P, 1 - sets @ Q], axis=1)


def lowest(P: np.ndarray, Q: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The trade-off curve at `alpha`, the lower end where it is vertical."""
    return np.interp(alpha + 1e-15, *game.trade_off(P, Q))


@pytest.mark.slow
@many
@given(seeds, sizes, epsilons)
def test_private_on_every_set_exactly_when_the_curve_is_above_the_lines(
    seed: int, size: int, epsilon: float
) -> None:
    rng = np.random.default_rng(seed)
    P, Q, e = draw(rng, size), draw(rng, size), math.exp(epsilon)
    on_sets = np.array(list(product((0, 1), repeat=size)))
    definition = max((on_sets @ Q - e * on_sets @ P).max(), (on_sets @ P - e * on_sets @ Q).max())
    alpha, beta = game.trade_off(P, Q)
    by_lines = max((1 - alpha - e * beta).max(), (1 - e * alpha - beta).max())
    assert by_lines == pytest.approx(definition, abs=TINY)
    assert game.delta_at(P, Q, epsilon) == pytest.approx(definition, abs=TINY)
    coins = rng.random((50, size))
    assert (1 - coins @ Q >= lowest(P, Q, coins @ P) - TINY).all()


@pytest.mark.parametrize("epsilon", [0.1, math.log(3), 4.0])
def test_randomised_response_lies_on_its_lines(epsilon: float) -> None:
    grid = np.linspace(0, 1, 101)
    P, Q = game.days(1, epsilon)
    assert lowest(P, Q, grid) == pytest.approx(game.lines(grid, epsilon, 0.0), abs=TINY)


@many
@given(seeds, sizes, epsilons)
def test_odds_and_bets_stay_within_the_promise(seed: int, size: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    P, Q = private(rng, size, epsilon)
    prior = rng.uniform(0.01, 0.99)
    posterior = prior * Q / (prior * Q + (1 - prior) * P)
    moved = posterior / (1 - posterior) / (prior / (1 - prior))
    assert (np.abs(np.log(moved)) <= epsilon + TINY).all()

    P, Q, e = draw(rng, size), draw(rng, size), math.exp(epsilon)
    best = (1 - rates(P, Q).mean(axis=1)).max()
    assert best == pytest.approx(game.win(P, Q), abs=TINY)
    assert best <= (e + game.delta_at(P, Q, epsilon)) / (1 + e) + TINY
    assert game.win(*game.days(1, epsilon)) == pytest.approx(e / (1 + e), abs=TINY)


@many
@given(seeds, sizes, st.integers(1, 5), epsilons)
def test_no_function_of_the_release_brings_the_observer_below_the_curve(
    seed: int, size: int, values: int, epsilon: float
) -> None:
    rng = np.random.default_rng(seed)
    P, Q = draw(rng, size), draw(rng, size)
    function = rng.dirichlet(np.full(values, 0.3), size=size)  # a row of coins for each outcome
    alpha, beta = game.trade_off(P @ function, Q @ function)
    assert (beta >= lowest(P, Q, alpha) - TINY).all()
    bound = game.delta_at(P, Q, epsilon) + TINY
    assert game.delta_at(P @ function, Q @ function, epsilon) <= bound


def test_a_function_that_looks_at_the_data_again_gets_below_the_curve() -> None:
    P, Q = game.days(1, 1.0)
    function, peeking = np.array([[1, 0], [1, 0]]), np.array([[0, 1], [0, 1]])
    alpha, beta = game.trade_off(P @ function, Q @ peeking)
    assert (beta < lowest(P, Q, alpha) - 0.1).any()


@many
@given(seeds, sizes, epsilons, epsilons)
def test_epsilons_and_deltas_add_even_if_the_second_is_chosen_by_the_first(
    seed: int, size: int, first: float, second: float
) -> None:
    rng = np.random.default_rng(seed)
    P, Q = draw(rng, size), draw(rng, size)
    then = [(draw(rng, 3), draw(rng, 3)) for _ in range(size)]
    both = [np.concatenate([a * b for a, b in zip(*w, strict=True)])
            for w in ((P, [t[0] for t in then]), (Q, [t[1] for t in then]))]  # fmt: skip
    allowed = game.delta_at(P, Q, first) + max(game.delta_at(*pair, second) for pair in then)
    assert game.delta_at(*both, first + second) <= allowed + TINY


@pytest.mark.parametrize("epsilon", [0.1, math.log(3)])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_k_answers_are_two_binomials_and_cost_k_epsilon_at_delta_zero(
    k: int, epsilon: float
) -> None:
    p = 1 / (1 + math.exp(-epsilon))
    P, Q = game.days(k, epsilon)
    outcomes = game.answers(k, 1 - p), game.answers(k, p)
    for e in (0.0, 0.5 * k * epsilon, 0.9 * k * epsilon):
        assert game.delta_at(P, Q, e) == pytest.approx(game.delta_at(*outcomes, e), abs=TINY)
    assert game.epsilon_at(P, Q, 1e-14) == pytest.approx(k * epsilon, rel=1e-6)


@many
@given(seeds, st.floats(0.05, 1.5), st.floats(0.0, 3.0))
def test_k_answers_are_the_worst_of_k_private_releases(seed: int, epsilon: float, e: float) -> None:
    rng = np.random.default_rng(seed)
    worlds = [np.ones(1), np.ones(1)]
    for _ in range(3):  # each release is chosen after seeing the ones before
        pairs = [private(rng, 3, epsilon) for _ in worlds[0]]
        worlds = [np.concatenate([a * pair[world] for a, pair in zip(so_far, pairs, strict=True)])
                  for world, so_far in enumerate(worlds)]  # fmt: skip
    assert game.delta_at(*worlds, e) <= game.delta_at(*game.days(3, epsilon), e) + TINY


@many
@given(seeds, st.integers(1, 4), st.floats(0.05, 2.0))
def test_a_group_of_k_pays_k_epsilon_and_a_growing_delta(seed: int, k: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    chain = [rng.dirichlet(np.ones(4))]
    for _ in range(k):  # a step in a direction that persists, so that the bound has work to do
        tilted = chain[-1] * np.exp(np.array([1.2, 0.0, 0.0, -1.2]) * epsilon * rng.random())
        chain.append(tilted / tilted.sum())
    steps = pairwise(chain)
    delta = max(game.delta_at(P, Q, epsilon) for P, Q in steps)
    growth = sum(math.exp(i * epsilon) for i in range(k))
    assert game.delta_at(chain[0], chain[-1], k * epsilon) <= delta * growth + TINY


@pytest.mark.parametrize("k", [1, 3, 6])
def test_some_group_pays_all_of_it(k: int) -> None:
    epsilon, delta, said = 1.0, 1e-4, [0.0]
    for _ in range(k):
        said.append(math.exp(epsilon) * said[-1] + delta)
    chain = [np.array([1 - r, r]) for r in said]
    steps = pairwise(chain)
    assert max(game.delta_at(P, Q, epsilon) for P, Q in steps) == pytest.approx(delta, abs=TINY)
    growth = sum(math.exp(i * epsilon) for i in range(k))
    found = game.delta_at(chain[0], chain[-1], k * epsilon)
    assert found == pytest.approx(delta * growth, abs=TINY)
