"""Audit a whole training: canary clients in `fldp.train`, or in a federation that is not ours."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fldp._checks import choice, whole
from fldp.audit.bounds import METHODS, from_scores
from fldp.audit.canaries import Canaries, layout_of
from fldp.audit.coins import METHODS as COIN_METHODS
from fldp.audit.findings import AuditResult, counted
from fldp.audit.pipelines import check_independence, within
from fldp.audit.scores import own_stream
from fldp.audit.trials import from_trials
from fldp.mechanism.clipping import Clip, as_clip
from fldp.mechanism.updates import flatten
from fldp.simulation.algorithm import Algorithm
from fldp.simulation.clients import Population, check_labels
from fldp.simulation.history import History
from fldp.simulation.inputs import Records, accepted, call, cast, each, form, take
from fldp.simulation.isolation import copied
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import outputs
from fldp.simulation.training import train

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

_SEEN = {"releases": "every release", "model": "the final model alone"}
_KINDS = ("worst", "natural", "record")
# A stream of our own: no draw of a caller's generator, whatever its seed, repeats it.
_WORLDS = 0x30216E
# Trainings in each of two worlds where one client's labels change.
_TRAININGS = 200


@counted
def federation(
    run: Callable[[Canaries], object],
    plan: PrivacyPlan,
    *,
    like: object,
    canaries: int = 100,
    runs: int = 1,
    clip_norm: float = 1.0,
    sees: str = "releases",
    method: str = "one-run",
    confidence: float = 0.95,
    claimed: float | None = None,
    tested: str = "",
    seed: int | None = None,
) -> AuditResult:
    """Audit a training of many rounds that is not ours, by canary clients; one run may be enough.

    `run(canaries)` performs one whole training in which `canaries.rows(ids, round)` are the updates
    of the clients `ids` (the last k of the plan's N), drawn, clipped and noised like all others. It
    calls `canaries.observe(mean, round)` with each released mean. For an attacker who sees only the
    final model (`sees="model"`) it returns instead by how much the training changed the model.

    Parameters
    ----------
    run : callable
        See above; called `runs` times, each time with canaries whose coins are new.
    plan : PrivacyPlan
        What the training claims to follow.
    like : int or structure
        d, or the structure of an update (a module, a state dict, a list of tensors).
    canaries : int
        k in each run.
    runs : int
        Trainings; their canaries are pooled.
    clip_norm : float
        C.
    sees : str
        "releases" or "model".
    method : str
        "one-run", "plan" or, where all take part in all rounds, "gdp"; see `one_run_epsilon`.
    confidence : float
        Probability with which the bound holds, in (0, 1).
    claimed : float, optional
        ε; None takes `plan.epsilon()`.
    tested : str
        What was run, for the statement.
    seed : int, optional
        Of the coins and directions; None (recommended) is the operating system.

    Returns
    -------
    AuditResult

    Raises
    ------
    ValueError
        For a method that this plan's draws rule out, and where `run` shows nothing.

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=1, clients=400)
    >>> def one_round(canaries):
    ...     rows = canaries.rows(torch.arange(400), 0)
    ...     canaries.observe(fldp.aggregate(rows, plan), 0)
    >>> found = federation(one_round, plan, like=1000, canaries=400)
    >>> found.lower_bound > 1 and not found.violated
    True
    """
    choice("sees", sees, ("releases", "model"))
    choice("method", method, COIN_METHODS)
    if method == "gdp" and plan.event.sampling != "none":
        raise ValueError(
            'method is "gdp", but the plan draws its cohorts: its curve is not that of a Gaussian; '
            'take "plan", which is the curve of these draws'
        )
    size = layout_of(like).total
    scores = []
    coins = []
    for i in range(whole("runs", runs)):
        own = None if seed is None else seed + i
        # Coins of its own for every run: a bound over several presumes it.
        crowd = Canaries(canaries, size, plan=plan, clip_norm=clip_norm, seed=own)
        change = run(crowd)
        if sees == "model":
            if change is None:
                raise ValueError('sees is "model": run must return the change of the model')
            crowd.final(change)
        scores.append(crowd.scores)
        coins.append(crowd.included)
    return from_trials(
        np.stack(scores),
        np.stack(coins),
        delta=plan.delta,
        confidence=confidence,
        method=method,
        plan=plan if method == "plan" else None,
        claimed=plan.epsilon() if claimed is None else claimed,
        tested=tested
        or f"{_SEEN[sees]} of {plan.rounds} rounds, {plan.adjacency} of a client, {canaries} "
        "canary clients in orthogonal directions",
    )


@counted
def training(
    model: nn.Module,
    population: Population,
    plan: PrivacyPlan,
    *,
    canary: str = "worst",
    canaries: int = 100,
    runs: int | None = None,
    clip: float | Clip = 1.0,
    sees: str = "releases",
    method: str | None = None,
    confidence: float = 0.95,
    seed: int | None = None,
    **options: Any,
) -> AuditResult:
    """Audit `fldp.train` itself: sampling, clip, sum, noise and server as they run.

    "worst": `canaries` extra clients that send C in directions of their own (see `Canaries`); a
    single run gives a bound. What the other clients send is noise to this attacker, who does not
    know it: along each direction its spread is the norm of their sum over √d. Few of them, or a
    small learning rate, make the audit stronger and no less valid.

    "natural": the last client has wrong labels or its own; "record": only its first label is wrong
    or right. These two ask for replace-one, of a client or of a record, in `runs` trainings of each
    kind, and the attacker sees the loss of the final model.

    Parameters
    ----------
    model, population
        As for `train`; with canary "worst" the plan's N clients are those of the population and
        the canaries.
    plan : PrivacyPlan
        Under which it runs; central trust for canary "worst".
    canary : str
        "worst", "natural" or "record".
    canaries : int
        How many, for canary "worst".
    runs : int, optional
        Trainings, for "worst" 1 by default; for the others 200 with and 200 without.
    clip : float or Clip
        As for `train`.
    sees : str
        For "worst": every release ("releases") or the final "model" alone.
    method : str, optional
        For "worst" "one-run" (the default), "gdp" or "plan"; else "clopper-pearson" or "gdp".
    confidence : float
        Probability with which the bound holds, in (0, 1).
    seed : int, optional
        Makes coins, cohorts and noise repeatable, for tests; None is the operating system.
    **options
        Those of `train`: `local`, `server`, `noise`, ...

    Returns
    -------
    AuditResult

    Raises
    ------
    ValueError
        As `train` does.

    Examples
    --------
    >>> import fldp
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-5, rounds=2, clients=500)
    >>> found = training(nn.Linear(64, 10), people, plan, canaries=400)
    >>> found.lower_bound > 1 and not found.violated
    True
    """
    choice("canary", canary, _KINDS)
    trained = _Training(model, plan, clip, seed, options)
    if canary != "worst":
        changed = 1 if canary == "record" else None
        method = method or METHODS[0]
        return trained.changed(population, changed, runs or _TRAININGS, method, confidence)
    bound = as_clip(clip)
    # As `train` will do it: what is trained decides how many coordinates an update has.
    local: Algorithm = LocalSGD()
    if options.get("local") is not None:
        local = copy.deepcopy(options["local"])
    start = flatten(local.prepare(copy.deepcopy(model)))
    number = itertools.count()

    def run(crowd: Canaries) -> Tensor:
        final = flatten(trained.run(population, next(number), canaries=crowd).model)
        return final - start.to(final)

    return federation(
        run,
        plan,
        like=local.width(len(start)),
        canaries=canaries,
        runs=whole("runs", runs or 1),
        clip_norm=bound.norm,
        sees=sees,
        method=method or COIN_METHODS[0],
        confidence=confidence,
        seed=seed,
    )


@dataclass(frozen=True)
class _Training:
    """A training that is run again and again, with seeds of its own each time."""

    model: nn.Module
    plan: PrivacyPlan
    clip: float | Clip
    seed: int | None
    options: dict[str, Any]

    def run(self, population: Population, number: int, **more: Any) -> History:
        """The training number `number`; without a seed, all from the operating system."""
        given = self.options | more
        if self.seed is not None:
            own = self.seed + number
            given |= {"seed": own, "generator": torch.Generator().manual_seed(own)}
        return train(self.model, population, self.plan, clip=self.clip, **given)

    def changed(
        self, population: Population, changed: int | None, runs: int, method: str, confidence: float
    ) -> AuditResult:
        """`training` where one client's labels are wrong, or right: replace-one.

        `changed` is how many of them; None: all.
        """
        x, y = population.client(len(population) - 1)
        changed = len(y) if changed is None else changed
        check_labels(population.y)
        # A label that is surely wrong, whatever the record.
        wrong = (y + 1) % (int(population.y.max()) + 1)
        labels = torch.cat([wrong[:changed], y[changed:]])
        worlds = (_with_client(population, x, y), _with_client(population, x, labels))
        present = np.repeat([True, False], whole("runs", runs))
        own_stream(_WORLDS, self.seed).shuffle(present)
        scores = np.empty(len(present))
        for i, there in enumerate(present):
            history = self.run(worlds[int(there)], i)
            with torch.no_grad():
                like = accepted(copied(history.model), form(x), flatten(history.model))
                given = cast(take(x, slice(changed)), like)
                logits = outputs(call(history.model, given))
            # How sure the model is of the wrong labels: only a run that was taught them is.
            gain = torch.log_softmax(logits, dim=-1).cpu()[range(changed), wrong[:changed].cpu()]
            scores[i] = float(gain.mean())
        check_independence(within(scores, present))
        hidden = replace(self.plan, adjacency="replace-one")
        return from_scores(
            scores[present],
            scores[~present],
            delta=self.plan.delta,
            method=method,
            confidence=confidence,
            claimed=hidden.epsilon(),
            tested=f"the final model of {self.plan.rounds} rounds, replace-one, {changed} wrong "
            "labels of one client",
        )


def _with_client(population: Population, x: Records, y: Tensor) -> Population:
    """The population whose last client holds (x, y), and nobody else these records."""
    count = len(population.y)
    index = [population.held(i).tolist() for i in range(len(population) - 1)]
    index.append(list(range(count, count + len(y))))
    records = each(lambda old, new: torch.cat([old, new]), population.x, x)
    return Population(records, torch.cat([population.y, y]), index)
