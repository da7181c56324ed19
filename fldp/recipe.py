"""What the recipe of Opacus issue 669 (the code of DynamicPFL) claims, and what it gives.

The recipe asks Opacus' RDP accountant for its noise. What Opacus answers is computed here, to the
last digit, without Opacus: loading it takes seconds, for torch, and its own search is some thirty
times slower. A test compares both.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from fldp import accounting
from fldp._checks import listed, real, whole
from fldp._text import down, fill, table, up

__all__ = ["Diagnosis", "Finding", "explain_recipe", "opacus_noise_multiplier"]

# z, below which the quadrature would take gigabytes.
_SMALLEST = 0.03
# The orders of Opacus' RDP accountant: 1.1 to 10.9 in tenths, and 12 to 63.
_ORDERS = np.array([*(1 + x / 10 for x in range(1, 100)), *range(12, 64)])
# Standard deviations beyond the outermost peak: what is left out is below any rounding.
_REACH = 12
# Nodes in a standard deviation, at least: the trapezoidal rule is then exact to rounding for what
# is as smooth as a Gaussian.
_NODES = 4
# Opacus' search for z: it doubles this, up to a limit, and halves until ε is near enough.
_FIRST_GUESS = 10.0
_LARGEST = 1e6
_TOLERANCE = 0.01
# Far above the round-off of a rate times a count, far below one client.
_ROUND_OFF = 1e-9


def _opacus_rdp(q: float, z: float, steps: float, delta: float) -> float:
    """ε as Opacus' RDP accountant reports it, negative values and all; quadrature in numpy.

    Mironov, Talwar and Zhang (2019): the Rényi divergence of order a between the mixture
    (1 - q) N(0, z²) + q N(1, z²) and N(0, z²), to (ε, δ) by Balle et al. (2020), theorem 21.

    Parameters
    ----------
    q, z, steps, delta
        Sampling rate in (0, 1], noise multiplier, how many steps, δ in (0, 1).
    """
    rdp = _ORDERS / (2 * z**2)
    if q < 1:
        rdp = _log_moments(q, z) / (_ORDERS - 1)
    epsilons = (
        steps * rdp
        - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
        + np.log((_ORDERS - 1) / _ORDERS)
    )
    return float(np.nanmin(epsilons))


def _log_moments(q: float, z: float) -> np.ndarray:
    """Log of the mean of (mixture over Gaussian)^a under the Gaussian, for each order a."""
    # The likelihood ratio bends within z² of its middle: at little noise, shorter than within z.
    step = min(z / _NODES, z * z / 2)
    # The integrand of order a peaks near 0 and near a.
    x = np.arange(-_REACH * z, _ORDERS[-1] + _REACH * z, step)
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z * z))
    terms = _ORDERS[:, None] * log_ratio - x * x / (2 * z * z)
    top = terms.max(1)
    total = np.exp(terms - top[:, None]).sum(1) * step / (z * math.sqrt(2 * math.pi))
    return np.asarray(top + np.log(total))


def opacus_noise_multiplier(epsilon: float, delta: float, q: float, steps: float) -> float:
    """What Opacus' `get_noise_multiplier(accountant="rdp")` returns, without loading Opacus.

    Parameters
    ----------
    epsilon, delta
        The target.
    q, steps
        Opacus' `sample_rate` and `steps`; the recipe's steps need not be whole.

    Returns
    -------
    float
        The noise multiplier z, as Opacus' search finds it: its ε is below the target by at most
        0.01.

    Raises
    ------
    ValueError
        For a target that Opacus cannot reach, or with so little noise that nothing is computed.

    Examples
    --------
    >>> round(opacus_noise_multiplier(epsilon=3.0, delta=1e-5, q=0.01, steps=1000), 4)
    0.8655
    """
    low = 0.0
    high = _FIRST_GUESS
    reached = math.inf
    while reached > epsilon:
        high *= 2
        if high > _LARGEST:
            raise ValueError(f"epsilon is {epsilon:g}: below what Opacus' RDP accountant can reach")
        reached = _opacus_rdp(q, high, steps, delta)
    while epsilon - reached > _TOLERANCE:
        middle = (low + high) / 2
        if q < 1 and middle < _SMALLEST:
            raise ValueError(f"epsilon is {epsilon:g}: with so little noise nothing is left to say")
        spent = _opacus_rdp(q, middle, steps, delta)
        if spent < epsilon:
            high = middle
            reached = spent
        else:
            low = middle
    return high


class Finding(TypedDict):
    """What one kind of observer gets: `epsilon` for a `unit` under `adjacency`, and why.

    Attributes
    ----------
    release, unit, adjacency, trust : str
        What is seen, whose data, under which relation of neighbours, and who is trusted.
    epsilon : float
        What that gives.
    why : str
        In words.

    Examples
    --------
    >>> found = explain_recipe(epsilon=1, delta=1e-5, rounds=15, clients=10,
    ...                        records=50000, batch_size=16, local_epochs=2)
    >>> sorted(found.findings[0])
    ['adjacency', 'epsilon', 'release', 'trust', 'unit', 'why']
    """

    release: str
    unit: str
    adjacency: str
    trust: str
    epsilon: float
    why: str


@dataclass(frozen=True)
class Diagnosis:
    """What the recipe claims, and what it gives; it prints as a table.

    Parameters
    ----------
    epsilon, delta
        What it claims.
    true_delta
        The δ at which `findings` are stated.
    sample_rate, steps
        q and the number of steps that the recipe takes for its own.
    noise_multiplier
        The z that it gets from them.
    effective_noise_multiplier
        What arrives on the sum of a round, z·√(m/N).
    findings
        What it gives: one `Finding` for each kind of observer.
    needed
        By adjacency, the z on the sum that the claim takes.

    Examples
    --------
    >>> found = explain_recipe(epsilon=1, delta=1e-5, rounds=15, clients=10,
    ...                        records=50000, batch_size=16, local_epochs=2)
    >>> found.epsilon < found.findings[0]["epsilon"]
    True
    """

    epsilon: float
    delta: float
    true_delta: float
    sample_rate: float
    steps: float
    noise_multiplier: float
    effective_noise_multiplier: float
    findings: tuple[Finding, ...]
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
        """All fields, as plain data."""
        return dataclasses.asdict(self)


def _row(finding: Finding) -> list[str]:
    """A finding as shown: its ε rounded up, or down where it is what an attack reaches at least."""
    rounded = down if "at least" in finding["release"] else up
    words = [finding["release"], finding["unit"], finding["adjacency"], finding["trust"]]
    # Five digits, as everywhere in a diagnosis.
    return [*words, rounded(finding["epsilon"], 5)]


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
    def sampling(self) -> str:
        return "poisson" if self.drawn else "none"

    def on_sum(self, z: float, adjacency: str) -> float:
        """ε of all rounds with noise z on their sums."""
        return accounting.epsilon(
            noise_multiplier=z,
            delta=self.delta,
            rounds=self.rounds,
            sampling_rate=self.cohort / self.clients,
            sampling=self.sampling,
            adjacency=adjacency,
        )

    def needed(self, epsilon: float, adjacency: str) -> float:
        """The noise on a round's sum that an ε takes."""
        return accounting.noise_multiplier(
            epsilon=epsilon,
            delta=self.delta,
            rounds=self.rounds,
            sampling_rate=self.cohort / self.clients,
            sampling=self.sampling,
            adjacency=adjacency,
        )


