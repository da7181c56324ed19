"""What a plan says about itself: plain words, second opinions, a figure."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import math
import textwrap
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

UNITS = {
    "add-or-remove": "the run is compared with one in which this client was never there",
    "zero-out": "the run is compared with one in which every update of this client is zero",
    "replace-one": "the run is compared with one in which this client has other data",
}
TRUSTS = {
    "central": "the server sees every update in the clear; it is trusted to clip each, to add "
    "the noise to the sum, and to keep updates, norms and its random numbers to itself",
    "distributed": "clients add noise shares, and the server sees only sums under secure "
    "aggregation; trusted are that protocol and at least {survivors} honest clients per released "
    "round (a share has std z·C/√{survivors}); with fewer, nothing may be released, "
    "and that silence may show who was there",
    "local": "nobody but the client itself; each client adds the full noise to its own message",
}
SAMPLINGS = {
    "poisson": "every round each client takes part by its own secret coin, q = {q:.4g}, whatever "
    "the others do",
    "fixed": "every round exactly {m:g} of {N} clients are drawn, uniformly, in secret, without "
    "replacement",
    "none": "no amplification is claimed; who takes part may be known, but must not depend on "
    "the data",
}
LIMITS = (
    "anything else that leaves a client: data sizes, accuracies, losses, BatchNorm buffers, times;",
    "choices made by looking at the data, such as tuning over several private runs;",
    "a person with several clients (see plan.group);",
    "what follows about a client from patterns that would be found without it as well.",
)


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """`rows` under `columns` as aligned text; floats with five digits."""
    text = {float: "{:.5g}", type(None): "-"}
    shown = [[text.get(type(v), "{}").format(v) for v in row] for row in rows]
    lines = [list(columns), *shown]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in cells)


def fill(line: str) -> str:
    """A long line wrapped at 76 characters, what follows indented; a table as it is."""
    return line if "\n" in line else textwrap.fill(line, 76, subsequent_indent="    ")


def up(epsilon: float) -> str:
    """Four significant digits, rounded up: a printed ε is never too small."""
    digits = 10.0 ** (math.floor(math.log10(epsilon)) - 3) if epsilon > 0 else 1.0
    return f"{math.ceil(epsilon / digits - 1e-9) * digits:.4g}"


def statement(plan: PrivacyPlan, reproducible: bool) -> str:
    """See `PrivacyPlan.statement`."""
    m, view, epsilon = plan.cohort, plan.server_view(), plan.epsilon()
    local, amplified = plan.trust == "local", plan.event.sampling != "none"
    approximate = plan.accountant == "gdp"
    sampling = SAMPLINGS[plan.sampling if amplified else "none"]
    if not amplified and m < plan.clients and plan.adjacency == "add-or-remove" and not local:
        sampling += ", nor who else is drawn on whether one client is there (else: zero-out)"
    if plan.cap:
        sampling += f"; of more than {plan.cap} a random excess is sent away"
    seen = "message of this client" if local else "model of the run"
    lines = [
        f"After {plan.rounds} rounds: {'approximately ' if approximate else ''}({up(epsilon)}, "
        f"{plan.delta:.4g})-differential privacy at the client level.",
        f"Unit: one client, with all it contributes; {plan.adjacency}: {UNITS[plan.adjacency]}.",
        f"Trust, {plan.trust}: {TRUSTS[plan.trust].format(survivors=plan.survivors)}.",
        f"Against: whoever sees every {seen}{', but not who took part' if amplified else ''}.",
        f"Sampling, {plan.sampling}: {sampling.format(q=plan.sampling_rate, m=m, N=plan.clients)}.",
    ]
    if epsilon > 10:
        lines.insert(1, f"This is weak: one client may move the odds by a factor e^{epsilon:.3g}.")
    if epsilon > plan.target_epsilon * (1 + 1e-6):
        lines.insert(1, f"It misses the target ε = {plan.target_epsilon:g}.")
    knows = "whoever also knows who took part, as the server does"
    if plan.trust == "central":
        knows = "whoever also knows who took part, but not the server, which sees the updates"
    if amplified:
        lines.append(
            f"Against {knows} (hidden is what updates contain, not who sent them): ε = "
            f"{up(view['epsilon_mean'])} for the mean of {view['mean']:.4g} participations; with "
            f"probability {view['confidence']:g} no client has more than "
            f"{view['bound']:g}, which is ε = {up(view['epsilon_bound'])}."
        )
    elif plan.trust != "central":
        lines.append("That a client took part is not hidden from the server.")
    weak = plan.delta * plan.clients >= 1
    lines += [
        f"Noise: Gaussian, std z·C on each {'message' if local else 'sum'}, z = "
        f"{plan.noise_multiplier:.5g}, C the clip norm of a whole update; the mean divides by the "
        f"public {m:g}, never by the number that came.",
        f"δ = {plan.delta:.4g}: the weight of outcomes on which ε promises nothing; 1/N is "
        f"{1 / plan.clients:.4g}{', so this δ is too weak' if weak else ''}.",
        f"Accountant: {plan.accountant}, "
        + ("an approximation that can be too low." if approximate else "an upper bound."),
        f"Assumes: clips, weights, noise and draws as stated, at most {plan.rounds} rounds, and "
        "random numbers that nobody can guess.",
    ]
    if reproducible:
        lines.append(
            "Reproducible noise: it came from a generator that the caller seeded; whoever knows or "
            "guesses the seed can subtract it, and against them none of the above holds."
        )
    lines += ["It does not cover:", *(f"  - {limit}" for limit in LIMITS)]
    return "\n".join(map(fill, lines))


class Verification(list[dict[str, Any]]):
    """Rows with accountant, epsilon, seconds and note; prints as a table."""

    def __str__(self) -> str:
        return table(tuple(self[0]), [tuple(row.values()) for row in self])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _dp_accounting(plan: PrivacyPlan) -> float:
    import dp_accounting as dp
    from dp_accounting import pld

    event, z = plan.event, plan.noise_multiplier
    if event.sampling == "fixed":
        raise ValueError("dp-accounting's PLD cannot express a draw of fixed size")
    one: Any = dp.GaussianDpEvent(z)
    if event.cap:
        q = event.sampling_rate
        one = dp.TruncatedSubsampledGaussianDpEvent(plan.clients, q, event.cap, z)
    elif event.sampling == "poisson":
        one = dp.PoissonSampledDpEvent(event.sampling_rate, one)
    replace = plan.adjacency == "replace-one"
    relation = dp.NeighboringRelation
    # dp-accounting's PLD doubles the sensitivity itself under REPLACE_ONE.
    accountant = pld.PLDAccountant(relation.REPLACE_ONE if replace else relation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp.SelfComposedDpEvent(one, plan.rounds))
    return float(accountant.get_epsilon(plan.delta))


def verify(plan: PrivacyPlan) -> Verification:
    """See `PrivacyPlan.verify`."""
    questions: list[tuple[str, str, Callable[[], float]]] = [
        (f"fldp {plan.accountant}", "numpy", plan.epsilon),
        ("dp-accounting PLD", "dp_accounting", lambda: _dp_accounting(plan)),
        ("Opacus PRV", "opacus", dataclasses.replace(plan, accountant="prv").epsilon),
        ("Opacus RDP", "opacus", dataclasses.replace(plan, accountant="rdp").epsilon),
    ]
    rows = Verification()
    for name, module, ask in questions:
        row: dict[str, Any] = {"accountant": name, "epsilon": None, "seconds": None, "note": ""}
        rows.append(row)
        if importlib.util.find_spec(module) is None:
            row["note"] = "not installed: pip install 'fldp[verify]'"
            continue
        importlib.import_module(f"{module}.accountants" if module == "opacus" else module)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row["epsilon"] = ask()
            row["seconds"] = time.perf_counter() - start
        except Exception as error:  # a second opinion may fail; the table says how
            row["note"] = str(error) or type(error).__name__
    return rows


def plot(plan: PrivacyPlan, ax: Any) -> Any:
    """See `PrivacyPlan.plot`."""
    from fldp import plotting

    rounds = sorted({max(1, round(plan.rounds * i / 24)) for i in range(1, 25)})
    with plotting.style():
        ax = plotting.figure()[1] if ax is None else ax
        ax.plot([0, *rounds], [0, *map(plan.epsilon, rounds)], label="who sees the models")
        if plan.event.sampling != "none":
            server = [
                dataclasses.replace(plan, rounds=t).server_view()["epsilon_mean"] for t in rounds
            ]
            ax.plot([0, *rounds], [0, *server], "--", label="who also knows who took part (mean)")
        ax.axhline(plan.target_epsilon, color="0.5", linewidth=1, label="target")
        ax.set(xlabel="rounds", ylabel=f"ε at δ = {plan.delta:.3g}", xlim=(0, None), ylim=(0, None))
        ax.legend()
    return ax


def plan_html(plan: PrivacyPlan) -> str:
    """The plan as a small HTML table with its statement folded below."""
    shown = {"ε": plan.epsilon(), "δ": plan.delta, "z": plan.noise_multiplier} | {
        name: getattr(plan, name)
        for name in (
            "rounds",
            "clients",
            "cohort",
            "sampling",
            "trust",
            "adjacency",
            "cap",
            "survivors",
        )
        if getattr(plan, name) is not None
    }
    cells = "".join(
        f"<tr><th>{name}</th><td>{f'{value:.5g}' if isinstance(value, float) else value}</td></tr>"
        for name, value in shown.items()
    )
    words = html.escape(plan.statement())
    return f"<table>{cells}</table><details><summary>in words</summary><pre>{words}</pre></details>"
