"""Answers read as what they should be."""

import math

import pytest
import torch

from course.readings import near, number, table, tensor, tensors, text


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor(2), torch.tensor([[2.0]])])
def test_numbers(value):
    assert number(value) == 2.0


@pytest.mark.parametrize(
    "value", [None, True, "2", [2], torch.ones(2), torch.tensor(True), math.nan]
)
def test_no_numbers(value):
    with pytest.raises(AssertionError, match="number"):
        number(value)


def test_nan_is_refused_and_where_it_is_allowed_kept():
    with pytest.raises(AssertionError, match="NaN"):
        tensor(torch.tensor([1.0, math.inf]))
    assert math.isnan(number(math.nan, finite=False))
    assert tensor([1, math.inf], finite=False).shape == (2,)


def test_shapes_and_types():
    tensor([1.0, 2.0], shape=(2,))
    with pytest.raises(AssertionError, match="shape"):
        tensor(torch.zeros(3), shape=(2,))
    with pytest.raises(AssertionError, match="float64"):
        tensor(torch.zeros(3), dtype=torch.float64)
    with pytest.raises(AssertionError, match="list of tensors"):
        tensors(torch.zeros(2))
    with pytest.raises(AssertionError, match="2 tensors"):
        tensors([torch.zeros(2)], like=[torch.zeros(2)] * 2)


def test_tables_and_text():
    assert table({"a": 1}, ["a"]) == {"a": 1}
    with pytest.raises(AssertionError, match="lacks b"):
        table({"a": 1}, ["a", "b"])
    with pytest.raises(AssertionError, match="nobody asked"):
        table({"a": 1, "c": 2}, ["a"])
    with pytest.raises(AssertionError, match="at most 2"):
        text("abc", most=2)


def test_near_does_not_say_what_would_be_right():
    near(1.0, 1.0 + 1e-9)
    with pytest.raises(AssertionError) as failure:
        near(1.0, 3.25)
    assert "3.25" not in str(failure.value)
    with pytest.raises(AssertionError):
        near(math.nan, 1.0)


def test_a_long_answer_is_cut():
    with pytest.raises(AssertionError) as failure:
        number("x" * 10_000)
    assert len(str(failure.value)) < 200
