"""Skellam noise in a round: what it claims, what it refuses, and audits of it and of its faults."""

from __future__ import annotations

import dataclasses
import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import plan_for, seeded
from numpy.typing import NDArray
from scipy import stats

import fldp
from fldp.accounting import skellam_gdp
from fldp.accounting.filters import independent
from fldp.accounting.lattice import skellam_logpmf
from fldp.mechanism import grid as grids
from fldp.mechanism.collection import Collection
from fldp.mechanism.contribution import Contribution
from fldp.mechanism.grid import Grid, Terms, finest
from fldp.mechanism.lattice import Words, skellam
from fldp.mechanism.release import SkippedRound
from fldp.mechanism.rotation import Rotation
from fldp.mechanism.rounding import longest, round_within
from fldp.mechanism.secagg import Round, Rules
from fldp.mechanism.skellam import Encoder, LatticeSum, NoisyContribution, Skellam

KEY = bytes(range(32))
LIMITED: dict[str, Any] = {
    "separation": 1, "participations": 1, "correlation": independent(),
}  # fmt: skip


def shared(clients: int = 20, **changes: Any) -> fldp.PrivacyPlan:
    """A plan of distributed trust."""
    fields: dict[str, Any] = {"trust": "distributed", "min_survivors": 10}
    return plan_for(**{"clients": clients, **fields, **changes})


# A round.


@pytest.mark.slow
@pytest.mark.parametrize("central", [True, False])
def test_the_mean_is_right_and_the_noise_is_that_of_all_who_came(central: bool) -> None:
    plan = plan_for(20) if central else shared(20)
    rows = torch.randn(20, 4096, generator=seeded(1))
    rows *= 0.5 / rows.norm(dim=1, keepdim=True)
    release = fldp.aggregate(rows, plan, 1.0, noise=Skellam())
    growth = 1.0 if central else math.sqrt(2)
    assert growth / 20 <= release.noise_std <= 1.01 * growth / 20
    noise = (release.mean - rows.double().sum(0) / 20) / release.noise_std
    # 4,096 squares: five standard deviations, and a hundredth for rounding and the grid.
    assert 1 - 0.11 < float(noise.square().mean()) < 1.02 + 0.11
    assert abs(float(noise.mean())) < 5 / 64
    assert release.event == plan.event
    assert release.mean.dtype == torch.float64


def test_a_coarse_grid_says_how_much_louder_it_is() -> None:
    plan = shared(20)
    coarse = Skellam(bits=9)
    overhead = coarse.grid(plan, 1000).overhead
    release = fldp.aggregate(torch.ones(20, 1000), plan, noise=coarse)
    ratio = release.noise_std / (math.sqrt(2) / 20)
    assert 1.05 < ratio <= overhead < 2


def test_a_weight_counts_up_to_the_cap_before_it_is_rounded() -> None:
    plan = shared(12, noise_multiplier=1e-3)
    rows = torch.eye(12, 16) * 0.5
    weights = [1.0, 2.0, 3.0, 9.0, *[0.0] * 8]
    release = fldp.aggregate(rows, plan, 1.0, weights=weights, weight_cap=3.0, noise=Skellam())
    wanted = torch.tensor([0.5, 1.0, 1.5, 1.5, *[0.0] * 12]) / (12 * 3)
    assert torch.allclose(release.mean, wanted.double(), atol=1e-3)


def test_what_clients_send_is_bounded_as_ever() -> None:
    rows = torch.zeros(10, 3)
    rows[0] = math.nan
    rows[1] = 1e30
    rows[2, 0] = math.inf
    release = fldp.aggregate(rows, shared(10, noise_multiplier=1e-4), 1.0, noise=Skellam())
    assert float(release.mean.norm()) <= 0.1 * (1 + 1e-2)
    assert release.private.malformed == 2


