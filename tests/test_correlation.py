"""Correlated noise as it streams: the matrix product, once a round, through a crash; an audit."""

from __future__ import annotations

import copy
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import fldp
from fldp.accounting import Event, Filtered, epsilon_of
from fldp.accounting.filters import Filter, fractional, independent
from fldp.accounting.fitting import banded, blt
from fldp.audit.bounds import from_scores
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.correlation import Correlated, noise_of_run
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.summation import RunningSum
from fldp.simulation.sampling import MinSeparation, Sampler

NOISE = Filter((1.0, -0.8), (1.0, -0.2))
FILTERS = {
    "independent": independent(),
    "order 1": NOISE,
    "fractional": fractional(5),
    "blt": blt(30, 3, 8, 2),
    "banded": banded(30, 3, 8),
    "long num": Filter((1.0, -0.5, -0.1, -0.05), (1.0, 0.1)),
    "long den": Filter((1.0, -0.5), (1.0, 0.1, 0.05, 0.01)),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noises(noise: Gaussian, rounds: int, size: int = 7, dtype: torch.dtype = torch.float64) -> Any:
    """The noise of so many rounds (rounds, d), on sums of nothing."""
    like = torch.empty(0, dtype=dtype)
    found = [noise.finish(noise.start(size, like, 1.0, 1), 1.0, 1.0) for _ in range(rounds)]
    return torch.stack(found).double().numpy()


def matrix(column: np.ndarray) -> np.ndarray:
    size = len(column)
    found = np.zeros((size, size))
    for start in range(size):
        found[start:, start] = column[: size - start]
    return found


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [1, 7, 40_000])
def test_the_stream_is_the_matrix_product(name: str, size: int) -> None:
    rounds = 30 if size < 10_000 else 4
    fresh = noises(Gaussian(generator()), rounds, size)
    streamed = noises(Correlated(FILTERS[name], generator()), rounds, size)
    assert np.allclose(streamed, matrix(FILTERS[name].inverse(rounds)) @ fresh, atol=1e-12)


def test_the_stream_of_single_precision_is_the_matrix_product_too() -> None:
    filter = FILTERS["blt"]
    fresh = noises(Gaussian(generator()), 200, 5, torch.float32)
    streamed = noises(Correlated(filter, generator()), 200, 5, torch.float32)
    assert np.allclose(streamed, matrix(filter.inverse(200)) @ fresh, atol=1e-5)


def test_secret_noise_has_the_covariance_that_is_stated() -> None:
    # False alarm below 1e-6: chi-squared of 4 · 5,000 whitened numbers, and their correlations.
    drawn = noises(Correlated(NOISE), 4, 5_000)
    white = matrix(NOISE.coefficients(4)) @ drawn
    square = float((white**2).sum())
    assert stats.chi2.ppf(5e-7, white.size) < square < stats.chi2.isf(5e-7, white.size)
    across = np.corrcoef(white)[np.triu_indices(4, 1)]
    assert (np.abs(across) < 6 / math.sqrt(5_000)).all()
    # And it is not what comes out of it.
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) > 0.3


@pytest.mark.parametrize("name", FILTERS)
def test_a_resumed_stream_is_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole = noises(Correlated(FILTERS[name], generator()), 20)
    first = Correlated(FILTERS[name], generator())
    before = noises(first, 12)
    torch.save(first.state_dict(), tmp_path / "state")
    second = Correlated(FILTERS[name], generator(99))
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    with pytest.raises(ValueError, match="not told which rounds"):
        noises(second, 1)
    second.skip(0)
    assert (second.rounds, second.run) == (12, first.run)
    assert np.array_equal(np.concatenate([before, noises(second, 8)]), whole)


def test_without_a_crash_nothing_is_skipped() -> None:
    noise = Correlated(NOISE, generator())
    noise.skip(0)
    assert noise.rounds == 0


def test_the_state_of_another_noise_is_refused() -> None:
    for state in (
        Correlated(Filter((1.0, -0.7), (1.0, -0.2))).state_dict(),
        Gaussian().state_dict(),
    ):
        with pytest.raises(ValueError, match="that of another noise"):
            Correlated(NOISE).load_state_dict(state)


def test_a_lost_round_is_spent_and_the_filter_starts_anew() -> None:
    noise = Correlated(NOISE)
    noises(noise, 3)
    later = Correlated(NOISE)
    later.load_state_dict(noise.state_dict())
    later.skip(2)
    assert later.rounds == 5
    assert later.marginal(1.0) == 1.0
    noises(later, 1)
    assert later.rounds == 6


