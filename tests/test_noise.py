"""The noise sources. Each check on unseeded noise raises a false alarm with probability < 1e-6."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fldp
from fldp.mechanism import discrete, noise
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.noise import Gaussian, as_noise, gaussian_
from fldp.mechanism.reference import laplace_

N = 400_000
# Two-sided normal quantile of 1e-6, and the Kolmogorov quantile of 1e-6.
Z, KOLMOGOROV = 4.892, 2.694
GRID = 2.0**34

SOURCES: dict[str, Callable[[], Tensor]] = {
    "crypto-float32": lambda: gaussian_(torch.zeros(N), 1.0).double(),
    "crypto-float64": lambda: gaussian_(torch.zeros(N, dtype=torch.float64), 1.0),
    "crypto-strided": lambda: gaussian_(torch.zeros(2, N // 2).t(), 1.0).double().flatten(),
    "crypto-scaled": lambda: gaussian_(torch.zeros(N), 7.5).double() / 7.5,
    "torch-generator": lambda: gaussian_(
        torch.zeros(N), 1.0, torch.Generator().manual_seed(3)
    ).double(),
    "discrete": lambda: discrete.discrete_gaussian(N).double() / GRID,
    "discrete-generator": lambda: (
        discrete.discrete_gaussian(N, torch.Generator().manual_seed(4)).double() / GRID
    ),
}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def sample(request: pytest.FixtureRequest) -> Tensor:
    return SOURCES[request.param]()


def test_mean(sample: Tensor) -> None:
    assert abs(float(sample.mean())) < Z / math.sqrt(N)


def test_variance(sample: Tensor) -> None:
    assert abs(float(sample.var()) - 1) < Z * math.sqrt(2 / N)


def test_skewness_and_kurtosis(sample: Tensor) -> None:
    unit = (sample - sample.mean()) / sample.std()
    assert abs(float((unit**3).mean())) < Z * math.sqrt(6 / N)
    # The kurtosis has a heavier tail than the normal: twice the quantile.
    assert abs(float((unit**4).mean()) - 3) < 2 * Z * math.sqrt(24 / N)


def test_distribution(sample: Tensor) -> None:
    grid = torch.arange(1, N + 1, dtype=torch.float64) / N
    truth = torch.special.ndtr(sample.sort().values)
    distance = torch.maximum((grid - truth).abs(), (grid - 1 / N - truth).abs()).max()
    assert float(distance) * math.sqrt(N) < KOLMOGOROV


def test_tail_beyond_four(sample: Tensor) -> None:
    expected = N * 6.334e-5
    found = int((sample.abs() > 4).sum())
    # A Poisson count of mean 25.3 leaves [4, 58] with probability below 1e-6.
    assert 25 < expected < 26
    assert 4 <= found <= 58


@pytest.mark.parametrize("lag", [1, 2, noise._HALF, 2 * noise._HALF])
def test_independence_across_coordinates(sample: Tensor, lag: int) -> None:
    a, b = sample[:-lag], sample[lag:]
    assert abs(float((a * b).mean())) < 1.05 * Z / math.sqrt(N - lag)
    squares = (a.square() - 1) * (b.square() - 1)
    # Products of two chi-squares are heavy-tailed: twice the quantile of their normal limit.
    assert abs(float(squares.mean())) < 2 * Z * 2 / math.sqrt(N - lag)


@pytest.mark.parametrize("name", ["crypto-float32", "crypto-float64", "discrete"])
def test_independence_across_releases(name: str) -> None:
    torch.manual_seed(0)
    first = SOURCES[name]()
    torch.manual_seed(0)
    second = SOURCES[name]()
    assert not torch.equal(first, second)
    assert abs(float((first * second).mean())) < 1.05 * Z / math.sqrt(N)


def test_laplace_moments_and_distribution() -> None:
    x = laplace_(torch.zeros(N, dtype=torch.float64), 2.0)
    assert abs(float(x.mean())) < Z * math.sqrt(8 / N)
    assert abs(float((x / 2).abs().mean()) - 1) < Z / math.sqrt(N)
    truth = torch.where(x < 0, 0.5 * torch.exp(x / 2), 1 - 0.5 * torch.exp(-x / 2)).sort().values
    grid = torch.arange(1, N + 1, dtype=torch.float64) / N
    assert float((grid - truth).abs().max()) * math.sqrt(N) < KOLMOGOROV


def test_a_generator_makes_noise_reproducible() -> None:
    a, b = (gaussian_(torch.zeros(50), 1.0, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b)


def test_noise_is_added_in_place_to_what_is_there() -> None:
    x = torch.full((40_001,), 100.0)
    assert gaussian_(x, 0.01) is x
    assert abs(float(x.mean()) - 100) < 0.01
    assert gaussian_(torch.zeros(0), 1.0).numel() == 0
    assert torch.equal(gaussian_(torch.ones(3), 0.0), torch.ones(3))
    for dtype in (torch.float16, torch.bfloat16):
        assert gaussian_(torch.zeros(999, dtype=dtype), 1.0).dtype == dtype
    assert gaussian_(torch.zeros(()), 1.0).shape == ()


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_impossible_scales_are_refused(std: float) -> None:
    with pytest.raises(ValueError, match=r"std is .*give a number"):
        gaussian_(torch.zeros(2), std)


EXTREMES = [
    (torch.float32, 1e-23), (torch.float32, 2e19), (torch.float32, 1e-36), (torch.float32, 1e35),
    (torch.float64, 1e-300), (torch.float64, 1e300), (torch.float64, 1e-23),
    (torch.float16, 0.002), (torch.float16, 60.0), (torch.bfloat16, 1e-30), (torch.bfloat16, 1e30),
]  # fmt: skip


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize(("dtype", "std"), EXTREMES)
def test_p11_extreme_noise_is_there_in_full(dtype: torch.dtype, std: float, seeded: bool) -> None:
    """std² used to stand under a float32 root: zero below 1e-23, NaN above 2e19."""
    generator = torch.Generator().manual_seed(1) if seeded else None
    unit = gaussian_(torch.zeros(20_000, dtype=dtype), std, generator).double() / std
    assert bool(torch.isfinite(unit).all())
    # Half precision rounds a normal variable to 8 or 11 bits, which moves this by less than .002.
    assert abs(float(unit.std()) - 1) < Z / math.sqrt(2 * 20_000) + 0.002
    assert int((unit == 0).sum()) <= 20


@pytest.mark.parametrize(
    ("dtype", "std"),
    [(torch.float32, 1e-38), (torch.float32, 1e36), (torch.float64, 1e-307),
     (torch.float64, 1e306), (torch.float16, 1e-4), (torch.float16, 100.0),
     (torch.bfloat16, 1e-38), (torch.bfloat16, 1e36)],
)  # fmt: skip
def test_p11_noise_that_would_vanish_or_overflow_is_refused(dtype: torch.dtype, std: float) -> None:
    with pytest.raises(ValueError, match=r"cannot be added in torch.*rescale the updates"):
        gaussian_(torch.zeros(3, dtype=dtype), std)


def test_half_precision_is_noised_in_float32_and_rounded_afterwards() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        value = torch.full((1000,), 8.0, dtype=dtype)
        fine = gaussian_(value.float(), 0.01, torch.Generator().manual_seed(2))
        noised = gaussian_(value.clone(), 0.01, torch.Generator().manual_seed(2))
        assert torch.equal(noised, fine.to(dtype))


def test_p08_threads_never_share_noise() -> None:
    """A keystream belongs to one call, so calls at the same time differ in every block."""
    draws: list[Tensor] = []

    def draw() -> None:
        for _ in range(20):
            draws.append(gaussian_(torch.zeros(3 * noise.BLOCK), 1.0))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(draws) == 80
    firsts = {float(d[k * noise.BLOCK]) for d in draws for k in range(3)}
    assert len(firsts) == 240
    for each in draws:
        assert abs(float(each.std()) - 1) < Z / math.sqrt(2 * each.numel())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_does_not_repeat_noise() -> None:
    code = """if True:
        import os, torch
        from fldp.mechanism.discrete import discrete_gaussian
        from fldp.mechanism.noise import gaussian_
        gaussian_(torch.zeros(5), 1.0)
        child = os.fork()
        drawn = [*gaussian_(torch.zeros(4), 1.0).tolist(), *discrete_gaussian(4).tolist()]
        os.write(1, (" ".join(map(str, drawn)) + "\\n").encode())
        child and os.waitpid(child, 0)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parent, child = (set(line.split()) for line in run.stdout.splitlines())
    assert len(parent) == len(child) == 8
    assert not parent & child


