"""Empirical lower bounds on ε: run the mechanism, attack it, and count.

An upper bound comes from a theorem about the algorithm; these bounds come from what the code does.
A bound above the claimed ε refutes the claim, up to the stated confidence and if what it presumes
holds. A bound below it proves nothing: another canary or another attack may do better.
"""

from __future__ import annotations

from fldp.bounds import from_counts, from_scores, runs_needed
from fldp.canaries import CANARIES, Canaries
from fldp.findings import AuditResult, Session
from fldp.neighbours import NeighbourResult, neighbour_test
from fldp.one_run import one_run, one_run_epsilon
from fldp.one_shot import one_shot, two_gaussians_epsilon
from fldp.pipelines import pipeline
from fldp.trainings import federation, training
from fldp.trials import from_trials, mean_lower_bound

__all__ = [
    "CANARIES",
    "AuditResult",
    "Canaries",
    "NeighbourResult",
    "Session",
    "federation",
    "from_counts",
    "from_scores",
    "from_trials",
    "mean_lower_bound",
    "neighbour_test",
    "one_run",
    "one_run_epsilon",
    "one_shot",
    "pipeline",
    "runs_needed",
    "training",
    "two_gaussians_epsilon",
]
