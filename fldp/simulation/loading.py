"""Clients whose records are loaded when they are drawn: more of them than memory holds."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import whole
from fldp.simulation.clients import Population
from fldp.simulation.inputs import (
    Records,
    as_records,
    as_rows,
    as_targets,
    count,
    each,
    form,
    leaves,
    length,
    same_form,
)
from fldp.simulation.isolation import alone
from fldp.simulation.objective import IGNORED

# From a client's number to its records and targets, or to None.
Loader = Callable[[int], Any]
# So many clients are asked for the form of a record, until one has any.
_ASKED = 100


class LazyPopulation(Population):
    """N clients described, and only those in memory that train: what `from_loader` makes.

    What is known of it before a client is drawn: N, the form of a record, and the sizes where they
    were given. Whatever needs more is refused with a ValueError.

    Parameters
    ----------
    fn : callable
        `fn(client)` gives a client's records; see `from_loader`.
    clients : int
        N.
    sizes : sequence of int, optional
        How many records each client has (N,).
    together : int
        Clients that are loaded at once.

    Raises
    ------
    ValueError
        For what is no number of clients, and where no record is to be had or `fn` draws from
        global random numbers.

    Examples
    --------
    >>> def records(client):
    ...     return torch.full((3, 2), float(client)), torch.tensor([0, 1, 1])
    >>> people = LazyPopulation(records, 1_000_000)
    >>> people.client(7)[0][0]
    tensor([7., 7.])
    """

    def __init__(
        self,
        fn: Loader,
        clients: int,
        sizes: Sequence[int] | np.ndarray | Tensor | None = None,
        together: int = 256,
    ) -> None:
        if not callable(fn):
            raise ValueError(f"fn is {fn!r}: give a function from a client's number to (x, y)")
        self._fn = fn
        self._clients = whole("clients", clients)
        self._together = whole("together", together)
        self._declared = None if sizes is None else _checked_sizes(sizes, self._clients)
        self._where = torch.device("cpu")
        self._form, self._targets = self._example()

    def __len__(self) -> int:
        return self._clients

    def __repr__(self) -> str:
        return f"LazyPopulation({len(self)} clients, loaded when they are drawn)"

    # What a population in memory holds, and this one does not.

    @property
    def x(self) -> Records:  # type: ignore[override]
        """Refused: the records of all clients are never in memory."""
        raise self._unknown("its records")

    @property
    def y(self) -> Tensor:  # type: ignore[override]
        """Refused: the targets of all clients are never in memory."""
        raise self._unknown("its targets")

    def _unknown(self, what: str) -> ValueError:
        return ValueError(
            f"{what} are not known before clients are drawn and loaded: this needs a population in "
            "memory, such as fldp.clients.partition makes"
        )

    @property
    def sizes(self) -> Tensor:
        """How many records each client has (N,), as `from_loader` was told."""
        if self._declared is None:
            raise ValueError(
                "how many records clients have is not known before they are drawn: give sizes to "
                "fldp.clients.from_loader"
            )
        return self._declared

    @property
    def form(self) -> Records:
        """See `Population.form`."""
        return self._form

    @property
    def targets(self) -> Tensor:
        """See `Population.targets`."""
        return self._targets

    def labels(self, ignored: int = IGNORED) -> tuple[int | None, int | None]:
        """Not known: see `Population.labels`."""
        return None, None

    @property
    def device(self) -> torch.device:
        """Where loaded records are put."""
        return self._where

    def to(self, device: torch.device | str) -> LazyPopulation:
        """The same population, with records put on `device` when they are loaded."""
        moved = object.__new__(LazyPopulation)
        moved.__dict__.update(self.__dict__, _where=torch.device(device))
        moved._form = each(lambda part: part.to(device), self._form)
        moved._targets = self._targets.to(device)
        return moved

    def held(self, i: int) -> Tensor:
        """Refused: records have no numbers before they are loaded."""
        raise self._unknown("numbers of records")

    def rows(self, ids: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Refused: records have no numbers before they are loaded."""
        raise self._unknown("numbers of records")

    def client(self, i: int) -> tuple[Records, Tensor]:
        """Load the records of client `i`: see `Population.client`."""
        return self.load([i]).client(i)

    def cohort(self, ids: Tensor | Sequence[int]) -> tuple[Records, Tensor, Tensor]:
        """Load the records of some clients: see `Population.cohort`."""
        return self.load(ids).cohort(ids)

    def label_counts(self) -> Tensor:
        """Refused: labels are not known before they are loaded."""
        raise self._unknown("labels")

    def summary(self) -> dict[str, float]:
        """Clients, and the spread of their sizes where these were given."""
        return {"clients": len(self)} if self._declared is None else self._spread()

    def facts(self) -> list[Tensor | str]:
        """What a checkpoint compares: form, sizes, and the name of what loads them."""
        fn = self._fn
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        told: list[Tensor | str] = [f"{len(self)} clients loaded by {name}", *leaves(self._form)]
        return [*told, self._targets, *([] if self._declared is None else [self._declared])]

    def load(self, ids: Tensor | Sequence[int]) -> Cohort:
        """Load some clients, here and now.

        Parameters
        ----------
        ids : Tensor or sequence of int
            Their numbers (c,).

        Returns
        -------
        Cohort

        Raises
        ------
        ValueError
            Where `fn` fails, or gives other records than it did for the first client.
        """
        numbers = torch.as_tensor(ids, dtype=torch.long)
        return Cohort(self, numbers, [self._one(i) for i in numbers.tolist()])

    def loads(self, ids: Tensor) -> Iterator[Cohort]:
        """Load some clients, a group after the other: each while the one before trains.

        Parameters
        ----------
        ids : Tensor
            Their numbers (c,), at least one.

        Returns
        -------
        iterator of Cohort
            In the order of `ids`.

        Raises
        ------
        ValueError
            As `load`.
        """
        groups = ids.split(self._together)
        ahead = _Ahead(self._one, groups[0])
        try:
            for number, group in enumerate(groups, start=1):
                cohort = Cohort(self, group, ahead.result())
                if number < len(groups):
                    ahead = _Ahead(self._one, groups[number])
                yield cohort
        finally:
            ahead.stop()

    def _one(self, client: int) -> tuple[Records, Tensor] | None:
        """The records of a client, of the population's form; None where it has none."""
        found = self._called(client)
        if self._declared is not None:
            size = 0 if found is None else len(found[1])
            told = int(self._declared[client])
            if size != told:
                raise ValueError(
                    f"client {client} has {size} records and sizes says {told}: give the sizes "
                    "that fn loads, or leave them out"
                )
        if found is None:
            return None
        x, y = found
        fits = same_form(x, self._form) and same_form(y, self._targets)
        if not fits:
            raise ValueError(
                f"client {client} has records of another form than the first client with any "
                f"({_told(x)} and {_told(y)}, not {_told(self._form)} and {_told(self._targets)}): "
                "fn must give all clients' in one form"
            )
        x = each(lambda part: part.to(self._where), x)
        return x, y.to(self._where)

    def _called(self, client: int) -> tuple[Records, Tensor] | None:
        """What `fn` gives for a client, as tensors; ValueError where that is not possible."""
        try:
            with torch.no_grad():
                found = self._fn(client)
        except Exception as error:
            first_line = str(error).partition("\n")[0]
            raise ValueError(
                f"loading client {client} failed ({type(error).__name__}: {first_line}): repair "
                "fn, or give None for a client without records; who failed is as private as the "
                "data"
            ) from error
        if found is None:
            return None
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(
                f"fn gave a {type(found).__name__} for client {client}: give (x, y), or None for a "
                "client without records"
            )
        given, targets = found
        if length(targets) == 0:
            return None
        # What is not finite stays: that client's update is not finite either, and counts nothing.
        x = as_records(given, f"client {client}'s x", finite=False)
        y = as_targets(targets, f"client {client}'s y", finite=False)
        if count(x) != len(y):
            raise ValueError(
                f"client {client} has {count(x)} records and {len(y)} targets: give as many"
            )
        return x, y

    def _example(self) -> tuple[Records, Tensor]:
        """The form of records and targets, from the first client that has any."""
        asked = min(_ASKED, len(self))
        for client in range(asked):
            with alone(torch.device("cpu")):
                before = _random_state()
                found = self._called(client)
                if _random_state() != before:
                    raise ValueError(
                        "fn draws from the global random numbers of torch, numpy or Python, which "
                        "clients that train meanwhile would notice: give it a generator of its "
                        "own, such as torch.Generator().manual_seed(client), also as the generator "
                        "of a DataLoader"
                    )
            if found is not None:
                return form(found[0]), found[1][:0]
        raise ValueError(
            f"the first {asked} clients have no records, so that the form of one is not known: "
            "number a client that has some among them"
        )


