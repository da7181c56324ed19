"""Checks of *Design a deployment*."""

from __future__ import annotations

import math
import re
from typing import Any

from scipy.stats import binom

import fldp
from course import Call, Draw, Part, check, hidden, number, table, text
from fldp.accounting.binomial import binomial_tail

MODELS = "readers of the models"
SUMS = "the server, which sees secure sums"
MESSAGES = "the server, which sees messages"
COINS = "coins"
AWAKE = "whoever is awake"
# What is asked for in words. No public check uses the two tables below, which are an answer.
WORDS = {
    "trust": ("central", "distributed", "local"),
    "sampling": ("poisson", "fixed", "none"),
    "adjacency": ("add-or-remove", "zero-out", "replace-one"),
}
TRUSTS = {MODELS: "central", SUMS: "distributed", MESSAGES: "local"}
ADJACENCIES = {
    "was it there": "add-or-remove",
    "what it sent": "zero-out",
    "which data it has": "replace-one",
}
# A round may be larger than there is room for once in a thousand, as the assignment says.
FULL = 1e-3
# A calibrated z meets its ε within a thousandth.
CALIBRATED = 1.002
SECTORS = ("Technology", "Healthcare", "Education", "Government", "Energy", "Finance")
KEYS = ("epsilon", "delta", "rounds", "clients", "cohort", "sampling", "trust", "adjacency")
MORE_KEYS = ("cap", "min_survivors")

EXAMPLE = {
    "clients": 12_000,
    "client": "phone",
    "devices": 2,
    "rounds": 80,
    "epsilon": 4.0,
    "against": MODELS,
    "question": "was it there",
    "draws": COINS,
    "room": 400,
    "dropout": 0.0,
    "skip": 0.01,
    "noise_on_mean": 0.0030,
}


@check("delta_for", points=1)
def one_in_a_hundred(call: Call, draw: Draw) -> None:
    """Publishing one client in full with chance N·δ: the brief allows one in a hundred."""
    found = number(call("delta_for", EXAMPLE))
    expected = found * EXAMPLE["clients"]
    assert 0 < expected <= 0.01 * CALIBRATED, f"N·δ is {expected:.3g}"
    assert expected >= 1e-4, f"N·δ is {expected:.3g}: so small a δ wastes noise"


@hidden("delta_for", points=1)
def other_populations(call: Call, draw: Draw) -> None:
    """δ has to follow the population, and not the cohort, the rounds or a habit."""
    for _ in range(4):
        clients = round(10 ** draw.uniform(2.5, 7.5))
        expected = clients * number(call("delta_for", EXAMPLE | {"clients": clients}))
        assert 1e-4 <= expected <= 0.01 * CALIBRATED, "another delta"


def brief_of(draw: Draw, against: str, draws: str) -> dict[str, Any]:
    """A brief that can be met."""
    question = draw.choice(list(ADJACENCIES)[1:])
    if against == MODELS and draw.random() < 0.5:
        question = "was it there"
    room = draw.randint(150, 600)
    brief = {
        "clients": room * draw.randint(12, 60),
        "client": draw.choice(["phone", "hospital", "school", "meter"]),
        "devices": draw.randint(1, 4),
        "rounds": draw.randint(20, 120),
        "epsilon": round(draw.uniform(2.0, 8.0), 1),
        "against": against,
        "question": question,
        "draws": draws,
        "room": room,
        "dropout": round(draw.uniform(0.05, 0.25), 2) if against == SUMS else 0.0,
        "skip": 0.01,
        "noise_on_mean": 1.0,
    }
    # Somewhat more noise than the largest cohort that there is room for.
    cohort = largest_cohort(brief)
    plan = planned(reference(brief, cohort))
    return brief | {"noise_on_mean": 1.15 * noise_on_mean(plan)}


def largest_cohort(brief: dict[str, Any]) -> int:
    """The largest expected cohort that is above the room once in a thousand rounds."""
    if brief["draws"] == AWAKE:
        return int(brief["room"])
    cohort = brief["room"]
    while too_many(brief, cohort) > FULL:
        cohort -= 1
    return int(cohort)


