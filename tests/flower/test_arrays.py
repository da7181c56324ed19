"""Between Flower's records and tensors: nothing that a client sends raises."""

from __future__ import annotations

import pickle
import resource
import warnings

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


def npy(descr: str, shape: str, body: bytes) -> RecordDict:
    """A reply that says it has the model's shape, and holds what is given as numpy would write."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    # The header's end is at a multiple of 64 bytes, ten of which come before it.
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body
    return RecordDict({"a": ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", data)})})


FLAT = {"w": torch.zeros(2, 3)}
FULL = np.ones((2, 3), np.float32).tobytes()


@pytest.mark.parametrize(
    ("descr", "shape", "body"),
    [
        ("'<f4'", "(1000000000000,)", FULL),
        ("'<f4'", "(3000000000,)", FULL),
        ("'<f4'", "(4294967296, 4294967296, 4)", FULL),
        ("'<f4'", "(-2, -3)", FULL),
        ("'|V0'", "(2, 3)", FULL),
        ("'|V2000000000'", "()", FULL),
        ("'a4'", "(2, 3)", FULL),
        ("('<f4', (6,))", "(1000000,)", FULL),
        ("[('w', '<f4')]", "(2, 3)", FULL),
        ("'|O'", "(2, 3)", pickle.dumps([1.0] * 6)),
        ("'<f4'", "(" * 3000, FULL),
        ("'<f4'", "-" * 3000 + "1", FULL),
        ("'<f4'", "(2, 3)", FULL[:-1]),
    ],
    ids=lambda given: str(given)[:20],
)
def test_a_header_that_lies_is_an_empty_update_and_takes_no_memory(descr, shape, body) -> None:
    before = process_memory()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert update_in(npy(descr, shape, body), FLAT) == {}
    assert process_memory() - before < 64 * 2**20
    assert warned == []


def process_memory() -> int:
    """The most bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("descr", "shape", "body"),
    [
        ("'<f4'", "(2L, 3L)", FULL),
        ("'<f8'", "(2, 3)", np.full(6, 1e300).tobytes()),
        (f"'{np.dtype(np.longdouble).str}'", "(2, 3)", np.full(6, np.longdouble("1e308") * 10)),
    ],
    ids=["header of Python 2", "double", "long double"],
)
def test_nothing_that_is_sent_is_warned_of(descr, shape, body) -> None:
    """Whoever reads the run's log would read what a client sent."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        update_in(npy(descr, shape, bytes(body)), FLAT)
    assert warned == []


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
