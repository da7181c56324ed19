"""What the chapter on the recipe says of its nine lines, of other chapters and of the article."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import fldp
from fldp.recipe import explain_recipe

pytest.importorskip("opacus")

BOOK = Path(__file__).resolve().parent.parent.parent / "book"
CELLS = json.loads((BOOK / "nine-lines-that-claim-one.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TEXT = "\n\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
OPENING = {"epsilon": 1.0, "delta": 1e-5, "rounds": 15, "local_epochs": 2, "batch_size": 16}
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
RECORD = "application/papermill.record/text/plain"


def source(words: str) -> str:
    """The code cell that has these words in it."""
    return next(text for text in CODE if words in text)


def lines(changes: dict[str, str] | None = None) -> dict[str, Any]:
    """The chapter's nine lines, as it defines them or with words exchanged."""
    from opacus.accountants.utils import get_noise_multiplier

    scope: dict[str, Any] = {
        "torch": torch,
        "random": random,
        "get_noise_multiplier": get_noise_multiplier,
    }
    for name in ("def choose_noise", "def one_round"):
        text = source(name)
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        exec(text, scope)
    return scope


def glued(stem: str) -> dict[str, float]:
    """The figures that a stored notebook binds."""
    found = {}
    for cell in json.loads((BOOK / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if name:
                found[name] = float("".join(output["data"][RECORD]))
    return found


def noise_on_sum(one_round: Any, sizes: list[int], u: float, z: float) -> float:
    """Standard deviation of a round's mean of zeros, times the clients that came, in clip norms."""
    rng = torch.Generator().manual_seed(1)
    mean = one_round(lambda k: torch.zeros(200_000), sizes, u, z, 0.5, rng)
    return float(mean.std()) * max(1, int(u * len(sizes))) / 0.5


def test_the_lines_are_nine_and_numbered() -> None:
    text = source("def choose_noise") + source("def one_round")
    assert re.findall(r"# line (\d)", text) == list("123456789")


@pytest.mark.parametrize("u", [1.0, 0.5])
def test_the_lines_are_the_recipe_that_the_package_explains(u: float) -> None:
    sizes = [4000, 6000] * 5
    told = explain_recipe(**OPENING, client_sizes=sizes, user_sample_rate=u)
    z = lines()["choose_noise"](sizes, T=15, E=2, B=16, u=u, epsilon=1.0, delta=1e-5)
    assert z == told.noise_multiplier
    # "they account for u²TE passes over a record"
    assert told.sample_rate * told.steps == pytest.approx(u**2 * 15 * 2)
    equal = [5000] * 10
    # "the noise is z√(m/N)"
    assert noise_on_sum(lines()["one_round"], equal, u, z) == pytest.approx(
        told.effective_noise_multiplier, rel=0.02
    )


def test_a_share_for_those_who_come_is_another_program() -> None:
    planted = lines({"share = z * C / N**0.5": "share = z * C / len(who) ** 0.5"})
    assert noise_on_sum(planted["one_round"], [5000] * 10, 0.5, 1.0) == pytest.approx(1, rel=0.02)
    assert noise_on_sum(lines()["one_round"], [5000] * 10, 0.5, 1.0) == pytest.approx(
        math.sqrt(0.5), rel=0.02
    )


def test_an_update_is_clipped_as_a_whole_and_weighted_by_its_records() -> None:
    updates = torch.tensor([[3.0, 4.0], [0.3, 0.0]])
    rng = torch.Generator().manual_seed(0)
    mean = lines()["one_round"](updates.__getitem__, [1, 3], 1.0, 0.0, 0.5, rng)
    assert torch.allclose(mean, torch.tensor([0.25 * 0.3 + 0.75 * 0.3, 0.25 * 0.4]))


def test_the_words_for_numbers_are_right() -> None:
    told = explain_recipe(**OPENING, client_sizes=[5000] * 10)
    given = told.findings[0]["epsilon"]
    assert len(str(int(math.exp(given)))) == 13  # "thirteen digits"
    assert round(told.needed["zero-out"] / told.noise_multiplier) == 17  # "seventeen times"
    assert 0.01 * math.e + 1e-5 < 0.03  # "no more than three runs of a hundred"
    svg = (BOOK / "_static" / "told-and-run.svg").read_text(encoding="utf-8")
    for number in (f"{told.steps:,.0f} steps", "16 of 50,000 records", "15 rounds"):
        assert number in svg
    assert f"{told.steps:,.0f} small steps" in TEXT
    # A record needs exactly twice the noise of a client.
    assert told.needed["replace-one"] == pytest.approx(2 * told.needed["zero-out"], rel=1e-5)


def test_the_front_page_and_the_chapter_agree() -> None:
    front = (BOOK / "index.md").read_text(encoding="utf-8")
    given = glued("nine-lines-that-claim-one")["nine-client"]
    assert f"give {given:.0f}, on the kindest reading <the-recipe-that-claims-one>" in front
    assert "(the-recipe-that-claims-one)=\n## " in TEXT


def test_numbers_of_other_chapters_are_theirs() -> None:
    typed = re.search(r"^elsewhere = (\{.+?\})$", source("elsewhere = "), re.MULTILINE | re.DOTALL)
    assert typed
    for name, value in json.loads(typed[1].replace(",\n}", "\n}")).items():
        stem, key = name.split("/")
        digits = len(str(value).partition(".")[2])
        assert round(glued(stem)[key], digits) == value, name


def test_the_article_has_its_eighteen_statements_and_the_summary_counts_them() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 19))
    verdicts = [verdict for _, _, verdict, _ in ROWS]
    kinds = [re.match(r"confirmed|corrected|measured", verdict) for verdict in verdicts]
    counted = [kind[0] if kind else "half" for kind in kinds]
    numbers = {word: counted.count(word) for word in ("confirmed", "corrected", "measured", "half")}
    assert numbers == {"confirmed": 8, "corrected": 7, "measured": 1, "half": 2}
    summary = " ".join(TEXT.split())
    assert (
        "eight are confirmed, seven corrected and one measured; the other two are half" in summary
    )


def test_every_statement_says_where() -> None:
    for number, _, _, where in ROWS:
        for stem in re.findall(r"\{doc\}`([\w-]+)`", where):
            assert (BOOK / f"{stem}.ipynb").exists(), (number, stem)
        assert "{doc}" in where or "{numref}" in where, number


def test_draws_of_a_fixed_size_never_cost_less_than_the_bound_in_the_table() -> None:
    """Whoever is drawn, the sum of zeros and one update has the law that coins give it."""
    q, z, T = 0.1, 0.4, 100
    coins = fldp.epsilon(noise_multiplier=z, sampling_rate=q, rounds=T, delta=1e-5)
    lot = fldp.epsilon(
        noise_multiplier=z,
        sampling_rate=q,
        rounds=T,
        delta=1e-5,
        clients=100,
        sampling="fixed",
        adjacency="replace-one",
    )
    assert lot > coins