class Cohort(Population):
    """Clients of a lazy population whose records are in memory, under their own numbers.

    Parameters
    ----------
    population : LazyPopulation
        The one that they are of.
    ids : Tensor
        Their numbers (c,).
    parts : list
        For each its records and targets, or None where it has none.
    """

    def __init__(
        self, population: LazyPopulation, ids: Tensor, parts: list[tuple[Records, Tensor] | None]
    ) -> None:
        self._population = population
        self.ids = ids
        full = [part for part in parts if part is not None]
        # At least the form: clients without records have none to put together.
        x = [population.form, *(part[0] for part in full)]
        self.x = each(lambda *tensors: torch.cat(tensors), *x)
        self.y = torch.cat([population.targets, *(part[1] for part in full)])
        self._sizes = torch.tensor([0 if part is None else len(part[1]) for part in parts])
        self._order = torch.arange(len(self.y))
        self._begin = self._sizes.cumsum(0) - self._sizes
        self._sorted, self._place = ids.sort()

    def __len__(self) -> int:
        return len(self._population)

    @property
    def sizes(self) -> Tensor:
        """Of all N clients, where they are known: see `LazyPopulation.sizes`."""
        return self._population.sizes

    def _local(self, ids: Tensor) -> Tensor:
        found = torch.searchsorted(self._sorted, ids).clamp(max=len(self.ids) - 1)
        if len(ids) and not torch.equal(self._sorted[found], ids):
            raise ValueError("a client is asked for that is not in memory: load it first")
        return self._place[found]