@pytest.mark.parametrize("name", ["order 1", "fractional", "blt", "banded"])
def test_a_filter_that_starts_anew_moves_no_client_further(name: str) -> None:
    """C in two blocks is nowhere above C: what the crash rule stands on."""
    filter, rounds = FILTERS[name], 24
    whole = matrix(filter.coefficients(rounds))
    allowed = filter.sensitivity(rounds, 3, 8)
    for cut in range(1, rounds):
        parts = whole.copy()
        parts[cut:, :cut] = 0.0
        for start in range(rounds):
            for first, second in ((8, 8), (9, 8), (8, 11), (12, 9)):
                turns = [t for t in (start, start + first, start + first + second) if t < rounds]
                moved = float(np.linalg.norm(parts[:, turns].sum(axis=1)))
                assert moved <= allowed * (1 + 1e-12)


def test_the_noise_of_lost_rounds_does_not_come_again_from_a_generator() -> None:
    noise = Correlated(NOISE, generator())
    noises(noise, 2)
    with pytest.raises(ValueError, match="resume without a generator"):
        noise.skip(1)


def test_a_round_is_not_noised_again() -> None:
    noise = Correlated(NOISE, generator())
    state = noise.state_dict()
    noises(noise, 2)
    with pytest.raises(ValueError, match="past round 2: a state"):
        noise.load_state_dict(state)
    with pytest.raises(ValueError, match="not copied"):
        copy.deepcopy(noise)
    with pytest.raises(ValueError, match="not copied"):
        copy.copy(noise)
    with pytest.raises(ValueError, match="not copied"):
        pickle.dumps(noise)


def test_a_planted_copy_that_reuses_a_round_shows_the_data() -> None:
    """What the rule is for: two sums with the noise of one round differ by their data alone."""

    class Reused(Correlated):
        def load_state_dict(self, state: Any) -> None:
            self._rounds = 0
            super().load_state_dict(state)
            self.skip(0)

    like = torch.empty(0, dtype=torch.float64)
    noise = Reused(NOISE, generator())
    state = noise.state_dict()

    def release(row: Tensor) -> Tensor:
        total = noise.start(3, like, 1.0, 1)
        noise.accumulate_(total, row, [(0, 3, torch.ones(1, dtype=torch.float64))])
        return noise.finish(total, 1.0, 1.0)

    ones = torch.ones(1, 3, dtype=torch.float64)
    first = release(ones)
    noise.load_state_dict(state)
    assert torch.allclose(release(0 * ones) - first, -ones[0], atol=1e-12)


def test_two_noises_are_two_runs() -> None:
    assert Correlated(NOISE).run != Correlated(NOISE).run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_makes_no_noise() -> None:
    noise = Correlated(NOISE)
    noises(noise, 1)
    child = os.fork()
    if child == 0:
        try:
            noises(noise, 1)
        except ValueError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_round_that_broke_off_is_spent() -> None:
    class Breaks(RunningSum):
        def noisy_mean(self, draws: Any, std: float, denominator: float) -> Tensor:
            next(iter(draws))
            raise MemoryError

    noise = Correlated(NOISE, generator())
    noises(noise, 2)
    with pytest.raises(MemoryError):
        noise.finish(Breaks(7, torch.empty(0, dtype=torch.float64), 1), 1.0, 1.0)
    assert noise.rounds == 3
    assert noise.state_dict()["state"] is None
    after = noises(noise, 1)
    # The filter began anew: the next round's noise is fresh noise alone.
    fresh = noises(Gaussian(generator()), 4)
    assert noise.marginal(1.0) == 1.0
    assert np.allclose(after[0], fresh[3])


@pytest.mark.parametrize(
    ("size", "std", "told"),
    [(8, 1.0, "8 numbers"), (7, 2.0, "std 2"), (7, 0.0, "more than 0")],
)
def test_a_run_keeps_its_size_and_its_noise(size: int, std: float, told: str) -> None:
    noise = Correlated(NOISE)
    noises(noise, 1)
    like = torch.empty(0, dtype=torch.float64)
    with pytest.raises(ValueError, match=told):
        noise.finish(noise.start(size, like, std, 1), std, 1.0)
    assert noise.rounds == 1


