"""A plan in words: every clause is true of what runs, and none is stronger.

One function a line of the statement. Which clause is printed depends on trust, sampling, adjacency,
cap, seed and noise generator; `tests/data/statements.txt` holds the statement of every combination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fldp._settings import ACCOUNTANT, ADJACENCY
from fldp._text import down, fill, folded, up
from fldp.plan.attendance import most_participations

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# A search for the noise stops within its tolerance of the target: so far above is not beyond it.
TOLERANCE = 1e-6
# From here on a guarantee is called weak: e^10 is 22,026 to 1.
WEAK = 10.0
# A run that loses a round less often than this loses none that matters.
_NEGLIGIBLE = 1e-3

# How the clause begins that takes everything back from whoever knows the seed of the noise.
REPRODUCIBLE = "Reproducible noise"
TRUSTS = {
    "central": "the server sees every update in the clear; it is trusted to clip each, to add the "
    "noise to the sum, and to keep {secrets} to itself",
    "distributed": "each client clips its own update and adds a share of the noise, of std "
    "z·C/√{survivors}; the server sees only sums, by secure aggregation. Trusted are that protocol "
    "and that, of the clients whose shares are in a released sum, at least {survivors} are honest. "
    "A round to which fewer come is skipped: it releases nothing, and is spent. The noise grows "
    "with the number that came: that number is public, also where a round is skipped",
    "local": "nobody but the client itself, which clips its update and adds the full noise to its "
    "own message",
}
SECRET_DRAWS = {
    "poisson": "every round each client takes part by its own secret coin, q = {q}, whatever the "
    "others do",
    "fixed": "every round exactly {m:.10g} of {N} clients are drawn, uniformly, in secret, without "
    "replacement",
}
KNOWN_DRAWS = {
    "poisson": "every round each client takes part by its own coin, q = {q}, whatever the others "
    "do; how it fell is known",
    "fixed": "every round exactly {m:.10g} of {N} clients are drawn, uniformly, without "
    "replacement; who is known",
}
RECORDS = (
    "a change of some of a client's data, such as one record: that is replace-one, which moves the "
    "sum by up to 2C;"
)
LIMITS = (
    "anything else that leaves a client: data sizes, accuracies, losses, BatchNorm buffers, times;",
    "choices made by looking at the data, such as tuning over several private runs;",
    "a person with several clients: plan.group(k) is the ε of k of them;",
    "the low-order digits of floating-point noise, which can betray more than its density says "
    "(DiscreteGaussian has an exact grid instead);",
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
        "sampling": [f"Sampling, {plan.sampling}: {_sampling(plan, participations)}."],
        "others": _others(plan, participations),
        "skips": _skips(plan, participations),
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
    return [*own, *LIMITS]


def amplified(plan: PrivacyPlan) -> bool:
    """Whether the account relies on who took part being secret.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    bool
        False where no amplification is claimed, and where who took part is seen.
    """
    return plan.event.sampling != "none" and not plan.event.known


def mixed(plan: PrivacyPlan) -> bool:
    """Whether the account is over the stated coins, although it is known how they fell.

    Parameters
    ----------
    plan
        The plan.

    Returns
    -------
    bool
        True under distributed trust with sampling.
    """
    return plan.event.sampling != "none" and plan.event.known


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
    return TRUSTS[plan.trust].format(secrets=secrets, survivors=plan.min_survivors)


def _against(plan: PrivacyPlan, participations: int | None) -> str:
    if plan.trust == "local":
        return "whoever sees every message of this client, and when it sent one"
    if plan.trust == "distributed":
        return (
            "the server, which follows the protocol, and all others: they see every sum and know "
            "who took part, and that a client did is not hidden from them"
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


def _sampling(plan: PrivacyPlan, participations: int | None) -> str:
    # Who knows the seed knows every cohort.
    known = mixed(plan) or participations is not None
    if plan.event.sampling == "none":
        words = _no_claim(plan, participations)
    elif plan.separation is not None:
        words = _turns(plan, known)
    else:
        draws = KNOWN_DRAWS if known else SECRET_DRAWS
        words = draws[plan.sampling].format(q=up(plan.sampling_rate), m=plan.cohort, N=plan.clients)
        if known:
            words += ", so nothing is amplified"
    if plan.cap is not None:
        words += f"; of more than {plan.cap} a random excess is sent away"
    if participations is not None:
        words += (
            f". The draws came from a seed, which gives no client more than {participations} of "
            f"the {plan.rounds} rounds: the ε above is that of {participations}"
        )
    elif mixed(plan):
        words += ": a client pays for the rounds in which it takes part"
    return words


def _turns(plan: PrivacyPlan, known: bool) -> str:
    """Coins in the turns of groups."""
    words = (
        f"each client is in one of {plan.separation} groups, fixed by no data; they take turns, "
        "and a client takes part in a round of its group by its own "
        f"{'coin' if known else 'secret coin'}, of chance {up(plan.event.sampling_rate)}, whatever "
        "the others do; the run enforces the turns"
    )
    return f"{words}; how the coins fell is known, so nothing is amplified" if known else words


def _limited(plan: PrivacyPlan) -> str:
    most = most_participations(plan)
    apart = ""
    if most > 1:
        apart = f", at least {plan.separation} rounds apart"
    times = "once" if most == 1 else f"{most} times"
    return (
        f", a client takes part at most {times}{apart} (a run of fldp.train enforces it; elsewhere "
        f"whoever runs the rounds must), and pays for that, not for all {plan.rounds} rounds"
    )


def _no_claim(plan: PrivacyPlan, participations: int | None) -> str:
    pays = f", a client pays for all {plan.rounds} rounds" if participations is None else ""
    if plan.separation is not None:
        pays = _limited(plan)
    words = f"no amplification is claimed{pays}; who takes part must not depend on the data"
    everyone = plan.cohort == plan.clients
    if plan.adjacency == "add-or-remove" and not everyone:
        words += ", nor who else is drawn on whether one client is there (else: zero-out)"
    return words


def _others(plan: PrivacyPlan, participations: int | None) -> list[str]:
    """What holds against those who know more, or less, than the headline's adversary."""
    if participations is not None:
        return [_without_the_seed(plan)]
    if plan.event.sampling == "none":
        return []
    known = plan.cohort_known()
    # A bound from below on a chance: rounded down.
    crowd = (
        f"with probability {down(known['confidence'], 6)} no client takes part in more than "
        f"{known['bound']} rounds, which is ε = {up(known['epsilon_bound'])}"
    )
    every = f"ε = {up(known['epsilon_all'])}, that of all {known['rounds']:.0f} rounds"
    if mixed(plan):
        return [
            "Coins: this ε presumes that the server draws them as stated; the chance of being "
            f"drawn often counts towards δ. Also, {crowd}. Against a server that draws otherwise: "
            f"{every}."
        ]
    return [
        "Against whoever also knows who took part, but not the server, which sees the updates "
        "(hidden is then what updates contain, not who sent them; the chance of being drawn often "
        f"counts towards δ): ε = {up(known['epsilon'])}. Also, {crowd}. Whatever the draws: "
        f"{every}."
    ]