def test_a_seed_makes_the_noise_again_and_without_it_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(noise: Skellam) -> list[float]:
        return fldp.aggregate(torch.ones(20, 5), shared(), noise=noise).mean.tolist()

    for rotation_seed in (None, 1):
        first, again, other = (
            run(Skellam(rotation_seed=rotation_seed, generator=seeded(seed))) for seed in (4, 4, 5)
        )
        assert first == again != other
    assert run(Skellam(rotation_seed=1)) != run(Skellam(rotation_seed=1))
    assert Skellam(generator=seeded(1)).reproducible
    assert not Skellam(rotation_seed=1).reproducible


def test_a_new_rotation_every_round_unless_it_is_fixed() -> None:
    row = torch.ones(1, 7)
    free, fixed = Skellam(), Skellam(rotation_seed=3)
    assert free.rotation(7).forth(row).tolist() != free.rotation(7).forth(row).tolist()
    assert fixed.rotation(7).forth(row).tolist() == fixed.rotation(7).forth(row).tolist()


@pytest.mark.slow
def test_a_run_trains_with_it_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    x, y = torch.randn(60, 4, generator=seeded(2)), torch.arange(60) % 2
    people = fldp.clients.partition(x, y, clients=20, seed=0)
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=3, clients=20, trust="distributed", min_survivors=12,
        colluders=3,
    )  # fmt: skip
    kept: dict[str, Any] = {"checkpoint": tmp_path / "run", "ledger": tmp_path / "ledger"}
    stop = [lambda done, _: done == 1]
    fldp.train(torch.nn.Linear(4, 2), people, plan, noise=Skellam(), callbacks=stop, **kept)
    with pytest.raises(ValueError, match="another noise mechanism"):
        fldp.train(torch.nn.Linear(4, 2), people, plan, noise=Skellam(bits=16), resume=True, **kept)
    history = fldp.train(torch.nn.Linear(4, 2), people, plan, noise=Skellam(), resume=True, **kept)
    assert history.epsilon[-1] == pytest.approx(plan.epsilon())
    told = " ".join(history.statement.split())
    assert "Noise of this run: Skellam" in told
    assert "at least 12 are honest and at most 3 tell it what they know" in told


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_where_its_noise_repeats(tmp_path: Path) -> None:
    x, y = torch.randn(60, 4, generator=seeded(2)), torch.arange(60) % 2
    people = fldp.clients.partition(x, y, clients=20, seed=0)
    plan = shared(20, rounds=3)

    def trained(seed: int, **options: Any) -> list[float]:
        model = torch.nn.Linear(4, 2)
        torch.nn.init.constant_(model.weight, 0.1)
        torch.nn.init.zeros_(model.bias)
        noise = Skellam(generator=seeded(seed))
        history = fldp.train(model, people, plan, noise=noise, seed=3, **options)
        assert "Reproducible noise" in history.statement
        found = torch.nn.utils.parameters_to_vector(history.model.parameters())
        return list(found.tolist())

    stop = [lambda done, _: done == 1]
    whole = trained(7)
    assert trained(7, checkpoint=tmp_path / "run", callbacks=stop) != whole
    # The generator's state is the checkpoint's, whatever is given.
    assert trained(8, checkpoint=tmp_path / "run", resume=True) == whole
    assert trained(8) != whole


# Two processes.


def test_the_halves_add_up_to_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = shared(12, noise_multiplier=1e-3)
    noise = Skellam(bits=24, rotation_seed=5)
    rows = torch.randn(12, 10, generator=seeded(3))
    rows *= 0.9 / rows.norm(dim=1, keepdim=True)
    client = NoisyContribution(plan, torch.zeros(10), noise=noise)
    uploads = [client.encode(row) for row in rows]
    for upload in uploads:
        assert upload.shape == (16,)
        assert upload.dtype == np.int64
        assert 0 <= upload.min() <= upload.max() < 2**24
    server = Collection(plan, torch.zeros(10), noise=noise)
    server.receive_sum(np.sum(uploads, axis=0) % 2**24, uploads=12)
    release = server.release()
    assert torch.allclose(release.mean, rows.double().sum(0) / 12, atol=6e-4)
    assert release.private.count == 12
    assert release.noise_std == pytest.approx(math.sqrt(1.2) * 1e-3 / 12, rel=0.01)