def too_many(brief: dict[str, Any], cohort: float) -> float:
    """The chance that a round is larger than there is room for."""
    clients = brief["clients"]
    return float(binomial_tail(brief["room"], clients, min(1.0, cohort / clients)))


def skipped(brief: dict[str, Any], cohort: float, survivors: int) -> float:
    """The chance that fewer than `survivors` messages arrive in a round."""
    clients, arrives = brief["clients"], 1 - brief["dropout"]
    if brief["draws"] == AWAKE:
        return float(binom.cdf(survivors - 1, round(cohort), arrives))
    return float(binom.cdf(survivors - 1, clients, cohort / clients * arrives))


def reference(brief: dict[str, Any], cohort: int) -> dict[str, Any]:
    """Settings that meet the brief, but for the survivors."""
    trust = TRUSTS[brief["against"]]
    return {
        "epsilon": brief["epsilon"],
        "delta": 0.01 / brief["clients"],
        "rounds": brief["rounds"],
        "clients": brief["clients"],
        "cohort": cohort,
        "sampling": "poisson" if brief["draws"] == COINS else "none",
        "trust": trust,
        "adjacency": ADJACENCIES[brief["question"]],
        "min_survivors": cohort // 2 if trust == "distributed" else None,
    }


def planned(settings: dict[str, Any]) -> fldp.PrivacyPlan:
    """The plan of these settings; what the package says against them is the reason."""
    try:
        return fldp.calibrate(**settings)
    except ValueError as error:
        raise AssertionError(f"fldp.calibrate says: {error}"[:300]) from None


def noise_on_mean(plan: fldp.PrivacyPlan) -> float:
    """In clip norms; under local trust every message has noise of its own."""
    parts = math.sqrt(plan.cohort) if plan.trust == "local" else 1.0
    return plan.noise_multiplier * parts / plan.cohort


CASES = [(MODELS, COINS), (MODELS, AWAKE), (SUMS, COINS), (SUMS, AWAKE), (MESSAGES, AWAKE)]


@check("words_for", points=1)
def the_example(call: Call, draw: Draw) -> None:
    """Who is trusted, which lottery may be claimed, and which change is to be hidden."""
    found = table(call("words_for", EXAMPLE), keys=WORDS)
    for name, value in found.items():
        assert value in WORDS[name], f"{name} is {value!r}: one of {WORDS[name]}"


@hidden("words_for", points=2)
def other_threats(call: Call, draw: Draw) -> Part | None:
    """Against whom? What may she not learn? And can anybody draw at all?"""
    right = 0
    asked = 0
    for against, draws in [*CASES, (MESSAGES, COINS)]:
        for question in ADJACENCIES:
            if question == "was it there" and against != MODELS:
                continue
            brief = EXAMPLE | {"against": against, "draws": draws, "question": question}
            found = table(call("words_for", brief), keys=WORDS)
            lotteries = {"poisson"} if draws == COINS else {"none"}
            # Under local trust coins amplify nothing, so that both words are true.
            if against == MESSAGES:
                lotteries |= {"none"}
            asked += 1
            right += (
                found["trust"] == TRUSTS[against]
                and found["adjacency"] == ADJACENCIES[question]
                and found["sampling"] in lotteries
            )
    if right == asked:
        return None
    if right >= 0.7 * asked:
        return Part(0.5, "most threats are met, and some are not: go through the table once more")
    raise AssertionError("too few are right")


def read(call: Call, brief: dict[str, Any]) -> tuple[dict[str, Any], fldp.PrivacyPlan]:
    """The student's settings and their plan: the brief's numbers, and a lottery that is played."""
    found = call("settings_for", brief)
    assert isinstance(found, dict), "settings_for returns a dict"
    table({k: v for k, v in found.items() if k not in MORE_KEYS}, keys=KEYS)
    for name in ("epsilon", "rounds", "clients"):
        assert found[name] == brief[name], f"{name} is {found[name]!r}; the brief has another"
    expected = number(found["delta"]) * brief["clients"]
    assert 0 < expected <= 0.01 * CALIBRATED, f"N·δ is {expected:.3g}"
    claims = found["sampling"] != "none"
    assert found["sampling"] != "fixed", "there is no room for a lottery of a fixed size here"
    assert not claims or brief["draws"] == COINS, "nobody tosses coins here"
    return found, planned(found)


