"""On a GPU: updates, cohorts and bounds of the processor, and noise of the right law."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plan_for
from scipy import stats
from test_zoo import HEAVY, SIZES, TRAINED, double, refusals, rows_of

import fldp
from benchmarks.zoo import Specimen
from fldp.mechanism.adaptive import AdaptiveClip
from fldp.mechanism.aggregation import PrivateAggregator, aggregate
from fldp.mechanism.correlation import Correlated
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.skellam import Skellam
from fldp.mechanism.updates import flatten
from fldp.simulation.engines import ENGINES
from fldp.simulation.objective import Objective

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# How often a test of a right law fails by chance.
FALSE_ALARM = 1e-6
# Coordinates whose noise is looked at.
MANY = 200_000
# So little noise that what is summed shows.
QUIET = 1e-4


def on_gpu(model: Any) -> Any:
    return copy.deepcopy(model).to("cuda")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("specimen", TRAINED, ids=lambda s: s.name)
def test_a_client_trains_as_on_the_processor(specimen: Specimen, engine: str) -> None:
    if specimen.family == HEAVY and engine != "auto":
        pytest.skip("large: with one engine it takes a second")
    if specimen.family == "Noise of its own":
        pytest.skip("its draws are torch's own, which differ from device to device")
    model, objective, people = double(specimen)
    with refusals(engine):
        there = rows_of(model, objective, people, engine, range(len(SIZES)))[0]
    loss = objective.loss
    if isinstance(loss, torch.nn.Module):
        objective = Objective(on_gpu(loss))
    with refusals(engine):
        here = rows_of(on_gpu(model), objective, people, engine, range(len(SIZES)))[0]
    assert here.is_cuda
    slack = 0.1 if there.dtype == torch.float32 else 1e-6
    for mine, expected in zip(here.cpu(), there, strict=True):
        assert float((mine - expected).norm()) <= slack * float(expected.norm())


def test_noise_has_its_law() -> None:
    rows = torch.zeros(4, MANY, device="cuda")
    for noise in (None, Gaussian(), DiscreteGaussian()):
        mean = aggregate(rows, plan_for(4), noise=noise).mean
        assert mean.is_cuda
        # z = 1, C = 1, m = 4.
        found = stats.kstest(4 * mean.double().cpu().numpy(), "norm")
        assert found.pvalue > FALSE_ALARM


def test_two_releases_share_no_noise() -> None:
    rows = torch.zeros(4, MANY, device="cuda")
    first = aggregate(rows, plan_for(4)).mean
    second = aggregate(rows, plan_for(4)).mean
    # Of independent noise |r| is above 6 / √MANY twice in 10⁹ runs.
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(float(correlation)) < 6 / MANY**0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e4, 1e30])
def test_no_client_moves_the_sum_by_more_than_the_clip(dtype: torch.dtype, size: float) -> None:
    torch.manual_seed(0)
    row = (size * torch.randn(1, 10_007, dtype=torch.float64)).to(dtype)
    rows = torch.cat([row, torch.zeros_like(row)]).cuda()
    plan = plan_for(2, noise_multiplier=QUIET)
    seeds = [torch.Generator("cuda").manual_seed(7) for _ in range(2)]
    noisy = aggregate(rows, plan, generator=seeds[0]).mean
    noise = aggregate(torch.zeros_like(rows), plan, generator=seeds[1]).mean
    moved = 2 * float((noisy.double() - noise.double()).norm())
    # The released mean is rounded after the noise: that is post-processing.
    rounding = 1e-6 if noisy.dtype == torch.float32 else 1e-12
    assert moved <= 1 + rounding
    if torch.isfinite(rows).all() and size >= 1:
        assert moved == pytest.approx(1, abs=1e-3)


def test_one_record_that_is_not_finite_counts_as_nothing() -> None:
    rows = torch.ones(3, 50, device="cuda")
    rows[1, 7] = float("nan")
    rows[2, 9] = float("inf")
    mean = aggregate(rows, plan_for(3, noise_multiplier=QUIET)).mean
    expected = torch.full((50,), 1 / 50**0.5 / 3)
    assert torch.allclose(mean.cpu(), expected, atol=10 * QUIET)


# What a run may be given beside model, clients and plan.
RUNS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "a loss with weights": {"loss": torch.nn.CrossEntropyLoss(weight=torch.arange(1.0, 11.0))},
    "adaptive clip": {"clip": AdaptiveClip(0.1)},
    "clip per layer": {"clip": fldp.PerLayerClip(1.0)},
    "FedAdam": {"server": fldp.FedAdam(lr=0.01)},
    "SCAFFOLD": {"local": fldp.Scaffold(lr=0.5)},
    "weights": {"weights": "records", "weight_cap": 40.0},
    "patience": {"patience": 2},
}


def run(device: str | None, at: str = "cpu", **changes: Any) -> fldp.History:
    """A run whose noise is too small to show; model and clients begin on `at`."""
    x, y = fldp.datasets.digits()
    people = fldp.clients.partition(x, y, clients=60, seed=0).to(at)
    plan = plan_for(60, noise_multiplier=QUIET, cohort=30, sampling="poisson", rounds=4)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)]
    model = torch.nn.Sequential(*layers).to(at)
    given: dict[str, Any] = {"validation": (x, y), "seed": 3} | copy.deepcopy(changes)
    return fldp.train(model, people, plan, device=device, **given)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_but_for_its_noise(name: str) -> None:
    expected = run(None, **RUNS[name])
    for device, at in (("cuda", "cpu"), (None, "cuda")):
        found = run(device, at, **RUNS[name])
        assert found.engine == expected.engine
        assert found.participations == expected.participations
        assert found.private["cohort"] == expected.private["cohort"]
        assert found.metric == pytest.approx(expected.metric, abs=0.02)
        mine, theirs = (flatten(each.model).cpu() for each in (found, expected))
        assert torch.allclose(mine, theirs, atol=2e-3), float((mine - theirs).abs().max())


def test_a_run_of_record_level_clients_goes_on_the_gpu() -> None:
    records = fldp.calibrate_records(
        epsilon=8.0, delta=1e-5, rounds=4, local_epochs=1, batch_size=5, client_sizes=[29] * 60
    )
    x, y = fldp.datasets.digits()
    people = fldp.clients.Population(x, y, torch.arange(29 * 60).view(60, 29))
    history = fldp.train(
        torch.nn.Linear(64, 10),
        people,
        None,
        clip=1.0,
        local=fldp.DPSGD(records, lr=0.5),
        rounds=4,
        validation=(x, y),
        device="cuda",
    )
    assert next(history.model.parameters()).is_cuda
    assert all(torch.isfinite(p).all() for p in history.model.parameters())


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    def noise() -> torch.Generator:
        return torch.Generator("cuda").manual_seed(5)

    whole = run("cuda", generator=noise())
    path = tmp_path / "run.pt"
    run("cuda", generator=noise(), checkpoint=path, callbacks=[lambda done, _: done == 2])
    resumed = run("cuda", generator=noise(), checkpoint=path, resume=True)
    assert resumed.rounds == whole.rounds
    assert torch.equal(flatten(resumed.model), flatten(whole.model))


def test_integer_noise_has_its_deviation() -> None:
    # Without sampling every client is paid for in each of the rounds, so that z is plain.
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-5, rounds=1, clients=8, trust="distributed", min_survivors=6
    )
    aggregator = PrivateAggregator(torch.zeros(MANY, device="cuda"), plan, 1.0, noise=Skellam())
    for _ in range(8):
        aggregator.add(torch.zeros(MANY, device="cuda"))
    release = aggregator.release()
    assert release.mean.is_cuda
    found = stats.kstest(release.mean.double().cpu().numpy() / release.noise_std, "norm")
    assert found.pvalue > FALSE_ALARM


def test_correlated_noise_is_what_its_filter_says() -> None:
    plan = fldp.calibrate(
        epsilon=8.0,
        delta=1e-3,
        rounds=8,
        clients=40,
        sampling="none",
        separation=4,
        participations=2,
        correlation="blt",
    )
    noise = Correlated(plan.correlation)
    fresh = []
    for _ in range(plan.rounds):
        rows = torch.zeros(10, MANY, device="cuda")
        fresh.append(aggregate(rows, plan, noise=noise).mean.double().cpu() * plan.denominator)
    whitened = plan.correlation.coefficients(plan.rounds)
    for t in range(plan.rounds):
        # What undoes the filter leaves noise that is fresh in every round.
        undone = sum(whitened[i] * fresh[t - i] for i in range(t + 1))
        found = stats.kstest(undone.numpy() / plan.noise_multiplier, "norm")
        assert found.pvalue > FALSE_ALARM
