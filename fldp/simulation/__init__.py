"""Where it is tried: clients, who comes, local training, engines, and the loop over rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fldp._lazy import attach

if TYPE_CHECKING:
    from fldp.simulation import algorithm as algorithm
    from fldp.simulation import averaging as averaging
    from fldp.simulation import batching as batching
    from fldp.simulation import causes as causes
    from fldp.simulation import checkpoint as checkpoint
    from fldp.simulation import clients as clients
    from fldp.simulation import descent as descent
    from fldp.simulation import diagnosis as diagnosis
    from fldp.simulation import dpsgd as dpsgd
    from fldp.simulation import draws as draws
    from fldp.simulation import engines as engines
    from fldp.simulation import evaluation as evaluation
    from fldp.simulation import history as history
    from fldp.simulation import inputs as inputs
    from fldp.simulation import isolation as isolation
    from fldp.simulation import loading as loading
    from fldp.simulation import local as local
    from fldp.simulation import monitor as monitor
    from fldp.simulation import naming as naming
    from fldp.simulation import objective as objective
    from fldp.simulation import outcome as outcome
    from fldp.simulation import own as own
    from fldp.simulation import persample as persample
    from fldp.simulation import rounds as rounds
    from fldp.simulation import sampling as sampling
    from fldp.simulation import scaffold as scaffold
    from fldp.simulation import server as server
    from fldp.simulation import setting as setting
    from fldp.simulation import stacked as stacked
    from fldp.simulation import symptoms as symptoms
    from fldp.simulation import training as training

_MODULES = (
    "algorithm averaging batching causes checkpoint clients descent diagnosis dpsgd draws engines "
    "evaluation history inputs isolation loading local monitor naming objective outcome own "
    "persample rounds sampling scaffold server setting stacked symptoms training"
)
__all__ = [*_MODULES.split()]
__getattr__ = attach(__name__, {}, {name: name for name in __all__})
