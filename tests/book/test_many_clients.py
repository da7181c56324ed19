"""What the chapter on clip, noise and average says of the stored results on MNIST."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fldp
from benchmarks import mnist
from fldp.plan import PrivacyPlan

HERE = Path(__file__).resolve().parent.parent.parent
CHAPTER = HERE / "book" / "clip-noise-average.ipynb"
RESULTS = HERE / "benchmarks" / "results" / "mnist.json"


def test_the_stored_curves_are_of_what_the_chapter_says() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["curves"]
    setting, rows = found["setting"], found["rows"]
    assert (setting["images"], setting["share"], setting["seeds"]) == (5, 0.1, 5)
    assert (setting["delta"], setting["rounds"], setting["every"]) == (1e-5, 50, 2)
    assert len(setting["clips"]) * len(setting["momenta"]) == 6
    ends = {(row["clients"], row["epsilon"]): row["accuracy_mean"] for row in rows}
    budgets = (None, 8.0, 2.0, 1.0)
    for clients in (1_000, 10_000):
        line = [ends[clients, epsilon] for epsilon in budgets]
        assert line == sorted(line, reverse=True)
    for epsilon in budgets:
        assert ends[10_000, epsilon] > ends[1_000, epsilon]
    # The figure draws the rounds 2, 4, ..., 50, five seeds each.
    assert all([len(run) for run in row["accuracy"]] == [25] * 5 for row in rows)
    noise = {(row["clients"], row["epsilon"]): row["noise_multiplier"] for row in rows}
    for epsilon in budgets[1:]:
        again: PrivacyPlan = mnist.planned(1_000, epsilon)
        assert again.noise_multiplier == pytest.approx(noise[1_000, epsilon], rel=1e-6)
        assert noise[1_000, epsilon] == pytest.approx(noise[10_000, epsilon], rel=1e-6)


def test_a_page_without_the_results_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Opened alone and offline, the chapter goes on without the figure."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    text = next(words for words in code if "benchmarks/results/mnist.json" in words)
    stored = text.replace("benchmarks/results/", "nowhere/").replace("https://", "file:///nowhere/")
    scope: dict[str, object] = {}
    exec(stored, scope)
    assert scope["many"] == {"rows": []}
    assert "not to be had here" in capsys.readouterr().out


@pytest.mark.slow
def test_the_curves_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        fldp.datasets.mnist(download=False)
    except fldp.datasets.DatasetUnavailable:
        pytest.skip("MNIST is not in FLDP_DATA")
    for name, value in {"POPULATIONS": (200,), "BUDGETS": (None, 8.0), "TURNS": 2}.items():
        monkeypatch.setattr(mnist, name, value)
    rows = mnist.curves(seeds=1)["rows"]
    assert [row["epsilon"] for row in rows] == [None, 8.0]
    assert [row["clip"] is None for row in rows] == [True, False]
    assert all(len(row["accuracy"][0]) == 1 for row in rows)