def test_a_whole_round_from_clients_to_a_release_in_the_ledger(tmp_path: Path) -> None:
    plan = shared(12, min_survivors=6, colluders=2, noise_multiplier=1e-3)
    noise = Skellam(rotation_seed=5)
    client = NoisyContribution(plan, torch.zeros(10), noise=noise)
    rows = torch.randn(12, 10, generator=seeded(3))
    rows *= 0.9 / rows.norm(dim=1, keepdim=True)
    # A client makes the rules of its own plan, and finds the server's.
    rules = Rules.for_plan(plan, 12, noise.grid(plan, 10))
    assert rules == Rules.for_plan(plan, 12, client.grid, nonce=rules.nonce)
    protocol = Round(rules)
    vectors = np.array([client.encode(row) for row in rows])
    total = protocol.run(vectors, no_shares=[0], no_upload=[3, 4], no_answer=[7])
    server = Collection(plan, torch.zeros(10), noise=noise)
    server.receive_sum(total, uploads=len(protocol.uploads))
    with fldp.Ledger(tmp_path / "ledger", plan) as ledger:
        release = server.release(ledger, round=0)
        assert ledger.events == plan.events(1)
    here = [row for number, row in enumerate(rows) if number not in (0, 3, 4)]
    assert torch.allclose(release.mean, torch.stack(here).double().sum(0) / 12, atol=6e-4)
    # Nine shares of noise, of which six are accounted.
    assert release.noise_std == pytest.approx(math.sqrt(9 / 6) * 1e-3 / 12, rel=0.01)
    told = " ".join(f"{plan.statement(release.reproducible)} {noise.statement()}".split())
    assert "Skellam, whole steps of a public grid" in told
    assert "eproducible noise" not in told
    assert "at least 6 are honest and at most 2 tell it" in told
    assert "A round to which fewer than 8 come is skipped" in told


def test_a_round_that_the_protocol_skips_is_spent(tmp_path: Path) -> None:
    plan = shared(12, min_survivors=6, colluders=2)
    noise = Skellam(rotation_seed=5)
    grid = noise.grid(plan, 10)
    with fldp.Ledger(tmp_path / "ledger", plan) as ledger:
        for number, (came, gone) in enumerate([(7, 0), (12, 5)]):
            server = Collection(plan, torch.zeros(10), noise=noise)
            vectors = np.zeros((came, grid.width), np.int64)
            with pytest.raises(SkippedRound):
                Round(Rules.for_plan(plan, came, grid)).run(vectors, no_upload=range(gone))
            with pytest.raises(SkippedRound):
                server.release(ledger, round=number)
            assert len(ledger.events) == number + 1


def test_a_client_adds_its_share_before_anything_leaves() -> None:
    plan = shared(20)
    client = NoisyContribution(plan, torch.zeros(2048), noise=Skellam(rotation_seed=1))
    modulus = 2**client.grid.bits
    sent = client.encode(torch.zeros(2048))
    centred = (sent + modulus // 2) % modulus - modulus // 2
    variance = float(client.grid.share)
    # 2,048 squares: five standard deviations.
    assert centred.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / 2048))
    assert variance * 10 == pytest.approx(client.grid.variance)
    assert (client.encode(torch.zeros(2048)) != sent).mean() > 0.9


def test_a_client_of_its_own_weights_stays_within_s() -> None:
    plan = shared(20)
    noise = Skellam(rotation_seed=1)
    client = NoisyContribution(plan, torch.zeros(64), weight_cap=2.0, noise=noise)
    generator = seeded(7)
    encoder = client._encoder
    for scale in (1e-3, 1.0, 1e30):
        row = torch.randn(64, generator=generator) * scale
        vector = client._half.encode(row, 5.0).vector
        steps = encoder.steps(vector[None], Words(KEY))
        assert int((steps**2).sum()) <= client.grid.limit


