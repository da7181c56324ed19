"""The four searches of the accounting floor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fldp.accounting import search


@pytest.mark.parametrize("power", [0.1, 1.0, 9.0])
@pytest.mark.parametrize("high", [1e-3, 2.0, 1e6])
def test_a_falling_root_is_found_from_above(power, high):
    asked = []

    def f(x):
        asked.append(x)
        return math.log((1 + x) ** -power / 2.0**-power)

    x = search.falling_root(f, 0.0, high)
    assert 1 <= x <= 1 + 1e-9
    assert len(asked) <= 60


def test_a_falling_root_goes_to_the_last_digit_if_asked():
    x = search.falling_root(lambda v: 2 - v * v, 0.0, 1.0, digits=0.0)
    assert x * x >= 2 > np.nextafter(x, 0) ** 2


def test_a_falling_root_at_its_ends():
    assert search.falling_root(lambda x: -x, 0.0, 1.0) == 0.0
    assert search.falling_root(lambda x: 1.0, 0.0, 1.0) == math.inf
    # a function that falls to -inf has no line to go by
    x = search.falling_root(lambda x: 1.0 if x < 0.3 else -math.inf, 0.0, 1.0)
    assert 0.3 <= x <= 0.3 * (1 + 1e-11)


def test_ever_closer_points_end_at_the_least():
    points = np.geomspace(1e-3, 1e3, 13)
    assert search.zoomed(lambda x: int(np.argmin(abs(x - 7))), points, [20] * 8) == pytest.approx(7)
    assert search.least(lambda x: x + 49 / x, points, [20, 20]) == pytest.approx(14, rel=1e-4)
    # at an end it stays there
    assert search.zoomed(lambda x: int(np.argmax(x)), points, [20]) == pytest.approx(1e3)


def test_the_last_that_fits_is_found_whatever_the_curve():
    for last in (1, 2, 3, 17, 999, 123_456):
        for power in (0.4, 0.5, 1.0, 3.0):
            questions = []

            def curve(n, last=last, power=power, questions=questions):
                questions.append(n)
                return (n / (last + 0.5)) ** power

            assert search.last_that_fits(curve, 1.0, 40) == last
            assert len(questions) <= 60


def test_the_last_that_fits_may_jump_from_nothing_to_infinity():
    for low in (0.0, 0.5, 1.0):
        assert search.last_that_fits(lambda n, v=low: v if n <= 777 else math.inf, 1.0, 10) == 777
    assert search.last_that_fits(lambda n: n if n <= 777 else math.inf, 800.0, 10**6) == 777


def test_settling_says_when_the_limits_are_in_the_way():
    start = search.Start(0.0, limits=(0.1, 10.0))
    for target, words in ((1e-9, "cannot be reached"), (1e9, "almost no noise")):
        with pytest.raises(ValueError, match=words):
            search.settle(lambda x: math.exp(-x), target, start, 1e-3, final=True)
