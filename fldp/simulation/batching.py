"""The steps of a chunk of clients: each one's own shuffle, cut into batches of one width."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fldp.simulation.inputs import Records, cast, take

if TYPE_CHECKING:
    from fldp.simulation.local import Task

# A shuffle's counter has room for this many words of a client in an epoch.
_EPOCH = 1 << 32
# Times the median from which a client is too large to be padded to with others: below it, padding
# costs less than more chunks do.
_FAR = 8
# Sorts after every 63-bit word: where a shuffle puts padding.
_LAST = torch.iinfo(torch.int64).max


class Batch(NamedTuple):
    """The records of a step of k clients, the first of which is `first` in its chunk.

    x (k, B, ...), y (k, B, ...), and what each counts, `share` (k, B). `number` is that of the
    batch among a client's own in an epoch.
    """

    x: Records
    y: Tensor
    share: Tensor
    first: int
    number: int


def usual(sizes: Tensor) -> int:
    """The largest size; or the median, where the largest is far above it.

    Parameters
    ----------
    sizes : Tensor
        Records of each client (c,), at least one.

    Returns
    -------
    int
    """
    largest = int(sizes.max())
    median = int(sizes.median())
    return median if largest > _FAR * median else largest


def lengths(sizes: list[int], clients: int, records: int) -> list[int]:
    """How many neighbours to put together: at most `clients`, and `records` with their padding.

    Parameters
    ----------
    sizes : list of int
        Records of each client, in the order in which they train.
    clients, records : int
        The most of each.

    Returns
    -------
    list of int
        Their sum is the number of clients.

    Examples
    --------
    >>> lengths([2, 2, 9, 1], clients=3, records=8)
    [2, 1, 1]
    """
    lengths = []
    together = 0
    widest = 0
    for size in sizes:
        widest = max(widest, size)
        if together and (together == clients or (together + 1) * widest > records):
            lengths.append(together)
            together = 0
            widest = size
        together += 1
    return [*lengths, together]


def shuffled(
    task: Task, clients: Tensor, records: Tensor, sizes: Tensor, batch: int, epoch: int
) -> Tensor:
    """`records`, client after client, each client's own in the order of its own shuffle.

    Who needs one batch keeps its order, whatever the others need. Clients come largest first: a
    table for those of similar size has little padding.

    Parameters
    ----------
    task : Task
        The round, whose keyed draws give every client a shuffle of its own.
    clients : Tensor
        Their numbers (c,), largest first.
    records : Tensor
        Numbers of their records, client after client.
    sizes : Tensor
        Records of each (c,).
    batch : int
        Records in a step.
    epoch : int
        Counted from 0.

    Returns
    -------
    Tensor
        As long as `records`.
    """
    begin = sizes.cumsum(0) - sizes
    order = records.clone()
    first = 0
    several = int((sizes > batch).sum())
    while first < several:
        width = int(sizes[first])
        alike = slice(first, min(several, int((2 * sizes > width).sum())))
        inside = torch.arange(width) < sizes[alike].unsqueeze(1)
        start = begin[alike].unsqueeze(1)
        ids = clients[alike].numpy()
        words = task.draws.words("shuffle", task.round, ids, width, epoch * _EPOCH)
        # 63 bits, so that none is negative as torch's signed type.
        keys = torch.from_numpy((words >> np.uint64(1)).view(np.int64))
        drawn = start + keys.masked_fill_(~inside, _LAST).argsort(1)
        places = start + torch.arange(width)
        order[places[inside]] = records[drawn[inside]]
        first = alike.stop
    return order


def batches(
    task: Task, order: Tensor, begin: Tensor, sizes: list[int], most: int
) -> Iterator[Batch]:
    """Batches of at most `most` records, in `order`, of the clients that still have any.

    Parameters
    ----------
    task : Task
        The round.
    order : Tensor
        Numbers of records, client after client.
    begin : Tensor
        Where each client's begin in it (c,).
    sizes : list of int
        Records of each, largest first.
    most : int
        Records in a step.

    Yields
    ------
    Batch
        Where padding cannot be left out of the loss, of clients whose batches are of one length.
    """
    for start in range(0, sizes[0], most):
        left = [min(size - start, most) for size in sizes if size > start]
        first = 0
        for alike in _together(left, task.objective.pads):
            places = begin[first : first + len(alike)] + start
            yield _batch(task, order, places, alike, first)._replace(number=start // most)
            first += len(alike)


def _together(left: list[int], pads: bool) -> list[list[int]]:
    """Neighbours whose batches are one: all of them, or those of one length without padding."""
    if pads:
        return [left]
    return [list(group) for _, group in itertools.groupby(left)]


def _batch(task: Task, order: Tensor, places: Tensor, left: list[int], first: int) -> Batch:
    """The next left[i] records of each client i, falling in i: in `order` from places[i] on."""
    flat = task.flat
    wide = left[0]
    share = flat.new_full((len(left), wide), 1 / wide)
    steps = torch.arange(wide).expand(len(left), wide)
    if left[-1] < wide:
        counts = torch.tensor(left).unsqueeze(1)
        inside = steps < counts
        share = inside.to(flat) / counts.to(flat)
        # Another record might overflow here, and 0 · NaN is NaN: with a larger client
        # in the chunk, and so with padding, this client's update would be lost.
        steps = steps * inside
    picked = order[places.unsqueeze(1) + steps].to(task.population.device)
    x = cast(take(task.population.x, picked), task.like)
    y = task.population.y[picked].to(flat.device)
    return Batch(x, y, share, first, 0)
