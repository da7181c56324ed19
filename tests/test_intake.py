"""Identifiers and weights that come with updates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fldp.mechanism.intake import as_numbers, check_equal, check_weights, identifiers, twice


@pytest.mark.parametrize(
    ("client", "count", "expected"),
    [
        (None, 3, []),
        (7, 1, [7]),
        ("ada", 1, ["ada"]),
        (("hospital", 3), 1, [("hospital", 3)]),
        ([7], 1, [7]),
        (np.int64(7), 1, [7]),
        (np.array([4, 5]), 2, [4, 5]),
        (torch.tensor([4, 5]), 2, [4, 5]),
        (torch.tensor(4), 1, [4]),
        ([torch.tensor(4), np.int64(5)], 2, [4, 5]),
        ((4, 5), 2, [4, 5]),
        (range(3), 3, [0, 1, 2]),
        ([("a", 1), ("a", 2)], 2, [("a", 1), ("a", 2)]),
    ],
)
def test_identifiers_of_every_kind(client: Any, count: int, expected: list[Any]) -> None:
    assert identifiers(client, count) == expected


@pytest.mark.parametrize(
    ("client", "count"), [([1], 3), (1, 3), ([1, 2, 3, 4], 3), ([1, 2], 1), ([], 1), ((1, 2), 3)]
)
def test_p13_one_identifier_for_each_row(client: Any, count: int) -> None:
    """`client=[1]` used to pass for three rows."""
    with pytest.raises(ValueError, match=f"client identifiers for {count} updates"):
        identifiers(client, count)


@pytest.mark.parametrize("client", [math.nan, {"a": 1}, (1, []), {3}, np.nan])
def test_what_does_not_equal_itself_cannot_identify(client: Any) -> None:
    with pytest.raises(ValueError, match="cannot identify a client"):
        identifiers(client, 1)


def test_the_first_that_comes_twice() -> None:
    assert twice([], {1}) is None
    assert twice([2, 3], {1}) is None
    assert twice([2, 1], {1}) == 1
    assert twice([2, 3, 2], set()) == 2
    assert twice([("a", 1), ("a", 2)], {("b", 1)}) is None


def test_weight_caps_are_public_numbers_of_usable_size() -> None:
    check_weights(None, None)
    check_weights(3, 100.0)
    for cap in (0, -1, math.nan, math.inf, "3", [1]):
        with pytest.raises(ValueError, match="positive public number"):
            check_weights(cap, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give weight_cap as well"):
        check_weights(None, 5.0)
    for cap in (1e-20, 1e-10, 1e10):
        with pytest.raises(ValueError, match=r"weight_cap is .*: give a number from 1e-09"):
            check_weights(cap, None)


def test_weights_are_numbers() -> None:
    assert as_numbers([1, np.float32(2), torch.tensor(3)]) == [1.0, 2.0, 3.0]
    for wrong in (["a"], [None], 5, [10**400]):
        with pytest.raises(ValueError, match="give one number for each update"):
            as_numbers(wrong)


def test_p13_equal_weights_are_positive_or_no_weights() -> None:
    """Weights [0, 0, 0] used to count as 1."""
    check_equal([2.0, 2.0])
    check_equal([])
    for wrong in ([0.0, 0.0, 0.0], [-1.0, -1.0], [math.nan], [math.inf, math.inf]):
        with pytest.raises(ValueError, match="give positive numbers, or leave them out"):
            check_equal(wrong)
    for wrong in ([1.0, 2.0], [math.nan, math.nan * 2]):
        with pytest.raises(ValueError, match="public weight_cap"):
            check_equal(wrong)