def met(call: Call, brief: dict[str, Any]) -> fldp.PrivacyPlan:
    """The student's plan, which meets the threat of the brief."""
    found, plan = read(call, brief)
    assert found["trust"] == TRUSTS[brief["against"]], "who is trusted?"
    assert found["adjacency"] == ADJACENCIES[brief["question"]], "what is to be hidden?"
    return plan


def fits(brief: dict[str, Any], plan: fldp.PrivacyPlan) -> None:
    """Whether the cohort has room and the noise can be borne."""
    assert plan.cohort <= brief["room"], f"cohort {plan.cohort:g}, and room for {brief['room']}"
    if brief["draws"] == COINS and (plan.cap is None or plan.cap > brief["room"]):
        chance = too_many(brief, plan.cohort)
        assert chance <= FULL, f"{plan.cohort:g} are too many in {100 * chance:.1f} % of rounds"
    ratio = noise_on_mean(plan)
    most = brief["noise_on_mean"]
    assert ratio <= most * CALIBRATED, f"noise on the mean is {ratio:.4f}, above {most:.4f}"


@check("settings_for", points=1)
def the_example_is_met(call: Call, draw: Draw) -> None:
    """The settings of the example do not make a plan that fits: the message says why."""
    found, plan = read(call, EXAMPLE)
    assert found["trust"] == "central", "the example trusts the server"
    assert found["adjacency"] == "add-or-remove", "the example hides that a client was there"
    fits(EXAMPLE, plan)


@hidden("settings_for", points=1.5)
def readers_of_models(call: Call, draw: Draw) -> None:
    """With a trusted server: look at the room, at the noise on the mean, and at who may draw."""
    for draws in (COINS, AWAKE):
        brief = brief_of(draw, MODELS, draws)
        plan = met(call, brief)
        fits(brief, plan)


@hidden("settings_for", points=1)
def nobody_sees_messages(call: Call, draw: Draw) -> None:
    """With secure sums or with nobody to trust: what does the noise have to be made for?"""
    for against, draws in ((SUMS, COINS), (SUMS, AWAKE), (MESSAGES, AWAKE)):
        brief = brief_of(draw, against, draws)
        plan = met(call, brief)
        fits(brief, plan)


@hidden("settings_for", points=1.5)
def those_who_arrive(call: Call, draw: Draw) -> None:
    """Some who were drawn do not arrive: rounds are lost, or those who come make far more noise
    than they need."""
    for draws in (COINS, AWAKE):
        brief = brief_of(draw, SUMS, draws)
        plan = met(call, brief)
        assert plan.min_survivors is not None, "distributed trust needs survivors"
        lost = skipped(brief, plan.cohort, plan.min_survivors)
        assert lost <= brief["skip"] * CALIBRATED, "too many rounds are skipped"
        arrive = plan.cohort * (1 - brief["dropout"])
        # Every share is made for the fewest survivors: with all arrivals the noise is louder.
        assert math.sqrt(arrive / plan.min_survivors) <= 1.25, "too cautious"


def a_plan(draw: Draw) -> dict[str, Any]:
    """Settings of a central plan."""
    clients = draw.randint(2000, 20_000)
    return {
        "epsilon": round(draw.uniform(1.5, 6.0), 1),
        "delta": 0.01 / clients,
        "rounds": draw.randint(20, 80),
        "clients": clients,
        "cohort": clients // draw.randint(8, 30),
        "sampling": "poisson",
        "trust": "central",
        "adjacency": "add-or-remove",
    }


PERSONS = ("models", "list", "record", "person")


def truth(settings: dict[str, Any], devices: int) -> dict[str, float]:
    """ε against each observer."""
    plan = planned(settings)
    return {
        "models": plan.epsilon(),
        "list": plan.cohort_known()["epsilon"],
        "record": planned_like(plan, "replace-one").epsilon(),
        "person": plan.group(devices),
    }


def planned_like(plan: fldp.PrivacyPlan, adjacency: str) -> fldp.PrivacyPlan:
    """The same run, asked about another change."""
    return fldp.PrivacyPlan.from_dict(plan.to_dict() | {"adjacency": adjacency})


