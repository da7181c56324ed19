"""Between Flower's records and tensors: nothing that a client sends raises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from stand_in import record

from fldp.flower.arrays import parameters, record_of, update_in, weight_in

MODEL = {"w": torch.arange(6.0).reshape(2, 3), "scale": torch.tensor(2.0)}


def test_a_model_comes_back_as_it_was() -> None:
    wide = MODEL | {"w": MODEL["w"].double()}
    for model in (MODEL, wide):
        found = parameters(record_of(model))
        assert list(found) == list(model)
        for name, value in model.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)


def test_an_update_is_what_was_added_in_any_order_of_names() -> None:
    moved = {"scale": MODEL["scale"] + 1, "w": MODEL["w"] - 2}
    update = update_in(RecordDict({"any": record_of(moved)}), MODEL)
    assert float(update["scale"]) == 1
    assert bool((update["w"] == -2).all())


def test_a_name_that_is_missing_is_left_to_the_aggregator() -> None:
    update = update_in(RecordDict({"arrays": record_of({"w": MODEL["w"]})}), MODEL)
    assert list(update) == ["w"]


def lying(shape: tuple[int, ...], values: np.ndarray, stype: str = "numpy.ndarray") -> ArrayRecord:
    """An array whose label says another shape than its bytes."""
    real = Array(values)
    return ArrayRecord({"w": Array("float32", shape, stype, real.data)})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({"a": record_of(MODEL), "b": record_of(MODEL)}),
        RecordDict({"a": record(np.zeros((3, 2), np.float32))}),
        RecordDict({"a": record(np.zeros(6, np.float32))}),
        RecordDict({"a": record(np.full((2, 3), "x"))}),
        RecordDict({"a": record(np.zeros((2, 3), complex))}),
        RecordDict({"a": record(np.zeros((2, 3), np.float32), "v")}),
        RecordDict({"a": lying((2, 3), np.zeros(7, np.float32))}),
        RecordDict({"a": lying((2, 3), np.zeros(100_000, np.float32))}),
        RecordDict({"a": lying((2, 3), np.zeros((2, 3), np.float32), "pickle")}),
        RecordDict({"a": ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", b"no")})}),
    ],
)
def test_another_structure_is_an_empty_update(content) -> None:
    assert update_in(content, MODEL) == {}


def test_a_long_reply_is_not_unpacked(monkeypatch) -> None:
    monkeypatch.setattr(Array, "numpy", lambda self: pytest.fail("it was unpacked"))
    for shape in ((2, 3), (100_000,)):
        content = RecordDict({"a": lying(shape, np.zeros(100_000, np.float32))})
        assert update_in(content, MODEL) == {}


def test_a_weight_that_is_no_number_is_nan() -> None:
    assert weight_in(RecordDict({"m": MetricRecord({"n": 3})}), "n") == 3
    for content in (
        RecordDict({}),
        RecordDict({"m": MetricRecord({"other": 3})}),
        RecordDict({"m": MetricRecord({"n": [1, 2]})}),
        RecordDict({"m": MetricRecord({"n": 1}), "k": MetricRecord({"n": 1})}),
    ):
        assert np.isnan(weight_in(content, "n"))


def test_a_model_without_trained_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer"):
        parameters(record(np.zeros(3, np.int64)))
    with pytest.raises(ValueError, match="no entries"):
        parameters(record(np.zeros(0, np.float32)))
