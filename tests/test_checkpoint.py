"""simulation.checkpoint: a run goes on as what it was, with what it spent, or not at all."""

from __future__ import annotations

import copy
import errno
import importlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fldp
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.updates import flatten
from fldp.plan.ledger import Ledger
from fldp.simulation.checkpoint import Checkpoint, described, fingerprint, outline
from fldp.simulation.clients import Population
from fldp.simulation.sampling import FixedSize, MinSeparation, Poisson

CLIENTS, ROUNDS = 20, 5


def people(seed: int = 0, sizes: tuple[int, ...] = (3,) * CLIENTS) -> Population:
    generator, lists, start = torch.Generator().manual_seed(seed), [], 0
    for size in sizes:
        lists.append(list(range(start, start + size)))
        start += size
    x = torch.randn(start, 6, generator=generator)
    return Population(x, torch.randint(0, 3, (start,), generator=generator), lists)


def plan(**options: Any) -> fldp.PrivacyPlan:
    settings = {"epsilon": 8.0, "delta": 1e-3, "rounds": ROUNDS, "clients": CLIENTS, "cohort": 10}
    return fldp.calibrate(**(settings | options))


def model(inner: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh() if inner is None else inner, nn.Linear(5, 3))


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def after(rounds: int) -> dict[str, Any]:
    return {"callbacks": [lambda done, history: done == rounds]}


def begin(path: Path, stop: int = 2, **options: Any) -> fldp.History:
    settings: dict[str, Any] = {"model": model(), "population": people(), "plan": plan()}
    settings |= options
    return fldp.train(**settings, checkpoint=path, **after(stop))


def go_on(path: Path, **options: Any) -> fldp.History:
    settings: dict[str, Any] = {"model": model(), "population": people(), "plan": plan()}
    settings |= options
    return fldp.train(**settings, checkpoint=path, resume=True)


