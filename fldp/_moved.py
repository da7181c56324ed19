"""Module paths, names and keywords of version 0.1, for one version more.

`fldp.clients` and `fldp.attacks` are short for good; anything else that is old warns.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind")

SHORT = {"clients": "simulation.clients", "attacks": "audit.attacks"}
# Modules that only moved to a floor.
_FLOORS = {
    "accounting": (
        "account binomial calibration composition curve divergences events exchange gaussian "
        "gaussian_pairs guide laws opacus pairs pld search"
    ),
    "plan": "chain extrapolation files ledger records statement",
    "mechanism": "aggregation clipping intake noise reference release summation",
    "simulation": (
        "checkpoint draws engines history isolation local rounds sampling server setting stacked "
        "training"
    ),
    "audit": (
        "bounds canaries findings limits membership neighbours pipelines scores "
        "trainings trials verify"
    ),
}
# Modules that also changed their names.
_RENAMED = {
    "checks": "_checks",
    "report": "_text",
    "torchvision_compat": "datasets",
    "parameters": "mechanism.updates",
    "baselines": "simulation.dpsgd",
    "one_run": "audit.coins",
    "one_shot": "audit.cosines",
}
OLD = _RENAMED | {
    name: f"{floor}.{name}" for floor, names in _FLOORS.items() for name in names.split()
}


class OldPaths(MetaPathFinder, Loader):
    """Finds `fldp.<old>` and puts the module that is there now in its place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "fldp" or name not in SHORT | OLD:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.partition(".")[2]
        if name in OLD:
            warn_of_name(f"fldp.{name}", f"fldp.{OLD[name]}")
        place = (SHORT | OLD)[name]
        # The import system takes what stands here when this returns.
        sys.modules[module.__name__] = importlib.import_module(f"fldp.{place}")

    def get_code(self, fullname: str) -> None:
        """What `python -m` asks for: an ImportError's words are all that it prints."""
        name = fullname.partition(".")[2]
        raise ImportError(
            f"{fullname} is fldp.{(SHORT | OLD)[name]}, to import and not to run; python -m fldp "
            "lists the commands"
        )


def install() -> None:
    """Make old paths importable."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldPaths())


def warn_of_name(old: str, new: str, stacklevel: int = 3) -> None:
    """A DeprecationWarning that `old` is `new` now.

    Parameters
    ----------
    old, new
        The two names.
    stacklevel
        Which line is named, as `warnings.warn` counts; 3: that which called our caller.
    """
    warnings.warn(
        f"{old} is {new} now; the old name goes with the next version",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: keywords of a function under their old names, for one version, with a warning.

    Signature and types are those of the new names alone.

    Parameters
    ----------
    **names
        Old keyword -> new keyword.

    Returns
    -------
    function
        The decorator.

    Examples
    --------
    >>> import inspect
    >>> @renamed(colour="color")
    ... def paint(color: str = "grey") -> str:
    ...     return color
    >>> list(inspect.signature(paint).parameters), paint(color="red")
    (['color'], 'red')
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            for old, new in names.items():
                if old not in keywords:
                    continue
                if new in keywords:
                    raise ValueError(f"{old} is the old name of {new}: give the new one alone")
                warn_of_name(old, new)
                keywords[new] = keywords.pop(old)
            return function(*args, **keywords)

        return call

    return wrap


def fields(**names: str) -> Callable[[type[Kind]], type[Kind]]:
    """`renamed` for the arguments of a class, which can be read under their old names as well.

    Parameters
    ----------
    **names
        Old keyword -> new keyword.

    Returns
    -------
    function
        A decorator of a class.
    """

    def decorate(kind: type[Kind]) -> type[Kind]:
        # setattr: a type checker sees the new names only.
        setattr(kind, "__init__", renamed(**names)(kind.__init__))  # noqa: B010
        for old, new in names.items():
            setattr(kind, old, property(functools.partial(_field, old=old, new=new)))
        return kind

    return decorate


def _field(owner: object, old: str, new: str) -> Any:
    warn_of_name(old, new)
    return getattr(owner, new)


def find(package: str, name: str, places: Mapping[str, str]) -> Any:
    """What a name of version 0.1 stands for, with a warning; AttributeError for any other name.

    Parameters
    ----------
    package
        Where the old name was looked up, for the message.
    name
        The name.
    places
        Old name -> "module.name" within fldp.

    Returns
    -------
    object
        What is there now.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, new = places[name].rpartition(".")
    # Between this function and the code that used the name stands the module's `__getattr__`.
    warn_of_name(f"{package}.{name}", f"fldp.{places[name]}", stacklevel=4)
    return getattr(importlib.import_module(f"fldp.{module}"), new)
