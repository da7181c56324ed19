"""Why a private run does not learn: what its history shows, in the order of a checklist.

A cause explains what stands below it in the list: where nothing arrives, or where the noise is
longer than the signal, no learning rate helps. So the rates are judged only when neither is found.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.utils import parameters_to_vector

from fldp._checks import shown
from fldp._text import fill, up
from fldp.plan import PrivacyPlan
from fldp.simulation.history import History

# Signal over noise of a whole run, both as lengths, at its best: every update of length C, all
# alike. Below 1 the noise is longer. Measured: digits, d = 650, 20 clients: 39 % at .5, 74 % at
# 1.6; 480 clients: 78 % at 4.0, 91 % at 32. EMNIST (199,210 parameters, the tutorial of TensorFlow
# Federated): 1.1 diverges, 1.5 costs nine points, 2.2 one. A wide network on digits, whose useful
# directions are few, lost nothing at 1.5: so between 1 and 2 noise may cost, and need not.
DROWNED, FAINT = 1.0, 2.0
# Parameters of a linear model for 64 pixels and ten classes, the smallest of the book. Where the
# population carries fewer, the remedy is not another model.
SMALLEST_MODEL = 650
# A share of the contributions: half of them lost is a fault of the program, not of the noise; a
# twentieth costs as much as so many clients fewer.
MOST_LOST, SOME_LOST = 0.5, 0.05
# Digits: at C = 5 a fifth to a third is clipped in the first round, nobody later, and 92 % are
# right; at C = 10 nobody ever is, and noise for a length that no update has costs eight points.
NOBODY, EVERYBODY = 0.05, 0.95
# How many times the run's rounds its loss would take to halve: .3 to .6 in healthy runs, up to 5
# after four rounds, 6 at a thirtieth of a good rate, 16 and more at a hundredth.
SLOW = 10.0
# The net fall of the loss over the way that it went, up and down: .99 and more where steps are too
# short, below .25 where they lead nowhere.
STRAIGHT = 0.5
# All the clip norms of the run together over the length of the model. Below 1 a model whose loss
# falls steadily could not get far (.3 at a hundredth of a good clip norm, 1.8 to 33 elsewhere); and
# one whose loss goes up and down got farther than its steps (.3 to .7 at a server's rate of 10).
SHORT_REACH = 1.0
# By how much the last third of the rounds is better than the third before: .12 and more in
# four to eight rounds, at most .05 in healthy runs. Of a loss, which has no scale, the ratio: .59
# to .7 in runs whose accuracy was done.
UNFINISHED, UNFINISHED_LOSS = 0.1, 0.5
# Rounds after the best one, as a share of all: nothing came of two thirds of the budget.
WASTED = 2 / 3
# The same figure in a run that does move: .02 and less at ten times a good server's rate, .4 to 1 in
# healthy runs, .15 and more where twenty clients make it noisy.
OVERSHOT = 0.05
# Points of accuracy that the noise may cost before it is worth a word.
COSTLY = 0.05
# A curve of fewer rounds than this tells nothing of its end.
FEWEST_ROUNDS = 4


@dataclass(frozen=True)
class Finding:
    """One thing that was found, and what to do about it.

    Parameters
    ----------
    cause : str
        A few words: "too few clients".
    value : float
        The figure that tells.
    seen, means, change : str
        What was measured, what it means, what to change first.
    chapter : str
        The chapter of the book that it comes from, the name of its file.
    is_private : bool
        Whether a figure that no ε covers is in it.
    is_likely : bool
        Whether it alone would explain a run that does not learn; else it costs something.
    """

    cause: str
    value: float
    seen: str
    means: str
    change: str
    chapter: str
    is_private: bool = False
    is_likely: bool = True

    def __str__(self) -> str:
        mark = " (private)" if self.is_private else ""
        grade = "Likely" if self.is_likely else "Also"
        lines = (
            f"{grade}: {self.cause}{mark}",
            f"  Seen: {self.seen}.",
            f"  That means: {self.means}.",
            f"  Change: {self.change}.",
            f"  Read: {self.chapter}",
        )
        return "\n".join(map(fill, lines))


@dataclass(frozen=True)
class Diagnosis:
    """What a history shows of why its run does not learn.

    Guarantee: where `reads_private` is False, it is a function of what the run's statement covers,
    and of the validation records.

    Parameters
    ----------
    findings : tuple of Finding
        The likely ones first, each group in the order of the checklist.
    looked : tuple of str
        What was looked at.
    missing : tuple of str
        What was not, and what it would take.
    reads_private : bool
        Whether figures that no ε covers were read: then neither it nor the absence of a finding
        may be published.
    """

    findings: tuple[Finding, ...]
    looked: tuple[str, ...]
    missing: tuple[str, ...]
    reads_private: bool

    def __str__(self) -> str:
        parts = [str(finding) for finding in self.findings]
        looked = "; ".join(self.looked) or "nothing"
        lines = [f"{'Looked at' if parts else 'Nothing found among'}: {looked}."]
        lines += [f"Not looked at: {what}." for what in self.missing]
        if self.reads_private:
            lines.append(
                "Private: it reads figures that no ε covers. Keep it where the updates are kept; "
                "diagnose(history, private=False) reads released figures alone."
            )
        else:
            lines.append("Read from released figures alone.")
        return "\n".join([*parts, *map(fill, lines)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; private where `reads_private` says so."""
        return asdict(self)