def plan(**changes: Any) -> fldp.PrivacyPlan:
    facts: dict[str, Any] = {
        "epsilon": 8.0, "delta": 1e-3, "rounds": 12, "clients": 48, "sampling": "none",
        "separation": 4, "adjacency": "zero-out", "correlation": NOISE,
    }  # fmt: skip
    return fldp.calibrate(**facts | changes)


def test_the_noise_of_a_release_is_that_of_its_round() -> None:
    limited = plan()
    noise = Correlated(limited.correlation)  # type: ignore[arg-type]
    powers = np.sqrt(np.cumsum(NOISE.inverse(5) ** 2))
    for power in powers:
        release = fldp.aggregate(torch.zeros(12, 3) + 0.1, limited, noise=noise)
        expected = limited.noise_multiplier * power / limited.denominator
        assert release.noise_std == pytest.approx(expected)
        assert isinstance(release.event, Filtered)
        assert release.event.run == noise.run


@pytest.mark.parametrize("noise", [None, Gaussian(), DiscreteGaussian(), Correlated(fractional(2))])
def test_noise_that_the_plan_does_not_account_for_is_refused(noise: Gaussian | None) -> None:
    with pytest.raises(ValueError, match=r"Correlated\(plan.correlation\)"):
        fldp.aggregate(torch.ones(12, 3), plan(), noise=noise)
    with pytest.raises(ValueError, match=r"Correlated\(plan.correlation\)"):
        PrivateAggregator(torch.zeros(3), plan(), noise=noise)


def test_correlated_noise_needs_a_plan_that_limits_participations() -> None:
    usual = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=12, clients=48)
    with pytest.raises(ValueError, match="fresh noise in every round"):
        fldp.aggregate(torch.ones(48, 3), usual, noise=Correlated(NOISE))
    with pytest.raises(ValueError, match="filter is 3"):
        Correlated(3)  # type: ignore[arg-type]


def test_a_clip_that_moves_is_refused_and_one_by_layers_is_not() -> None:
    with pytest.raises(ValueError, match="adaptive clipping moves C"):
        PrivateAggregator(torch.zeros(3), plan(), fldp.AdaptiveClip(1.0), noise=Correlated(NOISE))
    layers = {"a": torch.zeros(2), "b": torch.zeros(3)}
    clip = fldp.PerLayerClip({"a": 0.5, "b": 0.5})
    aggregator = PrivateAggregator(layers, plan(), clip, noise=Correlated(NOISE))
    aggregator.add({"a": torch.ones(2), "b": torch.ones(3)})
    assert set(aggregator.release().mean) == {"a", "b"}


def test_weights_with_one_cap_are_one_run_and_with_another_are_not() -> None:
    noise = Correlated(NOISE)
    for cap, goes in ((2.0, True), (2.0, True), (3.0, False)):
        aggregator = PrivateAggregator(torch.zeros(3), plan(), weight_cap=cap, noise=noise)
        aggregator.add(torch.ones(3), weight=1.5)
        if goes:
            aggregator.release()
            continue
        with pytest.raises(ValueError, match="keep clip norm and weights"):
            aggregator.release()


def test_the_noise_of_a_run_is_the_plans_or_refused() -> None:
    assert type(noise_of_run(None, None, None)) is Gaussian
    assert isinstance(noise_of_run(plan(), None, None), Correlated)
    mine = Correlated(NOISE)
    assert noise_of_run(plan(), mine, None) is mine
    noises(mine, 1)
    with pytest.raises(ValueError, match="another run's, past round 1"):
        noise_of_run(plan(), mine, None)
    with pytest.raises(ValueError, match="fresh in every round"):
        noise_of_run(plan(), Gaussian(), None)


# --- Training.


@pytest.fixture(scope="module")
def people() -> fldp.clients.Population:
    x, y = fldp.datasets.digits()
    return fldp.clients.partition(x[:480], y[:480], clients=48, seed=0)


def train(people: Any, limited: fldp.PrivacyPlan, **options: Any) -> fldp.History:
    torch.manual_seed(0)
    return fldp.train(nn.Linear(64, 10), people, limited, **options)


def weights(history: fldp.History) -> Tensor:
    return torch.cat([part.detach().flatten() for part in history.model.parameters()])