@pytest.mark.parametrize("like", [torch.zeros(64), {"a": torch.zeros(60), "b": torch.zeros(4)}])
def test_a_clients_half_crosses_to_its_process_and_no_noise_with_it(like: Any) -> None:
    client = NoisyContribution(shared(20), like, noise=Skellam(rotation_seed=1))
    data = pickle.dumps(client)
    one, other = (pickle.loads(data).encode(torch.zeros(64)) for _ in range(2))
    assert (one != other).any()


@pytest.mark.parametrize(
    ("total", "uploads", "words"),
    [
        (np.zeros(16), 12, "type float64"),
        (np.zeros(15, dtype=np.int64), 12, r"shape \(15,\)"),
        (np.full(16, 2**24), 12, r"modulo 2\^24"),
        (np.full(16, -1), 12, r"modulo 2\^24"),
        (np.zeros(16, dtype=np.int64), 13, "at most 12 clients"),
        (np.zeros(16, dtype=np.int64), 1.5, "uploads is 1.5"),
        (np.zeros(16, dtype=np.int64), -1, "uploads is -1"),
    ],
)
def test_what_is_no_sum_is_refused_and_leaves_nothing(total: Any, uploads: Any, words: str) -> None:
    server = Collection(shared(12), torch.zeros(10), noise=Skellam(bits=24, rotation_seed=5))
    with pytest.raises(ValueError, match=words):
        server.receive_sum(total, uploads)
    assert isinstance(server._sum, LatticeSum)
    assert not server._sum._noised
    with pytest.raises(SkippedRound, match="0 clients took part"):
        server.release()


def test_a_sum_comes_once_and_alone() -> None:
    noise = Skellam(bits=24, rotation_seed=5)
    nothing = np.zeros(16, dtype=np.int64)
    server = Collection(shared(12), torch.zeros(10), noise=noise)
    server.receive_sum(nothing, 11)
    with pytest.raises(ValueError, match="a round has one sum"):
        server.receive_sum(nothing, 1)
    half = server.half
    bounded = half.bound(torch.ones(1, 10), half.weights(None, 1))
    with pytest.raises(ValueError, match="takes no other row"):
        server.add(bounded)
    message = Contribution(torch.zeros(10)).encode(torch.ones(10))
    for sent in (message, "no message at all"):
        with pytest.raises(ValueError, match="takes no other row"):
            server.receive(sent)  # type: ignore[arg-type]
    assert server.release().private.count == 11
    with pytest.raises(ValueError, match="second release"):
        server.receive_sum(nothing, 11)
    for plan, how, words in (
        (plan_for(12), noise, "trust is 'central'"),
        (shared(12), None, "use Skellam noise"),
    ):
        with pytest.raises(ValueError, match=words):
            Collection(plan, torch.zeros(10), noise=how).receive_sum(nothing, 11)


def test_what_comes_beside_a_sum_makes_no_missing_noise_good() -> None:
    noise = Skellam(bits=24, rotation_seed=5)
    for uploads in (0, 9):
        server = Collection(shared(12), torch.zeros(10), noise=noise)
        server.receive_sum(torch.zeros(16, dtype=torch.int64), uploads)
        for _ in range(3):
            with pytest.raises(ValueError, match="takes no other row"):
                server.receive("malformed")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a round has one sum"):
            server.receive_sum(np.zeros(16, dtype=np.int64), 12)
        with pytest.raises(SkippedRound, match=f"{uploads} clients took part"):
            server.release()


