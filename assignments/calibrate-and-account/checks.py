"""Checks of *Calibrate and account*."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

from course import Call, Draw, Part, check, hidden, near, number
from fldp.accounting import Event, epsilon_of, gaussian_delta, gaussian_epsilon

# How far below the truth an answer may lie: rounding, and nothing else.
ROUNDING = 1e-6


@check("one_delta", points=1)
def at_epsilon_zero(call: Call, draw: Draw) -> None:
    """At ε = 0 the δ is the area between two normal curves, 0.3829 for z = 1; more noise, less."""
    near(number(call("one_delta", 1.0, 0.0)), 0.38292, rtol=1e-4)
    deltas = [number(call("one_delta", z, 1.0)) for z in (0.5, 1.0, 2.0)]
    assert 1 > deltas[0] > deltas[1] > deltas[2] > 0, f"z = 0.5, 1, 2 give {deltas}"


@hidden("one_delta", points=1)
def other_noise(call: Call, draw: Draw) -> None:
    """δ is not exact: there are two tails, and one of them is weighted with e^ε."""
    for _ in range(8):
        z = math.exp(draw.uniform(math.log(0.3), math.log(8.0)))
        # In units of 1/z the loss spreads by one, so these epsilons are neither sure nor hopeless.
        epsilon = draw.uniform(0.0, 3.0) / z
        want = gaussian_delta(1 / z, epsilon)
        near(number(call("one_delta", z, epsilon)), want, rtol=1e-5)


@hidden("one_delta", points=1)
def far_out(call: Call, draw: Draw) -> None:
    """What happens where e^ε is too large for a float, and where δ is tiny?"""
    for least, most in ((750.0, 1500.0), (20.0, 60.0)):
        epsilon = draw.uniform(least, most)
        # mu²/2 is the mean of the loss: choose it a little below ε, so that δ is neither 0 nor 1.
        mu = math.sqrt(2 * epsilon) * draw.uniform(0.85, 0.95)
        want = gaussian_delta(mu, epsilon)
        near(number(call("one_delta", 1 / mu, epsilon)), want, rtol=1e-4)


@check("full_epsilon", points=0.5)
def squares_add(call: Call, draw: Draw) -> None:
    """A hundred rounds at z = 20 say as much as a single one at z = 2."""
    many = number(call("full_epsilon", 20.0, 100, 1e-5))
    one = number(call("full_epsilon", 2.0, 1, 1e-5))
    assert abs(many - one) <= 1e-3 * one, f"a hundred rounds give {many:.4f}, one gives {one:.4f}"
    louder = number(call("full_epsilon", 4.0, 1, 1e-5))
    assert louder < one, f"and with z = 4 a single one gives {louder:.4f}, which is not less"


@check("full_epsilon", points=0.5)
def the_recipe(call: Call, draw: Draw) -> None:
    """Fifteen rounds of everybody with z = 0.854 have ε = 28.9 at δ = 1e-5."""
    found = number(call("full_epsilon", 0.854, 15, 1e-5))
    assert 28.85 <= found <= 28.97, f"you get {found:.2f}"


@hidden("full_epsilon", points=1)
def other_runs(call: Call, draw: Draw) -> None:
    """ε must be within a thousandth of the truth, and never below it: which end do you return?"""
    for _ in range(8):
        rounds = draw.randint(1, 400)
        z = math.sqrt(rounds) / draw.uniform(0.2, 9.0)
        delta = 10 ** draw.uniform(-9, -2)
        want = gaussian_epsilon(math.sqrt(rounds) / z, delta)
        found = number(call("full_epsilon", z, rounds, delta))
        assert want * (1 - ROUNDING) <= found <= want * 1.001 + ROUNDING, "off"


@hidden("full_epsilon", points=1)
def at_the_ends(call: Call, draw: Draw) -> None:
    """Where δ is generous ε is 0, and where there is hardly any noise it is in the thousands."""
    quiet = draw.uniform(200, 400)
    near(number(call("full_epsilon", quiet, 1, 0.01)), 0.0, atol=1e-3)
    mu = draw.uniform(40, 70)
    want = gaussian_epsilon(mu, 1e-6)
    found = number(call("full_epsilon", 1 / mu, 1, 1e-6))
    assert want * (1 - ROUNDING) <= found <= want * 1.001, "off"


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """How often each of so many outcomes can come in `total` rounds."""
    bars = itertools.combinations(range(total + parts - 1), parts - 1)
    ends = [(-1, *cut, total + parts - 1) for cut in bars]
    return [tuple(b - a - 1 for a, b in itertools.pairwise(end)) for end in ends]


def law_of(first: list[float], second: list[float], times: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and masses of `times` equal rounds, by counting outcomes: no grid, so it is exact."""
    pairs = [(p, q) for p, q in zip(first, second, strict=True) if p > 0]
    finite = [(p, q) for p, q in pairs if q > 0]
    counts = np.array(compositions(times, len(finite)))
    chances = np.log([p for p, _ in finite])
    losses = np.log([p / q for p, q in finite])
    logs = gammaln(times + 1) - gammaln(counts + 1).sum(axis=1) + counts @ chances
    return counts @ losses, np.exp(logs)


