"""What several test files share: plans, models, data, known values, hypothesis' settings.

Functions are imported (``from conftest import plan_for``); fixtures need no import.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

import fldp

# Times vary with the machine and with what else it does; a test's `settings` inherit this.
# The same examples at every run: `make fuzz` looks for others.
settings.register_profile("fldp", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
PROFILE = os.environ.get("FLDP_HYPOTHESIS", "fldp")
settings.load_profile(PROFILE)


def examples(number: int) -> int:
    """How many examples a test tries: ten times as many where the search is the purpose."""
    return 10 * number if PROFILE == "search" else number


def ground_truth(group: str | None = None) -> list[dict[str, Any]]:
    """The entries of data/ground_truth.json, all or those of one group."""
    path = Path(__file__).parent / "data" / "ground_truth.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [entry for entry in entries if group in (None, entry["group"])]


def plan_for(clients: int = 10, **changes: Any) -> fldp.PrivacyPlan:
    """A plan that was not calibrated: z = 1, ten rounds, everyone in each of them."""
    fields: dict[str, Any] = {
        "noise_multiplier": 1.0,
        "delta": 1e-5,
        "rounds": 10,
        "clients": clients,
        "cohort": clients,
        "sampling": "none",
        "trust": "central",
        "adjacency": "add-or-remove",
        "accountant": "pld",
        "target_epsilon": 2.0,
    }
    if changes.get("trust", "central") != "central":
        fields["adjacency"] = "zero-out"
    return fldp.PrivacyPlan(**{**fields, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits_model() -> nn.Module:
    """A linear model of the digits, the same at every call."""
    torch.manual_seed(0)
    return nn.Linear(64, 10)


def correct(plan: fldp.PrivacyPlan) -> Callable[..., Any]:
    """The package's own aggregation as a pipeline to audit."""
    return lambda updates, generator=None: fldp.aggregate(updates, plan, 1.0, generator=generator)


@pytest.fixture(scope="session")
def data() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits in a fixed random order: (1797, 64) and (1797,)."""
    x, y = fldp.datasets.digits()
    order = torch.randperm(len(x), generator=seeded(0))
    return x[order], y[order]
