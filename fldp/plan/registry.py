"""A record's fields: those of the public registry of deployments, and NIST's questions.

The names are those of the registry's schema (the repository opendp/deployments-registry-data).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fldp import __version__
from fldp._text import up
from fldp.plan import statement as words

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

NOT_STATED = "not stated"
# Facts that no plan knows, by their keyword: what to write there.
FACTS = {
    "name": "the name of the model or product",
    "curators": "who publishes it",
    "purpose": "what it is for",
    "description": "what it is, in a sentence or two",
    "region": "where the people live, or whose law applies",
    "sector": "Technology, Healthcare, Education, Government, Energy or Finance",
    "published": "the date of publication, YYYY-MM-DD",
    "client": "what one client is, in a word: phone, hospital, school",
    "data": "whose data, and which",
    "unprotected": "what is released without noise",
    "draws": "who draws the cohorts, and how that was checked",
    "releases": "how often the product is published: One release or Many releases",
    "reuse": "whether the same people's data are used again, and under which total budget",
    "source": "whether new data come in: Static or Dynamic",
    "tuning": "how preprocessing and hyper-parameters were chosen, on which data, at what price",
    "security": "who may access what; timing, floating point, random numbers",
    "utility": "how good it is, and for whom it is worse",
    "justification": "why this ε, this unit and this trust",
    "sources": "where more can be read",
    "contact": "whom to ask",
    "authors": "who filled in this record",
}
# The trust of a plan in the registry's words.
_MODELS = {"central": "Central", "distributed": "Federated", "local": "Local"}
Clauses = Mapping[str, Sequence[str]]


def _teller(clauses: Clauses) -> Callable[..., str]:
    def told(*names: str) -> str:
        lines = " ".join(line for name in names for line in clauses[name])
        # Alone in a field that says what it is about, a clause needs no head.
        return lines.partition(": ")[2] if len(names) == 1 else lines

    return told


def _finder(facts: Mapping[str, str]) -> Callable[[str], str]:
    return lambda name: facts.get(name, NOT_STATED)


def fields_of(
    plan: PrivacyPlan,
    facts: Mapping[str, str],
    clauses: Clauses,
    epsilon: float | None,
    complete: bool,
    notes: Sequence[str],
) -> dict[str, Any]:
    """A draft of an entry in the registry.

    Parameters
    ----------
    plan
        The plan.
    facts, clauses, notes
        As in `Report`.
    epsilon
        ε, rounded up; None: no finite bound.
    complete
        Whether every fact is stated.

    Returns
    -------
    dict
        In the registry's schema; what nobody stated reads "not stated".

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
    >>> fields_of(plan, {}, words.clauses(plan), 1.0, False, [])["deployment"]["basic"]["name"]
    'not stated'
    """
    told = _teller(clauses)
    fact = _finder(facts)
    client = facts.get("client", "client")
    released = "the messages of its cohort" if plan.trust == "local" else "a sum"
    return {
        "url_slug": re.sub(r"[\W_]+", "-", fact("name").lower()).strip("-"),
        "status": "Draft",
        "tier": 3 if complete else 1,
        "deployment": {
            "basic": {
                "name": fact("name"),
                "data_curators": [fact("curators")],
                "intended_use": fact("purpose"),
                "data_product_type": "Machine learning model",
                "data_product_region": fact("region"),
                "description": fact("description"),
                "publication_date": fact("published"),
                "data_product_sector": fact("sector"),
            },
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": fact("data"),
                "unprotected_quantities": fact("unprotected"),
            },
            "privacy_loss": {
                "privacy_unit": f"{client} (all it contributes)",
                "privacy_unit_details": told("unit"),
                "privacy_parameters": {
                    "epsilon": epsilon,
                    "delta": float(up(plan.delta)),
                },
                "privacy_parameters_details": told("headline", "against", "delta"),
            },
            "deployment_model": {
                "model_name": _MODELS[plan.trust],
                "model_name_details": told("trust"),
                "actors": f"{told('against', 'others')} Cohorts: {fact('draws')}.",
                "release_type": fact("releases"),
                "release_type_details": f"Training has {plan.rounds} rounds, and each releases "
                f"{released}. The same people's data beyond them: {fact('reuse')}.",
                "data_source_type": fact("source"),
                "access_type": "Non-interactive",
            },
            "accounting": {
                "post_processing": "The server optimiser, and all else that uses the released "
                "sums and no data, costs nothing.",
                "composition": told("accountant", "sampling", "skips", "assumptions")
                + f" Computed by fldp {__version__}.",
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": fact("tuning"),
                "mechanisms": told("noise", "reproducible")
                + f" Security and floating point: {fact('security')}.",
                "justification": fact("justification"),
            },
            "administrative": {
                "sources": fact("sources"),
                "notes": " ".join([*notes, f"Contact: {fact('contact')}."]),
                "registry_authors": [fact("authors")],
            },
        },
    }


def questions(
    plan: PrivacyPlan, facts: Mapping[str, str], clauses: Clauses, several: str
) -> list[tuple[str, str]]:
    """What SP 800-226 asks of a guarantee, from the top of its pyramid down; in our words.

    Parameters
    ----------
    plan, facts, clauses
        As in `fields_of`.
    several
        What is known of people with several clients.

    Returns
    -------
    list of (str, str)
        Questions and answers.

    Examples
    --------
    >>> from fldp.plan import calibrate
    >>> plan = calibrate(epsilon=1.0, delta=1e-5, rounds=15, clients=10)
    >>> questions(plan, {}, words.clauses(plan), "No.")[2][1]
    'No.'
    """
    told = _teller(clauses)
    fact = _finder(facts)
    covers = " ".join(words.limits(plan))
    return [
        ("How large are the privacy parameters?", told("headline", "delta")),
        ("Which unit do they protect, and which datasets are neighbours?", told("unit")),
        ("Do several of these units belong to one person?", several),
        ("By which algorithm, and what bounds one contribution?", told("noise")),
        ("How are releases composed, and who vouches for the sum?", told("accountant")),
        ("Is sampling counted on, and is that what was run?", told("sampling", "skips")),
        ("Who is trusted, and against whom does it hold?", told("trust", "against", "others")),
        ("What does it assume?", told("assumptions", "reproducible")),
        ("What does it not cover?", covers),
        ("How useful is the result, and for whom is it worse?", fact("utility")),
        (
            "What of the implementation: side channels, random numbers, access?",
            fact("security"),
        ),
        ("How were the data collected, and what is exposed before the noise?", fact("data")),
        ("What did looking at the data beforehand cost?", fact("tuning")),
    ]