def exact_one_way(rounds: list[dict[str, Any]], delta: float, first: str, second: str) -> float:
    """ε of one direction; what never comes in the other world has an infinite loss."""
    losses, masses = np.zeros(1), np.ones(1)
    for kind in rounds:
        more, weights = law_of(kind[first], kind[second], kind["times"])
        losses = np.add.outer(losses, more).ravel()
        masses = np.multiply.outer(masses, weights).ravel()
    lost = max(0.0, 1 - masses.sum())

    def too_much(epsilon: float) -> float:
        return float(masses @ np.maximum(0, -np.expm1(epsilon - losses))) + lost - delta

    if too_much(0.0) <= 0:
        return 0.0
    if lost > delta:
        return math.inf
    return float(brentq(too_much, 0, max(losses.max(), ROUNDING) + 1, xtol=1e-12))


def exact(rounds: list[dict[str, Any]], delta: float) -> float:
    """ε of rounds with few outcomes: neighbours may change places, so the larger of two."""
    ways = (("P", "Q"), ("Q", "P"))
    return max(exact_one_way(rounds, delta, *way) for way in ways)


def coin(draw: Draw, most: float) -> dict[str, Any]:
    """Two outcomes; losses up to about `most`."""
    p = draw.uniform(0.3, 0.7)
    odds = p / (1 - p) * math.exp(draw.choice([-1, 1]) * draw.uniform(0.5, 1.0) * most)
    q = odds / (1 + odds)
    return {"P": [p, 1 - p], "Q": [q, 1 - q]}


def rare(draw: Draw, most: float) -> dict[str, Any]:
    """A rare outcome that speaks loudly, for one of the worlds only: its two directions differ."""
    q = draw.uniform(0.001, 0.004)
    p = q * math.exp(draw.uniform(0.8, 1.0) * most)
    both = {"P": [p, 1 - p], "Q": [q, 1 - q]}
    if draw.random() < 0.5:
        return {"P": both["Q"], "Q": both["P"]}
    return both


def three(draw: Draw, most: float) -> dict[str, Any]:
    """Three outcomes."""
    law = [draw.uniform(0.2, 0.4), draw.uniform(0.2, 0.4)]
    law.append(1 - sum(law))
    tilted = [p * math.exp(draw.uniform(-1, 1) * most / 2) for p in law]
    return {"P": law, "Q": [p / sum(tilted) for p in tilted]}


def some_rounds(draw: Draw) -> list[dict[str, Any]]:
    """Three kinds of rounds whose exact law has few enough outcomes to be counted."""
    return [
        coin(draw, 0.4) | {"times": draw.randint(15, 30)},
        rare(draw, 2.0) | {"times": draw.randint(15, 30)},
        three(draw, 0.6) | {"times": draw.randint(3, 9)},
    ]


def spinner(epsilon: float) -> dict[str, Any]:
    """Randomised response: it tells the truth with chance p, and lies otherwise."""
    p = 1 / (1 + math.exp(-epsilon))
    return {"P": [p, 1 - p], "Q": [1 - p, p]}


