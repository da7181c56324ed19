"""Populations: every record at one client, nobody empty, padding that touches no other client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from fldp.simulation.clients import SCHEMES, Population, partition


def data(n: int = 200, labels: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(n, dtype=torch.float32)[:, None]
    return x, torch.arange(n) % labels


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SCHEMES[:4]), st.integers(1, 40), st.integers(80, 200),
    st.sampled_from([0.01, 0.5, 100.0]), st.integers(0, 5),
)  # fmt: skip
def test_every_record_goes_to_exactly_one_client(
    scheme: str, clients: int, n: int, strength: float, seed: int
) -> None:
    people = partition(*data(n), clients, scheme, alpha=strength, sigma=strength, seed=seed)
    held = people.index[people.index >= 0]
    assert sorted(held.tolist()) == list(range(n))
    assert len(people) == clients
    assert int(people.sizes.min()) >= 1
    assert torch.equal(people.sizes, (people.index >= 0).sum(1))


def test_schemes_have_the_shape_they_promise() -> None:
    x, y = data(2000)
    iid = partition(x, y, 30)
    assert set(iid.sizes.tolist()) == {66, 67}
    skewed = partition(x, y, 30, "dirichlet", alpha=0.05).summary()
    mixed = partition(x, y, 30, "dirichlet", alpha=100.0).summary()
    assert skewed["labels_per_client"] < 4 < 9 < mixed["labels_per_client"]
    assert partition(x, y, 50, "shards", shards=2).summary()["labels_per_client"] <= 3
    sizes = partition(x, y, 30, "lognormal", sigma=1.5).sizes
    assert int(sizes.max()) > 5 * int(sizes.median())
    people = partition(x, y, scheme="group", groups=[f"writer {i % 7}" for i in range(2000)])
    assert len(people) == 7
    assert people.client(3)[0][:2].flatten().tolist() == [3.0, 10.0]


def test_the_seed_decides() -> None:
    x, y = data()
    for scheme in SCHEMES[:4]:
        first, again, other = (partition(x, y, 20, scheme, seed=s).index for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert first.shape != other.shape or not torch.equal(first, other)


def test_padding_repeats_the_clients_own_first_record() -> None:
    x, y = data(6)
    people = Population(x, y, [[0], [1, 2, 3], [5, 4]])
    rows, labels, mask = people.cohort([2, 0])
    assert rows.flatten(1).tolist() == [[5.0, 4.0], [0.0, 0.0]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert labels.tolist() == [[5, 4], [0, 0]]
    assert people.client(1)[1].tolist() == [1, 2, 3]
    assert people.label_counts()[1].tolist() == [0, 1, 1, 1, 0, 0]
    empty = people.cohort([])
    assert [len(part) for part in empty] == [0, 0, 0]


def test_from_datasets_and_numpy_input() -> None:
    x, y = data(5)
    people = Population.from_datasets([TensorDataset(x[:2], y[:2]), TensorDataset(x[2:], y[2:])])
    assert people.sizes.tolist() == [2, 3]
    assert people.client(1)[0].flatten().tolist() == [2.0, 3.0, 4.0]
    people = partition(np.zeros((4, 2, 2), dtype=np.uint8), np.array([0, 1, 1, 2], np.int16), 2)
    assert people.x.dtype == torch.float32
    assert people.y.dtype == torch.int64
    assert partition(np.zeros((4, 2)), np.array([0.5, 1, 1, 2]), 2).y.dtype == torch.float32
    assert repr(people) == "Population(2 clients, 2 to 2 records each)"


@pytest.mark.parametrize(("change", "message"), [
    ({"scheme": "random"}, "scheme is 'random'"),
    ({"y": torch.zeros(3)}, "one target per record"),
    ({"x": torch.full((200, 1), float("nan"))}, "200 records of x hold NaN"),
    ({"y": torch.full((200,), float("nan"))}, "200 records of y hold NaN"),
    ({"y": torch.full((200,), -1), "scheme": "shards"}, "labels are whole numbers from 0"),
    ({"x": torch.zeros(0, 1), "y": torch.zeros(0)}, "no records"),
    ({"clients": 201}, "201 clients need at least 201 records, there are 200"),
    ({"clients": 150, "scheme": "shards"}, "300 records"),
    ({"clients": 0}, "clients is 0"),
    ({"clients": None}, "clients is None"),
    ({"alpha": 0.0, "scheme": "dirichlet"}, "alpha is 0.0"),
    ({"scheme": "group"}, "groups has length None"),
    ({"scheme": "group", "groups": [1] * 199}, "groups has length 199"),
    ({"scheme": "group", "groups": [1] * 200, "clients": 5}, "groups names 1"),
])  # fmt: skip
def test_bad_input(change: dict[str, Any], message: str) -> None:
    x, y = data()
    with pytest.raises(ValueError, match=message):
        partition(**{"x": x, "y": y, "clients": 20, **change})


def test_bad_index_tables() -> None:
    x, y = data(4)
    for index, message in (
        ([[0], []], "client 1 has no records"),
        ([], "no clients"),
        ([[4]], "below 4"),
        (torch.tensor([[-1, 0]]), "padded at the end"),
    ):
        with pytest.raises(ValueError, match=message):
            Population(x, y, index)
    with pytest.raises(ValueError, match="client 1 has no records"):
        Population.from_datasets([TensorDataset(x, y), TensorDataset(x[:0], y[:0])])
    with pytest.raises(ValueError, match="no records"):
        Population.from_datasets([])


def test_plot_shows_labels_and_sizes() -> None:
    import matplotlib

    matplotlib.use("Agg")
    figure = partition(*data(), 20, "dirichlet").plot(clients=5)
    assert [len(axes.patches) > 0 for axes in figure.axes] == [True, True]
