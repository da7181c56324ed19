"""plan.report: nothing invented, nothing rounded in its own favour, the registry's own fields."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from test_statement import plans

import fldp
from fldp.accounting import Event
from fldp.plan.registry import FACTS

# The schema of opendp/deployments-registry-data as of July 2026, a section a line.
SCHEMA = {
    "basic": "name data_curators intended_use data_product_type data_product_region description "
    "publication_date data_product_sector",
    "dp_variant": "variant_name data_domain unprotected_quantities",
    "privacy_loss": "privacy_unit privacy_unit_details privacy_parameters "
    "privacy_parameters_details",
    "deployment_model": "model_name model_name_details actors release_type release_type_details "
    "data_source_type data_source_type_details access_type access_type_details",
    "accounting": "post_processing composition",
    "implementation": "preprocessing_and_hyperparameter_tuning mechanisms justification",
    "administrative": "sources notes registry_authors",
}
PLAN = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)


def deployment(report: fldp.plan.report.Report) -> dict:
    return report.to_dict()["registry"]["deployment"]


def test_the_fields_are_those_of_the_registry() -> None:
    found = PLAN.report().to_dict()["registry"]
    assert set(found) == {"url_slug", "status", "tier", "deployment"}
    for section, fields in found["deployment"].items():
        assert set(fields) <= set(SCHEMA[section].split()), section
    assert set(found["deployment"]) == set(SCHEMA)


def test_what_nobody_stated_is_not_invented() -> None:
    bare = PLAN.report()
    assert bare.missing == [*FACTS, "clip_norm", "group"]
    assert deployment(bare)["basic"]["data_curators"] == ["not stated"]
    given = {name: f"about {name}" for name in FACTS}
    full = PLAN.report(**given, clip_norm=1.0, group=1)
    assert full.missing == []
    assert "not stated" not in full.to_json()
    for name in FACTS:
        assert f"about {name}" in full.to_json(), name


def test_every_plan_has_a_record_whose_figures_are_rounded_up() -> None:
    for name, plan in plans():
        report = plan.report(client="phone", group=2)
        found = json.loads(report.to_json())
        stated = found["registry"]["deployment"]["privacy_loss"]["privacy_parameters"]
        assert stated["epsilon"] >= plan.epsilon() * (1 - 1e-9), name
        assert stated["delta"] >= plan.delta, name
        assert found["settings"]["noise multiplier z"] <= plan.noise_multiplier, name
        assert found["statement"] == plan.statement(), name
        server = [row for row in found["observers"] if row["who"].startswith("the server")]
        assert len(server) == (plan.trust == "central"), name
        assert "not stated yet" in report.to_markdown().lower()


@pytest.mark.filterwarnings("ignore:accountant is 'gdp'")
@pytest.mark.parametrize("accountant", ["rdp", "gdp"])
def test_an_approximation_is_not_the_ε_of_the_record(accountant: str) -> None:
    plan = dataclasses.replace(PLAN, accountant=accountant)
    report = plan.report()
    stated = deployment(report)["privacy_loss"]["privacy_parameters"]["epsilon"]
    assert stated >= PLAN.epsilon()
    assert ("approximation" in " ".join(report.notes)) == (accountant == "gdp")
    if accountant == "rdp":
        assert stated >= plan.epsilon()


def test_a_ledger_says_what_was_really_spent(tmp_path: Path) -> None:
    with fldp.Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger:
        for number in range(1, 31):
            ledger.record(PLAN.event, number)
        half = PLAN.report(ledger)
        assert half.epsilon == pytest.approx(PLAN.epsilon(30))
        assert "30 of the 60 rounds are spent." in half.notes
        ledger.record(Event(4.0), label="a histogram")
        more = PLAN.report(ledger)
        assert more.epsilon > half.epsilon
        assert "1 other releases" in " ".join(more.notes)
        assert "does not say" in " ".join(more.notes)
        other = fldp.calibrate(epsilon=1.0, delta=1e-3, rounds=60, clients=480)
        with pytest.raises(ValueError, match="another plan"):
            other.report(ledger)


def test_a_run_with_seeds_is_reported_against_who_knows_them() -> None:
    x, y = torch.randn(200, 4), torch.randint(0, 2, (200,))
    people = fldp.clients.partition(x, y, clients=50, seed=0)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=5, clients=50, cohort=20)
    settings = {"clip": 1.0, "local": fldp.LocalSGD(0.1), "seed": 0}
    run = fldp.train(torch.nn.Linear(4, 2), people, plan, **settings)
    report = plan.report(run)
    assert report.epsilon == pytest.approx(run.now)
    assert report.epsilon > plan.epsilon()
    assert report.statement == run.statement
    assert "knows by which seed" in " ".join(report.label().split())
    loud = fldp.train(
        torch.nn.Linear(4, 2), people, plan, **settings, generator=torch.Generator().manual_seed(1)
    )
    assert "nothing on this page holds" in " ".join(plan.report(loud).label().split())


def test_skipped_rounds_are_named_and_spent() -> None:
    people = fldp.clients.partition(torch.randn(60, 4), torch.randint(0, 2, (60,)), clients=20)
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=12, clients=20, cohort=10, trust="distributed",
        min_survivors=10,
    )  # fmt: skip
    run = fldp.train(torch.nn.Linear(4, 2), people, plan, clip=1.0, local=fldp.LocalSGD(0.1))
    skipped = int(sum(run.private["skipped"]))
    report = plan.report(run)
    assert skipped == 0 or f"{skipped} rounds were skipped" in " ".join(report.notes)
    assert report.epsilon == pytest.approx(plan.epsilon())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": "blue"}, "colour is no fact"),
        ({"name": ""}, "name is ''"),
        ({"group": 0}, "group"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"run": object()}, "give what fldp.train returned"),
    ],
)
def test_misuse_says_what_to_give(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PLAN.report(**given)
