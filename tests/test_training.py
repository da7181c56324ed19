"""simulation.training: what runs is accounted; a run repeats and resumes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import digits_model as model
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.plan.ledger import Ledger
from fldp.simulation.sampling import FixedSize, Poisson


@pytest.fixture(scope="module")
def people(data: tuple[Tensor, Tensor]) -> Any:
    x, y = data
    return fldp.clients.partition(x[:1440], y[:1440], clients=480, seed=0)


def plan_for(epsilon: float = 8.0, rounds: int = 8, **options: Any) -> fldp.PrivacyPlan:
    options = {"clients": 480, "cohort": 120, "delta": 1e-3} | options
    return fldp.calibrate(epsilon=epsilon, rounds=rounds, **options)


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RECIPE: dict[str, Any] = {
    "clip": 1.0, "local": fldp.LocalSGD(lr=2.0), "server": fldp.FedAvgM(lr=1.0, momentum=0.5),
}  # fmt: skip


@pytest.mark.slow
def test_digits_are_learnt_and_privacy_costs_what_the_issue_allows(
    people: Any, data: tuple[Tensor, Tensor]
) -> None:
    validation = (data[0][1440:], data[1][1440:])

    def mean(epsilon: float | None) -> float:
        runs = []
        for seed in range(5):
            plan = None if epsilon is None else plan_for(epsilon, rounds=60)
            free = {"rounds": 60, "cohort": 120} if plan is None else {"generator": noise(seed)}
            run = fldp.train(
                model(), people, plan, validation=validation, seed=seed, **free, **RECIPE
            )
            runs.append(run.accuracy[-1])
        return sum(runs) / len(runs)

    without = mean(None)
    assert without >= 0.90
    assert mean(8.0) >= without - 0.01
    assert mean(2.0) >= 0.88
    assert mean(1.0) >= 0.84


def test_the_same_seeds_give_the_same_model_and_the_given_one_is_untouched(people: Any) -> None:
    start = model()
    before = flatten(start)
    runs = [
        fldp.train(start, people, plan_for(), seed=3, generator=noise(), **RECIPE) for _ in range(2)
    ]
    assert torch.equal(flatten(runs[0].model), flatten(runs[1].model))
    assert torch.equal(flatten(start), before)
    assert "generator" in runs[0].statement
    other = fldp.train(start, people, plan_for(), seed=3, **RECIPE)
    assert not torch.equal(flatten(other.model), flatten(runs[0].model))


def test_the_server_steps_along_a_release_and_nothing_else(people: Any) -> None:
    """Replaying the released means through the server optimiser gives the model: noise first."""
    seen: list[Tensor] = []

    class Spy(fldp.FedAdam):
        def direction(self, mean: Tensor) -> Tensor:
            seen.append(mean.clone())
            return super().direction(mean)

    plan = plan_for()
    history = fldp.train(model(), people, plan, server=Spy(lr=0.05), generator=noise())
    server, flat = fldp.FedAdam(lr=0.05), flatten(model())
    for t, mean in enumerate(seen):
        flat = server.step(flat, mean, t / plan.rounds)
    assert torch.allclose(flat, flatten(history.model), atol=1e-6)
    # Each mean carries the full noise: 650 coordinates, false alarm below 1e-6 at 20 %.
    still = [m for m in seen if len(m) == 650]
    assert len(still) == plan.rounds
    spread = float((seen[-1] - seen[-2]).std()) / math.sqrt(2)
    assert spread > 0.8 * plan.noise_multiplier / 120


@pytest.mark.slow
def test_every_algorithm_has_one_account(people: Any) -> None:
    """Epochs, SCAFFOLD, partial training, clients' own code, any server: one plan, one account."""

    def constant(net: nn.Module, x: Tensor, y: Tensor) -> None:
        for p in net.parameters():
            p.data.add_(1e6)

    plan, seen = plan_for(rounds=3), []
    locals_ = [
        fldp.LocalSGD(lr=2.0), fldp.LocalSGD(lr=0.5, epochs=5, batch_size=1),
        fldp.FedProx(lr=0.5, epochs=5, proximal=1.0), fldp.Scaffold(lr=0.5, epochs=5),
        fldp.LocalSGD(lr=2.0, trainable=["weight"]), fldp.LocalFunction(constant),
    ]  # fmt: skip
    servers = [fldp.FedAvg(average=0.5), fldp.FedAvgM(cooldown=0.5), fldp.FedAdam(), fldp.FedYogi()]
    for k, local in enumerate(locals_):

        class Spy(type(local)):  # type: ignore[misc]
            def absorb(self, mean: Tensor, rate: float = 1.0) -> Tensor:
                seen.append(mean.clone())
                return super().absorb(mean, rate)

        spy = Spy(**{f: getattr(local, f) for f in type(local).__match_args__})
        for server in servers[k % 2 :: 2]:
            seen.clear()
            run = fldp.train(model(), people, plan, local=spy, server=server, generator=noise())
            assert run.events == [plan.event] * plan.rounds
            assert run.epsilon[-1] == plan.epsilon()
            # Clients that all send the same constant still leave the noise: its spread over 640
            # coordinates or more is within 20 % of zC/m but for 1 run in a million.
            spread = [float(mean.std()) for mean in seen]
            assert min(spread) > 0.8 * plan.noise_multiplier / plan.denominator


