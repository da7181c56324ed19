"""The settings of a plan, each declared once: what it may be, what it means, what it is by default.

Plan, accountant, command line, statement and the book's page of notation read this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setting:
    """One setting of a plan.

    Parameters
    ----------
    name
        Its keyword everywhere.
    meaning
        What it sets, in plain words.
    values
        What each allowed value means, in plain words; empty where it is a whole number.
    default
        What it is when nothing is said; None where that is nothing, or follows from the rest.
    otherwise
        What that default means, in plain words, where it is none of the values.

    Examples
    --------
    >>> TRUST.default, TRUST.allowed
    ('central', ('central', 'distributed', 'local'))
    """

    name: str
    meaning: str
    values: Mapping[str, str] = field(default_factory=dict)
    default: str | int | None = None
    otherwise: str = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        """The values that there are."""
        return tuple(self.values)


SAMPLING = Setting(
    "sampling",
    "how the clients of a round are drawn",
    {
        "poisson": "each by its own coin of chance m/N",
        "fixed": "exactly m of them, uniformly, without replacement",
        "none": "whoever comes, and no amplification is claimed",
    },
    default="poisson",
)
ADJACENCY = Setting(
    "adjacency",
    "the run that an observer can hardly tell from this one",
    {
        "add-or-remove": "this client was never there",
        "zero-out": "every update of this client is zero",
        "replace-one": "this client has other data",
    },
    otherwise="add-or-remove under central trust, else zero-out",
)
TRUST = Setting(
    "trust",
    "who is trusted, and with what",
    {
        "central": "the server, which sees every update, clips it and adds the noise to the sum",
        "distributed": "a protocol of secure sums, to which each client adds a share of the noise",
        "local": "nobody else, since each client adds all the noise that its own message needs",
    },
    default="central",
)
ACCOUNTANT = Setting(
    "accountant",
    "who adds up the rounds",
    {
        "pld": "an upper bound, our own, by privacy loss distributions",
        "prv": "an upper bound, up to the numerical error of Opacus",
        "rdp": "an upper bound, by Rényi divergences",
        "gdp": "an approximation that can be too low",
    },
    default="pld",
)
CAP = Setting(
    "cap",
    "the most clients in a Poisson cohort, where a random excess is sent away",
    otherwise="no cap",
)
MIN_SURVIVORS = Setting(
    "min_survivors",
    "the fewest honest clients in a released round, under distributed trust",
    otherwise="none, under another trust",
)
COLLUDERS = Setting(
    "colluders",
    "how many clients of a round may share all they know with the server, under distributed trust",
    default=0,
    otherwise="nobody does",
)
SEPARATION = Setting(
    "separation",
    "the rounds from one participation of a client to its next, at least",
    otherwise="no limit, or 1 where there is another limit",
)
PARTICIPATIONS = Setting(
    "participations",
    "the most rounds in which any client takes part",
    otherwise="no limit, or as many as the separation allows",
)
CORRELATION = Setting(
    "correlation",
    "the noise of a run that limits participations",
    {
        "independent": "fresh in every round",
        "fractional": "a fractional power, cut off after four coefficients",
        "blt": "buffered linear Toeplitz, of two buffers",
        "banded": "a participation is over before the client's next",
    },
    otherwise="independent where participations are limited",
)
# What a plan has by name; of the others it has numbers, and of correlated noise the coefficients.
CHOICES = (SAMPLING, ADJACENCY, TRUST, ACCOUNTANT)
# They belong together: what a client pays for follows from all three.
LIMITS = (SEPARATION, PARTICIPATIONS, CORRELATION)
SETTINGS = (*CHOICES, CAP, MIN_SURVIVORS, COLLUDERS, *LIMITS)

# What an example of min_survivors presumes: a fifth drops out of a cohort that is small by so many
# standard deviations. A round of fewer is lost, with .8 m alone one of eight at m = 20 of N = 100.
_SURVIVING, _SMALL_BY = 0.8, 2


def usual_adjacency(trust: str) -> str:
    """The adjacency of a plan that names none: what can be hidden under this trust.

    Parameters
    ----------
    trust
        One of `TRUST.allowed`.

    Returns
    -------
    str
        One of `ADJACENCY.allowed`.

    Examples
    --------
    >>> usual_adjacency("central"), usual_adjacency("local")
    ('add-or-remove', 'zero-out')
    """
    return "add-or-remove" if trust == "central" else "zero-out"


# Whether settings do not go together, and why; the first that applies is told.
Refusals = tuple[tuple[bool, str], ...]


def refuse_what_conflicts(
    clients: int,
    cohort: float,
    sampling: str,
    trust: str,
    adjacency: str,
    accountant: str,
    cap: int | None,
    min_survivors: int | None,
    separation: int | None = None,
    colluders: int = 0,
    **others: object,
) -> None:
    """Refuse settings of a plan that are each in range and do not go together.

    Parameters
    ----------
    clients, cohort
        N and m.
    sampling, trust, adjacency, accountant, cap, min_survivors, separation, colluders
        As in the table above.
    **others
        The other fields of a plan, of which none can be in conflict.

    Raises
    ------
    ValueError
        The first refusal that applies: what is wrong, and what to give.

    Examples
    --------
    >>> refuse_what_conflicts(10, 2, "poisson", "local", "zero-out", "pld", None, 2)
    Traceback (most recent call last):
    ValueError: min_survivors is 2 with trust='local': it belongs to 'distributed'
    """
    refusals = (
        *_of_draws(clients, cohort, sampling, cap),
        *_of_limits(sampling, trust, cap, separation),
        *_of_trust(sampling, trust, adjacency, accountant),
        *_of_survivors(
            trust, cohort, min_survivors, colluders, _survivors(clients, cohort, sampling)
        ),
    )
    for applies, reason in refusals:
        if applies:
            raise ValueError(reason)


def _of_draws(clients: int, cohort: float, sampling: str, cap: int | None) -> Refusals:
    m = f"{cohort:.10g}"
    return (
        (
            cohort > clients,
            f"cohort is {m} but there are {clients} clients: give at most that many",
        ),
        (
            sampling == "fixed" and cohort != int(cohort),
            f"cohort is {m}: with sampling='fixed' give a whole number",
        ),
        (
            cap is not None and sampling != "poisson",
            f"cap is {cap} with sampling={sampling!r}: a cap belongs to sampling='poisson'",
        ),
        (
            cap is not None and cap < cohort,
            f"cap is {cap}, below the cohort {m}: m + 5√m costs next to nothing",
        ),
    )


def _of_limits(sampling: str, trust: str, cap: int | None, separation: int | None) -> Refusals:
    if separation is None:
        return ()
    return (
        # A share of the noise of an earlier round is gone with the client that drew it, and noise
        # that is fresh in every round is of the same plans.
        (
            trust != "central",
            f"separation is {separation} with trust={trust!r}: limits on participations are "
            "accounted where one server counts them and keeps the noise of a run; use "
            "trust='central'",
        ),
        (
            sampling == "fixed",
            f"separation is {separation} with sampling='fixed': who was drawn is not drawn again "
            "for a while, so no draw is uniform; use sampling='none'",
        ),
        (
            cap is not None,
            f"cap is {cap} with separation={separation}: who is sent away would depend on others; "
            "leave the cap out",
        ),
    )


def _of_trust(sampling: str, trust: str, adjacency: str, accountant: str) -> Refusals:
    return (
        # Who took part is seen, so the statement cannot hide it.
        (
            trust != "central" and adjacency == "add-or-remove",
            f"adjacency is 'add-or-remove' with trust={trust!r}: the server sees who took part, "
            "and the noise itself tells how many, so nothing hides that a client was there; use "
            "adjacency='zero-out', which hides what it sent, or 'replace-one'",
        ),
        (
            trust == "central" and sampling == "fixed" and adjacency != "replace-one",
            f"adjacency is {adjacency!r} with sampling='fixed': when a client leaves, another "
            "moves up, the sum moves by up to 2C, and no proved accountant exists; use "
            "adjacency='replace-one', or sampling='poisson'",
        ),
        # Opacus' accountants presume that the draws are secret.
        (
            trust == "distributed" and sampling != "none" and accountant != "pld",
            f"accountant is {accountant!r} with trust='distributed': it has no adversary who "
            "knows who took part; use accountant='pld', or sampling='none'",
        ),
    )


def _of_survivors(
    trust: str, cohort: float, min_survivors: int | None, colluders: int, example: int
) -> Refusals:
    m = f"{cohort:.10g}"
    survivors = f"min_survivors is {min_survivors}"
    shared = trust == "distributed"
    fewest = min_survivors or 0
    # So many uploads make sure that enough are honest: with fewer nothing is released.
    least = fewest + colluders
    return (
        # The shares of the noise are calibrated for so many.
        (
            shared and min_survivors is None,
            f"{survivors} with trust='distributed': state the fewest honest clients whose noise "
            f"arrives in a released round (with fewer, nothing is released), e.g. {example}",
        ),
        (
            not shared and min_survivors is not None,
            f"{survivors} with trust={trust!r}: it belongs to 'distributed'",
        ),
        (fewest > cohort, f"{survivors}, above the cohort {m}: give fewer"),
        (
            not shared and colluders > 0,
            f"colluders is {colluders} without trust='distributed', which alone has a server to "
            "collude with",
        ),
        (
            shared and least > cohort,
            f"{survivors} with {colluders} colluders: {least} uploads are more than the cohort "
            f"{m}: give fewer",
        ),
    )


def _survivors(clients: int, cohort: float, sampling: str) -> int:
    """An example of min_survivors, of which few rounds fall short."""
    drawn = cohort
    if sampling == "poisson" and cohort < clients:
        drawn -= _SMALL_BY * math.sqrt(cohort * (1 - cohort / clients))
    return max(1, int(_SURVIVING * drawn))


def as_markdown() -> str:
    """The table as a page of the book shows it.

    Returns
    -------
    str
        Lines of a Markdown table, one a value.

    Examples
    --------
    >>> print(as_markdown().splitlines()[3])
    |  | `"fixed"` | exactly m of them, uniformly, without replacement |
    """
    lines = ["| setting | value | in words |", "|---|---|---|"]
    for setting in SETTINGS:
        told = f"`{setting.name}`: {setting.meaning}"
        for value, words in setting.values.items():
            note = " (default)" if value == setting.default else ""
            lines.append(f'| {told} | `"{value}"`{note} | {words} |')
            told = ""  # once is enough
        if not setting.values:
            lines.append(f"| {told} | a whole number | |")
            told = ""
        if setting.otherwise:
            lines.append(f"| {told} | `{setting.default}` (default) | {setting.otherwise} |")
    return "\n".join(lines)