@pytest.mark.parametrize(
    ("plan", "options", "words"),
    [
        (plan_for(10), {"noise": Skellam(rotation_seed=1)}, "trust is 'central'"),
        (shared(), {"noise": Skellam()}, "no rotation_seed"),
        (shared(), {"noise": Skellam(rotation_seed=1, generator=seeded(1))}, "must not come again"),
        (shared(), {"noise": fldp.Gaussian()}, "noise is Gaussian"),
        (shared(), {"noise": Skellam(rotation_seed=1), "clip": fldp.PerLayerClip(1.0)}, "layers"),
        ("plan", {"noise": Skellam(rotation_seed=1)}, "plan is"),
    ],
)
def test_a_client_refuses_what_is_not_accounted(
    plan: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        NoisyContribution(plan, torch.zeros(4), **options)


# What it claims.


def test_its_events_are_the_plans_and_its_noise_gives_their_z() -> None:
    for plan in (shared(20), plan_for(20, noise_multiplier=0.3), shared(500, cohort=100.0)):
        noise = Skellam()
        assert noise.events(plan, 3, 1000) == plan.events(3)
        grid = noise.grid(plan, 1000)
        assert grid.noise_multiplier >= plan.noise_multiplier


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (plan_for(20, trust="local"), "trust is 'local'"),
        (plan_for(20, sampling="poisson", cohort=5, cap=9), "cap is 9"),
        (plan_for(20, sampling="fixed", cohort=5, adjacency="replace-one"), "sampling is 'fixed'"),
        (plan_for(20, sampling="poisson", cohort=5, adjacency="replace-one"), "'replace-one'"),
        (plan_for(20, **LIMITED), "is fresh in every round"),
        (shared(20, target_epsilon=200.0), "sampler's term"),
        (shared(10_000, min_survivors=8000), "bits is 8: too few"),
    ],
)
def test_plans_that_it_does_not_give_are_refused_at_once(
    plan: fldp.PrivacyPlan, words: str
) -> None:
    noise = Skellam(bits=8 if plan.clients == 10_000 else None)
    with pytest.raises(ValueError, match=words):
        noise.events(plan, 1, 100)
    with pytest.raises(ValueError, match=words):
        fldp.aggregate(torch.zeros(2, 100), plan, noise=noise)


@pytest.mark.parametrize(
    "plan",
    [
        plan_for(20, sampling="poisson", cohort=5),
        plan_for(20, sampling="poisson", cohort=5, adjacency="zero-out"),
        plan_for(20, adjacency="replace-one"),
        plan_for(20, sampling="fixed", cohort=20, adjacency="replace-one"),
        shared(20, sampling="poisson", cohort=15, cap=18),
        shared(20, sampling="fixed", cohort=15, adjacency="replace-one"),
        shared(20, sampling="poisson", cohort=15, adjacency="replace-one"),
    ],
)
def test_pairs_are_accounted_under_every_sampler(plan: fldp.PrivacyPlan) -> None:
    assert Skellam().events(plan, 2, 100) == plan.events(2)


def test_clips_that_do_not_fit_are_refused_before_anybody_is_sampled() -> None:
    x, y = torch.randn(20, 4), torch.arange(20) % 2
    people = fldp.clients.partition(x, y, clients=20, seed=0)
    for clip, words in (
        (fldp.PerLayerClip(1.0), "PerLayerClip scales layers apart"),
        (fldp.AdaptiveClip(), "sum of bits"),
    ):
        with pytest.raises(ValueError, match=words):
            fldp.aggregate(torch.zeros(12, 4), shared(20), clip, noise=Skellam())
        with pytest.raises(ValueError, match=words):
            fldp.train(torch.nn.Linear(4, 2), people, shared(20), clip=clip, noise=Skellam())
    with pytest.raises(ValueError, match="no noised sum of bits"):
        Skellam().count(1, 1.0)
    with pytest.raises(ValueError, match="needs a plan"):
        Skellam().start(4, torch.empty(0), 1.0, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 7}, "bits is 7"),
        ({"bits": 33}, "bits is 33"),
        ({"bits": "16"}, "bits is '16'"),
        ({"rotation_seed": -1}, "rotation_seed is -1"),
        ({"generator": 3}, "generator is 3"),
    ],
)
def test_settings_that_are_none_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Skellam(**options)


