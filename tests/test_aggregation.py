"""The private mean: what goes in, what comes out, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_for, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from fldp.mechanism import aggregation, collection, contribution
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.aggregation import PrivateAggregator, aggregate
from fldp.mechanism.clipping import Clip, FlatClip, PerLayerClip
from fldp.mechanism.contribution import Contribution, Message
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.reference import private_mean
from fldp.mechanism.release import SkippedRound
from fldp.mechanism.summation import RunningSum
from fldp.plan import PrivacyPlan
from fldp.plan.ledger import Ledger

QUIET = 1e-9


def quiet(clients: int = 10, **changes: Any) -> PrivacyPlan:
    return plan_for(clients, noise_multiplier=QUIET, **changes)


def summed(aggregator: PrivateAggregator) -> Tensor:
    """The sum before the noise, float64."""
    aggregator._flush()
    return aggregator._server._sum.read()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_equal_to_the_step_by_step_version() -> None:
    updates = [
        {"w": torch.randn(4, 3, generator=seeded(i)) * 2, "b": torch.randn(5, generator=seeded(i))}
        for i in range(6)
    ]
    fast = aggregate(updates, quiet(6), clip_norm=0.8).mean
    slow = private_mean(updates, clip_norm=0.8, noise_multiplier=QUIET, denominator=6)
    for name in slow:
        assert torch.allclose(fast[name], slow[name], rtol=1e-4, atol=1e-7)
    one = {"w": torch.zeros(40_000)}
    fast = aggregate([one], plan_for(1), 0.8, generator=seeded()).mean["w"]
    slow = private_mean(
        [one], clip_norm=0.8, noise_multiplier=1.0, denominator=1, generator=seeded()
    )["w"]
    assert torch.allclose(fast, slow)


def test_every_form_of_the_same_updates_gives_the_same_mean() -> None:
    before = network()
    pairs = []
    for i in range(4):
        after = copy.deepcopy(before)
        with torch.no_grad():
            for p in after.parameters():
                p.add_(torch.randn(p.shape, generator=seeded(i)))
        pairs.append((before, after))
    dicts = [
        {n: b.detach() - a.detach() for (n, a), (_, b) in
         zip(x.named_parameters(), y.named_parameters(), strict=True)}
        for x, y in pairs
    ]  # fmt: skip
    flats = [torch.cat([t.flatten() for t in d.values()]) for d in dicts]
    forms: list[Any] = [
        pairs, dicts, [list(d.values()) for d in dicts], flats, torch.stack(flats),
        torch.stack(flats).numpy(), [f.numpy() for f in flats], (d for d in dicts),
        [{k: v.numpy() for k, v in d.items()} for d in dicts],
    ]  # fmt: skip
    means = [aggregate(form, quiet(4)).mean for form in forms]
    for mean in means:
        leaves = list(mean.values()) if isinstance(mean, dict) else mean
        flat = leaves if isinstance(leaves, Tensor) else torch.cat([t.flatten() for t in leaves])
        assert torch.allclose(flat, means[3], atol=1e-6)
    assert set(means[0]) == set(dicts[0])
    assert isinstance(means[2], list)


def test_streaming_and_stacked_agree() -> None:
    rows = torch.randn(50, 1300, generator=seeded()) * torch.logspace(-2, 2, 50)[:, None]
    whole = aggregate(rows, quiet(50)).mean
    aggregator = PrivateAggregator(rows[0], quiet(50))
    aggregator.add(rows[:20])
    for row in rows[20:]:
        aggregator.add(row)
    assert torch.allclose(aggregator.release().mean, whole, atol=1e-6)


def test_inputs_are_never_written_to() -> None:
    rows = torch.randn(5, 10, generator=seeded())
    rows[2, 3], rows[3, 1] = math.nan, 1e38
    kept = rows.clone()
    aggregate(rows, plan_for(5))
    assert torch.equal(rows.nan_to_num(7.0), kept.nan_to_num(7.0))


@pytest.mark.parametrize(
    ("changes", "factor"),
    [({}, 1.0), ({"trust": "local"}, math.sqrt(20)),
     ({"trust": "distributed", "min_survivors": 5}, 2.0),
     ({"trust": "distributed", "min_survivors": 20}, 1.0),
     ({"adjacency": "replace-one"}, 1.0), ({"adjacency": "zero-out"}, 1.0)],
)  # fmt: skip
def test_noise_scale_by_trust_model(changes: dict[str, Any], factor: float) -> None:
    if "trust" in changes:
        changes = {"adjacency": "zero-out", **changes}
    plan = plan_for(20, noise_multiplier=1.5, **changes)
    release = aggregate(torch.zeros(20, 20_000), plan, clip_norm=0.4, generator=seeded())
    assert release.noise_std == pytest.approx(1.5 * 0.4 * factor / 20)
    assert float(release.mean.std()) == pytest.approx(release.noise_std, rel=0.03)


def test_the_denominator_is_public_and_the_noise_full_whoever_replies() -> None:
    plan = plan_for(100, cohort=20, sampling="poisson")
    for replies in (0, 1, 20, 37):
        release = aggregate(
            torch.full((replies, 5000), 0.01), plan, like=torch.zeros(5000), generator=seeded()
        )
        assert release.denominator == 20
        assert release.noise_std == 1 / 20
        assert float(release.mean.mean()) == pytest.approx(replies * 0.01 / 20, abs=4e-3)
        assert float(release.mean.std()) == pytest.approx(1 / 20, rel=0.1)


def test_an_empty_round_of_local_messages_is_zero_and_costs_nothing() -> None:
    plan = plan_for(10, trust="local", cohort=2, sampling="poisson", adjacency="zero-out")
    release = aggregate([], plan, like=torch.zeros(3))
    assert release.mean.tolist() == [0.0] * 3
    assert release.noise_std == 0


def test_an_empty_cohort_without_structure_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match="pass like="):
        aggregate([], plan_for(10))
    assert aggregate([], plan_for(10), like=network()).mean["0.bias"].shape == (4,)


def test_non_finite_updates_count_exactly_zero() -> None:
    rows = torch.full((3, 4), 0.25)
    spoiled = rows.clone()
    spoiled[1, 2] = math.nan
    release = aggregate(spoiled, quiet(3))
    assert torch.allclose(release.mean, torch.full((4,), 0.5 / 3), atol=1e-6)
    assert release.private.malformed == 1
    assert release.private.count == 3


def test_release_is_frozen_and_shows_only_public_facts() -> None:
    release = aggregate(torch.ones(3, 4) * 5, plan_for(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        release.noise_std = 0.0  # type: ignore[misc]
    assert "private" not in repr(release)
    assert "not for release" in repr(release.private)
    assert "10.0" not in repr(release.private)
    assert "NOT for release" in str(type(release.private).__doc__)
    assert release.private.norms == pytest.approx([10.0] * 3)
    assert release.private.clipped_fraction == 1.0


def test_reproducible_only_when_the_caller_asks() -> None:
    rows = torch.zeros(3, 8)
    one, two = (aggregate(rows, plan_for(3), generator=seeded(5)) for _ in range(2))
    assert one.reproducible
    assert torch.equal(one.mean, two.mean)
    torch.manual_seed(0)
    three = aggregate(rows, plan_for(3))
    torch.manual_seed(0)
    four = aggregate(rows, plan_for(3))
    assert not three.reproducible
    assert not torch.equal(three.mean, four.mean)


def test_the_released_event_is_the_accounted_one() -> None:
    plan = plan_for(100, cohort=20, sampling="poisson", cap=60)
    clips: list[Any] = [1.0, PerLayerClip(1.0), AdaptiveClip(count_noise=3.0)]
    for clip in clips:
        event = aggregate(torch.zeros(5, 8), plan, clip).event
        assert event == plan.event


def test_misuse_is_refused() -> None:
    aggregator = PrivateAggregator(torch.zeros(4), plan_for(3))
    aggregator.add(torch.ones(4))
    aggregator.release()
    with pytest.raises(ValueError, match="a second release of the same data is not accounted"):
        aggregator.release()
    with pytest.raises(ValueError, match="has released"):
        aggregator.add(torch.ones(4))


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"sampling": "poisson", "cohort": 5, "cap": 8}, 8), ({}, 20),
     ({"sampling": "fixed", "cohort": 6, "adjacency": "replace-one"}, 6),
     ({"sampling": "poisson", "cohort": 5}, 20)],
)  # fmt: skip
def test_a_cohort_beyond_what_was_accounted_is_refused(changes: dict[str, Any], limit: int) -> None:
    aggregator = PrivateAggregator(torch.zeros(3), plan_for(20, **changes))
    aggregator.add(torch.zeros(limit, 3))
    with pytest.raises(ValueError, match=f"at most {limit} clients"):
        aggregator.add(torch.zeros(3))


def test_the_same_client_twice_in_a_round_is_refused() -> None:
    aggregator = PrivateAggregator(torch.zeros(3), plan_for(5))
    aggregator.add(torch.zeros(2, 3), client=torch.tensor([3, 1]))
    with pytest.raises(ValueError, match="client 1 is in this round already"):
        aggregator.add(torch.zeros(3), client=1)


def test_r04_a_failed_add_does_not_burn_the_identifier() -> None:
    aggregator = PrivateAggregator(torch.zeros(3), plan_for(5))
    failures: list[tuple[Any, dict[str, Any], str]] = [
        (torch.zeros(4), {}, "expected"),
        (torch.zeros(3), {"weight": 2.0}, "public weight_cap"),
        (torch.zeros(9, 3), {"client": [7, *range(8, 16)]}, "at most 5 clients"),
        (torch.zeros(3, 3), {"client": [7]}, "1 client identifiers for 3"),
        (torch.zeros(2, 3), {"client": [7, 7]}, "client 7 is in this round already"),
    ]
    for update, options, problem in failures:
        with pytest.raises(ValueError, match=problem):
            aggregator.add(update, **{"client": 7, **options})
    aggregator.add(torch.zeros(3), client=7)
    assert aggregator.release().private.count == 1


def test_r04_tuples_identify_one_client_each() -> None:
    """(1, "a") and (1, "b") used to collide in their first part."""
    aggregator = PrivateAggregator(torch.zeros(3), plan_for(9))
    aggregator.add(torch.zeros(3), client=(1, "a"))
    aggregator.add(torch.zeros(3), client=(1, "b"))
    aggregator.add(torch.zeros(2, 3), client=[(2, "a"), (2, "b")])
    with pytest.raises(ValueError, match=r"client \(2, 'b'\) is in this round already"):
        aggregator.add(torch.zeros(3), client=(2, "b"))


def test_r04_with_strict_false_a_duplicate_counts_once_and_aborts_nothing() -> None:
    aggregator = PrivateAggregator(torch.zeros(3), quiet(4), strict=False)
    aggregator.add(torch.full((3,), 0.1), client="a")
    for _ in range(20):
        aggregator.add(torch.full((3,), 0.1), client="a")
        aggregator.add("garbage", client="b")
    aggregator.add(torch.full((3,), 0.1), client="b")
    aggregator.add(torch.full((3,), 0.1), client="c")
    release = aggregator.release()
    assert release.mean.tolist() == pytest.approx([0.05] * 3, rel=1e-3)
    assert release.private.count == 3
    assert release.private.malformed == 41
    assert "not a numeric tensor" in str(release.private.first_problem) or (
        release.private.first_problem == "client 'a' is in this round already: it counts once"
    )


def test_below_the_minimum_of_survivors_nothing_is_released() -> None:
    plan = plan_for(10, trust="distributed", min_survivors=6, adjacency="zero-out")
    with pytest.raises(SkippedRound, match=r"fewer than min_survivors = 6.*no release"):
        aggregate(torch.zeros(5, 4), plan)


def test_a_plan_that_does_not_match_its_event_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inflated(PrivacyPlan):
        @property
        def event(self) -> Any:
            return dataclasses.replace(super().event, noise_multiplier=2 * self.noise_multiplier)

    with pytest.raises(ValueError, match=r"the plan accounts for z = 2\.0"):
        aggregate(torch.zeros(10, 4), Inflated(**plan_for(10).to_dict()))


def test_adaptive_clip_needs_room_for_its_bits() -> None:
    with pytest.raises(ValueError, match="count_noise above"):
        aggregate(torch.zeros(10, 4), plan_for(10, noise_multiplier=2.0), AdaptiveClip())
    plan = plan_for(10, trust="local", adjacency="zero-out")
    with pytest.raises(ValueError, match="not local trust"):
        aggregate(torch.zeros(10, 4), plan, AdaptiveClip(count_noise=9.0))


def test_adaptive_clip_noises_at_the_norm_that_clipped_and_moves_once() -> None:
    clip = AdaptiveClip(initial=0.5, count_noise=4.0)
    plan = plan_for(20)
    aggregator = PrivateAggregator(torch.zeros(1000), plan, clip, generator=seeded())
    clip.norm = 123.0
    aggregator.add(torch.full((20, 1000), 1.0))
    release = aggregator.release()
    z_delta, _ = clip.noise_split(1.0)
    assert release.clip_norm == 0.5
    assert release.noise_std == pytest.approx(z_delta * 0.5 / 20)
    assert clip.norm > 123.0
    assert release.unclipped is not None


@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_adaptive_clip_converges_through_the_aggregator(start: float) -> None:
    clip = AdaptiveClip(initial=start)
    plan = plan_for(200, rounds=60)
    generator = seeded(11)
    for _ in range(60):
        rows = torch.randn(200, 20, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True)
        rows *= torch.exp(0.3 * torch.randn(200, 1, generator=generator))
        aggregate(rows, plan, clip, generator=generator)
    assert clip.norm == pytest.approx(1.0, rel=0.3)


def test_unequal_weights_need_a_public_cap() -> None:
    rows = torch.ones(3, 4) / 2
    with pytest.raises(ValueError, match="public weight_cap"):
        aggregate(rows, quiet(3), weights=[1, 2, 3])
    with pytest.raises(ValueError, match="public weight_cap"):
        PrivateAggregator(rows[0], quiet(3)).add(rows[0], weight=2.0)
    with pytest.raises(ValueError, match="give weight_cap as well"):
        aggregate(rows, quiet(3), weight_total=5.0)
    plain = aggregate(rows, quiet(3), weights=[2, 2, 2]).mean
    assert torch.allclose(plain, aggregate(rows, quiet(3)).mean)
    for cap in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive public number"):
            aggregate(rows, quiet(3), weights=[1, 2, 3], weight_cap=cap)
    for weights in ([1, 2], [1, 2, 3, 4]):
        for form in (rows, list(rows)):
            with pytest.raises(ValueError, match="weights for"):
                aggregate(form, quiet(3), weights=weights, weight_cap=3)


def test_weights_by_hand() -> None:
    rows = torch.eye(4) * torch.tensor([0.5, 2.0, 0.5, 0.5])
    release = aggregate(rows, quiet(4), weights=[10, 30, 500, math.nan], weight_cap=100)
    expected = torch.tensor([5.0, 30.0, 50.0, 0.0]) / 400
    assert torch.allclose(release.mean, expected, rtol=1e-4)
    assert release.noise_std == pytest.approx(QUIET * 100 / 400)
    assert release.private.malformed == 1
    plan = quiet(8, cohort=4, sampling="poisson")
    release = aggregate(rows, plan, weights=[10, 30, 500, 1], weight_cap=100, weight_total=600)
    assert release.denominator == 300
    assert torch.allclose(release.mean[2], torch.tensor(50.0 / 300), rtol=1e-4)


@pytest.mark.parametrize("weights", [[0, 0, 0], [-1, -1, -1], [math.nan] * 3, ["a"] * 3])
def test_p13_weights_that_are_no_weights_are_refused(weights: Any) -> None:
    """[0, 0, 0] used to count as [1, 1, 1]."""
    with pytest.raises(ValueError, match=r"weight"):
        aggregate(torch.ones(3, 4), quiet(3), weights=weights)


def test_raw_errors_of_weights_get_a_sentence() -> None:
    aggregator = PrivateAggregator(torch.zeros(4), quiet(3), weight_cap=2.0)
    for weight in ("much", [1.0, [2.0]], 10**400, object()):
        with pytest.raises(ValueError, match="give a number for each client"):
            aggregator.add(torch.ones(4), weight=weight)
    with pytest.raises(ValueError, match="2 weights for 1 clients"):
        aggregator.add(torch.ones(4), weight=[1.0, 2.0])


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
hostile = st.one_of(finite32, st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 1e-45]))
hostile64 = st.one_of(hostile, st.floats(), st.sampled_from([1e300, -1e300, 2e12, 5e-324, 1e-300]))
CLIPS: list[Callable[[], Clip]] = [
    lambda: FlatClip(0.7), lambda: PerLayerClip([0.1, 0.5, 0.2]), lambda: PerLayerClip(0.7),
    lambda: AdaptiveClip(0.7, count_noise=1.0),
]  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=120)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(9)), elements=hostile),
    st.lists(st.floats(0, 1e6) | st.sampled_from([math.nan, -1.0]), min_size=6, max_size=6),
    st.sampled_from(range(len(CLIPS))),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_no_neighbour_moves_the_sum_by_more_than_the_sensitivity(
    rows: Any, weights: list[float], which: int, weighted: bool, discrete: bool
) -> None:
    """A search for a violation, rounding included."""

    def total(values: Tensor, used: list[float]) -> tuple[Tensor, Clip, float]:
        clip = CLIPS[which]()
        aggregator = PrivateAggregator(
            [torch.zeros(2), torch.zeros(3), torch.zeros(2, 2)], plan_for(6), clip,
            weight_cap=4.0 if weighted else None,
            noise=DiscreteGaussian() if discrete else None,
        )  # fmt: skip
        if len(values):
            aggregator.add(values, used[: len(values)] if weighted else None)
        return summed(aggregator), clip, aggregator._server._diagnostics()[1] / 2

    tensor = torch.from_numpy(rows)
    cap = 4.0 if weighted else 1.0
    full, clip, bits = total(tensor, weights)
    fewer, _, fewer_bits = total(tensor[:-1], weights)
    zeroed = torch.cat([tensor[:-1], torch.zeros(1, 9)])
    zero, _, _ = total(zeroed, weights)
    for other, adjacency in ((fewer, "add-or-remove"), (zero, "zero-out")):
        assert float((full - other).norm()) <= clip.sensitivity(adjacency) * cap
    swapped, _, _ = total(torch.cat([tensor[:-1], -tensor[:1] * 3]), weights)
    assert float((full - swapped).norm()) <= clip.sensitivity("replace-one") * cap
    assert abs(bits - fewer_bits) <= 0.5
    assert bool(torch.isfinite(full).all())


def test_discrete_gaussian_end_to_end() -> None:
    rows = torch.full((50, 400), 0.04)
    release = aggregate(rows, plan_for(50), noise=DiscreteGaussian(seeded()))
    assert float(release.mean.mean()) == pytest.approx(0.04, abs=5 / 50 / 20)
    assert float(release.mean.std()) == pytest.approx(1 / 50, rel=0.2)
    steps = release.mean * 50 * 2.0**34
    assert torch.allclose(steps, steps.round(), atol=1e-2)
    layered = aggregate(
        [[r[:100], r[100:]] for r in rows], plan_for(50, noise_multiplier=1e-4), PerLayerClip(9.0),
        noise=DiscreteGaussian(),
    )  # fmt: skip
    assert torch.allclose(torch.cat(layered.mean).float(), torch.tensor(0.04), atol=1e-3)


def test_dtypes_come_out_as_expected() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.float32, torch.float64):
        out = torch.float64 if dtype == torch.float64 else torch.float32
        mean = aggregate([{"a": torch.ones(3, dtype=dtype)}], plan_for(1)).mean
        assert mean["a"].dtype == out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_tensors_stay_on_their_device() -> None:
    rows = torch.randn(8, 5000, generator=seeded())
    options: list[dict[str, Any]] = [{}, {"noise": DiscreteGaussian()},
                                     {"weights": [1.0] * 7 + [9.0], "weight_cap": 3.0}]  # fmt: skip
    # A grid's 64-bit sums have room for no finer noise.
    plan = plan_for(8, noise_multiplier=1e-6)
    for each in options:
        on_gpu = aggregate(rows.cuda(), plan, **each).mean
        assert on_gpu.is_cuda
        assert torch.allclose(on_gpu.cpu(), aggregate(rows, plan, **each).mean, atol=1e-5)
    noisy = aggregate(rows.cuda() * 0, plan_for(8)).mean
    assert float(noisy.std()) == pytest.approx(1 / 8, rel=0.1)


def hostile_updates(count: int, seed: int) -> Any:
    """Updates that a broken or hostile client might send, none of them honest."""
    rng = np.random.default_rng(seed)
    values = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.0, 1e6, -1.0]
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64,
              torch.bool, torch.complex64]  # fmt: skip
    shapes = [
        (4, 3),
        (5,),
        (),
        (0,),
        (3, 4),
        (4, 3, 1),
        (17,),
        (2, 17),
        (1, 17),
        (1000, 17),
        (1, 1),
    ]

    def leaf() -> Any:
        kind = rng.integers(10)
        shape = shapes[rng.integers(len(shapes))]
        if kind < 6:
            tensor = torch.full(shape, float(values[rng.integers(len(values))]))
            if tensor.numel() and kind < 3:
                wild = rng.standard_normal(shape) * 10.0 ** rng.integers(-40, 39)
                tensor = torch.from_numpy(np.asarray(wild, dtype=np.float32))
                tensor.view(-1)[0] = values[rng.integers(len(values))]
            dtype = dtypes[rng.integers(len(dtypes))]
            tensor = tensor.to(dtype) if rng.integers(2) else tensor
            return tensor.to_sparse() if tensor.ndim and rng.integers(8) == 0 else tensor
        junk = [None, "text", b"\0", object(), [1, [2, 3]], {"a": {}}, math.nan, 10**400, -1, 1e999,
                np.array(["x"]), np.array([None]), np.zeros((2, 2, 2)), set(),
                torch.zeros(2, device="meta"), range(5), np.ma.masked, True]  # fmt: skip
        return junk[rng.integers(len(junk))]

    for _ in range(count):
        kind = rng.integers(8)
        if kind < 4:
            good = {"w": torch.full((4, 3), values[rng.integers(len(values))]), "b": leaf()}
            if kind == 1:
                good["b"] = torch.full((5,), values[rng.integers(len(values))])
            elif kind == 2:
                good["x" * int(rng.integers(3))] = leaf()
            elif kind == 3:
                good.pop("w")
            yield good
        elif kind == 4:
            yield [leaf() for _ in range(rng.integers(4))]
        elif kind == 5:
            yield (nn.Linear(1, 1), nn.Linear(int(rng.integers(1, 3)), 1))
        else:
            yield leaf()


@pytest.mark.slow
def test_ten_thousand_hostile_updates_neither_crash_nor_leak() -> None:
    honest = {"w": torch.full((4, 3), 0.1), "b": torch.full((5,), 0.1)}
    like = {"w": torch.zeros(4, 3), "b": torch.zeros(5)}
    plan = plan_for(11_000)
    aggregator = PrivateAggregator(like, plan, generator=seeded(), strict=False)
    count = largest = 0.0
    with np.errstate(all="ignore"):
        for update in hostile_updates(10_000, seed=12):
            before = summed(aggregator)
            aggregator.add(update)
            largest = max(largest, float((summed(aggregator) - before).norm()))
            count += 1
    assert count == 10_000
    assert largest <= 1.0
    hostile_sum = summed(aggregator)
    assert bool(torch.isfinite(hostile_sum).all())
    for _ in range(1000):
        aggregator.add(honest)
    intact = (summed(aggregator) - hostile_sum) / 1000
    assert torch.allclose(intact.float(), torch.full((17,), 0.1), rtol=1e-3)
    release = aggregator.release()
    assert release.private.count == 11_000
    assert 2_000 < release.private.malformed < 10_000
    alone = aggregate([honest] * 1000, plan, generator=seeded()).mean
    bound = float(hostile_sum.norm()) / plan.denominator
    for name in like:
        assert float((release.mean[name] - alone[name]).norm()) <= bound + 1e-6


def test_a_client_that_sends_many_rows_is_one_client() -> None:
    aggregator = PrivateAggregator(torch.zeros(4), quiet(1000), strict=False)
    aggregator.add(torch.ones(500, 4))
    release = aggregator.release()
    assert release.private.count == release.private.malformed == 1
    assert float(release.mean.abs().max()) < 1e-9


def test_strict_structure_errors_leave_the_aggregator_usable() -> None:
    aggregator = PrivateAggregator(network(), quiet(3))
    with pytest.raises(ValueError, match="are buffers"):
        aggregator.add(network().state_dict())
    aggregator.add({n: p.detach() for n, p in network().named_parameters()})
    assert aggregator.release().private.count == 1


BITS = {"add-or-remove": 1.0, "zero-out": 1.0, "replace-one": 2.0}


def one_round(update: Any, plan: PrivacyPlan, weight: Any, strict: bool) -> tuple[Tensor, float]:
    """The sums that a round of others and one more client gives to the mechanism: (Δw, bits)."""
    aggregator = PrivateAggregator(
        torch.zeros(3), plan, AdaptiveClip(0.7, count_noise=3.0),
        weight_cap=None if weight is None else 2.0, strict=strict,
    )  # fmt: skip
    for other in (torch.full((3,), 0.2), torch.full((3,), 9.0), torch.tensor([1.0, math.nan, 0])):
        aggregator.add(other, None if weight is None else 1.0)
    if update is not None:
        aggregator.add(update, weight)
    total = summed(aggregator)
    return total, aggregator._server._diagnostics()[1] / 2


@pytest.mark.parametrize("adjacency", sorted(BITS))
@pytest.mark.parametrize("weight", [None, 1.0, 0.0, 5.0, math.nan])
@pytest.mark.parametrize("strict", [True, False])
def test_p04_updates_and_bits_together_move_by_no_more_than_the_plan_says(
    adjacency: str, weight: Any, strict: bool
) -> None:
    """Every pair of neighbours over updates that a client may send, the joint distance in units of
    the two noises: 1/z, or 2/z for a replaced client. A zero update has no bit of its own."""
    plan = plan_for(9, adjacency=adjacency, noise_multiplier=2.5)
    sent: list[Any] = [
        torch.zeros(3), torch.tensor([0.69, 0, 0]), torch.tensor([50.0, 0, 0]),
        torch.tensor([-50.0, 0, 0]), torch.tensor([math.inf, 0, 0]), torch.full((3,), math.nan),
        torch.tensor([1e-30, 0, 0]),
    ]  # fmt: skip
    if not strict:
        sent += ["text", torch.zeros(4), torch.zeros(5, 3)]
    found = [one_round(update, plan, weight, strict) for update in sent]
    nobody = one_round(None, plan, weight, strict)
    zeroed = found[0]
    each = AdaptiveClip(0.7, count_noise=3.0)
    z_delta, count_noise = each.noise_split(2.5, adjacency=adjacency)
    std = z_delta * 0.7 * (1.0 if weight is None else 2.0)
    neighbours = {
        "add-or-remove": [(one, nobody) for one in found],
        "zero-out": [(one, zeroed) for one in found],
        "replace-one": [(one, other) for one in found for other in found],
    }[adjacency]
    worst = max(
        math.hypot(float((one[0] - other[0]).norm()) / std, (one[1] - other[1]) / count_noise)
        for one, other in neighbours
    )
    allowed = BITS[adjacency] / 2.5
    assert worst <= allowed
    if weight in (None, 5.0):
        # The worst is close to it: not a bit is paid for in vain.
        assert worst >= 0.99 * allowed


@pytest.mark.parametrize("adjacency", sorted(BITS))
def test_p04_the_aggregator_splits_by_the_plans_adjacency(adjacency: str) -> None:
    plan = plan_for(100, adjacency=adjacency, noise_multiplier=4.0)
    release = aggregate(torch.zeros(5, 3), plan, AdaptiveClip(0.5, count_noise=6.0))
    expected = (4.0**-2 - (0.5 / 6.0) ** 2) ** -0.5
    assert release.noise_std * release.denominator / 0.5 == pytest.approx(expected)
    assert release.event.noise_multiplier == pytest.approx(4.0)


def test_p04_where_the_bits_alone_overspend_zero_out_is_refused() -> None:
    """z = m / 10 with the default count noise."""
    for z, clients in ((2.0, 20), (10.0, 100)):
        rows = torch.zeros(3, 2)
        aggregate(rows, plan_for(clients, noise_multiplier=z), AdaptiveClip(count_noise=z))
        with pytest.raises(ValueError, match=r"zero-out.*count_noise above"):
            aggregate(
                rows, plan_for(clients, noise_multiplier=z, adjacency="zero-out"), AdaptiveClip()
            )


@pytest.mark.parametrize("trust", ["central", "distributed"])
def test_the_bits_noise_arrives_in_shares_like_the_updates(trust: str) -> None:
    """Everybody came where a quarter would do: twice the noise under distributed trust."""
    changes = {} if trust == "central" else {"trust": trust, "min_survivors": 5}
    plan = plan_for(20, adjacency="zero-out", noise_multiplier=0.5, **changes)
    rows, generator = torch.full((20, 2), 0.01), seeded(4)
    rows[:10] = 9.0
    fractions = [
        aggregate(rows, plan, AdaptiveClip(0.5, count_noise=1.0), generator=generator).unclipped
        for _ in range(400)
    ]
    spread = 1.0 if trust == "central" else 2.0
    # One seed; 400 draws tell a standard deviation to 3.5 %.
    assert np.std(np.array(fractions)) == pytest.approx(spread * 1.0 / 20, rel=0.12)
    assert np.mean(np.array(fractions)) == pytest.approx(0.5, abs=0.02)


def test_p13_discrete_noise_for_an_adaptive_clips_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits used to get a float Gaussian from a mechanism that promises another."""
    from fldp.mechanism import noise

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("floating-point noise in a discrete release")

    monkeypatch.setattr(noise, "gaussian_", never)
    monkeypatch.setattr(noise, "_standard_normal", never)
    each = AdaptiveClip(0.5, count_noise=3.0)
    release = aggregate(torch.ones(20, 3), plan_for(20), each, noise=DiscreteGaussian())
    assert release.unclipped is not None
    assert each.norm != 0.5


