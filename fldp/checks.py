"""Checks of what callers pass in: a ValueError says what is wrong, the value and what to give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FIXED = (
    "when a client leaves, another moves up, the sum moves by up to 2C, and no proved accountant "
    "exists; use adjacency='replace-one', or sampling='poisson'"
)
SURVIVORS = (
    "state the fewest honest clients whose noise arrives in a released round (with fewer, nothing "
    "is released)"
)


# A truth value or a text is no number, whatever float() makes of it.
_NO_NUMBER = (bool, np.bool_, str, bytes)

# The largest count: every whole number up to 9e15 is exact as a float; nothing that is counted here
# (clients, rounds, records) comes near, and beyond it arithmetic overflows in odd places.
MOST = 10**15

# What a message shows of a value.
_SHOWN = 60


def shown(value: Any) -> str:
    """`value` for a message: its repr, cut short; numbers with thousands of digits have none."""
    try:
        text = repr(value)
    except Exception:  # a broken repr must not hide the message
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def whole(name: str, value: Any, low: int = 1) -> int:
    """`value` as an int of at least `low` and at most `MOST`, else a ValueError."""
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
    """`value` as a float strictly between 0 and `high`, else a ValueError."""
    try:
        if isinstance(value, _NO_NUMBER) or not 0 < float(value) < high:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        where = f"in (0, {high:g})" if high < math.inf else "> 0 and finite"
        raise ValueError(f"{name} is {shown(value)}: give a number {where}") from None
    return float(value)


def between(name: str, value: Any, high: float = 1.0) -> float:
    """`value` as a float from 0 to `high`, ends included (infinity excluded), else a ValueError."""
    try:
        if isinstance(value, _NO_NUMBER) or not 0 <= float(value) <= high:
            raise ValueError
        if math.isinf(float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        where = f"in [0, {high:g}]" if high < math.inf else ">= 0 and finite"
        raise ValueError(f"{name} is {shown(value)}: give a number {where}") from None
    return float(value)


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of `allowed`, else a ValueError that lists them."""
    if not isinstance(value, str) or value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} is {shown(value)}: choose one of {options}")
    return str(value)


def consistent(
    clients: int,
    cohort: float,
    sampling: str,
    trust: str,
    adjacency: str,
    cap: int | None,
    survivors: int | None,
    **_: Any,
) -> None:
    """ValueError for settings of a plan that do not go together."""
    m, shared, problem = f"{cohort:g}", trust == "distributed", ""
    if cohort > clients:
        problem = f"cohort is {m} but there are {clients} clients: give at most that many"
    elif sampling == "fixed" and cohort != int(cohort):
        problem = f"cohort is {m}: with sampling='fixed' give a whole number"
    elif sampling == "fixed" and adjacency != "replace-one":
        problem = f"adjacency is {adjacency!r} with sampling='fixed': {FIXED}"
    elif cap is not None and sampling != "poisson":
        problem = f"cap is {cap} with sampling={sampling!r}: a cap belongs to sampling='poisson'"
    elif cap is not None and cap < cohort:
        problem = f"cap is {cap}, below the cohort {m}: m + 5√m costs next to nothing"
    elif shared and survivors is None:
        example = max(1, int(0.8 * cohort))
        problem = f"survivors is None with trust='distributed': {SURVIVORS}, e.g. {example}"
    elif survivors is not None and not shared:
        problem = f"survivors is {survivors} with trust={trust!r}: it belongs to 'distributed'"
    elif survivors is not None and survivors > cohort:
        problem = f"survivors is {survivors}, above the cohort {m}: give fewer"
    if problem:
        raise ValueError(problem)
