"""Populations: every record at one client, nobody empty, padding that touches no other client."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset, TensorDataset

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


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_who_holds_what_is_one_list_whatever_form_it_came_in(sizes: list[int], draw: Any) -> None:
    x, y = data(30)
    index = [[draw.draw(st.integers(0, 29)) for _ in range(size)] for size in sizes]
    people = Population(x, y, index)
    table = torch.full((len(sizes), max(sizes)), -1)
    for row, part in zip(table, index, strict=True):
        row[: len(part)] = torch.tensor(part)
    assert torch.equal(people.index, table)
    assert torch.equal(Population(x, y, table).index, table)
    assert torch.equal(Population(x, y, [np.array(part) for part in index]).index, table)
    assert [people.held(i).tolist() for i in range(len(sizes))] == index
    ids = torch.tensor(draw.draw(st.permutations(range(len(sizes)))))
    assert people.listed(ids).tolist() == [record for i in ids for record in index[i]]
    rows, mask = people.rows(ids)
    assert torch.equal(rows[mask], people.listed(ids))
    assert torch.equal(rows[~mask], table[ids][:, :1].expand_as(rows)[~mask])
    assert people.sizes_of(ids).tolist() == [sizes[i] for i in ids]


def test_memory_is_linear_in_records_though_one_client_is_heavy() -> None:
    clients = 2_000
    groups = [*range(clients), *[0] * 8_000]
    people = partition(torch.zeros(10_000, 1), torch.zeros(10_000), scheme="group", groups=groups)
    assert int(people.sizes.max()) == 8_001
    held = [v for v in vars(people).values() if isinstance(v, torch.Tensor)]
    # x and y, a number for each record, and two for each client: a table would have 16 million.
    assert sum(part.numel() for part in held) == 3 * 10_000 + 2 * clients


@pytest.mark.parametrize(("scheme", "options", "digest"), [
    ("iid", {}, "a24bfc7d26ea"),
    ("dirichlet", {"alpha": 0.1}, "15acdf6b5714"),
    ("dirichlet", {"alpha": 10.0}, "428ac6852fbf"),
    ("shards", {"shards": 3}, "d23959ffd697"),
    ("lognormal", {"sigma": 1.5}, "8c5c522086b7"),
    ("group", {"groups": [f"w{i % 13}" for i in range(500)]}, "06fdb2c19c98"),
])  # fmt: skip
def test_a_seed_deals_what_it_always_dealt(
    scheme: str, options: dict[str, Any], digest: str
) -> None:
    clients = None if scheme == "group" else 40
    dealt = partition(*data(500, 7), clients, scheme, seed=3, **options).index
    content = dealt.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest()[: len(digest)] == digest


def test_from_datasets_of_items_of_other_kinds() -> None:
    people = Population.from_datasets([[([1, 2], 0)], [([3, 4], 1), ([5, 6], 2)]])
    assert people.client(1)[0].tolist() == [[3, 4], [5, 6]]
    words = [{"ids": [1, 2], "mask": [1, 0], "label": 1}]
    assert isinstance(Population.from_datasets([words]).x, dict)

    class Endless(IterableDataset):
        def __iter__(self) -> Any:
            return iter([(torch.zeros(2), 0)])

    class Cut(Dataset):
        def __getitem__(self, i: int) -> Any:
            return torch.zeros(2), 0

    for odd in (Endless(), Cut(), iter([(torch.zeros(2), 0)])):
        with pytest.raises(ValueError, match=r"dataset 1 is a .* has no length"):
            Population.from_datasets([TensorDataset(*data(3)), odd])
    for nothing in (None, 3, object(), torch.tensor(1)):
        with pytest.raises(ValueError, match="give one torch Dataset per client"):
            Population.from_datasets(nothing)
        with pytest.raises(ValueError, match=r"index is|index must"):
            Population(*data(3), nothing)
    with pytest.raises(ValueError, match=r"dataset 0 cannot be read \(KeyError: 0\)"):
        Population.from_datasets([{"a": 1}])
    for item in (torch.zeros(3), (torch.zeros(2), "cat"), "ab", ("cat", 1), object()):
        with pytest.raises(ValueError, match=r"pairs|not of numbers"):
            Population.from_datasets([[item]])


def test_frames_words_and_missing_values() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"a": [1.0, 2, 3], "b": [True, False, True], "who": ["u", "v", "u"]})
    x = frame[["a", "b"]]
    people = partition(x, frame["b"], scheme="group", groups=frame["who"])
    assert people.sizes.tolist() == [2, 1]
    assert people.x.tolist() == [[1, 1], [2, 0], [3, 1]]
    assert (people.y.dtype, people.y.tolist()) == (torch.int64, [1, 0, 1])
    with pytest.raises(ValueError, match=r"not of numbers \(who\)"):
        partition(frame, frame["b"], 2)
    with pytest.raises(ValueError, match=r"y is of type .* not of numbers: turn words"):
        partition(x, frame["who"], 2)
    with pytest.raises(ValueError, match="1 records of x hold NaN"):
        partition(x.where(x["a"] > 1), frame["b"], 2)
    gone = frame["who"].where(frame["who"] == "u")
    with pytest.raises(ValueError, match="1 records have no group"):
        partition(x, frame["b"], scheme="group", groups=gone)


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
        ([[-1]], "below 4"),
        ([[0.5]], "below 4"),
        ([["a"]], "not of numbers"),
        ([0, 1], "a row for each record|a list of them"),
        ([[[0]]], "a list of them for each client"),
        (torch.tensor([0, 1]), r"shape \(2,\), give a row for each client"),
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
