"""What comes with an update: who sent it, and how much it counts."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
from torch import Tensor

from fldp._checks import shown
from fldp.plan.client import PrivacyPlan

# Caps beyond these would take products with a clip norm out of float32's range.
_SMALLEST_CAP, _LARGEST_CAP = 1e-9, 1e9


def check_plan(plan: object) -> None:
    """ValueError for what is no plan."""
    if not isinstance(plan, PrivacyPlan):
        raise ValueError(f"plan is {shown(plan)}: give a PrivacyPlan, as fldp.calibrate makes it")


def check_weights(cap: float | None, total: float | None) -> tuple[float | None, float | None]:
    """A weight cap and a total of weights; ValueError unless they are numbers of usable size."""
    cap = check_cap(cap)
    total = _positive(total)
    if total is not None and cap is None:
        raise ValueError("weight_total is a sum of capped weights: give weight_cap as well")
    return cap, total


def check_cap(cap: float | None) -> float | None:
    """A weight cap, or None; ValueError unless it is a public number of usable size."""
    cap = _positive(cap)
    if cap is not None and not _SMALLEST_CAP <= cap <= _LARGEST_CAP:
        raise ValueError(
            f"weight_cap is {cap!r}: give a number from {_SMALLEST_CAP} to {_LARGEST_CAP}, and "
            "weights in the same unit"
        )
    return cap


def _positive(value: float | None) -> float | None:
    """A positive number in double precision, whatever it came in: noise follows from it."""
    if value is None:
        return None
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"give weights a positive public number, not {value!r}")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))


def identifiers(client: Any, count: int) -> list[Hashable]:
    """`client` as `count` identifiers, or none for None; ValueError for any other number."""
    if client is None:
        return []
    if isinstance(client, (Tensor, np.ndarray)):
        client = client.tolist()
    # A tuple is the identifier of one client, or several of them where there are several rows.
    several = isinstance(client, list) or (count > 1 and isinstance(client, (tuple, range)))
    names = [_plain(name) for name in (client if several else [client])]
    if len(names) != count:
        raise ValueError(f"{len(names)} client identifiers for {count} updates: give one for each")
    return names


def as_numbers(weights: Any) -> list[float]:
    """`weights` as numbers, else a ValueError."""
    try:
        return [float(w) for w in weights]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"weights are {weights!r}: give one number for each update") from error


def check_equal(weights: list[float]) -> None:
    """ValueError unless all weights are one positive number: then the mean is the plain one."""
    if len(set(weights)) > 1:
        raise ValueError("unequal weights need a public weight_cap: it sets the noise")
    if weights and not 0 < weights[0] < math.inf:
        raise ValueError(f"weights are all {weights[0]}: give positive numbers, or leave them out")


def twice(names: list[Hashable], seen: set[Hashable]) -> Hashable | None:
    """The first of `names` that has been seen already, or comes again; None if none does."""
    met: set[Hashable] = set()
    for name in names:
        if name in seen or name in met:
            return name
        met.add(name)
    return None


def _plain(name: object) -> Hashable:
    """An identifier that equals itself and can be looked up; ValueError otherwise."""
    if isinstance(name, (Tensor, np.generic)):
        name = name.tolist()
    try:
        hash(name)
        usable = bool(name == name)
    except TypeError:
        usable = False
    if not usable:
        raise ValueError(f"{name!r} cannot identify a client: give a number or a name")
    return name
