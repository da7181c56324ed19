"""Stacked kernels: each layer's gradient is the one that autograd gives each client alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp.mechanism.updates import flatten, load_, shapes, views
from fldp.simulation.choice import choose
from fldp.simulation.engines import Engine, Loop, Vmapped
from fldp.simulation.objective import Objective
from fldp.simulation.stacked import Stacked, Unsupported


def chosen(model: nn.Module, shape: tuple[int, ...], batch: int) -> tuple[Engine, int]:
    """The engine for records of a shape, with a label each."""
    labels = torch.zeros(0, dtype=torch.long)
    flat = flatten(model)
    like = torch.zeros(0, *shape)
    found = choose(model, flat, like, labels, Objective(), batch, "auto", False)
    return found.engine, found.together


FLAT = [
    nn.LayerNorm(6), nn.LayerNorm(6, elementwise_affine=False), nn.LayerNorm(6, bias=False),
    nn.GroupNorm(3, 6), nn.GroupNorm(2, 6, affine=False), nn.Linear(6, 6, bias=False),
    nn.LeakyReLU(0.2), nn.ELU(inplace=True), nn.SiLU(), nn.Softplus(), nn.Identity(), nn.Dropout(0),
]  # fmt: skip
IMAGES = [
    nn.Conv2d(4, 4, 3, padding="same", dilation=2), nn.Conv2d(4, 8, 3, stride=2, groups=4),
    nn.Conv2d(4, 2, 1, bias=False), nn.MaxPool2d(2), nn.MaxPool2d(3, stride=1, padding=1),
    nn.AvgPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((1, 2)),
    nn.GroupNorm(4, 4), nn.GroupNorm(1, 4, affine=False), nn.LayerNorm([4, 5, 5]),
    nn.LayerNorm([4, 5, 5], elementwise_affine=False), nn.GELU(), nn.ReLU(inplace=True),
]  # fmt: skip


def compare(model: nn.Module, shape: tuple[int, ...]) -> None:
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    c, size, d = 3, 4, flatten(model).numel()
    rows = torch.randn(c, d, generator=generator).double() * 0.5
    x = torch.randn(c, size, *shape, generator=generator).double()
    y = torch.randint(0, 3, (c, size), generator=generator)
    counts = torch.tensor([4, 2, 1])
    share = (torch.arange(size) < counts[:, None]).double() / counts[:, None]
    layout, found = shapes(model), torch.full((c, d), 0.25).double()
    engine = Stacked(model, x[0, :0], Objective())
    engine.accumulate(views(rows, layout), views(found, layout), -2.0, x, y, share)
    for i, count in enumerate(counts.tolist()):
        own = load_(deepcopy(model), rows[i])
        loss = F.cross_entropy(own(x[i, :count]), y[i, :count])
        parts = torch.autograd.grad(loss, [p for p in own.parameters() if p.requires_grad])
        expected = 0.25 - 2.0 * torch.cat([p.reshape(-1) for p in parts])
        torch.testing.assert_close(found[i], expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("layer", FLAT, ids=str)
def test_layers_on_vectors(layer: nn.Module) -> None:
    torch.manual_seed(0)
    compare(nn.Sequential(nn.Linear(5, 6), layer, nn.Tanh(), nn.Linear(6, 3)), (5,))
    compare(nn.Sequential(layer, nn.Linear(6, 3)), (6,))


@pytest.mark.parametrize("layer", IMAGES, ids=str)
def test_layers_on_images(layer: nn.Module) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(2, 4, 2), layer, nn.Tanh(), nn.Flatten())
    width = deepcopy(inner)(torch.zeros(1, 2, 6, 6)).shape[1]
    compare(nn.Sequential(inner, nn.Linear(width, 3)), (2, 6, 6))


def test_an_ordinary_update_can_be_made_in_place() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))
    layout, rows = shapes(model), torch.randn(2, flatten(model).numel())
    x, y, share = torch.randn(2, 4, 5), torch.randint(0, 3, (2, 4)), torch.full((2, 4), 0.25)
    engine, apart = Stacked(model, x[0, :0], Objective()), rows.clone()
    engine.accumulate(views(rows, layout), views(apart, layout), -0.1, x, y, share)
    engine.accumulate(views(rows, layout), views(rows.data, layout), -0.1, x, y, share)
    torch.testing.assert_close(rows, apart, atol=1e-6, rtol=1e-5)


class Doubled(nn.Linear):
    """A subclass may compute anything, so its kernel must not be that of its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].register_forward_hook(lambda module, inputs, output: output + 1)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize("model", [
    nn.Sequential(Doubled(6, 3)), hooked(), tied(), nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)),
    nn.Sequential(nn.Dropout1d(0.5), nn.Linear(6, 3)), nn.Sequential(nn.PReLU(), nn.Linear(6, 3)),
], ids=["subclass", "hook", "tied", "softmax", "dropout", "prelu"])  # fmt: skip
def test_other_models_are_left_to_other_engines(model: nn.Module) -> None:
    with pytest.raises(Unsupported):
        Stacked(model, torch.zeros(0, 6), Objective())
    engine, _ = chosen(model, (6,), 4)
    assert isinstance(engine, Vmapped | Loop)


def test_the_choice_of_engine_and_chunk() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x)[0][:, -1])

    class Wide(nn.Sequential):
        """Not exactly Sequential, so no stacked kernels."""

    def told(model: nn.Module, shape: tuple[int, ...]) -> tuple[str, int]:
        engine, chunk = chosen(model, shape, 10)
        return type(engine).__name__, chunk

    vector = (6,)
    assert told(nn.Linear(6, 3), vector) == ("Stacked", 512)
    assert told(Wide(nn.Linear(6, 3)), vector)[0] == "Vmapped"
    assert told(Wide(nn.Linear(6, 20_000)), vector)[0] == "Vmapped"
    assert told(Wide(nn.Linear(6, 40_000)), vector) == ("Loop", 16)
    assert told(nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.1)), vector)[0] == "Stacked"
    small = told(nn.Sequential(nn.Linear(6, 20_000), nn.Linear(20_000, 3)), vector)
    assert small[0] == "Stacked"
    assert small[1] < 10
    assert told(Recurrent(), (5, 3))[0] == "Vmapped"
