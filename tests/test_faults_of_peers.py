"""Faults found in other systems, each as a check that `fldp` passes and a planted copy fails.

A check is a function of a system; the planted system reproduces the fault in a few lines.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_for
from torch import Tensor

from fldp.mechanism import noise
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.aggregation import PrivateAggregator, aggregate
from fldp.mechanism.clipping import FlatClip, clip
from fldp.plan import PrivacyPlan, calibrate

C, Z, M = 1.0, 1.0, 10


def fails(check: Callable[..., None], planted: Any) -> None:
    with pytest.raises(AssertionError):
        check(planted)


def joint(update: Sequence[Any]) -> float:
    return math.sqrt(sum(float((torch.as_tensor(t).double() ** 2).sum()) for t in update))


# Clipping one update: a system is a function from a list of tensors to the clipped list.


def our_clip(update: list[Tensor]) -> list[Tensor]:
    return clip(update, C)[0]


def check_contribution_is_bounded(system: Callable, update: list[Tensor]) -> None:
    clipped = system(copy.deepcopy(update))
    assert joint(clipped) <= C


def test_f7_nan_does_not_disable_clipping() -> None:
    def flower(update: list[Tensor]) -> list[Tensor]:
        norm = np.sqrt(sum(np.linalg.norm(t) ** 2 for t in update))
        return [t * min(1.0, C / norm) for t in update]

    for bad in (math.nan, math.inf):
        update = [torch.tensor([1e6, 1.0]), torch.tensor([bad])]

        def check(system: Callable, update: list[Tensor] = update) -> None:
            check_contribution_is_bounded(system, update)

        check(our_clip)
        fails(check, flower)


def test_p3_pfl_nan_update_is_not_let_through() -> None:
    def pfl(update: list[Tensor]) -> list[Tensor]:
        norm = joint(update)
        clipped = int(norm > C)
        return [t * C / norm for t in update] if clipped else update

    def check(system: Callable) -> None:
        check_contribution_is_bounded(system, [torch.tensor([1e6, math.nan])])

    check(our_clip)
    fails(check, pfl)


def test_f8_a_zero_norm_update_does_not_abort_the_round() -> None:
    def flower(update: list[Tensor]) -> list[Tensor]:
        return [t * min(1, C / joint(update)) for t in update]

    def check(system: Callable) -> None:
        try:
            clipped = system([torch.zeros(3), torch.zeros(())])
        except ZeroDivisionError as error:
            raise AssertionError("the round was aborted") from error
        assert joint(clipped) == 0

    check(our_clip)
    fails(check, flower)


def test_f9_zero_dimensional_and_integer_tensors_are_clipped() -> None:
    def flower(update: list[Tensor]) -> list[Any]:
        arrays: list[Any] = [np.subtract(t.numpy(), 0) for t in update]
        factor = min(1.0, C / joint(arrays))
        for array in arrays:
            array *= factor  # rebinds a numpy scalar, so the list keeps the old value
        return arrays

    def check(system: Callable) -> None:
        check_contribution_is_bounded(system, [torch.tensor(5.0)])
        try:
            check_contribution_is_bounded(system, [torch.tensor([3, 4])])
        except TypeError as error:
            raise AssertionError("an integer tensor crashed the round") from error

    check(our_clip)
    fails(check, flower)


def test_f10_the_norm_is_joint_over_all_tensors() -> None:
    def each(update: list[Tensor]) -> list[Tensor]:
        return [t * min(1.0, C / float(t.norm())) for t in update]

    def check(system: Callable) -> None:
        check_contribution_is_bounded(system, [torch.ones(5), torch.ones(7), torch.ones(9)])

    check(our_clip)
    fails(check, each)


def test_f14_the_clip_check_can_fail() -> None:
    update = [torch.ones(5) * 10]
    with pytest.raises(AssertionError):
        check_contribution_is_bounded(lambda u: u, update)
    # The planted test compares with the original norm: doing nothing at all passes it.
    assert all(float(t.max()) <= joint(update) for t in update)


# A round: a system maps (updates, sizes) to (noiseless mean, noise std on the mean).


def our_round(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
    release = aggregate(
        updates, plan_for(), C, weights=sizes, weight_cap=100.0, like=torch.zeros(4),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    empty = aggregate(
        [], plan_for(), C, weight_cap=100.0, like=torch.zeros(4),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    return release.mean - empty.mean, release.noise_std


def check_noise_covers_one_client(system: Callable) -> None:
    """The noise is at least z times what the largest client moves, for any replies."""
    e = torch.eye(4)
    for replies, big in ((10, 991.0), (10, 1.0), (2, 1.0), (2, 991.0)):
        updates = [e[i % 3] * 0.9 for i in range(replies - 1)] + [e[3] * 50]
        sizes = [1.0] * (replies - 1) + [big]
        whole, std = system(updates, sizes)
        fewer, _ = system(updates[:-1], sizes[:-1])
        assert std >= Z * float((whole - fewer).norm()) * (1 - 1e-5)


def clipped_stack(updates: list[Tensor]) -> Tensor:
    return torch.stack([clip(u, C)[0] for u in updates]) if updates else torch.zeros(0, 4)


def test_f4_weights_enter_the_sensitivity() -> None:
    def flower(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        w = torch.tensor(sizes)
        return (w[:, None] * clipped_stack(updates)).sum(0) / w.sum().clamp(min=1), Z * C / M

    check_noise_covers_one_client(our_round)
    fails(check_noise_covers_one_client, flower)


def test_f5_missing_clients_do_not_weaken_the_noise() -> None:
    def flower(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        return clipped_stack(updates).sum(0) / max(1, len(updates)), Z * C / M

    check_noise_covers_one_client(our_round)
    fails(check_noise_covers_one_client, flower)


def test_fl4health_the_largest_weight_of_the_sample_does_not_set_the_noise() -> None:
    def fl4health(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        w = torch.tensor(sizes) / 1000
        mean = (w[:, None] * clipped_stack(updates)).sum(0) / max(1, len(updates))
        return mean, Z * C * float(w.max()) / max(1, len(updates)) if len(w) else 0.0

    def check(system: Callable) -> None:
        e = torch.eye(4)
        _, alone = system([e[0]], [1.0])
        _, joined = system([e[0], e[1]], [1.0, 900.0])
        assert alone == joined, "the noise itself tells who took part"

    check(our_round)
    fails(check, fl4health)


def test_dynamicpfl_noise_is_not_divided_by_the_root_of_the_clients() -> None:
    def dynamic(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        return clipped_stack(updates).sum(0) / M, Z * C / math.sqrt(M * 10) / M

    check_noise_covers_one_client(our_round)
    fails(check_noise_covers_one_client, dynamic)


def test_nvflare_a_percentile_clip_without_noise_is_no_release() -> None:
    def percentile(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        return clipped_stack(updates).sum(0) / M, 0.0

    fails(check_noise_covers_one_client, percentile)
    with pytest.raises(ValueError, match="noise_multiplier"):
        plan_for(noise_multiplier=0.0)


def test_f6_noise_comes_before_the_server_optimiser() -> None:
    """What noise is added to must move by at most std/z: an optimiser's output does not."""

    def fedadam(updates: list[Tensor], sizes: list[float]) -> tuple[Tensor, float]:
        mean = clipped_stack(updates).sum(0) / M
        step = 0.1 * mean / (mean.square().sqrt() + 1e-9)
        return step, Z * C * 0.1 / M

    check_noise_covers_one_client(our_round)
    fails(check_noise_covers_one_client, fedadam)


