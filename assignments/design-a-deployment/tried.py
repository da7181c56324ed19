"""Answers to *Design a deployment* that were tried."""

# The functions of an answer see the notebook's own names.
import math

import fldp
from course import right, wrong


@wrong("delta_for")
def delta_for__habit(brief):
    """The usual 1e-5, whoever is there."""
    return 1e-5


@wrong("delta_for")
def delta_for__one_over(brief):
    """One over the population."""
    return 1 / brief["clients"]


@wrong("delta_for")
def delta_for__cohort(brief):
    """By the cohort and not by the population."""
    return 0.01 / brief["room"]


@wrong("delta_for")
def delta_for__tiny(brief):
    """As small as can be."""
    return 1e-12


@right("delta_for")
def delta_for__smaller(brief):
    """Half of what is allowed."""
    return 0.005 / brief["clients"]


@wrong("words_for")
def words_for__always_central(brief):
    """Central trust, coins and add-or-remove, whatever is feared."""
    return {"trust": "central", "sampling": "poisson", "adjacency": "add-or-remove"}


@wrong("words_for")
def words_for__coins_everywhere(brief):
    """Claims the lottery where nobody draws."""
    trust = {
        "readers of the models": "central",
        "the server, which sees secure sums": "distributed",
    }.get(brief["against"], "local")
    adjacency = {"was it there": "add-or-remove", "what it sent": "zero-out"}
    return {
        "trust": trust,
        "sampling": "poisson",
        "adjacency": adjacency.get(brief["question"], "replace-one"),
    }


@wrong("words_for")
def words_for__fixed(brief):
    """Cohorts of a fixed size, since there is room for so many."""
    trust = {
        "readers of the models": "central",
        "the server, which sees secure sums": "distributed",
    }.get(brief["against"], "local")
    adjacency = {"was it there": "add-or-remove", "what it sent": "zero-out"}
    return {
        "trust": trust,
        "sampling": "fixed" if brief["draws"] == "coins" else "none",
        "adjacency": adjacency.get(brief["question"], "replace-one"),
    }


@wrong("words_for")
def words_for__content_is_content(brief):
    """Zero-out for every question about contents."""
    trust = {
        "readers of the models": "central",
        "the server, which sees secure sums": "distributed",
    }.get(brief["against"], "local")
    there = brief["question"] == "was it there"
    return {
        "trust": trust,
        "sampling": "poisson" if brief["draws"] == "coins" else "none",
        "adjacency": "add-or-remove" if there else "zero-out",
    }


@right("words_for")
def words_for__local_without_lottery(brief):
    """Under local trust coins change nothing, so that none are claimed."""
    sums = brief["against"].endswith("secure sums")
    local = brief["against"].endswith("messages")
    trust = "local" if local else "distributed" if sums else "central"
    names = {"was it there": "add-or-remove", "what it sent": "zero-out"}
    coins = brief["draws"] == "coins" and not local
    return {
        "trust": trust,
        "sampling": "poisson" if coins else "none",
        "adjacency": names.get(brief["question"], "replace-one"),
    }


@wrong("settings_for")
def settings_for__room_is_cohort(brief):
    """As many as there is room for are expected."""
    words = words_for(brief)
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    settings |= words | {"delta": delta_for(brief), "cohort": brief["room"]}
    if words["trust"] == "distributed":
        settings["min_survivors"] = round(0.8 * brief["room"] * (1 - brief["dropout"]))
    return settings