def test_epsilon_grows_to_the_plans_and_is_that_of_the_events(people: Any) -> None:
    plan = plan_for()
    history = fldp.train(model(), people, plan, **RECIPE)
    assert history.events == [plan.event] * plan.rounds
    assert history.epsilon == sorted(history.epsilon)
    assert history.epsilon[-1] == plan.epsilon() <= plan.target_epsilon
    assert history.stopped == f"all {plan.rounds} rounds are done"
    assert history.statement.startswith(plan.statement())


def test_a_round_beyond_the_budget_is_refused_before_anybody_is_sampled(
    people: Any, tmp_path: Path
) -> None:
    plan, sampled = plan_for(), []

    class Counting(Poisson):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            sampled.append(1)
            return super().sample(clients, draws, round)

    path = tmp_path / "ledger.jsonl"
    with Ledger(path, plan) as ledger:
        for t in range(5):
            ledger.record(plan.event, t + 1)
    history = fldp.train(model(), people, plan, ledger=path, sampler=Counting(0.25))
    assert history.rounds == len(sampled)
    assert len(Ledger.read(path)) == plan.rounds
    assert history.rounds == 3
    assert "refused before sampling" in history.stopped
    assert history.epsilon[-1] <= plan.target_epsilon


def test_a_resumed_run_equals_one_that_never_stopped(people: Any, tmp_path: Path) -> None:
    plan = plan_for()
    whole = fldp.train(model(), people, plan, seed=5, generator=noise(), **RECIPE)
    paths: dict[str, Any] = {"checkpoint": tmp_path / "run.pt", "ledger": tmp_path / "ledger.jsonl"}
    first = fldp.train(
        model(), people, plan, seed=5, generator=noise(), **paths, **RECIPE,
        callbacks=[lambda t, history: t == 3],
    )  # fmt: skip
    assert first.rounds == 3
    rest = fldp.train(
        model(), people, plan, seed=5, generator=noise(77), resume=True, **paths, **RECIPE
    )
    assert torch.equal(flatten(rest.model), flatten(whole.model))
    assert rest.rounds == plan.rounds
    assert rest.epsilon == pytest.approx(whole.epsilon)
    assert len(Ledger.read(paths["ledger"])) == plan.rounds


