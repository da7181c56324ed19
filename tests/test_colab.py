"""Installing fldp into Colab replaces nothing that is there, and adds Opacus alone.

The registry is asked by ``python tools/colab.py``, in the release check. Here the requirements are
walked through as the installed distributions state them, without a network.
"""

from __future__ import annotations

import importlib.metadata

import colab
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

THERE = {"numpy": "2.1.3", "torch": "2.11.0"}
ASKS = {"opacus": ["numpy>=1.15", "opt-einsum>=3"], "opt-einsum": []}


def asks(name: str) -> list[str]:
    """The requirements of an installed distribution."""
    return importlib.metadata.requires(name) or []


def test_installing_fldp_on_colab_changes_nothing_that_is_there() -> None:
    assert colab.changes(colab.dependencies(), colab.image(), asks) == colab.ADDED


def test_the_package_asks_for_lower_bounds_and_admits_the_python_of_colab() -> None:
    for text in colab.dependencies():
        specifier = Requirement(text).specifier
        assert all(part.operator == ">=" for part in specifier), f"{text}: lower bounds only"
    metadata = tomllib.loads((colab.HERE / "pyproject.toml").read_text(encoding="utf-8"))
    admitted = Requirement("python" + metadata["project"]["requires-python"]).specifier
    assert Version(colab.PYTHON) in admitted


@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        (["numpy>=1.24", "torch>=2.6"], set()),
        (["numpy>=2.2"], {"numpy>=2.2"}),
        (["torch<2.11"], {"torch<2.11"}),
        (["opacus"], {"opacus", "opt-einsum"}),
        (["opacus; extra == 'dev'"], set()),
    ],
)
def test_what_does_not_fit_is_named_and_what_is_missing_is_followed(
    wanted: list[str], changed: set[str]
) -> None:
    assert colab.changes(wanted, THERE, lambda name: ASKS[name]) == changed


def test_a_label_of_colabs_own_builds_is_no_other_version() -> None:
    assert colab.image()["torch"] == "2.11.0"
