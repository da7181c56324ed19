"""A population of clients: who holds which records, as numbers of rows of shared tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice, real, shown, whole
from fldp.simulation.inputs import (
    Array,
    Records,
    as_records,
    as_rows,
    as_targets,
    collated,
    count,
    each,
    form,
    leaves,
    length,
    take,
)
from fldp.simulation.objective import IGNORED, label_range
from fldp.simulation.owners import Ids, owners

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fldp.simulation.loading import LazyPopulation

__all__ = ["SCHEMES", "Population", "from_loader", "partition"]

SCHEMES = ("iid", "dirichlet", "shards", "lognormal", "group")
# Added before shares of records are rounded down, so that their exact sum is not lost.
_ROUNDING = 1e-9


class Population:
    """Clients' data sets as numbers of shared records; nothing is copied.

    Every client has a record; two clients may hold the same record. `sizes` (N,) says how many
    each has. Who holds what takes eight bytes a record and a client, however uneven the sizes.

    Parameters
    ----------
    x : array, or tuple or dict of arrays
        Records (n, ...): real numbers are kept as float32, whole ones as int64, bytes and truth
        values as float32. A model is called with a tuple's parts by position, a dict's by name.
    y : array
        Their targets (n, ...): labels, whole numbers from 0, as int64, real numbers as float32.
    index : Tensor or sequence of sequences of int
        The record numbers of each client: a list for each, or a table (N, n_max), with those of
        client i in row i and -1 as padding at the end.

    Raises
    ------
    ValueError
        It says which input is wrong.

    Examples
    --------
    >>> people = Population(torch.zeros(3, 2), torch.tensor([0, 1, 1]), [[0, 1], [2]])
    >>> len(people), people.sizes.tolist()
    (2, [2, 1])
    """

    def __init__(self, x: Any, y: Array, index: Tensor | Sequence[Sequence[int]]) -> None:
        x, y = _records(x, y)
        self._hold(x, y, *_flattened(index, len(y)))

    def _hold(self, x: Records, y: Tensor, order: np.ndarray, sizes: np.ndarray) -> None:
        """Take checked records and who holds them: `order`, client after client, and `sizes`."""
        if len(sizes) == 0:
            raise ValueError("there are no clients: give at least one list of record numbers")
        if sizes.min() == 0:
            empty = int(sizes.argmin())
            raise ValueError(f"client {empty} has no records: leave empty clients out")
        self.x = x
        self.y = y
        self._sizes = torch.from_numpy(sizes)
        # The record numbers of all clients, one after the other, and where each begins.
        self._order = torch.from_numpy(order)
        self._begin = self._sizes.cumsum(0) - self._sizes

    @classmethod
    def _dealt(cls, x: Records, y: Tensor, order: np.ndarray, sizes: np.ndarray) -> Population:
        """Of checked records: see `_hold`."""
        made = object.__new__(cls)
        made._hold(x, y, order.astype(np.int64), sizes.astype(np.int64))
        return made

    @classmethod
    def from_datasets(cls, datasets: Sequence[Any]) -> Population:
        """One client per torch Dataset.

        Parameters
        ----------
        datasets : sequence of torch Dataset
            Their items are pairs (x, y) of one shape, or dicts in which the target is called
            "label", "labels", "target" or "y".

        Returns
        -------
        Population

        Raises
        ------
        ValueError
            Where there are no records, a Dataset has no length, or items are no pairs of numbers.
        """
        items: list[Any] = []
        sizes = []
        _check_iterable("datasets", datasets, "one torch Dataset per client")
        for number, data in enumerate(datasets):
            size = length(data)
            if size is None or not hasattr(data, "__getitem__"):
                raise ValueError(
                    f"dataset {number} is a {type(data).__name__}, which has no length: give a "
                    "Dataset with __len__ and __getitem__, such as list(data)"
                )
            try:
                items += [data[i] for i in range(size)]
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                raise ValueError(f"dataset {number} cannot be read ({told})") from error
            sizes.append(size)
        if not items:
            raise ValueError("there are no records: give one torch Dataset per client")
        x, y = collated(items)
        return cls._dealt(x, y, np.arange(len(y)), np.array(sizes))

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        return f"Population({len(self)} clients, {low} to {high} records each)"

    @property
    def sizes(self) -> Tensor:
        """How many records each client has (N,)."""
        return self._sizes

    def sizes_of(self, ids: Tensor) -> Tensor:
        """How many records some clients have.

        Parameters
        ----------
        ids : Tensor
            Their numbers (c,), of clients in memory.

        Returns
        -------
        Tensor
            (c,)
        """
        return self._sizes[self._local(ids)]

    def _local(self, ids: Tensor) -> Tensor:
        """Where clients `ids` stand among those in memory: here all are."""
        return ids

    @property
    def device(self) -> torch.device:
        """Where the records are."""
        return leaves(self.x)[0].device

    @property
    def form(self) -> Records:
        """None of the records: their structure, shapes and types."""
        return form(self.x)

    @property
    def targets(self) -> Tensor:
        """None of the targets: their shape and type."""
        return self.y[:0]

    def labels(self, ignored: int = IGNORED) -> tuple[int | None, int | None]:
        """The smallest and the largest label; None for real numbers, and where it is not known.

        Parameters
        ----------
        ignored : int
            What is no label.

        Returns
        -------
        (int or None, int or None)
        """
        return label_range(self.y, ignored)

    def to(self, device: torch.device | str) -> Population:
        """The same population with its records on `device`; who holds them stays on the CPU.

        Parameters
        ----------
        device : torch.device or str
            Where the records shall be.

        Returns
        -------
        Population
            This one, where they are there already.
        """
        if torch.device(device) == self.device:
            return self
        moved = object.__new__(Population)
        x = each(lambda part: part.to(device), self.x)
        moved.__dict__.update(self.__dict__, x=x, y=self.y.to(device))
        return moved

    @property
    def index(self) -> Tensor:
        """The table (N, n_max) of record numbers, padded with -1; made anew at each call.

        It is as wide as the largest client: where one is far larger than the others, ask for
        `held(i)` of one client after the other.
        """
        rows, mask = self.rows(torch.arange(len(self)))
        return rows.masked_fill_(~mask, -1)

    def held(self, i: int) -> Tensor:
        """The record numbers of client `i`, (n_i,).

        Parameters
        ----------
        i : int
            The number of the client.

        Returns
        -------
        Tensor
        """
        place = self._local(torch.tensor([i]))
        begin = int(self._begin[place])
        return self._order[begin : begin + int(self._sizes[place])]

    def facts(self) -> list[Tensor | str]:
        """All that a population is made of, for a checkpoint to compare; as private as it is."""
        return [*leaves(self.x), self.y, self._order, self._sizes]

    def rows(self, ids: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Record numbers of some clients, padded to one length.

        Padding repeats a client's own first record, so that nobody's row touches another's data.

        Parameters
        ----------
        ids : Tensor or sequence of int
            The clients' numbers (c,).

        Returns
        -------
        (Tensor, Tensor)
            The numbers (c, w), w the largest size among these clients, and a mask (c, w), which is
            False on padding.
        """
        ids = torch.as_tensor(ids, dtype=torch.long)
        local = self._local(ids)
        sizes = self._sizes[local]
        width = int(sizes.max()) if len(ids) else 0
        place = torch.arange(width)
        mask = place < sizes.unsqueeze(1)
        return self._order[self._begin[local].unsqueeze(1) + place * mask], mask

    def listed(self, ids: Tensor) -> Tensor:
        """Record numbers of some clients, one client after the other.

        Parameters
        ----------
        ids : Tensor
            The clients' numbers (c,).

        Returns
        -------
        Tensor
            As many as these clients have records.
        """
        local = self._local(ids)
        sizes = self._sizes[local]
        ends = sizes.cumsum(0)
        shift = (self._begin[local] - (ends - sizes)).repeat_interleave(sizes)
        return self._order[shift + torch.arange(len(shift))]

    def cohort(self, ids: Tensor | Sequence[int]) -> tuple[Records, Tensor, Tensor]:
        """The records of some clients, padded to one length.

        Parameters
        ----------
        ids : Tensor or sequence of int
            The clients' numbers (c,).

        Returns
        -------
        (Records, Tensor, Tensor)
            x (c, w, ...), y (c, w, ...) and a mask (c, w), which is False on padding.
        """
        rows, mask = self.rows(ids)
        rows = rows.to(self.device)
        return take(self.x, rows), self.y[rows], mask.to(self.device)

    def client(self, i: int) -> tuple[Records, Tensor]:
        """The records of client `i`: x (n_i, ...) and y (n_i, ...).

        Parameters
        ----------
        i : int
            The number of the client.

        Returns
        -------
        (Records, Tensor)
        """
        rows = self.held(i).to(self.device)
        return take(self.x, rows), self.y[rows]

    def label_counts(self) -> Tensor:
        """Records of each label at each client, (N, labels); ValueError where there are none."""
        check_labels(self.y)
        labels = int(self.y.max()) + 1
        owner = torch.arange(len(self)).repeat_interleave(self.sizes)
        flat = owner * labels + self.y.cpu()[self._order]
        return torch.bincount(flat, minlength=len(self) * labels).view(len(self), labels)

    def summary(self) -> dict[str, float]:
        """Clients, records, spread of sizes, and the labels of a client on average, if any."""
        labels = {}
        if _are_labels(self.y):
            held = (self.label_counts() > 0).sum(1)
            labels["labels_per_client"] = float(held.double().mean())
        return self._spread() | labels

    def _spread(self) -> dict[str, float]:
        sizes = self.sizes.double()
        return {
            "clients": len(self),
            "records": int(sizes.sum()),
            "smallest": int(sizes.min()),
            "median": float(sizes.median()),
            "largest": int(sizes.max()),
        }

    def plot(self, clients: int = 30) -> Figure:
        """Draw the labels of the first clients, and the sizes of all.

        Parameters
        ----------
        clients : int
            How many clients are drawn by their labels.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from fldp import plotting

        return plotting.population(self, clients)


def from_loader(
    fn: Callable[[int], Any],
    clients: int,
    *,
    sizes: Sequence[int] | np.ndarray | Tensor | None = None,
    together: int = 256,
) -> LazyPopulation:
    """A population whose records are loaded when their client is drawn: more than memory holds.

    While one group of a cohort trains, a thread loads the next; nothing else is in memory, and
    every thread ends with its group. The first client that has records (among the first hundred)
    is loaded once, now, for the form of a record: nothing depends on who is drawn.

    A client without records sends an update of zeros. One with NaN or infinity in x trains to an
    update that is not finite, which counts nothing. What cannot be loaded ends the run with a
    message that names the client: it is as private as the cohort.

    Parameters
    ----------
    fn : callable
        `fn(client)` gives x (n, ...) and y (n, ...) of client 0 to N - 1 as `Population` takes
        them, in one form for all; or None, or an empty y. It runs in another thread than training,
        one client at a time: it draws random numbers from a generator of its own, and gives the
        same at each call.
    clients : int
        N.
    sizes : sequence of int, optional
        How many records each client has (N,), where that is known beforehand: `weights="records"`
        and `DPSGD` need them. What is loaded must agree.
    together : int
        Clients that are loaded at once; at most two such groups are in memory.

    Returns
    -------
    LazyPopulation
        For `fldp.train` as any other; what needs the records of all clients is refused.

    Raises
    ------
    ValueError
        For what is no number of clients, where none of the first hundred has records, and where
        `fn` draws from global random numbers.

    Examples
    --------
    >>> def fn(client):
    ...     own = torch.Generator().manual_seed(client)
    ...     return torch.rand(20, 8, generator=own), torch.arange(20) % 2
    >>> people = from_loader(fn, clients=1_000_000)
    >>> people
    LazyPopulation(1000000 clients, loaded when they are drawn)
    >>> people.client(999_999)[0].shape
    torch.Size([20, 8])
    """
    from fldp.simulation.loading import LazyPopulation

    return LazyPopulation(fn, clients, sizes, together)


def partition(
    x: Any,
    y: Array,
    clients: int | None = None,
    scheme: str = "iid",
    *,
    alpha: float = 0.5,
    shards: int = 2,
    sigma: float = 1.0,
    groups: Ids | None = None,
    seed: int = 0,
) -> Population:
    """Deal records to clients; every record to one client, nobody empty.

    - `"iid"`: at random, sizes differ by at most one.
    - `"dirichlet"`: the same sizes; a client's label mix is drawn from a Dirichlet distribution
      with parameter `alpha` per label, so small `alpha` means few labels (Hsu et al. 2019).
    - `"shards"`: records sorted by label and cut in runs, `shards` to each client (McMahan et al.
      2017).
    - `"lognormal"`: at random, sizes proportional to exp(sigma · N(0, 1)).
    - `"group"`: one client per distinct id in `groups`, in sorted order: natural clients.

    Parameters
    ----------
    x, y
        Records (n, ...) and targets (n, ...), as `Population` takes them. "dirichlet" and "shards"
        need labels (n,).
    clients : int, optional
        N. None, with "group" only: as many as there are groups.
    scheme : str
        One of the above.
    alpha : float
        For "dirichlet", above 0.
    shards : int
        For "shards", at least 1.
    sigma : float
        For "lognormal", above 0.
    groups : sequence, array, Tensor or Series, optional
        For "group": to whom each record belongs (n,), by ids of any type.
    seed : int
        It decides who gets what: a public scenario, on which no guarantee rests.

    Returns
    -------
    Population

    Raises
    ------
    ValueError
        For an unknown scheme, labels and records of different length, NaN, records without a group,
        or more clients than records.

    Examples
    --------
    >>> x, y = torch.rand(100, 4), torch.arange(100) % 10
    >>> people = partition(x, y, 20, "dirichlet", alpha=0.1)
    >>> len(people), people.summary()["records"]
    (20, 100)
    """
    choice("scheme", scheme, SCHEMES)
    x, y = _records(x, y)
    if scheme == "group":
        return Population._dealt(x, y, *_grouped(groups, len(y), clients))
    clients = whole("clients", clients)
    alpha = real("alpha", alpha)
    sigma = real("sigma", sigma)
    least = clients
    if scheme == "shards":
        least *= whole("shards", shards)
    if least > len(y):
        raise ValueError(f"{clients} clients need at least {least} records, there are {len(y)}")
    rng = np.random.default_rng(seed)
    # Before anything else is drawn: who gets what depends on this order in every scheme.
    order = rng.permutation(len(y))
    if scheme in ("dirichlet", "shards"):
        check_labels(y)
    labels = y.cpu().numpy()
    if scheme == "dirichlet":
        sizes = _even(len(y), clients)
        order = _dirichlet(labels, order, sizes, alpha, rng)
    elif scheme == "shards":
        order, sizes = _in_runs(labels, order, clients, shards, rng)
    elif scheme == "lognormal":
        sizes = _lognormal(len(y), clients, sigma, rng)
    else:
        sizes = _even(len(y), clients)
    return Population._dealt(x, y, order, sizes)


def _grouped(
    groups: Ids | None, records: int, clients: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Records in client order, and sizes: one client for each group."""
    owner, sizes = owners(groups, records)
    if clients is not None and clients != len(sizes):
        raise ValueError(f"clients is {clients}, groups names {len(sizes)}: leave clients out")
    return np.argsort(owner, kind="stable"), sizes