@dataclass
class _Case:
    """What is known of a run: its numbers, None for those that the history does not hold."""

    history: History
    may_read: bool

    def __post_init__(self) -> None:
        history, kept = self.history, self.history.private
        private = kept if self.may_read else {}
        own = not history.loss
        self.loss = np.asarray(private.get("loss", []) if own else history.loss, dtype=float)
        metric = private.get("metric", []) if own else history.metric
        is_accuracy = history.measure == "accuracy"
        self.accuracy = np.asarray(metric if is_accuracy else [], dtype=float)
        # Clients' own records were the exam.
        self.is_own_exam = own and len(self.loss) > 0
        self.clipped = np.asarray(private.get("clipped_fraction", []), dtype=float)
        self.came = float(np.sum(private.get("cohort", [])))
        self.malformed = float(np.sum(private.get("malformed", [])))
        self.zero = float(np.sum(private.get("zero", [])))
        # Which rounds were skipped is public, wherever it is kept.
        self.skipped = float(np.sum(kept.get("skipped", [])))
        weights = [p.detach() for p in history.model.parameters() if p.requires_grad]
        self.d = sum(p.numel() for p in weights)
        self.length = float(parameters_to_vector(weights).norm()) if weights else math.nan

    @property
    def reads_private(self) -> bool:
        """Whether any private figure stands in it."""
        return self.history.plan is None or self.is_own_exam or len(self.clipped) > 0

    @property
    def third(self) -> int:
        """A third of the rounds, at least one."""
        return math.ceil(len(self.loss) / 3)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.loss).all())

    @property
    def has_curve(self) -> bool:
        """Whether its loss tells anything: long enough, with a zero that means something."""
        return len(self.loss) >= FEWEST_ROUNDS and bool((self.loss > 0).all())

    @property
    def nobody(self) -> bool:
        return len(self.clipped) > 0 and float(self.clipped.max()) <= NOBODY

    @property
    def everybody(self) -> bool:
        return len(self.clipped) > 0 and float(self.clipped.mean()) >= EVERYBODY

    def late(self, curve: NDArray[np.float64]) -> tuple[float, float]:
        """The means of the last third of the rounds and of as many before."""
        k = self.third
        return float(curve[-k:].mean()), float(curve[-2 * k : -k].mean())

    @property
    def halving(self) -> float:
        """How many times its rounds the loss would take to halve, at the pace so far."""
        fall = math.log(self.loss[0] / self.late(self.loss)[0])
        return math.log(2) / fall if fall > 0 else math.inf

    @property
    def straightness(self) -> float:
        way = float(np.abs(np.diff(self.loss)).sum())
        return float(self.loss[0] - self.loss[-1]) / way if way > 0 else 1.0

    @property
    def reach(self) -> float:
        return float(np.sum(self.history.clip_norm)) / self.length


