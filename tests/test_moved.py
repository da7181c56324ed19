"""Old module paths lead to the modules that stand elsewhere now, and say so."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import warnings

import pytest

import fldp
from fldp import _moved


def test_old_module_paths_work_and_warn() -> None:
    for old, new in _moved.OLD.items():
        sys.modules.pop(f"fldp.{old}", None)
        with pytest.warns(DeprecationWarning, match=f"fldp.{new} now"):
            found = importlib.import_module(f"fldp.{old}")
        assert found is importlib.import_module(f"fldp.{new}")
    for short, new in _moved.SHORT.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = importlib.import_module(f"fldp.{short}")
        assert found is importlib.import_module(f"fldp.{new}")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("fldp.no_such_module")


def test_an_old_keyword_works_with_a_warning_and_is_not_in_the_signature() -> None:
    @_moved.renamed(colour="color")
    def paint(wall: str, color: str = "grey") -> str:
        return f"{wall} {color}"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paint("north", color="red") == "north red"
    with pytest.warns(DeprecationWarning, match="colour is color now") as caught:
        assert paint("north", colour="red") == "north red"  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="colour is the old name of color: give the new one"):
        paint("north", color="red", colour="red")  # type: ignore[call-arg]
    assert list(inspect.signature(paint).parameters) == ["wall", "color"]


def test_classes_that_moved_to_a_module_of_their_own_are_found_where_they_were() -> None:
    from fldp.mechanism import adaptive, clipping, discrete, noise

    for module, name, home in (
        (clipping, "AdaptiveClip", adaptive),
        (noise, "DiscreteGaussian", discrete),
        (noise, "discrete_gaussian", discrete),
    ):
        with pytest.warns(DeprecationWarning, match=f"{name} is fldp.{home.__name__[5:]}.{name}"):
            found = getattr(module, name)
        assert found is getattr(home, name)


def test_a_renamed_argument_can_be_read_under_its_old_name() -> None:
    local = fldp.FedProx(proximal=0.1)
    with pytest.warns(DeprecationWarning, match="mu is proximal now") as caught:
        assert local.mu == 0.1  # type: ignore[attr-defined]
    assert caught[0].filename == __file__


@pytest.mark.slow
def test_an_old_path_is_to_import_and_not_to_run() -> None:
    command = [sys.executable, "-m", "fldp.clients"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "fldp.clients is fldp.simulation.clients, to import and not to run" in found.stderr
    assert "Traceback" not in found.stderr
