"""What the chapter on populations says of the stored results on schools."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "from-a-laptop-to-a-population.ipynb"
RESULTS = HERE / "benchmarks" / "results" / "school_weights.json"
CAPS = (None, 8, 188)


def code() -> str:
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def test_the_errors_of_the_schools_are_the_stored_ones() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = {(row["epsilon"], row["cap"]): row for row in found["rows"]}
    assert found["setting"]["seeds"] == 5
    told = dict(re.findall(r'"(none|8|1)": \(([\d., ]+)\)', code()))
    for budget, epsilon in (("none", None), ("8", 8.0), ("1", 1.0)):
        means = [round(rows[epsilon, cap]["error_mean"], 2) for cap in CAPS]
        assert [float(value) for value in told[budget].split(",")] == means
    spread = float(re.search(r'"error-spread", ([\d.]+)', code())[1])
    most = max(rows[epsilon, cap]["error_sd"] for epsilon in (None, 8.0) for cap in CAPS)
    assert spread == round(most, 2)
    # "A third of a point" is what full weights lose at ε = 1.
    lost = rows[1.0, 188]["error_mean"] - rows[1.0, None]["error_mean"]
    assert abs(lost - 1 / 3) < 0.05
    assert rows[1.0, 8]["error_mean"] - rows[1.0, None]["error_mean"] < 0.02
