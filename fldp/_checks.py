"""Checks of what callers pass in: a ValueError says what is wrong, the value and what to give."""

from __future__ import annotations

import inspect
import math
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

_P = ParamSpec("_P")
_R = TypeVar("_R")

# A truth value, a text or a time is no number, whatever float() makes of it; nor is half a number.
_NO_NUMBER = (bool, np.bool_, str, bytes, np.timedelta64, complex, np.complexfloating)

# The largest count: every whole number up to 9e15 is exact as a float; nothing that is counted here
# (clients, rounds, records) comes near, and beyond it arithmetic overflows in odd places.
MOST = 10**15
# From here on a zCDP parameter says nothing: epsilon is larger still.
MOST_RHO = 1e9

# What a message shows of a value.
_SHOWN = 60


def shown(value: Any) -> str:
    """`value` for a message: its repr, cut short.

    Parameters
    ----------
    value
        Anything, also what has no repr, such as a number with thousands of digits.

    Returns
    -------
    str
        At most 60 characters.

    Examples
    --------
    >>> shown("x" * 100)[-6:]
    'xxx...'
    """
    try:
        text = repr(value)
    except Exception:  # a broken repr must not hide the message
        text = f"a {type(value).__name__} that cannot be shown"
    if "\n" in text:
        # A message is one sentence.
        text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def whole(name: str, value: Any, low: int = 1) -> int:
    """`value` as an int of at least `low` and at most `MOST`.

    Parameters
    ----------
    name
        Of the argument, for the message.
    value
        What a caller gave.
    low
        The smallest that is allowed.

    Returns
    -------
    int
        Exactly `value`.

    Raises
    ------
    ValueError
        For anything else, a truth value or a text included.

    Examples
    --------
    >>> whole("rounds", 60.0)
    60
    """
    try:
        if isinstance(value, _NO_NUMBER) or int(value) != value or not low <= value <= MOST:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = f"give a whole number >= {low}"
        if isinstance(value, int | float) and value > MOST:
            wanted += f" and at most {MOST:.0e}"
        raise ValueError(f"{name} is {shown(value)}: {wanted}") from None
    return int(value)


def real(name: str, value: Any, high: float = math.inf) -> float:
    """`value` as a float strictly between 0 and `high`.

    Parameters
    ----------
    name
        Of the argument, for the message.
    value
        What a caller gave.
    high
        By default infinity: finite is enough.

    Returns
    -------
    float
        The nearest to `value`.

    Raises
    ------
    ValueError
        For anything else, a truth value or a text included.

    Examples
    --------
    >>> real("epsilon", 8)
    8.0
    """
    try:
        if isinstance(value, _NO_NUMBER) or not 0 < float(value) < high:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        where = f"in (0, {high:g})" if high < math.inf else "> 0 and finite"
        raise ValueError(f"{name} is {shown(value)}: give a number {where}") from None
    return float(value)


def between(name: str, value: Any, high: float = 1.0) -> float:
    """`value` as a float from 0 to `high`, ends included (infinity excluded).

    Parameters
    ----------
    name
        Of the argument, for the message.
    value
        What a caller gave.
    high
        The largest that is allowed.

    Returns
    -------
    float
        The nearest to `value`.

    Raises
    ------
    ValueError
        For anything else, a truth value or a text included.

    Examples
    --------
    >>> between("delta", 0)
    0.0
    """
    try:
        if isinstance(value, _NO_NUMBER) or not 0 <= float(value) <= high:
            raise ValueError
        if math.isinf(float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        where = f"in [0, {high:g}]" if high < math.inf else ">= 0 and finite"
        raise ValueError(f"{name} is {shown(value)}: give a number {where}") from None
    return float(value)


def listed(name: str, values: Any) -> list[Any]:
    """`values` as a list.

    Parameters
    ----------
    name
        Of the argument, for the message.
    values
        What a caller gave; its entries are not looked at.

    Returns
    -------
    list
        Its entries.

    Raises
    ------
    ValueError
        For what has no entries, and for a text, whose entries nobody means.

    Examples
    --------
    >>> listed("orders", (2, 3))
    [2, 3]
    """
    if isinstance(values, str | bytes | dict):
        raise ValueError(f"{name} is {shown(values)}: give a list of numbers")
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name} is {shown(values)}: give a list of numbers") from None


def sizes_of_clients(values: ArrayLike) -> NDArray[Any]:
    """The sizes of clients as an array, else a ValueError that names the client.

    Parameters
    ----------
    values
        A whole number of records for each client.

    Returns
    -------
    array
        As given, of shape (clients,).

    Raises
    ------
    ValueError
        For what is no list of numbers, for none at all, and for a size that is none.

    Examples
    --------
    >>> sizes_of_clients([3, 4.0]).shape
    (2,)
    """
    try:
        given = np.asarray(values)
    except ValueError:  # ragged
        raise ValueError(f"client_sizes is {shown(values)}: give one number per client") from None
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iuf":
        raise ValueError(f"client_sizes has shape {given.shape}: give one number per client")
    wrong = np.flatnonzero(~((given >= 1) & (given <= MOST) & (given == np.floor(given))))
    if wrong.size:
        raise ValueError(f"client {wrong[0]} has size {given[wrong[0]]}: give a whole number >= 1")
    return given


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of `allowed`.

    Parameters
    ----------
    name
        Of the argument, for the message.
    value
        What a caller gave.
    allowed
        What there is.

    Returns
    -------
    str
        `value`.

    Raises
    ------
    ValueError
        It lists what there is.

    Examples
    --------
    >>> choice("trust", "local", ("central", "local"))
    'local'
    """
    if not isinstance(value, str) or value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} is {shown(value)}: choose one of {options}")
    return str(value)


def check_takes(name: str, function: Any, arguments: str, count: int) -> None:
    """ValueError unless `function` can be called with `count` arguments.

    Parameters
    ----------
    name
        Of the argument, for the message.
    function
        What a caller gave.
    arguments
        What it will be called with, in words.
    count
        How many these are.

    Raises
    ------
    ValueError
        Also for a class, which is called to make an object.

    Examples
    --------
    >>> check_takes("fn", max, "(model, x, y)", 3)
    """
    try:
        if isinstance(function, type):
            raise TypeError("a class")
        inspect.signature(function).bind(*[None] * count)
    except TypeError as error:
        told = f"{shown(function)} ({error})"
        raise ValueError(f"{name} is {told}: give a function of {arguments}") from None
    except ValueError:  # a function written in C may not tell what it takes
        pass