def test_p10_noise_from_a_seed_stays_in_the_statement(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    assert "Reproducible noise" in begin(path, generator=noise()).statement
    history = go_on(path)
    assert history.rounds == ROUNDS
    assert "Reproducible noise" in history.statement
    other = tmp_path / "other.pt"
    begin(other)
    assert "Reproducible noise" in go_on(other, generator=noise()).statement
    clean = tmp_path / "clean.pt"
    begin(clean)
    assert "Reproducible" not in go_on(clean).statement


class Louder(fldp.FedAvg):
    pass


def frozen(shift: float = 0.0) -> nn.Module:
    net = model()
    net[0].requires_grad_(False)
    net[0].weight.data += shift
    return net


def buffered(value: float = 0.0) -> nn.Module:
    net = model()
    net.register_buffer("offset", torch.full((2,), value))
    return net


VALIDATION = (torch.zeros(4, 6), torch.zeros(4, dtype=torch.long))
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "clip norm": ({"clip": 1.0}, {"clip": 2.0}, r"clip \(it was FlatClip\(norm=1.0\)"),
    "clip type": ({"clip": 1.0}, {"clip": fldp.PerLayerClip(1.0)}, "clip"),
    "adaptive clip": ({"clip": fldp.AdaptiveClip(0.1)}, {"clip": fldp.AdaptiveClip(0.2)}, "clip"),
    "records": ({}, {"population": people(1)}, "population"),
    "sizes": ({}, {"population": people(sizes=(2, 4, *(3,) * 18))}, "population"),
    "server": ({}, {"server": fldp.FedAvgM()}, "server"),
    "server's class": ({}, {"server": Louder()}, "server"),
    "momentum": ({"server": fldp.FedAvgM(momentum=0.5)}, {"server": fldp.FedAvgM(momentum=0.6)},
                 r"server \(it was momentum=0.5\), and is momentum=0.6"),
    "epochs": ({}, {"local": fldp.LocalSGD(epochs=2)}, "local algorithm"),
    "algorithm": ({}, {"local": fldp.Scaffold()}, "local algorithm"),
    "what is trained": ({}, {"local": fldp.LocalSGD(trainable=["0"])}, "model"),
    "schedule": ({}, {"local": fldp.LocalSGD(schedule=max)}, "local algorithm"),
    "plan": ({}, {"plan": plan(epsilon=4.0)}, "plan"),
    "validation": ({"validation": VALIDATION}, {"validation": (VALIDATION[0] + 1, VALIDATION[1])},
                   "validation"),
    "no validation": ({"validation": VALIDATION}, {}, "validation"),
    "width": ({}, {"model": nn.Linear(6, 3)}, "model"),
    "activation": ({}, {"model": model(nn.ReLU())}, "model"),
    "a frozen part": ({"model": frozen()}, {"model": frozen(0.5)}, "model"),
    "a buffer": ({"model": buffered()}, {"model": buffered(0.5)}, "model"),
    "mechanism": ({}, {"noise": DiscreteGaussian()}, "noise mechanism"),
    "seed": ({"seed": 1}, {"seed": 2}, "another seed"),
    "a seed that came later": ({}, {"seed": 2}, "another seed"),
    "rounds": ({"plan": None, "rounds": 4}, {"plan": None, "rounds": 5}, "rounds"),
    "cohort": ({"plan": None, "rounds": 4, "cohort": 9}, {"plan": None, "rounds": 4, "cohort": 8},
               "sampler"),
    "sampler": ({"plan": None, "rounds": 4, "cohort": 9, "sampler": FixedSize(9)},
                {"plan": None, "rounds": 4, "cohort": 9, "sampler": Poisson(0.45)}, "sampler"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_p10_another_run_is_refused_by_the_name_of_what_differs(
    change: str, tmp_path: Path
) -> None:
    first, second, word = CHANGES[change]
    path, ledger = tmp_path / "run.pt", tmp_path / "ledger.jsonl"
    begin(path, **copy.deepcopy(first), ledger=ledger)
    kept, spent = path.read_bytes(), ledger.read_bytes()
    with pytest.raises(ValueError, match=word):
        go_on(path, **copy.deepcopy(second), ledger=ledger)
    assert path.read_bytes() == kept
    assert ledger.read_bytes() == spent
    if "seed" not in change:
        rounds = 4 if "rounds" in first else ROUNDS
        assert go_on(path, **copy.deepcopy(first), ledger=ledger).rounds == rounds


def test_speed_settings_may_change_on_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    begin(path)
    assert go_on(path, local=fldp.LocalSGD(engine="loop", threads=None)).rounds == ROUNDS


def test_p10_a_slip_in_a_path_starts_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(ValueError, match="nothing to resume"):
        go_on(tmp_path / "rum.pt")
    with pytest.raises(ValueError, match="no checkpoint: give its path"):
        fldp.train(model(), people(), plan(), resume=True)
    begin(path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="nothing was overwritten"):
        begin(path)
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("content", [
    b"", b"PK\x03\x04", b"<html>not found</html>", "half", "other",
])  # fmt: skip
def test_p10_a_damaged_checkpoint_gets_our_own_sentence(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    begin(path)
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    if content == "other":
        torch.save({"format": 1, "flat": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="no readable checkpoint") as caught:
        go_on(path)
    assert "weights_only" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_p10_what_cannot_be_written_is_refused_before_anybody_is_drawn(tmp_path: Path) -> None:
    drawn = []

    class Spy(Poisson):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            drawn.append(round)
            return super().sample(clients, draws, round)

    for path in (tmp_path / "no such folder" / "run.pt", tmp_path / "a name \0 of no file"):
        with pytest.raises(ValueError):  # noqa: PT011 - ours, or the system's for an impossible name
            begin(path, sampler=Spy(0.5))
    (tmp_path / "run.pt.new").mkdir()
    with pytest.raises(ValueError, match="cannot be written"):
        begin(tmp_path / "run.pt", sampler=Spy(0.5))
    assert drawn == []


def test_p13_a_checkpoint_is_private_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    old = os.umask(0)
    try:
        begin(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert torch.load(path, weights_only=True)["note"].startswith("PRIVATE")


# What a run may consist of, for the comparisons of interrupted with uninterrupted runs.
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adaptive": {"clip": fldp.AdaptiveClip(0.1, count_noise=10.0), "server": fldp.FedAdam()},
    "scaffold": {"local": fldp.Scaffold(lr=0.5, batch_size=2), "server": fldp.FedAvg(average=0.7)},
    "dropout": {"model": model(nn.Dropout(0.4)), "local": fldp.LocalSGD(batch_size=1, epochs=2)},
    "validated": {"validation": VALIDATION, "server": fldp.FedYogi()},
    "separated": {"plan": plan(sampling="none"), "sampler": MinSeparation(2)},
    "without a plan": {"plan": None, "rounds": ROUNDS, "cohort": 10, "clip": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_p10_a_run_cut_at_any_round_equals_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    def options() -> dict[str, Any]:
        chosen = copy.deepcopy(RUNS[name]) | {"seed": 3}
        return chosen if chosen.get("plan", 1) is None else chosen | {"generator": noise()}

    base: dict[str, Any] = {"model": model(), "population": people(), "plan": plan()}
    whole = fldp.train(**(base | options()))
    for cut in range(ROUNDS):
        path, ledger = tmp_path / f"{cut}.pt", tmp_path / f"{cut}.jsonl"
        if cut:
            begin(path, cut, **options(), ledger=ledger)
        else:
            stop_before_the_first_round(path, ledger, options())
        rest = go_on(path, **options(), ledger=ledger)
        assert torch.equal(flatten(rest.model), flatten(whole.model))
        assert rest.to_dict() == whole.to_dict()
        assert rest.participations == whole.participations
        assert rest.private == whole.private
        assert rest.statement == whole.statement


class PowerCut(Exception):
    pass


def cut(monkeypatch: pytest.MonkeyPatch, where: str, at: int) -> None:
    """A power cut at the `at`-th call of the method `where`."""
    owner, name = where.rsplit(".", 1)
    module, kind = owner.rsplit(".", 1)
    parent = getattr(importlib.import_module(f"fldp.{module}"), kind)
    inner, calls = getattr(parent, name), [0]

    def maybe(self: Any, *given: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise PowerCut
        return inner(self, *given, **more)

    monkeypatch.setattr(parent, name, maybe)


def cut_off(where: str, at: int, path: Path, **options: Any) -> None:
    """A run that a power cut ends at the `at`-th call of `where`."""
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, where, at)
        with pytest.raises(PowerCut):
            begin(path, 99, **options)


def stop_before_the_first_round(path: Path, ledger: Path, options: dict[str, Any]) -> None:
    cut_off("simulation.rounds.Run.round", 1, path, **options, ledger=ledger)


@pytest.mark.parametrize(
    "where", ["mechanism.collection.Collection._finish", "simulation.checkpoint.Checkpoint.save"]
)
@pytest.mark.parametrize("seeded", [False, True])
def test_p10_a_round_between_ledger_and_checkpoint_is_spent_and_its_cohort_not_drawn_again(
    where: str, seeded: bool, tmp_path: Path
) -> None:
    path, ledger, cohorts = tmp_path / "run.pt", tmp_path / "ledger.jsonl", []

    class Spy(Poisson):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            found = super().sample(clients, draws, round)
            cohorts.append((round, found.tolist()))
            return found

    options: dict[str, Any] = {"sampler": Spy(0.5), "ledger": ledger, "seed": 4 if seeded else None}
    third = 3 if where.endswith("_finish") else 4  # the first save is before the first round
    cut_off(where, third, path, **options)
    assert len(Ledger.read(path=ledger)) == 3
    history = go_on(path, **options)
    assert len(history.before) == 1
    assert len(history.before) + len(history.events) == ROUNDS == len(Ledger.read(ledger))
    assert history.accounted[-1] == pytest.approx(plan().epsilon())
    by_round: dict[int, list[list[int]]] = {}
    for number, found in cohorts:
        by_round.setdefault(number, []).append(found)
    assert by_round[2][0] != by_round[2][1]
    if seeded:
        assert history.participations is not None
        served = [sum(i in ids for t, ids in cohorts[:2] + cohorts[3:5]) for i in range(CLIENTS)]
        assert history.participations[-1] >= max(served)
        assert history.epsilon[-1] >= plan().seeded_epsilon(min(max(served) + 1, ROUNDS)) * (
            1 - 1e-9
        )


def test_p10_with_noise_that_repeats_the_draws_repeat_too(tmp_path: Path) -> None:
    """Two cohorts under one noise would let anybody subtract it: the same release comes again."""
    path, ledger, means = tmp_path / "run.pt", tmp_path / "ledger.jsonl", []

    class Spy(fldp.FedAvg):
        def direction(self, mean: Tensor) -> Tensor:
            means.append(mean.clone())
            return super().direction(mean)

    options: dict[str, Any] = {"server": Spy(), "ledger": ledger, "seed": None}
    cut_off("simulation.checkpoint.Checkpoint.save", 3, path, generator=noise(), **options)
    lost = means[1]
    means.clear()
    go_on(path, generator=noise(5), **options)
    assert torch.equal(means[0], lost)


def test_p10_slots_stay_through_a_restart_and_coins_do_not(tmp_path: Path) -> None:
    cohorts: list[list[int]] = []

    class Spy(MinSeparation):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            found = super().sample(clients, draws, round)
            cohorts.append(found.tolist())
            return found

    options = {"plan": plan(sampling="none", cohort=4), "sampler": Spy(5)}
    begin(tmp_path / "run.pt", 3, **options)
    go_on(tmp_path / "run.pt", **options)
    assert sorted(i for ids in cohorts for i in ids) == list(range(CLIENTS))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_p10_a_ledger_that_is_not_the_runs_is_refused(tmp_path: Path) -> None:
    path, ledger = tmp_path / "run.pt", tmp_path / "ledger.jsonl"
    history = begin(path, 3, ledger=ledger)
    assert history.head is not None
    assert history.head["count"] == 3
    whole = lines(ledger)
    with pytest.raises(ValueError, match="give that, or its account has a gap"):
        go_on(path)
    with pytest.raises(ValueError, match="cut off"):
        go_on(path, ledger=tmp_path / "a slip.jsonl")
    ledger.write_bytes(b"".join(whole[:-1]))
    with pytest.raises(ValueError, match="cut off"):
        go_on(path, ledger=ledger)
    fork = tmp_path / "fork.jsonl"
    with Ledger(fork, plan()) as book:
        for t in range(4):
            book.record(plan().event, t + 1, label="training again")
    with pytest.raises(ValueError, match="not the ledger that was left behind"):
        go_on(path, ledger=fork)
    ledger.write_bytes(b"".join(whole))
    assert go_on(path, ledger=ledger).rounds == ROUNDS


def test_p10_a_run_without_a_ledger_is_not_resumed_with_one_that_lacks_its_rounds(
    tmp_path: Path,
) -> None:
    path, ledger = tmp_path / "run.pt", tmp_path / "ledger.jsonl"
    begin(path, 2)
    with pytest.raises(ValueError, match="does not hold exactly"):
        go_on(path, ledger=ledger)
    with Ledger(ledger, plan()) as book:
        book.record(plan().event, 1)
        book.record(plan().event, 2)
    # They may be those of another run: nothing in the file tells whose rounds they are.
    with pytest.raises(ValueError, match="does not hold exactly"):
        go_on(path, ledger=ledger)
    assert len(Ledger.read(ledger)) == 2
    assert go_on(path).rounds == ROUNDS


@pytest.mark.slow
def test_p10_other_releases_in_the_ledger_count(tmp_path: Path) -> None:
    path, ledger = tmp_path / "run.pt", tmp_path / "ledger.jsonl"
    big = plan(epsilon=8.0, rounds=12)
    with Ledger(ledger, big) as book:
        book.record(fldp.Event(20.0), label="a histogram")
    for seed in (None, 3):
        target = path.with_name(f"{seed}.pt")
        own = ledger.with_name(f"{seed}.jsonl")
        own.write_bytes(ledger.read_bytes())
        begin(target, 3, plan=big, ledger=own, seed=seed)
        history = go_on(target, plan=big, ledger=own)
        assert history.before == [fldp.Event(20.0)]
        alone = big.epsilon(history.rounds)
        assert alone < history.accounted[-1] <= big.target_epsilon * (1 + 1e-6)
        if seed is not None and history.participations is not None:
            assert history.epsilon[-1] > big.seeded_epsilon(history.participations[-1])


def test_descriptions_hold_settings_and_no_state() -> None:
    one, two = fldp.AdaptiveClip(), fldp.AdaptiveClip()
    assert described(one) == described(two)
    server = fldp.FedAvgM()
    before = described(server)
    server.step(torch.zeros(2), torch.ones(2))
    assert described(server) == before
    assert described(fldp.LocalSGD(threads=4)) == described(fldp.LocalSGD(engine="loop"))

    class Loop:
        def __init__(self) -> None:
            self.me = self

    assert described(Loop()).count("Loop") > 1
    cases: list[Callable[[], Any]] = [
        lambda: fldp.LocalFunction(max), lambda: fldp.LocalFunction(min),
        lambda: {"b": 1, "a": (2,)}, lambda: torch.zeros(3), lambda: torch.ones(3), lambda: noise(),
        lambda: None,
    ]  # fmt: skip
    told = [described(make()) for make in cases]
    assert len(set(told)) == len(told)
    assert told == [described(make()) for make in cases]


def test_fingerprints_tell_values_types_and_shapes_apart() -> None:
    base = torch.arange(6.0)
    others = [base.double(), base.view(2, 3), base + 1, base[:5], base.long()]
    assert len({fingerprint(t) for t in [base, *others]}) == 6
    big = torch.zeros(3 << 20)
    assert fingerprint(big) != fingerprint(big + 1)
    assert outline(model()) != outline(model(nn.ReLU()))


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    keeper = Checkpoint(path, resume=False)
    keeper.save({"a": torch.ones(3)})
    (tmp_path / "run.pt.new").write_bytes(b"left by a crash")
    keeper.save({"a": torch.zeros(3)})
    assert Checkpoint(path, resume=True).load(torch.device("cpu"))["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("limit", [0, 100, 2000, 500_000])
def test_r14_a_disk_that_fills_up_ends_in_our_own_words_and_keeps_the_old_run(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    keeper = Checkpoint(path, resume=False)
    keeper.save({"a": torch.ones(3)})

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(memoryview(content).cast("B")) > limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", lambda descriptor, mode: Full(descriptor, mode))
        with pytest.raises(ValueError, match=r"cannot be written \(.*\): make room") as caught:
            keeper.save({"a": torch.zeros(10**6)})
    assert "enforce fail" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert Checkpoint(path, resume=True).load(torch.device("cpu"))["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("odd", [3, None, "a\0b", b"x", object()])
@pytest.mark.parametrize("resume", [True, False])
def test_r14_what_names_no_file_is_refused_in_words(odd: Any, resume: bool) -> None:
    with pytest.raises(ValueError, match="give the path of a checkpoint file"):
        Checkpoint(odd, resume)


@pytest.mark.parametrize("resume", [True, False])
def test_r14_a_folder_is_no_checkpoint(resume: bool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: give the path of a file in it"):
        Checkpoint(tmp_path, resume)
