"""The calculator's accountant in JavaScript against the package: how near, and how fast.

``python -m benchmarks.calculator`` asks both about every reference case and about random settings
of all kinds, through node, and compares. Milliseconds are those of the processor, for one question.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from fldp import accounting
from fldp.accounting import Event

ROOT = Path(__file__).resolve().parent.parent
TRUTH = ROOT / "tests" / "data" / "ground_truth.json"
ASK = ROOT / "tools" / "calculator.js"
# What a page asks about: sampling, adjacency, and whether it is known who took part.
KINDS = (
    ("poisson", "add-or-remove", False),
    ("poisson", "zero-out", False),
    ("poisson", "replace-one", False),
    ("fixed", "replace-one", False),
    ("none", "add-or-remove", False),
    ("none", "replace-one", False),
    ("poisson", "zero-out", True),
    ("fixed", "replace-one", True),
)
# Below this ε a relative difference says nothing: the package aims at a share of the spread there.
LEAST = 0.01
# So many questions are asked before the clock counts.
WARM = 40

Question = dict[str, Any]


def node() -> str | None:
    """The program `node`, where it is installed."""
    return shutil.which("node")


def answers(questions: Sequence[Question], warm: int = 0) -> list[dict[str, Any]]:
    """What `tools/calculator.js` answers to each question."""
    program = node()
    if program is None:
        raise RuntimeError("there is no node on this machine")
    asked = json.dumps({"questions": list(questions), "warm": warm})
    done = subprocess.run(
        [program, str(ASK)], input=asked, capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def question(event: Event, delta: float, adjacency: str) -> Question:
    """Epsilon of an event, asked of the page's accountant."""
    plain = {
        "z": event.noise_multiplier,
        "rate": event.sampling_rate,
        "sampling": event.sampling,
        "rounds": event.rounds,
        "known": event.known,
    }
    return {"ask": "epsilon", "event": plain, "delta": delta, "adjacency": adjacency}


def ours(asked: Question) -> float | str:
    """The package's answer to the same question, or what it refuses with."""
    event = asked["event"]
    # N only says which rates are whole cohorts: any multiple does.
    rate, clients = event["rate"], None
    if event["sampling"] == "fixed":
        clients = asked["clients"]
    run = Event(
        event.get("z", 1.0), rate, event["sampling"], event["rounds"], clients, known=event["known"]
    )
    try:
        if asked["ask"] == "epsilon":
            return accounting.epsilon_of([run], asked["delta"], asked["adjacency"])
        fields = run.to_dict()
        del fields["noise_multiplier"]
        return accounting.noise_multiplier(
            epsilon=asked["target"], delta=asked["delta"], adjacency=asked["adjacency"], **fields
        )
    except ValueError as error:
        return str(error)


def references() -> list[Question]:
    """Every Gaussian reference case that the accountant of a page can be asked about."""
    found = []
    for entry in json.loads(TRUTH.read_text(encoding="utf-8")):
        p = entry["params"]
        if entry["group"] == "sampling_scheme":
            for sampling in ("poisson", "fixed"):
                event = Event(p["sigma"], p["m"] / p["N"], sampling, p["T"], p["N"])
                asked = question(event, p["delta"], "replace-one") | {"clients": p["N"]}
                found.append(asked)
        single = ("poisson_subsampled_gaussian", "gaussian_composed")
        if entry.get("role") == "REFERENCE" and entry["group"] in single:
            q = p.get("q", 1.0)
            event = Event(p["sigma"], q, "poisson" if q < 1 else "none", p["T"])
            asked = question(event, p["delta"], "add-or-remove")
            found.append(asked | {"truth": entry["value"]})
    return found


def random_questions(count: int, seed: int = 2026) -> list[Question]:
    """Settings of all kinds, over the orders of magnitude that runs have."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        sampling, adjacency, known = KINDS[i % len(KINDS)]
        clients = int(10 ** rng.uniform(1, 6))
        cohort = max(1, int(clients * 10 ** rng.uniform(-4, -0.01)))
        z, rounds = float(10 ** rng.uniform(-0.55, 1.2)), int(10 ** rng.uniform(0, 4))
        delta = float(10 ** rng.uniform(-12, -2))
        rate = 1.0 if sampling == "none" else cohort / clients
        size = clients if sampling == "fixed" else None
        event = Event(z, rate, sampling, rounds, size, known=known)
        found.append(question(event, delta, adjacency) | {"clients": clients})
    return found


def noise_questions(count: int, seed: int = 2027) -> list[Question]:
    """The noise for budgets from .1 to 30, over the same runs."""
    rng = np.random.default_rng(seed)
    found = []
    for asked in random_questions(count, seed):
        event = {name: value for name, value in asked["event"].items() if name != "z"}
        target = float(10 ** rng.uniform(-1, 1.5))
        found.append(asked | {"ask": "noise", "event": event, "target": target})
    return found


def compared(questions: Sequence[Question], warm: int = WARM) -> dict[str, Any]:
    """Relative differences to the package, and node's milliseconds."""
    theirs = answers(questions, warm)
    gaps, differ = [], []
    for asked, answer in zip(questions, theirs, strict=True):
        mine = ours(asked)
        if isinstance(mine, str) or "message" in answer:
            if not (isinstance(mine, str) and "message" in answer):
                differ.append({"question": asked, "fldp": mine, "page": answer})
            continue
        if mine >= LEAST:
            gaps.append(answer["value"] / mine - 1)
        elif abs(answer["value"] - mine) > LEAST / 1000:
            differ.append({"question": asked, "fldp": mine, "page": answer})
    spent = [answer["milliseconds"] for answer in theirs]
    return {
        "cases": len(questions), "compared": len(gaps), "lowest": min(gaps), "highest": max(gaps),
        "answered_differently": differ,
        "milliseconds_median": statistics.median(spent), "milliseconds_worst": max(spent),
    }  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__, "calculator")
    parser.add_argument("--random", type=int, default=1000, help="random settings to compare")
    parser.add_argument("--noises", type=int, default=100, help="noises to look for")
    options = parser.parse_args()
    common.one_thread(quiet=True)
    if node() is None:
        print("node is not installed: nothing is measured")
        return
    result: dict[str, Any] = {"machine": common.machine()}
    for name, questions in (
        ("reference_cases", references()),
        ("random_settings", random_questions(options.random)),
        ("noises", noise_questions(options.noises)),
    ):
        result[name] = compared(questions)
        print(name, json.dumps(result[name]), flush=True)
    common.write(options, result)


if __name__ == "__main__":
    main()
