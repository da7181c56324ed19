"""The headline experiment: its features, its search, and that the table is of its settings."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fldp
from benchmarks import common, mnist_clients, mnist_runs, mnist_tuning, scattering
from benchmarks.mnist_clients import Entry, ablation, alike, best_model, measure, table
from benchmarks.mnist_runs import BUDGETS, DELTAS, LIGHT, WIDE, Cell, Setting, linear, load, save
from benchmarks.mnist_tuning import Rehearsal, Search, changes

CELL = Cell(WIDE, 20, "shards", None)


def records(count: int = 120, width: int = 7) -> tuple[Tensor, Tensor]:
    """Records that ten classes can be told by."""
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(count) % 10
    means = torch.randn(10, width, generator=generator)
    return means[y] + 0.3 * torch.randn(count, width, generator=generator), y


@pytest.mark.parametrize("width", [3, 7])
@pytest.mark.parametrize(
    "setting",
    [
        Setting(4, server_lr=2.0),
        Setting(4, clip=0.05, server_lr=30.0, momentum=0.5, average=0.5),
        Setting(4, clip=0.3, local_steps=3, local_lr=0.5, server_lr=2.0, cooldown=0.5),
    ],
)
def test_a_rehearsal_trains_the_model_that_training_trains(width: int, setting: Setting) -> None:
    # With 3 columns a client's six inner products outnumber its update, with 7 they do not.
    owned = records(width=width)
    rehearsal = Rehearsal(owned, owned, CELL, seed=1)
    people = fldp.clients.partition(*owned, CELL.clients, CELL.partition, seed=1)
    history = fldp.train(
        nn.Sequential(linear(width)), people, None, clip=setting.clip, rounds=setting.rounds,
        local=fldp.LocalSGD(setting.local_lr, epochs=setting.local_steps, batch_size=None),
        server=setting.server(), cohort=None,
    )  # fmt: skip
    expected = history.model[0].weight.detach()
    torch.testing.assert_close(rehearsal.weights(setting, 0.0, 0), expected, atol=1e-5, rtol=1e-4)


def test_clients_of_several_sizes_count_their_own_records_only() -> None:
    x, y = records(100)
    cell = dataclasses.replace(CELL, clients=7, partition="iid")
    rehearsal = Rehearsal((x, y), (x, y), cell, seed=0)
    people = fldp.clients.partition(x, y, 7, "iid", seed=0)
    assert len(set(people.sizes.tolist())) > 1
    history = fldp.train(
        nn.Sequential(linear(7)), people, None, clip=0.1, rounds=1, cohort=None,
        local=fldp.LocalSGD(1.0, epochs=1, batch_size=None), server=fldp.FedAvg(),
    )  # fmt: skip
    found = rehearsal.weights(Setting(1, clip=0.1), 0.0, 0)
    torch.testing.assert_close(found, history.model[0].weight.detach(), atol=1e-6, rtol=1e-4)


def test_the_noise_of_a_rehearsal_has_the_deviation_that_a_plan_has() -> None:
    x = torch.zeros(40, 500)
    cell = dataclasses.replace(CELL, partition="iid")
    rehearsal = Rehearsal((x, torch.zeros(40, dtype=torch.long)), records(width=500), cell, seed=0)
    found = rehearsal.weights(Setting(1, clip=0.5), 3.0, 9)
    # Clients without a gradient: what is left is noise, z · C / N.
    assert float(found.std()) == pytest.approx(3.0 * 0.5 / 20, rel=0.05)


def test_wavelets_have_no_mean_and_a_plain_image_scatters_nothing_inside() -> None:
    for scale in range(scattering.SCALES):
        wavelet = scattering._wavelet(scale, 3)
        assert abs(float(wavelet[0, 0])) < 1e-5
    found = scattering.scattering(torch.ones(2, 28, 28))
    assert found.shape == (2, 81, 7, 7)
    middle = found[0, :, 3, 3]
    assert float(middle[0]) == pytest.approx(1.0, abs=1e-3)
    assert float(middle[1:].abs().max()) < 0.02


def test_waves_are_found_by_the_wavelet_of_their_direction() -> None:
    rows = torch.arange(28.0)
    wave = (0.5 + 0.5 * torch.cos(scattering.FREQUENCY * rows)).view(28, 1).expand(28, 28)
    first = scattering.scattering(torch.stack([wave, wave.T]))[:, 1:9, 3, 3]
    # The wave along rows is direction 0, across them half of eight further.
    assert first.argmax(1).tolist() == [0, 4]


def test_a_change_is_one_step_and_keeps_within_the_limits() -> None:
    setting = Setting(8, clip=1.0, server_lr=100.0, momentum=0.9, average=0.3)
    found = list(changes(setting))
    assert len(set(found)) == len(found)
    assert setting not in found
    for other in found:
        fields = dataclasses.asdict(other).items()
        changed = {name for name, value in fields if value != getattr(setting, name)}
        assert len(changed) == 1 or changed == {"momentum", "server_lr"}
        assert mnist_tuning.LEAST_ROUNDS <= other.rounds <= mnist_tuning.MOST_ROUNDS
        assert 0 <= other.momentum < 1
    # A steady mean makes the same way when momentum moves.
    moved = next(other for other in found if other.momentum != setting.momentum)
    assert moved.server_lr / (1 - moved.momentum) == pytest.approx(1000.0, rel=0.01)


def test_a_row_is_searched_after_the_one_that_it_starts_from() -> None:
    settings: mnist_runs.Settings = {}
    for cell in mnist_tuning.cells():
        assert mnist_tuning.starts(cell, settings)
        settings[cell] = (Setting(8, clip=1.0), {"validation": 0.5})
    assert {entry.cell for entry in table(settings)} <= settings.keys()


def test_a_search_keeps_the_best_and_tries_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judge(self: Search, setting: Setting) -> float:
        return -abs(setting.rounds - 36)

    monkeypatch.setattr(Search, "_accuracy", judge)
    cell = Cell(WIDE, 10_000, "iid", 8.0)
    search = Search(cell, records(), records(), fast=False)
    best = search.climb([Setting(16, clip=1.0), Setting(8, clip=1.0)], most=30)
    assert best.rounds == 36
    assert len(search.tried) <= 30
    few = Search(cell, records(), records(), fast=False)
    few.climb([Setting(16, clip=1.0)], most=3)
    assert len(few.tried) == 3


def test_settings_are_kept_as_they_are(tmp_path: Path) -> None:
    settings = {
        Cell(WIDE, 100, "iid", 8.0): (Setting(3, clip=0.1), {"validation": 0.9}),
        Cell("CNN", 10_000, "shards", None): (Setting(4, share=0.1), {"validation": 0.8}),
    }
    save(settings, tmp_path / "settings.json")
    assert load(tmp_path / "settings.json") == settings
    assert load(tmp_path / "none.json") == {}


def test_a_row_runs_the_model_that_judged_best() -> None:
    settings: mnist_runs.Settings = {
        Cell(name, 100, "iid", 8.0): (Setting(3), {"validation": value})
        for name, value in ((LIGHT, 0.9), (WIDE, 0.8))
    }
    assert best_model(settings, 100, "iid", 8.0) == LIGHT
    assert best_model(settings, 1_000, "iid", 8.0) == WIDE
    rows = [entry.cell for entry in table(settings)]
    assert rows == [Cell(LIGHT, 100, "iid", 8.0)]


def test_the_held_out_images_are_never_a_clients_nor_the_test_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts = {True: mnist_runs.TRAINING, False: 10}

    def numbered(train: bool) -> tuple[Tensor, Tensor]:
        first = 0 if train else counts[True]
        images = torch.arange(first, first + counts[train]).view(-1, 1, 1, 1)
        return images.float(), torch.zeros(counts[train], dtype=torch.long)

    monkeypatch.setattr(fldp.datasets, "mnist", numbered)
    monkeypatch.setitem(mnist_runs.INPUTS, "CNN", (lambda images: images, 28))
    held = mnist_runs.Records("CNN", tmp_path)
    (own, _), (rest, _) = held.held_out()
    (whole, _), (test, _) = held.all()
    numbers = [set(part.flatten().int().tolist()) for part in (own, rest, whole, test)]
    assert [len(part) for part in numbers] == [50_000, 10_000, 60_000, 10]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] == numbers[2]
    assert not numbers[2] & numbers[3]


def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        output=tmp_path / "found.json", no_write=False, workers=1, cache=tmp_path, model=None
    )


class Inline:
    """A pool that runs what it is given at once."""

    calls = 0

    def __init__(self, workers: int) -> None:
        assert workers == 1

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> Inline:
        type(self).calls += 1
        self.answer = {"accuracy": 0.5 + 0.1 * arguments[1], "seconds": 1.0}
        return self

    def result(self) -> dict[str, float]:
        return self.answer


def test_what_is_measured_is_kept_and_what_changed_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mnist_clients, "ProcessPoolExecutor", Inline)
    cell = Cell(LIGHT, 1_000, "iid", 4.0)
    entry = Entry(cell, Setting(5, clip=0.1))
    measure("table", [entry], 2, options(tmp_path))
    row = common.read(tmp_path / "found.json")["table"][0]
    assert row["epsilon_cohort_known"] == pytest.approx(4.0, abs=1e-3)
    assert (row["rounds"], row["cohort"], row["seeds"], row["parameters"]) == (5, 1_000, 2, 1_510)
    assert row["delta"] == 1e-5
    before = Inline.calls
    measure("table", [entry], 2, options(tmp_path))
    assert Inline.calls == before
    measure("table", [Entry(cell, Setting(6, clip=0.1))], 2, options(tmp_path))
    assert Inline.calls == before + 2
    assert "1,000 iid" in capsys.readouterr().out


def test_facts_may_differ_by_rounding_and_by_nothing_else() -> None:
    fact = {"clip": 1.0, "model": "CNN", "delta": None, "rounds": 3}
    assert alike(fact, {**fact, "clip": 1.0 + 1e-9, "seeds": 5})
    for other in ({"clip": 1.01}, {"clip": None}, {"model": "x"}, {"delta": 1.0}, {"rounds": 4}):
        assert not alike(fact, {**fact, **other})


def test_every_tuned_setting_keeps_its_promise() -> None:
    for cell, (setting, tuning) in load().items():
        plan = setting.plan(cell)
        if plan is None:
            assert cell.epsilon is None
            continue
        assert plan.epsilon() <= cell.epsilon
        assert plan.delta == DELTAS[cell.clients] < 1 / cell.clients
        assert setting.clip is not None
        assert 0 < tuning["validation"] < 1


def test_the_committed_rows_are_of_the_committed_settings() -> None:
    found = common.read(common.RESULTS / "mnist_clients.json")
    for name, entries in (("table", table(load())), ("ablation", [*ablation(load())])):
        facts = {(entry.cell, entry.change): entry.facts() for entry in entries}
        for row in found.get(name, []):
            cell = Cell(row["model"], row["clients"], row["partition"], row["epsilon"])
            assert alike(facts[cell, row.get("change", "")], row)
            if row["epsilon"] and row["cohort"] == row["clients"]:
                assert row["epsilon_cohort_known"] == pytest.approx(row["epsilon"], abs=1e-3)


def test_the_committed_table_is_whole_and_keeps_what_it_reached() -> None:
    rows = common.read(common.RESULTS / "mnist_clients.json")["table"]
    assert len(rows) == len(table(load())) >= 6 * len(BUDGETS)
    assert min(row["seeds"] for row in rows) >= 5
    best = {
        (row["partition"], row["clients"], row["epsilon"]): row["accuracy_mean"]
        for row in sorted(rows, key=lambda row: row["accuracy_mean"])
    }
    reached = {"shards": (0.973, 0.987, 0.988), "iid": (0.979, 0.986, 0.988)}
    for partition, least in reached.items():
        for clients, value in zip(DELTAS, least, strict=True):
            assert best[partition, clients, 8.0] >= value
    for epsilon, value in ((4.0, 0.987), (2.0, 0.985), (1.0, 0.982)):
        assert best["shards", 10_000, epsilon] >= value
