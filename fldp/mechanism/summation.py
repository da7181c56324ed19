"""Adding up the rows of many clients, with a bound on everything that rounding can do.

Why it matters. Each contribution is within C, but a floating-point sum is not the sum of its terms:
every addition rounds, by an amount that depends on what the others have sent. One client more or
less shifts the rows against one another, and every later rounding may change. So the bound is on
whole sums: if the computed sum F is within E of the exact sum S for every cohort, then neighbours
whose S differ by C' have sums F at most C' + 2E apart. `RunningSum.room` is 2E / C, and the clip
takes it off the clip norm beforehand. With that, what is added stays within C whatever the others
send. The exact sum S must move by one client's contribution alone, so a clip factor is a function
of its own row only, to the last bit, and is rounded to the rows' precision whichever way the rows
are added.

The bound. Adding k rows of norm at most C, in any order, is a binary tree with k leaves. An
addition rounds by at most u times the size of its result, u·C for each row below it, and each
product rounds by u·C. The tree with the largest sum is the chain: E <= u·C·k·(k + 3) / 2.

- Float32, u = 2^-24, where it pays: rows in groups, each such a tree, as long as their E together
  stays below `_UNITS` · u · C; or one group, where no more clients than fit into it can come.
- Float64, u = 2^-53, for the sum of the groups and for every other row: at most 4,096 + 512
  additions, in any order, make a running sum, and then it is added to the earlier ones. An addition
  rounds by u·C for each row that its running sum has, so over n rows, products and the last two
  additions included, E <= u·C·n·(4,096 + 512 + n / 4,096 + 3).

Terms of second order are below k·u < 2^-16 of the first bound, which is raised by as much, and
below a millionth of the second, which is doubled; underflow is far below either. For small models,
summed in float64, the room is 2 · 10^-7 for 10^5 clients; it is never above `ROUNDING` = 2^-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# The largest share of a clip norm that pays for the rounding of two neighbouring sums.
ROUNDING = 2.0**-10
# The most rows in one sum: with more, the float64 bound would outgrow its share of that.
MOST = 2**24

_UNITS = 7600
# One group of 121 rows uses them up: 121 · 124 / 2 = 7,502.
_LONGEST = 121
_TREE = 512
_PERIOD = 4096
# Shorter groups take longer to hand over than float64 takes, and so do groups of few elements.
_LEAST_GROUP, _LEAST_ELEMENTS = 4, 1 << 14
# Rounds of fewer elements cost microseconds in float64 as well, and need hardly any room there.
_LEAST_ROUND = 1 << 18
# What is converted to float64 at once stays in a cache of a megabyte, in runs of a few rows.
_BLOCK, _BLOCK_ROWS = 1 << 17, 8

Columns = Sequence[tuple[int, int, Tensor]]


def group_size(clients: int) -> int:
    """The longest float32 group that `clients` rows can afford; 0 when it would be too short.

    >>> group_size(100), group_size(1000), group_size(5000)
    (121, 12, 0)
    """
    group = min(2 * _UNITS // clients - 3, _LONGEST)
    if group < _LEAST_GROUP:
        return 0
    return group


def _cost(rows: int) -> float:
    """The bound for one group, in units of u·C."""
    return rows * (rows + 3) / 2


def _rounding(units: float, most: int) -> float:
    """2E / C: float32 groups of so many `units`, and float64 for up to `most` rows."""
    narrow = units * 2.0**-24 * (1 + 2.0**-16)
    wide = most * (_PERIOD + _TREE + most / _PERIOD + 3) * 2.0**-53
    return 2 * narrow + 2 * 2 * wide


class Sum(Protocol):
    """What a noise object starts for each round: a vector (d,) to which rows are added.

    Attributes
    ----------
    size : int
        d.
    like : Tensor
        An empty tensor with the dtype and the device of the rows.
    room : float
        The share of the clip norm that pays for what adding up may round.
    """

    size: int
    like: Tensor
    room: float

    def whole(self, rows: int) -> int:
        """A number of rows, near `rows`, that is fast to add at once."""
        ...

    def add_(self, rows: Tensor, columns: Columns) -> None:
        """Add the rows (c, d), each times its factors."""
        ...

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Coordinates `start` to `stop` of the sum so far, in float64."""
        ...

    def noisy_mean(self, draws: Iterable[Tensor], std: float, denominator: float) -> Tensor:
        """(sum + std · draws) / `denominator`; the sum is spent afterwards."""
        ...


