"""Local algorithms: equal to torch.optim.SGD at each client alone, whatever the engine or chunk."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fldp
from fldp.mechanism.aggregation import PrivateAggregator
from fldp.mechanism.clipping import clip
from fldp.mechanism.updates import flatten, load_, shapes
from fldp.plan import calibrate
from fldp.simulation.batching import usual
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.isolation import threads
from fldp.simulation.local import FedProx, LocalSGD
from fldp.simulation.own import LocalFunction
from fldp.simulation.scaffold import Scaffold

SIZES = (7, 1, 4, 10, 3)


class Residual(nn.Module):
    """A module that is no Sequential: only torch.func and the loop can run it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x + torch.tanh(self.a(x)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 3), (8,)),
    "mlp": (
        lambda: nn.Sequential(
            nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(inplace=True),
            nn.Sequential(nn.Linear(6, 6, bias=False), nn.GroupNorm(2, 6), nn.GELU()),
            nn.Linear(6, 3),
        ),
        (8,),
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.LayerNorm([4, 2, 2]), nn.Tanh(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
        ),
        (2, 8, 8),
    ),
    "unflatten": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 4, 2)), nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Dropout(0.0),
            nn.Linear(9, 3),
        ),
        (8,),
    ),
    "residual": (Residual, (8,)),
}  # fmt: skip


def population(shape: tuple[int, ...], sizes: tuple[int, ...] = SIZES) -> Population:
    generator = torch.Generator().manual_seed(3)
    n = sum(sizes)
    lists, start = [], 0
    for size in sizes:
        lists.append(list(range(start, start + size)))
        start += size
    x = torch.randn(n, *shape, generator=generator)
    return Population(x, torch.randint(0, 3, (n,), generator=generator), lists)


def orders(people: Population, ids: list[int], epochs: int, seed: int) -> list[list[Tensor]]:
    """The shuffles that the seed gives in round 2, client by client and epoch by epoch."""
    draws, found = Draws(seed), []
    for i in ids:
        size = int(people.sizes[i])
        words = [draws.words("shuffle", 2, [i], size, e * 2**32)[0] >> 1 for e in range(epochs)]
        found.append([torch.from_numpy(w.astype("int64")).argsort() for w in words])
    return found


def reference(
    model: nn.Module, people: Population, ids: list[int], algorithm: LocalSGD, seed: int
) -> Tensor:
    start, out = flatten(model), []
    shuffles = orders(people, ids, algorithm.epochs, seed)
    for j, i in enumerate(ids):
        own = deepcopy(model)
        optimiser = torch.optim.SGD(
            [p for p in own.parameters() if p.requires_grad],
            lr=algorithm.lr, momentum=algorithm.momentum, weight_decay=algorithm.weight_decay,
        )  # fmt: skip
        x, y = people.client(i)
        x = x.to(start)
        batch = algorithm.batch_size or len(y)
        for epoch in range(algorithm.epochs):
            optimiser.param_groups[0]["lr"] = algorithm.rate(2, epoch)
            order = shuffles[j][epoch] if algorithm.batch_size else torch.arange(len(y))
            for picked in order.split(batch):
                optimiser.zero_grad()
                loss = F.cross_entropy(own(x[picked]), y[picked])
                if isinstance(algorithm, FedProx):
                    flat = torch.cat([p.flatten() for p in own.parameters() if p.requires_grad])
                    loss = loss + algorithm.proximal / 2 * (flat - start).square().sum()
                loss.backward()
                optimiser.step()
        out.append(flatten(own) - start)
    return torch.stack(out)


