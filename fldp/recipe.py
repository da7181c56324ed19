"""What the recipe of Opacus issue 669 (the code of DynamicPFL) claims, and what it gives."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fldp import accounting
from fldp._checks import listed, real, whole
from fldp._text import down, fill, table, up

# z, below which the quadrature would take gigabytes.
_SMALLEST = 0.03
# The orders of Opacus' RDP accountant.
_ORDERS = np.array([*(1 + x / 10 for x in range(1, 100)), *range(12, 64)])


def _opacus_rdp(q: float, z: float, steps: float, delta: float) -> float:
    """ε as Opacus' RDP accountant reports it, negative values and all; quadrature in numpy."""
    if q == 1:
        rdp = _ORDERS / (2 * z**2)
    else:
        step = min(z / 4, z * z / 2)
        x = np.arange(-12 * z, _ORDERS[-1] + 12 * z, step)
        ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z * z))
        terms = _ORDERS[:, None] * ratio - x * x / (2 * z * z)
        top = terms.max(1)
        total = np.exp(terms - top[:, None]).sum(1) * step / (z * math.sqrt(2 * math.pi))
        rdp = (top + np.log(total)) / (_ORDERS - 1)
    epsilons = (
        steps * rdp
        - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
        + np.log((_ORDERS - 1) / _ORDERS)
    )
    return float(np.nanmin(epsilons))


def opacus_noise_multiplier(epsilon: float, delta: float, q: float, steps: float) -> float:
    """What Opacus' `get_noise_multiplier(accountant="rdp")` returns, without loading Opacus."""
    low, high, reached = 0.0, 10.0, math.inf
    while reached > epsilon:
        high *= 2
        if high > 1e6:
            raise ValueError(f"epsilon is {epsilon:g}: below what Opacus' RDP accountant can reach")
        reached = _opacus_rdp(q, high, steps, delta)
    while epsilon - reached > 0.01:
        middle = (low + high) / 2
        if q < 1 and middle < _SMALLEST:
            raise ValueError(f"epsilon is {epsilon:g}: with so little noise nothing is left to say")
        spent = _opacus_rdp(q, middle, steps, delta)
        if spent < epsilon:
            high, reached = middle, spent
        else:
            low = middle
    return high


