"""Faults planted on purpose, and whether the audit or the neighbour test notices.

`python -m benchmarks.audits` prints the tables and writes `benchmarks/results/audits.json`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import fldp
from fldp import attacks, audit
from fldp.accounting import gaussian_epsilon
from fldp.parameters import shapes, views

RESULTS = Path(__file__).parent / "results" / "audits.json"
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
        "distributed": of(plan_of(adjacency="zero-out", trust="distributed", survivors=CLIENTS)),
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


def power(epsilon: float, runs: int) -> dict[str, float]:
    """Lower bounds of both audits on the package's own Gaussian sum, and the second's ceiling."""
    plan = plan_of(epsilon, clients=64)

    def fn(updates: Any, generator: Any = None) -> Any:
        return fldp.aggregate(updates, plan, 1.0, generator=generator)

    gdp = audit.pipeline(fn, plan, like=128, canaries=64, runs=runs, method="gdp")
    counted = audit.pipeline(fn, plan, like=128, canary="orthogonal", runs=runs)
    found = {"gdp": gdp.lower_bound, "clopper_pearson": counted.lower_bound}
    return {**found, "ceiling": counted.ceiling}  # type: ignore[dict-item]


def violations(epsilon: float, confidence: float, repetitions: int = 200) -> dict[str, int]:
    """How often a bound exceeds the truth on our own Gaussian sum."""
    plan, count = plan_of(epsilon, clients=8), {"gdp": 0, "clopper-pearson": 0}
    truth = gaussian_epsilon(1 / plan.noise_multiplier, DELTA)

    def fn(updates: Any, generator: Any = None) -> Any:
        return fldp.aggregate(updates, plan, 1.0, generator=generator)

    for i in range(repetitions):
        for method in count:
            found = audit.pipeline(
                fn, plan, like=4, canary="orthogonal", runs=50, method=method, seed=100 * i,
                confidence=confidence,
            )  # fmt: skip
            count[method] += (found.lower_bound or 0.0) > truth
    return count


def inversion(clients: int = 600) -> dict[str, float]:
    """Share of one-digit clients whose image a classifier of other clients reads from Δw.

    The private release is the noised sum of a cohort in which every other client sent zeros: the
    strongest position of a reader of sums.
    """
    x, y = fldp.datasets.digits()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    model = torch.nn.Linear(64, 10)
    updates = torch.stack(
        [attacks.simulate(model, x[i : i + 1], y[i : i + 1], 0.5, 3) for i in range(clients)]
    ).detach()
    reader = LogisticRegression(max_iter=500).fit(x[clients:].numpy(), y[clients:].numpy())
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)

    def read(rows: Tensor) -> float:
        parts = views(rows, shapes(model))
        found = attacks.invert_linear(parts["weight"], parts["bias"])
        return found.read(
            lambda images: torch.from_numpy(reader.predict(images.clamp(0, 1).numpy())), y[:clients]
        )

    sums = [fldp.aggregate(update[None], plan, 1.0).mean for update in updates]
    return {"unprotected": read(updates), "epsilon 8, central": read(torch.stack(sums))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {"faults": {}, "correct": {}, "power": {}}
    for group, pipelines in (("faults", faults()), ("correct", correct())):
        print(f"\n{group:<26}{'audit':>7}{'neighbours':>12}   lower bound / claimed ε; worst ratio")
        for name, (fn, plan) in pipelines.items():
            found, neighbours = detect(fn, plan, arguments.runs)
            row = {"audit": found.violated, "neighbour_test": neighbours.violated}
            results[group][name] = row
            print(
                f"{name:<26}{found.violated!s:>7}{neighbours.violated!s:>12}   "
                f"{found.lower_bound:.2f} / {found.claimed:.2f} ({found.method}); "
                f"{neighbours.worst:.3g}"
            )
    print("\nepsilon    gdp  clopper-pearson (ceiling)")
    for epsilon in (1.0, 2.0, 4.0, 8.0):
        row = power(epsilon, arguments.runs)
        results["power"][f"{epsilon:g}"] = {k: row[k] for k in ("gdp", "clopper_pearson")}
        print(f"{epsilon:7g}{row['gdp']:7.2f}{row['clopper_pearson']:17.2f} ({row['ceiling']:.2f})")
    results["violations"] = violations(2.0, 0.9)
    for method, count in results["violations"].items():
        print(f"{method}: {count} of 200 bounds above the truth at 90 % confidence (nominal 20)")
    results["inversion"] = inversion()
    for release, share in results["inversion"].items():
        print(f"digits read from Δw, {release}: {share:.3f} (chance 0.100)")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
