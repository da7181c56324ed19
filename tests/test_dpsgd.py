"""simulation.dpsgd: DP-SGD in the clients runs what its RecordPlan accounts for, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import opacus.optimizers.optimizer as opacus_optimizer
import pytest
import torch
import torch.nn.functional as F
from conftest import digits_model as model
from opacus import GradSampleModule
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation.dpsgd import _Optimizer
from fldp.simulation.objective import Objective
from fldp.simulation.sampling import MinSeparation


@pytest.fixture(scope="module")
def people(data: tuple[Tensor, Tensor]) -> Any:
    return fldp.clients.partition(data[0][:400], data[1][:400], clients=20, seed=0)


def records(people: Any, **options: Any) -> fldp.RecordPlan:
    options = {"epsilon": 8.0, "delta": 1e-4, "rounds": 3, "local_epochs": 1} | options
    options = {"batch_size": 5, "client_sizes": people.sizes} | options
    return fldp.calibrate_records(**options)


def dpsgd(plan: fldp.RecordPlan, seed: int | None = 0, **options: Any) -> fldp.DPSGD:
    drawn = None if seed is None else torch.Generator().manual_seed(seed)
    return fldp.DPSGD(plan, **{"lr": 1.0, "generator": drawn} | options)


def run(people: Any, local: fldp.DPSGD, rounds: int = 3, **options: Any) -> fldp.History:
    return fldp.train(model(), people, None, clip=None, rounds=rounds, local=local, **options)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each step of Opacus' optimiser ran, in order."""
    seen: list[dict[str, Any]] = []
    inner = _Optimizer.clip_and_accumulate

    def spy(self: Any) -> None:
        seen.append({"batch": len(self.params[0].grad_sample), "z": self.noise_multiplier,
                     "C": self.max_grad_norm, "over": self.expected_batch_size})  # fmt: skip
        inner(self)

    monkeypatch.setattr(_Optimizer, "clip_and_accumulate", spy)
    return seen


@pytest.mark.slow
def test_it_learns_and_says_what_it_guarantees(people: Any, data: tuple[Tensor, Tensor]) -> None:
    plan = records(people, rounds=12, batch_size=10, epsilon=60.0)
    test = (data[0][400:], data[1][400:])
    history = run(people, dpsgd(plan, None), 12, validation=test)
    assert history.accuracy[-1] > 0.6
    assert plan.statement() in history.statement
    assert history.statement.endswith("Client level: this run guarantees nothing.")
    assert "Reproducible" not in history.statement
    assert "No noise" not in history.statement
    assert all(epsilon == float("inf") for epsilon in history.epsilon)


def test_beside_a_client_level_plan_both_guarantees_are_stated(people: Any) -> None:
    client = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=3, clients=20)
    plan = records(people)
    statement = fldp.train(model(), people, client, local=dpsgd(plan)).statement
    assert client.statement() in statement
    assert plan.statement() in statement
    assert "guarantees nothing" not in statement


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"rounds": 2}, "rounds is 3, records accounts for 2"),
        ({"client_sizes": [20] * 19 + [60]}, "other sizes"),
        ({"client_sizes": [20] * 19}, "19 clients"),
        ({"batch_size": 7}, "other sizes"),
        ({"client_sampling_rate": 0.25}, "rate 0.5, accounted is 0.25"),
    ],
)
def test_what_is_not_accounted_is_refused(people: Any, options: Any, say: str) -> None:
    plan = records(people, **options)
    if "batch_size" in options:  # whoever edits the plan afterwards changes what runs
        plan = records(people)
        object.__setattr__(plan, "batch_size", 7)
    with pytest.raises(ValueError, match=say):
        run(people, dpsgd(plan), cohort=10)


