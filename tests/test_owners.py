"""To whom records belong: ids of any kind, in the order of the ids; none missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fldp.simulation.owners import owners


def numbers(groups: Any) -> list[int]:
    return owners(groups, len(groups))[0].tolist()


def series(values: list[object], kind: str | None = None) -> Any:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return pandas.Series(values, dtype=kind)


@pytest.mark.parametrize(("groups", "expected"), [
    (["b", "a", "b"], [1, 0, 1]),
    ([3, 1, 3], [1, 0, 1]),
    (np.array([2.5, -1.0], np.float32), [1, 0]),
    (np.array(["2024-02-01", "2024-01-01"], "datetime64[D]"), [1, 0]),
    (torch.tensor([7, 7, 1]), [1, 1, 0]),
    ([torch.tensor(7), torch.tensor(1), torch.tensor(7)], [1, 0, 1]),
    ([(1, "b"), (0, "z"), (1, "a")], [2, 0, 1]),
    ([1, "1", 1], [0, 1, 0]),  # a number and a text are two clients
    (["b", 1, ("a", 2)], [1, 0, 2]),
    ([1j, 2j, 1j], [0, 1, 0]),
    (np.array([1, "1"], dtype=object), [0, 1]),
    ([True, False], [1, 0]),
])  # fmt: skip
def test_ids_of_any_kind_are_numbered_in_their_order(groups: Any, expected: list[int]) -> None:
    assert numbers(groups) == expected


def test_columns_of_pandas() -> None:
    assert numbers(series(["b", "a", "b"], "category")) == [1, 0, 1]
    assert numbers(series([2, 1], "Int64")) == [1, 0]
    assert numbers(series(["b", "a"], "string")) == [1, 0]
    assert numbers(series([("a", 1), ("a", 0)])) == [1, 0]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-3, 3), st.text("ab", max_size=2), st.tuples(st.integers(0, 1)),
            st.sampled_from([0.5, 2.5]), st.binary(max_size=1), st.frozensets(st.integers(0, 1)),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_same_id_same_client_and_the_order_of_records_names_nobody_anew(
    groups: list[object],
) -> None:
    owner, sizes = owners(groups, len(groups))
    assert sizes.sum() == len(groups)
    assert len(sizes) == len({*groups})
    for one, number in zip(groups, owner, strict=True):
        for other, second in zip(groups, owner, strict=True):
            assert (one == other) == (number == second)
    if not any(isinstance(one, frozenset) for one in groups):  # these have no order of their own
        assert owners(groups[::-1], len(groups))[0].tolist() == owner.tolist()[::-1]


@pytest.mark.parametrize(("groups", "count"), [
    (["a", None, math.nan], 2),
    ([1, (1, 2), math.nan], 1),
    (np.array([1.0, math.nan, math.nan]), 2),
    (torch.tensor([math.nan]), 1),
    (np.array(["NaT", "2024-01-01"], "datetime64[D]"), 1),
    (np.array([None, "a"], dtype=object), 1),
])  # fmt: skip
def test_missing_ids_are_refused_with_their_count(groups: Any, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} records have no group"):
        numbers(groups)


def test_what_pandas_calls_missing_is_refused() -> None:
    for column in (
        series([1, None], "Int64"), series(["a", None], "string"), series(["a", None]),
        series(["2024-01-01", None], "datetime64[ns]"), series(["a", None], "category"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="1 records have no group"):
            numbers(column)


@pytest.mark.parametrize(("groups", "message"), [
    ([[1], [2]], r"groups holds \[1\], a list: an id must be hashable"),
    ([torch.zeros(2), torch.zeros(2)], "an id must be hashable and equal to itself by value"),
    (np.zeros((2, 2)), r"groups has shape \(2, 2\): give one id per record, a tuple"),
    ([1], "groups has length 1: give one group per record, 2"),
    (None, "groups has length None"),
    (5, "groups has length None"),
    (torch.tensor(5), "groups has length None"),
    ([(torch.zeros(2),), (torch.zeros(3),)], "must be hashable"),
    ((name for name in "ab"), "groups has length"),
])  # fmt: skip
def test_what_is_no_column_of_ids(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        owners(groups, 2)