# Adaptive clipping: a system holds `norm`, and `step(norms)` runs one round.


class Ours:
    def __init__(self, initial: float) -> None:
        self.clip = AdaptiveClip(initial, count_noise=2.0)
        self.plan = plan_for(50)

    @property
    def norm(self) -> float:
        return self.clip.norm

    def step(self, norms: Tensor) -> tuple[float, float]:
        """(norm that clipped, noise std on the sum)"""
        release = aggregate(norms[:, None], self.plan, self.clip)
        return release.clip_norm, release.noise_std * release.denominator


class Planted:
    """Flower's and FL4Health's order and sign, selectable one by one."""

    def __init__(self, initial: float, *, inverted: bool, late: bool, rate: float = 0.2) -> None:
        self.norm, self.inverted, self.late, self.rate = initial, inverted, late, rate

    def step(self, norms: Tensor) -> tuple[float, float]:
        used = self.norm
        bits = (norms > used) if self.inverted else (norms <= used)
        self.norm = used * math.exp(-self.rate * (float(bits.double().mean()) - 0.5))
        return used, Z * (self.norm if self.late else used)


def check_converges(make: Callable[[float], Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    for start in (0.1, 0.9, 1.1, 10.0):
        system = make(start)
        for _ in range(60):
            system.step(1.0 + 0.05 * torch.randn(50, generator=generator))
        assert 0.7 < system.norm < 1.4


def test_f1_adaptive_clipping_moves_towards_the_quantile() -> None:
    check_converges(Ours)
    fails(check_converges, lambda start: Planted(start, inverted=True, late=False))


def check_noise_matches_the_norm_that_clipped(make: Callable[[float], Any]) -> None:
    for start in (0.1, 10.0):
        system = make(start)
        for _ in range(3):
            used, std = system.step(torch.ones(50))
            assert std >= Z * used * (1 - 1e-9)


@pytest.mark.parametrize("rate", [0.2, 1.0], ids=["flower", "fl4health"])
def test_f2_noise_uses_the_norm_that_clipped(rate: float) -> None:
    check_noise_matches_the_norm_that_clipped(Ours)
    fails(
        check_noise_matches_the_norm_that_clipped,
        lambda start: Planted(start, inverted=False, late=True, rate=rate),
    )


def our_bits(norms: list[float]) -> float:
    aggregator = PrivateAggregator(torch.zeros(1), plan_for(), AdaptiveClip(1.0, count_noise=2.0))
    for norm in norms:
        aggregator.add(torch.tensor([norm]))
    aggregator._flush()
    return aggregator._server._diagnostics()[1] / 2


def check_bits_have_the_sensitivity_of_the_split(bits: Callable[[list[float]], float]) -> None:
    """z^-2 = z_Δ^-2 + (2 σ_b)^-2 presumes that one client moves the count by at most 1/2."""
    for extra in (0.1, 5.0, math.nan):
        assert abs(bits([0.5, 2.0, extra]) - bits([0.5, 2.0])) <= 0.5
        assert abs(bits([0.5, extra]) - bits([0.5, 0.0])) <= 1.0


def test_f3_the_bits_are_half_shifted() -> None:
    check_bits_have_the_sensitivity_of_the_split(our_bits)
    fails(
        check_bits_have_the_sensitivity_of_the_split,
        lambda norms: float(sum(n <= 1.0 for n in norms)),
    )


def test_opacus_adaclip_does_not_divide_by_the_realised_sample() -> None:
    def ours(count: int) -> float:
        each = AdaptiveClip(1.0, count_noise=2.0, acceleration=1.0)
        plan = plan_for(100, cohort=50, sampling="poisson")
        release = aggregate(
            torch.full((count, 3), 0.01), plan, each, generator=torch.Generator().manual_seed(4)
        )
        assert release.unclipped is not None
        return release.unclipped

    def opacus(count: int) -> float:
        return (count + 0.3) / count

    def check(fraction: Callable[[int], float]) -> None:
        # With a public denominator m one further unclipped client adds exactly 1/(2m).
        assert fraction(21) - fraction(20) == pytest.approx(0.5 / 50, abs=1e-6)

    check(ours)
    fails(check, opacus)


def test_opacus_757_a_split_without_room_is_refused_and_not_complex() -> None:
    def check(split: Callable[[float, float], Any]) -> None:
        try:
            result = split(3.0, 1.0)
        except ValueError:
            return
        raise AssertionError(f"accepted: {result}")

    check(lambda z, s: AdaptiveClip(count_noise=s).noise_split(z))
    fails(check, lambda z, s: (complex(z**-2 - (2 * s) ** -2) ** -0.5, s))


def test_f11_the_sensitivity_is_not_a_free_parameter() -> None:
    def ours(clip_norm: float, **options: Any) -> float:
        plan = calibrate(epsilon=10.0, delta=1e-5, rounds=1, clients=M, trust="local",
                         adjacency="zero-out")  # fmt: skip
        release = aggregate(torch.zeros(1, 3), plan, clip_norm, **options)
        return release.noise_std * release.denominator / clip_norm

    def flower(clip_norm: float, sensitivity: float = 1e-4) -> float:
        return sensitivity * math.sqrt(2 * math.log(1.25 / 1e-5)) / 10.0 / clip_norm

    def check(multiplier: Callable[..., float]) -> None:
        # (10, 1e-5) in one round needs z = 0.49 at sensitivity C.
        assert multiplier(1.0) == pytest.approx(multiplier(7.0))
        assert multiplier(1.0) > 0.45

    check(ours)
    fails(check, flower)
    with pytest.raises(TypeError, match="sensitivity"):
        ours(1.0, sensitivity=1e-4)
    assert "sensitivity" not in inspect.signature(PrivateAggregator).parameters


def check_public_facts_ignore_the_data(public: Callable[[Tensor], dict[str, Any]]) -> None:
    """Everything released beside the noisy mean is the same for any two cohorts."""
    reference = public(torch.zeros(10, 4))
    spoiled = torch.ones(10, 4) * 100
    spoiled[3, 1] = math.nan
    for cohort in (torch.ones(10, 4) * 100, torch.ones(3, 4), spoiled):
        assert public(cohort) == reference


def our_public(updates: Tensor) -> dict[str, Any]:
    release = aggregate(updates, plan_for(), C)
    return {k: v for k, v in vars(release).items() if k not in ("mean", "private")}


def test_f12_metrics_are_not_released_without_noise() -> None:
    check_public_facts_ignore_the_data(our_public)
    fails(check_public_facts_ignore_the_data, lambda u: {"loss": float(u.nan_to_num().mean())})


def test_tff_zeroing_thresholds_are_not_functions_of_raw_norms() -> None:
    check_public_facts_ignore_the_data(our_public)
    fails(
        check_public_facts_ignore_the_data,
        lambda u: {"zeroing_norm": float(u.nan_to_num().norm(dim=1).quantile(0.98))},
    )


def check_noise_cannot_be_replayed(draw: Callable[[], Tensor]) -> None:
    """With every public generator reset to a known state, two releases still differ."""
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        draws.append(draw())
    assert not torch.equal(*draws)


def our_noise() -> Tensor:
    return aggregate(torch.zeros(3, 50), plan_for(3), C).mean


def test_f13_noise_has_no_32_bit_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_noise_cannot_be_replayed(our_noise)
    seed = int.from_bytes(b"long secret seed", "big") & 0xFFFFFFFF
    fails(
        check_noise_cannot_be_replayed,
        lambda: torch.from_numpy(np.random.RandomState(seed).randn(50)),
    )
    keys: list[bytes] = []
    monkeypatch.setattr(noise.os, "urandom", lambda n: keys.append(b"k" * n) or b"k" * n)
    our_noise()
    assert max(map(len, keys)) == 32


def test_p6_seeds_are_not_drawn_from_the_global_generator() -> None:
    def pfl() -> Tensor:
        seed = np.random.randint(0, 2**32 - 1)  # noqa: NPY002
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(50))

    check_noise_cannot_be_replayed(our_noise)
    fails(check_noise_cannot_be_replayed, pfl)


def test_flsim_a_seed_is_not_reused_in_the_next_round() -> None:
    def check(round_noise: Callable[[torch.Generator], Tensor]) -> None:
        generator = torch.Generator().manual_seed(3)
        assert not torch.equal(round_noise(generator), round_noise(generator))

    def flsim(generator: torch.Generator) -> Tensor:
        return torch.randn(50, generator=torch.Generator().manual_seed(generator.initial_seed()))

    check(lambda g: aggregate(torch.zeros(3, 50), plan_for(3), C, generator=g).mean)
    fails(check, flsim)


def test_flsim_fixed_size_selection_is_not_accounted_as_poisson() -> None:
    def check(event: Callable[[PrivacyPlan], Any]) -> None:
        plan = plan_for(100, cohort=20, sampling="fixed", adjacency="replace-one")
        assert event(plan).sampling == "fixed"

    check(lambda plan: aggregate(torch.zeros(20, 3), plan, C).event)
    fails(check, lambda plan: plan_for(100, cohort=20, sampling="poisson").event)
    with pytest.raises(ValueError, match="replace-one"):
        plan_for(100, cohort=20, sampling="fixed")


def test_p2_a_client_cannot_be_in_a_cohort_twice() -> None:
    def ours(ids: list[int]) -> Tensor:
        aggregator = PrivateAggregator(torch.zeros(1), plan_for(), C)
        for i in ids:
            aggregator.add(torch.ones(1), client=i)
        aggregator._flush()
        return aggregator._server._sum.read()

    def pfl(ids: list[int]) -> Tensor:
        return torch.ones(len(ids), 1).sum(0)

    def check(total: Callable[[list[int]], Tensor]) -> None:
        try:
            moved = total([4, 7, 4]) - total([7])
        except ValueError:
            return
        assert float(moved.norm()) <= C

    check(ours)
    fails(check, pfl)


def test_p1_the_noise_is_not_rescaled_after_calibration() -> None:
    def check(multiplier: Callable[[PrivacyPlan], float]) -> None:
        plan = plan_for(50)
        assert multiplier(plan) == pytest.approx(plan.event.noise_multiplier)

    def ours(plan: PrivacyPlan) -> float:
        release = aggregate(torch.zeros(5, 3), plan, 2.0)
        assert release.event == plan.event
        return release.noise_std * release.denominator / 2.0

    check(ours)
    fails(check, lambda plan: plan.noise_multiplier * plan.cohort / 1000)


def test_ddg_lost_shares_do_not_weaken_the_noise() -> None:
    plan = plan_for(trust="distributed", min_survivors=6, adjacency="zero-out")

    def ours(replies: int) -> float:
        try:
            release = aggregate(torch.zeros(replies, 3), plan, C)
        except ValueError:
            return math.inf
        return release.noise_std * release.denominator

    def check(std: Callable[[int], float]) -> None:
        for replies in range(1, 11):
            assert std(replies) >= Z * C * (1 - 1e-9)

    check(ours)
    fails(check, lambda replies: Z * C * math.sqrt(replies / 10))


def test_jax_privacy_the_sensitivity_comes_from_the_clip() -> None:
    def check(sensitivity: Callable[[float, str], float]) -> None:
        for norm in (0.5, 2.0):
            assert sensitivity(norm, "replace-one") == 2 * norm
            assert sensitivity(norm, "add-or-remove") == norm

    check(lambda norm, adjacency: FlatClip(norm).sensitivity(adjacency))
    fails(check, lambda norm, adjacency: 1.0 / norm)