def _even(records: int, clients: int) -> np.ndarray:
    """Sizes that differ by at most one, the larger ones first."""
    return np.full(clients, records // clients) + (np.arange(clients) < records % clients)


def _in_runs(
    labels: np.ndarray, order: np.ndarray, clients: int, shards: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Records in client order, and sizes: runs of sorted labels, `shards` to each client."""
    runs = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * shards)
    dealt = rng.permutation(clients * shards).reshape(clients, shards)
    parts = [np.concatenate([runs[run] for run in row]) for row in dealt]
    return np.concatenate(parts), np.array([len(part) for part in parts])


def _lognormal(records: int, clients: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Sizes of at least 1, proportional to lognormal draws."""
    share = rng.lognormal(sigma=sigma, size=clients)
    # One record each; the rest is cut where the cumulated shares end.
    rest = records - clients
    ends = np.floor(np.cumsum(share / share.sum()) * rest + _ROUNDING).astype(np.int64)
    ends[-1] = rest
    return 1 + np.diff(ends, prepend=0)


def _records(x: Any, y: Any) -> tuple[Records, Tensor]:
    """Records and targets as a population keeps them; a ValueError says what is wrong with them."""
    x = as_records(x)
    y = as_targets(y)
    if count(x) != len(y):
        shapes = f"x has {count(x)} records and y {len(y)}"
        raise ValueError(f"{shapes}: give one target per record")
    if len(y) == 0:
        raise ValueError("there are no records: x and y are empty")
    return x, y


def _are_labels(y: Tensor) -> bool:
    return y.ndim == 1 and not y.is_floating_point() and int(y.min()) >= 0


def _check_iterable(name: str, values: object, wanted: str) -> None:
    """ValueError for what cannot be gone through."""
    if length(values) is None and not isinstance(values, Iterator):
        raise ValueError(f"{name} is {shown(values)}: give {wanted}")


def check_labels(y: Tensor) -> None:
    """ValueError unless targets are labels, one whole number from 0 for each record.

    Parameters
    ----------
    y : Tensor
        Targets (n, ...).

    Raises
    ------
    ValueError
    """
    if not _are_labels(y):
        told = f"{y.dtype} of shape {tuple(y.shape)}"
        raise ValueError(f"y is {told}: labels are whole numbers from 0, one for each record")


def _flattened(
    index: Tensor | Sequence[Sequence[int]], records: int
) -> tuple[np.ndarray, np.ndarray]:
    """Records in client order, and sizes, of lists of record numbers or of a table of them."""
    wanted = f"index must hold record numbers below {records}, padded at the end with -1"
    if isinstance(index, Tensor | np.ndarray):
        table = as_rows(index, "index").cpu().numpy()
        if table.ndim != 2:
            raise ValueError(f"{wanted}: it has shape {table.shape}, give a row for each client")
        sizes = (table >= 0).sum(1)
        order = table[np.arange(table.shape[1]) < sizes[:, None]]
    else:
        _check_iterable("index", index, "a list of record numbers for each client")
        parts = [as_rows(part, "index").cpu().numpy() for part in index]
        if any(part.ndim != 1 for part in parts):
            raise ValueError(f"{wanted}: give a list of them for each client")
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        order = np.concatenate([part for part in parts if len(part)] or [np.arange(0)])
    # A hole in a table puts padding inside, and a record number out of sight.
    inside = len(order) == 0 or (order.min() >= 0 and order.max() < records)
    if order.dtype.kind not in "iu" or not inside:
        raise ValueError(wanted)
    return order.astype(np.int64), sizes.astype(np.int64)


def _dirichlet(
    labels: np.ndarray, order: np.ndarray, sizes: np.ndarray, alpha: float, rng: np.random.Generator
) -> np.ndarray:
    """Records in client order: each client's label mix is drawn from a Dirichlet distribution."""
    names, counts = np.unique(labels, return_counts=True)
    # In random order: records of a label are dealt from the end.
    stock = [list(order[labels[order] == name]) for name in names]
    mixes = rng.dirichlet(alpha * len(names) * counts / len(labels), size=len(sizes))
    left = counts.copy()
    dealt = []
    for mix, size in zip(mixes, sizes, strict=True):
        while size:
            weights = mix * (left > 0)
            if not weights.sum() > 0:  # the labels this client wanted are used up
                weights = left / left.sum()
            # Labels that run out give less than was drawn: the rest is drawn again.
            take = np.minimum(rng.multinomial(size, weights / weights.sum()), left)
            for label in take.nonzero()[0]:
                dealt += [stock[label].pop() for _ in range(take[label])]
            left = left - take
            size -= take.sum()
    return np.array(dealt)
