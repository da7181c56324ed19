"""simulation.persample: Opacus' rows are gradients of single records, or the model is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from opacus import layers
from opacus.validators import ModuleValidator
from torch import Tensor, nn

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation import persample
from fldp.simulation.clients import Population
from fldp.simulation.isolation import Template
from fldp.simulation.objective import Objective
from fldp.simulation.persample import RECORDS, check_layers, check_rows, mean_of_each

RNG = torch.Generator().manual_seed(0)
X = torch.rand(RECORDS, 64, generator=RNG)
Y = torch.tensor([0, 1, 2])


class Recurrent(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.r = kind(8, 6, batch_first=True, **options)
        self.o = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.o(self.r(x.view(-1, 8, 8))[0][:, -1])


class Attention(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.a = kind(8, 2, batch_first=True)
        self.o = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Any:
        x = x.view(-1, 8, 8)
        return self.o(self.a(x, x, x)[0].flatten(1))


class Two(nn.Module):
    """Two layers; what happens to them is a matter of the classes below."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Any:
        return self.b(torch.tanh(self.a(x)))


class Twice(Two):
    def forward(self, x: Tensor) -> Any:
        return self.b(self.a(torch.tanh(self.a(x))))


class OnceForNothing(Two):
    def forward(self, x: Tensor) -> Any:
        self.a(2 * x)
        return self.b(self.a(x))


class Unused(Two):
    def forward(self, x: Tensor) -> Any:
        return self.b(x)


class Mixed(Two):
    def forward(self, x: Tensor) -> Any:
        h = self.a(x)
        return self.b(h - h.mean(0))


class SecondIsBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(8, 8)
        self.o = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.l(x.view(-1, 8, 8).transpose(0, 1))
        return self.o(h.transpose(0, 1).flatten(1))


class InPlace(Two):
    def forward(self, x: Tensor) -> Any:
        h = self.a(x)
        h += 1
        return self.b(h)


class Tied(nn.Module):
    """A vocabulary of four words that is read and written with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(4, 6)
        self.h = nn.Linear(6, 6)
        self.o = nn.Linear(6, 4, bias=False)
        self.o.weight = self.e.weight

    def forward(self, x: Tensor) -> Any:
        return self.o(torch.tanh(self.h(self.e((4 * x).long().clamp(0, 3)).mean(1))))


class Own(nn.Module):
    """Parameters in the model itself, beside layers, dropout and a buffer."""

    def __init__(self, dropout: float, buffer: bool) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(64, generator=RNG))
        self.l = nn.Linear(64, 3)
        self.d = nn.Dropout(dropout)
        if buffer:
            self.register_buffer("mask", torch.ones(64))

    def forward(self, x: Tensor) -> Any:
        return self.l(self.d(x + self.position))


class Words(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.e = nn.Embedding(17, 4, **options)
        self.o = nn.Linear(4 * 64, 3)

    def forward(self, x: Tensor) -> Any:
        return self.o(self.e((16 * x.abs()).long()).flatten(1))


class Remembers(Two):
    """The mean of what came before, in a buffer: no clip bounds what a record leaves there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x: Tensor) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.b(self.a(x - self.mean))


def hooked() -> nn.Module:
    model = Two()
    model.a.register_forward_hook(lambda module, given, out: 2 * out)
    return model


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (8, 8)), layer, nn.Flatten(), nn.Linear(64, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4),
        nn.Dropout(0.2, inplace=True), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3),
    )  # fmt: skip


def frozen(model: nn.Module, layer: str) -> nn.Module:
    model.get_submodule(layer).requires_grad_(False)
    return model