def collect(
    algorithm: LocalSGD | LocalFunction, model: nn.Module, people: Population, ids: list[int],
    seed: int = 0, chunk: int | None = None,
) -> Tensor:  # fmt: skip
    flat, draws = flatten(model), Draws(seed)
    return torch.cat(list(algorithm.updates(model, flat, people, ids, draws, chunk=chunk, round=2)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop", "auto"])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_engine_equals_torch_sgd(name: str, engine: str) -> None:
    make, shape = MODELS[name]
    if name == "residual" and engine == "stacked":
        pytest.skip("no stacked kernel for a module that is not Sequential")
    torch.manual_seed(0)
    model, people, ids = make(), population(shape), [3, 0, 1, 4]
    for extra in ({}, {"momentum": 0.9, "weight_decay": 0.01}):
        algorithm = LocalSGD(lr=0.1, epochs=2, batch_size=4, engine=engine, **extra)
        expected = reference(model, people, ids, algorithm, seed=5)
        assert float(expected.abs().max()) > 1e-3
        for chunk in (None, 1, 3):
            got = collect(algorithm, model, people, ids, seed=5, chunk=chunk)
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        wide, algorithm.epochs = deepcopy(model).double(), 3
        expected = reference(wide, people, ids, algorithm, seed=5)
        got = collect(algorithm, wide, people, ids, seed=5)
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("algorithm", [
    LocalSGD(lr=0.2, epochs=3),
    LocalSGD(lr=0.2, epochs=3, batch_size=4, schedule=lambda t, e: 0.5 ** (t + e)),
    FedProx(lr=0.2, epochs=2, batch_size=3, proximal=0.7),
])  # fmt: skip
def test_full_batches_schedules_and_fedprox(algorithm: LocalSGD) -> None:
    torch.manual_seed(0)
    make, shape = MODELS["mlp"]
    model, people = make().double(), population(shape)
    expected = reference(model, people, list(range(5)), algorithm, seed=1)
    got = collect(algorithm, model, people, list(range(5)), seed=1)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)


def test_the_result_does_not_depend_on_the_chunk() -> None:
    make, shape = MODELS["mlp"]
    people, model = population(shape, (5,) * 12), make()
    algorithm = LocalSGD(lr=0.1, epochs=2, batch_size=2)
    whole = collect(algorithm, model, people, list(range(12)))
    for chunk in (1, 5, 12):
        torch.testing.assert_close(
            collect(algorithm, model, people, list(range(12)), chunk=chunk), whole,
            atol=1e-6, rtol=1e-5,
        )  # fmt: skip


def test_one_heavy_client_does_not_make_all_others_train_alone() -> None:
    x, y = torch.randn(3_000, 4), torch.arange(3_000) % 3
    people = Population(x, y, [[i, i + 1] for i in range(60)] + [range(100, 3_000)])
    model = nn.Linear(4, 3)
    local = LocalSGD(lr=0.1)
    flat = flatten(local.prepare(model))
    chunks = [*local.updates(model, flat, people, range(61), Draws(0))]
    assert [len(chunk) for chunk in chunks] == [60, 1]
    alone = [*local.updates(model, flat, people, range(61), Draws(0), chunk=1)]
    torch.testing.assert_close(torch.cat(chunks), torch.cat(alone), atol=1e-6, rtol=1e-5)
    # Sizes that differ little are dealt with as ever: as many together as are fast.
    even = people.sizes[:60]
    assert usual(even) == 2
    assert usual(torch.tensor([1, 2, 8])) == 8


def test_an_empty_cohort_gives_no_chunk_and_the_model_stays_as_it_was() -> None:
    model, people = nn.Linear(8, 3), population((8,))
    before = flatten(model)
    assert list(LocalSGD().updates(model, before, people, [])) == []
    assert list(LocalFunction(lambda m, x, y: None).updates(model, before, people, [])) == []
    collect(LocalSGD(batch_size=2, engine="loop"), model, people, [0, 1])
    assert torch.equal(flatten(model), before)


def test_partial_training_shrinks_the_update() -> None:
    torch.manual_seed(0)
    make, shape = MODELS["cnn"]
    model, people = make(), population(shape)
    algorithm = LocalSGD(lr=0.1, batch_size=4, trainable=["9."])
    with pytest.raises(ValueError, match="prepare"):
        algorithm.updates(model, flatten(model), people, [0])
    algorithm.prepare(model)
    assert [name for name, _, _ in shapes(model)] == ["9.weight", "9.bias"]
    expected = reference(model, people, [0, 3], algorithm, seed=0)
    for engine in ("stacked", "vmap", "loop"):
        algorithm.engine = engine
        got = collect(algorithm, model, people, [0, 3])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    middle = LocalSGD(lr=0.1, batch_size=4, trainable=lambda name: name.startswith(("4", "5")))
    model = middle.prepare(make())
    expected = reference(model, people, [0, 3], middle, seed=0)
    torch.testing.assert_close(collect(middle, model, people, [0, 3]), expected, atol=1e-5, rtol=0)


def test_a_function_equals_local_sgd_and_is_reproducible() -> None:
    def adamless(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        F.cross_entropy(model(x), y).backward()
        optimiser.step()

    def noisy(model: nn.Module, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))

    model, people = nn.Linear(8, 3), population((8,))
    got = collect(LocalFunction(adamless), model, people, [4, 2], chunk=1)
    expected = collect(LocalSGD(lr=0.1), model, people, [4, 2])
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    state = torch.get_rng_state()
    first = collect(LocalFunction(noisy), model, people, [0, 1, 2], chunk=1)
    assert torch.equal(first, collect(LocalFunction(noisy), model, people, [0, 1, 2], chunk=3))
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_is_random_per_client_and_reproducible() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    people = population((8,))
    first = collect(LocalSGD(batch_size=2), model, people, [0, 3])
    assert torch.equal(first, collect(LocalSGD(batch_size=2), model, people, [0, 3], chunk=2))
    assert not torch.equal(first, collect(LocalSGD(batch_size=2), model, people, [0, 3], seed=1))


@pytest.mark.parametrize("layer", [
    nn.BatchNorm1d(8), nn.InstanceNorm1d(8, track_running_stats=True),
])  # fmt: skip
def test_batch_statistics_are_refused(layer: nn.Module) -> None:
    model, people = nn.Sequential(layer, nn.Linear(8, 3)), population((8,))
    for algorithm in (LocalSGD(), LocalFunction(lambda m, x, y: None)):
        with pytest.raises(ValueError, match="GroupNorm"):
            list(algorithm.updates(model, flatten(model), people, [0]))
        with pytest.raises(ValueError, match="GroupNorm"):
            algorithm.prepare(model)


def test_a_diverging_client_spoils_only_its_own_row() -> None:
    people = population((8,))
    people.x[0] = 3e38
    got = collect(LocalSGD(lr=1e30, epochs=3), nn.Linear(8, 3), people, [0, 1, 2])
    assert not torch.isfinite(got[0]).all()
    assert torch.isfinite(collect(LocalSGD(lr=0.1), nn.Linear(8, 3), people, [0, 1, 2])[1:]).all()


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
def test_p07_padding_never_decides_whether_an_update_survives(engine: str) -> None:
    # Client 0 is finite alone: its huge record is in the first batch only, before any step is huge.
    # Beside the larger client 1 its last batch is padded, and the huge record there is inf · 0.
    x = torch.zeros(7, 1)
    x[0] = 1e30
    people = Population(x, torch.tensor([0, 0, 0, 1, 1, 1, 1]), [[0, 1, 2], [3, 4, 5, 6]])
    algorithm = LocalSGD(lr=1.0, batch_size=2, engine=engine)
    model = algorithm.prepare(nn.Linear(1, 2))
    torch.nn.init.zeros_(model.weight)
    for seed in range(6):
        flat, draws = flatten(model), Draws(seed)
        (alone,) = algorithm.updates(model, flat, people, [0], draws)
        (beside,) = algorithm.updates(model, flat, people, [0, 1], draws)
        assert torch.equal(alone[0], beside[0])
        assert torch.isfinite(alone).all()


@pytest.mark.parametrize("bad", [
    {"lr": 0.0}, {"lr": float("nan")}, {"epochs": 0}, {"epochs": 1.5}, {"batch_size": 0},
    {"momentum": 1.0}, {"weight_decay": -1.0},
])  # fmt: skip
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        LocalSGD(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
def test_a_layer_that_works_in_place_leaves_the_clients_records_alone(engine: str) -> None:
    people = population((8,))
    before = people.x.clone()
    assert bool((before[0] < 0).any())
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 3))
    collect(LocalSGD(lr=0.1, engine=engine), net, people, range(5))
    assert torch.equal(people.x, before)


