"""audit.verify: a sound plan passes, a planted fault fails, and what cannot be asked says why."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

import fldp
from fldp import accounting
from fldp.audit.verify import verify
from fldp.plan import chain
from fldp.plan.ledger import Ledger

SMALL = {"epsilon": 2.0, "delta": 1e-5, "rounds": 20, "clients": 1000, "cohort": 50}


def results(found: list) -> dict[str, str]:
    return {row["check"]: row["result"] for row in found}


def notes(found: list) -> dict[str, str]:
    return {row["check"]: row["note"] for row in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"cohort": None},
        {"adjacency": "replace-one"},
        {"adjacency": "replace-one", "sampling": "fixed"},
        {"cap": 90},
        {"trust": "distributed", "min_survivors": 40},
        {"trust": "distributed", "min_survivors": 40, "sampling": "fixed"},
        {"trust": "local"},
    ],
    ids=str,
)
def test_a_calibrated_plan_passes(change: dict) -> None:
    plan = fldp.calibrate(**SMALL | change)
    found = plan.verify()
    assert found.ok, str(found)
    passed = results(found)
    assert passed["fldp pld"] == passed["neighbouring cohorts"] == "pass"
    assert "pass" in (passed["scipy"], passed.get("scipy, cohort known"))
    assert all(row["note"] for row in found if row["result"] == "skipped")
    assert "check" in str(found).split("\n")[0]
    assert found._repr_html_().startswith("<pre>")


@pytest.mark.slow
def test_tools_are_asked_only_what_they_can_express() -> None:
    fixed = fldp.calibrate(**SMALL | {"adjacency": "replace-one", "sampling": "fixed"}).verify()
    assert "cannot express" in notes(fixed)["dp-accounting PLD"]
    shared = fldp.calibrate(**SMALL | {"trust": "distributed", "min_survivors": 40}).verify()
    for tool in ("dp-accounting PLD", "Opacus PRV", "Opacus RDP"):
        assert "know" in notes(shared)[tool]  # who took part
        assert results(shared)[tool] == "skipped"
    assert "no closed form" in notes(fldp.calibrate(**SMALL).verify())["scipy"]


@pytest.mark.slow
def test_second_opinions_agree() -> None:
    rows = {row["check"]: row["epsilon"] for row in fldp.calibrate(**SMALL).verify()}
    ours = rows["fldp pld"]
    assert rows["Opacus PRV"] == pytest.approx(ours, abs=0.02)
    assert rows["Opacus RDP"] > ours
    if importlib.util.find_spec("dp_accounting") is not None:
        assert rows["dp-accounting PLD"] == pytest.approx(ours, rel=2e-3)


@pytest.mark.slow
def test_an_accountant_that_says_too_little_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fldp.calibrate(**SMALL)
    shared = fldp.calibrate(**SMALL | {"trust": "distributed", "min_survivors": 40})
    real = accounting.epsilon_of

    def low(events, delta, adjacency="add-or-remove", accountant="pld", group=1):
        value = real(events, delta, adjacency, accountant, group)
        return 0.9 * value if accountant == "pld" else value

    monkeypatch.setattr(accounting, "epsilon_of", low)
    found = results(plan.verify())
    assert found["Opacus PRV"] == found["scipy, cohort known"] == "fail"
    assert not shared.verify().ok
    assert results(shared.verify())["scipy"] == "fail"


@pytest.mark.slow
def test_an_approximation_that_says_too_little_is_found() -> None:
    settings = {"epsilon": 2.0, "delta": 1e-6, "rounds": 1, "clients": 10**5, "cohort": 100}
    with pytest.warns(UserWarning, match="central-limit"):
        plan = fldp.calibrate(**settings, accountant="gdp")
    found = plan.verify()
    assert not found.ok
    assert "which is then too small" in str(found)


@pytest.mark.slow
def test_a_plan_that_misses_its_target_fails() -> None:
    plan = dataclasses.replace(fldp.calibrate(**SMALL), target_epsilon=1.0)
    assert results(plan.verify())["fldp pld"] == "fail"


def unclipped(updates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(updates.shape[1], generator=generator)
    return (updates.nan_to_num().sum(0) + noise) / 50


def realised(updates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Divides by the number that came."""
    factors = (1 / updates.norm(dim=1, keepdim=True)).clamp(max=1.0)
    noise = torch.randn(updates.shape[1], generator=generator)
    return ((factors * updates).nan_to_num().sum(0) + noise) / len(updates)


