"""simulation.inputs: records as tensors, tuples or dicts; what is no number is refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fldp.simulation.inputs import (
    accepted,
    activations,
    as_records,
    as_targets,
    call,
    cast,
    collated,
    count,
    each,
    form,
    leaves,
    made_up,
    same_form,
    take,
)

STRUCTURES = [
    torch.arange(6.0).view(3, 2),
    (torch.arange(3), torch.zeros(3, 2)),
    {"a": torch.arange(3), "b": torch.zeros(3, 1, 2)},
]


@pytest.mark.parametrize("records", STRUCTURES)
def test_every_structure_is_taken_apart_and_put_together(records: Any) -> None:
    assert count(records) == 3
    assert count(take(records, torch.tensor([2, 0]))) == 2
    assert torch.equal(leaves(take(records, [2, 0]))[0], leaves(records)[0][[2, 0]])
    assert same_form(form(records), records)
    assert count(form(records)) == 0
    assert type(each(torch.clone, records)) is type(records)
    assert same_form(cast(records, form(records)), records)
    assert count(made_up(records, rows=5)) == 5


def test_a_model_is_called_by_position_or_by_name() -> None:
    assert call(lambda x: x + 1, torch.ones(1)) == 2
    assert call(lambda x, y: x - y, (torch.ones(1), torch.ones(1))) == 0
    assert call(lambda y, x: x - y, {"x": torch.ones(1), "y": torch.zeros(1)}) == 1


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.zeros((2, 3)), torch.float32),
        (np.zeros((2, 3), np.float16), torch.float32),
        (np.zeros((2, 3), np.longdouble), torch.float32),
        (np.zeros((2, 3), ">f4"), torch.float32),
        (np.zeros((2, 3), np.uint8), torch.float32),
        (np.zeros((2, 3), bool), torch.float32),
        (np.zeros((2, 3), np.int16), torch.int64),
        (np.zeros((2, 3), np.uint32), torch.int64),
        (torch.zeros(2, 3, dtype=torch.bfloat16), torch.float32),
        (torch.zeros(2, 3, requires_grad=True), torch.float32),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}), torch.float32),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [True, False]}), torch.float32),
        (pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [3, 4]}), torch.int64),
        (pd.Series([1, 2]), torch.int64),
        (pd.Series([1, 2], dtype="Int8"), torch.int64),
        (pd.Series([[0.5, 1.0], [2.0, 3.0]]), torch.float32),
        (np.array([[1, 2], [3, 4]], dtype=object), torch.int64),
        ([torch.zeros(3), torch.ones(3, requires_grad=True)], torch.float32),
        ([[1, 2], [3, 4]], torch.int64),
    ],
)
def test_numbers_of_any_type_are_kept_as_real_or_whole_ones(values: Any, dtype: Any) -> None:
    kept = as_records(values)
    assert isinstance(kept, Tensor)
    assert kept.dtype == dtype
    assert len(kept) == 2
    assert not kept.requires_grad


def test_large_identifiers_keep_every_digit() -> None:
    large = 2**24 + 1
    kept = as_records(np.array([large]))
    assert isinstance(kept, Tensor)
    assert kept.tolist() == [large]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", "b"], "not of numbers"),
        ([[1, 2], [3]], "numbers"),
        (np.array([1 + 2j]), "not of numbers"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
        (torch.tensor(1.0), r"shape \(\)"),
        (3.0, r"shape \(\)"),
        (None, "not of numbers"),
        (pd.DataFrame({"a": ["x", "y"]}), "not of numbers"),
        (pd.DataFrame({"a": [1.0, 2.0], "town": ["x", "y"]}), r"not of numbers \(town\)"),
        (pd.DataFrame({"day": pd.to_datetime(["2024-01-01"])}), r"not of numbers \(day\)"),
        (pd.DataFrame({"a": [1.0, None]}), "1 records of x hold NaN"),
        (pd.Series([1, None], dtype="Int64"), "1 records of x hold NaN"),
        ([[1, None], [2, 3]], "1 records of x hold NaN"),
        (np.array([None, "a"], dtype=object), "not of numbers"),
        (np.array([2**63], dtype=np.uint64), "below 2"),
        ([1.0, float("inf")], "1 records of x hold NaN or infinity"),
        ({}, "nothing"),
        ((), "nothing"),
        ((torch.zeros(2), torch.zeros(3)), r"\[2, 3\] records"),
        ({"a": torch.zeros(2), "b": ["q", "r"]}, r"x\['b'\]"),
        (torch.zeros(2, 2).to_sparse(), "sparse|tensor of shape"),
    ],
)
def test_what_is_no_record_is_refused_in_words(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_records(values)


def test_targets_are_real_numbers_or_labels() -> None:
    assert as_targets([1, 2]).dtype == torch.int64
    assert as_targets([True, False]).dtype == torch.int64
    assert as_targets(np.zeros((2, 3))).dtype == torch.float32
    with pytest.raises(ValueError, match="1 records of y"):
        as_targets([1.0, float("nan")])


def test_whole_numbers_are_words_to_one_model_and_measurements_to_another() -> None:
    words = torch.zeros(0, 4, dtype=torch.long)
    embed = nn.Sequential(nn.Embedding(2, 3), nn.Flatten())
    found = accepted(embed, words, torch.zeros(0))
    assert isinstance(found, Tensor)
    assert found.dtype == torch.int64
    found = accepted(nn.Linear(4, 2).double(), words, torch.zeros(0, dtype=torch.float64))
    assert isinstance(found, Tensor)
    assert found.dtype == torch.float64


def test_a_form_is_what_the_weights_are() -> None:
    found = accepted(nn.Linear(4, 2), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bfloat16))
    assert isinstance(found, Tensor)
    assert found.dtype == torch.bfloat16


def test_activations_count_the_outputs_of_all_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert activations(model, torch.zeros(0, 4)) == 4 + 6 + 6 + 2
    assert all(not module._forward_hooks for module in model.modules())


def test_items_of_a_dataset_become_records() -> None:
    x, y = collated([(torch.zeros(2), 1), (torch.ones(2), 0)])
    assert torch.equal(leaves(x)[0], torch.tensor([[0.0, 0], [1, 1]]))
    assert y.tolist() == [1, 0]
    x, _ = collated([({"a": 1, "b": 0.5}, 1.0)])
    assert isinstance(x, dict)
    with pytest.raises(ValueError, match="not pairs"):
        collated([(torch.zeros(2), 1), (torch.zeros(3), 1)])
    with pytest.raises(ValueError, match="not pairs"):
        collated([torch.zeros(3)])
    for item in ({"image": torch.zeros(2)}, {"x": 1, "label": 1, "labels": 1}):
        with pytest.raises(ValueError, match="dicts with a 'label'"):
            collated([item])


def test_items_that_are_dicts_or_lists() -> None:
    words = {"input_ids": [1, 2, 3], "mask": [1, 1, 0], "labels": [0, 2]}
    x, y = collated([words, words])
    assert isinstance(x, dict)
    assert (x["input_ids"].tolist(), list(x)) == ([[1, 2, 3], [1, 2, 3]], ["input_ids", "mask"])
    assert y.tolist() == [[0, 2], [0, 2]]
    x, y = collated([{"image": torch.ones(2), "label": 4}])
    assert isinstance(x, Tensor)
    assert (x.tolist(), y.tolist()) == ([[1.0, 1.0]], [4])
    # A list of numbers is a record, not a number for each record.
    x, y = collated([([1.0, 2.0], (5, 6)), ([3.0, 4.0], (7, 8))])
    assert isinstance(x, Tensor)
    assert (x.tolist(), y.tolist()) == ([[1.0, 2.0], [3.0, 4.0]], [[5, 6], [7, 8]])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_whatever_comes_is_kept_or_refused_in_words(values: Any) -> None:
    try:
        kept = as_records(values)
    except ValueError:
        return
    assert all(torch.isfinite(part).all() for part in leaves(kept) if part.is_floating_point())
