"""The guarantee of a plan, or of what was run under it, as a record to publish.

Its fields are those of the public registry of deployments (Nanayakkara, Ghazi & Vadhan 2025; the
idea is the Epsilon Registry of Dwork, Kohli & Mulligan 2019), and the questions follow NIST SP
800-226. Figures and clauses come from the plan; who, what and why are facts that only people know.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fldp import __version__, accounting
from fldp._checks import real, shown, whole
from fldp._text import down, is_printed, plain, up
from fldp.accounting.events import AnyEvent, Filtered
from fldp.plan import statement as words
from fldp.plan.exposure import Exposure, exposures
from fldp.plan.label import Label
from fldp.plan.registry import FACTS, NOT_STATED, fields_of, questions

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

_WHO = {
    "observer": "the observer of this record",
    "record": "the same observer, on one thing in a client's data (replace-one)",
    "cohort known": "who also knows who took part (central trust: not the server)",
    "group": "the same observer, on all {group} clients of one person",
}


@dataclass(frozen=True)
class Report:
    """A guarantee as a record; made by `PrivacyPlan.report`. It prints as Markdown.

    Parameters
    ----------
    plan
        What was planned.
    facts
        What the caller stated; every name of `FACTS` that is missing stands as "not stated".
    events
        What was really run; None: the record is about the plan.
    statement
        The guarantee in words.
    clauses
        The same, by what they are about.
    notes
        What else is known of the run: skipped rounds, a seed, other releases.
    found
        Who finds out how much.
    clip_norm
        C, where it is stated.
    group
        How many clients one person has, where it is stated.
    participations
        With a seed for the draws: the most rounds of any client; None: no seed.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
    >>> report = plan.report(name="Next word", client="phone")
    >>> deployment = report.to_dict()["registry"]["deployment"]
    >>> deployment["privacy_loss"]["privacy_parameters"]
    {'epsilon': 1.0, 'delta': 1e-05}
    >>> "purpose" in report.missing
    True
    """

    plan: PrivacyPlan
    facts: Mapping[str, str]
    events: Sequence[AnyEvent] | None
    statement: str
    clauses: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    found: Sequence[Exposure]
    clip_norm: float | None = None
    group: int | None = None
    participations: int | None = field(default=None, repr=False)

    @property
    def missing(self) -> list[str]:
        """The facts that are not stated yet, by their keyword in `PrivacyPlan.report`."""
        absent = [name for name in FACTS if name not in self.facts]
        for name, value in (("clip_norm", self.clip_norm), ("group", self.group)):
            if value is None:
                absent.append(name)
        return absent

    @property
    def epsilon(self) -> float:
        """ε against the observer of the first clause: of what was run, else of the whole plan.

        By the plan's accountant, or by our own where that is an approximation ("gdp") or the
        smaller one.
        """
        own = self.found[0].epsilon
        if self.plan.accountant in ("pld", "gdp") or self.participations is not None:
            return own
        events = self.plan.events() if self.events is None else self.events
        return max(own, self.plan.spent(events))

    def label(self) -> str:
        """A page for people who are no experts: a bet and odds, no symbols, never overstated.

        Returns
        -------
        str
            Lines of at most 76 characters.

        Examples
        --------
        >>> from fldp.plan import calibrate
        >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
        >>> print(plan.report(client="phone").label().splitlines()[0])
        What the noise promises to you and your phone
        """
        return str(Label(self.plan, self.found, self._client, self.group, self._seeds))

    @property
    def _one_round(self) -> float:
        if self.participations is not None:
            return self.plan.seeded_epsilon(1)
        return accounting.epsilon_of(self.plan.events(1), self.plan.delta, self.plan.adjacency)

    @property
    def _client(self) -> str:
        return self.facts.get("client", "client")

    @property
    def _seeds(self) -> tuple[bool, bool]:
        """Whether the draws, and whether the noise, came from a seed."""
        return self.participations is not None, bool(self.clauses["reproducible"])

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values.

        Returns
        -------
        dict
            "registry": in the fields of the registry's schema, ready for a draft once nothing is
            `missing`. "observers": who finds out how much, where None is no finite bound.
            "settings": N, m, q, T, z, C and the rest. "nist_sp_800_226": questions and answers.
            "statement", "notes", "missing" and "fldp", the version.
        """
        return {
            "registry": self._registry(),
            "observers": self._observers(),
            "settings": self._settings(),
            "nist_sp_800_226": [
                {"question": question, "answer": answer} for question, answer in self._questions()
            ],
            "statement": self.statement,
            "notes": list(self.notes),
            "missing": self.missing,
            "fldp": __version__,
        }

    def to_json(self) -> str:
        """`to_dict` as text.

        Returns
        -------
        str
            One JSON object.
        """
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """The record as a page.

        Returns
        -------
        str
            Markdown with a heading for each part.
        """
        title = plain(self.facts.get("name", "A model trained with differential privacy"))
        parts = [f"# {title}: privacy record", "## Against whom", self._table(), "## Record"]
        for name, fields in self._registry()["deployment"].items():
            parts.append(f"### {name.replace('_', ' ')}\n\n" + "\n".join(_lines(fields)))
        parts += ["## Settings", "\n".join(_lines(self._settings()))]
        parts.append("## Questions of NIST SP 800-226, in our words")
        parts += [f"**{question}** {plain(answer)}" for question, answer in self._questions()]
        parts += ["## Statement", f"```text\n{self.statement}\n```"]
        if self.notes:
            parts += ["## What was run", "\n".join(f"- {note}" for note in self.notes)]
        if self.missing:
            parts += ["## Not stated yet", ", ".join(f"`{name}`" for name in self.missing)]
        return "\n\n".join(parts) + "\n"

    __str__ = to_markdown

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _observers(self) -> list[dict[str, Any]]:
        rows = []
        for each in self.found:
            rows.append(
                {
                    "who": _WHO[each.name].format(group=self.group),
                    "epsilon": _rounded(each.epsilon),
                    "bet": float(up(each.bet)),
                }
            )
        # The first row is the record's own ε, whoever accounted it.
        rows[0]["epsilon"] = _rounded(self.epsilon)
        if self.plan.trust == "central":
            rows.append({"who": "the server, which sees updates", "epsilon": None, "bet": 1.0})
        return rows

    def _table(self) -> str:
        lines = ["| who | ε | wins an even bet at most |", "|---|---|---|"]
        for row in self._observers():
            epsilon = _or(row["epsilon"], "no bound")
            lines.append(f"| {row['who']} | {epsilon} | {row['bet']:.4g} |")
        return "\n".join([*lines, "", f"δ = {up(self.plan.delta)} in every row."])

    def _settings(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "clients N": plan.clients,
            "expected cohort m": plan.cohort,
            "sampling rate q": plan.sampling_rate,
            "rounds T": plan.rounds,
            "noise multiplier z": float(down(plan.noise_multiplier, 6)),
            "clip norm C": _or(self.clip_norm, NOT_STATED),
            "target ε": plan.target_epsilon,
            "ε of one round": float(up(self._one_round)),
            "cap": _or(plan.cap, "none"),
            "min_survivors": _or(plan.min_survivors, "none"),
            "clients of one person": _or(self.group, NOT_STATED),
        }

    def _registry(self) -> dict[str, Any]:
        epsilon = _rounded(self.epsilon)
        complete = not self.missing
        return fields_of(self.plan, self.facts, self.clauses, epsilon, complete, self.notes)

    def _questions(self) -> list[tuple[str, str]]:
        return questions(self.plan, self.facts, self.clauses, self._several())

    def _several(self) -> str:
        if self.group is None:
            return f"{NOT_STATED}: then a person with several is protected less than this says."
        if self.group == 1:
            return "No: one person, one client."
        epsilon = self.found[-1].epsilon
        told = f"ε = {up(epsilon)}" if math.isfinite(epsilon) else "there is no bound"
        return f"Up to {self.group}: for all of one person's together {told}."