@dataclass(frozen=True)
class Diagnosis:
    """What the recipe claims (`epsilon`, `delta`) and gives (`findings`, at `true_delta`).

    `noise_multiplier` is the z that it gets from its own `sample_rate` and `steps`, and
    `effective_noise_multiplier` what arrives on the sum, z·√(m/N). A finding is a dict: release,
    unit, adjacency, trust, epsilon and why. `needed`: by adjacency, the z that the claim takes.
    """

    epsilon: float
    delta: float
    true_delta: float
    sample_rate: float
    steps: float
    noise_multiplier: float
    effective_noise_multiplier: float
    findings: tuple[dict[str, Any], ...]
    needed: dict[str, float]

    def __str__(self) -> str:
        rows = [(i, *_row(finding)) for i, finding in enumerate(self.findings, 1)]
        needed = ", ".join(f"{up(z, 5)} ({name})" for name, z in self.needed.items())
        lines = [
            f"The recipe takes q = {self.sample_rate:.4g} and {self.steps:.6g} steps, gets "
            f"z = {self.noise_multiplier:.5g} and claims ε = {up(self.epsilon)}, δ = "
            f"{up(self.delta)}.",
            f"On a round's sum the noise is {self.effective_noise_multiplier:.5g}·C. At δ = "
            f"{up(self.true_delta)} that gives:",
            table(("", "release", "unit", "adjacency", "trust", "ε"), rows),
            *(f"{i}. {finding['why']}" for i, finding in enumerate(self.findings, 1)),
            f"The claim takes a z on the sum of {needed}: see fldp.calibrate.",
        ]
        return "\n".join(fill(line) for line in lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _row(finding: dict[str, Any]) -> list[str]:
    """A finding as shown: its ε rounded up, or down where it is what an attack reaches at least."""
    rounded = down if "at least" in finding["release"] else up
    shown = {k: v for k, v in finding.items() if k != "why"}
    return list((shown | {"epsilon": rounded(finding["epsilon"], 5)}).values())


@dataclass(frozen=True)
class _Run:
    """What the recipe runs: its own figures, and those of the cohort that it draws."""

    z: float
    sample_rate: float
    steps: float
    rounds: int
    clients: int
    cohort: int
    rate: float  # of users, as asked
    delta: float

    @property
    def drawn(self) -> bool:
        return self.cohort < self.clients

    @property
    def effective(self) -> float:
        """z on a round's sum: each of m clients adds a share of N."""
        return self.z * math.sqrt(self.cohort / self.clients)

    @property
    def share(self) -> float:
        """z on one client's message."""
        return self.z / math.sqrt(self.clients)

    @property
    def setting(self) -> dict[str, Any]:
        """The accountant's arguments, but for noise and adjacency."""
        sampling = "poisson" if self.drawn else "none"
        return {
            "rounds": self.rounds,
            "delta": self.delta,
            "sampling_rate": self.cohort / self.clients,
            "sampling": sampling,
        }

    def on_sum(self, z: float, adjacency: str) -> float:
        return accounting.epsilon(noise_multiplier=z, adjacency=adjacency, **self.setting)


def _finding(
    release: str, unit: str, adjacency: str, trust: str, epsilon: float, why: str
) -> dict[str, Any]:
    return {
        "release": release,
        "unit": unit,
        "adjacency": adjacency,
        "trust": trust,
        "epsilon": epsilon,
        "why": why,
    }


def _central(run: _Run, weights: Sequence[float], claimed: float) -> list[dict[str, Any]]:
    """Against whoever sees every model."""
    every = "every model, Poisson" if run.drawn else "every model"
    why = (
        f"The recipe accounts {run.steps:.6g} steps of q = {run.sample_rate:.3g}. What runs is one "
        f"clip and one noise per round: {run.rounds} releases at q = "
        f"{run.cohort / run.clients:.3g}, of clients, not of records; batches, epochs and data "
        "sizes play no part."
    )
    if run.drawn:
        why += (
            f" The noise of {run.cohort} of {run.clients} shares is z·√(m/N), and the rate "
            f"{run.rate:.3g} is counted twice, in q and in the steps."
        )
    if claimed * run.clients >= 1:
        why += f" δ = {claimed:g} >= 1/N would let one client be published."
    hidden, opposite = "zero-out", "replace-one"
    findings = [
        _finding(every, "client", hidden, "central", run.on_sum(run.effective, hidden), why),
        _finding(
            every,
            "client or record",
            opposite,
            "central",
            run.on_sum(run.effective, opposite),
            "One record can turn a clipped update into its opposite: the sum moves by 2C. Batches "
            "amplify nothing: the noise comes after the whole local run.",
        ),
    ]
    if run.drawn:
        findings.append(
            _finding(
                "every model, fixed size: at least",
                "client or record",
                opposite,
                "central",
                run.on_sum(run.effective / 2, "add-or-remove"),
                "random.sample draws a fixed number, where the accountant assumes a coin per "
                "client; a known bad case (all others at -C) costs this.",
            )
        )
    w = np.asarray(weights, np.float64)
    if w.size and np.ptp(w) > 0:
        rest = (np.square(w).sum() - w.max() ** 2) / (run.clients - 1)
        scale = math.sqrt(w.max() ** 2 + (run.cohort - 1) * rest) / w.max()
        findings.append(
            _finding(
                every,
                f"client of weight {w.max() / w.sum():.2g}",
                hidden,
                "central",
                run.on_sum(run.share * scale, hidden),
                "The heaviest client moves a weighted average most, and its noise does not grow "
                "with it; weights from data sizes are private themselves.",
            )
        )
    return findings


def _local(run: _Run) -> list[dict[str, Any]]:
    """Against a server that reads the messages."""
    messages = max(1, round(run.rate * run.rounds))
    one = accounting.gaussian_epsilon(1 / run.share, run.delta)
    doubled = accounting.gaussian_epsilon(2 / run.share, run.delta)
    all_of_them = accounting.gaussian_epsilon(math.sqrt(messages) / run.share, run.delta)
    return [
        _finding(
            "one message",
            "client",
            "zero-out",
            "local",
            one,
            "z·C/√N is a share of noise: enough for a sum of N whose parts nobody sees, not for a "
            "message that the server reads.",
        ),
        _finding(
            "one message",
            "client or record",
            "replace-one",
            "local",
            doubled,
            "The same, with 2C.",
        ),
        _finding(
            "one message" if messages == 1 else f"its {messages} messages",
            "client",
            "zero-out",
            "local",
            all_of_them,
            "The server knows who took part and adds up what it saw.",
        ),
    ]


def explain_recipe(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    batch_size: int,
    clients: int | None = None,
    records: int | None = None,
    client_sizes: Sequence[int] | None = None,
    local_epochs: int = 1,
    user_sample_rate: float = 1.0,
    weights: Sequence[float] | None = None,
    true_delta: float | None = None,
) -> Diagnosis:
    """What the recipe's arguments yield, claim and truly give.

    The recipe draws cohorts of fixed size; a line that says Poisson is the kinder reading.

    Parameters
    ----------
    epsilon, delta
        What the recipe is asked for, and then claims.
    rounds, local_epochs, batch_size
        Global rounds, epochs of a client per round, records per local step.
    clients, records
        How many clients there are, at least 2, and how many records they have together.
    client_sizes
        Records of each client, in place of both.
    user_sample_rate
        The fraction of the clients in a round, in (0, 1].
    weights
        Of the clients in the average; by default the sizes, as in the recipe, or all equal.
    true_delta
        The delta at which the truth is told; by default `delta`.

    Raises
    ------
    ValueError
        For impossible input.

    Examples
    --------
    >>> d = explain_recipe(epsilon=1, delta=1e-5, rounds=15, batch_size=16, clients=10,
    ...                    records=50000, local_epochs=2)
    >>> round(d.noise_multiplier, 4), [round(f["epsilon"], 1) for f in d.findings[:2]]
    (0.8545, [28.9, 78.9])
    """
    epsilon, delta = real("epsilon", epsilon), real("delta", delta, 1)
    true_delta = delta if true_delta is None else real("true_delta", true_delta, 1)
    rounds, batch_size = whole("rounds", rounds), whole("batch_size", batch_size)
    u, epochs = real("user_sample_rate", user_sample_rate), whole("local_epochs", local_epochs)
    if client_sizes is not None:
        sizes = [whole("every client size", n) for n in listed("client_sizes", client_sizes)]
        if clients not in (None, len(sizes)) or records not in (None, sum(sizes)):
            raise ValueError(
                f"client_sizes has {len(sizes)} sizes, sum {sum(sizes)}: drop the rest"
            )
        clients, records = len(sizes), sum(sizes)
        weights = sizes if weights is None else weights
    N, total = whole("clients", clients, 2), whole("records", records)
    w = [] if weights is None else [real("every weight", x) for x in listed("weights", weights)]
    if u > 1 or batch_size > total or len(w) not in (0, N):
        raise ValueError(
            f"user_sample_rate is {u:g}, batch_size {batch_size} of {total} records, {len(w)} "
            f"weights for {N} clients: give a rate <= 1, a smaller batch, a weight per client"
        )
    sample_rate, steps = batch_size / total * u, u * rounds * epochs * total / batch_size
    z = opacus_noise_multiplier(epsilon, delta, sample_rate, steps)
    m = max(1, int(u * N + 1e-9))
    run = _Run(z, sample_rate, steps, rounds, N, m, u, true_delta)
    findings = (*_central(run, w, delta), *_local(run))
    needed = {
        unit: accounting.noise_multiplier(epsilon=epsilon, adjacency=unit, **run.setting)
        for unit in ("zero-out", "replace-one")
    }
    return Diagnosis(
        epsilon, delta, true_delta, sample_rate, steps, z, run.effective, findings, needed
    )