def test_a_run_spends_what_the_plan_says(people: Any) -> None:
    limited = plan()
    history = train(people, limited)
    assert history.epsilon[-1] == limited.epsilon() <= 8.0
    assert history.epsilon[3] == pytest.approx(limited.epsilon(4), rel=1e-12)
    names = {event.run for event in history.events}
    assert len(names) == 1
    assert len(history.events) == 12
    assert "at most 3 times, at least 4" in " ".join(history.statement.split())


def test_a_sampler_that_lies_is_stopped_by_the_run(people: Any) -> None:
    class Lies(MinSeparation):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            ids = super().sample(clients, draws, round)
            return torch.unique(torch.cat([ids, torch.tensor([5])]))

    with pytest.raises(ValueError, match="client 5, which took part in round "):
        train(people, plan(), sampler=Lies(4))
    with pytest.raises(ValueError, match="not what the plan accounts for"):
        train(people, plan(), sampler=Sampler())


def test_a_resumed_run_is_the_uninterrupted_one(people: Any, tmp_path: Path) -> None:
    whole = train(people, plan(), seed=3, generator=generator(1))

    def stop(done: int, history: fldp.History) -> bool:
        return done == 7

    files = {"checkpoint": tmp_path / "run", "ledger": tmp_path / "ledger"}
    train(people, plan(), seed=3, generator=generator(1), callbacks=[stop], **files)
    again = train(people, plan(), generator=generator(2), resume=True, **files)
    assert torch.equal(weights(again), weights(whole))
    assert again.epsilon == whole.epsilon
    assert again.private["lost"] == [0] * 12


class Cut(Exception):
    """A process that dies."""


def cut_off(people: Any, files: dict[str, Path], at: int, **options: Any) -> None:
    """A run that dies after the event of a round is on disk, and before its checkpoint is."""
    finish = Correlated.finish

    def dies(self: Correlated, total: Any, std: float, denominator: float) -> Tensor:
        mean = finish(self, total, std, denominator)
        if self.rounds == at:
            raise Cut
        return mean

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Correlated, "finish", dies)
        with pytest.raises(Cut):
            train(people, plan(), **files, **options)


@pytest.mark.parametrize("options", [{}, {"seed": 5}])
def test_a_round_that_a_crash_cut_off_is_skipped(
    people: Any, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"checkpoint": tmp_path / "run", "ledger": tmp_path / "ledger"}
    cut_off(people, files, at=6, **options)
    noised: list[tuple[str, int]] = []
    finish = Correlated.finish

    def noted(self: Correlated, total: Any, std: float, denominator: float) -> Tensor:
        mean = finish(self, total, std, denominator)
        noised.append((self.run, self.rounds))
        return mean

    monkeypatch.setattr(Correlated, "finish", noted)
    history = train(people, plan(), resume=True, **files)
    assert [number for _, number in noised] == [7, 8, 9, 10, 11, 12]
    assert history.private["lost"] == [0] * 5 + [1] + [0] * 6
    assert history.rounds == 12
    assert history.epsilon[-1] == plan().epsilon()
    with fldp.Ledger(files["ledger"]) as book:
        assert [entry.round for entry in book.entries] == list(range(1, 13))
        assert {entry.event.run for entry in book.entries} == {noised[0][0]}  # type: ignore[union-attr]
        assert book.epsilon() == pytest.approx(plan().epsilon())
    assert "A crash cut off 1 rounds" in " ".join(history.statement.split())
    # Twelve rounds, and clients in one of four: nobody more than three times, lost rounds included.
    assert sum(history.private["cohort"]) == 3 * 48


def test_a_checkpoint_of_long_ago_skips_all_that_the_ledger_has(
    people: Any, tmp_path: Path
) -> None:
    files = {"checkpoint": tmp_path / "run", "ledger": tmp_path / "ledger"}
    old: list[bytes] = []

    def keep(done: int, history: fldp.History) -> bool:
        if done == 2:
            old.append(files["checkpoint"].read_bytes())
        return done == 9

    train(people, plan(), callbacks=[keep], **files)
    files["checkpoint"].write_bytes(old[0])
    history = train(people, plan(), resume=True, **files)
    assert history.private["lost"] == [0, 0] + [1] * 7 + [0] * 3
    assert history.now == plan().epsilon()


def test_lost_rounds_of_a_generator_do_not_come_again(people: Any, tmp_path: Path) -> None:
    files = {"checkpoint": tmp_path / "run", "ledger": tmp_path / "ledger"}
    cut_off(people, files, at=3, generator=generator())
    with pytest.raises(ValueError, match="resume without a generator"):
        train(people, plan(), resume=True, generator=generator(), **files)