@wrong("settings_for")
def settings_for__half_full(brief):
    """Half of the room, to be on the safe side: the noise cannot be borne."""
    words = words_for(brief)
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    settings |= words | {"delta": delta_for(brief), "cohort": brief["room"] // 2}
    if words["trust"] == "distributed":
        settings["min_survivors"] = round(0.35 * brief["room"] * (1 - brief["dropout"]))
    return settings


@wrong("settings_for")
def settings_for__all_survive(brief):
    """As many survivors as arrive on average."""
    words = words_for(brief)
    room = brief["room"]
    cohort = int(room - 3.2 * math.sqrt(room)) if brief["draws"] == "coins" else room
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    settings |= words | {"delta": delta_for(brief), "cohort": cohort}
    if words["trust"] == "distributed":
        settings["min_survivors"] = round(cohort * (1 - brief["dropout"]))
    return settings


@wrong("settings_for")
def settings_for__half_survive(brief):
    """Half of them: no round is lost, and the noise is far louder than it need be."""
    words = words_for(brief)
    room = brief["room"]
    cohort = int(room - 3.2 * math.sqrt(room)) if brief["draws"] == "coins" else room
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    settings |= words | {"delta": delta_for(brief), "cohort": cohort}
    if words["trust"] == "distributed":
        settings["min_survivors"] = cohort // 2
    return settings


@wrong("settings_for")
def settings_for__no_survivors(brief):
    """Forgets the survivors."""
    words = words_for(brief)
    room = brief["room"]
    cohort = int(room - 3.2 * math.sqrt(room)) if brief["draws"] == "coins" else room
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    return settings | words | {"delta": delta_for(brief), "cohort": cohort}


@right("settings_for")
def settings_for__rules_of_thumb(brief):
    """Standard deviations in place of exact tails, and a cap at the room."""
    words = words_for(brief)
    room = brief["room"]
    coins = brief["draws"] == "coins"
    cohort = int(room - 3.5 * math.sqrt(room)) if coins else room
    settings = {name: brief[name] for name in ("epsilon", "rounds", "clients")}
    settings |= words | {"delta": delta_for(brief), "cohort": cohort}
    if coins:
        settings["cap"] = room
    if words["trust"] == "distributed":
        p = 1 - brief["dropout"]
        mean = cohort * p
        spread = math.sqrt(mean if coins else mean * (1 - p))
        settings["min_survivors"] = int(mean - 2.7 * spread)
    return settings


@wrong("epsilons")
def epsilons__cut_off(settings, devices):
    """Cut off after two decimals."""
    plan = fldp.calibrate(**settings)
    exchanged = fldp.PrivacyPlan.from_dict(plan.to_dict() | {"adjacency": "replace-one"})
    return {
        "models": math.floor(100 * plan.epsilon()) / 100,
        "list": math.floor(100 * plan.cohort_known()["epsilon"]) / 100,
        "record": math.floor(100 * exchanged.epsilon()) / 100,
        "person": math.floor(100 * plan.group(devices)) / 100,
        "server": math.inf,
    }


@wrong("epsilons")
def epsilons__linear_person(settings, devices):
    """A person's ε is that of one device, times the devices."""
    plan = fldp.calibrate(**settings)
    exchanged = fldp.PrivacyPlan.from_dict(plan.to_dict() | {"adjacency": "replace-one"})
    found = {
        "models": plan.epsilon(),
        "list": plan.cohort_known()["epsilon"],
        "record": exchanged.epsilon(),
        "person": devices * plan.epsilon(),
    }
    return {k: math.ceil(100 * v) / 100 for k, v in found.items()} | {"server": math.inf}


@wrong("epsilons")
def epsilons__another_run(settings, devices):
    """The record's ε by another calibration, which is another run."""
    plan = fldp.calibrate(**settings)
    other = fldp.calibrate(**settings | {"adjacency": "replace-one"})
    found = {
        "models": plan.epsilon(),
        "list": plan.cohort_known()["epsilon"],
        "record": other.epsilon(),
        "person": plan.group(devices),
    }
    return {k: math.ceil(100 * v) / 100 for k, v in found.items()} | {"server": math.inf}


@wrong("epsilons")
def epsilons__mean_participations(settings, devices):
    """Who has the list pays for the mean number of rounds."""
    plan = fldp.calibrate(**settings)
    exchanged = fldp.PrivacyPlan.from_dict(plan.to_dict() | {"adjacency": "replace-one"})
    mean = plan.rounds * plan.sampling_rate
    known = fldp.accounting.gaussian_epsilon(math.sqrt(mean) / plan.noise_multiplier, plan.delta)
    found = {
        "models": plan.epsilon(),
        "list": known,
        "record": exchanged.epsilon(),
        "person": plan.group(devices),
    }
    return {k: math.ceil(100 * v) / 100 for k, v in found.items()} | {"server": math.inf}


@wrong("epsilons")
def epsilons__finite_server(settings, devices):
    """The server is the reader with the list."""
    plan = fldp.calibrate(**settings)
    exchanged = fldp.PrivacyPlan.from_dict(plan.to_dict() | {"adjacency": "replace-one"})
    found = {
        "models": plan.epsilon(),
        "list": plan.cohort_known()["epsilon"],
        "record": exchanged.epsilon(),
        "person": plan.group(devices),
        "server": plan.cohort_known()["epsilon"],
    }
    return {k: math.ceil(100 * v) / 100 for k, v in found.items()}


@right("epsilons")
def epsilons__by_events(settings, devices):
    """By events and the account, rounded up by decimal arithmetic."""
    from dataclasses import replace
    from decimal import ROUND_CEILING, Decimal

    plan = fldp.calibrate(**settings)
    found = {
        "models": plan.epsilon(),
        "list": plan.cohort_known()["epsilon"],
        "record": replace(plan, adjacency="replace-one").epsilon(),
        "person": fldp.accounting.epsilon_of(plan.events(), plan.delta, group=devices),
    }
    cent = Decimal("0.01")
    up = {k: float(Decimal(v).quantize(cent, ROUND_CEILING)) for k, v in found.items()}
    return up | {"server": float("inf")}


@wrong("facts_for")
def facts_for__plan_only(brief):
    """Only what comes to mind."""
    return {"name": "Next word", "client": brief["client"], "purpose": "next words"}


@wrong("facts_for")
def facts_for__example_only(brief):
    """The form of the example, for every brief."""
    names = "curators purpose description region data unprotected draws reuse source tuning"
    names += " security utility sources contact authors"
    facts = {name: f"as in the contract, under {name}" for name in names.split()}
    return facts | {
        "name": "Next word",
        "sector": "Technology",
        "published": "2026-11-01",
        "client": "phone",
        "releases": "One release",
        "justification": "ε = 4 was accepted",
        "clip_norm": 1.0,
        "group": 2,
    }


@wrong("facts_for")
def facts_for__boasts(brief):
    """Promises what no guarantee says."""
    names = "curators purpose description region data unprotected draws reuse source tuning"
    names += " utility sources contact authors"
    facts = {name: f"as in the contract, under {name}" for name in names.split()}
    return facts | {
        "name": "Next word",
        "sector": "Technology",
        "published": "2026-11-01",
        "client": brief["client"],
        "releases": "One release",
        "security": "all data are fully anonymous, and there is no risk",
        "justification": f"ε = {brief['epsilon']:g} was accepted",
        "clip_norm": 1.0,
        "group": brief["devices"],
    }


@wrong("facts_for")
def facts_for__later(brief):
    """The form's own questions, to be answered later."""
    from fldp.plan.registry import FACTS

    facts = {name: f"to be decided: {about}" for name, about in FACTS.items()}
    return facts | {
        "sector": "Technology",
        "published": "2027-01-31",
        "client": brief["client"],
        "releases": "One release",
        "justification": f"ε = {brief['epsilon']:g} was accepted",
        "clip_norm": 1.0,
        "group": brief["devices"],
    }


@right("facts_for")
def facts_for__terse(brief):
    """Short answers."""
    names = "curators purpose description region data unprotected draws reuse source tuning"
    names += " security utility sources contact authors"
    facts = {name: f"as in the contract, under {name}" for name in names.split()}
    return facts | {
        "name": "Next word",
        "sector": "Healthcare",
        "published": "2027-02-28",
        "client": f"a {brief['client']}",
        "releases": "Many releases",
        "justification": f"the works council accepted {brief['epsilon']:g}",
        "clip_norm": 0.5,
        "group": brief["devices"],
    }


@right("facts_for")
def facts_for__modest(brief):
    """Says what is not claimed, and has a name with an abbreviation in the middle of it."""
    names = "curators purpose description region data unprotected draws reuse source tuning"
    names += " utility sources contact authors"
    facts = {name: f"as in the contract, under {name}" for name in names.split()}
    return facts | {
        "name": "Mastodon keyboard",
        "sector": "Technology",
        "published": "2026-11-01",
        "client": brief["client"],
        "releases": "One release",
        "security": "the models do not make anybody anonymous; leaks are not impossible",
        "justification": f"ε = {brief['epsilon']:g} was accepted",
        "clip_norm": 1.0,
        "group": brief["devices"],
    }