def _without_the_seed(plan: PrivacyPlan) -> str:
    epsilon = up(plan.epsilon())
    if plan.accountant == "gdp":
        epsilon += " (approximately)"
    if amplified(plan):
        return (
            "Against whoever sees every model and neither knows nor can guess the seed, nor "
            "anything of what it drew, such as who took part or the number of rounds above: ε = "
            f"{epsilon}. A small seed is found by trying them all."
        )
    if mixed(plan):
        every = up(plan.cohort_known()["epsilon_all"])
        return (
            "Against a server that draws otherwise than by that seed: ε = "
            f"{every}, that of all {plan.rounds} rounds."
        )
    return f"Whatever the draws: ε = {epsilon}, that of all {plan.rounds} rounds."


def _skips(plan: PrivacyPlan, participations: int | None) -> list[str]:
    chances = plan.skips()
    # With a seed the draws, and what they skip, are no longer a matter of chance.
    if participations is not None or chances["any"] < _NEGLIGIBLE:
        return []
    return [
        f"Skipped rounds: by the stated coins fewer than {plan.min_survivors} clients come to a "
        f"round with probability {up(chances['round'])}, and to at least one of the {plan.rounds} "
        f"rounds with probability {up(chances['any'])}; more often if some drop out."
    ]


def _noise(plan: PrivacyPlan) -> str:
    where = "message" if plan.trust == "local" else "sum"
    # More than the fewest survivors add more shares than z counts on.
    size = "std at least z·C" if plan.trust == "distributed" else "std z·C"
    kind = "Gaussian (DiscreteGaussian: its counterpart on a grid)"
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
    }
    return folded(shown, plan.statement())
