"""The checks that a run which does not learn is put through, and what each says in plain words.

Each takes the figures of a run and yields what it found, most often nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fldp._text import fill, up
from fldp.plan import PrivacyPlan
from fldp.simulation import symptoms as limits
from fldp.simulation.symptoms import Symptoms


@dataclass(frozen=True)
class Reason:
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
        Whether a figure that no ε covers is in it. (That it is there may depend on others.)
    is_likely : bool
        Whether it alone would explain a run that does not learn; else it costs something.

    Examples
    --------
    >>> print(Reason("too few clients", 0.5, "a", "b", "c", "the-clip-norm"))
    Likely: too few clients
      Seen: a.
      That means: b.
      Change: c.
      Read: the-clip-norm
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


def lost(run: Symptoms) -> Iterator[Reason]:
    """Rounds that released nothing, and contributions that counted as zero.

    Parameters
    ----------
    run : Symptoms
        Of the run.

    Yields
    ------
    Reason
    """
    rounds = max(run.history.rounds, 1)
    if run.skipped >= limits.SOME_LOST * rounds:
        yield Reason(
            "rounds were skipped",
            run.skipped / rounds,
            f"{run.skipped:.0f} of {rounds} rounds released nothing, because too few came",
            "they are spent, and the model did not move in them",
            "a smaller min_survivors, a larger cohort, or fewer drop-outs",
            "from-a-laptop-to-a-population",
            is_likely=run.skipped >= limits.MOST_LOST * rounds,
        )
    if run.came and run.malformed >= limits.SOME_LOST * run.came:
        share = run.malformed / run.came
        yield Reason(
            "contributions are malformed",
            share,
            f"{share:.0%} of the contributions were NaN or infinite and counted as zero",
            "the sum holds fewer clients than the plan divides by, beside all of its noise",
            "look at one client alone: its data, its loss, a lower client learning rate",
            "from-a-laptop-to-a-population",
            is_private=True,
            is_likely=share >= limits.MOST_LOST,
        )
    # A few zeros are clients that have nothing left to learn.
    if run.came and run.zero >= limits.MOST_LOST * run.came:
        yield Reason(
            "contributions are zero",
            run.zero / run.came,
            f"{run.zero / run.came:.0%} of the contributions were exactly zero",
            "the model gives no gradient: its parameters are frozen, or its outputs far too large",
            "one client alone: is its loss finite, and does one step change its weights",
            "from-a-laptop-to-a-population",
            is_private=True,
        )


def faint_signal(run: Symptoms, plan: PrivacyPlan) -> Iterator[Reason]:
    """Noise longer than what the clients send, at best: too large a model, or too few clients.

    Parameters
    ----------
    run : Symptoms
        Of the run.
    plan : PrivacyPlan
        Of the run.

    Yields
    ------
    Reason
    """
    rounds = max(run.history.rounds, 1)
    each = plan.snr(run.d)
    total = each * math.sqrt(rounds)
    if total >= limits.FAINT:
        return
    carries = math.floor(run.d * (total / limits.FAINT) ** 2)
    noise = 1 / (each * math.sqrt(run.d))
    seen = (
        f"signal over noise is at most {total:.2g} in {rounds} rounds ({each:.2g} in one), with "
        f"d = {run.d:,} and noise of {noise:.2g} C on each coordinate of the mean"
    )
    cancels = plan.correlation is not None and plan.correlation.order > 0
    if cancels:
        seen += ", as far as it stays in sums of the rounds"
    means = "the noise is longer than the updates, even if all of them agreed"
    if total >= limits.DROWNED:
        means = "the noise is about as long as the updates, if all of them agreed"
    if carries >= limits.SMALLEST_MODEL:
        cause = "the model is too large for this population"
        change = f"a model of at most about {carries:,} parameters; a part of it, or a head alone"
    else:
        cause = "too few clients for this noise"
        # So many clients by any accountant: at their q the noise stays.
        exact = replace(plan, accountant="pld")
        # Where cohorts are drawn, more rounds bring it nearer to what everybody would give; and of
        # correlated noise more cancels in more of them.
        helps = cancels or plan.event.sampling != "none"
        useless = "other rates" if helps else "more rounds or other rates"
        needed = exact.needed(limits.FAINT / math.sqrt(rounds), run.d)
        change = (
            f"about {needed['clients']:,} clients in place of {plan.clients:,}, or a larger ε; "
            f"{useless} do not help"
        )
    yield Reason(
        cause,
        total,
        seen,
        means,
        change,
        "learning-rates-rounds-cohorts",
        is_likely=total < limits.DROWNED,
    )


def clip_too_large(run: Symptoms) -> Iterator[Reason]:
    """A clip norm that no update reaches.

    Parameters
    ----------
    run : Symptoms
        Of the run.

    Yields
    ------
    Reason
    """
    # Without noise a clip that nobody reaches costs nothing.
    if not run.nobody or run.history.plan is None:
        return
    most = float(run.clipped.max())
    seen = f"in no round were more than {most:.0%} of the updates clipped"
    if most == 0:
        seen = "no update was clipped in any round"
    yield Reason(
        "the clip norm is too large",
        most,
        seen,
        "the noise is z·C, made for a length that no update has",
        "lower C until about half of the updates are clipped; or a larger client learning rate, "
        "if updates are short because clients hardly move",
        "the-clip-norm",
        is_private=True,
    )


def wrong_rates(run: Symptoms) -> Iterator[Reason]:
    """Steps that are too short, too long, or lead nowhere, where the noise is not the reason.

    Parameters
    ----------
    run : Symptoms
        Of the run.

    Yields
    ------
    Reason
    """
    own = run.is_own_exam
    tells = own or len(run.clipped) > 0
    if not run.is_finite:
        where = len(run.loss)
        seen = "the released model holds weights that are not finite"
        if not run.finite.all():
            where = int(np.argmin(run.finite)) + 1
            seen = f"the loss is not finite in round {where}"
        yield Reason(
            "training diverges",
            float(where),
            seen,
            "the steps are too long",
            "a tenth of the server's learning rate; then a tenth of the clients'",
            "learning-rates-rounds-cohorts",
            is_private=own,
        )
    elif run.has_curve and run.way == 0:
        yield _still(run, own)
    elif run.has_curve and run.halving > limits.SLOW and run.is_settled:
        yield _settled(run, own)
    elif run.has_curve and run.halving > limits.SLOW:
        yield _standstill(run, own, tells)
    elif run.has_curve and run.straightness < limits.OVERSHOT:
        yield _too_long(run, own)


def _still(run: Symptoms, own: bool) -> Reason:
    return Reason(
        "nothing moves",
        float(run.loss[0]),
        f"the loss is {run.loss[0]:.3g} in every round, to the last digit",
        "what is released does not reach the outputs: no parameter trains, the server's steps are "
        "lost in rounding, or the outputs are stuck",
        "one client alone: does one step change its weights, and do they change its outputs",
        "learning-rates-rounds-cohorts",
        is_private=own,
    )


def _settled(run: Symptoms, own: bool) -> Reason:
    after, before = run.late(run.loss)
    return Reason(
        "the loss fell and then stayed",
        after / run.loss[0],
        f"the loss went from {run.loss[0]:.3g} to {before:.3g}, and to {after:.3g} in the last "
        f"{run.third} of {len(run.loss)} rounds",
        "this model may find no more in these records, and then all is well with the run",
        "the model or its features, if the same run without noise, on stand-ins, ends there too",
        "from-a-laptop-to-a-population",
        is_private=own,
        is_likely=False,
    )


def _too_long(run: Symptoms, own: bool) -> Reason:
    far = 1 / run.reach if run.reach else math.inf
    return Reason(
        "the server's learning rate is too large",
        run.straightness,
        f"the loss goes up and down: its net fall is {run.straightness:.2g} of its way; the "
        f"model's length is {far:.2g} times all clip norms together",
        "the server's steps, or its momentum, jump over where they should arrive",
        "a tenth of the server's learning rate, which costs no privacy",
        "learning-rates-rounds-cohorts",
        is_private=own,
    )


def _standstill(run: Symptoms, own: bool, tells: bool) -> Reason:
    """A loss that hardly fell: because steps are too short, or because they lead nowhere."""
    late = run.late(run.loss)[0]
    moved = f"the loss went from {run.loss[0]:.3g} to {run.loss[-1]:.3g}"
    chapter = "learning-rates-rounds-cohorts"
    is_straight = run.straightness >= limits.STRAIGHT
    if run.reach < limits.SHORT_REACH and not is_straight:
        return _too_long(run, own)
    if run.reach < limits.SHORT_REACH:
        return Reason(
            "the clip norm is too small",
            run.reach,
            f"{moved}, and all clip norms together are {run.reach:.2g} of the model's length"
            + ("; every update was clipped" if run.everybody else ""),
            "the model cannot get anywhere in steps of length C, at a server's rate of 1",
            "a larger C, or a server's learning rate larger by as much: where all are clipped "
            "the two do the same, at the same signal over noise",
            "the-clip-norm",
            is_private=own or run.everybody,
        )
    if is_straight:
        return Reason(
            "the server's learning rate is too small",
            run.halving,
            f"{moved}, steadily; at this pace it takes {run.halving:.0f} times the rounds to halve",
            "the direction is right and the steps are short (unless the model was trained before)",
            "ten times the server's learning rate, which costs no privacy",
            chapter,
            is_private=own,
        )
    told = "the clipped share, which is private, tells which: nobody clipped is C"
    if run.everybody:
        told = "every update was clipped, so that it is not C"
    return Reason(
        "the steps lead nowhere: the clients' learning rate is too large"
        + ("" if run.everybody else ", or C"),
        late / run.loss[0],
        f"{moved}, up and down",
        f"what clients send has no common direction, or noise covers it; {told}",
        "one local epoch; then a tenth of the clients' learning rate; then look at one client's "
        "records and labels",
        chapter,
        is_private=tells,
    )


def wrong_rounds(run: Symptoms) -> Iterator[Reason]:
    """Too few rounds, or too many.

    Parameters
    ----------
    run : Symptoms
        Of the run.

    Yields
    ------
    Reason
    """
    if not run.has_curve or not run.is_finite or run.halving > limits.SLOW:
        return
    own, history = run.is_own_exam, run.history
    curve = run.accuracy if len(run.accuracy) else run.loss
    after, before = run.late(curve)
    is_rising = after < limits.UNFINISHED_LOSS * before
    if len(run.accuracy):
        is_rising = after - before > limits.UNFINISHED
    if is_rising:
        name = "accuracy" if len(run.accuracy) else "loss"
        yield Reason(
            "it stopped while it was still learning",
            after - before,
            f"mean {name} {before:.2f}, and {after:.2f} in the last {run.third} of "
            f"{len(curve)} rounds",
            "more progress was to be had; more rounds cost privacy, longer steps do not",
            "a larger server's learning rate or momentum first; then calibrate for more rounds",
            "learning-rates-rounds-cohorts",
            is_private=own,
        )
    best = history.best_round
    plan = history.plan
    fell = run.late(run.loss)
    is_early = 0 < best < (1 - limits.WASTED) * len(curve)
    if plan is not None and is_early and fell[0] >= fell[1]:
        yield Reason(
            "most of the budget went into rounds after the best one",
            float(best),
            f"round {best} of {len(curve)} was the best on the validation data; by then ε was "
            f"{up(history.epsilon[best - 1], 3)} at δ = {up(plan.delta)}",
            "the rounds after it brought noise and no progress",
            "calibrate for fewer rounds, which means less noise in each",
            "watching-the-model",
            is_likely=False,
        )


def price_of_noise(run: Symptoms, other: Symptoms) -> Iterator[Reason]:
    """What the noise costs, where the same run without noise is at hand.

    Parameters
    ----------
    run, other : Symptoms
        Of the run, and of the one without noise.

    Yields
    ------
    Reason
    """
    if not len(run.accuracy) or not len(other.accuracy):
        return
    lost = other.late(other.accuracy)[0] - run.late(run.accuracy)[0]
    if lost >= limits.COSTLY:
        yield Reason(
            "the noise costs accuracy",
            lost,
            f"at the end the run without noise has {100 * lost:.0f} points more",
            "the rest of the program learns, so look at what makes the noise loud",
            "the findings on signal, model size, clients and clip norm, in this order",
            "start-at-eight-and-tighten",
            is_private=True,
            is_likely=False,
        )


def not_the_noise(other: Symptoms) -> Iterator[Reason]:
    """The same run without noise does not learn either.

    Parameters
    ----------
    other : Symptoms
        Of the run without noise.

    Yields
    ------
    Reason
    """
    for found in (*wrong_rates(other), *wrong_rounds(other)):
        if found.is_likely:
            yield Reason(
                "it does not learn without noise either",
                found.value,
                f"without noise: {found.seen}",
                f"the reason is not the noise; there, {found.cause}",
                found.change,
                found.chapter,
                is_private=True,
            )