def test_an_event_is_recorded_before_its_release(
    people: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"

    def crash(self: Any, *_: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("fldp.mechanism.collection.Collection._finish", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        fldp.train(model(), people, plan_for(), ledger=path)
    assert len(Ledger.read(path)) == 1


def test_empty_rounds_still_release_noise() -> None:
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    few = fldp.clients.partition(x, y, clients=20, seed=0)
    plan = fldp.calibrate(epsilon=2.0, delta=1e-3, rounds=6, clients=20, cohort=1)
    start = nn.Linear(3, 2)
    history = fldp.train(start, few, plan, seed=1)
    assert history.private["cohort"].count(0) >= 1
    assert history.rounds == 6
    assert not torch.equal(flatten(history.model), flatten(start))


@pytest.mark.parametrize(
    ("sampler", "plan_options"),
    [
        (FixedSize(120), {}),
        (Poisson(0.3), {}),
        (Poisson(0.25), {"sampling": "fixed", "adjacency": "replace-one", "rounds": 2}),
    ],
    ids=["fixed for Poisson", "another rate", "Poisson for fixed"],
)
def test_a_sampler_that_the_plan_did_not_account_for_is_refused(
    people: Any, sampler: Any, plan_options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="is not what the plan accounts for"):
        fldp.train(model(), people, plan_for(**plan_options), sampler=sampler)


def test_patience_keeps_the_best_model_and_says_what_it_costs(
    people: Any, data: tuple[Tensor, Tensor]
) -> None:
    validation = (data[0][1440:], data[1][1440:])
    history = fldp.train(
        model(), people, plan_for(epsilon=0.5, rounds=40), validation=validation, patience=3,
        local=fldp.LocalSGD(lr=2.0), generator=noise(),
    )  # fmt: skip
    assert "has not improved for 3 rounds" in history.stopped
    best = max(history.accuracy)
    accuracy = float((history.model(validation[0]).argmax(1) == validation[1]).double().mean())
    assert accuracy == pytest.approx(best)
    assert history.accuracy[history.best_round - 1] == best
    assert "that choice is not covered" in history.statement


def test_adaptive_clipping_and_scaffold_run_within_the_same_account(people: Any) -> None:
    plan = plan_for()
    adaptive = fldp.train(
        model(), people, plan, clip=fldp.AdaptiveClip(0.1), local=fldp.LocalSGD(lr=2.0)
    )
    assert adaptive.clip_norm[0] == 0.1
    assert adaptive.clip_norm[-1] > 0.1
    scaffold = fldp.train(model(), people, plan, local=fldp.Scaffold(lr=0.5))
    for history in (adaptive, scaffold):
        assert history.epsilon[-1] == pytest.approx(plan.epsilon(), rel=1e-9)


@pytest.mark.parametrize(
    "sampled", [{"sampling": "fixed", "adjacency": "replace-one"}, {"cap": 200}]
)
def test_clients_with_a_memory_are_refused_where_one_client_moves_the_others_coins(
    people: Any, sampled: dict[str, Any]
) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=2, clients=480, cohort=120, **sampled)
    with pytest.raises(ValueError, match="remember"):
        fldp.train(model(), people, plan, local=fldp.Scaffold(lr=0.5))
    assert fldp.train(model(), people, plan, local=fldp.LocalSGD(lr=0.5)).rounds == 2


def test_what_may_be_published_holds_nothing_private(
    people: Any, data: tuple[Tensor, Tensor]
) -> None:
    history = fldp.train(model(), people, plan_for(), validation=(data[0][:50], data[1][:50]))
    told = json.loads(history.to_json())
    assert set(told) == {
        "plan", "accuracy", "metric", "measure", "loss", "epsilon", "accounted", "clip_norm",
        "best_round", "engine", "stopped",
    }  # fmt: skip
    frame = history.to_pandas()
    assert list(frame.columns) == ["epsilon", "clip_norm", "accuracy", "loss"]
    assert len(frame) == 8
    assert history.plot() is not None


def test_the_baseline_without_privacy_says_so(people: Any) -> None:
    history = fldp.train(model(), people, None, rounds=3, cohort=120, clip=None)
    assert history.epsilon == [math.inf] * 3
    assert "guarantees nothing" in history.statement
    assert json.loads(history.to_json())["epsilon"] == [None] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip": None}, "clip is None"),
        ({"rounds": 5}, "rounds and cohort are the plan's"),
        ({"validation": (torch.zeros(3, 64), torch.zeros(2))}, "3 inputs and 2 labels"),
        (
            {"validation": (torch.full((1, 64), math.nan), torch.zeros(1).long())},
            "hold NaN",
        ),
    ],
)
def test_misuse_is_an_error_at_once(people: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fldp.train(model(), people, plan_for(), **options)


def test_another_population_model_or_plan_is_refused(people: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the plan is for 481 clients, the population has 480"):
        fldp.train(model(), people, plan_for(clients=481))
    with pytest.raises(ValueError, match="give rounds"):
        fldp.train(model(), people, None)
    path = tmp_path / "run.pt"
    fldp.train(model(), people, plan_for(rounds=2), checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint of another plan"):
        fldp.train(model(), people, plan_for(rounds=3), checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="checkpoint of another model"):
        fldp.train(nn.Linear(64, 11), people, plan_for(rounds=2), checkpoint=path, resume=True)


def test_progress_shows_the_account_and_marks_what_is_private(
    people: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fldp.train(model(), people, plan_for(rounds=2), progress=True)
    shown = capsys.readouterr().err
    assert "ε=" in shown
    assert "(private)" in shown


def test_what_a_callback_releases_meanwhile_is_in_the_account(people: Any, tmp_path: Path) -> None:
    """The run's ε and gate looked at the ledger once, at the start."""
    plan = plan_for(rounds=4)
    with Ledger(tmp_path / "ledger.jsonl", plan) as book:

        def validate(round: int, history: Any) -> None:
            book.record(fldp.accounting.Laplace(1.0), label="validation")

        history = fldp.train(model(), people, plan, ledger=book, callbacks=[validate])
        assert "would exceed" in history.stopped
        assert history.rounds < 4
        assert history.epsilon[-1] == history.now == pytest.approx(book.epsilon(), rel=1e-9)
        assert f"The ledger holds {history.rounds} other entries" in " ".join(
            history.statement.split()
        )


def test_a_statement_says_what_noise_weights_and_an_adaptive_clip_change(people: Any) -> None:
    plan = plan_for(rounds=2)

    def said(**options: Any) -> str:
        return " ".join(fldp.train(model(), people, plan, **options).statement.split())

    assert not any(word in said() for word in ("Weights:", "Clip:", "Noise of this run:"))
    weighted = said(weights="records", weight_cap=20.0, weight_total=400.0)
    assert "the noise on each sum has 20 times the std above" in weighted
    divisor = 400 * plan.sampling_rate
    assert f"the mean divides by {divisor:.10g}. Both numbers are taken as public" in weighted
    assert "Noise of this run: the discrete Gaussian" in said(noise=fldp.DiscreteGaussian())
    for options in ({"generator": noise()}, {"noise": fldp.DiscreteGaussian(noise())}):
        assert "whoever sees both subtracts it without any seed" in said(**options)
    assert "Clip: C follows a noised count" in said(clip=fldp.AdaptiveClip(1.0))


def test_p04_an_adaptive_run_is_accounted_in_every_adjacency(people: Any, tmp_path: Path) -> None:
    """A zeroed client used to keep a bit of 1/2, for which an add-or-remove account did not pay."""
    plan = plan_for(rounds=2)
    path = tmp_path / "ledger.jsonl"
    clip = fldp.AdaptiveClip(1.0, count_noise=0.6 * plan.noise_multiplier)
    fldp.train(model(), people, plan, clip=clip, ledger=path)
    z_delta, sigma = clip.noise_split(plan.noise_multiplier, plan.denominator)
    # From an update of norm C with its half bit to a zero update without one.
    moved = math.hypot(1 / z_delta, 0.5 / sigma)
    assert moved <= 1 / plan.noise_multiplier * (1 + 1e-12)
    with Ledger(path) as ledger:
        assert ledger.epsilon(adjacency="zero-out") == pytest.approx(
            replace(plan, adjacency="zero-out").epsilon(2)
        )


@pytest.mark.parametrize(
    "options",
    [
        {"plan": None, "rounds": "x"},
        {"plan": None, "rounds": 1.5},
        {"plan": None, "rounds": 2, "cohort": "x"},
        {"patience": "x"},
        {"weights": torch.ones(1, device="meta"), "weight_cap": 1.0},
    ],
)
def test_what_is_no_number_is_refused_in_our_words(people: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(rounds|cohort|patience) is .*: give|weights are"):
        fldp.train(model(), people, **({"plan": plan_for()} | options))


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"callbacks": 3}, "callbacks is 3: give a list of functions"),
        ({"callbacks": None}, "callbacks is None"),
        ({"callbacks": lambda done, history: None}, "callbacks is <function"),
        ({"callbacks": ["ab"]}, "a callback is 'ab'"),
        ({"callbacks": [lambda: None]}, r"give a function of \(round, history\)"),
        ({"checkpoint": 3}, "checkpoint is 3: give the path of a file"),
        ({"local": "sgd"}, "local is 'sgd'"),
        ({"device": "nope"}, "device is 'nope'"),
        ({"patience": 2}, "patience counts rounds"),
        ({"local": fldp.LocalSGD}, "local is <class"),
    ],
)
def test_nonsense_is_refused_before_anybody_is_drawn(
    people: Any, options: Any, say: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Tensor:
        raise AssertionError("somebody was drawn")

    monkeypatch.setattr("fldp.simulation.rounds.drawn", never)
    with pytest.raises(ValueError, match=say):
        fldp.train(model(), people, plan_for(), **options)


@pytest.mark.parametrize("kind", [fldp.LocalSGD, lambda threads: fldp.LocalFunction(max, threads)])
def test_threads_are_a_whole_number(kind: Any) -> None:
    for threads in (0, -1, "two", 1.5):
        with pytest.raises(ValueError, match="threads is"):
            kind(threads=threads)
