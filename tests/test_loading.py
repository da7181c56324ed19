"""Clients that are loaded when drawn: what trains is what trains in memory, and nothing lingers."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fldp
from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population, from_loader
from fldp.simulation.draws import Draws
from fldp.simulation.loading import Cohort, LazyPopulation

SIZES = (5, 1, 9, 3, 7, 2, 4, 6, 8, 3)


def eager(real: bool = False) -> Population:
    """Ten clients of uneven size."""
    torch.manual_seed(0)
    total = sum(SIZES)
    y = torch.rand(total) if real else torch.arange(total) % 3
    ends = np.cumsum(SIZES)
    index = [range(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    return Population(torch.randn(total, 4), y, index)


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 3)


def plan(rounds: int = 3, **options: Any) -> fldp.PrivacyPlan:
    given = {"epsilon": 8.0, "delta": 1e-3, "clients": 10, "cohort": 5} | options
    return fldp.calibrate(rounds=rounds, **given)


def trained(people: Population, local: Any, **options: Any) -> Tensor:
    noise = torch.Generator().manual_seed(5)
    history = fldp.train(model(), people, plan(), local=local, seed=2, generator=noise, **options)
    return flatten(history.model)


def step(own: nn.Module, x: Tensor, y: Tensor) -> None:
    noisy = x + torch.randn_like(x)  # draws of its own
    nn.functional.cross_entropy(own(noisy), y).backward()
    torch.optim.SGD(own.parameters(), 0.1).step()


ALGORITHMS: dict[str, Callable[[], Any]] = {
    "batches": lambda: fldp.LocalSGD(lr=0.1, epochs=2, batch_size=2),
    "all at once": lambda: fldp.LocalSGD(lr=0.1),
    "loop": lambda: fldp.LocalSGD(lr=0.1, batch_size=2, engine="loop"),
    "momentum": lambda: fldp.LocalSGD(lr=0.1, batch_size=2, momentum=0.5),
    "scaffold": lambda: fldp.Scaffold(lr=0.1, batch_size=2),
    "own function": lambda: fldp.LocalFunction(step),
}


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("together", [1, 3, 256])
@pytest.mark.slow
def test_a_run_is_that_of_the_same_clients_in_memory(name: str, together: int) -> None:
    people = eager()
    lazy = from_loader(people.client, 10, together=together)
    expected = trained(people, ALGORITHMS[name]())
    torch.testing.assert_close(trained(lazy, ALGORITHMS[name]()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_dp_sgd_and_weights_take_the_sizes_that_were_given() -> None:
    people = eager()
    lazy = from_loader(people.client, 10, sizes=people.sizes, together=3)
    records = fldp.calibrate_records(
        epsilon=8.0, delta=1e-5, rounds=3, local_epochs=1, batch_size=3, client_sizes=people.sizes
    )

    def dpsgd() -> fldp.DPSGD:
        return fldp.DPSGD(records, lr=0.1, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(trained(lazy, dpsgd()), trained(people, dpsgd()))
    weights = {"weights": "records", "weight_cap": 4.0}
    local = fldp.LocalSGD(lr=0.1)
    expected = trained(people, local, **weights)
    torch.testing.assert_close(trained(lazy, local, **weights), expected, atol=1e-6, rtol=1e-5)
    unknown = from_loader(people.client, 10)
    with pytest.raises(ValueError, match="give sizes to"):
        trained(unknown, dpsgd())
    with pytest.raises(ValueError, match="give sizes to"):
        trained(unknown, local, **weights)


def test_only_who_is_drawn_is_loaded_and_at_most_two_groups_are_in_memory() -> None:
    people = eager()
    asked: list[int] = []
    alive: list[int] = []

    class Counted:
        """Records that count how many clients are in memory."""

        def __call__(self, client: int) -> Any:
            asked.append(client)
            return people.client(client)

    lazy = from_loader(Counted(), 10, together=2)
    assert asked == [0]
    asked.clear()
    local = fldp.LocalSGD(lr=0.1)
    rows = local.updates(model(), flatten(model()), lazy, [1, 3, 4, 6, 7, 8, 9], Draws(0))
    for _ in rows:
        deadline = time.monotonic() + 10
        while threading.active_count() > 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        alive.append(len(asked))
    assert asked == [1, 3, 4, 6, 7, 8, 9]
    assert alive == [4, 6, 7, 7]


def test_records_are_loaded_while_others_train() -> None:
    people = eager()
    threads: set[str] = set()
    loading = threading.Event()
    go_on = threading.Event()

    def fn(client: int) -> Any:
        threads.add(threading.current_thread().name)
        if client == 5:
            loading.set()
            assert go_on.wait(10)
        return people.client(client)

    lazy = from_loader(fn, 10, together=5)
    rows = fldp.LocalSGD(lr=0.1).updates(model(), flatten(model()), lazy, range(10), Draws(0))
    # The first five have trained while the loader stands in the sixth.
    assert len(next(rows)) == 5
    assert loading.wait(10)
    go_on.set()
    assert len(next(rows)) == 5
    assert threads == {"MainThread", "fldp-loading"}


def test_who_has_no_records_sends_zeros() -> None:
    people = eager()
    empty = {
        2: None,
        4: (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
        5: ([], []),
        6: (np.zeros((0, 4)), np.zeros(0)),
    }

    def fn(client: int) -> Any:
        return empty[client] if client in empty else people.client(client)

    lazy = from_loader(fn, 10, together=3)
    for name, make in ALGORITHMS.items():
        flat = flatten(model())
        own = make()
        rows = torch.cat([*own.updates(model(), flat, lazy, range(10), Draws(0))])
        width = own.width(len(flat))
        assert rows.shape == (10, width), name
        assert (rows.norm(dim=1) == 0).tolist() == [i in empty for i in range(10)], name
        alone = torch.cat([*make().updates(model(), flat, people, [3], Draws(0))])
        torch.testing.assert_close(rows[3:4], alone, atol=1e-6, rtol=1e-5)
    nobody = from_loader(lambda i: None if i else people.client(i), 10)
    with warnings.catch_warnings():  # whose updates are zero is told to the server
        warnings.simplefilter("ignore")
        history = fldp.train(model(), nobody, plan(), local=fldp.LocalSGD(lr=0.1))
    assert len(history.events) == 3


def test_an_update_depends_on_nobody_else_who_is_loaded() -> None:
    people = eager()
    flat = flatten(model())
    for name, make in ALGORITHMS.items():
        found = []
        for ids in ([3], [0, 3, 9], [9, 3], range(10)):
            lazy = from_loader(people.client, 10, together=2)
            rows = torch.cat([*make().updates(model(), flat, lazy, ids, Draws(0), round=4)])
            found.append(rows[[*ids].index(3)])
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], atol=1e-6, rtol=1e-5, msg=name)


def test_what_is_not_finite_ends_in_an_update_that_counts_nothing() -> None:
    people = eager()

    def fn(client: int) -> Any:
        x, y = people.client(client)
        return (x / 0 if client == 4 else x), y

    lazy = from_loader(fn, 10)
    local = fldp.LocalSGD(lr=0.1)
    rows = torch.cat([*local.updates(model(), flatten(model()), lazy, range(10), Draws(0))])
    assert torch.isfinite(rows).all(1).tolist() == [i != 4 for i in range(10)]
    assert torch.isfinite(trained(lazy, local)).all()


def ends_of_loading() -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if all(thread.name != "fldp-loading" for thread in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False


def broken(client: int) -> Any:
    raise OSError("the disk is gone")


def other_shape(client: int) -> Any:
    return torch.zeros(2, 5), torch.zeros(2, dtype=torch.long)


FAILURES: dict[str, tuple[Callable[[int], Any], str]] = {
    "error": (broken, r"loading client 7 failed \(OSError: the disk is gone\): .*private"),
    "shape": (other_shape, r"client 7 has records of another form .*\(5,\) of torch.float32"),
    "type": (lambda i: (torch.zeros(2, 4), torch.zeros(2)), "client 7 has records of another form"),
    "words": (lambda i: (torch.zeros(2, 4), ["a", "b"]), "client 7's y is of type"),
    "pair": (lambda i: torch.zeros(2, 4), "fn gave a Tensor for client 7"),
    "lengths": (
        lambda i: (torch.zeros(2, 4), torch.zeros(3, dtype=torch.long)),
        "client 7 has 2 records and 3 targets",
    ),
    "label": (lambda i: (torch.zeros(2, 4), torch.tensor([0, 3])), "label 3"),
}


@pytest.mark.parametrize(("fn", "message"), FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_loaded_is_one_sentence_and_the_thread_ends(
    fn: Callable[[int], Any], message: str
) -> None:
    people = eager()
    lazy = from_loader(lambda i: fn(i) if i == 7 else people.client(i), 10, together=2)
    with pytest.raises(ValueError, match=message):
        fldp.train(model(), lazy, plan(cohort=10, sampling="none"))
    assert ends_of_loading()


def test_the_thread_ends_when_the_run_fails_elsewhere() -> None:
    people = eager()

    def slow(client: int) -> Any:
        time.sleep(0.01)
        return people.client(client)

    def fail(own: nn.Module, x: Tensor, y: Tensor) -> None:
        raise RuntimeError("user code")

    lazy = from_loader(slow, 10, together=5)
    with pytest.raises(Exception, match="fn raised RuntimeError"):
        fldp.train(model(), lazy, plan(cohort=10, sampling="none"), local=fldp.LocalFunction(fail))
    assert ends_of_loading()
    # Also where somebody stops asking for updates.
    rows = fldp.LocalSGD().updates(model(), flatten(model()), lazy, range(10), Draws(0))
    next(rows)
    del rows
    assert ends_of_loading()


def test_global_random_numbers_in_a_loader_are_refused() -> None:
    data = TensorDataset(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    for draw in (
        lambda: torch.rand(1),
        lambda: np.random.rand(1),  # noqa: NPY002
        lambda: next(iter(DataLoader(data))),
    ):

        def fn(client: int, draw: Callable[[], Any] = draw) -> Any:
            draw()
            return data.tensors

        state = torch.get_rng_state()
        with pytest.raises(ValueError, match="global random numbers"):
            from_loader(fn, 3)
        assert torch.equal(torch.get_rng_state(), state)


def test_what_a_million_clients_need_is_known_before_they_are_drawn() -> None:
    def fn(client: int) -> Any:
        return np.full((2, 3), client % 5), np.array([0, 1])

    lazy = from_loader(fn, 1_000_000)
    assert repr(lazy) == "LazyPopulation(1000000 clients, loaded when they are drawn)"
    assert len(lazy) == 1_000_000
    assert lazy.summary() == {"clients": 1_000_000}
    assert lazy.client(999_999)[0].tolist() == [[4, 4, 4], [4, 4, 4]]
    x, y, mask = lazy.cohort([7, 3])
    assert isinstance(x, Tensor)
    assert x[:, 0, 0].tolist() == [2, 3]
    assert (y.tolist(), bool(mask.all())) == ([[0, 1], [0, 1]], True)
    assert lazy.to("cpu").client(3)[1].tolist() == [0, 1]


def test_what_needs_all_records_is_refused_in_a_sentence() -> None:
    lazy = from_loader(eager().client, 10)
    for ask in (
        lambda: lazy.x, lambda: lazy.y, lambda: lazy.index, lambda: lazy.label_counts(),
        lambda: lazy.plot(), lambda: lazy.rows([0]), lambda: lazy.held(0),
        lambda: fldp.train(model(), lazy, plan(), validation=lazy),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="before clients are drawn and loaded"):
            ask()
    with pytest.raises(ValueError, match="give sizes to"):
        _ = lazy.sizes
    known = from_loader(eager().client, 10, sizes=SIZES)
    assert known.summary()["largest"] == 9
    with pytest.raises(ValueError, match="is not in memory"):
        known.load([1, 2]).client(3)


@pytest.mark.parametrize(("change", "message"), [
    ({"fn": 3}, "fn is 3"),
    ({"clients": 0}, "clients is 0"),
    ({"together": 0}, "together is 0"),
    ({"sizes": [1] * 9}, r"sizes has shape \(9,\)"),
    ({"sizes": [0.5] * 10}, "type torch.float64"),
    ({"sizes": [-1] * 10}, "from 0 for each"),
    ({"sizes": [4, *SIZES[1:]], "fn": None}, "client 0 has 5 records and sizes says 4"),
    ({"fn": lambda i: None}, "the first 10 clients have no records"),
    ({"fn": broken}, "loading client 0 failed"),
])  # fmt: skip
def test_bad_descriptions(change: dict[str, Any], message: str) -> None:
    given = {"fn": eager().client, "clients": 10} | change
    if given["fn"] is None:
        given["fn"] = eager().client
    with pytest.raises(ValueError, match=message):
        from_loader(**given).client(0)


def test_regression_and_dict_records_are_loaded_too() -> None:
    people = eager(real=True)
    lazy = from_loader(people.client, 10, together=4)
    options = {"local": fldp.LocalSGD(lr=0.1, batch_size=2), "loss": nn.functional.mse_loss}
    ends = []
    for who in (people, lazy):
        noise = torch.Generator().manual_seed(0)
        history = fldp.train(nn.Linear(4, 1), who, None, clip=None, rounds=1, **options)
        del noise
        ends.append(history)
    assert all(torch.isfinite(flatten(history.model)).all() for history in ends)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.layer(left + right)

    labels = eager()

    def fn(client: int) -> Any:
        x, y = labels.client(client)
        return {"left": x, "right": x}, y

    both = from_loader(fn, 10, together=4)
    assert isinstance(both.form, dict)
    history = fldp.train(Two(), both, plan(), local=fldp.LocalSGD(lr=0.1))
    assert len(history.events) == 3


def test_a_run_is_resumed_with_the_same_loader_only(tmp_path: Any) -> None:
    people = eager()

    def fn(client: int) -> Any:
        return people.client(client)

    path = tmp_path / "run.pt"

    def stop(round: int, history: Any) -> bool:
        return round == 1

    lazy = from_loader(fn, 10, together=3)
    fldp.train(model(), lazy, plan(), checkpoint=path, callbacks=[stop])
    again = fldp.train(model(), from_loader(fn, 10), plan(), checkpoint=path, resume=True)
    assert len(again.events) == 3
    for other in (from_loader(people.client, 10), from_loader(fn, 10, sizes=SIZES)):
        with pytest.raises(ValueError, match="population"):
            fldp.train(model(), other, plan(), checkpoint=path, resume=True)


def test_a_cohort_is_one_population_of_all() -> None:
    people = eager()
    lazy = from_loader(people.client, 10, sizes=people.sizes)
    cohort = lazy.load(torch.tensor([8, 2, 5]))
    assert isinstance(lazy, LazyPopulation)
    assert isinstance(cohort, Cohort)
    assert len(cohort) == 10
    assert torch.equal(cohort.sizes, people.sizes)
    assert cohort.sizes_of(torch.tensor([2, 8])).tolist() == [9, 8]
    for i in (2, 5, 8):
        assert torch.equal(cohort.client(i)[0], people.client(i)[0])
    x, y, mask = cohort.cohort([5, 2])
    expected = people.cohort([5, 2])
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])
    assert torch.equal(mask, expected[2])
