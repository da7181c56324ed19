"""Differential privacy for federated learning at the level of model updates.

``import fldp`` loads nothing heavier than numpy: names that need torch are resolved on first use.

>>> import fldp
>>> plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
>>> 0.5 < plan.noise_multiplier < 2.0
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fldp import _moved
from fldp._lazy import attach

__version__ = "0.2.0"

if TYPE_CHECKING:
    from fldp import accounting as accounting
    from fldp import audit as audit
    from fldp import cli as cli
    from fldp import datasets as datasets
    from fldp import features as features
    from fldp import mechanism as mechanism
    from fldp import plan as plan
    from fldp import plotting as plotting
    from fldp import recipe as recipe
    from fldp import simulation as simulation
    from fldp.accounting import Event as Event
    from fldp.accounting import delta as delta
    from fldp.accounting import epsilon as epsilon
    from fldp.accounting import max_rounds as max_rounds
    from fldp.accounting import min_cohort as min_cohort
    from fldp.accounting import noise_multiplier as noise_multiplier
    from fldp.audit import attacks as attacks
    from fldp.mechanism.adaptive import AdaptiveClip as AdaptiveClip
    from fldp.mechanism.aggregation import PrivateAggregator as PrivateAggregator
    from fldp.mechanism.aggregation import Release as Release
    from fldp.mechanism.aggregation import aggregate as aggregate
    from fldp.mechanism.clipping import FlatClip as FlatClip
    from fldp.mechanism.clipping import PerLayerClip as PerLayerClip
    from fldp.mechanism.clipping import clip as clip
    from fldp.mechanism.discrete import DiscreteGaussian as DiscreteGaussian
    from fldp.mechanism.noise import Gaussian as Gaussian
    from fldp.mechanism.skellam import Skellam as Skellam
    from fldp.plan import PrivacyPlan as PrivacyPlan
    from fldp.plan import calibrate as calibrate
    from fldp.plan.extrapolation import extrapolate as extrapolate
    from fldp.plan.ledger import Ledger as Ledger
    from fldp.plan.records import RecordPlan as RecordPlan
    from fldp.plan.records import calibrate_records as calibrate_records
    from fldp.recipe import explain_recipe as explain_recipe
    from fldp.simulation import clients as clients
    from fldp.simulation.diagnosis import diagnose as diagnose
    from fldp.simulation.dpsgd import DPSGD as DPSGD
    from fldp.simulation.history import History as History
    from fldp.simulation.local import FedProx as FedProx
    from fldp.simulation.local import LocalSGD as LocalSGD
    from fldp.simulation.own import LocalFunction as LocalFunction
    from fldp.simulation.scaffold import Scaffold as Scaffold
    from fldp.simulation.server import FedAdam as FedAdam
    from fldp.simulation.server import FedAvg as FedAvg
    from fldp.simulation.server import FedAvgM as FedAvgM
    from fldp.simulation.server import FedYogi as FedYogi
    from fldp.simulation.training import train as train

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
    "calibrate_records": "plan.records",
    "RecordPlan": "plan.records",
    "explain_recipe": "recipe",
    "extrapolate": "plan.extrapolation",
    "Ledger": "plan.ledger",
    "clip": "mechanism.clipping",
    "FlatClip": "mechanism.clipping",
    "PerLayerClip": "mechanism.clipping",
    "AdaptiveClip": "mechanism.adaptive",
    "aggregate": "mechanism.aggregation",
    "PrivateAggregator": "mechanism.aggregation",
    "Release": "mechanism.aggregation",
    "Gaussian": "mechanism.noise",
    "DiscreteGaussian": "mechanism.discrete",
    "Skellam": "mechanism.skellam",
    "LocalSGD": "simulation.local",
    "FedProx": "simulation.local",
    "LocalFunction": "simulation.own",
    "Scaffold": "simulation.scaffold",
    "DPSGD": "simulation.dpsgd",
    "FedAvg": "simulation.server",
    "FedAvgM": "simulation.server",
    "FedAdam": "simulation.server",
    "FedYogi": "simulation.server",
    "train": "simulation.training",
    "diagnose": "simulation.diagnosis",
    "History": "simulation.history",
}
# Public module -> where it is.
_MODULES = {
    "accounting": "accounting",
    "plan": "plan",
    "mechanism": "mechanism",
    "simulation": "simulation",
    "audit": "audit",
    "clients": "simulation.clients",
    "attacks": "audit.attacks",
    "datasets": "datasets",
    "features": "features",
    "plotting": "plotting",
    "recipe": "recipe",
    "cli": "cli",
}

# Names of version 0.1 -> what they are called.
_OLD_NAMES = {"BringYourOwn": "simulation.own.LocalFunction"}

__all__ = [*_NAMES, *_MODULES, "__version__"]


_find = attach(__name__, _NAMES, _MODULES)


def __getattr__(name: str) -> Any:
    if name in _moved.OLD:
        return importlib.import_module(f"fldp.{name}")
    if name in _OLD_NAMES:
        return _moved.find(__name__, name, _OLD_NAMES)
    value = _find(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_moved.install()
