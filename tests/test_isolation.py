"""simulation.isolation: what a client leaves behind is there for nobody else, in any engine."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation.choice import choose
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import Engine
from fldp.simulation.inputs import made_up
from fldp.simulation.isolation import (
    Template,
    alone,
    copied,
    is_all_plain,
    threads,
)
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective
from fldp.simulation.own import LocalFunction
from fldp.simulation.rehearsal import holdings, traits


def chosen(model: nn.Module, name: str) -> tuple[Engine, int]:
    """The engine for records of eight numbers, with a label each."""
    labels = torch.zeros(0, dtype=torch.long)
    flat = flatten(model)
    found = choose(model, flat, torch.zeros(0, 8), labels, Objective(), 4, name, False)
    return found.engine, found.together


SIZES = (7, 1, 4, 12, 3, 5)


def population(sizes: tuple[int, ...] = SIZES, seed: int = 3) -> Population:
    generator, lists, start = torch.Generator().manual_seed(seed), [], 0
    for size in sizes:
        lists.append(list(range(start, start + size)))
        start += size
    x = torch.randn(start, 8, generator=generator)
    return Population(x, torch.randint(0, 3, (start,), generator=generator), lists)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class RunningMean(Base):
    """A buffer that follows the inputs: batch statistics under another name."""

    persistent = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8), persistent=self.persistent)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.mul_(0.5).add_(0.5 * x.mean(0))
        return super().forward(x - self.mean)


class Unsaved(RunningMean):
    persistent = False


class Attribute(Base):
    """The same in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(0)
        return super().forward(x - self.mean)


class Numpy(Base):
    """The same in a numpy array inside a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = {"mean": np.zeros(8, np.float32)}

    def forward(self, x: Tensor) -> Tensor:
        self.kept["mean"] += x.detach().mean(0).numpy()
        return super().forward(x - torch.from_numpy(self.kept["mean"].copy()))


class Counter(Base):
    """An integer that changes what the model computes."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Stateful(nn.Module):
    """An LSTM that goes on from where the last batch ended."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.state = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3), None

    def forward(self, x: Tensor) -> Tensor:
        start = None
        if self.state is not None:
            start = tuple(s.mean(1, keepdim=True).expand(-1, len(x), -1).contiguous()
                          for s in self.state)  # fmt: skip
        out, state = self.inner(x.view(len(x), 2, 4), start)
        self.state = tuple(s.detach() for s in state)
        return self.head(out[:, -1])


class Piling(Base):
    """A hook more at every call."""

    def forward(self, x: Tensor) -> Tensor:
        self.a.register_forward_hook(lambda module, given, out: 1.1 * out)
        return super().forward(x)


class Freezing(Base):
    """The first call decides what may be trained in the later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 2:
            self.b.weight.requires_grad_(False)
        return super().forward(x)


def spectral(new: bool) -> nn.Module:
    wrap = nn.utils.parametrizations.spectral_norm if new else nn.utils.spectral_norm
    return nn.Sequential(wrap(nn.Linear(8, 6)), nn.Tanh(), nn.Linear(6, 3))


