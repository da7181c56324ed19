"""A population of clients: who holds which records, as one index table over shared tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice, real, whole

SCHEMES = ("iid", "dirichlet", "shards", "lognormal", "group")


class Population:
    """Clients' data sets as rows of an index table into shared records; nothing is copied.

    `x` is (n, ...) float32, `y` is (n,) int64, `index` is (N, n_max) int64 with the record numbers
    of client i in row i and -1 as padding at the end, `sizes` is (N,). Every client has a record;
    two clients may hold the same record. ValueError says which input is wrong.

    >>> people = Population(torch.zeros(3, 2), torch.tensor([0, 1, 1]), [[0, 1], [2]])
    >>> len(people), people.sizes.tolist()
    (2, [2, 1])
    """

    def __init__(self, x: Any, y: Any, index: Tensor | Sequence[Sequence[int]]) -> None:
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
        """One client per torch Dataset; items are pairs (features, integer label)."""
        items = [data[i] for data in datasets for i in range(len(data))]
        if not items:
            raise ValueError("there are no records: give one torch Dataset per client")
        x = torch.stack([torch.as_tensor(item[0], dtype=torch.float32) for item in items])
        y = torch.tensor([int(item[1]) for item in items])
        return cls(x, y, _table(np.arange(len(y)), np.array([len(data) for data in datasets])))

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        return f"Population({len(self)} clients, {low} to {high} records each)"

    @property
    def device(self) -> torch.device:
        return self.x.device

    def to(self, device: torch.device | str) -> Population:
        """The same population with its records on `device`; the index table stays on the CPU."""
        if torch.device(device) == self.x.device:
            return self
        moved = object.__new__(Population)
        moved.__dict__.update(self.__dict__, x=self.x.to(device), y=self.y.to(device))
        return moved

    def rows(self, ids: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Record numbers (c, w) and mask of clients `ids`; w is the largest size among them.

        Padding repeats a client's own first record, so that nobody's row touches another's data.
        """
        ids = torch.as_tensor(ids, dtype=torch.long)
        width = int(self.sizes[ids].max()) if len(ids) else 0
        index = self.index[ids, :width]
        mask = index >= 0
        return torch.where(mask, index, index[:, :1]), mask

    def cohort(self, ids: Tensor | Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Padded x (c, w, ...), y (c, w) and mask (c, w), which is False on padding."""
        rows, mask = self.rows(ids)
        rows = rows.to(self.device)
        return self.x[rows], self.y[rows], mask.to(self.device)

    def client(self, i: int) -> tuple[Tensor, Tensor]:
        """The records of client `i`: x (n_i, ...) and y (n_i,)."""
        rows = self.index[i, : int(self.sizes[i])].to(self.device)
        return self.x[rows], self.y[rows]

    def label_counts(self) -> Tensor:
        """Records of each label at each client, (N, number of labels)."""
        labels = int(self.y.max()) + 1
        kept = self.index >= 0
        owner = torch.arange(len(self))[:, None].expand_as(self.index)[kept]
        flat = owner * labels + self.y.cpu()[self.index[kept]]
        return torch.bincount(flat, minlength=len(self) * labels).view(len(self), labels)

    def summary(self) -> dict[str, Any]:
        """Clients, records, spread of sizes, and how many labels a client has on average."""
        sizes = self.sizes.double()
        return {
            "clients": len(self),
            "records": int(sizes.sum()),
            "smallest": int(sizes.min()),
            "median": float(sizes.median()),
            "largest": int(sizes.max()),
            "labels_per_client": float((self.label_counts() > 0).sum(1).double().mean()),
        }

    def plot(self, clients: int = 30) -> Any:
        """Labels of the first `clients` clients and the sizes of all; returns the figure."""
        import matplotlib.pyplot as plt

        from fldp import plotting

        with plotting.style():
            figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 2.8))
            counts = self.label_counts()[:clients].numpy()
            base, shades = counts.cumsum(1) - counts, plt.get_cmap("viridis")
            for label, (height, bottom) in enumerate(zip(counts.T, base.T, strict=True)):
                shade = shades(label / len(counts.T))
                left.bar(np.arange(len(counts)), height, bottom=bottom, color=shade)
            left.set(xlabel="client", ylabel="records (colour: label)")
            right.hist(self.sizes.numpy(), bins=min(30, int(self.sizes.max())))
            right.set(xlabel="records of a client", ylabel="clients")
        return figure


def partition(
    x: Any, y: Any, clients: int | None = None, scheme: str = "iid", *, alpha: float = 0.5,
    shards: int = 2, sigma: float = 1.0, groups: Any = None, seed: int = 0,
) -> Population:  # fmt: skip
    """Deal the records (x, y) to `clients` clients; every record to one client, nobody empty.

    - ``"iid"``: at random, sizes differ by at most one.
    - ``"dirichlet"``: the same sizes; a client's label mix is drawn from a Dirichlet distribution
      with parameter `alpha` per label, so small `alpha` means few labels (Hsu et al. 2019).
    - ``"shards"``: records sorted by label and cut in runs, `shards` to each client (McMahan et al.
      2017).
    - ``"lognormal"``: at random, sizes proportional to exp(sigma · N(0, 1)).
    - ``"group"``: one client per distinct value of `groups` (n,), in sorted order: natural clients.

    `seed` decides who gets what: it makes up a public scenario, and no guarantee rests on it.

    Raises ValueError for an unknown scheme, labels and records of different length, NaN, or more
    clients than records.

    >>> people = partition(torch.rand(100, 4), torch.arange(100) % 10, 20, "dirichlet", alpha=0.1)
    >>> len(people), people.summary()["records"]
    (20, 100)
    """
    choice("scheme", scheme, SCHEMES)
    x, y = _records(x, y)
    n, rng = len(y), np.random.default_rng(seed)
    if scheme == "group":
        if groups is None or len(groups) != n:
            size = "None" if groups is None else len(groups)
            raise ValueError(f"groups has length {size}: give one group per record, {n} in all")
        owner = np.unique(np.asarray(groups), return_inverse=True)[1]
        sizes = np.bincount(owner)
        if clients is not None and clients != len(sizes):
            raise ValueError(f"clients is {clients}, groups names {len(sizes)}: leave clients out")
        return Population(x, y, _table(np.argsort(owner, kind="stable"), sizes))
    clients, alpha, sigma = whole("clients", clients), real("alpha", alpha), real("sigma", sigma)
    least = clients * (whole("shards", shards) if scheme == "shards" else 1)
    if least > n:
        raise ValueError(f"{clients} clients need at least {least} records, there are {n}")
    sizes = np.full(clients, n // clients) + (np.arange(clients) < n % clients)
    order = rng.permutation(n)
    labels = y.cpu().numpy()
    if scheme == "dirichlet":
        order = _dirichlet(labels, order, sizes, alpha, rng)
    elif scheme == "shards":
        runs = np.array_split(order[np.argsort(labels[order], kind="stable")], clients * shards)
        dealt = rng.permutation(clients * shards).reshape(clients, shards)
        parts = [np.concatenate([runs[r] for r in row]) for row in dealt]
        order, sizes = np.concatenate(parts), np.array([len(p) for p in parts])
    elif scheme == "lognormal":
        share = rng.lognormal(sigma=sigma, size=clients)
        ends = np.floor(np.cumsum(share / share.sum()) * (n - clients) + 1e-9).astype(np.int64)
        ends[-1] = n - clients
        sizes = 1 + np.diff(ends, prepend=0)
    return Population(x, y, _table(order, sizes))


def _records(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if x.ndim < 1 or y.ndim != 1 or len(x) != len(y):
        shape, labels = tuple(x.shape), tuple(y.shape)
        raise ValueError(f"x has shape {shape} and y {labels}: give one label per record")
    if len(y) == 0:
        raise ValueError("there are no records: x and y are empty")
    x = x.float()
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.reshape(len(x), -1))).any(1).sum())
        raise ValueError(f"{bad} records of x hold NaN or infinity: remove or fill them first")
    odd = y[~((y >= 0) & (y == y.long()))]
    if len(odd):
        raise ValueError(f"y holds the label {odd[0].item()}: labels are whole numbers >= 0")
    return x, y.long()


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
    stock = [list(order[labels[order] == name]) for name in names]
    mixes = rng.dirichlet(alpha * len(names) * counts / len(labels), size=len(sizes))
    left, dealt = counts.copy(), []
    for mix, size in zip(mixes, sizes, strict=True):
        while size:
            weights = mix * (left > 0)
            if not weights.sum() > 0:  # the labels this client wanted are used up
                weights = left / left.sum()
            take = np.minimum(rng.multinomial(size, weights / weights.sum()), left)
            for label in take.nonzero()[0]:
                dealt += [stock[label].pop() for _ in range(take[label])]
            left, size = left - take, size - take.sum()
    return np.array(dealt)
