"""To whom records belong: ids of any kind as numbers of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fldp._checks import shown
from fldp.simulation.inputs import is_missing, length

# Kinds of numpy's types that sort by themselves: numbers, times and texts.
_SORTED = "biufmMSU"
# Of numpy's real numbers and times: those that can be missing.
_MAY_MISS = "fmM"

# A column: a tensor, an array, a list, a Series of pandas.
Ids = Sequence[object] | np.ndarray | Tensor


def owners(groups: Ids | None, records: int) -> tuple[np.ndarray, np.ndarray]:
    """A client for each distinct id: who holds each record, and how many each holds.

    Clients are numbered in the order of their ids; ids of several types are ordered by the name of
    the type first, and where even one type has no order, by what `repr` says of them.

    Parameters
    ----------
    groups : sequence, array or Tensor
        An id for each record (n,): numbers, texts, tuples, times, or a mix.
    records : int
        n.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        The client of each record (n,), and the clients' sizes (N,).

    Raises
    ------
    ValueError
        For another number of ids than of records, for missing ones, and for ids that are not
        hashable.

    Examples
    --------
    >>> owners(["b", 1, "b", ("a", 2)], 4)[0].tolist()
    [1, 0, 1, 2]
    """
    size = length(groups)
    if groups is None or size != records:
        raise ValueError(f"groups has length {size}: give one group per record, {records} in all")
    ids = _column(groups)
    if isinstance(ids, np.ndarray):
        missing = int((ids != ids).sum()) if ids.dtype.kind in _MAY_MISS else 0
    else:
        missing = sum(map(is_missing, ids))
    if missing:
        raise ValueError(
            f"{missing} records have no group (None or NaN): give them one, or leave them out"
        )
    if isinstance(ids, np.ndarray):
        owner = np.unique(ids, return_inverse=True)[1].reshape(-1)
    else:
        owner = _numbered(ids)
    return owner, np.bincount(owner)


def _column(groups: Any) -> np.ndarray | list[object]:
    """The ids as an array that sorts by itself, or as a list of whatever they are."""
    if isinstance(groups, Tensor):
        groups = groups.detach().cpu().numpy()
    elif hasattr(groups, "to_numpy"):
        groups = groups.to_numpy()
    if isinstance(groups, np.ndarray):
        if groups.ndim != 1:
            raise ValueError(
                f"groups has shape {groups.shape}: give one id per record, a tuple where it has "
                "several parts"
            )
        if groups.dtype.kind in _SORTED:
            return groups
        return groups.tolist()
    return [_plain(value) for value in groups]


def _plain(value: Any) -> Any:
    """A tensor of one number as that number: tensors are equal to themselves alone."""
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def _numbered(ids: list[object]) -> np.ndarray:
    """The place of each id among the distinct ones."""
    try:
        distinct = [*dict.fromkeys(ids)]
        if not all(map(_is_hashable, distinct)):
            raise TypeError
    except Exception:  # whatever a stranger's object raises when it is hashed or compared
        odd = next((value for value in ids if not _is_hashable(value)), ids[0])
        raise ValueError(
            f"groups holds {shown(odd)}, a {type(odd).__name__}: an id must be hashable and equal "
            "to itself by value; give a text, a number or a tuple"
        ) from None
    place = {value: number for number, value in enumerate(_ordered(distinct))}
    return np.array([place[value] for value in ids], dtype=np.int64)


def _is_hashable(value: object) -> bool:
    """Whether an id has a hash, and one of its value: that of a tensor is of the object."""
    if isinstance(value, Tensor):
        return False
    if isinstance(value, tuple):
        return all(map(_is_hashable, value))
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _ordered(distinct: list[Any]) -> list[Any]:
    try:
        return sorted(distinct)
    except TypeError:
        pass

    def name(value: object) -> str:
        return type(value).__name__

    try:
        return sorted(distinct, key=lambda value: (name(value), value))
    except TypeError:
        return sorted(distinct, key=lambda value: (name(value), repr(value)))