RUNS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(64, 3),
    "convolutions with in-place layers": convolutions,
    "DPLSTM": lambda: Recurrent(layers.DPLSTM, num_layers=2, bidirectional=True, dropout=0.1),
    "DPGRU": lambda: Recurrent(layers.DPGRU),
    "DPRNN": lambda: Recurrent(layers.DPRNN),
    "DPMultiheadAttention": lambda: Attention(layers.DPMultiheadAttention),
    "a repaired LSTM": lambda: ModuleValidator.fix(Recurrent(nn.LSTM)),
    "a repaired GRU": lambda: ModuleValidator.fix(Recurrent(nn.GRU)),
    "a repaired encoder": lambda: ModuleValidator.fix(encoder()),
    "a frozen LSTM": lambda: frozen(Recurrent(nn.LSTM), "r"),
    "a layer twice": Twice,
    "a layer for nothing": Unused,
    "tied weights": Tied,
    "parameters of its own": lambda: Own(0.0, False),
    "words": Words,
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 3))),
    "LayerNorm": lambda: nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 3), nn.PReLU()),
    "float64": lambda: Two().double(),
}

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM), r"layer 'r' .*opacus\.layers\.DPLSTM"),
    "GRU": (lambda: Recurrent(nn.GRU), r"layer 'r' .*opacus\.layers\.DPGRU"),
    "RNN": (lambda: Recurrent(nn.RNN), r"layer 'r' .*opacus\.layers\.DPRNN"),
    "attention": (lambda: Attention(nn.MultiheadAttention), r"'a' .*DPMultiheadAttention"),
    "an encoder": (encoder, r"'1\.self_attn' .*DPMultiheadAttention .*ModuleValidator\.fix"),
    "a layer that ran for nothing": (OnceForNothing, "layer 'a', of type Linear"),
    "records with one another": (Mixed, r"parameter 'a\.weight' are not those of each record"),
    "the batch second": (SecondIsBatch, "layer 'l', of type Linear"),
    "in place": (InPlace, "layer 'a', of type Linear .*without operations in place"),
    "a hook": (hooked, r"parameter 'a\.weight' are not .*hooks"),
    "dropout among its own": (lambda: Own(0.5, False), "of type Own .*apart from dropout"),
    "a buffer among its own": (lambda: Own(0.0, True), "of type Own .*apart from dropout and buf"),
    "padding_idx": (lambda: Words(padding_idx=0), "layer 'e' has padding_idx=0"),
    "max_norm": (lambda: Words(max_norm=1.0), r"moves 'e\.weight'.*max_norm"),
    "scaled by frequency": (lambda: Words(scale_grad_by_freq=True), r"parameter 'e\.weight'"),
    "a memory": (Remembers, "moves 'mean'.*without clip and noise"),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(64, 3))),
        "moves .*weight",
    ),
    "a group of one value": (
        lambda: nn.Sequential(nn.Linear(64, 16), nn.GroupNorm(16, 16), nn.Linear(16, 3)),
        "does not run on one made-up record by itself .*per channel|one value a group",
    ),
    "half": (lambda: nn.Linear(64, 3).half(), "'weight' is of torch.float16"),
    "bfloat16": (lambda: nn.Linear(64, 3).bfloat16(), "'weight' is of torch.bfloat16"),
    "compiled": (
        lambda: torch.compile(nn.Linear(64, 3), backend="eager"),  # type: ignore[return-value]
        "layer '' is compiled",
    ),
}


def loss(model: nn.Module, records: list[int]) -> Tensor:
    weight = next(model.parameters())
    return F.cross_entropy(model(X[records].to(weight.dtype)), Y[records])


