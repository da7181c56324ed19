"""A cohort's mean: layers, weights and noise reach the release from the training loop."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fldp
from fldp.mechanism.discrete import DiscreteGaussian
from fldp.mechanism.release import RoundWarning
from fldp.mechanism.updates import flatten
from fldp.simulation.averaging import Weights


class Fixed(fldp.LocalSGD):
    """Clients whose updates are given."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(lr=1.0)
        self.rows = rows

    def updates(self, model: Any, flat: Any, population: Any, ids: Any, *_: Any, **__: Any) -> Any:
        yield self.rows[torch.as_tensor(ids)]


def people(clients: int = 10) -> Any:
    sizes = torch.arange(1, clients + 1)
    x = torch.zeros(int(sizes.sum()), 3)
    y = torch.zeros(len(x), dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(clients), sizes)
    parts = [TensorDataset(x[owner == k], y[owner == k]) for k in range(clients)]
    return fldp.clients.Population.from_datasets(parts)


def trained(rows: torch.Tensor, plan: Any, clip: Any, **options: Any) -> torch.Tensor:
    """The step of one round from zero."""
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    if plan is None:
        options |= {"rounds": 1}
    history = fldp.train(model, people(len(rows)), plan, clip=clip, local=Fixed(rows), **options)
    return flatten(history.model)


def quiet(clients: int = 10) -> fldp.PrivacyPlan:
    """So little noise that a mean shows."""
    return fldp.calibrate(epsilon=1e6, delta=1e-3, rounds=1, clients=clients)


def rows(count: int = 10) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("private", [True, False])
def test_r01_a_clip_by_layers_clips_layers_in_the_loop(private: bool) -> None:
    """It used to be the flat clip, bit for bit."""
    budgets = {"weight": 0.2, "bias": 0.9}
    found = trained(rows(), quiet() if private else None, fldp.PerLayerClip(budgets))
    parts = [rows()[:, :6], rows()[:, 6:]]
    clipped = [
        part * (bound / part.norm(dim=1)).clamp(max=1)[:, None]
        for part, bound in zip(parts, budgets.values(), strict=True)
    ]
    assert torch.allclose(found, torch.cat(clipped, dim=1).mean(0), atol=2e-2 if private else 1e-4)
    with pytest.raises(ValueError, match="per-layer budgets"):
        trained(rows(), quiet(), fldp.PerLayerClip([1.0, 1.0, 1.0]))


def test_r01_layers_of_an_algorithm_that_sends_two_vectors() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=1, clients=10)
    four = fldp.PerLayerClip([0.1, 0.2, 0.3, 0.4])
    fldp.train(nn.Linear(3, 2), people(), plan, clip=four, local=fldp.Scaffold())
    with pytest.raises(ValueError, match="2 per-layer budgets for 4 tensors"):
        fldp.train(
            nn.Linear(3, 2), people(), plan, clip=fldp.PerLayerClip([1, 1]), local=fldp.Scaffold()
        )


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("clip", [100.0, None])
def test_r01_weights_in_the_loop(private: bool, clip: float | None) -> None:
    if private and clip is None:
        pytest.skip("without a plan only")
    capped = torch.arange(1, 11).clamp(max=4).double()
    expected = (capped[:, None] * rows().double()).sum(0)
    plan = quiet() if private else None
    asked = {"weights": "records", "weight_cap": 4.0}
    for total, denominator in ((None, 40.0), (float(capped.sum()), float(capped.sum()))):
        found = trained(rows(), plan, clip, **asked, weight_total=total)
        near = torch.allclose(found.double(), expected / denominator, atol=1.5 if private else 1e-4)
        assert near


def test_weights_are_refused_where_they_fit_nothing() -> None:
    plan = quiet()
    for options, words in (
        ({"weights": "records"}, "unequal weights need a public weight_cap"),
        ({"weights": [1.0] * 9, "weight_cap": 1.0}, "9 weights for 10 clients"),
        ({"weight_cap": 2.0}, "give weights as well"),
        ({"weights": "sizes", "weight_cap": 2.0}, "weights is 'sizes'"),
        ({"weights": [1.0] * 10, "weight_total": 2.0}, "give weight_cap"),
    ):
        with pytest.raises(ValueError, match=words):
            trained(rows(), plan, 1.0, **options)
    with pytest.raises(ValueError, match="Scaffold sends more than an update"):
        fldp.train(
            nn.Linear(3, 2), people(), plan, local=fldp.Scaffold(), weights="records", weight_cap=2
        )


def test_weights_of_made_up_clients_are_the_cap() -> None:
    weights = Weights(torch.tensor([1.0, 2.0]), cap=5.0)
    assert weights.of(torch.tensor([1, 7, 0])).tolist() == [2.0, 5.0, 1.0]  # type: ignore[union-attr]
    assert Weights().of(torch.tensor([1])) is None


def test_r01_any_noise_works_in_the_loop() -> None:
    plan = fldp.calibrate(epsilon=4.0, delta=1e-3, rounds=3, clients=10)
    history = fldp.train(nn.Linear(3, 2), people(), plan, noise=DiscreteGaussian())
    assert history.rounds == 3
    assert history.epsilon[-1] <= 4.0 * (1 + 1e-6)
    with pytest.raises(ValueError, match="noise and generator are both given"):
        fldp.train(
            nn.Linear(3, 2), people(), plan, noise=DiscreteGaussian(), generator=torch.Generator()
        )


