"""A self-test of a plan: other accountants, neighbouring cohorts, and the ledger of its run.

Second opinions come from code that shares nothing with ours: dp-accounting, Opacus and scipy. Each
is asked only what it can express, under the plan's own relation; else the table says why not.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fldp._text import Rows, down, up
from fldp.plan import PrivacyPlan, chain
from fldp.plan.ledger import Ledger, no_amplification
from fldp.plan.statement import TOLERANCE, amplified

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fldp.mechanism.release import Release

# How far a tool's figure may lie above ours before ours is called too small, relative and absolute.
# dp-accounting's grid and Opacus PRV's stated error of .01 on either side make them so much larger.
_TOOLS = {
    "dp-accounting PLD": (5e-3, 1e-3),
    "Opacus PRV": (0.0, 0.02),
    "Opacus RDP": (math.inf, 0.0),  # an upper bound only: it cannot show that ours is too small
    "scipy": (1e-4, 1e-6),
}
# Our own accountant may not be looser than another's upper bound by more.
_LOOSE = (1e-2, 0.02)
# For scipy, which has one number for each count of participations: 8 MB an array.
_MOST_ROUNDS = 10**6
# Numbers in a cohort's matrix for the neighbour test: at most 32 MB.
_MOST_CELLS = 1 << 22
# Rounds whose noise is measured, and coordinates of each where the cohort leaves room: a thousand
# numbers tell noise that is a seventh too small, at this rate of false alarms.
_SEEDS = 4
_WIDTH = 256
_FALSE_ALARM = 1e-9
# A root of scipy's is found to this: far below what `_TOOLS` allows.
_ROOT = 1e-10


class Skipped(Exception):
    """A check that cannot be made here, and why."""


class Verification(Rows):
    """Rows with check, result ("pass", "fail" or "skipped"), epsilon, seconds and note.

    `ok` is False when a check failed; a check that was skipped says nothing.

    Examples
    --------
    >>> found = Verification()
    >>> found.run("a check", lambda: (False, None, "it is not so"))
    >>> found.ok, found[0]["result"]
    (False, 'fail')
    """

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(row["result"] != "fail" for row in self)

    def run(self, check: str, ask: Callable[[], tuple[bool, float | None, str]]) -> None:
        """Add a row.

        Parameters
        ----------
        check
            Its name.
        ask
            Returns whether it passed, an ε (None: it has none) and a note; raises `Skipped` with a
            reason. Any other exception is a failure, and its note.
        """
        row: dict[str, Any] = {"check": check, "result": "", "epsilon": None, "seconds": None}
        self.append(row)
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                passed, row["epsilon"], note = ask()
            row["result"] = "pass" if passed else "fail"
            row["seconds"] = time.perf_counter() - started
        except Skipped as reason:
            row["result"], note = "skipped", str(reason)
        except Exception as error:  # whatever a tool or the user's function raises is its answer
            row["result"], note = "fail", f"{type(error).__name__}: {error}"
        row["note"] = " ".join(note.split())


def verify(
    plan: PrivacyPlan,
    *,
    aggregate: Callable[..., Any] | None = None,
    ledger: str | os.PathLike[str] | Ledger | None = None,
    like: object = None,
) -> Verification:
    """Check what can be checked of a plan and of what runs under it; nothing here proves it.

    Parameters
    ----------
    plan
        The plan.
    aggregate
        The aggregator that will run: a function of (updates) or (updates, generator=...) that
        returns the noised mean of one round at clip norm 1, as
        `fldp.audit.neighbours.neighbour_test` takes it. None: `fldp.aggregate` under this plan.
    ledger
        A ledger, or the path of one: its chain is checked, its plan compared and its ε composed.
        None: that check is skipped.
    like
        The structure of an update for the neighbour test, as `neighbour_test` takes it; None: a
        flat vector.

    Returns
    -------
    Verification
        A list of rows that prints as a table; `.ok` is False when one failed.

    Examples
    --------
    >>> from fldp import calibrate
    >>> found = verify(calibrate(epsilon=8.0, delta=1e-5, rounds=15, clients=10))
    >>> found.ok, found[0]["result"], found[-1]["note"]
    (True, 'pass', 'no ledger was given')
    """
    found = Verification()
    found.run(f"fldp {plan.accountant}", lambda: _own(plan))
    for name, module, ask in (
        ("dp-accounting PLD", "dp_accounting", _dp_accounting),
        ("Opacus PRV", "opacus", _opacus_prv),
        ("Opacus RDP", "opacus", _opacus_rdp),
    ):
        found.run(name, _opinion(plan, name, module, ask))
    found.run("scipy", _opinion(plan, "scipy", "scipy", _scipy))
    if amplified(plan):
        found.run("scipy, cohort known", lambda: _cohort_known(plan))
    found.run("neighbouring cohorts", lambda: _neighbours(plan, aggregate, like))
    found.run("noise of a round", lambda: _noise(plan, aggregate, like))
    found.run("ledger", lambda: _replay(plan, ledger))
    return found


def _own(plan: PrivacyPlan) -> tuple[bool, float, str]:
    epsilon = plan.epsilon()
    fits = epsilon <= plan.target_epsilon * (1 + TOLERANCE)
    return fits, epsilon, f"target {plan.target_epsilon:g} at δ = {up(plan.delta)}"


def _opinion(
    plan: PrivacyPlan, name: str, module: str, ask: Callable[[PrivacyPlan], float]
) -> Callable[[], tuple[bool, float, str]]:
    def answer() -> tuple[bool, float, str]:
        if importlib.util.find_spec(module) is None:
            raise Skipped("not installed: pip install 'fldp[verify]'")
        return _agrees(plan, plan.epsilon(), ask(plan), name)

    return answer


def _agrees(plan: PrivacyPlan, ours: float, theirs: float, name: str) -> tuple[bool, float, str]:
    relative, absolute = _TOOLS[name]
    # Only that ours is too small is a fault of any accountant; too large is one of ours alone.
    if theirs > ours * (1 + relative) + absolute:
        return False, theirs, f"larger than ours ({ours:.5g}), which is then too small"
    relative, absolute = _LOOSE
    if ours > theirs * (1 + relative) + absolute:
        note = f"ours ({ours:.5g}) is larger: safe, with more noise than needed"
        return plan.accountant != "pld", theirs, note
    return True, theirs, ""


def _dp_accounting(plan: PrivacyPlan) -> float:
    try:
        run = plan.to_dp_accounting()
    except ValueError as reason:
        raise Skipped(str(reason)) from None
    import dp_accounting as dp
    from dp_accounting import pld

    relation = dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    if plan.adjacency == "replace-one":
        # dp-accounting's PLD doubles the sensitivity itself.
        relation = dp.NeighboringRelation.REPLACE_ONE
    accountant = pld.PLDAccountant(relation)
    try:
        accountant.compose(run)
    except (dp.UnsupportedEventError, NotImplementedError) as error:
        raise Skipped(f"dp-accounting cannot express this: {error}") from None
    return float(accountant.get_epsilon(plan.delta))


def _opacus(plan: PrivacyPlan, accountant: str) -> float:
    if plan.event.sampling != "none" and plan.event.known:
        raise Skipped("Opacus has no adversary who knows who took part")
    try:
        return dataclasses.replace(plan, accountant=accountant).epsilon()
    except ValueError as error:  # it knows no caps, no sampled replace-one, not every range
        raise Skipped(str(error)) from None


def _opacus_prv(plan: PrivacyPlan) -> float:
    return _opacus(plan, "prv")


def _opacus_rdp(plan: PrivacyPlan) -> float:
    return _opacus(plan, "rdp")


def _scipy(plan: PrivacyPlan) -> float:
    if amplified(plan):
        raise Skipped("amplification by secret draws has no closed form")
    return _mixture(plan)


def _cohort_known(plan: PrivacyPlan) -> tuple[bool, float, str]:
    known = plan.cohort_known()["epsilon"]
    theirs = _mixture(plan)
    # `cohort_known` asks our own accountant, whatever the plan's.
    ours = dataclasses.replace(plan, accountant="pld")
    return _agrees(ours, known, theirs, "scipy")


def _plainly(plan: PrivacyPlan) -> tuple[int, float]:
    """T and z, or with correlated noise as many turns and the z that tell as much, by scipy."""
    if plan.separation is None or plan.participations is None or plan.correlation is None:
        return plan.rounds, plan.noise_multiplier
    from scipy import signal

    impulse = np.zeros(plan.rounds)
    impulse[0] = 1.0
    moved = signal.lfilter(plan.correlation.den, plan.correlation.num, impulse)
    turns = -(-plan.rounds // plan.separation)
    if amplified(plan):
        return turns, plan.noise_multiplier / float(np.linalg.norm(moved))
    comes = np.zeros(plan.rounds)
    comes[:: plan.separation][: plan.participations] = 1.0
    together = signal.fftconvolve(comes, moved)[: plan.rounds]
    return 1, plan.noise_multiplier / float(np.linalg.norm(together))


def _mixture(plan: PrivacyPlan) -> float:
    """ε of K ~ Bin(T, q) plain Gaussians with K known, by scipy's normal and binomial laws."""
    if plan.rounds > _MOST_ROUNDS:
        raise Skipped(f"{plan.rounds} rounds are too many for the plain sum")
    from scipy import optimize, stats

    rounds, z = _plainly(plan)
    counts = np.arange(1, rounds + 1)
    weights = stats.binom.pmf(counts, rounds, plan.event.sampling_rate)
    # In clip norms. Zero-out, of a cohort that is known, moves as much as add-or-remove.
    sensitivity = 2.0 if plan.adjacency == "replace-one" else 1.0
    mu = sensitivity * np.sqrt(counts) / z

    def excess(epsilon: float) -> float:
        # Balle & Wang (2018), theorem 8, for each number of participations, less δ.
        hit = stats.norm.cdf(mu / 2 - epsilon / mu)
        miss = np.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu))
        return float(weights @ (hit - miss)) - plan.delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=_ROOT))


