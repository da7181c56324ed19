"""Engines: each gives every client what `torch.optim.SGD` gives it alone, with the same draws."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.draws import Draws
from fldp.simulation.engines import check_model
from fldp.simulation.interception import Interception
from fldp.simulation.isolation import copied
from fldp.simulation.keyed import Masks
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective

SIZES = (5, 1, 3, 5, 2)
EPOCHS, RATE, MOMENTUM = 3, 0.3, 0.5
CLASSES = 3
VECTOR, SERIES, IMAGE = (6,), (5, 4), (2, 6, 6)
CPU = torch.device("cpu")
Make = Callable[[], nn.Module]


class Own(nn.Sequential):
    """A class of its own: no stacked kernels."""


class Reader(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], first: bool = True, **options: Any) -> None:
        super().__init__()
        self.first = first
        self.inner = kind(4, 6, batch_first=first, **options)
        width = options.get("proj_size") or 6
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x if self.first else x.transpose(0, 1))[0]
        return self.head(out.mean(1 if self.first else 0))


class Cells(nn.Module):
    """Its own loop over time, from a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 6), nn.Linear(6, CLASSES)
        self.start = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.start.expand(len(x), -1)
        for part in x.unbind(1):
            h = self.cell(part, h)
        return self.head(h)


class Given(nn.Module):
    """An LSTM that begins where the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(4, 6, 2), nn.Linear(6, CLASSES)
        self.h, self.c = (nn.Parameter(torch.randn(2, 1, 6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        state = [part.expand(-1, len(x), -1).contiguous() for part in (self.h, self.c)]
        _, (h, c) = self.inner(x.transpose(0, 1), tuple(state))
        return self.head(h[0] + c[1])


class Attention(nn.Module):
    def __init__(self, dropout: float = 0.3, weights: bool = True, **options: Any) -> None:
        super().__init__()
        self.weights = weights
        self.mix = nn.MultiheadAttention(4, 2, dropout, batch_first=True, **options)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(x, x, x, need_weights=self.weights)[0].mean(1))


class Encoder(nn.Module):
    def __init__(self, first: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = first
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout, batch_first=first)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x if self.first else x.transpose(0, 1)).mean(int(self.first)))


class Causal(nn.Module):
    """Functions of torch, called by a user's own code."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, CLASSES)
        self.scale = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (2, 2)).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, **self.options)
        h = F.dropout(seen.transpose(1, 2).flatten(2) @ self.scale, 0.25, self.training)
        return self.head(torch.matmul(h, self.scale.T).mean(1))


