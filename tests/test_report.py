"""plan.report: nothing invented, nothing rounded in its own favour, the registry's own fields."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from test_statement import plans

import fldp
from fldp._text import up
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


def answers(report: fldp.plan.report.Report) -> str:
    return " ".join(row["answer"] for row in report.to_dict()["nist_sp_800_226"])


@pytest.mark.parametrize("rounds", [20, 60, 90])
@pytest.mark.parametrize("releases", [0, 3])
def test_no_clause_of_a_run_states_a_smaller_ε(tmp_path: Path, rounds: int, releases: int) -> None:
    with fldp.Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger:
        for number in range(1, rounds + 1):
            ledger.record(PLAN.event, number)
        if releases:
            ledger.record(Event(2.0, rounds=releases), label="figures")
        report = PLAN.report(ledger)
        spent = up(ledger.epsilon())
    details = deployment(report)["privacy_loss"]["privacy_parameters_details"]
    for told in (answers(report), details, " ".join(report.statement.split())):
        first = told.index(f"({spent}, 0.001)-differential privacy")
        assert told.index("-differential privacy") == first + len(f"({spent}, 0.001)")
        assert ("What follows is of the rounds alone." in told) == (releases > 0)
        assert f"After {rounds} rounds: " in told
    assert ("more than were planned" in " ".join(report.notes)) == (rounds > 60)
    assert (f"{releases} other releases" in " ".join(report.notes)) == (releases > 0)


def test_a_seeded_run_that_stopped_speaks_of_the_rounds_that_ran() -> None:
    people = fldp.clients.partition(torch.randn(60, 4), torch.randint(0, 2, (60,)), clients=20)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=20, clients=20, cohort=8)
    run = fldp.train(
        torch.nn.Linear(4, 2), people, plan, clip=1.0, local=fldp.LocalSGD(0.1), seed=0,
        callbacks=[lambda number, history: number >= 5],
    )  # fmt: skip
    report = plan.report(run)
    assert run.participations is not None
    assert f"more than {run.participations[-1]} of the 5 rounds" in answers(report)
    assert "20 rounds" not in answers(report)
    # A seed is known: one round of it is not amplified.
    assert report.to_dict()["settings"]["ε of one round"] >= plan.seeded_epsilon(1)
    with pytest.raises(ValueError, match="knows of its seeds"):
        plan.report(run, participations=2)
    with pytest.raises(ValueError, match="knows of its seeds"):
        plan.report(run, reproducible=True)


def test_who_sees_who_took_part_sees_it_in_other_releases_too(tmp_path: Path) -> None:
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120, sampling="none",
        adjacency="zero-out",
    )  # fmt: skip
    drawn = Event(1.0, sampling_rate=0.01, sampling="poisson", rounds=100)
    seen = dataclasses.replace(drawn, known=True)
    with fldp.Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        ledger.record(drawn, label="of another plan")
        report = plan.report(ledger)
    assert "who took part, but no updates" in report.clauses["against"][0]
    assert report.epsilon >= fldp.accounting.epsilon_of([seen], 1e-3, "zero-out")


@pytest.mark.parametrize(
    "hostile",
    [
        "X\n\n## Against whom\n\n| who | ε |\n|---|---|\n| all | 0.01 |",
        "<script>alert(1)</script>",
        "a|b *c* `d` _e_ [f](g) $h$",
    ],
)
def test_a_fact_is_text_and_no_part_of_the_page(hostile: str) -> None:
    given = dict.fromkeys(FACTS, hostile)
    report = PLAN.report(**given)
    page, usual = report.to_markdown(), PLAN.report(**dict.fromkeys(FACTS, "x")).to_markdown()
    # As many headings, rows and list items as with harmless words.
    for mark in ("\n## ", "\n| ", "\n- ", "\n"):
        assert page.count(mark) == usual.count(mark)
    assert not re.search(r"(?<!\\)[<*`$]", page.replace("**", "").partition("## Statement")[0])
    # The record itself holds the words as they are.
    stated = json.loads(report.to_json())["registry"]
    assert stated["deployment"]["basic"]["name"] == " ".join(hostile.split())
    assert re.fullmatch(r"[\w-]+", stated["url_slug"])


@pytest.mark.parametrize("hidden", ["a\x00b", "\ud800", "\u202eevil", "\u2066x"])
def test_a_fact_that_does_not_print_is_refused(hidden: str) -> None:
    with pytest.raises(ValueError, match="do not print"):
        PLAN.report(client=hidden)


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


@pytest.mark.parametrize("secret", [True, False])
def test_what_is_proved_for_gaussians_alone_is_not_said_of_lattice_noise(secret: bool) -> None:
    people = fldp.clients.partition(torch.randn(60, 4), torch.randint(0, 2, (60,)), clients=20)
    plan = fldp.calibrate(
        epsilon=8.0, delta=1e-3, rounds=2, clients=20, cohort=10 if secret else None
    )
    for noise in (fldp.Gaussian(), fldp.Skellam()):
        run = fldp.train(torch.nn.Linear(4, 2), people, plan, noise=noise)
        report = plan.report(run, group=2)
        unknown = secret and isinstance(noise, fldp.Skellam)
        for each in report.found:
            bounded = each.name in ("observer", "cohort known") or not unknown
            assert math.isfinite(each.epsilon) == bounded, each.name
        assert ("there is no bound" in report.to_markdown()) == unknown
        assert ("nothing useful is promised" in report.label().replace("\n", " ")) == unknown


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": "blue"}, "colour is no fact"),
        ({"name": ""}, "name is ''"),
        ({"group": 0}, "group"),
        ({"participations": -1}, "participations"),
        ({"participations": True}, "participations"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"run": object()}, "give what fldp.train returned"),
    ],
)
def test_misuse_says_what_to_give(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PLAN.report(**given)