def _central(run: _Run, claimed: float) -> list[Finding]:
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
    hidden = Finding(
        release=every,
        unit="client",
        adjacency="zero-out",
        trust="central",
        epsilon=run.on_sum(run.effective, "zero-out"),
        why=why,
    )
    opposite = Finding(
        release=every,
        unit="client or record",
        adjacency="replace-one",
        trust="central",
        epsilon=run.on_sum(run.effective, "replace-one"),
        why="One record can turn a clipped update into its opposite: the sum moves by 2C. Batches "
        "amplify nothing: the noise comes after the whole local run.",
    )
    if not run.drawn:
        return [hidden, opposite]
    # All others at -C and a canary that turns from -C to C: the sum moves by 2C, under a noise that
    # is half as large against it, as if one client were added.
    fixed = Finding(
        release="every model, fixed size: at least",
        unit="client or record",
        adjacency="replace-one",
        trust="central",
        epsilon=run.on_sum(run.effective / 2, "add-or-remove"),
        why="random.sample draws a fixed number, where the accountant assumes a coin per client; a "
        "known bad case (all others at -C) costs this.",
    )
    return [hidden, opposite, fixed]


def _heaviest(run: _Run, weights: Sequence[float]) -> list[Finding]:
    """What the client of the largest weight pays, where weights differ."""
    w = np.asarray(weights, np.float64)
    if w.size == 0 or np.ptp(w) == 0:
        return []
    heaviest = w.max()
    # The mean square of another client's weight: its share of noise is weighted like its update.
    rest = (np.square(w).sum() - heaviest**2) / (run.clients - 1)
    scale = math.sqrt(heaviest**2 + (run.cohort - 1) * rest) / heaviest
    found = Finding(
        release="every model, Poisson" if run.drawn else "every model",
        unit=f"client of weight {heaviest / w.sum():.2g}",
        adjacency="zero-out",
        trust="central",
        epsilon=run.on_sum(run.share * scale, "zero-out"),
        why="The heaviest client moves a weighted average most, and its noise does not grow with "
        "it; weights from data sizes are private themselves.",
    )
    return [found]


