"""Names of what is trained: parameters, whole modules, or patterns of either."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

# Names of parameters that a message lists.
_SHOWN_NAMES = 12


def are_names(wanted: object) -> bool:
    """Whether `wanted` is None or a sequence of strings.

    Parameters
    ----------
    wanted : object
        What somebody gave as names.

    Returns
    -------
    bool
    """
    if wanted is None:
        return True
    return isinstance(wanted, Sequence) and all(isinstance(one, str) for one in wanted)


def names(wanted: str, name: str) -> bool:
    """Whether `wanted` is the parameter `name`, or a module that it is in.

    Parameters
    ----------
    wanted : str
        A name of either, exactly; or a pattern with `*` and `?`.
    name : str
        Of a parameter.

    Returns
    -------
    bool

    Examples
    --------
    >>> names("layer1", "layer1.weight"), names("layer1", "layer10.weight")
    (True, False)
    """
    exact = wanted.rstrip(".")
    return fnmatchcase(name, exact) or fnmatchcase(name, f"{exact}.*")


def check_name(wanted: str, model: nn.Module) -> None:
    """ValueError with the names that there are where `wanted` names nothing that trains.

    Parameters
    ----------
    wanted : str
        As for `names`.
    model : nn.Module
        Whose parameters are meant.

    Raises
    ------
    ValueError
    """
    there = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if any(names(wanted, name) for name in there):
        return
    if any(names(wanted, name) for name, _ in model.named_parameters()):
        raise ValueError(
            f"trainable names {wanted!r}, which is frozen: call requires_grad_(True) on it, or "
            "leave it out"
        )
    told = ", ".join(itertools.islice(there, _SHOWN_NAMES))
    more = f" and {len(there) - _SHOWN_NAMES} more" if len(there) > _SHOWN_NAMES else ""
    raise ValueError(f"trainable names {wanted!r}, and the model has {told}{more} to train")