def _under_test(
    plan: PrivacyPlan, aggregate: Callable[..., Any] | None, like: object
) -> tuple[Callable[..., Any], object]:
    """The aggregator that will run, and the structure of an update for it."""
    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch is not installed")
    cells = _MOST_CELLS // max(1, math.floor(plan.cohort))
    if like is None:
        like = min(_WIDTH, cells)
        if like < 2:
            raise Skipped(f"a cohort of {plan.cohort:g} is too large to build here")
    from fldp.mechanism.aggregation import aggregate as ours
    from fldp.mechanism.correlation import noise_of_run

    def run(updates: Tensor, generator: Generator | None) -> Release:
        # Each call is the first round of a run.
        noise = noise_of_run(plan, None, generator)
        return ours(updates, plan, clip_norm=1.0, noise=noise)

    return (run if aggregate is None else aggregate), like


def _neighbours(
    plan: PrivacyPlan, aggregate: Callable[..., Any] | None, like: object
) -> tuple[bool, None, str]:
    run, like = _under_test(plan, aggregate, like)
    from fldp.audit.neighbours import neighbour_test

    found = neighbour_test(run, plan, like=like, repeats=1)
    if not found.aligned:
        raise Skipped(found.statement())
    return not found.violated, None, found.statement()


def _noise(
    plan: PrivacyPlan, aggregate: Callable[..., Any] | None, like: object
) -> tuple[bool, None, str]:
    """Whether a cohort of zeros gets noise of at least the accounted size, and ever new noise."""
    run, like = _under_test(plan, aggregate, like)
    import torch
    from scipy import stats

    from fldp.audit.canaries import cohort, expected, layout_of
    from fldp.audit.neighbours import Caller

    zeros = cohort(torch.zeros(expected(plan), layout_of(like).total), like)
    call = Caller(run)
    draws = torch.stack([call(zeros, seed) for seed in range(_SEEDS)]).double()
    units = (draws * (plan.denominator / plan.noise_multiplier)).flatten()
    if torch.equal(draws[0], draws[1]):
        return False, None, "two rounds with other seeds have the same noise"
    least = float(stats.chi2.ppf(_FALSE_ALARM, len(units)))
    square = float(units.square().sum())
    told = square  # not a number stays that, and fails
    if square >= 0:
        told = math.sqrt(square / len(units))
    note = (
        f"on a cohort of zeros {down(told, 3)} times the accounted std, by {len(units)} "
        f"coordinates: a sound round is refuted with chance {_FALSE_ALARM:g}; its law is not tested"
    )
    return square >= least, None, note


def _replay(
    plan: PrivacyPlan, ledger: str | os.PathLike[str] | Ledger | None
) -> tuple[bool, float, str]:
    if ledger is None:
        raise Skipped("no ledger was given")
    # Read from disk in either case: what is there is what counts.
    path = ledger.path if isinstance(ledger, Ledger) else chain.path_of(ledger)
    content = chain.parse(chain.raw(path), path)
    events = [entry.event for entry in content.entries]
    for event in events:
        no_amplification(event, plan)
    spent = plan.spent(events, accountant="pld")
    rounds = sum(event.rounds for event in events)
    note = f"{len(events)} entries, {rounds} rounds, chain intact"
    if content.torn:
        note += ", a torn last line"
    if content.plan is None:
        note += ", no plan in line 1"
    elif content.plan != plan:
        return False, spent, f"{note}; it is the ledger of another plan"
    if spent > plan.target_epsilon * (1 + TOLERANCE):
        return False, spent, f"{note}; beyond the target {plan.target_epsilon:g}"
    return True, spent, note
