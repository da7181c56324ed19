"""What a trial shows of a model; what it must notice of state is in `test_isolation`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fldp.simulation.isolation import Template
from fldp.simulation.rehearsal import Traits, traits
from tests.test_choice import Counting, Folded, Mixing, Noisy


def found(model: nn.Module, *shape: int) -> Traits:
    return traits(model, Template(model), torch.zeros(0, *shape))


class Pair(nn.Module):
    """It takes two records and no others."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, -1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Linear(6, 3), Traits()),
        (lambda: nn.Dropout(0.1), Traits(replaced=True)),
        (lambda: nn.Dropout(0.0), Traits()),
        (lambda: nn.RReLU(), Traits(draws=True)),
        (Noisy, Traits(draws=True)),
        (Counting, Traits(moved=("calls",))),
        (Mixing, Traits(mixes=True)),
        (Pair, Traits(mixes=True)),
    ],
)
def test_traits(make: Callable[[], nn.Module], expected: Traits) -> None:
    assert found(make(), 6) == expected


def test_masks_that_records_share_are_noticed() -> None:
    assert found(Folded(), 5, 6) == Traits(replaced=True, mixes=True)


def test_a_model_that_refuses_made_up_records_says_how() -> None:
    assert "shapes cannot be multiplied" in found(nn.Linear(6, 3), 5).failed


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.GroupNorm(6, 6), (6,)), (nn.GroupNorm(6, 6), (6, 1, 1)), (nn.GroupNorm(1, 1), (1,))],
)
def test_h06_a_norm_of_single_values_is_refused(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one value a group"):
        found(nn.Sequential(layer), *shape)


def test_a_group_of_several_values_is_not() -> None:
    for layer, shape in ((nn.GroupNorm(6, 6), (6, 2)), (nn.GroupNorm(3, 6), (6,))):
        assert found(nn.Sequential(nn.Linear(shape[-1], shape[-1]), layer), *shape) == Traits()