@pytest.mark.parametrize(("name", "value"), [("lr", 0.0), ("max_grad_norm", float("nan"))])
def test_bad_settings_are_refused(people: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        dpsgd(records(people), **{name: value})


@pytest.mark.slow
def test_steps_noise_and_denominator_are_the_plans(people: Any, steps: list[Any]) -> None:
    plan = records(people, local_epochs=2, per_client=True)
    run(people, dpsgd(plan, max_grad_norm=0.3))
    assert len(steps) == 3 * 2 * int(plan.steps_per_epoch.sum())
    assert {step["over"] for step in steps} == {5}
    assert {step["C"] for step in steps} == {0.3}
    assert {step["z"] for step in steps} == set(plan.noise_multipliers.tolist())
    batches = torch.tensor([float(step["batch"]) for step in steps])
    # Binomial(20, 1/4): never a fixed batch, empty now and then, 5 on average.
    assert abs(float(batches.mean()) - 5) < 0.4
    assert abs(float(batches.var()) - 3.75) < 0.7
    assert 0 in batches


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("rate", [1, 3])
def test_every_record_has_its_own_coin(people: Any, seed: int | None, rate: int) -> None:
    local = dpsgd(records(people), seed)
    drawn = torch.stack([local._coins(8, rate) for _ in range(6000)]).double()
    assert torch.allclose(drawn.mean(0), torch.full((8,), 1 / rate).double(), atol=0.03)
    if rate > 1:
        assert float((drawn.T.cov() - torch.eye(8) * (rate - 1) / rate**2).abs().max()) < 0.03


def test_an_empty_batch_is_noise_alone(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = records(people)
    local = dpsgd(plan, lr=2.0)
    monkeypatch.setattr(
        fldp.DPSGD, "_coins", lambda self, n, rate: torch.zeros(n, dtype=torch.bool)
    )
    convolution = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(),
                                nn.Linear(144, 10))  # fmt: skip
    rows = torch.cat(list(local.updates(convolution, flatten(convolution), people, range(20))))
    steps = int(plan.steps_per_epoch[0])
    wanted = 2.0 * plan.noise_multiplier / 5 * steps**0.5
    assert abs(float(rows.std()) / wanted - 1) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "n"), [(400, 1), (50, 8), (8, 50)])
def test_noise_that_arrives_on_the_mean(clients: int, n: int) -> None:
    # Blank images: the 640 weights get no gradient and carry the noise alone. 3840 draws, so that
    # 6 % is more than 5 standard errors: a false alarm in a million.
    blank = fldp.clients.partition(torch.zeros(400, 64), torch.arange(400) % 10, clients, seed=0)
    account: Any = {"epsilon": 8.0, "delta": 1e-4, "rounds": 1}
    plan = fldp.calibrate(**account, clients=clients)
    inside = records(blank, **account, batch_size=n)
    z, start = plan.noise_multiplier, model()
    assert inside.noise_multiplier == pytest.approx(z, rel=1e-4)
    gradients, updates = [], []
    for seed in range(6):
        local = dpsgd(inside, seed, lr=0.3, max_grad_norm=2.0)
        gradients.append(flatten(run(blank, local, 1).model) - flatten(start))
        drawn = torch.Generator().manual_seed(seed)
        history = fldp.train(start, blank, plan, clip=0.7, generator=drawn)
        updates.append(flatten(history.model) - flatten(start))
    spread = [float(torch.stack(moved)[:, :640].std()) for moved in (gradients, updates)]
    assert spread[0] == pytest.approx(0.3 * z * 2.0 / (n * clients**0.5), rel=0.06)
    assert spread[1] == pytest.approx(z * 0.7 / clients, rel=0.06)


def test_without_noise_it_is_a_step_on_the_clipped_mean(people: Any) -> None:
    plan = records(people, batch_size=40)
    object.__setattr__(plan, "noise_multipliers", plan.noise_multipliers * 0)
    start, (x, y) = model(), people.client(3)
    (row,) = dpsgd(plan, lr=0.5, max_grad_norm=0.2).updates(start, flatten(start), people, [3])
    total = torch.zeros(650)
    for record, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(start(record[None]), label[None])
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, start.parameters())])
        total += gradient * min(1, 0.2 / float(gradient.norm()))
    assert torch.allclose(row[0], -0.5 * total / 40, atol=1e-6)


def test_a_gradient_that_overflows_is_still_clipped(people: Any) -> None:
    x = people.x.clone()
    x[int(people.index[0, 0])] = 3e38
    broken = fldp.clients.Population(x, people.y, people.index)
    plan = records(people)
    (rows,) = dpsgd(plan).updates(model(), flatten(model()), broken, [0])
    assert bool(torch.isfinite(rows).all())
    assert float(rows.abs().max()) < 10 * plan.noise_multiplier