@pytest.mark.filterwarnings("ignore:.*taught the model nothing")
def test_fewer_than_survivors_and_colluders_is_a_skipped_round() -> None:
    plan = shared(20, colluders=4)
    with pytest.raises(SkippedRound, match=r"13 clients .* min_survivors = 10 and 4 colluders"):
        fldp.aggregate(torch.zeros(13, 3), plan, noise=Skellam())
    release = fldp.aggregate(torch.zeros(14, 3), plan, noise=Skellam())
    # Shares are made for the honest ones: the colluders' come on top.
    assert release.noise_std == pytest.approx(math.sqrt(1.4) / 20, rel=0.01)


def test_what_wraps_around_is_wrong_and_no_error() -> None:
    grid = Grid(8, 4, 10.0, 150, Fraction(1), 1, 1.0)
    encoder = Encoder(grid, 1.0, Rotation(b"seed", 4))
    total = np.array([127, 128, 256 + 5, -3])
    assert encoder.wrapped(total).tolist() == [127, 128, 5, 253]
    turned = encoder.rotation.forth(encoder.update(total)[None])[0] * 10
    assert turned.round().tolist() == [127, -128, 5, -3]


# Audits: a canary against an empty round, by the best test of its law, and a bound on μ.


def mu_at_least(present: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    """A lower bound at 99.9 % on the μ of a claim of GDP.

    The threshold is chosen on the first half; on the second both error rates are bounded from
    above (Clopper & Pearson), each at 99.95 %: no trade-off curve above the claim's meets both.
    """
    half = len(present) // 2

    def rates(cut: float, first: bool) -> tuple[int, int]:
        part = slice(0, half) if first else slice(half, None)
        return int((absent[part] > cut).sum()), int((present[part] <= cut).sum())

    def bound(cut: float, first: bool) -> float:
        wrong = np.array(rates(cut, first))
        upper = stats.beta.ppf(0.9995, wrong + 1, half - wrong)
        return float(-stats.norm.ppf(upper).sum())

    cuts = np.quantile(absent[:half], np.linspace(0.01, 0.999, 60))
    best = max(cuts.tolist(), key=lambda cut: bound(cut, first=True))
    return bound(best, first=False)


def along(grid: Grid, size: int, arrived: int, runs: int = 20_000) -> float:
    """μ that the sum's component along a canary of norm C shows, with so many honest shares."""
    encoder = Encoder(grid, 1.0, Rotation(b"public", size))
    canary = torch.ones(size, dtype=torch.float64) / math.sqrt(size)
    direction = encoder.rotation.forth(canary[None])[0].numpy()
    words = Words(KEY)

    def noise() -> NDArray[np.float64]:
        width = encoder.rotation.padded
        drawn = skellam(grid.share, runs * width, words, arrived)
        return drawn.reshape(runs, width) @ direction

    steps = encoder.steps(canary.expand(runs, size), words)
    return mu_at_least(steps @ direction + noise(), noise())


def grid_of(z: float, size: int, shares: int = 8) -> Grid:
    found = finest(Terms(z, size, uploads=shares, shares=shares, arriving=shares), 12)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("z", "size"), [(0.5, 16), (0.5, 64), (1.0, 4)])
def test_audits_of_the_sound_pipeline_stay_under_the_claim(z: float, size: int) -> None:
    found = along(grid_of(z, size), size, arrived=8)
    assert 0.5 / z < found < 1 / z


@pytest.mark.slow
def test_audits_catch_halved_noise_missing_survivors_and_counted_colluders() -> None:
    sound = grid_of(0.5, 16)
    claim = 2.0
    halved = dataclasses.replace(sound, share=sound.share / 2)
    assert along(halved, 16, arrived=8) > claim
    # A round that goes on with half of the survivors.
    assert along(sound, 16, arrived=4) > claim
    # Shares made for all uploads, half of whose senders tell the server their noise.
    for_all = dataclasses.replace(sound, share=sound.share * 8 / 16, shares=16)
    assert along(for_all, 16, arrived=16 - 8) > claim