def test_bad_engine_and_bad_target_of_training() -> None:
    model, people = Residual(), population((8,))
    with pytest.raises(ValueError, match="engine"):
        collect(LocalSGD(engine="fast"), model, people, [0])
    with pytest.raises(ValueError, match="no stacked kernel"):
        collect(LocalSGD(engine="stacked"), model, people, [0])
    with pytest.raises(ValueError, match="nothing to train"):
        LocalSGD(trainable=[]).prepare(model)


def trained(model: nn.Module, wanted: Any) -> list[str]:
    return [name for name, _, _ in shapes(LocalSGD(trainable=wanted).prepare(model))]


def layers() -> nn.Module:
    names = {f"layer{i}": nn.Linear(2, 2) for i in (1, 2, 10)}
    return nn.ModuleDict(names | {"block": nn.Sequential(nn.Linear(2, 2), nn.PReLU())})


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["layer1"], ["layer1.weight", "layer1.bias"]),
        ("layer1", ["layer1.weight", "layer1.bias"]),
        (["layer1."], ["layer1.weight", "layer1.bias"]),
        (("layer10.bias", "block.1"), ["layer10.bias", "block.1.weight"]),
        (["layer?.bias"], ["layer1.bias", "layer2.bias"]),
        (["*.bias"], ["layer1.bias", "layer2.bias", "layer10.bias", "block.0.bias"]),
        (["layer1*"], ["layer1.weight", "layer1.bias", "layer10.weight", "layer10.bias"]),
        (lambda name: name.endswith("0.bias"), ["layer10.bias", "block.0.bias"]),
    ],
)
def test_what_is_trained_is_named_exactly(wanted: Any, names: list[str]) -> None:
    assert trained(layers(), wanted) == names