def quantized() -> nn.Module:
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    fake = FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
    return nn.Sequential(fake, nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


STATES: dict[str, Callable[[], nn.Module]] = {
    "old spectral norm": lambda: spectral(False),
    "new spectral norm": lambda: spectral(True),
    "fake quantization": quantized,
    "running mean": RunningMean,
    "a buffer that is not saved": Unsaved,
    "a plain attribute": Attribute,
    "a numpy array in a dictionary": Numpy,
    "a counter": Counter,
    "a stateful LSTM": Stateful,
    "hooks that pile up": Piling,
    "requires_grad": Freezing,
}


def sgd(model: nn.Module, x: Tensor, y: Tensor) -> None:
    for _ in range(2):
        trained = [p for p in model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), trained, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(trained, grads, strict=True):
                if g is not None:
                    p.sub_(0.3 * g)


LOCALS: dict[str, Callable[[], Any]] = {
    "auto": lambda: LocalSGD(lr=0.3, epochs=2, batch_size=2),
    "loop": lambda: LocalSGD(lr=0.3, epochs=2, batch_size=2, engine="loop"),
    "own code": lambda: LocalFunction(sgd),
}


def rows(local: Any, model: nn.Module, people: Population, ids: list[int], **more: Any) -> Tensor:
    flat, draws = flatten(model), Draws(4)
    return torch.cat(list(local.updates(model, flat, people, ids, draws, round=1, **more)))


@pytest.mark.slow
@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("state", STATES)
def test_p07_a_clients_update_does_not_depend_on_who_else_trained(state: str, local: str) -> None:
    """Bit for bit, whoever came before, in whatever chunk; the old engines moved by up to 20 C."""
    torch.manual_seed(0)
    algorithm, people = LOCALS[local](), population()
    model = algorithm.prepare(STATES[state]())
    before = holdings(model)
    together = rows(algorithm, model, people, [0, 1, 2, 3, 4, 5])
    assert float(together.abs().max()) > 1e-3
    for i in range(6):
        assert torch.equal(rows(algorithm, model, people, [i])[0], together[i])
    for ids in ([5, 3], [1, 2, 4], [3, 0, 5, 1]):
        for chunk in (1, 2, None):
            assert torch.equal(rows(algorithm, model, people, ids, chunk=chunk), together[ids])
    assert holdings(model) == before


@pytest.mark.parametrize("state", [name for name in STATES if name != "requires_grad"])
def test_p07_one_shared_module_would_let_clients_reach_each_other(state: str) -> None:
    """The planted fault: one module object for all clients, as the loop had it."""
    torch.manual_seed(0)
    model, people = STATES[state](), population()
    shared = copied(model).train()
    flat = flatten(model)

    def update(module: nn.Module, i: int) -> Tensor:
        fldp.mechanism.updates.load_(module, flat) if len(flatten(module)) == len(flat) else None
        sgd(module, *people.client(i))
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    alone_first = update(copied(model).train(), 3)
    for i in (0, 1, 2):
        update(shared, i)
    assert not torch.allclose(update(shared, 3), alone_first, atol=1e-6)


@pytest.mark.parametrize("state", STATES)
def test_p06_the_released_model_is_a_function_of_the_releases(state: str) -> None:
    """Its buffers and attributes are those of the model that was given, not a client's."""
    torch.manual_seed(0)
    model, people = STATES[state](), population()
    given = holdings(model)
    given.pop("0.weight", None)  # the old spectral norm keeps a view of the trained weight there
    plan = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=2, clients=6, cohort=5)
    validation = (torch.randn(4, 8), torch.zeros(4, dtype=torch.long))
    history = fldp.train(model, people, plan, local=LocalSGD(lr=0.3, batch_size=2), seed=1,
                         generator=torch.Generator().manual_seed(0),
                         validation=validation)  # fmt: skip
    for after in (holdings(history.model), holdings(model)):
        for name, value in given.items():
            # torch's copy of a hook's wrapper lacks some attributes: hooks are counted.
            same = len(after[name]) == len(value) if "_hooks" in name else after[name] == value
            assert same, name
    assert not torch.equal(flatten(history.model), flatten(model))