@check("epsilon_of", points=1)
def a_hundred_answers(call: Call, draw: Draw) -> None:
    """One answer of the spinner with ε = 0.1 costs 0.1; a hundred cost 3.1 at δ = 1e-3."""
    one = number(call("epsilon_of", [spinner(0.1) | {"times": 1}], 1e-9))
    assert 0.1 - ROUNDING <= one <= 0.122, f"one answer costs {one:.4f}"
    many = number(call("epsilon_of", [spinner(0.1) | {"times": 100}], 1e-3))
    assert 3.05 <= many <= 3.19, f"a hundred answers cost {many:.3f}"


@hidden("epsilon_of", points=1)
def never_too_low(call: Call, draw: Draw) -> None:
    """Somewhere your account is below the truth, or above twice the truth: look at both worlds."""
    for _ in range(4):
        rounds = some_rounds(draw)
        delta = 10 ** draw.uniform(-6, -3)
        found = number(call("epsilon_of", rounds, delta))
        want = exact(rounds, delta)
        assert want * (1 - ROUNDING) <= found <= 2 * want + 0.02, "not an account"


@hidden("epsilon_of", points=2)
def within_two_percent(call: Call, draw: Draw) -> None:
    """Your account is right, or nearly, but too far from the truth: how wide is a cell, and how
    often is it added?"""
    for _ in range(4):
        rounds = some_rounds(draw)
        delta = 10 ** draw.uniform(-6, -3)
        found = number(call("epsilon_of", rounds, delta))
        want = exact(rounds, delta)
        assert want * (1 - ROUNDING) <= found <= 1.02 * want + 0.02, "not within two percent"


@hidden("epsilon_of", points=1)
def what_never_comes(call: Call, draw: Draw) -> None:
    """An outcome that is impossible in one of the worlds betrays it: its mass is part of δ, and if
    there is more of it than δ, no finite ε holds."""
    leak = draw.uniform(1e-5, 2e-5)
    for world, other in (("P", "Q"), ("Q", "P")):
        kind = coin(draw, 0.4)
        kind[world] = [p * (1 - leak) for p in kind[world]] + [leak]
        kind[other] = [*kind[other], 0.0]
        rounds = [kind | {"times": draw.randint(10, 20)}]
        lost = 1 - (1 - leak) ** rounds[0]["times"]
        found = number(call("epsilon_of", rounds, 2 * lost))
        want = exact(rounds, 2 * lost)
        assert want * (1 - ROUNDING) <= found <= 1.02 * want + 0.02, "the mass is lost"
        hopeless = call("epsilon_of", rounds, lost / 2)
        assert number(hopeless, finite=False) == math.inf, "a finite ε was promised"


# No question here takes a thousandth of it.
MOST_NOISE = 1e6


def spent_by(past: list[list[float]], z: float, q: float, rounds: int, delta: float) -> float:
    """ε of what has run, [z, q, rounds] each, and of `rounds` more."""
    assert 0 < z <= MOST_NOISE, f"z = {z:g}: a noise multiplier is positive, and seldom above 100"
    events = [Event(zz, qq, "poisson", rounds=int(tt)) for zz, qq, tt in past]
    return epsilon_of([*events, Event(z, q, "poisson", rounds=rounds)], delta)


@check("needed_noise", points=1)
def a_new_run(call: Call, draw: Draw) -> None:
    """With this z the run costs more than its budget, or with two percent less it would not."""
    z = number(call("needed_noise", [], 2.0, 1e-5, 0.05, 100))
    spent = spent_by([], z, 0.05, 100, 1e-5)
    assert spent <= 2.0 * 1.001, f"z = {z:.4f} costs {spent:.4f}, and the budget is 2"
    less = spent_by([], 0.98 * z, 0.05, 100, 1e-5)
    assert less > 2.0, f"z = {0.98 * z:.4f} would do, too: it costs {less:.4f}"