def _local(run: _Run) -> list[Finding]:
    """Against a server that reads the messages."""
    messages = max(1, round(run.rate * run.rounds))
    one = Finding(
        release="one message",
        unit="client",
        adjacency="zero-out",
        trust="local",
        epsilon=accounting.gaussian_epsilon(1 / run.share, run.delta),
        why="z·C/√N is a share of noise: enough for a sum of N whose parts nobody sees, not for a "
        "message that the server reads.",
    )
    doubled = Finding(
        release="one message",
        unit="client or record",
        adjacency="replace-one",
        trust="local",
        epsilon=accounting.gaussian_epsilon(2 / run.share, run.delta),
        why="The same, with 2C.",
    )
    all_of_them = Finding(
        release="one message" if messages == 1 else f"its {messages} messages",
        unit="client",
        adjacency="zero-out",
        trust="local",
        epsilon=accounting.gaussian_epsilon(math.sqrt(messages) / run.share, run.delta),
        why="The server knows who took part and adds up what it saw.",
    )
    return [one, doubled, all_of_them]


def _federation(
    clients: int | None,
    records: int | None,
    client_sizes: Sequence[int] | None,
    weights: Sequence[float] | None,
) -> tuple[int, int, tuple[float, ...]]:
    """How many clients, how many records, their weights; ValueError unless they agree.

    Weights are the sizes where sizes and no weights are given.
    """
    if client_sizes is not None:
        sizes = [whole("every client size", n) for n in listed("client_sizes", client_sizes)]
        total = sum(sizes)
        if clients not in (None, len(sizes)) or records not in (None, total):
            raise ValueError(f"client_sizes has {len(sizes)} sizes, sum {total}: drop the rest")
        clients = len(sizes)
        records = total
        weights = sizes if weights is None else weights
    given = () if weights is None else listed("weights", weights)
    return (
        whole("clients", clients, 2),
        whole("records", records),
        tuple(real("every weight", weight) for weight in given),
    )


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

    Returns
    -------
    Diagnosis
        Its `findings` say which ε holds against whom; `print` shows them.

    Raises
    ------
    ValueError
        For impossible input.

    Examples
    --------
    >>> d = explain_recipe(epsilon=1, delta=1e-5, rounds=15, clients=10,
    ...                    records=50000, batch_size=16, local_epochs=2)
    >>> round(d.noise_multiplier, 4), [round(f["epsilon"], 1) for f in d.findings[:2]]
    (0.8545, [28.9, 78.9])
    """
    epsilon = real("epsilon", epsilon)
    delta = real("delta", delta, 1)
    true_delta = delta if true_delta is None else real("true_delta", true_delta, 1)
    rounds = whole("rounds", rounds)
    batch_size = whole("batch_size", batch_size)
    rate = real("user_sample_rate", user_sample_rate)
    local_epochs = whole("local_epochs", local_epochs)
    people, total, weighed = _federation(clients, records, client_sizes, weights)
    if rate > 1 or batch_size > total or len(weighed) not in (0, people):
        raise ValueError(
            f"user_sample_rate is {rate:g}, batch_size {batch_size} of {total} records, "
            f"{len(weighed)} weights for {people} clients: give a rate <= 1, a "
            "smaller batch, a weight per client"
        )
    # The recipe's own two lines: the rate of users enters both.
    sample_rate = batch_size / total * rate
    steps = rate * rounds * local_epochs * total / batch_size
    run = _Run(
        z=opacus_noise_multiplier(epsilon, delta, sample_rate, steps),
        sample_rate=sample_rate,
        steps=steps,
        rounds=rounds,
        clients=people,
        # The recipe rounds down; a product just below a whole number is that number.
        cohort=max(1, int(rate * people + _ROUND_OFF)),
        rate=rate,
        delta=true_delta,
    )
    return Diagnosis(
        epsilon=epsilon,
        delta=delta,
        true_delta=true_delta,
        sample_rate=sample_rate,
        steps=steps,
        noise_multiplier=run.z,
        effective_noise_multiplier=run.effective,
        findings=(*_central(run, delta), *_heaviest(run, weighed), *_local(run)),
        needed={name: run.needed(epsilon, name) for name in ("zero-out", "replace-one")},
    )
