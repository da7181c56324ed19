"""Names of a package that are imported when first used.

So `import fldp` stays fast, and what needs no torch loads none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, names: Mapping[str, str], modules: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """A `__getattr__` for a package (PEP 562).

    Parameters
    ----------
    package
        Its full name.
    names
        Public name -> the module, relative to the package, that defines it.
    modules
        Public module -> where it is, relative to the package.

    Returns
    -------
    function
        From a name to what it stands for; AttributeError for any other.
    """
    places = dict(modules or {})

    def find(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        if name in places:
            return importlib.import_module(f"{package}.{places[name]}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
