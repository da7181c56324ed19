"""What travels between the grader and a submission, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch

from course.values import DTYPES, Malformed, Seed, decode, encode


def travelled(value):
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, "é😀", [], [1, [2.0]], {"a": {"b": [None]}}]
)
def test_plain_values_arrive_as_they_were(value):
    assert travelled(value) == value
    assert type(travelled(value)) is type(value)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_tensors_arrive_bit_by_bit(dtype, shape):
    sent = (torch.arange(math.prod(shape)).reshape(shape) * 0.7).to(dtype)
    got = travelled(sent)
    assert got.dtype == dtype
    assert got.shape == sent.shape
    assert torch.equal(got, sent)


def test_what_numpy_makes_arrives_as_torch():
    assert travelled(np.float64(0.1)) == 0.1
    assert torch.equal(travelled(np.arange(4).reshape(2, 2)), torch.arange(4).reshape(2, 2))
    assert travelled((1, 2)) == [1, 2]


def test_a_tensor_of_another_class_arrives_as_a_tensor():
    class Odd(torch.Tensor):
        def __eq__(self, other):
            return True

    got = travelled(torch.zeros(2).as_subclass(Odd))
    assert type(got) is torch.Tensor


def test_a_view_is_sent_as_what_it_shows():
    assert torch.equal(travelled(torch.arange(6).reshape(2, 3).T), torch.arange(6).reshape(2, 3).T)


def test_nothing_else_is_sent():
    deep = []
    for _ in range(100):
        deep = [deep]
    for value in (object(), {1, 2}, b"x", 2**60, deep, torch.zeros(2).to_sparse(), len):
        with pytest.raises(Malformed):
            encode(value)


@pytest.mark.parametrize(
    "packed",
    [
        None,
        3,
        [],
        {},
        {"value": [1]},
        {"value": 2**60},
        {"list": 3},
        {"dict": [["a"]]},
        {"dict": [[1, {"value": 1}]]},
        {"seed": 3},
        {"function": 0},
        {"tensor": "", "dtype": "float32"},
        {"tensor": "AAAA", "dtype": "float32", "shape": [1]},
        {"tensor": "!!", "dtype": "uint8", "shape": [1]},
        {"tensor": "", "dtype": "float32", "shape": [0, -1]},
        {"tensor": "", "dtype": "object", "shape": [0]},
        {"tensor": "", "dtype": "float32", "shape": [True]},
        {"tensor": "", "dtype": "float32", "shape": [10**12, 10**12]},
        {"tensor": 3, "dtype": "float32", "shape": [1]},
        {"tensor": "", "dtype": ["float32"], "shape": [0]},
    ],
)
def test_what_a_submission_may_write_instead_is_refused(packed):
    with pytest.raises(Malformed):
        decode(packed)


def test_nesting_is_refused_before_python_gives_up():
    packed = {"value": 1}
    for _ in range(5_000):
        packed = {"list": [packed]}
    with pytest.raises(Malformed):
        decode(packed)


def test_a_byte_that_is_no_bool_becomes_one():
    got = decode({"tensor": "Ag==", "dtype": "bool", "shape": [1]})
    assert got.tolist() == [True]


def test_a_seed_arrives_as_a_generator_only_where_it_is_asked_for():
    got = decode(encode(Seed(7)), seeds=True)
    assert got.initial_seed() == 7


def test_a_function_travels_as_its_place():
    functions = []
    packed = encode([max, min], functions)
    assert functions == [max, min]
    assert decode(packed, functions.__getitem__) == [max, min]
