"""A population of clients: who holds which records, as one index table over shared tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice, real, whole
from fldp.simulation.inputs import (
    Array,
    Records,
    as_records,
    as_targets,
    collated,
    count,
    each,
    form,
    leaves,
    take,
)
from fldp.simulation.objective import label_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMES = ("iid", "dirichlet", "shards", "lognormal", "group")
# Added before shares of records are rounded down, so that their exact sum is not lost.
_ROUNDING = 1e-9


class Population:
    """Clients' data sets as rows of an index table into shared records; nothing is copied.

    Every client has a record; two clients may hold the same record. `sizes` (N,) says how many
    each has.

    Parameters
    ----------
    x : array, or tuple or dict of arrays
        Records (n, ...): real numbers are kept as float32, whole ones as int64, bytes and truth
        values as float32. A model is called with a tuple's parts by position, a dict's by name.
    y : array
        Their targets (n, ...): labels, whole numbers from 0, as int64, real numbers as float32.
    index : Tensor or sequence of sequences of int
        The record numbers of each client: a list for each, or a table (N, n_max) with those of
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
        self.x, self.y = _records(x, y)
        if not isinstance(index, Tensor):
            order = [record for part in index for record in part]
            index = _table(np.array(order, int), np.array([len(part) for part in index], int))
        self.index = index.long()
        self.sizes = (self.index >= 0).sum(1)
        if len(self.index) == 0:
            raise ValueError("there are no clients: give at least one list of record numbers")
        if int(self.sizes.min()) == 0:
            empty = int(self.sizes.argmin())
            raise ValueError(f"client {empty} has no records: leave empty clients out")
        inside = torch.arange(self.index.shape[1]) < self.sizes[:, None]
        if int(self.index.max()) >= len(self.y) or not torch.equal(inside, self.index >= 0):
            wanted = f"record numbers below {len(self.y)}, padded at the end with -1"
            raise ValueError(f"index must hold {wanted}")

    @classmethod
    def from_datasets(cls, datasets: Sequence[Any]) -> Population:
        """One client per torch Dataset.

        Parameters
        ----------
        datasets : sequence of torch Dataset
            Their items are pairs (x, y) of one shape.

        Returns
        -------
        Population

        Raises
        ------
        ValueError
            Where there are no records.
        """
        items = [data[i] for data in datasets for i in range(len(data))]
        if not items:
            raise ValueError("there are no records: give one torch Dataset per client")
        x, y = collated(items)
        return cls(x, y, _table(np.arange(len(y)), np.array([len(data) for data in datasets])))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        return f"Population({len(self)} clients, {low} to {high} records each)"

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

    @property
    def labels(self) -> tuple[int | None, int | None]:
        """The smallest and the largest label; None for real numbers, and where it is not known."""
        return label_range(self.y)

    def to(self, device: torch.device | str) -> Population:
        """The same population with its records on `device`; the index table stays on the CPU.

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
        width = int(self.sizes[ids].max()) if len(ids) else 0
        index = self.index[ids, :width]
        mask = index >= 0
        return torch.where(mask, index, index[:, :1]), mask

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
        rows = self.index[i, : int(self.sizes[i])].to(self.device)
        return take(self.x, rows), self.y[rows]

    def label_counts(self) -> Tensor:
        """Records of each label at each client, (N, labels); ValueError where there are none."""
        check_labels(self.y)
        labels = int(self.y.max()) + 1
        kept = self.index >= 0
        owner = torch.arange(len(self))[:, None].expand_as(self.index)[kept]
        flat = owner * labels + self.y.cpu()[self.index[kept]]
        return torch.bincount(flat, minlength=len(self) * labels).view(len(self), labels)

    def summary(self) -> dict[str, float]:
        """Clients, records, spread of sizes, and the labels of a client on average, if any."""
        sizes = self.sizes.double()
        labels = {}
        if _are_labels(self.y):
            held = (self.label_counts() > 0).sum(1)
            labels["labels_per_client"] = float(held.double().mean())
        return {
            "clients": len(self),
            "records": int(sizes.sum()),
            "smallest": int(sizes.min()),
            "median": float(sizes.median()),
            "largest": int(sizes.max()),
        } | labels

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


def partition(
    x: Any,
    y: Array,
    clients: int | None = None,
    scheme: str = "iid",
    *,
    alpha: float = 0.5,
    shards: int = 2,
    sigma: float = 1.0,
    groups: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
) -> Population:
    """Deal records to clients; every record to one client, nobody empty.

    - `"iid"`: at random, sizes differ by at most one.
    - `"dirichlet"`: the same sizes; a client's label mix is drawn from a Dirichlet distribution
      with parameter `alpha` per label, so small `alpha` means few labels (Hsu et al. 2019).
    - `"shards"`: records sorted by label and cut in runs, `shards` to each client (McMahan et al.
      2017).
    - `"lognormal"`: at random, sizes proportional to exp(sigma · N(0, 1)).
    - `"group"`: one client per distinct value of `groups`, in sorted order: natural clients.

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
    groups : sequence, optional
        For "group": to whom each record belongs (n,).
    seed : int
        It decides who gets what: a public scenario, on which no guarantee rests.

    Returns
    -------
    Population

    Raises
    ------
    ValueError
        For an unknown scheme, labels and records of different length, NaN, or more clients than
        records.

    Examples
    --------
    >>> people = partition(torch.rand(100, 4), torch.arange(100) % 10, 20, "dirichlet", alpha=0.1)
    >>> len(people), people.summary()["records"]
    (20, 100)
    """
    choice("scheme", scheme, SCHEMES)
    x, y = _records(x, y)
    if scheme == "group":
        return Population(x, y, _grouped(groups, len(y), clients))
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
    return Population(x, y, _table(order, sizes))


def _grouped(
    groups: Sequence[object] | np.ndarray | None, records: int, clients: int | None
) -> Tensor:
    """The index of one client for each group."""
    if groups is None or len(groups) != records:
        size = "None" if groups is None else len(groups)
        raise ValueError(f"groups has length {size}: give one group per record, {records} in all")
    owner = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(owner)
    if clients is not None and clients != len(sizes):
        raise ValueError(f"clients is {clients}, groups names {len(sizes)}: leave clients out")
    return _table(np.argsort(owner, kind="stable"), sizes)


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


def _table(order: np.ndarray, sizes: np.ndarray) -> Tensor:
    """Index table whose row i holds the next sizes[i] entries of `order`, padded with -1."""
    inside = np.arange(sizes.max(initial=0)) < sizes[:, None]
    index = np.full(inside.shape, -1, dtype=np.int64)
    index[inside] = order
    return torch.from_numpy(index)


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