@pytest.mark.slow
def test_p13_an_adaptive_clips_bits_get_noise_of_the_mechanisms_own_kind() -> None:
    count, std = 400, 2.5
    values = [DiscreteGaussian().count(-6, std) for _ in range(count)]
    draws = torch.tensor(values, dtype=torch.float64)
    assert abs(float(draws.mean()) + 3) < Z * std / math.sqrt(count)
    assert abs(float(draws.std()) - std) < Z * std / math.sqrt(2 * count)
    steps = draws * (GRID / std)
    assert torch.allclose(steps, steps.round(), rtol=0, atol=1e-3)
    # A half is rounded towards zero, so a bit never moves the count by more than its half.
    four, five = (
        DiscreteGaussian(torch.Generator().manual_seed(3)).count(bits, 0.7) for bits in (4, 5)
    )
    assert 0.5 - 1e-9 <= five - four <= 0.5
    four, five = (Gaussian(torch.Generator().manual_seed(3)).count(b, 0.7) for b in (4, 5))
    assert five - four == pytest.approx(0.5)


def test_integer_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        gaussian_(torch.zeros(2, dtype=torch.int64), 1.0)


def test_the_radius_keeps_its_tail_beyond_31_bits() -> None:
    words = torch.zeros(2 * noise._HALF, dtype=torch.int32)
    radius, _ = noise._polar(words, 1000, torch.float64)
    # With 31 bits alone every one of these would be the same number, 6.66.
    assert float(radius.min()) > math.sqrt(2 * 31 * math.log(2)) - 1e-6
    # One of a thousand exceeds 6.8 but with probability 1e-94.
    assert float(radius.max()) > 6.8
    assert radius.unique().numel() > 990


