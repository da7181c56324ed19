"""simulation.own: training code of one's own, whatever it returns and whatever it leaves behind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from opacus import PrivacyEngine
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation import own
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.own import LocalFunction


def population() -> Population:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(12, 8, generator=rng)
    return Population(x, torch.randint(0, 3, (12,), generator=rng), [range(5), range(5, 9), [9]])


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def rows(fn: Callable[..., Any], start: nn.Module, ids: list[int] | None = None) -> Tensor:
    flat = flatten(start)
    ids = [0, 1, 2] if ids is None else ids
    return torch.cat(list(LocalFunction(fn).updates(start, flat, population(), ids, Draws(3))))


def step(net: nn.Module, x: Tensor, y: Tensor) -> None:
    """One step of plain gradient descent, in place."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(F.cross_entropy(net(x), y), parameters)
    with torch.no_grad():
        for p, gradient in zip(parameters, gradients, strict=True):
            p.sub_(gradient, alpha=0.5)


class Wrap(nn.Module):
    """What nn.DataParallel does to names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


def returns_itself(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    step(net, x, y)
    return net


def returns_another(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    other = copy.deepcopy(net)
    step(other, x, y)
    return other


def returns_state(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return returns_another(net, x, y).state_dict()


def returns_arrays(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    return {n: v.numpy() for n, v in returns_state(net, x, y).items()}


def returns_double(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return returns_another(net, x, y).double()


def returns_parallel(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return nn.DataParallel(returns_another(net, x, y))


def returns_compiled(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return torch.compile(returns_another(net, x, y), backend="eager")  # type: ignore[return-value]


def returns_a_compiled_part(net: Any, x: Tensor, y: Tensor) -> dict[str, Any]:
    other: Any = returns_another(net, x, y)
    other[2] = torch.compile(other[2], backend="eager")
    return Wrap(Wrap(other)).state_dict()


def serialised(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    return pickle.loads(pickle.dumps(returns_another(net, x, y)))  # type: ignore[no-any-return]


def swaps_a_layer(net: Any, x: Tensor, y: Tensor) -> None:
    step(net, x, y)
    layer = nn.Linear(6, 3)
    layer.load_state_dict(net[2].state_dict())
    net[2] = layer


def freezes(net: Any, x: Tensor, y: Tensor) -> None:
    step(net, x, y)
    net.requires_grad_(False)


def adds_a_layer(net: Any, x: Tensor, y: Tensor) -> nn.Module:
    step(net, x, y)
    net.append(nn.Linear(3, 3))
    return net  # type: ignore[no-any-return]


def hooks(net: Any, x: Tensor, y: Tensor) -> None:
    step(net, x, y)
    net[0].register_forward_hook(lambda module, given, out: out * 100)
    net[0].weight.register_hook(lambda gradient: gradient * 100)


WAYS = [
    step, returns_itself, returns_another, returns_state, returns_arrays, returns_double,
    returns_parallel, returns_compiled, returns_a_compiled_part, serialised, swaps_a_layer,
    freezes, adds_a_layer, hooks,
]  # fmt: skip


@pytest.mark.parametrize("fn", WAYS, ids=lambda fn: fn.__name__)
def test_what_fn_leaves_or_returns_is_the_update_and_touches_nobody_else(fn: Any) -> None:
    start = model()
    before = pickle.dumps(start)
    expected = []
    for client in range(3):
        alone = copy.deepcopy(start)
        step(alone, *population().client(client))
        expected.append(flatten(alone) - flatten(start))
    assert float(torch.stack(expected).abs().max()) > 1e-3
    got = rows(fn, start)
    assert torch.equal(got, torch.stack(expected))
    assert torch.equal(got[2], rows(fn, start, [2])[0])
    assert pickle.dumps(start) == before


@pytest.mark.slow
@pytest.mark.parametrize("returned", [True, False])
def test_opacus_make_private_inside_fn(returned: bool) -> None:
    def private(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module | None:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=2)
        wrapped, optimiser, loader = PrivacyEngine().make_private(
            module=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.5), data_loader=loader,
            noise_multiplier=0.0, max_grad_norm=1e6, poisson_sampling=False,
        )  # fmt: skip
        for a, b in loader:
            optimiser.zero_grad()
            F.cross_entropy(wrapped(a), b).backward()
            optimiser.step()
        assert next(iter(wrapped.state_dict())).startswith("_module.")
        return wrapped if returned else None

    def plain(net: nn.Module, x: Tensor, y: Tensor) -> None:
        for a, b in zip(x.split(2), y.split(2), strict=True):
            step(net, a, b)

    start = model()
    # A step on half a batch: Opacus divides by the batch that it expects.
    assert torch.allclose(rows(private, start, [1]), rows(plain, start, [1]), atol=1e-6)
    got = rows(private, start)
    assert torch.equal(got[1], rows(private, start, [1])[0])


@pytest.mark.slow
def test_a_compiled_model_takes_what_is_trained_bare() -> None:
    start = model()
    compiled: Any = torch.compile(copy.deepcopy(start), backend="eager")

    def bare(net: Any, x: Tensor, y: Tensor) -> nn.Module:
        step(net._orig_mod, x, y)
        return net._orig_mod  # type: ignore[no-any-return]

    assert torch.equal(rows(bare, compiled), rows(step, start))


def test_what_is_frozen_or_a_buffer_is_no_part_of_what_is_returned() -> None:
    start: Any = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    start[0].requires_grad_(False)
    start.register_buffer("seen", torch.zeros(3))

    def fn(net: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        net[0].weight.add_(1.0)
        net.seen.add_(1.0)
        return net.state_dict()  # type: ignore[no-any-return]

    assert float(rows(fn, start).abs().max()) == 0.0


def test_tied_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8, bias=False)
            self.b = nn.Linear(8, 8, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Any:
            return self.b(self.a(x))

    start = Tied()
    assert torch.equal(rows(returns_state, start), rows(step, start))


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "a loss": (lambda m, x, y: F.cross_entropy(m(x), y), "type Tensor: train the model in place"),
    "a number": (lambda m, x, y: 0.25, "type float: train the model in place"),
    "Flower's list": (lambda m, x, y: [p.detach().numpy() for p in m.parameters()], "type list"),
    "Flower's triple": (lambda m, x, y: (m, len(y), {}), "type tuple"),
    "a class": (lambda m, x, y: nn.Linear, "type type"),
    "another module": (lambda m, x, y: nn.Linear(8, 3), r"returned no '0\.weight'"),
    "another shape": (
        lambda m, x, y: nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)),
        r"no '0\.weight' of numbers of shape \(6, 8\)",
    ),
    "a part": (lambda m, x, y: {"0.weight": m[0].weight}, r"returned no '0\.bias'"),
    "nothing in it": (lambda m, x, y: {}, r"returned no '0\.weight'"),
    "other keys": (lambda m, x, y: {0: 1.0, None: 2.0}, r"returned no '0\.weight'"),
    "texts": (lambda m, x, y: dict.fromkeys(m.state_dict(), "a"), r"returned no '0\.weight'"),
    "complex": (
        lambda m, x, y: {n: v.to(torch.cfloat) for n, v in m.state_dict().items()},
        r"returned no '0\.weight'",
    ),
    "meta": (lambda m, x, y: m.to("meta"), r"returned no '0\.weight'"),
    "a wrapper of another": (lambda m, x, y: Wrap(nn.Linear(8, 3)), r"returned no '0\.weight'"),
    "quantised": (
        lambda m, x, y: torch.ao.quantization.quantize_dynamic(m, {nn.Linear}),
        r"returned no '0\.weight'",
    ),
    "weight norm": (
        lambda m, x, y: nn.utils.parametrizations.weight_norm(m[0]) and None,
        r"fn left no '0\.weight'",
    ),
}


# torch: its quantisation moves to another package.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_one_sentence(name: str) -> None:
    fn, say = BAD[name]
    with pytest.raises(ValueError, match=say) as caught:
        rows(fn, model())
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300


def test_an_exception_of_fn_is_the_cause_and_tells_no_client() -> None:
    class Broken(Exception):
        pass

    def fn(net: nn.Module, x: Tensor, y: Tensor) -> None:
        if len(y) == 1:
            raise Broken(f"the only record is {x.tolist()}")
        step(net, x, y)

    with pytest.raises(ValueError, match=r"fn raised Broken .* as private as the data") as caught:
        rows(fn, model())
    assert isinstance(caught.value.__cause__, Broken)
    assert "record is" not in str(caught.value)
    assert "2" not in str(caught.value)
    assert rows(fn, model(), [0, 1]).shape == (2, 75)


def test_interrupts_are_not_caught() -> None:
    def fn(net: nn.Module, x: Tensor, y: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows(fn, model())


@pytest.mark.parametrize("fn", [3, None, "fn", lambda m: None, lambda m, x: None, Wrap])
def test_what_is_no_such_function_is_refused_at_once(fn: Any) -> None:
    with pytest.raises(ValueError, match=r"fn is .* give a function of \(model, x, y\)"):
        LocalFunction(fn)


def test_a_function_of_more_arguments_is_taken_where_they_have_defaults() -> None:
    for fn in (lambda m, x, y, lr=1.0: None, lambda *a: None, max):
        LocalFunction(fn)  # type: ignore[arg-type]


def test_an_object_that_cannot_be_copied_is_refused() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.stream = (n for n in range(3))

        def __call__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
            step(net, x, y)

    with pytest.raises(ValueError, match="cannot be copied"):
        rows(Trainer(), model())


def test_records_and_global_model_cannot_be_changed_or_kept() -> None:
    kept: list[Any] = []
    start, people = model(), population()
    flat = flatten(start)
    images = people.x.clone()
    labels = people.y.clone()

    def fn(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        # What an earlier client got, and what it returned, is the next one's no longer.
        for tensor in kept:
            tensor.fill_(7)
        state = {name: p.detach() for name, p in net.named_parameters()}
        kept.extend([x, y, *state.values()])
        return state

    for _ in range(2):
        found = torch.cat(list(LocalFunction(fn).updates(start, flat, people, [0, 1, 2])))
        assert float(found.abs().max()) == 0.0
    assert torch.equal(people.x, images)
    assert torch.equal(people.y, labels)
    assert torch.equal(flat, flatten(start))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    start = model().to(dtype)

    def fn(net: nn.Module, x: Tensor, y: Tensor) -> None:
        step(net, x.to(dtype), y)

    got = rows(fn, start)
    assert got.dtype == dtype
    assert float(got.abs().max()) > 0


def test_a_model_of_mixed_precision() -> None:
    start: Any = model()
    start[0].bfloat16()

    def fn(net: Any, x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(net[2](F.relu(net[0](x.bfloat16())).float()), y)
        loss.backward()
        torch.optim.SGD(net.parameters(), lr=0.5).step()

    got = rows(fn, start)
    assert got.dtype == torch.float32
    assert float(got[:, :54].abs().max()) > 0


@given(
    st.lists(st.sampled_from(["_module.", "module."]), max_size=4),
    st.lists(st.sampled_from(["0.weight", "0.bias", "block.module.weight", "module.bias"]),
             min_size=1, unique=True),
    st.booleans(),
)  # fmt: skip
def test_wrappers_are_seen_through(around: list[str], names: list[str], compiled: bool) -> None:
    part = "_orig_mod." if compiled else ""
    wrapped = ["".join(around) + part + name for name in names]
    assert own._bare(wrapped) == own._bare(names)


@pytest.mark.slow
def test_a_new_model_trains_in_a_run_as_the_one_in_place(data: tuple[Tensor, Tensor]) -> None:
    people = fldp.clients.partition(*data, clients=40, seed=0)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=2, clients=40, cohort=20)
    start = nn.Linear(64, 10)
    models = []
    for fn in (step, returns_another, returns_state):
        noise = torch.Generator().manual_seed(0)
        history = fldp.train(start, people, plan, local=LocalFunction(fn), seed=1, generator=noise)
        models.append(flatten(history.model))
    assert all(torch.equal(models[0], other) for other in models)


def test_numpy_random_numbers_in_fn_are_the_clients_own() -> None:
    def fn(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {n: np.random.rand(*p.shape) for n, p in net.named_parameters()}  # noqa: NPY002

    together = rows(fn, model())
    assert torch.equal(together[2], rows(fn, model(), [2])[0])
    assert not torch.equal(together[0], together[2])


def _other_device() -> None:
    torch.set_default_device("meta")


def _autocast() -> None:
    torch.set_autocast_enabled("cpu", True)


def _within_autocast() -> None:
    torch.autocast("cpu", torch.bfloat16).__enter__()


def _without_gradients() -> None:
    torch.no_grad().__enter__()


def _other_dtype() -> None:
    torch.set_default_dtype(torch.float64)


def _threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.parametrize(
    "change",
    [_other_device, _autocast, _within_autocast, _without_gradients, _other_dtype, _threads],
)
def test_settings_of_torch_that_fn_changes_are_put_back(change: Callable[[], None]) -> None:
    def fn(net: nn.Module, x: Tensor, y: Tensor) -> None:
        step(net, x, y)
        change()

    before = (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads())
    expected = rows(step, model())
    assert torch.equal(rows(fn, model()), expected)
    after = (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads())
    assert after == before
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