def rounding_attack(limit: int, variance: float) -> float:
    """μ that a canary with every coordinate a small chance shows to the likelihood ratio."""
    runs, width, chance = 4000, 1024, 1 / 32
    words = Words(KEY)

    def noise() -> NDArray[np.int64]:
        drawn = skellam(Fraction(variance), runs * width, words)
        return drawn.reshape(runs, width)

    logs = skellam_logpmf(variance, 200)
    logs = np.concatenate([logs, logs[-2::-1]])

    def score(seen: NDArray[np.int64]) -> NDArray[np.float64]:
        ratio = np.exp(logs[seen - 1 + 200] - logs[seen + 200])
        return np.log1p(chance * (ratio - 1)).sum(axis=1)

    canary = np.full((runs, width), chance)
    return mu_at_least(score(round_within(canary, limit, words) + noise()), score(noise()))


@pytest.mark.slow
def test_audits_catch_a_norm_that_forgot_the_rounding() -> None:
    """Δ = 1 step over 1,024 coordinates is rounded to 32 of them; z = 1/4."""
    claim = 4.0
    low, high = 1e-3, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if skellam_gdp(middle) > claim:
            low = middle
        else:
            high = middle
    # The noise for S = Δ = 1, and nothing that keeps the rounded vector within.
    assert rounding_attack(2**40, high) > claim
    limit = longest(1.0, 1024)
    variance = grids._variance(Terms(0.25, 1024, 1, 1, 1), 1.0)
    assert math.sqrt(limit) * skellam_gdp(variance) == pytest.approx(claim, rel=1e-3)
    assert rounding_attack(limit, variance) < claim


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*taught the model nothing")
def test_an_audit_of_the_whole_release_stays_under_the_claim() -> None:
    plan = shared(8, min_survivors=8, noise_multiplier=0.5)
    noise = Skellam(bits=12)
    rows = torch.zeros(8, 4)
    canary = rows.clone()
    canary[0] = 0.5

    def scores(rows: torch.Tensor) -> NDArray[np.float64]:
        return np.array(
            [float(fldp.aggregate(rows, plan, noise=noise).mean.sum()) for _ in range(1000)]
        )

    found = mu_at_least(scores(canary), scores(rows))
    assert 0.8 < found < 2.0


def audited(uploads: int = 4, colluding: int = 0, runs: int = 1000) -> float:
    """μ that shows from clients to release: of four clients the first is a canary, or sends zeros.

    The colluding ones tell the server their noise, which takes it off the sum.
    """
    plan = shared(4, min_survivors=4, noise_multiplier=0.5)
    noise = Skellam(bits=12, rotation_seed=1)
    client = NoisyContribution(plan, torch.zeros(4), noise=noise)
    silent = client._encoder.steps(torch.zeros(1, 4), Words(KEY))[0]
    half = torch.full((4,), 0.5)

    def score(first: torch.Tensor) -> float:
        sent = [client.encode(first)]
        sent += [client.encode(torch.zeros(4)) for _ in range(uploads - 1 - colluding)]
        sent += [silent] * colluding
        server = Collection(plan, torch.zeros(4), noise=noise)
        server.receive_sum(np.sum(sent, axis=0) % 2**12, uploads=uploads)
        return float(server.release().mean.sum())

    present = np.array([score(half) for _ in range(runs)])
    return mu_at_least(present, np.array([score(torch.zeros(4)) for _ in range(runs)]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*taught the model nothing")
def test_audits_from_clients_to_release(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = 2.0
    assert 1.2 < audited() < claim
    # Colluders whom the plan counts as honest.
    assert audited(colluding=2) > claim
    with monkeypatch.context() as planted:
        # A server that goes on with half of the survivors.
        planted.setattr("fldp.mechanism.collection.fewest", lambda plan: 0)
        assert audited(uploads=2) > claim

    def halved(self: Encoder, shares: int, words: Words) -> NDArray[np.int64]:
        return skellam(self.grid.share / 2, self.rotation.padded, words, shares)

    monkeypatch.setattr(Encoder, "noise", halved)
    assert audited() > claim