def report(
    plan: PrivacyPlan,
    run: Any = None,
    *,
    clip_norm: float | None = None,
    group: int | None = None,
    participations: int | None = None,
    reproducible: bool = False,
    **facts: str,
) -> Report:
    """See `PrivacyPlan.report`.

    Parameters
    ----------
    plan, run, clip_norm, group, participations, reproducible, **facts
        As there.

    Returns
    -------
    Report
        The record.

    Raises
    ------
    ValueError
        As there.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> report(calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)).found[0].bet < 0.68
    True
    """
    facts = _checked_facts(facts)
    if clip_norm is not None:
        clip_norm = real("clip_norm", clip_norm)
    if group is not None:
        group = whole("group", group)
    most = participations
    if most is not None:
        most = whole("participations", most, 0)
    events: list[AnyEvent] | None = None
    notes: list[str] = []
    told = ""
    if run is not None:
        events, notes = _ran(plan, run)
        # A history knows of its seeds, a ledger does not.
        told = getattr(run, "statement", "")
        if told and (participations is not None or reproducible):
            raise ValueError(
                "run is a history, which knows of its seeds: leave participations and "
                "reproducible out"
            )
        served = getattr(run, "participations", None)
        if served is not None:
            most = max([0, *served])
        reproducible = reproducible or words.REPRODUCIBLE in told
    found = exposures(plan, events, most, group)
    clauses = _clauses(plan, events, most, reproducible, found[0].epsilon)
    if plan.accountant == "gdp":
        notes.append(
            "The accountant gdp is an approximation, which can be too low: the ε of this record, "
            f"{up(found[0].epsilon)}, is a bound of our own."
        )
    return Report(
        plan=plan,
        facts=dict(facts),
        events=events,
        statement=told or words.written(plan, clauses),
        clauses=clauses,
        notes=notes,
        found=found,
        clip_norm=clip_norm,
        group=group,
        participations=most,
    )


