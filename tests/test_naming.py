"""simulation.naming: a name is a parameter or a module, never the beginning of another."""

from __future__ import annotations

import pytest
from torch import nn

from fldp.simulation.naming import are_names, check_name, names


@pytest.mark.parametrize(
    ("wanted", "name", "found"),
    [
        ("layer1", "layer1.weight", True),
        ("layer1.", "layer1.weight", True),
        ("layer1.weight", "layer1.weight", True),
        ("layer1", "layer10.weight", False),
        ("layer1", "outer.layer1.weight", False),
        ("*.bias", "outer.layer1.bias", True),
        ("layer?", "layer1.weight", True),
        ("", "layer1.weight", False),
    ],
)
def test_r15_a_name_matches_as_a_whole(wanted: str, name: str, found: bool) -> None:
    assert names(wanted, name) is found


def test_names_are_strings() -> None:
    assert are_names(None)
    assert are_names(["a", "b"])
    assert not are_names([1])
    assert not are_names(3)


def test_a_name_that_trains_nothing_is_refused_with_those_that_do() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    check_name("0", model)
    with pytest.raises(ValueError, match=r"'2', and the model has 0\.weight, 0\.bias to train"):
        check_name("2", model)
    with pytest.raises(ValueError, match="'1', which is frozen"):
        check_name("1", model)
