"""The API page names everything public, and every argument of it is documented."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import fldp
import fldp.audit

PAGE = (Path(fldp.__file__).parent.parent / "book" / "api.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^\.\. auto(?:function|class):: ([\w.]+)$", PAGE, flags=re.MULTILINE)


def found(name: str) -> Any:
    """What a full name on the page stands for."""
    owner, _, last = name.rpartition(".")
    place: Any = fldp
    for part in owner.split(".")[1:]:
        try:
            place = getattr(place, part)
        except AttributeError:
            place = importlib.import_module(f"{place.__name__}.{part}")
    return getattr(place, last)


def undocumented(call: Any) -> list[str]:
    """The arguments that no line of a docstring's Parameters or Attributes section names."""
    lines = (inspect.getdoc(call) or "").splitlines()
    told: set[str] = set()
    for line in lines:
        head = line.partition(" : ")[0]
        if re.fullmatch(r"\*{0,2}\w+(, \*{0,2}\w+)*", head):
            told |= {name.strip("* ") for name in head.split(",")}
    asked = [name for name in inspect.signature(call).parameters if name != "self"]
    return [name for name in asked if name not in told]


def test_everything_public_is_on_the_page() -> None:
    faces = {"fldp": fldp, "fldp.accounting": fldp.accounting, "fldp.audit": fldp.audit}
    own = {f"fldp.{name}" for name in fldp.__all__}
    for prefix, face in faces.items():
        for name in face.__all__:
            value = getattr(face, name)
            if isinstance(value, ModuleType) or not callable(value):
                continue
            if f"fldp.{name}" in own and prefix != "fldp" and found(f"fldp.{name}") is value:
                continue
            assert f"{prefix}.{name}" in NAMED, f"{prefix}.{name} is not on the API page"


@pytest.mark.parametrize("name", NAMED)
def test_every_argument_is_documented(name: str) -> None:
    assert undocumented(found(name)) == []


@pytest.mark.parametrize("name", [n for n in NAMED if inspect.isclass(found(n))])
def test_every_argument_of_a_public_method_is_documented(name: str) -> None:
    shown = re.search(rf":: {re.escape(name)}\n   :members:(.*)$", PAGE, flags=re.MULTILINE)
    if shown is None:
        return
    methods = {n: m for n, m in vars(found(name)).items() if isinstance(m, FunctionType)}
    wanted = [part.strip() for part in shown.group(1).split(",") if part.strip()] or list(methods)
    for method in wanted:
        if method in methods and not method.startswith("_"):
            assert undocumented(methods[method]) == [], f"{name}.{method}"


def test_an_undocumented_argument_is_seen() -> None:
    def call(one: int, two: int) -> None:
        """Do it.

        Parameters
        ----------
        one : int
            A number.
        """

    assert undocumented(call) == ["two"]
