"""plan.statement: the statement of every kind of plan, word for word, and what none may say.

`tests/data/statements.txt` holds them all, to be read aloud. After a change of wording:

    python tests/test_statement.py

writes it anew, and the difference is read before it is committed.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fldp
from fldp.plan import PrivacyPlan

STORED = Path(__file__).parent / "data" / "statements.txt"
BASE = {"epsilon": 8.0, "delta": 1e-3, "rounds": 60, "clients": 480}
SEEDED = 26  # a seed that gives some client 26 of the 60 rounds
REPRODUCIBLE = "Reproducible noise:"
# An ε or a z: an accountant may tighten by a little, and lines then break elsewhere.
FIGURE = re.compile(r"(?:(?<=ε\s=\s)|(?<=\()|(?<=e\^)|(?<=at\sleast\s))(\d+(?:\.\d+)?)(?=[,.\s])")


def plans() -> Iterator[tuple[str, PrivacyPlan]]:
    """One plan for every combination of settings that goes together."""
    choices = itertools.product(
        ("central", "distributed", "local"),
        ("poisson", "fixed", "none", "everyone"),
        ("add-or-remove", "zero-out", "replace-one"),
        (None, 200),
    )
    for trust, sampling, adjacency, cap in choices:
        if cap is not None and sampling != "poisson":
            continue
        settings = BASE | {
            "trust": trust,
            "sampling": "none" if sampling == "everyone" else sampling,
            "adjacency": adjacency,
            "cohort": None if sampling == "everyone" else 120,
            "cap": cap,
            "min_survivors": 90 if trust == "distributed" else None,
        }
        if refused(trust, sampling, adjacency):
            with pytest.raises(ValueError, match=r"adjacency is '(add-or-remove|zero-out)'"):
                fldp.calibrate(**settings)
            continue
        yield f"{trust}, {sampling}, {adjacency}, cap {cap}", fldp.calibrate(**settings)


def refused(trust: str, sampling: str, adjacency: str) -> bool:
    if adjacency == "add-or-remove" and trust != "central":
        return True
    return trust == "central" and sampling == "fixed" and adjacency != "replace-one"


def accountants() -> Iterator[tuple[str, PrivacyPlan]]:
    for name in ("prv", "rdp", "gdp"):
        plan = fldp.calibrate(**BASE, cohort=120)
        yield f"accountant {name}", dataclasses.replace(plan, accountant=name)


def cases() -> Iterator[tuple[str, PrivacyPlan, int | None]]:
    for name, plan in plans():
        everyone = plan.cohort == plan.clients
        for k in (None, plan.rounds if everyone else SEEDED):
            yield f"{name}, seed gives {k}", plan, k
    for name, plan in accountants():
        yield name, plan, None


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[PrivacyPlan, int | None, str]]:
    return {name: (plan, k, plan.statement(participations=k)) for name, plan, k in cases()}


def text(found: dict[str, tuple[PrivacyPlan, int | None, str]]) -> str:
    return "\n\n".join(f"=== {name}\n{words}" for name, (_, _, words) in found.items()) + "\n"


def unwrapped(words: str) -> str:
    return words.replace("\n    ", " ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:accountant is 'gdp'")
def test_every_statement_is_the_one_that_was_read(found: dict) -> None:
    stored, said = unwrapped(STORED.read_text(encoding="utf-8")), unwrapped(text(found))
    assert FIGURE.sub("#", said) == FIGURE.sub("#", stored)
    figures = [float(figure) for figure in FIGURE.findall(said)]
    assert figures == pytest.approx([float(figure) for figure in FIGURE.findall(stored)], rel=2e-3)


def one_line(words: str) -> str:
    return " ".join(words.split())


def test_p01_no_statement_says_never_there_where_who_took_part_is_known(found: dict) -> None:
    for name, (plan, _, words) in found.items():
        said = one_line(words)
        if plan.trust != "central":
            assert "never there" not in said, name
            assert "secret" not in said.replace("secure", ""), name
        if plan.trust == "local":
            assert "when it sent one" in said, name
            assert "own coin" not in said, name
        if "nor who took part" in said.split("Against:")[1].split("Sampling")[0]:
            assert "who took part and the random numbers" in said, name


def test_p01_the_distributed_statement_names_the_public_count_the_coins_and_all_rounds(
    found: dict,
) -> None:
    for name, (plan, k, words) in found.items():
        said = one_line(words)
        if plan.trust != "distributed":
            continue
        assert "that number is public" in said, name
        assert "std at least z·C on each sum" in said, name
        if plan.event.sampling != "none":
            every = fldp._text.up(plan.cohort_known()["epsilon_all"])
            assert f"ε = {every}, that of all 60 rounds" in said, name
            assert ("presumes that the server draws them as stated" in said) == (k is None), name


@pytest.mark.slow
def test_p03_a_seed_moves_the_headline_and_is_named(found: dict) -> None:
    for name, (plan, k, words) in found.items():
        first = one_line(words).split("differential")[0]
        if k is None:
            assert f"({fldp._text.up(plan.epsilon())}, 0.001)" in first, name
            assert "seed of the draws" not in first, name
        else:
            epsilon = plan.seeded_epsilon(k)
            assert (
                f"against whoever knows the seed of the draws: ({fldp._text.up(epsilon)}" in first
            )
            assert f"no client more than {k} of the 60 rounds" in one_line(words), name
            if plan.event.sampling == "none":
                assert epsilon <= plan.epsilon() * (1 + 1e-9), name
            else:
                assert epsilon > plan.epsilon(), name


@pytest.mark.parametrize("bad", [-1, 61, 1.5, "all"])
def test_participations_are_rounds_of_the_plan(bad: object) -> None:
    plan = fldp.calibrate(**BASE, cohort=120)
    with pytest.raises(ValueError, match="participations is"):
        plan.statement(participations=bad)  # type: ignore[arg-type]


def test_p03_the_account_without_the_seed_presumes_that_nothing_of_its_draws_is_told() -> None:
    """The number of rounds above is itself drawn: of 2 clients in 1 round it tells who came."""
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=1, clients=2, cohort=0.1)
    told = " ".join(plan.statement(participations=1).split())
    assert "nor anything of what it drew, such as who took part or the number of rounds" in told


@pytest.mark.slow
def test_reproducible_noise_adds_one_sentence_below_the_headline(found: dict) -> None:
    for name, (plan, k, words) in found.items():
        seeded = plan.statement(reproducible=True, participations=k).split("\n")
        start = next(i for i, line in enumerate(seeded) if line.startswith(REPRODUCIBLE))
        assert start <= 5, name
        end = next(i for i in range(start + 1, len(seeded)) if not seeded[i].startswith(" "))
        assert seeded[:start] + seeded[end:] == words.split("\n"), name


def test_lines_fit_a_page(found: dict) -> None:
    for _, _, words in found.values():
        assert max(map(len, words.split("\n"))) <= 80


def test_p13_limits_and_accountant_name_floating_point(found: dict) -> None:
    for name, (plan, k, words) in found.items():
        said = one_line(words)
        assert "floating-point noise" in said, name
        assert "plan.group(k)" in said, name
        sampled = plan.accountant == "pld" and plan.trust == "central" and k is None
        if sampled and plan.event.sampling != "none":
            assert "FFT is bounded as if independent" in said, name
        if plan.accountant == "gdp":
            assert "approximately" in said.split("differential")[0]
            assert "can be too low" in said


@pytest.mark.parametrize(("clients", "word"), [(100, "0.1"), (480, "0.48")])
def test_p13_delta_is_said_in_clients(clients: int, word: str) -> None:
    plan = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=5, clients=clients)
    assert f"N·δ = {word} of the {clients} clients on average." in one_line(plan.statement())


def test_a_delta_of_one_client_is_called_too_weak() -> None:
    with pytest.warns(UserWarning, match="delta is"):
        plan = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=5, clients=100)
    assert "this δ is too weak" in one_line(plan.statement())


def test_a_weak_or_missed_guarantee_is_called_so() -> None:
    plan = fldp.calibrate(epsilon=50.0, delta=1e-3, rounds=60, clients=480, cohort=120)
    assert "This is weak" in plan.statement()
    assert "misses the target" in dataclasses.replace(plan, target_epsilon=1.0).statement()


@pytest.mark.parametrize("clients", [150, 160, 300])
def test_p12_a_printed_pair_is_true(clients: int) -> None:
    plan = fldp.calibrate(epsilon=1.0, delta=clients**-1.1, rounds=10, clients=clients)
    printed = plan.statement().split("rounds: (")[1].split(")")[0]
    epsilon, delta = map(float, printed.split(","))
    assert delta >= plan.delta
    assert fldp.delta(noise_multiplier=plan.noise_multiplier, epsilon=epsilon, rounds=10) <= delta
    table = plan._repr_html_()
    assert f"<th>δ</th><td>{delta:g}</td>" in table
    assert f"<th>ε</th><td>{epsilon:g}</td>" in table


def test_a_distributed_statement_says_whom_it_trusts_and_what_it_does_not_check() -> None:
    shared = {**BASE, "cohort": 120, "trust": "distributed", "min_survivors": 80}
    for colluders, told in ((0, "none tell"), (16, "at most 16 tell")):
        said = one_line(fldp.calibrate(**shared, colluders=colluders).statement())
        assert "the server, which follows the protocol" in said
        assert f"at least 80 are honest and {told} it what they know" in said
        assert "(one that the server made up does)" in said
        assert f"fewer than {80 + colluders} come is skipped" in said
        assert f"fewer than {80 + colluders} clients come to a round" in said or not colluders
        assert "sampling amplifies nothing against them" in said
        assert "nobody can look at an update" in said
        assert "the sum itself, which the server sees" in said
        assert "Gaussian (Skellam: its counterpart on a grid)" in said
    for trust in ("central", "local"):
        said = one_line(fldp.calibrate(**BASE, cohort=120, trust=trust).statement())
        assert "nobody can look at an update" not in said


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    everything = {name: (plan, k, plan.statement(participations=k)) for name, plan, k in cases()}
    STORED.write_text(text(everything), encoding="utf-8")