def test_a_checkpoint_without_a_ledger_is_refused(people: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give ledger beside checkpoint"):
        train(people, plan(), checkpoint=tmp_path / "run")


def test_a_second_run_on_one_ledger_is_counted_again(people: Any, tmp_path: Path) -> None:
    """Planted: merged by their plan, both would cost as much as one."""
    limited = plan(rounds=12)
    with fldp.Ledger(tmp_path / "ledger") as book:
        for _ in range(2):
            train(people, limited, ledger=book, callbacks=[lambda done, history: done == 6])
        moved = NOISE.sensitivity(6, 3, 4)
        one = Event(limited.noise_multiplier / moved)
        assert book.epsilon(1e-3, "zero-out") == pytest.approx(
            epsilon_of([one, one], 1e-3, "zero-out"), rel=1e-9
        )
        # Within the budget, or refused.
        history = train(people, limited, ledger=book)
        assert history.now <= 8.0 * (1 + 1e-6)
        assert "refused before sampling" in history.stopped


def test_a_seed_draws_no_coins_again_whatever_the_label(people: Any, tmp_path: Path) -> None:
    coins = plan(sampling="poisson", cohort=6, correlation=fractional(1))
    with fldp.Ledger(tmp_path / "ledger", coins) as book:
        book.record(replace(coins.events(2)[0], run="before"), label="by hand")
        with pytest.raises(ValueError, match="2 rounds of an earlier run"):
            train(people, coins, ledger=book, seed=1)


def test_a_clip_that_moves_is_refused_before_anybody_is_drawn(people: Any) -> None:
    with pytest.raises(ValueError, match="adaptive clipping moves C"):
        train(people, plan(), clip=fldp.AdaptiveClip(1.0))


def test_a_noise_object_is_one_run(people: Any) -> None:
    mine = Correlated(NOISE)
    train(people, plan(), noise=mine)
    with pytest.raises(ValueError, match="another run's, past round 12"):
        train(people, plan(), noise=mine)


def test_nobody_else_takes_rounds_from_the_noise_of_a_run(people: Any) -> None:
    limited = plan()
    for last in (2, 12):
        mine = Correlated(NOISE)

        def release(done: int, history: fldp.History, at: int = last, of: Any = mine) -> None:
            if done == at:
                fldp.aggregate(torch.ones(12, 650), limited, noise=of)

        with pytest.raises(ValueError, match=f"past round {last + 1}, the run past round {last}:"):
            train(people, limited, noise=mine, callbacks=[release])


def test_another_run_in_the_ledger_is_counted_beside_a_seed(people: Any, tmp_path: Path) -> None:
    coins = plan(sampling="poisson", cohort=6, correlation=fractional(1), rounds=8)
    with fldp.Ledger(tmp_path / "ledger", coins) as book:

        def other(done: int, history: fldp.History) -> bool:
            if done == 2:
                book.record(replace(coins.events(8)[0], run="other"), label="by hand")
            return done == 3

        history = train(people, coins, ledger=book, seed=1, callbacks=[other])
    assert history.participations is not None
    alone = coins.seeded_epsilon(history.participations[-1])
    assert history.now > 1.05 * alone


def test_two_runs_at_once_do_not_share_a_noise(people: Any) -> None:
    """Planted: without a claim both would begin, since neither has noised a round."""
    mine = Correlated(NOISE)
    noise_of_run(plan(), mine, None)
    with pytest.raises(ValueError, match="is another run's, past round 0"):
        train(people, plan(), noise=mine)


@pytest.mark.slow
def test_groups_that_take_turns_run_as_they_are_accounted(people: Any) -> None:
    amplified = plan(sampling="poisson", cohort=6, correlation=banded(12, 3, 4))
    history = train(people, amplified)
    assert history.epsilon[-1] == amplified.epsilon() <= 8.0
    seeded = train(people, amplified, seed=1)
    assert seeded.participations is not None
    assert seeded.epsilon[-1] == pytest.approx(amplified.seeded_epsilon(seeded.participations[-1]))


# --- An audit of the whole run: what its releases together tell of one client.


def run_scores(
    limited: fldp.PrivacyPlan, noise_of: Any, times: tuple[int, ...], runs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best test's statistic with and without the client, who adds 1 in the rounds `times`.

    The adversary undoes the filter and looks along what the client moves.
    """
    rounds = limited.rounds
    moved = matrix(NOISE.coefficients(rounds))
    moves = moved[:, list(times)].sum(axis=1)
    scores = []
    for there in (True, False):
        noise = noise_of(seed + there)
        like = torch.empty(0, dtype=torch.float64)
        sums = []
        for t in range(rounds):
            total = noise.start(runs, like, 1.0, 1)
            if there and t in times:
                row = torch.ones(1, runs, dtype=torch.float64)
                factors = torch.ones(1, dtype=torch.float64)
                noise.accumulate_(total, row, [(0, runs, factors)])
            sums.append(noise.finish(total, limited.noise_multiplier, 1.0).numpy())
        scores.append(moves @ (moved @ np.array(sums)) / np.linalg.norm(moves))
    return scores[0], scores[1]


def audited(limited: fldp.PrivacyPlan, noise_of: Any, times: tuple[int, ...], seed: int = 0) -> Any:
    present, absent = run_scores(limited, noise_of, times, runs=20_000, seed=seed)
    return from_scores(
        present, absent, delta=limited.delta, confidence=0.999, method="gdp",
        claimed=limited.epsilon(),
    )  # fmt: skip


@pytest.mark.slow
def test_an_audit_of_the_whole_run_reaches_its_epsilon_and_does_not_exceed_it() -> None:
    limited = plan(epsilon=2.0, delta=1e-5)
    found = audited(limited, lambda seed: Correlated(NOISE, generator(seed)), (0, 4, 8))
    assert not found.violated
    assert found.lower_bound > 0.8 * limited.epsilon()


@pytest.mark.slow
def test_the_audit_finds_participations_that_are_too_many_or_too_near() -> None:
    limited = plan(epsilon=2.0, delta=1e-5)

    def noise_of(seed: int) -> Correlated:
        return Correlated(NOISE, generator(seed))

    assert audited(limited, noise_of, (0, 3, 6, 9)).violated
    assert audited(limited, noise_of, (0, 1, 2)).violated


class NoisedAgain(Correlated):
    """Planted: the fourth round takes the fresh noise of the third once more."""

    def _draws(self, total: Any) -> Any:
        assert self._generator is not None
        if self.rounds == 4:
            self._generator.set_state(self.before)
        self.before = self._generator.get_state()
        return super()._draws(total)


@pytest.mark.parametrize("kind", [Correlated, NoisedAgain])
def test_the_audit_finds_fresh_noise_that_comes_again(kind: type[Correlated]) -> None:
    """The adversary undoes the filter, and subtracts the third round from the fourth."""
    limited = plan(epsilon=2.0, delta=1e-5)
    inverse = matrix(NOISE.coefficients(12))
    scores = []
    for seed, there in ((1, 1.0), (2, 0.0)):
        noise = kind(NOISE, generator(seed))
        like = torch.empty(0, dtype=torch.float64)
        sums = []
        for t in range(12):
            total = noise.start(2_000, like, 1.0, 1)
            row = torch.full((1, 2_000), there if t == 3 else 0.0, dtype=torch.float64)
            noise.accumulate_(total, row, [(0, 2_000, torch.ones(1, dtype=torch.float64))])
            sums.append(noise.finish(total, limited.noise_multiplier, 1.0).numpy())
        white = inverse @ np.array(sums)
        scores.append(white[3] - white[2])
    found = from_scores(
        scores[0], scores[1], delta=1e-5, confidence=0.999, claimed=limited.epsilon()
    )
    assert found.violated == (kind is NoisedAgain)


@pytest.mark.slow
def test_the_audit_finds_noise_scaled_to_k_and_not_to_the_filter() -> None:
    """Planted: z of independent noise, √k/μ, under a filter whose sensitivity is larger."""
    limited = plan(epsilon=2.0, delta=1e-5)
    share = math.sqrt(3) / NOISE.sensitivity(12, 3, 4)
    weak = replace(limited, noise_multiplier=limited.noise_multiplier * share)
    present, absent = run_scores(
        weak, lambda seed: Correlated(NOISE, generator(seed)), (0, 4, 8), 20_000, seed=0
    )
    found = from_scores(
        present, absent, delta=1e-5, confidence=0.999, method="gdp", claimed=limited.epsilon()
    )
    assert found.violated