def broken(updates: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("out of order")


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", [unclipped, realised, broken])
def test_an_aggregator_with_a_fault_is_found(aggregate) -> None:
    plan = fldp.calibrate(**SMALL)
    found = verify(plan, aggregate=aggregate)
    assert results(found)["neighbouring cohorts"] == "fail"
    assert not found.ok


@pytest.mark.slow
def test_an_aggregator_of_ones_own_passes() -> None:
    plan = fldp.calibrate(**SMALL)

    def own(updates, generator):
        return fldp.aggregate(updates, plan, clip_norm=1.0, generator=generator)

    model = torch.nn.Linear(3, 2)
    assert verify(plan, aggregate=own, like=dict(model.named_parameters())).ok


@pytest.fixture
def run(tmp_path: Path) -> tuple[fldp.PrivacyPlan, Path]:
    plan, path = fldp.calibrate(**SMALL), tmp_path / "ledger.jsonl"
    with Ledger(path, plan) as ledger:
        for t in range(1, 21):
            ledger.record(plan.event, t)
    return plan, path


def ledger_row(plan: fldp.PrivacyPlan, ledger) -> dict:
    return verify(plan, ledger=ledger)[-1]


@pytest.mark.slow
def test_a_ledger_is_replayed(run: tuple[fldp.PrivacyPlan, Path]) -> None:
    plan, path = run
    row = ledger_row(plan, path)
    assert row["result"] == "pass"
    assert row["epsilon"] == pytest.approx(plan.epsilon(), rel=1e-3)
    assert row["note"] == "20 entries, 20 rounds, chain intact"
    with Ledger(path, plan) as ledger:
        assert ledger_row(plan, ledger)["result"] == "pass"


@pytest.mark.slow
def test_a_ledger_beyond_its_budget_of_another_plan_or_edited_fails(
    run: tuple[fldp.PrivacyPlan, Path],
) -> None:
    plan, path = run
    other = dataclasses.replace(plan, rounds=30)
    assert "another plan" in ledger_row(other, path)["note"]
    with Ledger(path, plan) as ledger:
        ledger.record(accounting.Laplace(1.0), label="histogram")
    row = ledger_row(plan, path)
    assert row["result"] == "fail"
    assert "beyond the target" in row["note"]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))
    row = ledger_row(plan, path)
    assert row["result"] == "fail"
    assert "does not follow" in row["note"]
    assert ledger_row(plan, path.with_name("nothing"))["result"] == "fail"


@pytest.mark.slow
def test_a_ledger_without_a_plan_or_with_a_torn_line_says_so(
    run: tuple[fldp.PrivacyPlan, Path], tmp_path: Path
) -> None:
    plan, path = run
    with open(path, "ab") as file:
        file.write(chain.seal({"round": 1})[0][:9])
    assert "a torn last line" in ledger_row(plan, path)["note"]
    Ledger(tmp_path / "bare").close()
    assert ledger_row(plan, tmp_path / "bare")["note"].endswith("no plan in line 1")


@pytest.mark.slow
def test_a_cohort_too_large_to_build_is_skipped() -> None:
    plan = fldp.calibrate(epsilon=2.0, delta=1e-9, rounds=5, clients=10**8, cohort=10**7)
    assert "too large to build" in notes(plan.verify())["neighbouring cohorts"]


def test_p01_a_ledger_that_counts_on_secret_draws_fails_where_they_are_seen(tmp_path: Path) -> None:
    plan = fldp.calibrate(**SMALL, trust="distributed", min_survivors=40)
    with Ledger(tmp_path / "bare") as ledger:
        ledger.record(fldp.Event(plan.noise_multiplier, plan.sampling_rate, "poisson"))
    row = ledger_row(plan, tmp_path / "bare")
    assert row["result"] == "fail"
    assert "known=True" in row["note"]


def _clipped_sum(updates: torch.Tensor) -> torch.Tensor:
    finite = torch.where(updates.isfinite().all(1, keepdim=True), updates, 0.0)
    norms = finite.double().norm(dim=1, keepdim=True)
    return (finite / norms.clamp(min=1)).float().sum(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "seed", "result"),
    [(1.0, None, "pass"), (0.0, None, "fail"), (0.5, None, "fail"), (1.0, 0, "fail")],
)
def test_p11_an_aggregator_with_too_little_or_repeated_noise_fails(
    share: float, seed: int | None, result: str
) -> None:
    """Clipped as it should be, it passed with no noise at all."""
    plan = fldp.calibrate(**SMALL)

    def aggregate(updates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        total = _clipped_sum(updates) * (1 - 1e-6)
        noise = torch.randn(total.shape, generator=generator)
        return (total + share * plan.noise_multiplier * noise) / plan.cohort

    found = verify(plan, aggregate=aggregate)
    assert results(found)["noise of a round"] == result
    assert results(found)["neighbouring cohorts"] == "pass"
    assert found.ok == (result == "pass")


@pytest.mark.slow
def test_u07_what_cannot_be_compared_is_skipped_and_nan_never_passes() -> None:
    plan = fldp.calibrate(**SMALL)
    found = verify(plan, aggregate=lambda updates: updates.sum(0) * float("nan"))
    assert results(found)["neighbouring cohorts"] == "skipped"
    assert results(found)["noise of a round"] == "fail"
