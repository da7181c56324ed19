"""Who takes part, in words: what a statement says of coins, seeds, limits and lost rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fldp._text import down, up
from fldp.plan.attendance import most_participations

if TYPE_CHECKING:
    from fldp.plan.client import PrivacyPlan

# A run that loses a round less often than this loses none that matters.
_NEGLIGIBLE = 1e-3
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


def sampling(plan: PrivacyPlan, participations: int | None) -> str:
    """How a client comes to take part, and what that hides.

    Parameters
    ----------
    plan
        The plan.
    participations
        The most rounds of any client, where the draws came from a seed; else None.

    Returns
    -------
    str
        A clause.
    """
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
        "the others do (a run of fldp.train enforces the turns; elsewhere whoever runs the rounds "
        "must)"
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


def others(plan: PrivacyPlan, participations: int | None) -> list[str]:
    """What holds against those who know more, or less, than the headline's adversary.

    Parameters
    ----------
    plan, participations
        As in `sampling`.

    Returns
    -------
    list of str
        A line, or none.
    """
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
    return f"Whatever the draws: ε = {epsilon}, that of all {most_participations(plan)} rounds."


def lost_rounds(plan: PrivacyPlan, participations: int | None) -> list[str]:
    """How often too few clients come to a round.

    Parameters
    ----------
    plan, participations
        As in `sampling`.

    Returns
    -------
    list of str
        A line where it matters, else none.
    """
    chances = plan.skips()
    # With a seed the draws, and what they skip, are no longer a matter of chance.
    if participations is not None or chances["any"] < _NEGLIGIBLE:
        return []
    least = (plan.min_survivors or 0) + plan.colluders
    return [
        f"Skipped rounds: by the stated coins fewer than {least} clients come to a "
        f"round with probability {up(chances['round'])}, and to at least one of the {plan.rounds} "
        f"rounds with probability {up(chances['any'])}; more often if some drop out."
    ]
