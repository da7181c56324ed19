"""Integer noise: its account against exact lattice distributions, its sampler against its law."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

import fldp
from fldp.accounting import gaussian_delta, gaussian_epsilon, lattice_gdp, skellam_gdp
from fldp.accounting.lattice import skellam_logpmf
from fldp.mechanism import lattice as sampler
from fldp.mechanism.lattice import Lattice, Words, skellam, skellam_weights
from tests import lattice_pld as exact

KNOWN = json.loads((Path(__file__).parent / "data" / "lattice.json").read_text(encoding="utf-8"))
KEY = bytes(range(32))


# The account.


@pytest.mark.parametrize("known", KNOWN["skellam_m1"], ids=lambda known: f"{known['mu']:g}")
def test_m1_of_skellam_noise(known: dict[str, float]) -> None:
    found = skellam_gdp(known["mu"])
    # Above 10^6 it is a bound.
    assert known["m1"] * (1 - 1e-9) <= found <= known["m1"] * (1 + 2.1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("known", KNOWN["discrete_gaussian_m1"])
def test_m1_of_sums_of_discrete_gaussians(known: dict[str, Any]) -> None:
    n, parameter = known["shares"], known["parameter"]
    reach = int(40 * math.sqrt(n * parameter) + 60)
    one = exact.discrete_gaussian(parameter, min(reach, int(40 * math.sqrt(parameter)) + 10))
    logpmf = one if n == 1 else exact.summed(one, n, reach)
    logpmf = logpmf[logpmf > -650]
    assert lattice_gdp(logpmf) == pytest.approx(known["m1"], rel=1e-6)


@pytest.mark.parametrize("variance", [1e-6, 0.01, 3.0, 47.0, 1.5e3, 2.5e5])
def test_the_largest_increment_is_that_at_the_centre(variance: float) -> None:
    """Nothing rests on it: what is computed would find another one."""
    at_centre = 2 * math.sqrt(2) * float(special.erfinv(special.i0e(variance)))
    assert at_centre < skellam_gdp(variance) == pytest.approx(at_centre, rel=1.1e-9)


@pytest.mark.parametrize("variance", [3.0, 3.3, 5.0, 20.0, 1e3, 1e5])
def test_the_bound_for_wide_noise_holds_where_it_can_be_scanned(variance: float) -> None:
    """And so do both steps of its proof: second differences of log masses, and of normal bins."""
    logs = skellam_logpmf(variance, int(20 * math.sqrt(variance) + 60))
    bends = -np.diff(np.concatenate([logs, logs[-2::-1]]), 2)
    bound = 1 / variance + 9 / (4 * variance**2)
    assert bends.max() <= bound * (1 + 1e-7)
    width = math.sqrt(variance + 4) / variance
    assert width**2 - width**4 / 4 >= bound
    edges = np.linspace(-20.0, 0.0, 60)[:, None] + width * np.arange(-1, 3)
    upper, lower = special.log_ndtr(edges[:, 1:]), special.log_ndtr(edges[:, :-1])
    masses = upper + np.log(-np.expm1(lower - upper))
    least = -np.diff(masses, 2, axis=1).max()
    # Of the logarithms' round-off.
    assert least >= width**2 - width**4 / 4 - 1e-10
    assert skellam_gdp(variance) <= width


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1.1e6, 1e7, 2.7e8])
def test_beyond_what_is_scanned_a_scan_finds_no_more(variance: float) -> None:
    scanned = lattice_gdp(skellam_logpmf(variance, int(40 * math.sqrt(variance))))
    assert scanned <= skellam_gdp(variance) <= scanned * (1 + 2.1e-6)


def test_more_noise_never_costs_more() -> None:
    found = [skellam_gdp(variance) for variance in np.geomspace(1e-4, 1e9, 200).tolist()]
    # From a variance of 10^6 on it is a bound: it adds far less than the next step takes away.
    assert found == sorted(found, reverse=True)


def known_settings() -> list[Any]:
    """The 21 settings: name, log probabilities, shift, coordinates over all rounds, and values."""

    def skellam_law(known: dict[str, Any]) -> NDArray[np.float64]:
        return skellam_logpmf(known["mu"], int(14 * math.sqrt(known["mu"]) + 60))

    def gaussian_law(known: dict[str, Any]) -> NDArray[np.float64]:
        std = math.sqrt(known["n"] * known["s2"])
        one = exact.discrete_gaussian(known["s2"], int(30 * math.sqrt(known["s2"])) + 10)
        if known["n"] == 1:
            return one
        logpmf = exact.summed(one, known["n"], int(30 * std + 50))
        return logpmf[logpmf > -650]

    each = [
        (f"skellam {k['mu']:g} {k['shift']}^{k['coords']} x{k['rounds']}", skellam_law, k)
        for k in KNOWN["exact_skellam"]
    ]
    each += [
        (f"gaussians {k['n']}x{k['s2']:g} {k['shift']}^{k['coords']}", gaussian_law, k)
        for k in KNOWN["exact_discrete_gaussian"]
    ]
    return [pytest.param(law, known, id=name) for name, law, known in each]


@pytest.mark.slow
@pytest.mark.parametrize(("law", "known"), known_settings())
def test_gdp_is_never_below_the_exact_account(
    law: Callable[[dict[str, Any]], NDArray[np.float64]], known: dict[str, Any]
) -> None:
    logpmf = law(known)
    times = known["coords"] * known.get("rounds", 1)
    mu = lattice_gdp(logpmf) * known["shift"] * math.sqrt(times)
    std = math.sqrt(known["mu"] if "mu" in known else known["n"] * known["s2"])
    step = exact.step_for(mu, known["shift"], std)
    low, up = (
        exact.exact_epsilon(logpmf, known["shift"], times, 1e-5, step, upper=upper)
        for upper in (False, True)
    )
    assert low <= up
    assert known["exact_low"] - 2 * times * step <= low <= known["exact_up"]
    assert gaussian_epsilon(mu, 1e-5) >= low
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(known["gdp"], rel=1e-6)


@pytest.mark.parametrize("variance", [0.05, 0.3, 1.0, 7.0, 60.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
def test_one_coordinate_holds_at_every_epsilon_and_is_tight_for_one_step(
    variance: float, shift: int
) -> None:
    half = skellam_logpmf(variance, int(14 * math.sqrt(variance) + 60))
    full = exact.mirrored(half)
    present, absent = np.exp(full[:-shift]), np.exp(full[shift:])
    mu = shift * skellam_gdp(variance)
    epsilons = np.linspace(0, min(30.0, mu * mu / 2 + 6 * mu), 2000)
    found = [np.maximum(present - math.exp(e) * absent, 0).sum() for e in epsilons]
    allowed = [gaussian_delta(mu, float(e)) for e in epsilons]
    assert all(f <= a * (1 + 1e-9) + 1e-15 for f, a in zip(found, allowed, strict=True))
    if shift == 1:
        less = [gaussian_delta(0.99 * mu, float(e)) for e in epsilons]
        assert any(f > a for f, a in zip(found, less, strict=True))


@settings(max_examples=examples(60))
@given(st.lists(st.floats(0.02, 3.0), min_size=2, max_size=12), st.floats(0.05, 3.0))
def test_log_concave_laws_hold_at_every_test(steps: list[float], tail: float) -> None:
    """Any symmetric log-concave law, with a geometric tail: no threshold test does better."""
    falls = np.cumsum(np.sort(np.array(steps)))
    slope = max(tail, *steps)
    beyond = falls[-1] + slope * np.arange(1, 2 + int(120 / slope))
    logs = -np.concatenate([[0.0], falls, beyond])[::-1]
    logs -= math.log(2 * np.exp(logs).sum() - 1)
    mu = lattice_gdp(logs)
    law = exact.mirrored(np.exp(logs))
    # From below; P[X >= k] is P[X <= -k] of a symmetric law.
    below = np.cumsum(law)
    for shift in (1, 3):
        alphas = below[::-1][shift:]
        betas = np.concatenate([[0.0], below])[: len(alphas)]
        matters = (alphas > 1e-12) & (alphas < 1 - 1e-12)
        bounds = stats.norm.cdf(-stats.norm.ppf(alphas) - shift * mu)
        assert (betas >= bounds - 1e-12)[matters].all()


@pytest.mark.parametrize("known", KNOWN["published_epsilon"])
def test_epsilon_beside_the_published_account(known: dict[str, Any]) -> None:
    z = 1 / (known["sens"] * skellam_gdp(known["n"] * known["s2"]))
    sampling = "poisson" if known["q"] < 1 else "none"
    found = fldp.epsilon(
        noise_multiplier=z, delta=known["delta"], rounds=known["T"],
        sampling_rate=known["q"], sampling=sampling,
    )  # fmt: skip
    assert found == pytest.approx(known["skellam_gdp"], rel=1e-3)
    assert known["gaussian"] <= found < known["skellam_google"]
    if known["q"] < 1:
        assert found < 0.7 * known["skellam_google"]


def test_epsilon_at_16_bits_is_the_gaussians() -> None:
    from fldp.mechanism.grid import Terms, finest

    for d, m, z in ((650, 100, 1.0), (10_000, 1000, 0.5), (10**6, 100, 3.0)):
        grid = finest(Terms(z, d, uploads=m, shares=m, arriving=m), bits=16)
        assert grid is not None
        sensitivity = math.sqrt(grid.limit)
        ours = gaussian_epsilon(sensitivity * skellam_gdp(grid.variance), 1e-5)
        plain = gaussian_epsilon(sensitivity / math.sqrt(grid.variance), 1e-5)
        assert plain <= ours <= 1.002 * plain


@pytest.mark.parametrize(
    ("logpmf", "words"),
    [
        ([0.0], "no vector"),
        ([[-1.0, -0.5]], "no vector"),
        (np.log([0.1, 0.2]), r"sums to 0\.4"),
        ([math.nan, -0.3], "sums to"),
        (np.log([0.2, 0.1, 0.4]), "not log-concave"),
        (np.log([0.05, 0.4, 0.1]), "not log-concave"),
        # Steps of two: one step is seen with certainty.
        ([math.log(0.25), -math.inf, math.log(0.5)], "not log-concave"),
        ([math.log(0.25), math.nan, math.log(0.5)], "sums to nan"),
        ([-math.inf, *np.log([0.25, 0.5])], "begins with -1.386"),
    ],
)
def test_laws_that_the_theorem_is_not_about_are_refused(logpmf: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lattice_gdp(logpmf)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, "1", None])
def test_a_variance_is_a_positive_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="variance is"):
        skellam_gdp(bad)


# The sampler.


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(10), Fraction(1000, 3)])
def test_weights_are_the_law(variance: Fraction) -> None:
    weights = skellam_weights(variance)
    total = 2 * sum(weights) - weights[0]
    half = float(variance) / 2
    for k in (0, 1, 2, 5, 20):
        assert weights[k] / total == pytest.approx(stats.skellam.pmf(k, half, half), rel=1e-9)
    assert Fraction(weights[-1], total) < Fraction(1, 2**230)


@pytest.mark.parametrize("variance", [0.25, 10.0, 1000.0, 6.7e5])
def test_draws_follow_the_law(variance: float) -> None:
    count = 400_000
    drawn = Lattice(skellam_weights(Fraction(variance))).sample(count, Words(KEY))
    cuts = np.unique(np.round(np.linspace(-3, 3, 25) * math.sqrt(variance)))
    half = variance / 2
    below = stats.skellam.cdf(cuts, half, half)
    expected = np.diff(np.concatenate([[0.0], below, [1.0]])) * count
    edges = np.concatenate([[-np.inf], cuts + 0.5, [np.inf]])
    found = np.histogram(drawn, edges)[0]
    chi = ((found - expected) ** 2 / expected).sum()
    # One fixed key: a false alarm once in 10^5 keys.
    assert chi < stats.chi2.isf(1e-5, len(expected) - 1)
    assert (drawn == 0).sum() / count == pytest.approx(
        stats.skellam.pmf(0, half, half), abs=5 * math.sqrt(0.25 / count)
    )


def laws() -> dict[str, list[int]]:
    """Weights of tables with none, some and many values in a bucket of the guide."""
    return {
        "narrow": skellam_weights(Fraction(1, 4)),
        "usual": skellam_weights(Fraction(40_000)),
        "wide": [10**9 - k for k in range(100_000)],
    }


@pytest.mark.parametrize("name", ["narrow", "usual", "wide"])
def test_the_guide_finds_what_a_search_finds(name: str) -> None:
    law = Lattice(laws()[name])
    uniform = Words(KEY).take(50_000)
    low = uniform >> np.uint64(40)
    words = np.concatenate([uniform, low, ~low, law._leading[:-1] + np.uint64(1)])
    # What ties is settled by further digits, not found.
    words = words[~np.isin(words, law._leading)]
    assert (law._places(words, Words(KEY)) == np.searchsorted(law._leading, words)).all()


class Forced(Words):
    """A stream whose words and further digits a test chooses."""

    def __init__(self, words: list[int], digits: list[bytes]) -> None:
        self.left = list(words)
        self.more = list(digits)

    def take(self, count: int) -> NDArray[np.uint64]:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, dtype=np.uint64)

    def digits(self) -> bytes:
        return self.more.pop(0)


def test_ties_are_settled_by_further_digits() -> None:
    law = Lattice(skellam_weights(Fraction(4)))
    octets = 32
    for place in (0, 3, len(law._leading) // 2, len(law._leading) - 1):
        value = law._digits[octets * place : octets * (place + 1)]
        word = int.from_bytes(value[:8], "big")
        rest = int.from_bytes(value[8:], "big")
        below = (rest - 1).to_bytes(24, "big")
        same, above = value[8:], (rest + 1).to_bytes(24, "big")
        source = Forced([word] * 3, [below, same, above])
        drawn = law.sample(3, source) - law._lowest
        # At most the value of the distribution function is below it; from it on, the next.
        assert drawn.tolist() == [place, place + 1, place + 1]
        assert source.more == []


def test_a_tie_of_several_values_is_settled() -> None:
    """Two values with the same leading digits: the weight between them is below 2^-64."""
    law = Lattice([1 << 300, 1 << 100])
    assert law._leading[0] == 0
    first = int.from_bytes(law._digits[8:32], "big")
    tiny = Forced([0, 0], [(first - 1).to_bytes(24, "big"), first.to_bytes(24, "big")])
    assert law.sample(2, tiny).tolist() == [-1, 0]
    # The last word of all is above every value but the last one's tail.
    last = Forced([2**64 - 1] * 2, [bytes(24), b"\xff" * 24])
    assert law.sample(2, last).tolist() == [0, 1]


def test_a_coarse_comparison_settles_many_ties_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of four digits tie all the time, and the law is the same."""

    class Coarse(Words):
        def __init__(self, key: bytes) -> None:
            super().__init__(key)
            self.settled = 0

        def digits(self) -> bytes:
            self.settled += 1
            return super().digits()

    law = Lattice([3, 1])
    # All words equal the leading digits of one value: each draw is a tie.
    word = int(law._leading[0])
    source = Coarse(KEY)
    places = law._places(np.full(20_000, word, dtype=np.uint64), source)
    assert source.settled == 20_000
    rest = Fraction(int.from_bytes(law._digits[8:32], "big"), 1 << 192)
    # Five standard deviations: 6e-7.
    assert abs((places == 0).mean() - float(rest)) < 5 * math.sqrt(0.25 / 20_000)


