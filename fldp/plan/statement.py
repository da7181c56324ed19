"""A plan in words: every clause is true of what runs, and none is stronger.

One function a line of the statement. Which clause is printed depends on trust, sampling, adjacency,
cap, seed and noise generator; `tests/data/statements.txt` holds the statement of every combination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fldp._settings import ACCOUNTANT, ADJACENCY
from fldp._text import down, fill, folded, up
from fldp.plan import drawn
from fldp.plan.drawn import amplified

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# A search for the noise stops within its tolerance of the target: so far above is not beyond it.
TOLERANCE = 1e-6
# From here on a guarantee is called weak: e^10 is 22,026 to 1.
WEAK = 10.0

# How the clause begins that takes everything back from whoever knows the seed of the noise.
REPRODUCIBLE = "Reproducible noise"
# How the words of a noise end for which secret draws hide no more than a pair of laws.
PAIRS_ALONE = "is proved for Gaussian noise alone."
TRUSTS = {
    "central": "the server sees every update in the clear; it is trusted to clip each, to add the "
    "noise to the sum, and to keep {secrets} to itself",
    "distributed": "each client clips its own update and adds a share of the noise, of std "
    "z·C/√{survivors}; the server sees only sums, by secure aggregation. Trusted are that "
    "protocol, that the server follows it, and that, of the clients whose shares are in a released "
    "sum, at least {survivors} are honest and {colluders} tell it what they know (one that the "
    "server made up does). A round to which fewer than {fewest} come is skipped: it releases "
    "nothing, and is spent. The noise grows with the number that came: that number is public, also "
    "where a round is skipped",
    "local": "nobody but the client itself, which clips its update and adds the full noise to its "
    "own message",
}
RECORDS = (
    "a change of some of a client's data, such as one record: that is replace-one, which moves the "
    "sum by up to 2C;"
)
# What secure aggregation leaves open.
UNCHECKED = (
    "a server that breaks the protocol, or makes up more clients than the colluders above;",
    "what clients send: nobody can look at an update, so a malicious one may be longer than C and "
    "spoil the sum, though not the privacy of others;",
    "the sum itself, which the server sees, and every mean that follows from it;",
)
LIMITS = (
    "anything else that leaves a client: data sizes, accuracies, losses, BatchNorm buffers, times;",
    "choices made by looking at the data, such as tuning over several private runs;",
    "a person with several clients: plan.group(k) is the ε of k of them;",
    "the low-order digits of floating-point noise, which can betray more than its density says "
    "({exact} has an exact grid instead);",
    "what follows about a client from patterns that would be found without it as well.",
)


def statement(
    plan: PrivacyPlan, reproducible: bool = False, participations: int | None = None
) -> str:
    """See `PrivacyPlan.statement`.

    Parameters
    ----------
    plan
        The plan.
    reproducible, participations
        As there.

    Returns
    -------
    str
        The lines, wrapped.
    """
    return written(plan, clauses(plan, reproducible, participations))


def written(plan: PrivacyPlan, told: Mapping[str, Sequence[str]]) -> str:
    """Clauses as a statement, with the limits below them.

    Parameters
    ----------
    plan
        The plan.
    told
        As `clauses` gives them.

    Returns
    -------
    str
        The lines, wrapped.
    """
    lines = [line for clause in told.values() for line in clause]
    lines.append("It does not cover:")
    lines += [f"  - {limit}" for limit in limits(plan)]
    return "\n".join(map(fill, lines))


def clauses(
    plan: PrivacyPlan, reproducible: bool = False, participations: int | None = None
) -> dict[str, list[str]]:
    """The lines of a statement by what they are about, without the limits.

    Parameters
    ----------
    plan, reproducible, participations
        As in `statement`.

    Returns
    -------
    dict
        In the order of the statement; a clause that does not apply is an empty list.
    """
    warning = (
        f"{REPRODUCIBLE}: it came from a generator that the caller seeded; whoever knows or "
        "guesses that seed can subtract the noise, and against them nothing here holds."
    )
    return {
        "headline": _headline(plan, participations),
        "reproducible": [warning] if reproducible else [],
        "unit": [
            f"Unit: one client, with all it contributes; {plan.adjacency}: the run is compared "
            f"with one in which {ADJACENCY.values[plan.adjacency]}."
        ],
        "trust": [f"Trust, {plan.trust}: {_trust(plan, participations)}."],
        "against": [f"Against: {_against(plan, participations)}."],
        "sampling": [f"Sampling, {plan.sampling}: {drawn.sampling(plan, participations)}."],
        "others": drawn.others(plan, participations),
        "skips": drawn.lost_rounds(plan, participations),
        "noise": [_noise(plan)],
        "delta": [_delta(plan)],
        "accountant": [f"Accountant: {_accountant(plan, participations)}."],
        "assumptions": [_assumptions(plan, participations)],
    }


def limits(plan: PrivacyPlan) -> list[str]:
    """What the guarantee of `plan` does not cover.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    list of str
        A line each.
    """
    own = [] if plan.adjacency == "replace-one" else [RECORDS]
    if plan.trust == "distributed":
        own = [*own, *UNCHECKED]
    return [*own, *(limit.format(exact=_exact(plan)) for limit in LIMITS)]


def _exact(plan: PrivacyPlan) -> str:
    """The noise that has no low-order digits of its own."""
    if plan.trust == "distributed":
        return "Skellam"
    return "DiscreteGaussian"


def _headline(plan: PrivacyPlan, participations: int | None) -> list[str]:
    if participations is None:
        epsilon = plan.epsilon()
        against = ""
    else:
        epsilon = plan.seeded_epsilon(participations)
        against = ", against whoever knows the seed of the draws"
    # With a seed our own accountant answers, whose word is exact.
    approximate = plan.accountant == "gdp" and participations is None
    roughly = "approximately " if approximate else ""
    lines = [
        f"After {plan.rounds} rounds{against}: {roughly}({up(epsilon)}, {up(plan.delta)})-"
        "differential privacy at the client level."
    ]
    if epsilon > plan.target_epsilon * (1 + TOLERANCE):
        lines.append(f"It misses the target ε = {plan.target_epsilon:g}.")
    if epsilon > WEAK:
        lines.append(f"This is weak: one client may move the odds by a factor e^{up(epsilon)}.")
    return lines


def _trust(plan: PrivacyPlan, participations: int | None) -> str:
    secret_draws = amplified(plan) and participations is None
    kept = "updates, norms"
    # Whoever is seen to take part cannot be hidden as a member; who is drawn, not as drawn.
    if secret_draws or plan.adjacency == "add-or-remove":
        kept += ", who took part"
    secrets = f"{kept} and the random numbers of the noise"
    colluders = "none"
    if plan.colluders:
        colluders = f"at most {plan.colluders}"
    return TRUSTS[plan.trust].format(
        secrets=secrets,
        survivors=plan.min_survivors,
        colluders=colluders,
        fewest=(plan.min_survivors or 0) + plan.colluders,
    )


def _against(plan: PrivacyPlan, participations: int | None) -> str:
    if plan.trust == "local":
        return "whoever sees every message of this client, and when it sent one"
    if plan.trust == "distributed":
        return (
            "the server, which follows the protocol, and all others: they see every sum and know "
            "who took part: that a client did is not hidden from them, and sampling amplifies "
            "nothing against them"
        )
    sees = "whoever sees every model of the run"
    if participations is not None and plan.adjacency == "add-or-remove":
        return (
            f"{sees} and knows the seed, so the rounds in which this client would be drawn, but "
            "neither updates nor whether it was there"
        )
    if participations is not None:
        return f"{sees} and knows the seed, so who took part, but no updates"
    if amplified(plan) or plan.adjacency == "add-or-remove":
        return f"{sees}, but neither updates nor who took part"
    return f"{sees} and who took part, but no updates"


def _noise(plan: PrivacyPlan) -> str:
    where = "message" if plan.trust == "local" else "sum"
    # More than the fewest survivors add more shares than z counts on.
    size = "std at least z·C" if plan.trust == "distributed" else "std z·C"
    kind = f"Gaussian ({_exact(plan)}: its counterpart on a grid)"
    if plan.correlation is not None:
        kind = "Gaussian, fresh in each round"
        if plan.correlation.order:
            size = "std at least z·C"
            kind = (
                "Gaussian, correlated over the rounds by a filter of order "
                f"{plan.correlation.order}, with the plan's coefficients and a round's noise made "
                "once"
            )
    return (
        f"Noise: {kind}, {size} on each {where}, z "
        f"at least {down(plan.noise_multiplier, 5)}, C the clip norm of a whole update, times the "
        "cap of its weight if updates are weighted; the mean divides by a public number, without "
        f"weights {plan.cohort:.10g}, never by the number that came."
    )


def _delta(plan: PrivacyPlan) -> str:
    betrayed = plan.delta * plan.clients
    # One client on average, or more: then (0, δ) promises nothing that matters.
    weak = "; this δ is too weak" if betrayed >= 1 else ""
    return (
        f"δ = {up(plan.delta)}: the weight of outcomes on which ε promises nothing. To publish "
        f"each client in full with that chance would satisfy it: N·δ = {up(betrayed)} of the "
        f"{plan.clients} clients on average{weak}."
    )


def _accountant(plan: PrivacyPlan, participations: int | None) -> str:
    if participations is not None or (plan.accountant == "pld" and plan.event.everyone):
        return "pld, without sampling the exact formula for Gaussian noise"
    if plan.accountant == "pld" and plan.event.known:
        return "pld, an upper bound: the exact formula for each number of participations, summed"
    if plan.accountant == "pld":
        return (
            "pld, an upper bound, where the round-off of its FFT is bounded as if independent over "
            "the frequencies"
        )
    return f"{plan.accountant}, {ACCOUNTANT.values[plan.accountant]}"


def _assumptions(plan: PrivacyPlan, participations: int | None) -> str:
    guess = "random numbers that nobody can guess"
    if participations is not None:
        guess = "random numbers of the noise that nobody can guess"
    elif amplified(plan):
        guess += " (with a seed for the draws: plan.seeded_epsilon)"
    limits = ""
    if plan.separation is not None:
        limits = " no client more often or sooner than stated, also in a run that was resumed,"
    drops = " who drops out does not depend on the data," if plan.trust == "distributed" else ""
    return (
        f"Assumes: clips, weights, noise and draws as stated,{limits}{drops} at most {plan.rounds} "
        f"rounds, and {guess}."
    )


def plan_html(plan: PrivacyPlan) -> str:
    """The plan as a small HTML table with its statement folded below.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    str
        HTML, for a notebook.
    """
    shown = {
        "ε": up(plan.epsilon()),
        "δ": up(plan.delta),
        "z": down(plan.noise_multiplier, 5),
        "rounds": plan.rounds,
        "clients": plan.clients,
        "cohort": f"{plan.cohort:.10g}",
        "sampling": plan.sampling,
        "trust": plan.trust,
        "adjacency": plan.adjacency,
        "cap": plan.cap,
        "min_survivors": plan.min_survivors,
        "colluders": plan.colluders or None,
    }
    return folded(shown, plan.statement())
