"""Integer noise for secure aggregation: what it costs, in bits, in noise and in milliseconds.

    python -m benchmarks.lattice

Four tables. m₁, the Gaussian-DP parameter of Skellam noise, beside a Gaussian of the same variance.
The fewest bits at which noise and rounding together stay within a hundredth of the Gaussian's
standard deviation, if all clients send the same vector. The noise that an (ε, δ) takes, relative to
the Gaussian's, beside the parameters that google-research/federated's accounting_utils chooses for
the same task (recorded from a run of it, in tests/data/lattice.json): half a modulus is four
standard deviations there, and in that table here. And the time for a million draws, beside the
difference of two of numpy's Poisson draws, which is not exact, and for one client's vector.
"""

from __future__ import annotations

import argparse
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fldp
from benchmarks import common
from fldp.accounting import gaussian_mu, skellam_gdp
from fldp.mechanism.grid import MOST_BITS, Terms, finest
from fldp.mechanism.lattice import Lattice, Words, skellam_weights
from fldp.mechanism.skellam import NoisyContribution

KNOWN = Path(__file__).parent.parent / "tests" / "data" / "lattice.json"
VARIANCES = (0.05, 1.0, 2.0, 4.0, 10.0, 25.0, 100.0, 1e3, 1e4, 1e5, 1e6)
SIZES, COHORTS = (650, 10_000, 100_000, 1_000_000), (10, 100, 1000, 10_000)
GOOD = 1.01
# The standard deviations that the published choice gives half of a modulus.
THEIRS = 4.0
DRAWN, SAMPLED = (25**2, 820**2, 5000**2), 10**6
ENCODED = (10_000, 1_000_000)


def parameters() -> list[dict[str, float]]:
    """m₁ times the standard deviation: a Gaussian has 1."""
    return [
        {"variance": variance, "m1_std": skellam_gdp(variance) * math.sqrt(variance)}
        for variance in VARIANCES
    ]


def all_arrive(z: float, size: int, cohort: int) -> Terms:
    """Everybody's share of the noise is counted on, and comes."""
    return Terms(z, size, uploads=cohort, shares=cohort, arriving=cohort)


def fewest_bits() -> list[dict[str, int]]:
    """For z = 1."""
    rows = []
    for size in SIZES:
        for cohort in COHORTS:
            terms = all_arrive(1.0, size, cohort)
            tried = ((bits, finest(terms, bits)) for bits in range(1, MOST_BITS + 1))
            bits = next(b for b, grid in tried if grid is not None and grid.overhead <= GOOD)
            rows.append({"size": size, "cohort": cohort, "bits": bits})
    return rows


def published() -> list[dict[str, float]]:
    """Noise of both, relative to the Gaussian's, for the same (ε, δ), vector and modulus."""
    rows = []
    for known in json.loads(KNOWN.read_text(encoding="utf-8"))["published_noise"]:
        terms = all_arrive(1 / gaussian_mu(known["eps"], known["delta"]), known["d"], known["m"])
        alike, six = finest(terms, known["bits"], THEIRS), finest(terms, known["bits"])
        if alike is None or six is None:
            raise ValueError(f"no grid fits {known}")
        rows.append(
            {
                "epsilon": known["eps"],
                "size": known["d"],
                "cohort": known["m"],
                "bits": known["bits"],
                "published": known["google_skellam"],
                "ours": alike.overhead,
                "ours_six": six.overhead,
            }
        )
    return rows


def draws(repeats: int) -> list[dict[str, float]]:
    """Milliseconds for a million draws, and for the table before the first."""
    rows = []
    for variance in DRAWN:
        law, making = common.timed(lambda: Lattice(skellam_weights(Fraction(variance))))  # noqa: B023
        random = np.random.default_rng(0)
        half = variance / 2

        def poisson(half: float = half, random: Any = random) -> Any:
            return random.poisson(half, SAMPLED) - random.poisson(half, SAMPLED)

        def exact(law: Lattice = law) -> Any:
            return law.sample(SAMPLED, Words())

        found = common.medians({"exact": exact, "poisson": poisson}, repeats)
        rows.append(
            {
                "std": math.sqrt(variance),
                "table_ms": 1e3 * making,
                "exact_ms": 1e3 * found["exact"],
                "poisson_ms": 1e3 * found["poisson"],
            }
        )
    return rows


def clients(repeats: int) -> list[dict[str, float]]:
    """Milliseconds for one client: clip, rotate, round, add a share of noise."""
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-5, rounds=100, clients=100, trust="distributed", min_survivors=80
    )
    rows = []
    for size in ENCODED:
        client = NoisyContribution(plan, torch.zeros(size), noise=fldp.Skellam(rotation_seed=1))
        update = torch.randn(size)
        found = common.medians({"client": lambda: client.encode(update)}, repeats)  # noqa: B023
        rows.append({"size": size, "bits": client.grid.bits, "ms": 1e3 * found["client"]})
    return rows


def show(document: dict[str, Any]) -> None:
    """The tables, as text."""
    print("m₁ of Skellam noise, times its standard deviation")
    for row in document["parameters"]:
        print(f"{row['variance']:>10g}{row['m1_std']:>12.6f}")
    print(f"\nfewest bits for noise within {100 * (GOOD - 1):.0f} % of the Gaussian's, z = 1")
    print(f"{'d':>10}" + "".join(f"{f'm = {cohort}':>12}" for cohort in COHORTS))
    for size in SIZES:
        bits = [row["bits"] for row in document["fewest_bits"] if row["size"] == size]
        print(f"{size:>10}" + "".join(f"{each:>12}" for each in bits))
    print("\nnoise relative to the Gaussian's, q = 1, T = 1")
    print(f"{'ε':>8}{'d':>10}{'m':>8}{'bits':>6}{'published':>11}{'ours':>8}{'6 sds':>8}")
    for row in document["published"]:
        print(
            f"{row['epsilon']:>8.4g}{row['size']:>10}{row['cohort']:>8}{row['bits']:>6}"
            f"{row['published']:>11.4f}{row['ours']:>8.4f}{row['ours_six']:>8.4f}"
        )
    print("\nmilliseconds for a million draws")
    print(f"{'std':>8}{'table, once':>14}{'exact':>8}{'Poisson':>9}")
    for row in document["draws"]:
        print(
            f"{row['std']:>8g}{row['table_ms']:>14.0f}{row['exact_ms']:>8.0f}"
            f"{row['poisson_ms']:>9.0f}"
        )
    print("\nmilliseconds for one client's vector")
    for row in document["clients"]:
        print(f"d = {row['size']}, {row['bits']} bits: {row['ms']:.1f}")


def main() -> int:
    parser: argparse.ArgumentParser = common.parser(__doc__, "lattice")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    common.one_thread()
    document = {
        "machine": common.machine(),
        "parameters": parameters(),
        "fewest_bits": fewest_bits(),
        "published": published(),
        "draws": draws(options.repeats),
        "clients": clients(options.repeats),
    }
    show(document)
    common.write(options, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
