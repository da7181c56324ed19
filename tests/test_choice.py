"""The choice of an engine is a rule of the model, and says its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp.mechanism.updates import flatten
from fldp.simulation import choice
from fldp.simulation.choice import Choice, choose
from fldp.simulation.objective import Objective

VECTOR, SERIES = (6,), (5, 6)


class Own(nn.Sequential):
    """A class of its own."""


class Mixing(nn.Module):
    """What it says of a record depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(0))


class Noisy(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + torch.rand_like(x))


class Folded(Mixing):
    """Its dropout is drawn over time and records in one dimension."""

    def forward(self, x: Tensor) -> Tensor:
        flat = F.dropout(x.transpose(0, 1).reshape(-1, 6), 0.5, self.training)
        return self.inner(flat).view(x.shape[1], len(x), 3).mean(0)


class Branching(Mixing):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if float(x.sum()) > 0 else -x)


class Counting(Mixing):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x)[0][:, -1])


def hooked(name: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 3)))
    model.get_submodule(name).register_forward_hook(lambda module, given, out: out)
    return model


def patched() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].forward = lambda x: x[..., :3]
    return model


def watched() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].weight.register_hook(lambda slope: slope)
    return model


CASES: list[tuple[Callable[[], nn.Module], tuple[int, ...], str]] = [
    (lambda: nn.Linear(6, 3), VECTOR, "stacked"),
    (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3)), VECTOR, "stacked"),
    (lambda: Own(nn.Linear(6, 3)), VECTOR, "vmap: no stacked kernel for Own"),
    (lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)), VECTOR,
     "vmap: no stacked kernel for Softmax"),
    (Last, SERIES, "vmap: no stacked kernel for Last"),
    (lambda: hooked(""), VECTOR, "loop: the model has hooks"),
    (lambda: hooked("1"), VECTOR, "loop: layer '1' has hooks"),
    (patched, VECTOR, "loop: layer '0' has a forward pass of its own"),
    (watched, VECTOR, "loop: layer '0' has hooks on its weight"),
    (Mixing, VECTOR, "loop: what the model says of a record depends on the others in its batch"),
    (Folded, SERIES, "loop: what the model says of a record depends on the others in its batch"),
    (Noisy, VECTOR, "loop: the model draws random numbers of its own, which clients would share"),
    (Counting, VECTOR, "loop: a training step moves 'calls', which clients would share"),
    (Branching, VECTOR, "loop: torch.func cannot batch this model"),
    (lambda: Own(nn.Linear(6, 40_000)), VECTOR,
     "loop: 280,000 parameters are as fast one client at a time"),
]  # fmt: skip


def chosen(model: nn.Module, shape: tuple[int, ...], name: str = "auto", batch: int = 4) -> Choice:
    like, labels = torch.zeros(0, *shape), torch.zeros(0, dtype=torch.long)
    return choose(model, flatten(model), like, labels, Objective(), batch, name, False)


@pytest.mark.parametrize(("make", "shape", "words"), CASES)
def test_a_choice_says_why(
    make: Callable[[], nn.Module], shape: tuple[int, ...], words: str
) -> None:
    torch.manual_seed(0)
    assert str(chosen(make(), shape)).startswith(words)


@pytest.mark.parametrize("name", ["stacked", "vmap"])
@pytest.mark.parametrize("make", [lambda: hooked("1"), Mixing, Noisy, Counting, Branching])
def test_an_engine_that_cannot_is_refused(make: Callable[[], nn.Module], name: str) -> None:
    with pytest.raises(ValueError, match=f"engine is '{name}', but .*: use engine="):
        chosen(make(), VECTOR, name)
    assert str(chosen(make(), VECTOR, "loop")) == "loop: asked for"


def test_large_activations_are_left_to_the_loop() -> None:
    model = Own(nn.Linear(6, 3))
    assert chosen(model, VECTOR).engine.name == "vmap"
    found = str(chosen(model, VECTOR, batch=10**6))
    assert found == "loop: activations of this size are as fast one client at a time"


def test_a_model_that_changes_is_looked_at_again() -> None:
    model = Own(nn.Linear(6, 3))
    assert chosen(model, VECTOR).engine.name == "vmap"
    handle = model[0].register_forward_hook(lambda module, given, out: out)
    assert chosen(model, VECTOR).engine.name == "loop"
    handle.remove()
    assert chosen(model, VECTOR).engine.name == "vmap"


def test_other_gradients_than_the_loops_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Own(nn.Linear(6, 3))
    before = copy.deepcopy(model.state_dict())
    inside = choice.Vmapped.accumulate

    def wrong(
        self: choice.Vmapped, weights: object, target: object, scale: float, *rest: object
    ) -> None:
        inside(self, weights, target, 1.1 * scale, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(choice.Vmapped, "accumulate", wrong)
    assert str(chosen(model, VECTOR)) == "loop: torch.func gives other gradients for it"
    assert all(bool((model.state_dict()[k] == v).all()) for k, v in before.items())
