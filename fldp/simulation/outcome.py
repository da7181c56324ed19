"""What a run says of itself in words: its statement, and a line while it goes on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from fldp._text import fill, up
from fldp.plan import PrivacyPlan
from fldp.simulation.history import History
from fldp.simulation.sampling import drawn

if TYPE_CHECKING:
    from fldp.simulation.rounds import Run


def summary(history: History) -> str:
    """A line for a progress bar; what is private in it is marked so.

    Parameters
    ----------
    history : History
        After at least one round.

    Returns
    -------
    str
    """
    parts = []
    if history.plan is not None:
        parts.append(f"ε={up(history.now)}/{history.plan.target_epsilon:g}")
    if history.loss:
        name = history.measure or "loss"
        value = (history.metric if history.measure else history.loss)[-1]
        parts.append(f"{name}={value:.3f}")
    private = history.private
    parts.append(f"clipped={private['clipped_fraction'][-1]:.0%} (private)")
    useless = int(private["malformed"][-1] + private["zero"][-1])
    if useless:
        parts.append(f"malformed or zero={useless} (private)")
    if private.get("skipped", [0])[-1]:
        parts.append("skipped")
    return " ".join(parts)


def guarantee(run: Run, chosen: bool) -> str:
    """What a run guarantees: its plan's statement, and what the run adds to it.

    Parameters
    ----------
    run : Run
        Finished, or stopped.
    chosen : bool
        Whether its model was chosen by validation data.

    Returns
    -------
    str
    """
    own = run.local.statement()
    if run.plan is None:
        nothing = "No noise was added: this run guarantees nothing to anybody."
        client = f"{own}\nClient level: this run guarantees nothing."
        return client if own else nothing
    lines = []
    if run.canaries is not None:
        lines.append(
            f"The run contained {run.canaries.count} canary clients, whose updates an audit "
            "made up; the model was trained on them too."
        )
    if chosen:
        lines.append(
            f"The model was chosen by its validation {run.history.chosen_by}. If those "
            "records are the clients' own, that choice is not covered."
        )
    if run.history.before and run.history.events:
        # The first line is about this plan alone.
        roughly = "approximately " if run.plan.accountant == "gdp" else ""
        lines.append(
            f"The ledger holds {len(run.history.before)} other entries of this population: "
            f"together with them {roughly}ε = {up(run.history.now)} so far."
        )
    skipped = sum(run.history.private.get("skipped", []))
    if skipped:
        lines.append(f"In {skipped} rounds too few clients came: they were skipped, and are spent.")
    lost = sum(run.history.private.get("lost", []))
    if lost:
        lines.append(f"A crash cut off {lost} rounds: they are spent, and were not run again.")
    lines += [part for part in (*run.averaging.words(), run.local.limits(), own) if part]
    plan = run.plan.statement(run.reproducible, _most(run, run.plan))
    return "\n".join([plan, *map(fill, lines)])


def _most(run: Run, plan: PrivacyPlan) -> int | None:
    """With a seed: the most rounds of any client in all of the plan's, those to come drawn."""
    if run.history.participations is None:
        return None
    served, sampler = run.served.clone(), copy.deepcopy(run.sampler)
    for number in range(run.done, plan.rounds):
        served[drawn(sampler, run.clients, run.draws, number)] += 1
    return min(int(served.max()) + run.lost, plan.rounds)
