"""How it is attacked: empirical lower bounds on ε. Run the mechanism, attack it, and count.

An upper bound comes from a theorem about the algorithm; these bounds come from what the code does.
A bound above the claimed ε refutes the claim, up to the stated confidence and if what it presumes
holds. A bound below it proves nothing: another canary or another attack may do better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fldp._lazy import attach

if TYPE_CHECKING:
    from fldp.audit.bounds import from_counts as from_counts
    from fldp.audit.bounds import from_scores as from_scores
    from fldp.audit.bounds import runs_needed as runs_needed
    from fldp.audit.canaries import CANARIES as CANARIES
    from fldp.audit.canaries import Canaries as Canaries
    from fldp.audit.coins import one_run as one_run
    from fldp.audit.coins import one_run_epsilon as one_run_epsilon
    from fldp.audit.cosines import one_shot as one_shot
    from fldp.audit.cosines import two_gaussians_epsilon as two_gaussians_epsilon
    from fldp.audit.findings import AuditResult as AuditResult
    from fldp.audit.findings import Session as Session
    from fldp.audit.neighbours import NeighbourResult as NeighbourResult
    from fldp.audit.neighbours import neighbour_test as neighbour_test
    from fldp.audit.pipelines import pipeline as pipeline
    from fldp.audit.trainings import federation as federation
    from fldp.audit.trainings import training as training
    from fldp.audit.trials import from_trials as from_trials
    from fldp.audit.trials import mean_lower_bound as mean_lower_bound

# Public name -> the module of this floor that defines it: statistics load no torch.
_NAMES = {
    "from_counts": "bounds",
    "from_scores": "bounds",
    "runs_needed": "bounds",
    "CANARIES": "canaries",
    "Canaries": "canaries",
    "AuditResult": "findings",
    "Session": "findings",
    "NeighbourResult": "neighbours",
    "neighbour_test": "neighbours",
    "one_run": "coins",
    "one_run_epsilon": "coins",
    "one_shot": "cosines",
    "two_gaussians_epsilon": "cosines",
    "pipeline": "pipelines",
    "federation": "trainings",
    "training": "trainings",
    "from_trials": "trials",
    "mean_lower_bound": "trials",
}

__all__ = [*_NAMES]


__getattr__ = attach(__name__, _NAMES)
