"""Runs that stop and go on: the same model, and an account that is never too low."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi, Strategy
from stand_in import Nodes, ones, plan, private, record, seeded, spent, start, weights

import fldp
from benchmarks import flower_kills
from fldp.flower import Private
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.simulation.checkpoint import Checkpoint


class Stopped(Exception):
    """The server app is gone."""


def stops_after(number: int) -> Any:
    def look(done: int, arrays: ArrayRecord) -> None:
        if done == number:
            raise Stopped

    return look


def run(folder: Path, stops: list[int], make: Any = FedAvg, **more: Any) -> np.ndarray:
    """The model after runs that stop after rounds `stops`, and one that goes on to the end."""
    for stop in [*stops, -1]:
        given = {"noise": seeded(), "checkpoint": folder / "run.pt"} | more
        strategy = private(folder, plan(cohort=None, rounds=4), make(), **given)
        try:
            result = strategy.start(Nodes(range(40), ones), start(), evaluate_fn=stops_after(stop))
        except Stopped:
            pass
        finally:
            strategy.close()
    return weights(result.arrays)


@pytest.mark.parametrize(
    "make",
    [FedAvg, lambda: FedAvgM(server_momentum=0.5), FedAdam, FedYogi],
    ids=["FedAvg", "FedAvgM", "FedAdam", "FedYogi"],
)
def test_a_run_that_stopped_is_the_run_that_did_not(tmp_path, make) -> None:
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole = run(folders[0], [], make)
    parts = run(folders[1], [0, 2, 3], make)
    assert np.array_equal(whole, parts)
    assert spent(folders[0]) == spent(folders[1]) == 4


def test_an_adaptive_clip_goes_on_where_it_was(tmp_path) -> None:
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole = run(folders[0], [], clip=fldp.AdaptiveClip(0.1))
    assert np.array_equal(whole, run(folders[1], [2], clip=fldp.AdaptiveClip(0.1)))


def test_a_strategy_of_your_own_says_what_it_keeps(tmp_path) -> None:
    class Counting(FedAvg):
        count = 0

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            self.count += 1
            return super().aggregate_train(server_round, replies)

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[-1]

    run(tmp_path, [2], make)
    assert [one.count for one in made] == [2, 4]


def test_a_finished_run_gives_its_model_again_and_spends_nothing(tmp_path) -> None:
    first = run(tmp_path, [])
    assert np.array_equal(first, run(tmp_path, []))
    assert spent(tmp_path) == 4


def test_without_a_checkpoint_the_account_goes_on_alone(tmp_path) -> None:
    run(tmp_path, [3], checkpoint=None, noise=None)
    assert spent(tmp_path) == 4


@pytest.mark.parametrize("loop", [Private.start, Strategy.start], ids=["ours", "Flower's"])
def test_noise_that_would_come_again_without_a_checkpoint_is_refused(tmp_path, loop) -> None:
    """The same noise on other replies: their difference would have none."""
    of = plan(cohort=None, rounds=4)
    first = private(tmp_path, of, noise=seeded())
    first.start(Nodes(range(40), ones), start(), num_rounds=2)
    first.close()
    nodes = Nodes(range(40), ones)
    with pytest.raises(ValueError, match="leave the generator out"):
        loop(private(tmp_path, of, noise=seeded()), nodes, start())
    assert nodes.asked == []


def paths(folder: Path) -> dict[str, Path]:
    return {"checkpoint": folder / "run.pt"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clip": 2.0}, "another clip"),
        ({"weight_cap": 2.0}, "another weights"),
        ({"strategy": FedAdam()}, "another strategy"),
        ({"of": plan(cohort=None, rounds=3)}, "another plan"),
        ({"noise": fldp.DiscreteGaussian()}, "another noise"),
    ],
    ids=lambda given: str(given)[:20],
)
def test_another_run_is_refused(tmp_path, change, match) -> None:
    run(tmp_path, [])
    if "of" in change:
        (tmp_path / "ledger.jsonl").unlink()
    given = {"of": plan(cohort=None, rounds=4), "strategy": FedAvg()} | paths(tmp_path) | change
    strategy = private(tmp_path, **given)
    with pytest.raises(ValueError, match=match):
        strategy.start(Nodes(range(40), ones), start())


def test_another_model_is_refused(tmp_path) -> None:
    run(tmp_path, [])
    strategy = private(tmp_path, plan(cohort=None, rounds=4), FedAvg(), **paths(tmp_path))
    with pytest.raises(ValueError, match="another model"):
        strategy.start(Nodes(range(40), ones), record(np.zeros(3, np.float32)))


def test_a_ledger_that_lacks_what_was_spent_is_refused(tmp_path) -> None:
    run(tmp_path, [])
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    strategy = private(tmp_path, plan(cohort=None, rounds=4), FedAvg(), **paths(tmp_path))
    with pytest.raises(ValueError, match="lines were cut off"):
        strategy.start(Nodes(range(40), ones), start())


def lose_a_round(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop between a release and the checkpoint that would hold it."""
    release = PrivateAggregator.release

    def stopping(self: Any, book: Any, number: int) -> Any:
        found = release(self, book, number)
        if number == 2:
            raise Stopped
        return found

    with monkeypatch.context() as patch:
        patch.setattr(PrivateAggregator, "release", stopping)
        of = plan(cohort=None, rounds=4)
        strategy = private(folder, of, FedAvg(), noise=seeded(), **paths(folder))
        with pytest.raises(Stopped):
            strategy.start(Nodes(range(40), ones), start())
    strategy.close()