class Tied(nn.Module):
    """The embedding is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(CLASSES, 4), nn.Linear(4, CLASSES, bias=False)
        self.into = nn.Linear(4, 4)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[..., 0] > 0).long()
        return self.head(F.dropout(self.into(self.words(ids)), 0.2, self.training).mean(1))


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def headed(*layers: nn.Module, shape: tuple[int, ...], kind: type[nn.Sequential]) -> nn.Module:
    inner = kind(*layers, nn.Flatten())
    width = copy.deepcopy(inner).eval()(torch.zeros(2, *shape)).shape[1]
    return kind(*inner, nn.Linear(width, CLASSES))


def vectors(*layers: nn.Module, kind: type[nn.Sequential] = nn.Sequential) -> nn.Module:
    return headed(nn.Linear(6, 8), *layers, shape=VECTOR, kind=kind)


def images(*layers: nn.Module, kind: type[nn.Sequential] = nn.Sequential) -> nn.Module:
    return headed(*layers, shape=IMAGE, kind=kind)


MODELS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "dropout": (lambda: vectors(nn.Dropout(0.3), nn.Tanh(), nn.Dropout(0.5)), VECTOR),
    "dropout in place": (lambda: vectors(nn.Dropout(0.3, inplace=True), kind=Own), VECTOR),
    "all dropped": (lambda: vectors(nn.Dropout(1.0), nn.Tanh()), VECTOR),
    "alpha dropout": (lambda: vectors(nn.AlphaDropout(0.3), nn.SELU()), VECTOR),
    "dropout on images": (lambda: images(nn.Dropout(0.2), nn.Conv2d(2, 3, 3)), IMAGE),
    "dropout of channels": (lambda: images(nn.Conv2d(2, 4, 3), nn.Dropout2d(0.4)), IMAGE),
    "1d, channels": (
        lambda: headed(nn.Conv1d(5, 6, 2), nn.Dropout1d(0.4), shape=SERIES, kind=Own), SERIES),
    "3d, channels": (
        lambda: headed(
            nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, 2), nn.Dropout3d(0.4), shape=IMAGE, kind=Own),
        IMAGE),
    "channels, alpha": (
        lambda: images(nn.Conv2d(2, 4, 3), nn.FeatureAlphaDropout(0.4), kind=Own), IMAGE),
    "LSTM": (lambda: Reader(nn.LSTM), SERIES),
    "LSTM of layers": (
        lambda: Reader(nn.LSTM, num_layers=3, dropout=0.3, bidirectional=True), SERIES),
    "LSTM, time first": (lambda: Reader(nn.LSTM, first=False, num_layers=2, dropout=0.2), SERIES),
    "LSTM, projected": (
        lambda: Reader(nn.LSTM, proj_size=3, num_layers=2, bidirectional=True), SERIES),
    "LSTM, no bias": (lambda: Reader(nn.LSTM, bias=False), SERIES),
    "LSTM, projected, no bias": (lambda: Reader(nn.LSTM, bias=False, proj_size=2), SERIES),
    "LSTM, given": (Given, SERIES),
    "LSTM, half frozen": (lambda: frozen(Reader(nn.LSTM), "inner"), SERIES),
    "GRU": (lambda: Reader(nn.GRU), SERIES),
    "GRU of layers": (
        lambda: Reader(nn.GRU, num_layers=2, dropout=0.3, bidirectional=True), SERIES),
    "GRU, no bias": (lambda: Reader(nn.GRU, bias=False), SERIES),
    "RNN": (lambda: Reader(nn.RNN, num_layers=2, dropout=0.3), SERIES),
    "RNN, relu": (lambda: Reader(nn.RNN, nonlinearity="relu", bidirectional=True), SERIES),
    "cells": (Cells, SERIES),
    "attention": (Attention, SERIES),
    "attention, fused": (lambda: Attention(weights=False), SERIES),
    "attention, no dropout": (lambda: Attention(0.0, weights=False), SERIES),
    "attention, with biases": (
        lambda: Attention(add_bias_kv=True, add_zero_attn=True, weights=False), SERIES),
    "encoder": (Encoder, SERIES),
    "encoder, time first": (lambda: Encoder(first=False), SERIES),
    "causal": (lambda: Causal(is_causal=True, dropout_p=0.2), SERIES),
    "causal, fused": (lambda: Causal(is_causal=True, scale=0.3), SERIES),
    "masked": (lambda: Causal(attn_mask=torch.ones(5, 5).tril().bool(), dropout_p=0.2), SERIES),
    "masked, fused": (lambda: Causal(attn_mask=torch.ones(5, 5).tril().bool()), SERIES),
    "tied": (Tied, SERIES),
    "group norm": (
        lambda: images(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), kind=Own), IMAGE),
    "group norm first": (lambda: images(nn.GroupNorm(1, 2), nn.Conv2d(2, 3, 3)), IMAGE),
    "frozen before a norm": (
        lambda: frozen(images(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh()), "0"), IMAGE),
    "frozen convolution": (
        lambda: frozen(images(nn.Conv2d(2, 4, 3), nn.ReLU(), kind=Own), "0"), IMAGE),
    "flatten first": (lambda: Own(nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))), IMAGE),
    "flatten first, stacked": (lambda: images(nn.Identity()), IMAGE),
    "parametrized": (
        lambda: vectors(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh()), VECTOR),
    "frozen batch norm": (
        lambda: images(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4).eval(), nn.Tanh()), IMAGE),
}  # fmt: skip


Hang = Callable[[nn.Module], Any]


def container(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, given, out: out * 2)


def inner_container(model: nn.Module) -> None:
    model[1].register_forward_hook(lambda module, given, out: out * 2)


def before(model: nn.Module) -> None:
    model[0].register_forward_pre_hook(lambda module, given: (given[0] * 2,))


def backwards(model: nn.Module) -> None:
    model[2].register_full_backward_hook(lambda module, into, out: tuple(3 * g for g in into))
    model[2].register_full_backward_pre_hook(lambda module, out: tuple(2 * g for g in out))


def on_a_parameter(model: nn.Module) -> None:
    model[0].weight.register_hook(lambda g: 2 * g.sign())


def behind_a_parameter(model: nn.Module) -> None:
    def clip(p: Tensor) -> None:
        assert p.grad is not None
        p.grad.clamp_(-0.01, 0.01)

    model[0].weight.register_post_accumulate_grad_hook(clip)


def own_forward(model: nn.Module) -> None:
    inside = model[0].forward
    model[0].forward = lambda x: inside(x) * 2


def bound_forward(model: nn.Module) -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) * 2

    model[0].forward = forward.__get__(model[0])


def held(model: nn.Module) -> None:
    other = model[2].weight
    model[0].register_forward_hook(lambda module, given, out: out + 3 * other.sum())


HUNG: list[Hang] = [
    container, inner_container, before, backwards, on_a_parameter, behind_a_parameter, own_forward,
    bound_forward, held,
]  # fmt: skip


class Special(nn.Parameter):
    """A parameter that computes otherwise: products are twice as large."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found * 2 if func is F.linear else found