def test_old_keywords_warn_and_work() -> None:
    plan = fldp.calibrate(epsilon=4.0, delta=1e-3, rounds=1, clients=10)
    with pytest.warns(DeprecationWarning, match="noise_generator is generator now"):
        history = fldp.train(  # type: ignore[call-arg]
            nn.Linear(3, 2), people(), plan, noise_generator=torch.Generator()
        )
    assert "Reproducible noise" in history.statement
    with pytest.warns(DeprecationWarning, match="mechanism is noise now"):
        fldp.aggregate(rows(), plan, 1.0, mechanism=fldp.Gaussian())  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match="norm is clip_norm now"):
        fldp.clip(torch.ones(2), norm=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="give the new one alone"):
        fldp.clip(torch.ones(2), norm=1.0, clip_norm=1.0)  # type: ignore[call-arg]


def diverged(count: int, bad: int, zero: int = 0) -> torch.Tensor:
    found = rows(count)
    found[:bad] = math.nan
    found[bad : bad + zero] = 0.0
    return found


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("clip", [1.0, None])
def test_r06_diverged_clients_are_counted_and_told_of_with_and_without_a_plan(
    private: bool, clip: float | None
) -> None:
    if private and clip is None:
        return
    given = diverged(10, bad=6, zero=1)
    options: dict[str, Any] = {} if private else {"rounds": 1}
    with pytest.warns(RoundWarning, match=r"6 of 10|7 of 10"):
        history = fldp.train(
            nn.Linear(3, 2), people(), quiet() if private else None, clip=clip, local=Fixed(given),
            **options,
        )  # fmt: skip
    kept = history.private
    assert (kept["cohort"], kept["malformed"], kept["zero"]) == ([10], [6], [1])
    within = 0.0 if clip is None else sum(row.norm() > 1 for row in given[7:]) / 4
    assert kept["clipped_fraction"] == [within]


def test_r06_most_of_a_round_is_told_of_and_less_is_not(recwarn: pytest.WarningsRecorder) -> None:
    trained(diverged(10, bad=5), quiet(), 1.0)
    assert not [w for w in recwarn if issubclass(w.category, RoundWarning)]


def short(rounds: int = 12, clients: int = 20, survivors: int = 10) -> fldp.PrivacyPlan:
    """A plan of which every second round or so has too few clients."""
    return fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=rounds, clients=clients, cohort=clients / 2,
        trust="distributed", min_survivors=survivors,
    )  # fmt: skip


def test_r05_a_round_of_too_few_is_skipped_and_spent(tmp_path: Path) -> None:
    """It used to end the run in an error, with the event recorded and the history lost."""
    models: list[torch.Tensor] = []
    x, y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)

    class Watched(fldp.FedAvgM):
        def step(self, flat: Any, mean: Any, *given: Any) -> Any:
            models.append(flat)
            return super().step(flat, mean, *given)

    with pytest.warns(RoundWarning, match="was skipped: . clients came, .* min_survivors is 10"):
        history = fldp.train(
            nn.Linear(3, 2), people(20), short(), server=Watched(), validation=(x, y), seed=3,
            ledger=tmp_path / "ledger.jsonl",
        )  # fmt: skip
    skipped = history.private["skipped"]
    assert 0 < sum(skipped) < 12
    assert [n < 10 for n in history.private["cohort"]] == [bool(s) for s in skipped]
    lengths = {name: len(values) for name, values in history.private.items()}
    lengths |= {name: len(getattr(history, name)) for name in ("accuracy", "loss", "clip_norm",
                "epsilon", "accounted", "participations", "events")}  # fmt: skip
    assert set(lengths.values()) == {12}, lengths
    # Every round is on the ledger, skipped or not; the model moved in the others alone.
    assert fldp.Ledger.read(tmp_path / "ledger.jsonl") == history.events
    assert len(models) == 12 - sum(skipped)
    for number, gone in enumerate(skipped):
        if gone and number:
            assert history.loss[number] == history.loss[number - 1]
    assert "all 12 rounds" in history.stopped


@pytest.mark.filterwarnings("ignore:round")
def test_r05_nobody_trains_in_a_skipped_round_and_a_run_resumes_after_it(tmp_path: Path) -> None:
    """Clients that keep something between rounds keep what they had."""
    trained_by: list[int] = []

    class Counted(fldp.Scaffold):
        def _finish(self, moved: Any, sizes: Any, ids: Any, round: int) -> Any:
            trained_by.append(round)
            return super()._finish(moved, sizes, ids, round)

    given = (nn.Linear(3, 2), people(20), short())
    whole = fldp.train(*given, local=Counted(lr=0.1), seed=3)
    skipped = [number for number, gone in enumerate(whole.private["skipped"]) if gone]
    assert 0 < len(skipped) < 12
    assert set(trained_by) == set(range(12)) - set(skipped)
    kept: dict[str, Any] = {"local": fldp.Scaffold(lr=0.1), "checkpoint": tmp_path / "run.pt"}
    fldp.train(*given, callbacks=[lambda done, _: done == skipped[0] + 1], seed=3, **kept)
    after = fldp.train(*given, resume=True, **kept)
    assert after.private == whole.private
    assert after.events == whole.events


def test_r05_a_skipped_round_does_not_move_an_adaptive_clip() -> None:
    clip = fldp.AdaptiveClip(0.5, count_noise=40.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = fldp.train(nn.Linear(3, 2), people(20), short(), clip=clip, seed=3)
    norms, skipped = history.clip_norm, history.private["skipped"]
    for number in range(11):
        assert (norms[number + 1] == norms[number]) == bool(skipped[number])
