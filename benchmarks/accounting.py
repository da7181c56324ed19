"""Calibration and accounting: `fldp` beside Opacus and dp-accounting.

    python -m benchmarks.accounting [--only speed hard gaps] [--random 500] [--repeats 5]

One process, one thread, every contender interleaved with the others, medians. Four tables, also
in `benchmarks/results/accounting.json`:

- time and noise multiplier of one calibration on four settings. "spent" is the epsilon of the
  returned noise by dp-accounting's privacy-loss distribution (PLD); dp-accounting calibrates to a
  tolerance of 1e-4 in the noise and runs once;
- hard questions: how long a budget lasts over thousands of millions of rounds, delta at a given
  epsilon, groups of clients, a cap on a hundred million clients, budgets next to zero and without
  any privacy, participation that the adversary knows, several mechanisms together; where
  dp-accounting has an answer, once, beside ours;
- epsilon against dp-accounting's PLD on a 1e-5 grid: the reference cases of `ground_truth.json`
  and `--random` settings drawn with a fixed seed. A reference below epsilon 0.01, or whose own
  grid is not yet settled (a grid ten times coarser differs by more than 1 %), says nothing about
  one part in a thousand: such settings are counted apart. Where double precision is too coarse for
  delta (rounds times round-off above delta / 1000) dp-accounting's one-round distribution is
  composed here in long doubles: its own answer then moves by up to a percent in either direction.
  Where fldp is below the reference by more than 1e-6, the reference is asked again on grids 3 and
  10 times finer: all of them are upper bounds, and the least one counts;
- whole processes: `import fldp` and `fldp calibrate` beside the imports that peers need.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as distributions
from opacus.accountants.utils import get_noise_multiplier

from benchmarks import common
from fldp import accounting

HERE = Path(__file__).parent
TRUTH = HERE.parent / "tests" / "data" / "ground_truth.json"
SETTINGS = ((8.0, 1e-5, 0.01, 1000), (2.0, 1e-6, 0.001, 10_000), (8.0, 1e-5, 1.0, 100),
            (1.0, 1e-6, 0.03, 1500))  # fmt: skip
PROCESSES = {
    "import numpy": ["-c", "import numpy"],
    "import fldp": ["-c", "import fldp"],
    "fldp calibrate": ["-m", "fldp", "calibrate", "--epsilon", "8", "--delta", "1e-3",
                       "--rounds", "60", "--clients", "480", "--cohort", "120"],
    "import dp_accounting": ["-c", "import dp_accounting"],
    "import opacus.accountants": ["-c", "import opacus.accountants"],
}  # fmt: skip


def pld_epsilon(z: float, q: float, rounds: int, delta: float, grid: float) -> float:
    one = distributions.from_gaussian_mechanism(
        z, sampling_prob=q, value_discretization_interval=grid
    )
    return float(one.self_compose(rounds).get_epsilon_for_delta(delta))


def long_epsilon(z: float, q: float, rounds: int, delta: float, grid: float) -> float:
    """The same from dp-accounting's distribution of one round, composed in long doubles."""
    one = distributions.from_gaussian_mechanism(
        z, sampling_prob=q, value_discretization_interval=grid
    )
    found = [_compose(pmf.to_dense_pmf(), rounds, delta, grid)
             for pmf in (one._pmf_remove, one._pmf_add)]  # fmt: skip
    return max(found)