@pytest.mark.parametrize(
    ("wanted", "say"),
    [
        (["layer"], "trainable names 'layer', and the model has layer1.weight, layer1.bias"),
        (["layer1", "layer1.weigh"], r"trainable names 'layer1\.weigh', and"),
        (["LAYER1"], "trainable names 'LAYER1'"),
        ([""], "trainable names ''"),
        (["layer2"], "'layer2', which is frozen"),
        ([1], r"trainable is \[1\]: give names"),
        (1, "trainable is 1: give names"),
    ],
)
def test_a_name_that_trains_nothing_is_refused(wanted: Any, say: str) -> None:
    model: Any = layers()
    model.layer2.requires_grad_(False)
    with pytest.raises(ValueError, match=say):
        trained(model, wanted)


def test_a_compiled_model_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(8, 6), torch.compile(nn.Linear(6, 3), backend="eager"))
    with pytest.raises(ValueError, match=r"layer '1' is compiled.*_orig_mod"):
        LocalSGD().prepare(model)


def test_a_long_list_of_names_is_cut() -> None:
    with pytest.raises(ValueError, match=r"5\.weight, 5\.bias and 8 more to train"):
        trained(nn.Sequential(*[nn.Linear(2, 2) for _ in range(10)]), ["c"])


@pytest.mark.parametrize("algorithm", [LocalSGD(lr=0.5), LocalFunction(lambda m, x, y: m)])
def test_what_the_model_has_frozen_is_no_part_of_the_update(algorithm: Any) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    people = population((8,))
    rows = collect(algorithm, algorithm.prepare(model), people, [0, 1])
    assert rows.shape == (2, 21)
    if isinstance(algorithm, LocalSGD):
        expected = reference(model, people, [0, 1], algorithm, seed=0)
        torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_one_full_step_is_a_step_on_the_pooled_records() -> None:
    torch.manual_seed(0)
    model, people = nn.Linear(8, 3).double(), population((8,))
    flat, n = flatten(model), people.sizes.double()
    updates = torch.cat(list(LocalSGD(lr=0.3).updates(model, flat, people, range(len(people)))))
    F.cross_entropy(model(people.x.double()), people.y).backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(n / n.sum() @ updates, -0.3 * gradient, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(
    "local",
    [LocalSGD(lr=0.5), LocalSGD(lr=0.5, epochs=5, batch_size=1, momentum=0.9), FedProx(lr=0.5)],
)
def test_one_record_can_turn_a_clipped_update_around(local: LocalSGD) -> None:
    """Data sets that differ in one record send clipped updates up to 2C apart, and no more."""
    C, model = 0.7, nn.Linear(8, 3)
    rng = torch.Generator().manual_seed(0)

    def sent(x: Tensor, y: Tensor) -> Tensor:
        (row,) = local.updates(model, torch.zeros(27), Population(x, y, [range(len(x))]), [0],
                               torch.Generator().manual_seed(1))  # fmt: skip
        return clip(row[0], clip_norm=C)[0]

    apart = []
    for size in (0.1, 1.0, 1e2, 1e4):
        x = torch.randn(5, 8, generator=rng)
        y = torch.randint(0, 3, (5,), generator=rng)
        loud, quiet, other = x.clone(), x.clone(), x.clone()
        loud[0], quiet[0] = size * x[0], -size * x[0]
        other[0] = size * torch.randn(8, generator=rng)
        one = sent(loud, y)
        apart += [float(torch.dist(one, sent(quiet, y))), float(torch.dist(one, sent(other, y)))]
        apart.append(float(torch.dist(one, sent(x[1:], y[1:]))))  # the record removed
    assert max(apart) <= 2 * C * (1 + 1e-6)
    assert max(apart) >= 1.99 * C


def _explode(model: nn.Module, x: Tensor, y: Tensor) -> None:
    for p in model.parameters():
        p.data.mul_(1e30)


def _spoil(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.weight.data.fill_(1e6)
    model.bias.data[0] = float("nan")


def _send_the_records(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.weight.data[0].add_(1e3 * x[0])


def _adam(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()


ANY: dict[str, Callable[[], LocalSGD | LocalFunction]] = {
    "sgd": lambda: LocalSGD(lr=2.0),
    "many epochs": lambda: LocalSGD(lr=5.0, epochs=20, batch_size=2),
    "local momentum": lambda: LocalSGD(lr=1.0, epochs=3, momentum=0.9),
    "fedprox": lambda: FedProx(lr=1.0, epochs=5, proximal=0.3),
    "scaffold": lambda: Scaffold(lr=1.0, epochs=5),
    "part": lambda: LocalSGD(lr=2.0, trainable=["bias"]),
    "adam": lambda: LocalFunction(_adam),
    "explode": lambda: LocalFunction(_explode),
    "spoil": lambda: LocalFunction(_spoil),
    "send the records": lambda: LocalFunction(_send_the_records),
}


def moved_by_one_client(rows: Tensor, halves: int = 1) -> float:
    """How far the release moves, same noise, when the last client stays away; in units of C/m.

    `halves` 2 is the fault: the two vectors of SCAFFOLD clipped and noised each on its own.
    """
    plan = calibrate(epsilon=8.0, delta=1e-3, rounds=3, clients=5, sampling="none")
    means = []
    for present in (rows, rows[:-1]):
        parts = []
        for part in present.chunk(halves, dim=1):
            noise = torch.Generator().manual_seed(0)
            aggregator = PrivateAggregator(part[0], plan, 1.0, generator=noise)
            aggregator.add(part)
            parts.append(aggregator.release().mean.double())
        means.append(torch.cat(parts))
    return float((means[0] - means[1]).norm()) * plan.denominator


@pytest.mark.parametrize("name", ANY)
def test_no_algorithm_exceeds_the_clip(name: str) -> None:
    """Three rounds, so that algorithms with a memory use it; float32 may round by 1e-5."""
    torch.manual_seed(0)
    algorithm = ANY[name]()
    model, people = algorithm.prepare(nn.Linear(8, 3)), population((8,))
    for turn in range(3):
        flat = flatten(model)
        rows = collect(algorithm, model, people, range(5), seed=turn)
        assert rows.shape == (5, algorithm.width(len(flat)))
        assert moved_by_one_client(rows) <= 1 + 1e-5
        if torch.isfinite(rows).all():
            load_(model, flat + algorithm.absorb(rows.clamp(-1, 1).mean(0)))


def test_old_names_work_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="mu is proximal now") as seen:
        assert FedProx(lr=1.0, mu=0.3) == FedProx(lr=1.0, proximal=0.3)
    assert seen[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="LocalFunction now"):
        assert fldp.BringYourOwn is LocalFunction
    with pytest.warns(DeprecationWarning, match="simulation.scaffold.Scaffold now"):
        from fldp.simulation.local import Scaffold as old
    assert old is Scaffold
    with pytest.raises(ValueError, match="old name of proximal"):
        LocalSGD(mu=0.3, proximal=0.3)
    with pytest.raises(AttributeError, match="no_such_name"):
        fldp.simulation.local.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": 3}, "schedule"),
        ({"schedule": lambda round: 1.0}, "schedule"),
        ({"lr": 1e40}, "single precision"),
    ],
)
def test_a_rate_that_is_none_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalSGD(**options)


@pytest.mark.parametrize("factor", ["a", None, float("nan"), float("inf"), [1.0]])
def test_a_schedule_is_asked_for_all_rounds_before_the_first(factor: Any) -> None:
    people = fldp.clients.partition(*fldp.datasets.digits(), clients=50, seed=0)
    local = LocalSGD(schedule=lambda round, epoch: factor if round == 3 else 1.0)
    with pytest.raises(ValueError, match=r"schedule\(3, 0\)"):
        local.begin(people, 4, 0.5)
    local.begin(people, 3, 0.5)


def test_a_predicate_that_fails_is_told_in_words() -> None:
    with pytest.raises(ValueError, match="trainable failed on 'weight'"):
        LocalSGD(trainable=lambda name: bool(1 / 0)).prepare(nn.Linear(2, 2))