def test_keys_make_streams_and_none_comes_again() -> None:
    assert (Words(KEY).take(9) == Words(KEY).take(9)).all()
    assert (Words().take(4) != Words().take(4)).any()
    generator = torch.Generator().manual_seed(1)
    first, second = Words.of(generator), Words.of(generator)
    assert (first.take(4) != second.take(4)).any()
    again = Words.of(torch.Generator().manual_seed(1))
    assert (again.take(4) == Words.of(torch.Generator().manual_seed(1)).take(4)).all()
    # Odd counts of half words, and a whole word after them.
    assert Words(KEY).short(3).tolist() == Words(KEY).take(2).view(np.uint32)[:3].tolist()


@pytest.mark.parametrize("shares", [0, 1, 6, 7])
def test_shares_add_up(shares: int) -> None:
    drawn = skellam(Fraction(7, 2), 200_000, Words(KEY), shares)
    variance = 3.5 * shares
    # Of 200,000 squares: five standard deviations.
    assert abs(drawn.var() - variance) <= 5 * math.sqrt((2 * variance**2 + variance) / 200_000)


def test_a_wide_law_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_WIDEST", 100)
    sampler._table.cache_clear()
    drawn = skellam(Fraction(950), 100_000, Words(KEY))
    assert sampler._table.cache_info().misses == 1
    assert abs(drawn.var() - 950) < 5 * math.sqrt(2 / 100_000) * 950
    sampler._table.cache_clear()