def _lost(case: _Case) -> Iterator[Finding]:
    rounds = max(case.history.rounds, 1)
    if case.skipped >= SOME_LOST * rounds:
        yield Finding(
            "rounds were skipped",
            case.skipped / rounds,
            f"{case.skipped:.0f} of {rounds} rounds released nothing, because too few came",
            "they are spent, and the model did not move in them",
            "a smaller min_survivors, a larger cohort, or fewer drop-outs",
            "from-a-laptop-to-a-population",
            is_likely=case.skipped >= MOST_LOST * rounds,
        )
    if case.came and case.malformed >= SOME_LOST * case.came:
        share = case.malformed / case.came
        yield Finding(
            "contributions are malformed",
            share,
            f"{share:.0%} of the contributions were NaN or infinite and counted as zero",
            "the sum holds fewer clients than the plan divides by, beside all of its noise",
            "look at one client alone: its data, its loss, a lower client learning rate",
            "from-a-laptop-to-a-population",
            is_private=True,
            is_likely=share >= MOST_LOST,
        )
    # A few zeros are clients that have nothing left to learn.
    if case.came and case.zero >= MOST_LOST * case.came:
        yield Finding(
            "contributions are zero",
            case.zero / case.came,
            f"{case.zero / case.came:.0%} of the contributions were exactly zero",
            "the model gives no gradient: its parameters are frozen, or its outputs far too large",
            "one client alone: is its loss finite, and does one step change its weights",
            "from-a-laptop-to-a-population",
            is_private=True,
        )


def _signal(case: _Case, plan: PrivacyPlan) -> Iterator[Finding]:
    rounds = max(case.history.rounds, 1)
    each = plan.snr(case.d)
    total = each * math.sqrt(rounds)
    if total >= FAINT:
        return
    carries = math.floor(case.d * (total / FAINT) ** 2)
    seen = (
        f"signal over noise is at most {total:.2g} in {rounds} rounds ({each:.2g} in one), with "
        f"d = {case.d:,} and noise z/m = {plan.noise_multiplier / plan.denominator:.2g} of C on "
        "each coordinate of the mean"
    )
    means = "the noise is longer than the updates, even if all of them agreed"
    if total >= DROWNED:
        means = "the noise is about as long as the updates, if all of them agreed"
    if carries >= SMALLEST_MODEL:
        cause = "the model is too large for this population"
        change = f"a model of at most about {carries:,} parameters; a part of it, or a head alone"
    else:
        cause = "too few clients: the noise is too loud for any model"
        needed = plan.needed(FAINT / math.sqrt(rounds), case.d)
        change = (
            f"about {needed['clients']:,} clients in place of {plan.clients:,}, or a larger ε; "
            "more rounds or other rates do not help"
        )
    yield Finding(
        cause,
        total,
        seen,
        means,
        change,
        "learning-rates-rounds-cohorts",
        is_likely=total < DROWNED,
    )


def _clip_too_large(case: _Case) -> Iterator[Finding]:
    if not case.nobody:
        return
    most = float(case.clipped.max())
    yield Finding(
        "the clip norm is too large",
        most,
        f"in no round were more than {most:.0%} of the updates clipped",
        "the noise is z·C, made for a length that no update has",
        "lower C until about half of the updates are clipped; or a larger client learning rate, "
        "if updates are short because clients hardly move",
        "the-clip-norm",
        is_private=True,
    )


def _rates(case: _Case) -> Iterator[Finding]:
    own = case.is_own_exam
    tells = own or len(case.clipped) > 0
    if not case.is_finite:
        where = int(np.argmin(np.isfinite(case.loss))) + 1
        yield Finding(
            "training diverges",
            float(where),
            f"the loss is not finite from round {where} on",
            "the steps are too long",
            "a tenth of the server's learning rate; then a tenth of the clients'",
            "learning-rates-rounds-cohorts",
            is_private=own,
        )
    elif case.has_curve and case.halving > SLOW:
        yield _standstill(case, own, tells)
    elif case.has_curve and case.straightness < OVERSHOT:
        yield _too_long(case, own)


def _too_long(case: _Case, own: bool) -> Finding:
    return Finding(
        "the server's learning rate is too large",
        case.straightness,
        f"the loss goes up and down: its net fall is {case.straightness:.2g} of its way; the "
        f"model's length is {1 / case.reach:.2g} times all clip norms together",
        "the server's steps, or its momentum, jump over where they should arrive",
        "a tenth of the server's learning rate, which costs no privacy",
        "learning-rates-rounds-cohorts",
        is_private=own,
    )


