"""Calls go one way: a round falls from floor to floor, and is short enough to follow."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import fldp

FOLDER = Path(fldp.__file__).parent
FLOORS = ("accounting", "plan", "mechanism", "simulation", "audit")
MOST_MODULES = 9


def module_of(frame: FrameType) -> str | None:
    """`mechanism/noise` for a frame that runs code of this package."""
    path = Path(frame.f_code.co_filename)
    if FOLDER not in path.parents:
        return None
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def chains(run: Callable[[], Any]) -> set[tuple[str, ...]]:
    """For every call inside `run`: the modules of this package on the stack, outermost first."""
    found = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or module_of(frame) is None:
            return
        stack: list[str] = []
        above: FrameType | None = frame
        while above is not None:
            module = module_of(above)
            if module is not None and (not stack or stack[-1] != module):
                stack.append(module)
            above = above.f_back
        found.add(tuple(reversed(stack)))

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def climbs(chain: tuple[str, ...]) -> bool:
    """Whether a floor is entered from one above it in the table, that is: left and come back to."""
    floors = [FLOORS.index(name) for m in chain if (name := m.partition("/")[0]) in FLOORS]
    return any(after > before for before, after in itertools.pairwise(floors))


@pytest.mark.slow
def test_a_release_falls_from_floor_to_floor() -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=3, clients=20)
    rows = torch.randn(20, 7)
    for options in ({}, {"clip_norm": fldp.AdaptiveClip()}, {"noise": fldp.DiscreteGaussian()}):
        seen = chains(lambda options=options: fldp.aggregate(rows, plan, **options))
        assert any("mechanism/collection" in chain for chain in seen)
        assert not [chain for chain in seen if climbs(chain)]


def small_run(**options: Any) -> Callable[[], Any]:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=2, clients=20, cohort=10)
    people = fldp.clients.partition(torch.randn(60, 3), torch.arange(60) % 2, clients=20, seed=0)
    return lambda: fldp.train(torch.nn.Linear(3, 2), people, plan, **options)


@pytest.mark.slow
def test_a_training_falls_from_floor_to_floor(tmp_path: Path) -> None:
    paths = {"ledger": tmp_path / "ledger.jsonl", "checkpoint": tmp_path / "run.pt"}
    seen = chains(small_run(**paths))
    assert any("mechanism/collection" in chain for chain in seen)
    assert not [chain for chain in seen if climbs(chain)]


def places(chain: tuple[str, ...]) -> set[str]:
    """The modules of a chain; the accountant, asked one question, counts as one."""
    named = {module.partition("/")[0] if "accounting/" in module else module for module in chain}
    return {module for module in named if not module.startswith("_")}


@pytest.mark.slow
def test_no_call_of_a_training_is_ten_modules_deep(tmp_path: Path) -> None:
    small_run()()  # what is imported on first use is imported
    for local in (fldp.LocalSGD(), fldp.Scaffold()):
        seen = chains(small_run(local=local, ledger=tmp_path / f"{type(local).__name__}.jsonl"))
        deepest = max(seen, key=lambda chain: len(places(chain)))
        assert len(places(deepest)) <= MOST_MODULES, deepest


def test_a_climb_would_be_seen() -> None:
    assert climbs(("plan/client", "mechanism/noise"))
    assert climbs(("simulation/rounds", "accounting/pld", "mechanism/noise"))
    assert not climbs(("simulation/rounds", "mechanism/noise", "plan/client", "accounting/pld"))
