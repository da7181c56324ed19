"""The headline experiment: MNIST in the hands of 100, 1,000 or 10,000 clients, at ε = 8 to 1.

    FLDP_DATA=... python -m benchmarks.mnist_clients [--only table|ablation] [--seeds 5]
    FLDP_DATA=... python -m benchmarks.mnist_clients --tune [--again]

The 60,000 training images are dealt out, no image twice: 600, 60 or 6 to a client, at random (iid)
or two shards of one digit each (shards). ε is that of a whole client, against whoever sees the
models; beside it stands the ε against an observer who knows who took part in each round, which is
the same where everyone does. Plans are `fldp.calibrate`'s, runs `fldp.train`'s, the noise is the
operating system's. Accuracy is the share of the test images that the last model gets right: mean
and standard deviation over seeds, which deal the images anew, with fresh noise each.

Each row of the main table runs the one model that the held-out images chose for it, of those that
were tuned there; the others stand beside it for 10,000 clients. Settings, and what choosing them
took, are in `mnist_clients_settings.json`. `--tune` completes it: rows that it lacks are searched,
on 50,000 training images for the clients and 10,000 to judge by (`benchmarks.mnist_tuning`). The
test images are read by the table alone. The *ablation* changes one thing of a row at a time.

Results are written as they come into `benchmarks/results/mnist_clients.json`. A run that was
stopped goes on, and a row whose settings changed is measured anew; give another `--output` to
measure everything anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import fldp
from benchmarks import common, mnist_tuning
from benchmarks.mnist_runs import (
    BUDGETS,
    CACHE,
    CENTRED,
    DELTAS,
    LIGHT,
    PARTITIONS,
    SETTINGS,
    UNCENTRED,
    WIDE,
    Cell,
    Records,
    Setting,
    Settings,
    load,
    parameters,
    run,
)

Row = dict[str, Any]
MODELS = (WIDE, LIGHT, "CNN", "pixels")
# What the ablation changes by hand: factors of the clip and of the rounds, and steps of a client.
LARGER, FEWER, STEPS = 16, 4, 4
ABLATION_SEEDS = 2


class Entry(NamedTuple):
    """A row to measure: what, how, and what the ablation changed of it."""

    cell: Cell
    setting: Setting
    change: str = ""

    def facts(self) -> Row:
        """All of the row but what is measured."""
        cell, setting = self.cell, self.setting
        plan = setting.plan(cell)
        chosen = dataclasses.asdict(setting)
        del chosen["share"]
        return {
            **({"change": self.change} if self.change else {}),
            "clients": cell.clients,
            "partition": cell.partition,
            "model": cell.model,
            "parameters": parameters(cell.model),
            "epsilon": cell.epsilon,
            "epsilon_cohort_known": plan.cohort_known()["epsilon"] if plan else None,
            "delta": cell.delta if plan else None,
            "cohort": setting.share * cell.clients,
            "noise_multiplier": plan.noise_multiplier if plan else None,
            **chosen,
        }


def best_model(settings: Settings, clients: int, partition: str, epsilon: float | None) -> str:
    """The model that judged best on the held-out images, of those that were tuned for a row."""
    row = (clients, partition, epsilon)
    judged = {
        cell.model: tuning["validation"]
        for cell, (_, tuning) in settings.items()
        if (cell.clients, cell.partition, cell.epsilon) == row and cell.model in MODELS
    }
    return max(judged, key=lambda model: judged[model], default=WIDE)


def table(settings: Settings) -> list[Entry]:
    """The main table, row after row, then what stands beside it."""
    cells = [
        Cell(best_model(settings, clients, partition, epsilon), clients, partition, epsilon)
        for epsilon in BUDGETS
        for partition in PARTITIONS
        for clients in DELTAS
    ]
    cells += [Cell(LIGHT, clients, part, 8.0) for part in PARTITIONS for clients in DELTAS]
    cells += [Cell(model, 10_000, "shards", epsilon) for model in MODELS for epsilon in (8.0, None)]
    return [Entry(cell, settings[cell][0]) for cell in dict.fromkeys(cells) if cell in settings]


def ablation(settings: Settings) -> Iterator[Entry]:
    """Rows of two shards a client at ε = 8, one thing changed at a time."""
    for clients in DELTAS:
        cell = Cell(WIDE, clients, "shards", 8.0)
        if cell not in settings:
            continue
        setting = settings[cell][0]
        yield Entry(cell, setting, "nothing")
        for name in (LIGHT, CENTRED, UNCENTRED):
            other = dataclasses.replace(cell, model=name)
            if other in settings:
                yield Entry(other, settings[other][0], f"{name}, tuned anew")
        clip = (setting.clip or 0) * LARGER
        larger = dataclasses.replace(setting, clip=clip, server_lr=setting.server_lr / LARGER)
        yield Entry(cell, larger, f"clip × {LARGER}, server's rate / {LARGER}")
        fewer = dataclasses.replace(setting, rounds=setting.rounds // FEWER)
        yield Entry(cell, fewer, f"rounds / {FEWER}")
        if setting.local_steps == 1:
            steps = dataclasses.replace(setting, local_steps=STEPS)
            yield Entry(cell, steps, f"{STEPS} local steps")
        free = dataclasses.replace(cell, epsilon=None)
        yield Entry(free, setting, "no noise, clip kept")
        longer = dataclasses.replace(setting, rounds=2 * setting.rounds)
        yield Entry(free, longer, "no noise, clip kept, rounds × 2")


_HELD: dict[str, Records] = {}


def task(entry: Entry, seed: int, folder: Path) -> Row:
    """A run on the test images, in a process of its own; it keeps one model's inputs at a time."""
    common.one_thread()
    name = entry.cell.model
    if name not in _HELD:
        _HELD.clear()
        _HELD[name] = Records(name, folder=folder)
    return run(entry.cell, entry.setting, *_HELD[name].all(), seed)