@pytest.mark.slow
def test_noise_comes_from_the_system_unless_a_generator_is_given(
    people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> Tensor:
        raise AssertionError("Opacus' own noise")

    monkeypatch.setattr(opacus_optimizer, "_generate_noise", never)
    plan = records(people)
    free = [flatten(run(people, dpsgd(plan, None)).model) for _ in range(2)]
    assert not torch.equal(*free)
    local = dpsgd(plan)
    fixed = [run(people, local) for _ in range(2)]
    assert torch.equal(*[flatten(history.model) for history in fixed])
    assert "against whoever knows the seed" in fixed[0].statement


def test_the_model_is_never_wrapped_twice(people: Any) -> None:
    start = model()
    local = dpsgd(records(people))
    for _ in range(2):
        history = fldp.train(start, people, None, clip=None, rounds=2, local=local)
    for plain in (start, history.model):
        assert type(plain) is nn.Linear
        assert not plain._forward_hooks
        assert not plain._backward_hooks
        assert not any(hasattr(p, "grad_sample") for p in plain.parameters())
    with pytest.raises(ValueError, match="give the plain"):
        fldp.train(GradSampleModule(model()), people, None, clip=None, rounds=2, local=local)
    norm = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="BatchNorm"):
        fldp.train(norm, people, None, clip=None, rounds=2, local=local)


def test_only_what_is_trained_moves(people: Any) -> None:
    frozen = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    frozen[0].requires_grad_(False)
    history = fldp.train(
        frozen, people, None, clip=None, rounds=2, local=dpsgd(records(people, batch_size=40))
    )
    after: Any = history.model
    assert torch.equal(after[0].weight, frozen[0].weight)
    assert not torch.equal(after[2].weight, frozen[2].weight)


def test_a_client_stops_after_the_rounds_that_are_accounted(people: Any, steps: list[Any]) -> None:
    plan = records(people, rounds=4, participations=1, batch_size=20)
    history = run(people, dpsgd(plan), rounds=4)
    assert len(steps) == 20  # the first round; the later ones are zeros
    assert history.rounds == 4
    steps.clear()
    run(people, dpsgd(plan), rounds=4, cohort=10, sampler=MinSeparation(2))
    assert len(steps) == 20


def test_what_is_no_plan_of_records_is_refused(people: Any) -> None:
    client = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=3, clients=20)
    for plan in (client, 3, None):
        with pytest.raises(ValueError, match=r"records is .*: give fldp\.calibrate_records"):
            fldp.DPSGD(plan)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads is 0"):
        dpsgd(records(people), threads=0)