class RunningSum:
    """The sum of factor x row over clients, one vector (d,), with the module's bound on rounding.

    The bound holds if every factor x row has norm at most C (1 - `room`), where C is a constant
    that need not be known here; for any rows in any order, however they are handed over.

    Parameters
    ----------
    size : int
        d, the number of coordinates.
    like : Tensor
        Empty, with the dtype (float32 or float64) and the device of the rows.
    clients : int
        How many rows to prepare for, a public number. It sets the length of the float32 groups;
        rows beyond it are as well bounded, and slower.
    most : int
        How many may come at all, a public number of at most `MOST`.

    Examples
    --------
    >>> total = RunningSum(2, torch.empty(0), clients=3, most=1000)
    >>> total.add_(torch.ones(3, 2), [(0, 2, torch.tensor([1.0, 0.5, 0.25]))])
    >>> total.read(0, 2).tolist()
    [1.75, 1.75]
    >>> total.room < 1e-8
    True
    >>> RunningSum(10**6, torch.empty(0), clients=3, most=1000).room < 1e-3
    True
    """

    def __init__(self, size: int, like: Tensor, clients: int, most: int = MOST) -> None:
        self.size = size
        self.like = like
        self._group = 0
        large = clients * size >= _LEAST_ROUND
        if large and like.dtype == torch.float32 and like.device.type == "cpu":
            self._group = group_size(clients)
        if self._group < clients and self._group * size < _LEAST_ELEMENTS:
            self._group = 0
        # A single float32 group holds whatever comes.
        self._single = most <= self._group
        units = 0.0
        if self._single:
            units = _cost(most)
        elif self._group:
            units = _UNITS
        self.room = _rounding(units, most)
        self._waiting = self._additions = 0
        self._spent = 0.0
        # The open float32 group, the running sum, and the sum of the earlier running sums.
        self._narrow: Tensor | None = None
        self._wide: Tensor | None = None
        self._far: Tensor | None = None
        self._scratch: Tensor | None = None

    def add_(self, rows: Tensor, columns: Columns) -> None:
        """Add the rows (c, d), each times its factor.

        `columns` holds (start, stop, factors (c,)) for consecutive ranges that cover 0 to d.
        """
        for part, each in _trees(rows, [(a, b, f.to(rows.dtype)) for a, b, f in columns]):
            count = part.shape[0]
            if self._group and not self._affords(count):
                self._settle()
                self._group = 0
            if self._group:
                self._add_narrow(part, count, each)
            else:
                self._add_wide(part, count, each)

    def add_parts_(self, parts: Sequence[Tensor], factor: float) -> None:
        """Add one row where it lies, in flat float32 parts that together have d entries.

        `factor` is a number of float32, as `add_` makes its own: which way a row is added depends
        on how many others there are, and what is added must not.
        """
        if self._group and not self._affords(1):
            self._settle()
            self._group = 0
        if self._group:
            total = self._open(1)
            if not self._waiting:
                total.zero_()
            self._waiting += 1
        else:
            total = self._running(1)
        places = total.split_with_sizes([part.shape[0] for part in parts])
        for place, part in zip(places, parts, strict=True):
            place.add_(part, alpha=factor)

    def _open(self, count: int) -> Tensor:
        """The open group, with room for so many more rows."""
        if self._waiting + count > self._group:
            self._settle()
        if self._narrow is None:
            self._narrow = _zeros(self.size, self.like)
        return self._narrow

    def _affords(self, count: int) -> bool:
        """Whether the float32 bound has room for so many more rows."""
        if self._waiting + count <= self._group:
            return self._spent + _cost(self._waiting + count) <= _UNITS
        whole, rest = divmod(count, self._group)
        more = _cost(self._waiting) + whole * _cost(self._group) + _cost(rest)
        return self._spent + more <= _UNITS

    def _add_narrow(self, rows: Tensor, count: int, columns: Columns) -> None:
        if self._waiting + count > self._group:
            self._settle()
        whole = count // self._group if count > self._group else 0
        cut = whole * self._group
        if whole:
            self._add_groups(whole, rows[:cut], [(a, b, f[:cut]) for a, b, f in columns])
        if cut == count:
            return
        if self._narrow is None:
            self._narrow = _zeros(self.size, self.like)
        keep = 1.0 if self._waiting else 0.0
        for start, stop, factors in columns:
            part = self._narrow[start:stop]
            part.addmv_(rows[cut:, start:stop].t(), factors[cut:], beta=keep)
        self._waiting += count - cut

    def _add_groups(self, whole: int, rows: Tensor, columns: Columns) -> None:
        """Add so many full groups, each summed in float32, to the running sum."""
        total = self._running(whole)
        for start, stop, factors in columns:
            groups = rows[:, start:stop].unflatten(0, (whole, self._group))
            sums = torch.bmm(factors.view(whole, 1, self._group), groups)
            for each in sums.unbind(0):
                self._widen(total[start:stop], each[0])
        self._spent += whole * _cost(self._group)

    def _settle(self) -> None:
        """Close the open group: add it to the running sum."""
        if self._narrow is not None and self._waiting:
            self._widen(self._running(1), self._narrow)
            self._spent += _cost(self._waiting)
            self._waiting = 0

    def _widen(self, total: Tensor, part: Tensor) -> None:
        """Add a float32 vector to a float64 one."""
        for start in range(0, part.shape[0], _BLOCK):
            here = total[start : start + _BLOCK]
            here.add_(self._converted(part[start : start + _BLOCK]))

    def _converted(self, part: Tensor) -> Tensor:
        """At most `_BLOCK` entries in float64, in memory that the next call overwrites.

        A new tensor each time would leave holes in the heap, which then grows by one a tile.
        """
        if part.dtype == torch.float64:
            return part
        if self._scratch is None:
            self._scratch = self.like.new_empty(min(_BLOCK, _TREE * self.size), dtype=torch.float64)
        return self._scratch[: part.numel()].view(part.shape).copy_(part)

    def whole(self, rows: int) -> int:
        """A number of rows near `rows` that fills whole groups, for who may choose."""
        if not self._group:
            return rows
        filled = self._group * round(rows / self._group)
        # Groups much longer than what was asked for would no longer be cheap.
        if 0 < filled <= 1.5 * rows:
            return filled
        return rows

    def _add_wide(self, rows: Tensor, count: int, columns: Columns) -> None:
        total = self._running(count)
        columns = [(start, stop, f.to(torch.float64)) for start, stop, f in columns]
        if count * self.size <= _BLOCK:
            self._add_block(total, 0, rows.to(torch.float64), columns)
            return
        height = max(_BLOCK_ROWS, _BLOCK // self.size)
        width = self.size if rows.dtype == torch.float64 else _BLOCK // height
        for first in range(0, count, height):
            tile = slice(first, first + height)
            here = [(start, stop, factors[tile]) for start, stop, factors in columns]
            for left in range(0, self.size, width):
                block = self._converted(rows[tile, left : left + width])
                self._add_block(total, left, block, here)

    def _add_block(self, total: Tensor, left: int, block: Tensor, columns: Columns) -> None:
        """Add float64 rows that hold the coordinates from `left` on."""
        right = left + block.shape[1]
        for start, stop, factors in columns:
            low = max(start, left)
            high = min(stop, right)
            if low < high:
                part = block[:, low - left : high - left]
                total[low:high].addmv_(part.t(), factors)

    def _running(self, additions: int) -> Tensor:
        """The running sum, about to take so many more additions."""
        if self._wide is None or self._additions >= _PERIOD:
            if self._wide is not None:
                self._far = self._wide if self._far is None else self._far.add_(self._wide)
            self._wide = _zeros(self.size, self.like.to(torch.float64))
            self._additions = 0
        self._additions += additions
        return self._wide

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Coordinates `start` to `stop` of the sum so far, a new float64 tensor."""
        narrow = self._narrow if self._waiting else None
        present = [p[start:stop] for p in (narrow, self._wide, self._far) if p is not None]
        if not present:
            return self.like.new_zeros(self.size, dtype=torch.float64)[start:stop]
        total = present[0].to(torch.float64, copy=True)
        for part in present[1:]:
            total.add_(part)
        return total

    def _spend(self, start: int, stop: int) -> Tensor:
        """As `read`, for the last time: without a copy where there is one vector of float64."""
        if self._wide is None or self._far is not None or self._waiting:
            return self.read(start, stop)
        return self._wide[start:stop]

    def noisy_mean(self, draws: Iterable[Tensor], std: float, denominator: float) -> Tensor:
        """(sum + std · draws) / `denominator`, in the rows' dtype; the sum is spent afterwards.

        `draws` are blocks that together have d entries. Nothing is rounded between the sum and the
        noise, and the operations are the same whoever came.
        """
        spare = self._narrow if self.like.dtype == torch.float32 else self._wide
        out = _zeros(self.size, self.like) if spare is None else spare
        start = 0
        for block in draws:
            stop = start + block.shape[0]
            if self._single:
                out[start:stop].add_(block.to(out.device), alpha=std).div_(denominator)
            else:
                part = self._spend(start, stop).add_(block.to(out.device), alpha=std)
                out[start:stop] = part.div_(denominator)
            start = stop
        return out


def _trees(rows: Tensor, columns: Columns) -> Iterator[tuple[Tensor, Columns]]:
    """Rows and their factors, at most `_TREE` at a time."""
    if rows.shape[0] <= _TREE:
        yield rows, columns
        return
    for first in range(0, rows.shape[0], _TREE):
        part = slice(first, first + _TREE)
        yield rows[part], [(start, stop, factors[part]) for start, stop, factors in columns]


def _zeros(size: int, like: Tensor) -> Tensor:
    if like.device.type == "cpu":
        # numpy asks for huge pages: touching 40 MB for the first time costs 5 ms, not 22.
        return torch.from_numpy(np.zeros(size, str(like.dtype).removeprefix("torch.")))
    return torch.zeros(size, dtype=like.dtype, device=like.device)