def measured(runs: list[Row]) -> Row:
    """What a row's runs found."""
    found = common.spread(one["accuracy"] for one in runs)
    return {
        "accuracy_mean": found["accuracy_mean"],
        "accuracy_std": found["accuracy_sd"],
        "seeds": len(runs),
        "accuracy": found["accuracy"],
        "seconds_median": round(statistics.median(one["seconds"] for one in runs), 2),
    }


def measure(name: str, entries: list[Entry], seeds: int, options: argparse.Namespace) -> None:
    """Complete the list `name` of the results; written after every row that is new."""
    document = {"machine": common.machine(), **common.read(options.output)}
    before: list[Row] = document.get(name, [])
    facts = [entry.facts() for entry in entries]
    rows: list[Row | None] = [_like(fact, before, seeds) for fact in facts]
    missing = [
        (at, entry)
        for at, entry in enumerate(entries)
        if rows[at] is None and (not options.model or entry.cell.model in options.model)
    ]
    # What takes longest first, so that no worker is left alone with it.
    missing.sort(key=lambda found: (-found[1].cell.clients, found[1].cell.partition != "shards"))
    with ProcessPoolExecutor(options.workers) as pool:
        waiting = {
            at: [pool.submit(task, entry, seed, options.cache) for seed in range(seeds)]
            for at, entry in missing
        }
        for at, runs in waiting.items():
            rows[at] = {**facts[at], **measured([one.result() for one in runs])}
            print(line(rows[at] or {}), flush=True)
            document[name] = [row for row in rows if row]
            common.write(options, document, quiet=True)
    document[name] = [row for row in rows if row]
    common.write(options, document)


def _like(fact: Row, rows: list[Row], seeds: int) -> Row | None:
    """The row of the same facts with as many seeds, if there is one."""
    for row in rows:
        if row["seeds"] >= seeds and alike(fact, row):
            return row
    return None


def alike(fact: Row, row: Row) -> bool:
    """Whether a row has these facts, up to the rounding of another machine."""
    for key, value in fact.items():
        other = row.get(key)
        if isinstance(value, float) and isinstance(other, float | int):
            if not math.isclose(value, other, rel_tol=1e-6):
                return False
        elif value != other:
            return False
    return True


def line(row: Row) -> str:
    """A row for people."""
    epsilon = row["epsilon"] or "none"
    return (
        f"{row['clients']:6,} {row['partition']:6} ε {epsilon!s:>4}  {row['accuracy_mean']:.4f} "
        f"± {row['accuracy_std'] or 0:.4f}  {row['model']}, T {row['rounds']}"
        + (f": {row['change']}" if row.get("change") else "")
    )


def main() -> int:
    parser = common.parser(__doc__, "mnist_clients")
    parser.add_argument(
        "--tune", action="store_true", help="search the settings that are not there"
    )
    parser.add_argument("--again", action="store_true", help="--tune: search on where rows stand")
    parser.add_argument("--only", choices=("table", "ablation"), help="keep the other's results")
    parser.add_argument("--model", action="append", help="measure rows of this model only")
    parser.add_argument("--seeds", type=int, default=5, help="of each row of the table")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where features are kept")
    options = parser.parse_args()
    common.one_thread()
    try:
        fldp.datasets.mnist()
    except fldp.datasets.DatasetUnavailable as error:
        print(f"not measured: {error}")
        return 0
    if options.tune:
        mnist_tuning.tune(
            lambda cell: not options.model or cell.model in options.model,
            options.again,
            options.cache,
            options.settings,
        )
        return 0
    settings = load(options.settings)
    lists = {"table": (table(settings), options.seeds),
             "ablation": ([*ablation(settings)], ABLATION_SEEDS)}  # fmt: skip
    for name, (entries, seeds) in lists.items():
        if options.only in (None, name):
            measure(name, entries, seeds, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