@pytest.mark.parametrize("kind", ["rows", "matrices", "dicts"])
def test_p08_threads_that_add_at_once_lose_and_double_nobody(kind: str) -> None:
    """One client used to be counted up to four times, and others not at all."""
    threads, each, size = 6, 150, 700
    like: Any = torch.zeros(size)
    if kind == "dicts":
        like = {"a": torch.zeros(300), "b": torch.zeros(400)}
    aggregator = PrivateAggregator(like, quiet(threads * each), clip=1e3)
    barrier, failed = threading.Barrier(threads), list[BaseException]()

    def work(number: int) -> None:
        barrier.wait()
        try:
            for i in range(each // 3):
                # Clients are told apart by powers of two in the coordinate of their thread.
                rows = torch.zeros(3, size)
                rows[:, number] = 1.0
                rows[:, 100 + i] = 1.0
                if kind == "matrices":
                    aggregator.add(rows)
                    continue
                for k, row in enumerate(rows):
                    update = {"a": row[:300], "b": row[300:]} if kind == "dicts" else row
                    aggregator.add(update, client=(number, i, k))
        except BaseException as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    total = summed(aggregator)
    expected = torch.zeros(size, dtype=torch.float64)
    expected[:threads], expected[100 : 100 + each // 3] = each, 3.0 * threads
    assert torch.equal(total, expected)
    assert aggregator.release().private.count == threads * each


def test_p08_threads_that_release_at_once_get_one_release() -> None:
    for _ in range(30):
        aggregator = PrivateAggregator(torch.zeros(4), plan_for(8))
        aggregator.add(torch.ones(4))
        barrier, released, refused = threading.Barrier(4), list[Any](), list[str]()

        def work(
            aggregator: PrivateAggregator = aggregator, barrier: threading.Barrier = barrier,
            released: list[Any] = released, refused: list[str] = refused,
        ) -> None:  # fmt: skip
            barrier.wait()
            try:
                aggregator.add(torch.ones(4))
                released.append(aggregator.release())
            except ValueError as error:
                refused.append(str(error))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(released) == 1
        assert len(refused) == 3
        assert 2 <= released[0].private.count <= 5


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_aggregator_cannot_be_copied_to_release_twice(duplicate: Callable[[Any], Any]) -> None:
    aggregator = PrivateAggregator(torch.zeros(4), plan_for(3))
    with pytest.raises(ValueError, match="a copy could release again"):
        duplicate(aggregator)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_cannot_release_the_same_data_again() -> None:
    code = """if True:
        import os, torch, fldp
        plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=50)
        aggregator = fldp.PrivateAggregator(torch.zeros(4), plan)
        aggregator.add(torch.ones(4))
        child = os.fork()
        try:
            aggregator.release()
            told = "released"
        except ValueError as error:
            told = str(error)
        os.write(1, (told + "\\n").encode())
        child and os.waitpid(child, 0)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = sorted(run.stdout.splitlines())
    assert told == ["released", "this aggregator belongs to another process: a fork is a copy"]


@pytest.mark.parametrize("tile", [0, 1 << 20])
def test_p08_an_update_that_changes_after_it_was_measured_stays_within_c(
    monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    """A sender may share the memory of its message, and write to it while the server sums."""
    monkeypatch.setattr(aggregation, "_TILE", tile)
    sent, real = torch.full((4,), 0.1), contribution.bounded_rows

    def slow(rows: Tensor) -> Any:
        measured = real(rows)
        sent.fill_(1e6)
        return measured

    monkeypatch.setattr(contribution, "bounded_rows", slow)
    aggregator = PrivateAggregator(torch.zeros(4), quiet(20), strict=False)
    aggregator.add(sent)
    assert summed(aggregator).tolist() == pytest.approx([0.1] * 4)


def test_noise_arguments_of_another_kind_are_refused_before_a_round() -> None:
    for options in ({"generator": 0}, {"noise": "gaussian"}, {"noise": DiscreteGaussian}):
        with pytest.raises(ValueError, match="give"):
            PrivateAggregator(torch.zeros(3), plan_for(3), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be added in"):
        PrivateAggregator(torch.zeros(3), plan_for(3), AdaptiveClip(count_noise=1e307))


extremes = st.floats(-30, 30).map(lambda x: 10.0**x)


@settings(deadline=None, max_examples=150)
@given(
    st.floats(-8.9, 12).map(lambda x: 10.0**x),
    st.floats(-9, 9).map(lambda x: 10.0**x),
    st.none() | extremes,
    st.none() | extremes,
    st.booleans(),
)
def test_p11_noise_is_there_at_its_stated_size_or_refused(
    z: float, norm: float, cap: float | None, total: float | None, wide: bool
) -> None:
    """At z C cap = 1e-23 it used to be exactly zero, and NaN above 2e19."""
    like = torch.zeros(4000, dtype=torch.float64 if wide else torch.float32)
    try:
        aggregator = PrivateAggregator(
            like, plan_for(4, noise_multiplier=z), norm, weight_cap=cap,
            weight_total=None if cap is None else total, generator=seeded(3),
        )  # fmt: skip
    except ValueError as error:
        if re.search("weight_cap is|cannot be added in", str(error)) is None:
            raise
        return
    release = aggregator.release()
    assert bool(torch.isfinite(release.mean).all())
    # The seed is fixed: the standard deviation of 4,000 draws is within 4 % of the stated one.
    unit = release.mean.double() / release.noise_std
    assert float(unit.std()) == pytest.approx(1.0, rel=0.04)
    assert int((release.mean == 0).sum()) <= 2


def test_p11_the_case_that_added_nothing_is_refused() -> None:
    """cap 1e-20 and C 1e-3 said 1e-4 and added 0."""
    with pytest.raises(ValueError, match="weight_cap is 1e-20"):
        aggregate(torch.zeros(10, 3), plan_for(10), 1e-3, weights=[1.0] * 10, weight_cap=1e-20)


def test_a_round_larger_than_one_sum_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="one sum holds at most 16777216 clients"):
        PrivateAggregator(torch.zeros(3), plan_for(10**8))
    plan = plan_for(10**9, cohort=1000, sampling="poisson")
    PrivateAggregator(torch.zeros(3), plan)


ROUNDS: dict[str, Callable[[Any], Any]] = {
    "matrix": lambda rows: rows,
    "tensors": list,
    "lists": lambda rows: [[row[:2], row[2:5], row[5:].view(2, 2)] for row in rows],
    "doubles": list,
}


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(1, 7), st.just(9)), elements=hostile64),
    form=st.sampled_from(sorted(ROUNDS)),
    which=st.sampled_from(range(len(CLIPS))),
    adjacency=st.sampled_from(sorted(BITS)),
    weights=st.none() | st.lists(st.sampled_from([0.0, 1e-3, 1.0, 7.0, math.nan]), min_size=7,
                                 max_size=7),
    discrete=st.booleans(),
    strict=st.booleans(),
    place=st.integers(0, 6),
)  # fmt: skip
def test_no_neighbour_moves_a_release_by_more_than_the_sensitivity(
    rows: Any, form: str, which: int, adjacency: str, weights: Any, discrete: bool, strict: bool,
    place: int,
) -> None:  # fmt: skip
    """Through `aggregate`, with the same noise: what is released, times the public denominator."""
    if form == "matrix" and not strict:
        form = "tensors"
    if which in (1, 2):
        form = "lists"
    plan = plan_for(7, adjacency=adjacency, noise_multiplier=1e-3)
    tensor = torch.from_numpy(rows)
    tensor = tensor if form == "doubles" else tensor.float()
    place = place % len(tensor)
    keep = [i for i in range(len(tensor)) if i != place]
    other = tensor.clone()
    other[place] = 0.0 if adjacency == "zero-out" else -3 * tensor[place].nan_to_num(1.0) - 1
    like: Any = torch.zeros(9, dtype=torch.float64 if form == "doubles" else torch.float32)
    if form == "lists":
        like = [torch.zeros(2), torch.zeros(3), torch.zeros(2, 2)]

    def released(values: Tensor, used: Any) -> tuple[Tensor, float | None]:
        release = aggregate(
            ROUNDS[form](values), plan, CLIPS[which](), like=like, weights=used,
            weight_cap=None if weights is None else 4.0, strict=strict,
            noise=(DiscreteGaussian if discrete else Gaussian)(seeded(1)),
        )  # fmt: skip
        mean = release.mean if isinstance(release.mean, Tensor) else torch.cat(
            [part.flatten() for part in release.mean]
        )  # fmt: skip
        return mean.double() * release.denominator, release.unclipped

    used = None if weights is None else weights[: len(tensor)]
    full, bits = released(tensor, used)
    if adjacency == "add-or-remove":
        fewer = None if used is None else [used[i] for i in keep]
        less, fewer_bits = released(tensor[keep], fewer)
    else:
        less, fewer_bits = released(other, used)
    cap = 1.0 if weights is None else 4.0
    bound = CLIPS[which]().sensitivity(adjacency) * cap
    assert float((full - less).norm()) <= bound * (1 + 1e-6)
    if bits is not None and fewer_bits is not None:
        moved = 1.0 if adjacency != "add-or-remove" else 0.5
        assert abs(bits - fewer_bits) * plan.denominator <= moved + 1e-6


def large(count: int, **options: Any) -> list[dict[str, Tensor]]:
    """Updates that are added where they lie: a matrix, a vector and a head."""
    found = (
        torch.randn(count, 140_000, generator=seeded()) * 1e-3 * torch.arange(1, count + 1)[:, None]
    )
    names = {"w": (100, 1300), "b": (1300,), "head": (8700,)}
    return [
        {name: part.view(shape).to(**options) for (name, shape), part in
         zip(names.items(), row.split([130_000, 1300, 8700]), strict=True)}
        for row in found
    ]  # fmt: skip


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "dict": lambda update: update,
    "other order": lambda update: dict(reversed(update.items())),
    "numpy": lambda update: {name: part.numpy() for name, part in update.items()},
    "float64": lambda update: {name: part.double() for name, part in update.items()},
    "transposed": lambda update: {**update, "w": update["w"].t().contiguous().t()},
    "parameters": lambda update: {name: nn.Parameter(part) for name, part in update.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noise", [None, DiscreteGaussian()])
def test_large_updates_are_added_where_they_lie_as_if_they_were_rows(form: str, noise: Any) -> None:
    updates = large(5)
    matrix = torch.stack([torch.cat([p.flatten() for p in u.values()]) for u in updates])
    plan = plan_for(5, noise_multiplier=1e-6)
    apart = aggregate(
        [FORMS[form](u) for u in updates], plan, 0.7, noise=noise, like=updates[0]
    )  # fmt: skip
    rows = aggregate(matrix, plan, 0.7, noise=noise)
    flat = torch.cat([part.flatten() for part in apart.mean.values()])
    assert torch.allclose(flat, rows.mean, atol=2e-6)
    assert apart.private.norms == pytest.approx(rows.private.norms, rel=1e-6)
    assert apart.private.clipped_fraction == rows.private.clipped_fraction == 4 / 5


def test_large_updates_are_added_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing keeps them afterwards; clips by layers, noise of one's own, strangers copy."""
    calls: list[int] = []
    real = RunningSum.add_parts_

    def counted(self: RunningSum, parts: Any, factor: float) -> None:
        calls.append(1)
        real(self, parts, factor)

    monkeypatch.setattr(RunningSum, "add_parts_", counted)

    class Own(Gaussian):
        def accumulate_(self, total: Any, rows: Tensor, columns: Any) -> None:
            super().accumulate_(total, rows / 2, columns)

    (update,) = large(1)
    kept = weakref.ref(update["w"])
    aggregator = PrivateAggregator(update, quiet(1))
    aggregator.add(update)
    assert len(calls) == 1
    del update
    gc.collect()
    assert kept() is None
    updates = large(2)
    for options in (
        {"clip": PerLayerClip(1.0)}, {"noise": Own()}, {"noise": DiscreteGaussian()},
        {"strict": False},
    ):  # fmt: skip
        aggregator = PrivateAggregator(updates[0], plan_for(2), **options)
        aggregator.add(updates[0])
    aggregator = PrivateAggregator(large(1, dtype=torch.float64)[0], plan_for(2))
    aggregator.add(updates[0])
    assert len(calls) == 1


def test_large_updates_that_are_malformed_or_huge_count_as_rows_do() -> None:
    updates = large(4)
    updates[0]["b"] = torch.full((1300,), math.nan)
    updates[1]["head"] = torch.full((8700,), 1e30)
    updates[2] = {name: torch.zeros_like(part) for name, part in updates[2].items()}
    aggregator = PrivateAggregator(updates[0], plan_for(4, noise_multiplier=1e-6), 0.5)
    for update in updates:
        aggregator.add(update)
    release = aggregator.release()
    flat = torch.cat([part.flatten() for part in release.mean.values()])
    assert float(flat.norm()) == pytest.approx(math.hypot(0.5, 0.5) / 4, rel=0.1)
    private = release.private
    assert (private.malformed, private.zero, private.usable) == (1, 1, 3)
    assert private.norms[0] == 0.0
    # A huge row is scaled down before anything else.
    assert private.norms[1] == pytest.approx(2.0**40 * math.sqrt(8700), rel=1e-4)
    assert private.norms[2] == 0.0


def test_large_updates_in_float32_groups_stay_within_the_bound() -> None:
    """Groups close and open again while rows in parts and rows of a matrix come in turns."""
    count, rest = 160, torch.full((100, 1300), 1e-4)
    update = {"w": rest, "b": torch.full((1300,), 1e-4)}
    flat = torch.full((1, 131_300), 1e-4)
    aggregator = PrivateAggregator(update, quiet(count))
    for number in range(count):
        aggregator.add(update if number % 3 else flat)
    total = summed(aggregator)
    exact = count * torch.tensor(1e-4).double()
    assert float((total - exact).norm()) <= aggregator._client.room / 2
    assert len(aggregator.release().private.norms) == count


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("strict", [True, False])
def test_half_precision_updates_become_float32_in_every_form(
    dtype: torch.dtype, strict: bool
) -> None:
    """What is clipped, summed and noised is the float32 value of what was sent, rounded nowhere."""
    rows = (torch.randn(6, 10, generator=seeded()) * 2).to(dtype)
    like = {"w": torch.zeros(2, 4, dtype=dtype), "b": torch.zeros(2, dtype=dtype)}
    dicts = [{"w": row[:8].view(2, 4), "b": row[8:]} for row in rows]
    mixed = [{"w": u["w"].float(), "b": u["b"]} for u in dicts]
    forms: list[Any] = [dicts, mixed, [[u["w"], u["b"]] for u in dicts], list(rows)]
    if strict:
        forms += [rows]
        forms += [rows.numpy()] if dtype == torch.float16 else []
    wide = aggregate(rows.float(), quiet(6)).mean
    assert wide.dtype == torch.float32
    for form in forms:
        structure = like if isinstance(form[0], dict) else None
        mean = aggregate(form, quiet(6), like=structure, strict=strict).mean
        leaves = list(mean.values()) if isinstance(mean, dict) else mean
        flat = leaves if isinstance(leaves, Tensor) else torch.cat([t.flatten() for t in leaves])
        assert flat.dtype == torch.float32
        assert torch.allclose(flat, wide, atol=1e-7)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_of_large_updates_and_messages(dtype: torch.dtype) -> None:
    updates = large(3, dtype=dtype)
    wide = [{name: part.float() for name, part in u.items()} for u in updates]
    plan = quiet(3)
    narrow, full = aggregate(updates, plan, 0.5), aggregate(wide, plan, 0.5)
    assert narrow.private.norms == full.private.norms
    assert all(torch.allclose(narrow.mean[n], full.mean[n], atol=1e-7) for n in full.mean)
    server, half = collection.Collection(plan, updates[0], 0.5), Contribution(updates[0], 0.5)
    for update in updates:
        message = half.encode(update)
        assert message.vector.dtype == torch.float32
        # A sender that saves half of the bytes: rounded up beyond C, it is clipped once more.
        server.receive(Message(message.vector.to(dtype), message.half_bits))
    mean = torch.cat([part.flatten() for part in server.release().mean.values()])
    assert float(mean.norm()) <= 0.5
    assert mean.dtype == torch.float32


def test_a_half_precision_infinity_is_malformed_and_a_large_value_is_not() -> None:
    sent = [torch.full((4,), 6e4).half(), torch.full((4,), 1e6).half(), torch.ones(4).half()]
    release = aggregate(sent, plan_for(3))
    assert release.private.malformed == 1
    assert release.private.norms[0] == pytest.approx(6e4 * 2, rel=1e-3)


NO_UPDATES = [
    None, 3, math.nan, object(), "text", b"x", torch.zeros(()), np.zeros(()), {"w": torch.ones(2)},
    nn.Linear(2, 2), len,
]  # fmt: skip


@pytest.mark.parametrize("odd", NO_UPDATES, ids=lambda v: type(v).__name__)
def test_what_is_no_list_of_updates_is_refused_in_words(odd: Any) -> None:
    with pytest.raises(ValueError, match=r"updates is .* one update for each client"):
        aggregate(odd, plan_for())


@pytest.mark.parametrize("odd", ["x", None, 3, {}, {"clients": 10}, plan_for])
def test_what_is_no_plan_is_refused_in_words(odd: Any) -> None:
    for call in (
        lambda: aggregate(torch.ones(2, 2), odd),
        lambda: PrivateAggregator(torch.ones(2), odd),
        lambda: collection.Collection(odd, torch.ones(2)),
    ):
        with pytest.raises(ValueError, match=r"plan is .*give a PrivacyPlan"):
            call()


def test_r05_a_skipped_round_is_on_the_ledger_and_over(tmp_path: Path) -> None:
    plan = plan_for(10, trust="distributed", min_survivors=6, adjacency="zero-out")
    aggregator = PrivateAggregator(torch.zeros(2), plan)
    for number in range(5):
        aggregator.add(torch.ones(2), client=number)
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        with pytest.raises(SkippedRound, match="5 clients took part"):
            aggregator.release(ledger, 1)
        assert ledger.events == [plan.event]
        # Late clients cannot turn it into a release of the same round, which would be free.
        for call in (lambda: aggregator.release(ledger, 1), lambda: aggregator.add(torch.ones(2))):
            with pytest.raises(ValueError, match="skipped its round"):
                call()
        assert ledger.events == [plan.event]


def test_nothing_is_added_to_a_round_that_is_over() -> None:
    server = collection.Collection(plan_for(), torch.zeros(2))
    bounded = server.half.bound(torch.ones(1, 2), server.half.weights(None, 1))
    one = server.half.bound_parts([torch.ones(2)], server.half.weights(None, 1))
    assert one is not None
    server.add(bounded)
    server.release()
    for call in (lambda: server.add(bounded), lambda: server.add_parts(one)):
        with pytest.raises(ValueError, match="has released"):
            call()