def test_every_call_takes_a_fresh_key(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = noise.os.urandom

    def urandom(size: int) -> bytes:
        drawn.append(size)
        return real(size)

    monkeypatch.setattr(noise.os, "urandom", urandom)
    gaussian_(torch.zeros(10), 1.0)
    gaussian_(torch.zeros(10), 1.0)
    assert drawn[:2] == [32, 16]
    assert drawn.count(32) == 2


def test_noise_states_its_events() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=100, clients=1000, cohort=100)
    for noise_of_a_run in (Gaussian(), DiscreteGaussian()):
        assert noise_of_a_run.events(plan, 7, 10**6) == plan.events(7)
        assert noise_of_a_run.events(plan, 0, 10**6) == []
    everyone = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=100, clients=1000)
    local = dataclasses.replace(everyone, trust="local", adjacency="zero-out")
    with pytest.raises(ValueError, match="central trust"):
        DiscreteGaussian().events(local)
    loose = dataclasses.replace(plan, delta=1e-12, rounds=10**5, target_epsilon=30.0)
    with pytest.raises(ValueError, match="approximation term"):
        DiscreteGaussian().events(loose, 1, 10**6)
    with pytest.raises(ValueError, match="overflow"):
        DiscreteGaussian().events(dataclasses.replace(everyone, noise_multiplier=1e-6))
    exact = dataclasses.replace(everyone, delta=1e-300, accountant="rdp")
    assert DiscreteGaussian().events(exact, 1, 10**6) == exact.events(1)


def test_noise_that_repeats_goes_on_where_it_was() -> None:
    for kind in (Gaussian, DiscreteGaussian):
        first = kind(torch.Generator().manual_seed(3))
        assert first.reproducible
        first.count(0, 1.0)
        state = first.state_dict()
        expected = [first.count(0, 1.0) for _ in range(3)]
        other = kind(torch.Generator().manual_seed(77))
        other.load_state_dict(state)
        assert [other.count(0, 1.0) for _ in range(3)] == expected
        secret = kind()
        assert not secret.reproducible
        assert secret.state_dict() == {}
        secret.load_state_dict(state)
        assert secret.count(0, 1.0) != expected[0]


def test_noise_and_generator_together_are_refused() -> None:
    generator = torch.Generator()
    assert as_noise(None, generator).generator is generator
    with pytest.raises(ValueError, match="noise and generator are both given"):
        as_noise(Gaussian(), generator)
    for wrong in ("gaussian", DiscreteGaussian):
        with pytest.raises(ValueError, match="give Gaussian"):
            as_noise(wrong, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="generator is 0"):
        Gaussian(0)  # type: ignore[arg-type]
