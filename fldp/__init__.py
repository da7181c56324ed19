"""Differential privacy for federated learning at the level of model updates.

``import fldp`` loads numpy and nothing heavier: names that need torch are resolved on first use.

>>> import fldp
>>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
>>> 0.5 < plan.noise_multiplier < 2.0
True
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_NAMES = {
    "epsilon": "accounting",
    "delta": "accounting",
    "noise_multiplier": "accounting",
    "max_rounds": "accounting",
    "min_cohort": "accounting",
    "Event": "accounting",
    "PrivacyPlan": "plan",
    "calibrate": "plan",
    "calibrate_records": "records",
    "RecordPlan": "records",
    "explain_recipe": "recipe",
    "Ledger": "ledger",
    "clip": "clipping",
    "FlatClip": "clipping",
    "PerLayerClip": "clipping",
    "AdaptiveClip": "clipping",
    "aggregate": "aggregation",
    "PrivateAggregator": "aggregation",
    "Release": "aggregation",
    "LocalSGD": "local",
    "FedProx": "local",
    "Scaffold": "local",
    "BringYourOwn": "local",
    "DPSGD": "baselines",
    "FedAvg": "server",
    "FedAvgM": "server",
    "FedAdam": "server",
    "FedYogi": "server",
    "train": "training",
    "History": "history",
    "extrapolate": "extrapolation",
}
_MODULES = (
    "accounting", "plan", "records", "recipe", "ledger", "cli", "clipping", "noise",
    "aggregation", "draws", "sampling", "clients", "local", "server", "training", "attacks",
    "audit", "datasets", "plotting",
)  # fmt: skip

__all__ = [*_NAMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"fldp.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fldp.{name}")
    else:
        raise AttributeError(f"module 'fldp' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