@hidden("needed_noise", points=2)
def with_a_past(call: Call, draw: Draw) -> None:
    """What was spent counts, but ε's do not simply add up; and if the past alone is above the
    budget there is no z: None."""
    for _ in range(3):
        past = [[draw.uniform(0.8, 1.5), draw.uniform(0.01, 0.05), draw.randint(20, 200)]]
        rate, rounds, delta = draw.uniform(0.01, 0.1), draw.randint(20, 200), 1e-5
        already = epsilon_of([Event(past[0][0], past[0][1], "poisson", rounds=past[0][2])], delta)
        budget = already + draw.uniform(0.3, 1.5)
        z = number(call("needed_noise", past, budget, delta, rate, rounds))
        assert z > 0, "no noise"
        assert spent_by(past, z, rate, rounds, delta) <= budget * 1.001, "over the budget"
        assert spent_by(past, 0.98 * z, rate, rounds, delta) > budget, "too much noise"
        nothing = call("needed_noise", past, 0.9 * already, delta, rate, rounds)
        assert nothing is None, "there is nothing left to spend"


def audited(draw: Draw, wrong: bool) -> tuple[list[list[float]], dict[str, list[float]], Any]:
    """Six settings, what four accountants claim for them, and which claim is too low, or None."""
    settings = []
    for _ in range(4):
        rounds = draw.randint(50, 600)
        settings.append([draw.uniform(0.7, 1.5), draw.uniform(0.005, 0.05), rounds])
    for _ in range(2):
        rounds = draw.randint(50, 600)
        settings.append([math.sqrt(rounds) / draw.uniform(0.3, 2.0), 1.0, rounds])
    draw.shuffle(settings)
    truth = [spent_by([], *setting, 1e-5) for setting in settings]
    # Each is generous in its own way, as accountants by moments are, and so unevenly that the claim
    # that is too low cannot be told by looking at the others.
    habits = [0.1, 0.3, 0.4, 0.5]
    draw.shuffle(habits)
    claims = {}
    for name, most in zip("ABCD", habits, strict=True):
        claims[name] = [epsilon * (1 + draw.uniform(0, most)) for epsilon in truth]
    if not wrong:
        return settings, claims, None
    name, where = draw.choice("ABCD"), draw.randrange(6)
    # The assignment calls a claim wrong that is more than two percent below the truth.
    claims[name][where] = truth[where] * draw.uniform(0.90, 0.96)
    return settings, claims, [name, where]


PRACTICE = [[1.0, 0.02, 200], [20.0, 1.0, 100], [0.8, 0.01, 400]]
PRACTICE_CLAIMS = {
    "A": [1.86, 2.00, 2.23],
    "B": [2.21, 2.20, 2.95],
    "C": [1.97, 1.90, 2.35],
}


@check("find_wrong", points=1)
def three_accountants(call: Call, draw: Draw) -> None:
    """One of three practice claims is below the truth. Who is merely generous is not wrong."""
    found = call("find_wrong", PRACTICE, PRACTICE_CLAIMS, 1e-5)
    assert isinstance(found, list), f"give [name, index], not {found!r}"
    spent = spent_by([], *PRACTICE[1], 1e-5)
    assert found == ["C", 1], (
        f"you say {found!r}; z = 20 for 100 rounds of everyone costs {spent:.3f}"
    )
    sound = {name: PRACTICE_CLAIMS[name] for name in "AB"}
    nothing = call("find_wrong", PRACTICE, sound, 1e-5)
    assert nothing is None, f"A and B are sound, and you say {nothing!r}"


@hidden("find_wrong", points=3)
def four_accountants(call: Call, draw: Draw) -> Part | None:
    """Among other accountants you accuse the wrong one, or overlook one: compare with the truth
    and not with each other."""
    right_names = 0
    right_settings = 0
    rows = [True, True, False, True]
    draw.shuffle(rows)
    for wrong in rows:
        settings, claims, want = audited(draw, wrong)
        found = call("find_wrong", settings, claims, 1e-5)
        if want is None:
            assert found is None, "all were sound"
            continue
        assert isinstance(found, list), "[name, index] or None"
        assert len(found) == 2, "[name, index] or None"
        right_names += found[0] == want[0]
        right_settings += found == want
    assert right_names == 3, "the wrong one was not found"
    if right_settings < 3:
        return Part(0.5, "the accountant is the right one, and the setting is not")
    return None