class _Picky(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            raise RuntimeError(f"{len(x)} records")
        return super().forward(x)


class _Sometimes(nn.Module):
    """A layer that only records with a bright first pixel go through."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 10)
        self.b = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 20] > 0.5
        out = self.a(x)
        if bool(bright.any()):
            out = out.index_add(0, bright.nonzero().flatten(), self.b(x[bright]))
        return out


def test_what_fails_on_records_is_one_sentence_with_its_cause(people: Any) -> None:
    plan = records(people, batch_size=20)
    with pytest.raises(ValueError, match=r"failed with RuntimeError .* private as") as caught:
        run_model(_Picky(64, 10), people, dpsgd(plan))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "records" not in str(caught.value)


def test_a_layer_that_sees_some_records_only_is_refused(people: Any) -> None:
    with pytest.raises(ValueError, match=r"failed with|cannot compute"):
        run_model(_Sometimes(), people, dpsgd(records(people, batch_size=20)))


def run_model(start: nn.Module, people: Any, local: fldp.DPSGD) -> fldp.History:
    return fldp.train(start, people, None, clip=None, rounds=1, local=local)


@pytest.mark.parametrize("loss", [F.mse_loss, nn.L1Loss(), lambda out, y: (out - y).abs().mean()])
def test_the_runs_loss_is_clipped_record_by_record(people: Any, loss: Any) -> None:
    plan = records(people, batch_size=40)
    object.__setattr__(plan, "noise_multipliers", plan.noise_multipliers * 0)
    crowd = fldp.clients.Population(people.x, people.x[:, :10] * 3, people.index)
    local = dpsgd(plan, lr=0.5, max_grad_norm=0.2)
    local.learn(Objective(loss))
    start, (x, y) = model(), crowd.client(3)
    (row,) = local.updates(start, flatten(start), crowd, [3])
    total = torch.zeros(650)
    for record, target in zip(x, y, strict=True):
        found = loss(start(record[None]), target[None])
        parts = torch.autograd.grad(found, start.parameters())
        gradient = torch.cat([g.reshape(-1) for g in parts])
        total += gradient * min(1, 0.2 / float(gradient.norm()))
    assert torch.allclose(row[0], -0.5 * total / 40, atol=1e-6)


def test_clients_that_are_loaded_when_they_are_drawn(people: Any) -> None:
    plan = records(people, batch_size=20)
    lazy = fldp.clients.from_loader(people.client, clients=20, sizes=people.sizes)
    found = [flatten(run_model(model(), crowd, dpsgd(plan)).model) for crowd in (people, lazy)]
    assert torch.equal(*found)


def test_labels_beyond_the_outputs_are_refused_before_anybody_trains(people: Any) -> None:
    with pytest.raises(ValueError, match="there is a label 9 and the model has 3 outputs"):
        run_model(nn.Linear(64, 3), people, dpsgd(records(people)))


def test_records_by_name_and_words(people: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Embedding(8, 4)
            self.o = nn.Linear(64 + 4, 10)

        def forward(self, image: Tensor, word: Tensor) -> dict[str, Tensor]:
            return {"logits": self.o(torch.cat([image, self.e(word)], 1))}

    named = {"image": people.x, "word": people.y % 8}
    crowd = fldp.clients.Population(named, people.y, [row.tolist() for row in people.index])
    plan = records(people, batch_size=20)
    assert torch.isfinite(flatten(run_model(Net(), crowd, dpsgd(plan)).model)).all()


def test_a_frozen_batch_norm_is_not_refused(people: Any) -> None:
    net = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    net[1].requires_grad_(False).eval()
    after: Any = run_model(net, people, dpsgd(records(people, batch_size=20))).model
    assert torch.equal(after[1].running_mean, net[1].running_mean)
    assert not torch.equal(after[0].weight, net[0].weight)


def test_served_rounds_survive_a_resume(people: Any, steps: list[Any], tmp_path: Path) -> None:
    plan = records(people, rounds=4, participations=2, batch_size=20)
    path = tmp_path / "run.pt"
    stop = lambda done, history: done == 1  # noqa: E731
    whole = run(people, dpsgd(plan), rounds=4, seed=5)
    steps.clear()
    run(people, dpsgd(plan), rounds=4, seed=5, checkpoint=path, callbacks=[stop])
    again = run(people, dpsgd(plan), rounds=4, seed=5, checkpoint=path, resume=True)
    assert len(steps) == 40
    assert torch.equal(flatten(again.model), flatten(whole.model))
    assert "Resumed" not in again.statement  # the same noise again tells nothing new
    other = dpsgd(records(people, rounds=4, participations=2, batch_size=20, epsilon=9.0))
    with pytest.raises(ValueError, match=r"another local algorithm .*epsilon=8\.0"):
        run(people, other, rounds=4, checkpoint=path, resume=True)
    path.unlink()
    run(people, dpsgd(plan, None), rounds=4, checkpoint=path, callbacks=[stop])
    fresh = run(people, dpsgd(plan, None), rounds=4, checkpoint=path, resume=True)
    assert "cut off is not accounted" in fresh.statement


def test_local_trust_runs_in_the_same_loop(people: Any) -> None:
    plan = fldp.calibrate(
        epsilon=200.0, delta=1e-2, rounds=10, clients=20, cohort=20, trust="local"
    )
    drawn = torch.Generator().manual_seed(0)
    silent = fldp.LocalSGD(lr=1e-9)  # no signal: what is left is each client's own noise
    history = fldp.train(model(), people, plan, local=silent, generator=drawn)
    assert history.epsilon[-1] == pytest.approx(200, rel=0.01)
    assert "every message" in history.statement
    spread = float((flatten(history.model) - flatten(model())).std())
    assert spread == pytest.approx(plan.noise_multiplier * (10 / 20) ** 0.5, rel=0.1)