def test_a_round_that_was_lost_is_spent_and_its_noise_never_comes_again(
    tmp_path, monkeypatch
) -> None:
    lose_a_round(tmp_path, monkeypatch)
    of = plan(cohort=None, rounds=4)
    again = private(tmp_path, of, FedAvg(), noise=seeded(), **paths(tmp_path))
    with pytest.raises(ValueError, match="leave the generator out"):
        again.start(Nodes(range(40), ones), start())
    again.close()
    # Noise from the operating system never repeats.
    sound = private(tmp_path, of, FedAvg(), **paths(tmp_path))
    nodes = Nodes(range(40), ones)
    sound.start(nodes, start())
    assert len(nodes.asked) == 2, "of four rounds one is done, and one lost"
    assert spent(tmp_path) == 4


def test_a_file_that_holds_no_run_is_refused(tmp_path) -> None:
    torch.save({"done": 3}, tmp_path / "run.pt")
    strategy = private(tmp_path, plan(), FedAvg(), **paths(tmp_path))
    with pytest.raises(ValueError, match="no readable checkpoint"):
        strategy.start(Nodes(range(40), ones), start())


def test_the_file_of_another_kind_of_run_is_refused(tmp_path) -> None:
    Checkpoint(tmp_path / "run.pt", False).save({"identity": {}, "head": {}, "done": 1})
    strategy = private(tmp_path, plan(), FedAvg(), **paths(tmp_path))
    with pytest.raises(ValueError, match="checkpoint of something else"):
        strategy.start(Nodes(range(40), ones), start())


def test_an_older_file_repeats_rounds_and_the_account_holds(tmp_path) -> None:
    of = plan(cohort=None, rounds=4)
    file = paths(tmp_path)["checkpoint"]
    kept: list[bytes] = []

    def look(done: int, arrays: ArrayRecord) -> None:
        kept.append(file.read_bytes())

    first = private(tmp_path, of, **paths(tmp_path))
    first.start(Nodes(range(40), ones), start(), num_rounds=3, evaluate_fn=look)
    first.close()
    file.write_bytes(kept[1])
    nodes = Nodes(range(40), ones)
    private(tmp_path, of, **paths(tmp_path)).start(nodes, start())
    assert len(nodes.asked) == 1, "of four rounds three were spent"
    assert spent(tmp_path) == 4


def test_a_disk_without_room_releases_nothing(tmp_path, monkeypatch) -> None:
    strategy = private(tmp_path, plan(cohort=None), FedAvg(), **paths(tmp_path))
    looked: list[int] = []

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def look(done: int, arrays: ArrayRecord) -> None:
        looked.append(done)
        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(ValueError, match="No space left"):
        strategy.start(Nodes(range(40), ones), start(), evaluate_fn=look)
    assert looked == [0]


def test_a_folder_that_is_missing_is_refused_before_the_coins(tmp_path) -> None:
    strategy = private(tmp_path, plan(), FedAvg(), checkpoint=tmp_path / "none" / "run.pt")
    nodes = Nodes(range(40), ones)
    with pytest.raises(ValueError, match="does not exist"):
        strategy.start(nodes, start())
    assert nodes.asked == []


# Killed at random instants, in a process of its own.


def killed(monkeypatch: pytest.MonkeyPatch, times: int) -> dict[str, int]:
    """What was found in runs that were killed so often, all together."""
    monkeypatch.setattr(logging.getLogger("flwr"), "disabled", True)
    return flower_kills.measure(times, seed=1)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.slow
def test_twenty_kills_leave_no_account_below_the_truth(monkeypatch) -> None:
    found = killed(monkeypatch, 20)
    assert found["ended"] == found["runs"]
    assert found["under"] == found["over"] == 0


@needs_fork
@pytest.mark.slow
def test_a_ledger_that_writes_late_is_caught(monkeypatch) -> None:
    write = fldp.Ledger.record

    def late(self: Any, event: Any, number: int) -> None:
        if number > 1:
            write(self, event, number - 1)

    monkeypatch.setattr(fldp.Ledger, "record", late)
    assert killed(monkeypatch, 1)["under"]
