"""Correlated noise: what each filter costs a sum of rounds, how long fits and steps take.

    python -m benchmarks.filters

A filter's cost is its error in the sums so far times its sensitivity, in units of z·C: what the
noise of a run is scaled to. jax_privacy's figures are those of its version 2.0.0 on the same
problems, fitted by its own optimisers (19 to 42 s each, compilation included); it is not run here.
The last table is of noise that is amplified as well: groups that take turns, each by coins.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import torch

import fldp
from benchmarks import common
from fldp.accounting import gaussian_mu
from fldp.accounting.filters import (
    MOST_COEFFICIENTS,
    Filter,
    _sensitivity,
    fractional,
    independent,
    momentum_workload,
)
from fldp.accounting.fitting import banded, blt, fitted_fractional
from fldp.mechanism.correlation import Correlated

Fit = Callable[[int, int, int], Filter]
# T, k, b.
RUNS = (
    (64, 8, 8),
    (100, 3, 31),
    (500, 5, 91),
    (1000, 10, 100),
    (2000, 6, 314),
    (1000, 1, 1000),
    (10_000, 1, 10_000),
    (10_000, 20, 500),
)
FITS: dict[str, Fit] = {
    "independent": lambda rounds, k, b: independent(),
    "fractional 2": lambda rounds, k, b: fitted_fractional(rounds, k, b, 2),
    "fractional 4": lambda rounds, k, b: fitted_fractional(rounds, k, b, 4),
    "fractional 16": lambda rounds, k, b: fitted_fractional(rounds, k, b, 16),
    "square root 16": lambda rounds, k, b: fractional(16),
    "BLT 1": lambda rounds, k, b: blt(rounds, k, b, 1),
    "BLT 2": lambda rounds, k, b: blt(rounds, k, b, 2),
    "BLT 3": lambda rounds, k, b: blt(rounds, k, b, 3),
    "banded b": lambda rounds, k, b: banded(rounds, k, b),
    "square root, all": lambda rounds, k, b: fractional(rounds),
}
# More bands than that are left out: each keeps a copy of the model.
MOST_BANDS = 1000
# A server with momentum, and two runs of it.
MOMENTUM, MOMENTUM_RUNS = 0.9, ((500, 5, 91), (2000, 6, 314))
# jax_privacy 2.0.0 at the same T, k, b.
THEIRS = {
    (100, 3, 31): {"BLT 1": 4.37876, "BLT 2": 4.37876, "BLT 3": 4.37876, "banded b": 4.20959},
    (500, 5, 91): {"BLT 1": 7.41490, "BLT 2": 7.25865, "BLT 3": 7.25865, "banded b": 6.95012},
    (2000, 6, 314): {"BLT 1": 9.86192, "BLT 2": 9.24006, "BLT 3": 9.24006, "banded b": 8.85245},
}
# d of a step, and how many are timed.
SIZE, STEPS = 1_000_000, 7
REPEATS = 3
# The federation of the amplified table: N, m, T, δ, and the groups that are tried.
CLIENTS, COHORT, ROUNDS, DELTA = 100_000, 1000, 2000, 1e-6
GROUPS = (1, 2, 4, 8, 16, 32, 64)
BUDGETS = (8.0, 2.0, 0.5)


def timed(ask: Callable[[], Any]) -> float:
    """Median seconds of a few calls, each by itself."""
    seconds = []
    for _ in range(REPEATS):
        _sensitivity.cache_clear()
        seconds.append(common.timed(ask)[1])
    return statistics.median(seconds)


def scored(name: str, fit: Fit, rounds: int, k: int, b: int) -> dict[str, Any]:
    """The row of a filter on a run."""
    filter = fit(rounds, k, b)
    moved = filter.sensitivity(rounds, k, b)
    return {
        "rounds": rounds,
        "participations": k,
        "separation": b,
        "filter": name,
        "order": filter.order,
        "score": filter.error(rounds) * moved,
        "sensitivity": moved,
        "fit_seconds": timed(lambda: fit(rounds, k, b)),
        "sensitivity_ms": 1e3 * timed(lambda: filter.sensitivity(rounds, k, b)),
        "jax_privacy": THEIRS.get((rounds, k, b), {}).get(name),
    }


def scores() -> list[dict[str, Any]]:
    """A row for each run and filter."""
    rows = []
    for (rounds, k, b), (name, fit) in itertools.product(RUNS, FITS.items()):
        many = name == "banded b" and min(b, rounds) > MOST_BANDS
        if many or (name == "square root, all" and rounds > MOST_COEFFICIENTS):
            continue
        row = scored(name, fit, rounds, k, b)
        rows.append(row)
        theirs = f"  jax_privacy {row['jax_privacy']:.5f}" if row["jax_privacy"] else ""
        print(
            f"{rounds:6d} {k:3d} {b:6d}  {name:17s} {row['score']:10.5f}  fit "
            f"{row['fit_seconds']:6.3f} s  sensitivity {row['sensitivity_ms']:6.2f} ms{theirs}",
            flush=True,
        )
    return rows


def with_momentum() -> list[dict[str, Any]]:
    """What a fit loses that does not know of the server's momentum."""
    rows = []
    for rounds, k, b in MOMENTUM_RUNS:
        workload = momentum_workload(rounds, MOMENTUM)
        fits = {
            "independent": independent(),
            "BLT 2, fitted to it": blt(rounds, k, b, 2, momentum=MOMENTUM),
            "BLT 2, fitted to sums": blt(rounds, k, b, 2),
            "banded b, fitted to it": banded(rounds, k, b, momentum=MOMENTUM),
        }
        for name, filter in fits.items():
            score = filter.error(rounds, workload) * filter.sensitivity(rounds, k, b)
            rows.append(
                {"rounds": rounds, "participations": k, "separation": b, "filter": name,
                 "momentum": MOMENTUM, "score": score}
            )  # fmt: skip
            print(f"{rounds:6d} {k:3d} {b:6d}  momentum {MOMENTUM}  {name:22s} {score:8.3f}")
    return rows