@check("epsilons", points=1)
def five_numbers(call: Call, draw: Draw) -> None:
    """One run has five numbers: one for each observer, larger the more she knows, and none that is
    finite against a server that sees the updates."""
    found = table(call("epsilons", a_plan(draw), 2), keys=(*PERSONS, "server"))
    assert found["server"] == math.inf, f"the server's is {found['server']!r}, not infinite"
    for name in ("list", "record", "person"):
        assert number(found[name]) > number(found["models"]), f"{name} is not above models"
    for name in PERSONS:
        cents = 100 * number(found[name])
        assert abs(cents - round(cents)) <= 1e-6, f"{name} is {found[name]}: give two decimals"


@hidden("epsilons", points=2)
def for_other_plans(call: Call, draw: Draw) -> Part | None:
    """A number is off, or was rounded down: a promise is rounded up."""
    wrong = set()
    for _ in range(2):
        settings, devices = a_plan(draw), draw.randint(2, 4)
        found = table(call("epsilons", settings, devices), keys=(*PERSONS, "server"))
        for name, want in truth(settings, devices).items():
            if not want - 1e-9 <= number(found[name]) <= 1.003 * want + 0.0101:
                wrong.add(name)
    if not wrong:
        return None
    if len(wrong) == 1:
        return Part(0.5, f"{wrong.pop()!r} is off, or was rounded down; the others are right")
    raise AssertionError("several numbers are off")


# What a guarantee never says.
BOASTS = re.compile(r"anonym|impossible|cannot be (re)?identif|no risk|100 ?%|completely", re.I)
# Whoever says that it is not so claims nothing.
DENIES = re.compile(
    r"\b(no|not|nor|neither|never|nobody|nothing|none|cannot|without)\b|n't\b", re.I
)


def boasts(value: str) -> bool:
    """Whether a part of a sentence claims what no guarantee says."""
    for part in re.split(r"[.,;:!?]", value):
        claim = BOASTS.search(part)
        if claim and not DENIES.search(part[: claim.start()]):
            return True
    return False


def reported(call: Call, brief: dict[str, Any]) -> dict[str, Any]:
    """The student's facts; whoever leaves one out has not filled in the form."""
    found = call("facts_for", brief)
    assert isinstance(found, dict), "facts_for returns a dict"
    # Which facts are asked for does not depend on the plan.
    plan = fldp.calibrate(epsilon=4.0, rounds=1, clients=brief["clients"])
    try:
        report = plan.report(**found)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"plan.report says: {error}"[:300]) from None
    assert not report.missing, f"missing: {', '.join(map(str, report.missing))}"
    return found


# What a form must not say in place of a fact.
NOTHING = re.compile(r"not stated|to be decided|\b(todo|tbd)\b", re.I)


@check("facts_for", points=1)
def nothing_is_missing(call: Call, draw: Draw) -> None:
    """`plan.report(**facts).missing` has to be empty, and every fact has to say something."""
    for name, value in reported(call, EXAMPLE).items():
        if name in ("clip_norm", "group"):
            number(value)
            continue
        assert len(text(value, most=2000).strip()) >= 3, f"{name} is empty"
        assert not NOTHING.search(value), f"{name} says nothing yet"


@hidden("facts_for", points=2)
def a_form_for_others(call: Call, draw: Draw) -> None:
    """Does the form speak of this brief: its client, its devices, its ε? In the form's own words
    and dates? And does it claim only what a guarantee says?"""
    for against, draws in ((MODELS, COINS), (SUMS, AWAKE)):
        brief = brief_of(draw, against, draws)
        found = reported(call, brief)
        assert brief["client"] in text(found["client"]).lower(), "another client"
        assert number(found["group"]) == brief["devices"], "another number of devices"
        assert number(found["clip_norm"]) > 0, "no clip"
        day = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
        assert re.fullmatch(day, text(found["published"])), "not a date"
        assert text(found["sector"]) in SECTORS, "not a sector of the form"
        assert text(found["releases"]) in ("One release", "Many releases"), "releases"
        assert f"{brief['epsilon']:g}" in text(found["justification"]), "which ε is justified?"
        for value in found.values():
            assert not boasts(str(value)), "the form promises what no guarantee says"