def hung(hang: Hang) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(6, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, CLASSES)
    )
    hang(model.double())
    return model


def federation(shape: tuple[int, ...], sizes: tuple[int, ...] = SIZES) -> Population:
    generator = torch.Generator().manual_seed(3)
    n = sum(sizes)
    x = torch.randn(n, *shape, generator=generator)
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    index = torch.full((len(sizes), max(sizes)), -1)
    start = 0
    for i, size in enumerate(sizes):
        index[i, :size] = torch.arange(start, start + size)
        start += size
    return Population(x, y, index)


def made(make: Make) -> nn.Module:
    torch.manual_seed(1)
    return make().double()


def rows(
    model: nn.Module,
    people: Population,
    engine: str,
    ids: list[int],
    single: bool = False,
    **more: Any,
) -> Tensor:
    """Updates; `single` keeps the vector of the model in single precision."""
    settings = {"lr": RATE, "epochs": EPOCHS, "momentum": MOMENTUM} | more
    local = LocalSGD(engine=engine, **settings)
    prepared = local.prepare(copied(model))
    vector = flatten(prepared).float() if single else flatten(prepared)
    found = local.updates(prepared, vector, people, ids, Draws(seed=5), round=2)
    return torch.cat(list(found))


def alone(own: nn.Module, people: Population, client: int) -> Tensor:
    """What torch makes of a client: its ordinary optimiser on a module of its own."""
    trained = [p for p in own.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in trained]
    optimiser = torch.optim.SGD(trained, lr=RATE, momentum=MOMENTUM)
    masks = Masks(Draws(seed=5).seeds(2, [client]), CPU)
    x, y = people.client(client)
    for epoch in range(EPOCHS):
        masks.turn(epoch, 0)
        optimiser.zero_grad()
        with Interception(masks):
            out = own(x.double())
        F.cross_entropy(out, y).backward()
        optimiser.step()
    moved = [(p.detach() - b).reshape(-1) for p, b in zip(trained, start, strict=True)]
    return torch.cat(moved)


def check(make: Make, people: Population, engine: str) -> None:
    ids = list(range(len(SIZES)))
    found = rows(made(make), people, engine, ids)
    for client in ids:
        expected = alone(made(make), people, client)
        assert expected.norm() > 0
        assert float((found[client] - expected).norm() / expected.norm()) < 1e-9, client


@pytest.mark.parametrize("engine", ["auto", "vmap", "loop"])
@pytest.mark.parametrize("name", MODELS)
def test_every_client_gets_what_torch_gives_it_alone(name: str, engine: str) -> None:
    make, shape = MODELS[name]
    check(make, federation(shape), engine)


@pytest.mark.parametrize("hang", HUNG, ids=lambda hang: hang.__name__)
def test_r02_what_hangs_on_a_model_is_run(hang: Hang) -> None:
    people = federation(VECTOR)
    check(lambda: hung(hang), people, "auto")
    plain = alone(made(lambda: hung(lambda model: None)), people, 0)
    assert (alone(made(lambda: hung(hang)), people, 0) - plain).norm() > 0.01 * plain.norm()