def _rounded(epsilon: float) -> float | None:
    """ε rounded up; None where there is no finite bound, which JSON does not have."""
    return float(up(epsilon)) if math.isfinite(epsilon) else None


def _or(value: float | None, words: str) -> float | str:
    return words if value is None else value


def _clauses(
    plan: PrivacyPlan,
    events: Sequence[AnyEvent] | None,
    most: int | None,
    reproducible: bool,
    epsilon: float,
) -> dict[str, list[str]]:
    """The statement's clauses; of a run, those of the rounds that ran, more or fewer than planned.

    What else its population released is in the first clause, and in no figure behind it.
    """
    if events is None:
        return words.clauses(plan, reproducible, most)
    own, others = _counted(plan, events)
    if own == 0:
        # Nothing ran: what is said is of the plan, in which a client may serve in every round.
        ran, most = plan, None if most is None else plan.rounds
    else:
        ran = replace(plan, rounds=max(own, most or 0))
    told = words.clauses(ran, reproducible, most)
    if others:
        first = (
            f"All that was released so far, also what is no round of this plan ({others} in all): "
            f"({up(epsilon)}, {up(plan.delta)})-differential privacy at the client level"
            f"{', which is weak' if epsilon > words.WEAK else ''}. What follows is of the rounds "
            "alone."
        )
        told["headline"].insert(0, first)
        told["others"] = [f"Of the rounds alone. {line}" for line in told["others"]]
    return told


def _counted(plan: PrivacyPlan, events: Sequence[AnyEvent]) -> tuple[int, int]:
    """How many of the events' rounds are the plan's, and how many other releases there are."""
    others = sum(event.rounds for event in _others(plan, events))
    return sum(event.rounds for event in events) - others, others


def _others(plan: PrivacyPlan, events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """What is no round of the plan's run. Where runs count by their names it has one, the longest.

    In another run of it clients may take part as often again.
    """
    rounds: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Filtered) and plan.owns(event):
            rounds[event.run] += event.rounds
    named = [name for name, _ in rounds.most_common(1)]
    return [
        event
        for event in events
        if not plan.owns(event) or (isinstance(event, Filtered) and event.run not in named)
    ]


def _checked_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts, a line each; ValueError for an unknown name and for what is no text."""
    checked = {}
    for name, value in facts.items():
        if name not in FACTS:
            raise ValueError(f"{name} is no fact of a report: give some of {', '.join(FACTS)}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{name} is {shown(value)}: say in words {FACTS[name]}, or leave it out"
            )
        # A fact with lines of its own could pass for headings and rows of the record.
        checked[name] = " ".join(value.split())
        if not is_printed(checked[name]):
            raise ValueError(
                f"{name} is {shown(value)}: it holds characters that do not print or turn the "
                "text around; leave them out"
            )
    return checked


def _ran(plan: PrivacyPlan, run: Any) -> tuple[list[AnyEvent], list[str]]:
    """What a history or a ledger says was spent, and what else there is to say of it."""
    if not hasattr(run, "events") or not hasattr(run, "plan"):
        raise ValueError(f"run is {shown(run)}: give what fldp.train returned, a Ledger, or None")
    if run.plan != plan:
        raise ValueError("run is of another plan: ask that plan (run.plan) for its report")
    events = [*getattr(run, "before", []), *run.events]
    own, count = _counted(plan, events)
    notes = [f"{own} of the {plan.rounds} rounds are spent."]
    if own > plan.rounds:
        notes.append("That is more than were planned: the plan's own ε does not hold.")
    if count:
        others = _others(plan, events)
        spent = up(accounting.epsilon_of(others, plan.delta, plan.adjacency))
        notes.append(f"{count} other releases are counted in; alone: ε = {spent}.")
    # Who came is public under distributed trust, and nowhere else.
    if plan.trust == "distributed":
        skipped = int(sum(getattr(run, "private", {}).get("skipped", [])))
        if skipped:
            notes.append(f"{skipped} rounds were skipped: they released nothing, and are spent.")
    if hasattr(run, "entries"):
        notes.append("A ledger does not say whether draws or noise came from a seed.")
    return events, notes


def _lines(fields: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in fields.items():
        told = value
        if isinstance(value, dict):
            told = ", ".join(f"{key} = {number}" for key, number in value.items())
        elif isinstance(value, list):
            told = ", ".join(value)
        elif isinstance(value, float):
            told = f"{value:.6g}"
        lines.append(f"- {name.replace('_', ' ')}: {plain(str(told))}")
    return lines
