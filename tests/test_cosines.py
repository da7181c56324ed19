"""An estimate from one training: right for Gaussians, never called a bound."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fldp.accounting import gaussian_epsilon
from fldp.audit.cosines import one_shot, two_gaussians_epsilon

DELTA = 1e-5


def test_equal_variances_reproduce_the_gaussian_mechanism() -> None:
    for mu in (0.01, 0.3, 1.0, 3.0, 30.0):
        assert two_gaussians_epsilon(mu, 1.0, 1.0, DELTA) == pytest.approx(
            gaussian_epsilon(mu, DELTA), rel=1e-7
        )


@pytest.mark.parametrize(("mean", "std"), [(1.0, 1.2), (1.0, 0.8), (0.0, 1.5), (-2.0, 0.9)])
def test_unequal_variances_agree_with_an_integral(mean: float, std: float) -> None:
    epsilon = two_gaussians_epsilon(mean, std, 1.0, 1e-3)
    present, absent = norm(mean, std), norm(0, 1)

    def delta(p: object, q: object) -> float:
        def gain(x: float) -> float:
            return max(0.0, float(p.pdf(x) - np.exp(epsilon) * q.pdf(x)))  # type: ignore[attr-defined]

        return quad(gain, -15, 15, limit=500, points=[-5, -2, 0, 2, 5])[0]

    assert max(delta(present, absent), delta(absent, present)) == pytest.approx(1e-3, rel=1e-3)


def test_it_is_scale_free_and_answers_for_means_of_any_size() -> None:
    assert two_gaussians_epsilon(2e-5, 1e-5, 1e-5, DELTA) == pytest.approx(
        two_gaussians_epsilon(2.0, 1.0, 1.0, DELTA), rel=1e-9
    )
    assert two_gaussians_epsilon(200.0, 1.0, 1.0, DELTA) == pytest.approx(
        gaussian_epsilon(200.0, DELTA), rel=1e-7
    )
    assert two_gaussians_epsilon(1e-9, 1.0, 1.0, DELTA) == 0


def test_an_estimate_is_never_called_a_bound() -> None:
    rng, size = np.random.default_rng(5), 10_000
    cosines = 0.03 + rng.normal(0, size**-0.5, 200)
    found = one_shot(cosines, size, delta=DELTA, claimed=0.1)
    assert found.lower_bound is None
    assert not found.violated
    assert "not a bound" in found.statement()
    assert found.estimate == pytest.approx(gaussian_epsilon(3.0, DELTA), rel=0.15)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["confidence"] is None


@pytest.mark.slow
def test_the_interval_contains_the_truth_as_often_as_it_says() -> None:
    # Nominal 95 %, on the safe side: 1,000 draws may miss 72 times with probability 0.1 %.
    rng, truth, missed = np.random.default_rng(6), gaussian_epsilon(1.0, DELTA), 0
    for _ in range(200):
        found = one_shot(rng.normal(0.01, 0.01, 60), 10_000, delta=DELTA)
        assert found.interval is not None
        missed += not found.interval[0] <= truth <= found.interval[1]
    assert missed <= 21


def test_bad_input_is_refused() -> None:
    for match, call in (
        ("equal", lambda: one_shot([0.1] * 5, 100, delta=DELTA)),
        ("orthogonal", lambda: one_shot(np.linspace(0, 1, 20), 10, delta=DELTA)),
        ("dimension", lambda: one_shot(np.linspace(0, 1, 20), 10.5, delta=DELTA)),
        ("delta", lambda: one_shot(np.linspace(0, 1, 20), 100, delta=0.0)),
        ("std", lambda: two_gaussians_epsilon(1.0, 0.0, 1.0, DELTA)),
        ("mean", lambda: two_gaussians_epsilon(float("nan"), 1.0, 1.0, DELTA)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
