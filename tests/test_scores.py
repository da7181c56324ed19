"""What scores and coins must be: refused where no bound could be made of them."""

from __future__ import annotations

import numpy as np
import pytest

from fldp.audit.scores import check_coins, check_levels, clean, curve_of, one_per_run, ranked


def test_scores_that_are_not_numbers_stand_above_all_others() -> None:
    nan, inf, minus, one = clean([np.nan, np.inf, -np.inf, 1.0], "scores").tolist()
    assert minus < one < inf == nan


def test_a_column_is_one_score_a_run_and_a_matrix_is_not() -> None:
    assert one_per_run(np.ones((5, 1)), "scores").shape == (5,)
    with pytest.raises(ValueError, match="from_trials"):
        one_per_run(np.ones((5, 2)), "scores")


def test_ranks_are_a_permutation_that_respects_the_order() -> None:
    scores = np.array([3.0, 1.0, 3.0, 2.0])
    ranks = ranked(scores, 0)
    assert sorted(ranks.tolist()) == [0, 1, 2, 3]
    assert ranks[1] == 0
    assert ranks[3] == 1


def test_a_curve_runs_from_corner_to_corner() -> None:
    curve = curve_of(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    assert curve[:, 0].tolist() == [0, 0]
    assert curve[:, -1].tolist() == [1, 1]
    assert (np.diff(curve) >= 0).all()


@pytest.mark.slow
def test_fair_coins_pass() -> None:
    # 2,000 sets of fair coins: each is refused with probability below 1e-6.
    rng = np.random.default_rng(0)
    for _ in range(1000):
        check_coins(rng.random((20, 10)) < 0.5, (20, 10))
        check_coins((rng.random(300) < 0.5).astype(int), (300,))


@pytest.mark.parametrize(
    "coins",
    [
        np.random.default_rng(0).random((1000, 10)) < 0.6,
        np.tile(np.arange(40) % 2 == 0, (50, 1)),  # the same canaries in every run
        np.repeat(np.arange(50) % 2 == 0, 40).reshape(50, 40),  # whole runs in or out
        np.repeat(np.random.default_rng(1).random((2, 60)) < 0.5, 2, axis=0),  # runs repeated
    ],
)
def test_coins_that_cannot_be_fair_are_refused(coins: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"coins"):
        check_coins(coins, coins.shape)


@pytest.mark.parametrize("values", [[-1, 1, 1, -1], [0.5, 1, 0, 0], ["a", "b", "c", "d"], [2] * 4])
def test_only_zero_and_one_are_coins(values: list[object]) -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        check_coins(values, (4,))


def test_levels_are_probabilities() -> None:
    check_levels(0.0, 0.95)
    for delta, confidence in ((-0.5, 0.9), (1.0, 0.9), (0.1, 95), (0.1, 0.0), (True, 0.9)):
        with pytest.raises(ValueError, match=r"delta|confidence"):
            check_levels(delta, confidence)
    with pytest.raises(ValueError, match="no finite ε"):
        check_levels(0.0, 0.95, gaussian=True)
