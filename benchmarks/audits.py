"""Faults planted on purpose and whether they are noticed; what each method covers and finds.

`python -m benchmarks.audits` prints the tables and writes `benchmarks/results/audits.json` and
`benchmarks/results/audit_methods.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fldp
from benchmarks import common
from benchmarks.audit_mechanisms import (
    BOUNDS,
    coverage,
    mechanisms,
    plan_coverage,
    plan_power,
    power,
)
from benchmarks.inversion import inversion
from fldp import audit
from fldp.audit.findings import PRESUMPTIONS

TABLE = common.RESULTS / "audit_methods.md"
EPSILONS = (1.0, 2.0, 4.0, 8.0)
PLAN = "one-run-plan"
# Plain bounds are asked about every mechanism, those that presume Gaussian noise about such noise;
# what they do where that is false is told beside it.
GAUSSIAN_ONLY = ("gdp", "one-run-gdp", "betting-gdp")
LIKE = [torch.zeros(8, 8), torch.zeros(8), torch.zeros(4, 8)]
SIZES = [len(t.flatten()) for t in LIKE]
CLIENTS, DELTA = 16, 1e-5
Pipeline = Callable[..., Any]


def plan_of(epsilon: float = 2.0, **changes: Any) -> fldp.PrivacyPlan:
    options: dict[str, Any] = {"rounds": 1, "clients": CLIENTS, "delta": DELTA} | changes
    return fldp.calibrate(epsilon=epsilon, **options)


def matrix(updates: Any) -> Tensor:
    return torch.stack([torch.cat([t.flatten() for t in u]) for u in updates])


def clipped(rows: Tensor) -> Tensor:
    return rows * (1 / rows.norm(dim=1, keepdim=True)).clamp(max=1)


def noise(std: float, generator: torch.Generator | None) -> Tensor:
    return std * torch.randn(sum(SIZES), generator=generator)


def faults() -> dict[str, tuple[Pipeline, fldp.PrivacyPlan]]:
    """Name -> (pipeline with one planted fault, the plan that it claims to follow)."""
    plan = plan_of()
    z, m = plan.noise_multiplier, plan.denominator

    def noise_over_sqrt_cohort(updates: Any, generator: Any = None) -> Tensor:
        rows = clipped(matrix(updates).nan_to_num())
        return (rows.sum(0) + noise(z / math.sqrt(m), generator)) / m

    def missing_clip(updates: Any, generator: Any = None) -> Tensor:
        return (matrix(updates).nan_to_num().sum(0) + noise(z, generator)) / m

    def per_tensor_clip(updates: Any, generator: Any = None) -> Tensor:
        parts = matrix(updates).nan_to_num().split(SIZES, dim=1)
        rows = torch.cat([clipped(part) for part in parts], dim=1)
        return (rows.sum(0) + noise(z, generator)) / m

    def example_weighted_mean(updates: Any, generator: Any = None) -> Tensor:
        rows = clipped(matrix(updates).nan_to_num())
        examples = torch.ones(len(rows), 1)
        examples[CLIENTS - 1 :] = 991.0  # the last client of the plan has most of the data
        mean = (rows * examples).sum(0) / examples.sum()
        return mean + noise(z / m, generator)

    def nan_bypass(updates: Any, generator: Any = None) -> Tensor:
        rows = matrix(updates)
        # What Python's min(1, C / nan) does: the comparison fails and 1 is kept.
        scale = [min(1.0, 1.0 / max(float(row.norm()), 1e-12)) for row in rows]
        total = (rows * torch.tensor(scale)[:, None]).nan_to_num().sum(0)
        return (total + noise(z, generator)) / m

    def noise_at_next_clip_norm(updates: Any, generator: Any = None) -> Tensor:
        rows = matrix(updates).nan_to_num()
        inside = float((rows.norm(dim=1) <= 1).double().mean())
        following = math.exp(-1.2 * (inside - 0.5))
        return (clipped(rows).sum(0) + noise(z * following, generator)) / m

    def reused_noise_seed(updates: Any, generator: Any = None) -> Tensor:
        rows = clipped(matrix(updates).nan_to_num())
        return (rows.sum(0) + noise(z, torch.Generator().manual_seed(0))) / m

    def realised_denominator(updates: Any, generator: Any = None) -> Tensor:
        rows = clipped(matrix(updates).nan_to_num())
        return (rows.sum(0) + noise(z, generator)) / len(rows)

    small = plan_of(1.0, rounds=15)
    recipe = fldp.explain_recipe(
        epsilon=1.0, delta=DELTA, rounds=15, batch_size=16, clients=10, records=50_000,
        local_epochs=2,
    )  # fmt: skip

    def recipe_669(updates: Any, generator: Any = None) -> Tensor:
        rows = clipped(matrix(updates).nan_to_num())
        return (rows.sum(0) + noise(recipe.noise_multiplier, generator)) / m

    broken = [
        noise_over_sqrt_cohort, missing_clip, per_tensor_clip, example_weighted_mean, nan_bypass,
        noise_at_next_clip_norm, reused_noise_seed, realised_denominator,
    ]  # fmt: skip
    return {fn.__name__: (fn, plan) for fn in broken} | {"recipe_669": (recipe_669, small)}


def correct() -> dict[str, tuple[Pipeline, fldp.PrivacyPlan]]:
    """Name -> (a pipeline of the package, its plan)."""

    def of(plan: fldp.PrivacyPlan, clip: Callable[[], Any] = lambda: 1.0, **more: Any) -> Any:
        def run(updates: Any, generator: Any = None) -> Any:
            return fldp.aggregate(updates, plan, clip(), generator=generator, **more)

        return run, plan

    even = [1 / math.sqrt(len(LIKE))] * len(LIKE)
    return {
        "flat_clip": of(plan_of()),
        "flat_clip_zero_out": of(plan_of(adjacency="zero-out")),
        "flat_clip_replace_one": of(plan_of(adjacency="replace-one")),
        "poisson_cohort": of(plan_of(clients=64, cohort=CLIENTS)),
        "per_layer_clip": of(plan_of(), lambda: fldp.PerLayerClip(even)),
        "adaptive_clip": of(plan_of(), lambda: fldp.AdaptiveClip(initial=1.0, count_noise=2.0)),
        "distributed": of(
            plan_of(adjacency="zero-out", trust="distributed", min_survivors=CLIENTS)
        ),
    }


def detect(fn: Pipeline, plan: fldp.PrivacyPlan, runs: int, confidence: float = 0.99) -> Any:
    """Both detectors on one pipeline: (audit, neighbour test).

    The audit is flagged by the presumption-free bound or by the Gaussian-DP one, each at half of
    the error; the second, which needs more runs, is only asked when the first is silent.
    """
    half = (1 + confidence) / 2
    options: dict[str, Any] = {"like": LIKE, "confidence": half}
    found = audit.pipeline(fn, plan, runs=runs // 2, **options)
    if not found.violated:
        found = audit.pipeline(fn, plan, runs=runs, method="gdp", seed=10**6, **options)
    return found, audit.neighbour_test(fn, plan, like=LIKE)


def trainings(seed: int = 0) -> dict[str, dict[str, float]]:
    """Lower bounds from one run of `fldp.train` with 500 canaries, d = 20,035, claim ε = 8."""
    people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 267), torch.nn.ReLU(), torch.nn.Linear(267, 10))
    settings: dict[str, dict[str, Any]] = {
        "1 round, everyone": {"rounds": 1},
        "20 rounds, everyone": {"rounds": 20},
        "20 rounds, a fifth": {"rounds": 20, "cohort": 120},
    }
    found: dict[str, dict[str, float]] = {}
    for name, setting in settings.items():
        plan = fldp.calibrate(epsilon=8.0, delta=DELTA, clients=600, **setting)
        methods = ("one-run", "plan" if "cohort" in setting else "gdp")
        found[name] = {}
        for method in methods:
            result = audit.training(model, people, plan, canaries=500, method=method, seed=seed)
            found[name][result.method] = result.lower_bound or 0.0
    return found


def table(covered: dict[str, dict[str, float]], powers: dict[str, dict[str, float]]) -> str:
    """The methods as Markdown: what each presumes, its coverage and its power."""
    lines = [
        "# Audits: what each presumes, how often it is wrong, what it finds",
        "",
        "Made by `python -m benchmarks.audits`. Coverage: the largest share of 90 % bounds above",
        "the truth (nominal 10 %) over mechanisms whose ε is known exactly, 400 scores each; for",
        "methods that presume Gaussian noise, where it is Gaussian, in brackets where it is not.",
        "Power: the mean lower bound at ε = 1, 2, 4, 8 of a Gaussian sum (δ = 1e-5, 95 %), from",
        "2,000 scores for every method.",
        "",
        "| method | presumes that | above the truth | found at ε = 1, 2, 4, 8 |",
        "|---|---|---|---|",
    ]
    for method, presumption in PRESUMPTIONS.items():
        rates, found = "an estimate, no bound", ""
        if method in covered:
            rates = f"{100 * covered[method]['holds']:.1f} %"
            if "fails" in covered[method]:
                rates += f" ({100 * covered[method]['fails']:.0f} %)"
        if method in next(iter(powers.values())):
            found = ", ".join(f"{row[method]:.2f}" for row in powers.values())
        lines.append(f"| `{method}` | {presumption} | {rates} | {found} |")
    return "\n".join(lines) + "\n"


def covered(repetitions: int) -> dict[str, dict[str, float]]:
    """Per method the largest rate above the truth where it presumes rightly, and where wrongly."""
    found: dict[str, dict[str, float]] = {}
    known = mechanisms()
    for name in BOUNDS:
        rates: dict[str, list[float]] = {"holds": [], "fails": []}
        for mechanism in known:
            rate = coverage(name, mechanism, repetitions)
            right = mechanism.gaussian or name not in GAUSSIAN_ONLY
            rates["holds" if right else "fails"].append(rate)
        found[name] = {kind: max(values) for kind, values in rates.items() if values}
    return found | {PLAN: {"holds": plan_coverage(repetitions)}}


def main() -> None:
    parser = common.parser(__doc__, "audits")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=100)
    arguments = parser.parse_args()
    common.one_thread()
    results: dict[str, dict[str, Any]] = {"faults": {}, "correct": {}, "power": {}}
    groups = (("faults", faults(), arguments.runs), ("correct", correct(), arguments.runs // 2))
    for group, pipelines, runs in groups:
        print(f"\n{group:<26}{'audit':>7}{'neighbours':>12}   lower bound / claimed ε; worst ratio")
        for name, (fn, plan) in pipelines.items():
            found, neighbours = detect(fn, plan, runs)
            row = {"audit": found.violated, "neighbour_test": neighbours.violated}
            results[group][name] = row
            print(
                f"{name:<26}{found.violated!s:>7}{neighbours.violated!s:>12}   "
                f"{found.lower_bound:.2f} / {found.claimed:.2f} ({found.method}); "
                f"{neighbours.worst:.3g}"
            )
    for epsilon in EPSILONS:
        found = {name: power(name, epsilon, arguments.runs) for name in BOUNDS}
        found[PLAN] = plan_power(epsilon, arguments.runs)
        results["power"][f"{epsilon:g}"] = found
    results["coverage"] = covered(arguments.repetitions)
    results["trainings"] = trainings()
    results["inversion"] = inversion()
    text = table(results["coverage"], results["power"])
    print(f"\n{text}")
    for name, found in results["trainings"].items():
        shown = ", ".join(f"{method} {bound:.2f}" for method, bound in found.items())
        print(f"fldp.train, ε = 8, {name}: {shown}")
    for reader, share in results["inversion"].items():
        print(f"digits read, {reader}: {share:.3f} (chance 0.100)")
    common.write(arguments, {"machine": common.machine(), **results})
    if arguments.output == parser.get_default("output") and not arguments.no_write:
        TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