class _Ahead:
    """A thread that loads some clients and then ends; an error is raised where it is waited for."""

    def __init__(self, load: Callable[[int], Any], ids: Tensor) -> None:
        self._load = load
        self._ids = ids.tolist()
        self._found: list[Any] = []
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        # A loader that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="fldp-loading", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for client in self._ids:
                if self._stopped.is_set():
                    return
                self._found.append(self._load(client))
        except BaseException as error:  # told in the thread that waits
            self._error = error

    def result(self) -> list[Any]:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def stop(self) -> None:
        """End before the next client."""
        self._stopped.set()


def _checked_sizes(sizes: Any, clients: int) -> Tensor:
    values = as_rows(sizes, "sizes")
    whole_numbers = not (values.is_floating_point() or values.dtype == torch.bool)
    if values.shape != (clients,) or not whole_numbers or int(values.min()) < 0:
        raise ValueError(
            f"sizes has shape {tuple(values.shape)} and type {values.dtype}: give a whole number "
            f"of records from 0 for each of the {clients} clients"
        )
    return values.cpu().long()


def _random_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - loaders may use it
    state = torch.get_rng_state().numpy().tobytes()
    return state, random.getstate(), name, np.asarray(keys).tobytes(), *rest


def _told(records: Records) -> str:
    return ", ".join(f"{tuple(part.shape[1:])} of {part.dtype}" for part in leaves(records))
