"""A guarantee for people who are no experts: a bet, odds, and whom it does not stop."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fldp._text import WIDTH, down
from fldp.plan.drawn import amplified
from fldp.plan.exposure import Exposure, content_of
from fldp.plan.statement import WEAK

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# What the observer wants to know, by the adjacency.
_QUESTIONS = {
    "add-or-remove": "whether your {client} took part at all",
    "zero-out": "whether what your {client} sent was counted or was nothing",
    "replace-one": "whether your {client} sent what it sent or something else",
}
# Above it is of no use to say so: 100 in 100 is no bound.
_CERTAIN = 99
# One training in more than these is not told apart, and takes many digits.
_SELDOM = 10**9
# A prior of one in so many, as the page takes it.
_ONE_IN = 100


@dataclass(frozen=True)
class Label:
    """The page; `str` writes it. Every figure is rounded against the promise.

    Parameters
    ----------
    plan
        The plan.
    found
        What `exposures` found for it, the plan's own guarantee first.
    client
        What one client is, in a word.
    group
        How many of them one person has; None: nobody said.
    seeds
        Whether the draws, and whether the noise, came from a seed.

    Examples
    --------
    >>> import re
    >>> from fldp.plan import calibrate
    >>> from fldp.plan.exposure import exposures
    >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
    >>> page = str(Label(plan, exposures(plan)))
    >>> re.search("they win at most .. in 100", " ".join(page.split()))[0]
    'they win at most 56 in 100'
    """

    plan: PrivacyPlan
    found: Sequence[Exposure]
    client: str = "client"
    group: int | None = None
    seeds: tuple[bool, bool] = (False, False)

    def __str__(self) -> str:
        first = self.found[0]
        parts = [
            f"What the noise promises to you and your {self.client}",
            f"Protected is everything that one {self.client} contributes to the training, all of "
            "it together.",
            f"Who is looking: {self._who()}. They may know all data of everybody else. They "
            f"wonder {_QUESTIONS[self.plan.adjacency].format(client=self.client)}.",
            f"As a bet. Suppose both answers are equally likely to them. They bet, at even odds. "
            f"A coin wins 50 in 100. However clever they are, {_wins(first)}.",
            *self._odds(first),
            *(text for each in self.found[1:] for text in self._more(each)),
            self._server(),
            "Not promised: that nothing is learned about people like you. What the model finds "
            "out about everybody is found out without you as well. Nor does it cover what else "
            f"leaves your {self.client}, or how the settings were chosen.",
        ]
        if self.seeds[1]:
            parts.append(
                "Warning: the noise came from a seed. Whoever knows or guesses it can take the "
                "noise away. Against them nothing on this page holds."
            )
        if first.epsilon > WEAK:
            parts.append("Warning: experts call a promise of this size weak.")
        return "\n\n".join(textwrap.fill(part, WIDTH) for part in parts)

    def _who(self) -> str:
        if self.plan.trust == "local":
            return (
                f"anybody, also those who run the training: they see all that your {self.client} "
                "sends, and when"
            )
        if self.plan.trust == "distributed":
            return (
                "those who run the training, and anybody else. They see sums over many, never what "
                f"your {self.client} sent alone, and they know when it took part"
            )
        sees = "somebody who sees every version of the model"
        if self.seeds[0]:
            return f"{sees} and knows by which seed clients were drawn, but nothing that was sent"
        if amplified(self.plan) or self.plan.adjacency == "add-or-remove":
            return f"{sees}, but nothing that was sent, and not who took part"
        return f"{sees} and who took part, but nothing that was sent"

    def _odds(self, each: Exposure) -> list[str]:
        if not math.isfinite(each.factor):
            return []
        odds = each.factor / (_ONE_IN - 1)
        percent = math.ceil(100 * odds / (1 + odds))
        after = f"at most {percent} in 100"
        if percent == 100:
            after = "as good as certain"
        seldom = _SELDOM
        if each.exceptions > 1 / _SELDOM:
            seldom = int(float(down(1 / each.exceptions, 2)))
        often = f"one training in {seldom:,}"
        return [
            f"As odds. Suppose they first think that the chance of it is 1 in {_ONE_IN}. Having "
            f"seen all, they think it {after}, but for {often} at most, for which nothing is said."
        ]

    def _more(self, each: Exposure) -> list[str]:
        if each.name == "record":
            return [
                "If they wonder about one thing in your data, such as whether one entry is this or "
                f"that, and know all the rest: {_wins(each)}."
            ]
        if each.name == "cohort known":
            # Who is known to take part cannot be hidden: what was sent is.
            asked = _QUESTIONS[content_of(self.plan)].format(client=self.client)
            return [
                f"Somebody who also knows in which rounds your {self.client} took part, and "
                f"wonders {asked}: {_wins(each)}."
            ]
        return [f"If {self.group} of them are yours, all together: {_wins(each)}."]

    def _server(self) -> str:
        if self.plan.trust == "central":
            return (
                "Whom you must trust: those who run the training. They see what your "
                f"{self.client} sends before the noise is added. The promise is not against them."
            )
        if self.plan.trust == "distributed":
            return (
                f"Whom you must trust: the protocol that adds up in secret, and that in every sum "
                f"at least {self.plan.min_survivors:,} of those who take part are honest."
            )
        return f"Whom you must trust: the program on your {self.client}, which adds the noise."


def _wins(each: Exposure) -> str:
    percent = 100 * each.bet
    if percent > _CERTAIN:
        return "nothing useful is promised: they may win nearly every bet"
    return f"they win at most {math.ceil(percent)} in 100"