def _standstill(case: _Case, own: bool, tells: bool) -> Finding:
    """A loss that hardly fell: because steps are too short, or because they lead nowhere."""
    late = case.late(case.loss)[0]
    moved = f"the loss went from {case.loss[0]:.3g} to {case.loss[-1]:.3g}"
    chapter = "learning-rates-rounds-cohorts"
    is_straight = case.straightness >= STRAIGHT
    if case.reach < SHORT_REACH and not is_straight:
        return _too_long(case, own)
    if case.reach < SHORT_REACH:
        return Finding(
            "the clip norm is too small",
            case.reach,
            f"{moved}, and all clip norms together are {case.reach:.2g} of the model's length"
            + ("; every update was clipped" if case.everybody else ""),
            "the model cannot get anywhere in steps of length C, at a server's rate of 1",
            "a larger C, or a server's learning rate larger by as much: where all are clipped "
            "the two do the same, at the same signal over noise",
            "the-clip-norm",
            is_private=own or case.everybody,
        )
    if is_straight:
        return Finding(
            "the server's learning rate is too small",
            case.halving,
            f"{moved}, steadily; at this pace it takes {case.halving:.0f} times the rounds to "
            "halve",
            "the direction is right and the steps are short (unless the model was trained before)",
            "ten times the server's learning rate, which costs no privacy",
            chapter,
            is_private=own,
        )
    told = "the clipped share, which is private, tells which: nobody clipped is C"
    if case.everybody:
        told = "every update was clipped, so that it is not C"
    return Finding(
        "the steps lead nowhere: the clients' learning rate is too large"
        + ("" if case.everybody else ", or C"),
        late / case.loss[0],
        f"{moved}, up and down",
        f"what clients send has no common direction, or noise covers it; {told}",
        "a tenth of the clients' learning rate, one local epoch",
        chapter,
        is_private=tells,
    )


def _rounds(case: _Case) -> Iterator[Finding]:
    if not case.has_curve or not case.is_finite or case.halving > SLOW:
        return
    own, history = case.is_own_exam, case.history
    curve = case.accuracy if len(case.accuracy) else case.loss
    after, before = case.late(curve)
    is_rising = after < UNFINISHED_LOSS * before
    if len(case.accuracy):
        is_rising = after - before > UNFINISHED
    if is_rising:
        name = "accuracy" if len(case.accuracy) else "loss"
        yield Finding(
            "it stopped while it was still learning",
            after - before,
            f"mean {name} {before:.2f}, and {after:.2f} in the last {case.third} of "
            f"{len(curve)} rounds",
            "more rounds would help; they cost privacy, longer steps do not",
            "a larger server's learning rate or momentum first; then calibrate for more rounds",
            "learning-rates-rounds-cohorts",
            is_private=own,
        )
    best = history.best_round
    plan = history.plan
    if plan is not None and 0 < best < (1 - WASTED) * len(curve):
        yield Finding(
            "most of the budget went into rounds after the best one",
            float(best),
            f"round {best} of {len(curve)} was the best on the validation data; by then ε was "
            f"{up(plan.epsilon(best), 3)}",
            "the rounds after it brought noise and no progress",
            "calibrate for fewer rounds, which means less noise in each",
            "watching-the-model",
            is_likely=False,
        )


def _against(case: _Case, other: _Case) -> Iterator[Finding]:
    """What the noise costs, where the same run without noise is at hand."""
    if not len(case.accuracy) or not len(other.accuracy):
        return
    lost = other.late(other.accuracy)[0] - case.late(case.accuracy)[0]
    if lost >= COSTLY:
        yield Finding(
            "the noise costs accuracy",
            lost,
            f"at the end the run without noise has {100 * lost:.0f} points more",
            "the rest of the program learns, so look at what makes the noise loud",
            "the findings on signal, model size, clients and clip norm, in this order",
            "start-at-eight-and-tighten",
            is_private=True,
            is_likely=False,
        )