def _compose(one: Any, rounds: int, delta: float, grid: float) -> float:
    mass = np.asarray(one._probs, np.longdouble)
    infinite = float(-np.expm1(rounds * np.log1p(-np.longdouble(one._infinity_mass))))
    for size in 1 << np.arange(16, 25):
        wrapped = np.zeros(size, np.longdouble)
        np.add.at(wrapped, (one._lower_loss + np.arange(mass.size)) % size, mass)
        step, power, left = np.fft.rfft(wrapped), np.longdouble(1), rounds
        while left:
            power, left = (power * step if left & 1 else power), left >> 1
            step = step * step
        total = np.roll(np.fft.irfft(power, size), size // 4)
        if total[-size // 16 :].sum() > 1e-7 * delta or total[: size // 16].sum() > 1e-7 * delta:
            continue  # mass near an end of the window may have wrapped around
        total = total[size // 4 :]  # losses from 0 upwards; their weights need no long doubles
        loss = np.arange(total.size) * grid
        up = np.cumsum(total[::-1])[::-1] + infinite
        down = np.cumsum((total * np.exp(-loss))[::-1])[::-1]
        first = int(np.argmax(up - np.exp(np.minimum(loss, 700.0)) * down <= delta))
        exact = np.log((up[first] - delta) / down[first])
        return float(min(loss[first], max(loss[max(0, first - 1)], exact)))
    return float("nan")


def calibrators(
    epsilon: float, delta: float, q: float, rounds: int
) -> dict[str, tuple[Callable[[], float], bool]]:
    """What to time, and whether once is enough."""
    target = {"target_epsilon": epsilon, "target_delta": delta, "sample_rate": q, "steps": rounds}

    def event(z: float) -> Any:
        gaussian = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
        return dp_accounting.SelfComposedDpEvent(gaussian, rounds)

    def dp_pld() -> float:
        bracket = dp_accounting.LowerEndpointAndGuess(0.2, 1.0)
        found = dp_accounting.calibrate_dp_mechanism(
            PLDAccountant, event, epsilon, delta, bracket, tol=1e-4
        )
        return float(found or 0.0)

    return {
        "fldp": (
            lambda: accounting.noise_multiplier(
                epsilon=epsilon, delta=delta, rounds=rounds, sampling_rate=q
            ),
            False,
        ),
        "opacus rdp": (lambda: get_noise_multiplier(**target, accountant="rdp"), False),
        "opacus prv": (lambda: get_noise_multiplier(**target, accountant="prv"), False),
        "dp-accounting pld": (dp_pld, True),
    }


def speed(repeats: int) -> list[dict[str, Any]]:
    rows = []
    for setting in SETTINGS:
        epsilon, delta, q, rounds = setting
        times: dict[str, list[float]] = {}
        noise: dict[str, float] = {}
        for turn in range(repeats):
            for name, (run, once) in calibrators(*setting).items():
                if once and turn:
                    continue
                # many short runs, so that one clock tick or one interruption does not decide
                for _ in range(5 if name == "fldp" else 1):
                    noise[name], seconds = common.timed(run)
                    times.setdefault(name, []).append(seconds)
        ours = statistics.median(times["fldp"])
        for name, taken in times.items():
            rows.append(
                {
                    "epsilon": epsilon, "delta": delta, "q": q, "rounds": rounds, "tool": name,
                    "milliseconds": 1e3 * statistics.median(taken), "runs": len(taken),
                    "times_fldp": statistics.median(taken) / ours,
                    "noise_multiplier": noise[name],
                    "fldp_noise_smaller": 1 - noise["fldp"] / noise[name],
                    "spent": pld_epsilon(noise[name], q, rounds, delta, 1e-4),
                }
            )  # fmt: skip
            print("  ".join(f"{v:.6g}" if isinstance(v, float) else str(v)
                            for v in rows[-1].values()), flush=True)  # fmt: skip
    return rows


def _their_delta(z: float, q: float, rounds: int, epsilon: float) -> float:
    one = distributions.from_gaussian_mechanism(
        z, sampling_prob=q, value_discretization_interval=1e-4
    )
    return float(one.self_compose(rounds).get_delta_for_epsilon(epsilon))


def _their_group(z: float, q: float, rounds: int, k: int, delta: float) -> float:
    weights = [math.comb(k, j) * q**j * (1 - q) ** (k - j) for j in range(k + 1)]
    one = distributions.from_mixture_gaussian_mechanism(
        z, list(range(k + 1)), weights, value_discretization_interval=1e-3
    )
    return float(one.self_compose(rounds).get_epsilon_for_delta(delta))


def _their_capped(z: float, q: float, rounds: int, clients: int, cap: int, delta: float) -> float:
    one = distributions.from_truncated_subsampled_gaussian_mechanism(
        clients, q, cap, z, value_discretization_interval=1e-4
    )
    return float(one.self_compose(rounds).get_epsilon_for_delta(delta))


Question = tuple[str, Callable[[], float], Callable[[], float] | None]


def questions() -> list[Question]:
    """Each hard question, asked of us, and of dp-accounting where it can be."""
    event, epsilon_of, delta_of = accounting.Event, accounting.epsilon_of, accounting.delta_of
    noise, rounds = accounting.noise_multiplier, accounting.max_rounds
    capped = event(1.0, 0.01, "poisson", 100, 10**8, cap=10**6 + 5000)
    mixed = [event(1.1, 0.05, "poisson", 100), accounting.Laplace(8.0, 10),
             accounting.Approximate(0.1, 1e-8, 3), accounting.Concentrated(0.01)]  # fmt: skip
    known: dict[str, Any] = {"adjacency": "zero-out", "known": True}
    return [
        ("max_rounds: epsilon 1, z 50, q 1e-4",
         lambda: rounds(epsilon=1.0, delta=1e-5, noise_multiplier=50.0, sampling_rate=1e-4), None),
        ("max_rounds: epsilon 8, z 0.6, q 0.01",
         lambda: rounds(epsilon=8.0, delta=1e-5, noise_multiplier=0.6, sampling_rate=0.01), None),
        ("delta: z 1, q 1e-3, T 100, epsilon .0838",
         lambda: delta_of([event(1.0, 1e-3, "poisson", 100)], 0.0838),
         lambda: _their_delta(1.0, 1e-3, 100, 0.0838)),
        ("delta: z .3, q .01, T 50, epsilon 0",
         lambda: delta_of([event(0.3, 0.01, "poisson", 50)], 0.0),
         lambda: _their_delta(0.3, 0.01, 50, 0.0)),
        ("group of 3: z 1, q .0064, T 782",
         lambda: epsilon_of([event(1.0, 0.0064, "poisson", 782)], 1e-6, group=3),
         lambda: _their_group(1.0, 0.0064, 782, 3, 1e-6)),
        ("capped: N 3400, cap 130, T 1500",
         lambda: epsilon_of([event(1.0, 100 / 3400, "poisson", 1500, 3400, 130)], 1e-4),
         lambda: _their_capped(1.0, 100 / 3400, 1500, 3400, 130, 1e-4)),
        ("capped: N 1e8, cap m + 5000, T 100", lambda: epsilon_of([capped], 1e-9), None),
        ("noise: epsilon 1e-3, q .1, T 30",
         lambda: noise(epsilon=1e-3, delta=1e-5, rounds=30, sampling_rate=0.1), None),
        ("noise: epsilon 1e-5, q .003, T 500",
         lambda: noise(epsilon=1e-5, delta=1e-7, rounds=500, sampling_rate=0.003), None),
        ("noise: epsilon 1e4, q .1, T 100",
         lambda: noise(epsilon=1e4, delta=1e-5, rounds=100, sampling_rate=0.1), None),
        ("noise: known participation, q .25, T 60",
         lambda: noise(epsilon=8.0, delta=1e-5, rounds=60, sampling_rate=0.25, **known), None),
        ("epsilon of four mechanisms", lambda: epsilon_of(mixed, 1e-6), None),
    ]  # fmt: skip


def hard(repeats: int) -> list[dict[str, Any]]:
    """Time and answer of each hard question."""
    rows = []
    for name, ours, theirs in questions():
        answers = [common.timed(ours) for _ in range(repeats)]
        middle = statistics.median(seconds for _, seconds in answers)
        row = {"question": name, "milliseconds": 1e3 * middle, "answer": answers[-1][0]}
        if theirs is not None:
            row["dp_accounting"], seconds = common.timed(theirs)
            row["dp_accounting_milliseconds"] = 1e3 * seconds
        rows.append(row)
        print("  ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row.values()),
              flush=True)  # fmt: skip
    return rows


def gap(z: float, q: float, rounds: int, delta: float, truth: float) -> tuple[float, float]:
    found = accounting.epsilon(noise_multiplier=z, delta=delta, rounds=rounds, sampling_rate=q)
    return found, found / truth - 1


def summary(gaps: list[float]) -> dict[str, Any]:
    return {
        "cases": len(gaps), "lowest": min(gaps), "median": statistics.median(gaps),
        "highest": max(gaps), "below_by_more_than_1e-6": sum(g < -1e-6 for g in gaps),
        "above_by_more_than_1e-3": sum(g > 1e-3 for g in gaps),
    }  # fmt: skip


def references() -> dict[str, Any]:
    gaps = []
    for entry in json.loads(TRUTH.read_text(encoding="utf-8")):
        p = entry["params"]
        if entry["group"] in ("poisson_subsampled_gaussian", "gaussian_composed"):
            in_range = entry.get("role") == "REFERENCE" and 0.01 <= entry["value"] <= 500
            if in_range and p["delta"] >= 1e-12:
                gaps.append(gap(p["sigma"], p.get("q", 1.0), p["T"], p["delta"], entry["value"])[1])
    return summary(gaps)


Setting = tuple[float, float, int, float]  # z, q, T, delta


def compare(setting: Setting) -> tuple[float, bool, bool]:
    """Our gap to the reference, whether that took long doubles, and whether finer grids."""
    z, q, rounds, delta = setting
    found = accounting.epsilon(noise_multiplier=z, sampling_rate=q, rounds=rounds, delta=delta)
    long = bool(rounds * np.finfo(float).eps > 1e-3 * delta)
    grid = 1e-5 if found < (2 if long else 50) else 1e-4
    reference = long_epsilon if long else pld_epsilon
    truth = reference(z, q, rounds, delta, grid)
    if not abs(reference(z, q, rounds, delta, 10 * grid) / truth - 1) <= 0.01:
        return math.nan, long, False
    if found >= truth * (1 - 1e-6):
        return found / truth - 1, long, False
    # every answer of the reference is an upper bound, so the least of three grids is best
    truth = min(truth, *(reference(z, q, rounds, delta, grid / k) for k in (3, 10)))
    return found / truth - 1, long, True


def draw(rng: np.random.Generator) -> Setting:
    q, z = 10 ** rng.uniform(-4, -0.01), 10 ** rng.uniform(-0.55, 1.2)
    return float(z), float(q), int(10 ** rng.uniform(0, 4)), float(10 ** rng.uniform(-12, -2))


def random_settings(count: int) -> dict[str, Any]:
    """Settings with our epsilon in [0.01, 500], compared in as many processes as there are CPUs."""
    rng = np.random.default_rng(2026)
    gaps: dict[Setting, float] = {}
    unsettled, refused, long, refined = 0, 0, 0, 0
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        while len(gaps) < count:
            settings: list[Setting] = []
            while len(settings) < min(20, count - len(gaps)):
                z, q, rounds, delta = setting = draw(rng)
                try:
                    found = accounting.epsilon(
                        noise_multiplier=z, sampling_rate=q, rounds=rounds, delta=delta
                    )
                except ValueError:
                    refused += 1
                    continue
                if 0.01 <= found <= 500:
                    settings.append(setting)
            for setting, (gap, by_long, finer) in zip(
                settings, pool.map(compare, settings), strict=True
            ):
                if math.isnan(gap):
                    unsettled += 1
                    continue
                gaps[setting] = gap
                long, refined = long + by_long, refined + finer
            print(f"{len(gaps)} settings, gaps {min(gaps.values()):.2e} to "
                  f"{max(gaps.values()):.2e}", flush=True)  # fmt: skip
    worst = max(gaps, key=lambda setting: abs(gaps[setting]))
    names = ("noise_multiplier", "sampling_rate", "rounds", "delta")
    return summary(list(gaps.values())) | {
        "composed_in_long_doubles": long, "reference_refined": refined,
        "reference_not_settled": unsettled, "refused": refused,
        "widest_gap_at": dict(zip(names, worst, strict=True)),
    }  # fmt: skip


def processes(repeats: int) -> dict[str, float]:
    def start(arguments: list[str]) -> Callable[[], object]:
        command = [sys.executable, *arguments]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    started = {name: start(arguments) for name, arguments in PROCESSES.items()}
    medians = common.medians(started, repeats)
    for name, seconds in medians.items():
        print(f"{name:28s} {seconds:.3f} s", flush=True)
    return medians


def main() -> None:
    parser = common.parser(__doc__, "accounting")
    tables = ("speed", "hard", "gaps")
    parser.add_argument("--only", nargs="*", choices=tables, default=tables)
    parser.add_argument("--random", type=int, default=500, help="random settings to compare")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    common.one_thread(quiet=True)
    result = common.read(options.output)
    result |= {
        "machine": common.machine(), "numpy": np.__version__,
        "peers": "Opacus and dp-accounting as pinned in requirements.txt",
    }  # fmt: skip
    if "speed" in options.only:
        result["calibration"] = speed(options.repeats)
        result["processes_seconds"] = processes(options.repeats)
    if "hard" in options.only:
        result["hard_questions"] = hard(options.repeats)
    if "gaps" in options.only:
        result["reference_cases"] = references()
        print("reference cases", result["reference_cases"], flush=True)
        if options.random:
            result["random_settings"] = random_settings(options.random)
            print("random settings", result["random_settings"], flush=True)
    common.write(options, result)


if __name__ == "__main__":
    main()