def test_r02_a_patched_class_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: 2 * inside(self, x))
    check(lambda: hung(lambda model: None), federation(VECTOR), "auto")


def test_r02_hooks_for_all_modules_are_run() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda m, given, out: 1.5 * out)
    try:
        check(lambda: hung(lambda model: None), federation(VECTOR), "auto")
    finally:
        handle.remove()


def test_r02_a_parameter_of_another_type_is_asked() -> None:
    def special(model: nn.Module) -> None:
        model[0].weight = Special(model[0].weight.detach())

    check(lambda: hung(special), federation(VECTOR), "auto")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dropout", "LSTM of layers", "encoder, time first", "causal"])
def test_draws_are_a_clients_own_whoever_else_is_there(name: str) -> None:
    make, shape = MODELS[name]
    model, people = made(make), federation(shape)
    settings = {"batch_size": 2, "lr": 0.05}
    together = rows(model, people, "auto", [0, 1, 2, 3, 4], **settings)
    for client in range(5):
        for engine in ("auto", "loop"):
            by_itself = rows(model, people, engine, [client], **settings)[0]
            torch.testing.assert_close(together[client], by_itself, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(rows(model, people, "auto", [3, 1], **settings), together[[3, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "vmap", "loop"])
def test_r03_a_group_norm_on_channels_last_images_does_not_crash(engine: str) -> None:
    """torch 2.13 dies of these where nobody asks for the slope of the images."""
    program = f"""
import torch, fldp
from torch import nn
from fldp.mechanism.updates import flatten

class Permuted(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.GroupNorm(1, 2), nn.Linear(72, 3)
    def forward(self, x):
        last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.head(self.norm(last).flatten(1))

def first():
    return nn.Sequential(nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(72, 3))

def frozen():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model[0].requires_grad_(False)
    return model

x, y = torch.randn(40, 2, 6, 6), torch.randint(0, 3, (40,))
for make in (first, frozen, Permuted):
    for form in (torch.contiguous_format, torch.channels_last):
        people = fldp.clients.partition(x.to(memory_format=form), y, clients=4, seed=0)
        local = fldp.LocalSGD(lr=0.1, engine={engine!r})
        model = local.prepare(make().to(memory_format=form))
        for rows in local.updates(model, flatten(model), people, range(4)):
            assert bool(rows.isfinite().all()) and float(rows.norm()) > 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:] or done.returncode


@pytest.mark.parametrize("name", ["dropout", "LSTM of layers", "encoder", "dropout of channels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("single", [True, False])
def test_other_precisions(name: str, dtype: torch.dtype, single: bool) -> None:
    make, shape = MODELS[name]
    people = federation(shape)
    exact = rows(made(make), people, "loop", [0, 2], lr=0.05)
    found = rows(made(make).to(dtype), people, "auto", [0, 2], single, lr=0.05)
    assert found.dtype == (torch.float32 if single else dtype)
    slack = 10 * torch.finfo(dtype).eps ** 0.5
    assert float((found.double() - exact).norm() / exact.norm()) < slack


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_weights_of_several_types(engine: str) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 5), nn.Linear(5, CLASSES).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).double())

    torch.manual_seed(1)
    model, people = Mixed(), federation(VECTOR)
    found = rows(model, people, engine, [0, 1, 2])
    exact = rows(model.double(), people, "loop", [0, 1, 2])
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.BatchNorm1d(16), r"nn\.GroupNorm\(1, 16\)"),
        (nn.BatchNorm2d(16), r"nn\.GroupNorm\(8, 16\)"),
        (nn.BatchNorm2d(48), r"nn\.GroupNorm\(24, 48\)"),
        (nn.BatchNorm2d(1), r"nn\.GroupNorm\(1, 1\)"),
        (nn.InstanceNorm2d(16, track_running_stats=True), r"nn\.GroupNorm\(8, 16\)"),
        (nn.BatchNorm2d(16, track_running_stats=False), "depends on the others in its batch"),
        (nn.LazyLinear(3), "no shape yet"),
    ],
    ids=str,
)
def test_r10_what_cannot_be_trained_is_refused_for_a_true_reason(
    layer: nn.Module, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_model(nn.Sequential(layer))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.InstanceNorm2d(2)], ids=str)
def test_r10_statistics_that_stand_still_are_the_models_own(layer: nn.Module) -> None:
    check_model(nn.Sequential(layer.eval()))


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_h06_a_group_of_one_value_is_refused_by_name(engine: str) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.GroupNorm(16, 16), nn.Linear(16, CLASSES))
    with pytest.raises(ValueError, match=r"layer '1' is a GroupNorm with 16 groups.*LayerNorm"):
        rows(model, federation(VECTOR), engine, [0])


class Words(nn.Module):
    """A table of words, looked up in one of torch's ways."""

    def __init__(self, look: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.look = look
        self.table = nn.Parameter(torch.randn(7, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x, self.table).mean(1)


LOOKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": F.embedding,
    "padding": lambda x, table: F.embedding(x, table, padding_idx=5),
    "padding from behind": lambda x, table: F.embedding(x, table, padding_idx=-1),
    "torch's own": lambda x, table: torch.embedding(table, x),
    "torch's own, padding": lambda x, table: torch.embedding(table, x, 4),
    "by frequency": lambda x, table: F.embedding(x, table, scale_grad_by_freq=True),
    "bounded": lambda x, table: F.embedding(x, table, max_norm=0.5),
    "sparse": lambda x, table: F.embedding(x, table, sparse=True),
}


def readers(x: Tensor) -> Population:
    y = torch.arange(len(x)) % CLASSES
    return Population(x, y, [[0, 1, 2, 3], [4], [5, 6]])


@pytest.mark.parametrize("name", LOOKS)
def test_words_that_no_trial_sees_are_looked_up_as_torch_does(name: str) -> None:
    torch.manual_seed(2)
    model = Words(LOOKS[name]).double()
    people = readers(torch.randint(0, 7, (7, 6)))
    together = rows(model, people, "auto", [0, 1, 2])
    for client in range(3):
        own = copy.deepcopy(model)
        optimiser = torch.optim.SGD(own.parameters(), lr=RATE)
        x, y = people.client(client)
        F.cross_entropy(own(x), y).backward()
        optimiser.step()
        expected = flatten(own) - flatten(model)
        found = rows(model, people, "auto", [client], epochs=1, momentum=0.0)[0]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(rows(model, people, "loop", [client])[0], together[client])


@pytest.mark.parametrize("engine", ["auto", "vmap", "loop"])
@pytest.mark.parametrize("word", [7, 8, -1, -8, 100])
def test_a_word_beyond_the_table_never_reads_another_clients(engine: str, word: int) -> None:
    torch.manual_seed(2)
    x = torch.randint(0, 7, (7, 6))
    x[4, 0] = word
    with pytest.raises(ValueError, match=r"failed on clients' records .*vocabulary"):
        rows(Words(F.embedding), readers(x), engine, [0, 1, 2])


def gaussian(out: Tensor, y: Tensor) -> Tensor:
    """torch asks whether a variance is negative, which torch.func cannot answer."""
    return F.gaussian_nll_loss(out[:, 0], y.double(), out[:, 1].exp())


def noisy(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.dropout(out, 0.5), y)


def branching(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out, y) * (2 if float(out.detach().max()) > 0 else 1)


@pytest.mark.parametrize("kind", [nn.Sequential, Own])
@pytest.mark.parametrize("loss", [gaussian, noisy, branching])
def test_a_loss_that_cannot_be_batched_trains_clients_in_turn(loss: Any, kind: Any) -> None:
    model, people = vectors(nn.Tanh(), kind=kind).double(), federation(VECTOR)
    found = []
    for engine in ("auto", "loop"):
        local = LocalSGD(engine=engine)
        local.learn(Objective(loss))
        flat = flatten(local.prepare(model))
        local.rehearse(model, flat, people)
        assert local.trained_by().startswith("loop")
        found.append(torch.cat([*local.updates(model, flat, people, range(5), Draws(seed=5))]))
    assert torch.equal(*found)


class Normalised(nn.Module):
    """Its forward pass puts a weight of length 1 in its weight's place."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.head.weight
        weight.data = weight.data / weight.data.norm()
        return self.head(x)


def test_a_weight_that_a_forward_pass_replaces_is_the_clients() -> None:
    torch.manual_seed(1)
    check(Normalised, federation(VECTOR), "auto")