@pytest.mark.parametrize("engine", ["auto", "stacked", "vmap", "loop"])
def test_p06_probes_see_no_record(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing an engine must not read a client: its inputs are the same for any population."""
    seen: list[Tensor] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not torch._C._functorch.is_functorch_wrapped_tensor(x):
                seen.append(x.detach().clone())
            return super().forward(x)

    for fill in (1e6, -1e6):
        people = population()
        people.x.fill_(fill)
        model = nn.Linear(8, 3) if engine == "stacked" else Spy(8, 3)
        LocalSGD(engine=engine).updates(model, flatten(model), people, [0, 1])
        LocalFunction(sgd).rehearse(model, flatten(model), people)
    assert all(float(x.abs().max()) <= 1 for x in seen)


def test_p06_nothing_is_moved_by_the_choice_of_an_engine() -> None:
    for make in STATES.values():
        torch.manual_seed(0)
        model = make()
        before, state = holdings(model), torch.get_rng_state()
        numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        engine, _ = chosen(model, "auto")
        assert engine.single
        assert holdings(model) == before
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
        assert random.getstate() == python_state


@pytest.mark.parametrize("state", [k for k in STATES if k != "old spectral norm"])
def test_engines_that_clients_would_share_are_refused_by_the_name_of_what_moves(
    state: str,
) -> None:
    model = STATES[state]()
    with pytest.raises(ValueError, match=r"engine is 'vmap', but .*use engine='loop'"):
        chosen(model, "vmap")


def test_what_moves_is_named() -> None:
    names = {"running mean": "mean", "a counter": "calls", "new spectral norm":
             "0.parametrizations.weight.0._u", "requires_grad": None}  # fmt: skip
    for state, name in names.items():
        model = STATES[state]()
        found = traits(model, Template(model), torch.zeros(0, 8))
        assert name is None or name in found.moved


_global: list[float] = []


class Closure(Base):
    def __init__(self) -> None:
        super().__init__()
        kept = [torch.zeros(6)]

        def hook(module: nn.Module, given: Any, out: Tensor) -> Tensor:
            kept[0] = 0.5 * kept[0] + 0.5 * out.detach().mean(0)
            return out - kept[0]

        self.a.register_forward_hook(hook)


class ClassAttribute(Base):
    seen = 0.0

    def forward(self, x: Tensor) -> Tensor:
        ClassAttribute.seen = 0.5 * ClassAttribute.seen + float(x.mean())
        return super().forward(x) + ClassAttribute.seen


class Global(Base):
    def forward(self, x: Tensor) -> Tensor:
        _global.append(float(x.detach().abs().mean()))
        return super().forward(x) * (1 + sum(_global))


class Unseeded(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(3, generator=torch.Generator().manual_seed(
            random.SystemRandom().randrange(2**31)))  # fmt: skip


@pytest.mark.parametrize("make", [Closure, ClassAttribute, Global, Unseeded])
@pytest.mark.parametrize("local", LOCALS)
def test_p07_what_no_copy_resets_is_refused_by_name_before_the_first_round(
    make: Callable[[], nn.Module], local: str
) -> None:
    people = population()
    plan = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=2, clients=6, cohort=5)
    drawn: list[int] = []

    class Spy(fldp.simulation.sampling.Poisson):
        def sample(self, clients: int, draws: Any = None, round: int = 0) -> Tensor:
            drawn.append(round)
            return super().sample(clients, draws, round)

    with pytest.raises(
        ValueError, match=r"the output of '(a|b|the model)' depends on what was run"
    ):
        fldp.train(make(), people, plan, local=LOCALS[local](), sampler=Spy(5 / 6))
    assert drawn == []


def test_a_model_that_cannot_be_copied_gets_a_sentence() -> None:
    model = Base()
    model.kept = model(torch.randn(2, 8))
    with pytest.raises(ValueError, match="the model cannot be copied"):
        fldp.train(model, population(), None, rounds=1)


class Noisy(Base):
    """Random numbers from all three global generators."""

    def forward(self, x: Tensor) -> Tensor:
        shift = random.random() + float(np.random.rand())  # noqa: NPY002
        return super().forward(x) + shift * torch.rand(3)


@pytest.mark.parametrize("local", LOCALS)
def test_p03_random_numbers_of_a_model_are_a_clients_own(local: str) -> None:
    torch.manual_seed(0)
    model, algorithm, people = Noisy(), LOCALS[local](), population()
    together = rows(algorithm, model, people, [0, 1, 2, 3])
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for ids in ([3], [2, 1], [1, 3]):
        assert torch.equal(rows(algorithm, model, people, ids), together[ids])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_p07_own_code_leaves_nothing_on_model_code_or_torch() -> None:
    """Freezing, layers, hooks, the code's own attributes, modes, dtypes: the next starts clean."""
    seen: list[tuple[Any, ...]] = []

    class Trainer:
        def __init__(self) -> None:
            self.steps = 0

        def __call__(self, model: Any, x: Tensor, y: Tensor) -> None:
            start = (
                self.steps, model.b.weight.requires_grad, len(model.a._forward_hooks),
                hasattr(model, "extra"), torch.is_grad_enabled(), torch.get_default_dtype(),
                torch.get_num_threads(), model.training,
            )  # fmt: skip
            seen.append(start)
            sgd(model, x, y)
            self.steps += 1
            model.b.weight.requires_grad_(False)
            model.a.register_forward_hook(lambda module, given, out: out * 2)
            model.extra = nn.Linear(8, 8)
            model.eval()
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(2)

    people, model = population(), Base()
    before = torch.get_num_threads()
    together = rows(LocalFunction(Trainer()), model, people, [0, 1, 2])
    assert set(seen) == {(0, True, 0, False, True, torch.float32, 1, True)}
    assert torch.equal(together[1], rows(LocalFunction(Trainer()), model, people, [1])[0])
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == before


def test_own_code_that_takes_a_parameter_away_gets_a_sentence() -> None:
    def wrap(model: Any, x: Tensor, y: Tensor) -> None:
        nn.utils.parametrizations.weight_norm(model.a)

    def shrink(model: Any, x: Tensor, y: Tensor) -> None:
        model.a = nn.Linear(8, 5)

    for fn in (wrap, shrink):
        with pytest.raises(ValueError, match=r"fn left no 'a\.(weight|bias)'"):
            rows(LocalFunction(fn), Base(), population(), [0])


def test_plain_models_share_one_object_and_others_do_not() -> None:
    plain = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    assert is_all_plain(plain)
    template = Template(plain)
    assert template.lent() is template.lent()
    hooked = copied(plain)
    hooked.register_forward_hook(lambda module, given, out: out)
    patched = copied(plain)
    patched[0].forward = lambda x: x[:, :6]  # type: ignore[method-assign]
    backward = copied(plain)
    backward[0].register_full_backward_hook(lambda module, given, out: None)
    embedded = nn.Sequential(nn.Embedding(4, 3, max_norm=1.0))
    for odd in (hooked, patched, backward, embedded, Base(), nn.Sequential(nn.LazyLinear(3))):
        assert not is_all_plain(odd)
    template = Template(hooked)
    one, two = template.lent(), template.lent()
    assert one is not two
    assert one[0].weight is not two[0].weight
    assert one[0].weight.data_ptr() == two[0].weight.data_ptr()
    fresh = template.fresh()
    assert fresh[0].weight.data_ptr() != one[0].weight.data_ptr()


def test_examples_are_a_fixed_pattern() -> None:
    like = torch.zeros(0, 3, 2)
    assert torch.equal(made_up(like), made_up(like))
    assert made_up(like).shape == (2, 3, 2)
    assert not torch.equal(made_up(like), made_up(like, phase=2.0))


def test_holdings_see_every_kind_of_change() -> None:
    model = RunningMean()
    model.kept = {"list": [1, {2}], "array": np.zeros(2), "object": random.Random(0)}
    changes: list[Callable[[], Any]] = [
        lambda: model.mean.add_(1), lambda: model.kept["list"].append(3),
        lambda: model.kept["list"][1].add(5), lambda: model.kept["array"].fill(1),
        lambda: model.eval(), lambda: model.a.weight.requires_grad_(False),
        lambda: model.a.register_forward_hook(print), lambda: setattr(model, "extra", nn.ReLU()),
        lambda: model.register_buffer("more", torch.zeros(1)), lambda: model.a.weight.data.add_(1),
    ]  # fmt: skip
    for change in changes:
        before = holdings(model)
        assert holdings(model) == before
        change()
        assert holdings(model) != before
    before = holdings(model)
    model.b.weight.data.add_(1)  # trained weights are what training is about
    assert holdings(model) == before


def test_threads_are_restored() -> None:
    before, seen = torch.get_num_threads(), []

    def broken() -> None:
        with threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


def test_alone_gives_back_what_it_found_also_after_an_error() -> None:
    def broken() -> None:
        with alone(torch.device("cpu")) as start:
            start(2**62)
            assert torch.is_grad_enabled()
            raise KeyError

    with torch.no_grad():
        with pytest.raises(KeyError):
            broken()
        assert not torch.is_grad_enabled()


def test_on_a_processor_the_filters_of_warnings_are_nobodys_business() -> None:
    """They are the process's: of two threads each would put back what it found, not what is."""
    first, second = alone(torch.device("cpu")), alone(torch.device("cpu"))
    with warnings.catch_warnings():
        first.__enter__()
        second.__enter__()
        warnings.filterwarnings("error", "of another thread")
        left = list(warnings.filters)
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert warnings.filters == left
