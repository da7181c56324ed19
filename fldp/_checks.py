"""Checks of what callers pass in: a ValueError says what is wrong, the value and what to give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FIXED = (
    "when a client leaves, another moves up, the sum moves by up to 2C, and no proved accountant "
    "exists; use adjacency='replace-one', or sampling='poisson'"
)
KNOWN = (
    "the server sees who took part, and the noise itself tells how many, so nothing hides that a "
    "client was there; use adjacency='zero-out', which hides what it sent, or 'replace-one'"
)
SURVIVORS = (
    "state the fewest honest clients whose noise arrives in a released round (with fewer, nothing "
    "is released)"
)


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


def listed(name: str, values: Any) -> list[Any]:
    """`values` as a list, else a ValueError."""
    if isinstance(values, str | bytes | dict):
        raise ValueError(f"{name} is {shown(values)}: give a list of numbers")
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name} is {shown(values)}: give a list of numbers") from None


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
    accountant: str,
    cap: int | None,
    survivors: int | None,
    **_: Any,
) -> None:
    """ValueError for settings of a plan that do not go together."""
    problem = (
        _cohort_problem(clients, cohort, sampling, cap)
        or _adjacency_problem(sampling, trust, adjacency, accountant)
        or _survivors_problem(cohort, trust, survivors)
    )
    if problem:
        raise ValueError(problem)


def _cohort_problem(clients: int, cohort: float, sampling: str, cap: int | None) -> str:
    m = f"{cohort:.10g}"
    if cohort > clients:
        return f"cohort is {m} but there are {clients} clients: give at most that many"
    if sampling == "fixed" and cohort != int(cohort):
        return f"cohort is {m}: with sampling='fixed' give a whole number"
    if cap is not None and sampling != "poisson":
        return f"cap is {cap} with sampling={sampling!r}: a cap belongs to sampling='poisson'"
    if cap is not None and cap < cohort:
        return f"cap is {cap}, below the cohort {m}: m + 5√m costs next to nothing"
    return ""


def _adjacency_problem(sampling: str, trust: str, adjacency: str, accountant: str) -> str:
    if trust != "central" and adjacency == "add-or-remove":
        return f"adjacency is 'add-or-remove' with trust={trust!r}: {KNOWN}"
    if trust == "central" and sampling == "fixed" and adjacency != "replace-one":
        return f"adjacency is {adjacency!r} with sampling='fixed': {FIXED}"
    if trust == "distributed" and sampling != "none" and accountant != "pld":
        return (
            f"accountant is {accountant!r} with trust='distributed': it has no adversary who knows "
            "who took part; use accountant='pld', or sampling='none'"
        )
    return ""


def _survivors_problem(cohort: float, trust: str, survivors: int | None) -> str:
    shared = trust == "distributed"
    if shared and survivors is None:
        # a fifth of the cohort may drop out
        example = max(1, int(0.8 * cohort))
        return f"survivors is None with trust='distributed': {SURVIVORS}, e.g. {example}"
    if survivors is not None and not shared:
        return f"survivors is {survivors} with trust={trust!r}: it belongs to 'distributed'"
    if survivors is not None and survivors > cohort:
        return f"survivors is {survivors}, above the cohort {cohort:.10g}: give fewer"
    return ""