def check(model: nn.Module) -> None:
    check_layers(model)
    check_rows(Template(model), loss, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_rows_are_gradients_of_single_records(name: str) -> None:
    torch.manual_seed(0)
    model = RUNS[name]()
    # The same dropout for every record cannot be had: without it.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = copy.deepcopy(model.state_dict())
    check(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    rows = persample._rows(copy.deepcopy(model).train(), loss, [0, 1, 2])
    for i in range(RECORDS):
        alone = copy.deepcopy(model).train()
        loss(alone, [i]).backward()
        for key, p in alone.named_parameters():
            if p.requires_grad:
                wanted = torch.zeros_like(p) if p.grad is None else p.grad
                torch.testing.assert_close(rows[key][i], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_opacus_cannot_do_is_named_with_its_remedy(name: str) -> None:
    make, say = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=say) as caught:
        check(make())
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS, *REFUSED])
def test_a_run_trains_it_or_refuses_it_before_anything_is_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    drawn = []
    coins = fldp.DPSGD._coins
    monkeypatch.setattr(
        fldp.DPSGD, "_coins", lambda self, n, rate: (drawn.append(n), coins(self, n, rate))[1]
    )
    x = torch.rand(8, 64, generator=RNG)
    people = Population(x, torch.arange(8) % 3, [[0, 1, 2], [3, 4], [5, 6, 7]])
    plan = fldp.calibrate_records(
        epsilon=8.0, delta=1e-4, rounds=1, local_epochs=1, batch_size=2, client_sizes=people.sizes
    )
    model = RUNS[name]() if name in RUNS else REFUSED[name][0]()
    # A model that Opacus has repaired must also run where it is not trained.
    exam = (X, Y) if "repaired" in name else None

    def run() -> fldp.History:
        return fldp.train(
            model, people, None, clip=None, rounds=1, local=fldp.DPSGD(plan), validation=exam
        )

    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name][1]):
            run()
        assert not drawn
        return
    found = flatten(run().model)
    assert drawn
    assert bool(torch.isfinite(found).all())
    # Noise is due on every parameter that is trained, also where no record has reached it.
    assert bool((found != flatten(model)).double().mean() > 0.99)


def test_only_the_model_is_tried_and_nothing_of_the_trial_stays() -> None:
    model = convolutions()
    state = torch.get_rng_state()
    check(model)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in model.parameters())
    assert model[4].inplace  # type: ignore[index, union-attr]
    assert model[3].p == 0.2  # type: ignore[index, union-attr]


def test_a_layer_that_no_record_of_a_batch_reached_has_rows_of_zeros() -> None:
    model = persample.wrapped(Unused())
    loss(model, [0, 1]).backward()
    trained: list[Any] = list(model.parameters())
    assert persample.settled(trained, 2)
    assert trained[0].grad_sample.shape == (2, 64, 64)
    assert not trained[0].grad_sample.any()
    assert trained[2].grad_sample.any()
    assert not persample.settled(trained, 3)


def test_rows_that_were_appended_are_not_taken_for_records() -> None:
    model = persample.wrapped(Two())
    for _ in range(2):  # two batches without zero_grad between
        loss(model, [0, 1]).backward()
    assert not persample.settled(list(model.parameters()), 2)


IGNORING = [
    Objective(),
    Objective(nn.CrossEntropyLoss()),
    Objective(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 2.0, 1.0]))),
    Objective(nn.CrossEntropyLoss(ignore_index=2)),
    Objective(lambda out, y: (out.sum(-1) - y).square().mean() / (1 + y.abs().sum())),
]


@pytest.mark.parametrize("objective", IGNORING)
def test_one_record_does_not_scale_the_gradient_of_another(objective: Objective) -> None:
    torch.manual_seed(0)
    y = torch.tensor([[0, 1], [2, -100], [-100, -100]])
    if objective is not IGNORING[0] and objective is not IGNORING[1]:
        y = y.clamp(min=0)
    out = torch.randn(3, 2, 4)
    if objective.kind and objective.loss is not None:
        out = out.movedim(-1, 1)

    def gradient(records: list[int]) -> Tensor:
        scores = out[records].clone().requires_grad_()
        mean_of_each(objective, scores, y[records]).backward()
        assert scores.grad is not None
        # Opacus multiplies by the batch what a mean has divided by it.
        return scores.grad * len(records)

    together = torch.nan_to_num(gradient([0, 1, 2]))
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], torch.nan_to_num(gradient([i])))


@pytest.mark.parametrize(
    "loss", [None, F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits, nn.L1Loss()]
)
def test_losses_that_are_means_over_records_stay_as_they_are(loss: Any) -> None:
    objective = Objective(loss)
    y = torch.tensor([0, 2, 1]) if objective.kind == "cross_entropy" else torch.rand(3, 4)
    out = torch.randn(3, 4)
    assert torch.equal(mean_of_each(objective, out, y), objective.mean(out, y))