def steps() -> list[dict[str, Any]]:
    """Milliseconds of the noise of a round at d = 1e6, and of fresh noise."""
    like = torch.empty(0)
    made: dict[str, fldp.Gaussian] = {
        "fresh": fldp.Gaussian(),
        "BLT 1": Correlated(blt(1000, 10, 100, 1)),
        "BLT 2": Correlated(blt(1000, 10, 100, 2)),
        "fractional 4": Correlated(fitted_fractional(1000, 10, 100, 4)),
        "fractional 16": Correlated(fractional(16)),
        "banded 100": Correlated(banded(1000, 10, 100)),
    }

    def step(noise: fldp.Gaussian) -> Callable[[], object]:
        return lambda: noise.finish(noise.start(SIZE, like, 1.0, 1), 1.0, 1.0)

    times = common.medians({name: step(noise) for name, noise in made.items()}, STEPS)
    rows = []
    for name, noise in made.items():
        order = noise.filter.order if isinstance(noise, Correlated) else 0
        rows.append(
            {
                "noise": name,
                "ms": 1e3 * times[name],
                "ratio_to_fresh": times[name] / times["fresh"],
                "filter_ms": 1e3 * (times[name] - times["fresh"]),
                "state_mib": 4 * order * SIZE / 2**20,
            }
        )
        print(
            f"{name:14s} {rows[-1]['ms']:8.1f} ms a round, {rows[-1]['ratio_to_fresh']:5.2f} times "
            f"fresh noise, {rows[-1]['state_mib']:6.1f} MiB",
            flush=True,
        )
    return rows


def amplified() -> list[dict[str, Any]]:
    """The error in the sums, in clip norms, with coins in the turns of so many groups."""
    apart = CLIENTS // COHORT
    most = -(-ROUNDS // apart)
    plain = blt(ROUNDS, most, apart, 2)
    rows = []
    for epsilon in BUDGETS:
        moved = plain.sensitivity(ROUNDS, most, apart)
        without = plain.error(ROUNDS) * moved / gaussian_mu(epsilon, DELTA)
        errors = {}
        for groups in GROUPS:
            plan = fldp.calibrate(
                epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=CLIENTS, cohort=COHORT,
                separation=groups, correlation="banded",
            )  # fmt: skip
            assert plan.correlation is not None
            errors[groups] = plan.noise_multiplier * plan.correlation.error(ROUNDS)
        best = min(errors, key=lambda groups: errors[groups])
        rows.append(
            {"epsilon": epsilon, "blt_without_coins": without, "by_groups": errors, "best": best}
        )
        print(
            f"ε {epsilon:3g}: BLT without coins {without:7.2f}, one group {errors[1]:7.2f}, {best} "
            f"groups {errors[best]:7.2f}",
            flush=True,
        )
    return rows


def main() -> int:
    options = common.parser(__doc__, "filters").parse_args()
    common.one_thread()
    # What an import takes is no fit's.
    blt(10, 2, 3, 1)
    fitted_fractional(10, 2, 3)
    fractional(100).coefficients(200)
    rows = scores()
    document = {
        "machine": common.machine(),
        "rows": rows,
        "momentum": with_momentum(),
        "steps": steps(),
        "amplified": amplified(),
        "worst_fit_seconds": {
            name: max(row["fit_seconds"] for row in rows if row["filter"] == name)
            for name in ("BLT 1", "BLT 2", "banded b")
        },
        # How far another library's fit is below ours: at most rounding of its printed figure.
        "theirs_below_ours": max(
            row["score"] - row["jax_privacy"] for row in rows if row["jax_privacy"]
        ),
    }
    print(f"worst fits: {document['worst_fit_seconds']}")
    print(f"jax_privacy below ours by at most {document['theirs_below_ours']:.1e}")
    common.write(options, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