def _not_the_noise(other: _Case) -> Iterator[Finding]:
    """The same run without noise does not learn either."""
    for found in (*_rates(other), *_rounds(other)):
        if found.is_likely:
            yield Finding(
                "it does not learn without noise either",
                found.value,
                f"without noise: {found.seen}",
                f"the reason is not the noise; there, {found.cause}",
                found.change,
                found.chapter,
                is_private=True,
            )


def _unseen(case: _Case, other: _Case | None) -> Iterator[str]:
    """What the history does not hold."""
    if case.history.plan is None:
        yield "signal to noise (the run has no plan)"
    if not case.d:
        yield "model size (the history holds no model)"
    if not len(case.loss):
        yield (
            "learning rates, rounds (the history holds no validation curve that may be read: give "
            "train validation=, records that are public)"
        )
    elif not case.has_curve:
        yield (
            f"learning rates, rounds (the loss has fewer than {FEWEST_ROUNDS} points, or is not "
            "positive)"
        )
    if not len(case.clipped):
        yield (
            "clipped share, malformed contributions (private: only the run's own history has them)"
        )
    if other is None:
        yield "what the noise costs (give without_noise=, the same run with plan=None)"
    yield "norms of updates, learning rates as they were set (no history holds them)"


def diagnose(
    history: History, *, without_noise: History | None = None, private: bool = True
) -> Diagnosis:
    """Why a run does not learn: the likely causes first, each with what to change.

    It reads the plan, the released model and the validation curve, which the run's statement
    covers; and, unless told not to, what the server saw in the clear, which nothing covers. It
    says what it could not look at. That it finds nothing does not say that all is well.

    Parameters
    ----------
    history : History
        Of the run, as `train` returned it: a copy or a pickle has no private figures.
    without_noise : History, optional
        Of the same run with `plan=None` and the same clip. No ε covers anything of it.
    private : bool
        False reads released figures alone, so that the diagnosis may be published.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        For what is no history; for `private=False` with a run that no ε covers.

    References
    ----------
    That the clipped share and the signal to noise are worth a look, and what may be published of
    them: Ponomareva et al. 2023.

    Examples
    --------
    >>> import fldp, torch
    >>> x, y = fldp.datasets.digits()
    >>> people = fldp.clients.partition(x, y, clients=20, seed=0)
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=5, clients=20)
    >>> history = fldp.train(torch.nn.Linear(64, 10), people, plan, validation=(x, y))
    >>> fldp.diagnose(history, private=False).findings[0].cause
    'too few clients: the noise is too loud for any model'
    """
    if not isinstance(history, History):
        raise ValueError(f"history is {shown(history)}: give what fldp.train returned")
    if not isinstance(without_noise, History | None):
        raise ValueError(
            f"without_noise is {shown(without_noise)}: give a history, or leave it out"
        )
    plan = history.plan
    if not private and (plan is None or without_noise is not None):
        raise ValueError(
            "private is False, but no ε covers a run without a plan: leave private out, and keep "
            "the diagnosis to yourself, or give a run with a plan alone"
        )
    case = _Case(history, private)
    other = None if without_noise is None else _Case(without_noise, True)
    looked, found = _examined(case, other)
    found.sort(key=lambda finding: not finding.is_likely)
    return Diagnosis(
        tuple(found),
        tuple(looked),
        tuple(_unseen(case, other)),
        case.reads_private or other is not None,
    )


def _examined(case: _Case, other: _Case | None) -> tuple[list[str], list[Finding]]:
    """What was looked at and what was found, in the order of the checklist."""
    plan = case.history.plan
    looked, found = [], []
    if len(case.clipped):
        looked.append("lost contributions")
    found += _lost(case)
    if other is not None:
        looked.append("the run without noise")
        found += _not_the_noise(other)
    if plan is not None and case.d:
        looked += ["signal to noise", "model size", "population"]
        found += _signal(case, plan)
    if len(case.clipped):
        looked.append("clipped share")
        found += _clip_too_large(case)
    if len(case.loss):
        looked += ["learning rates", "rounds"] if case.has_curve else []
        # A likely cause so far explains the curve.
        if not any(finding.is_likely for finding in found):
            found += (*_rates(case), *_rounds(case))
    if other is not None:
        found += _against(case, other)
    return looked, found
