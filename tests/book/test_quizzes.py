"""The quizzes: whole, one right answer each, every number computed here or printed by a chapter."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import chapters
import check_book
import myst
import numbering
import plain
import pytest
import questions
import quiz
import quizzes
import twins
import yaml
from scipy.stats import norm

import fldp
from fldp.accounting import gaussian_delta, gaussian_epsilon, gaussian_mu

HERE = Path(__file__).resolve().parent.parent.parent
QUIZZES = questions.questions(HERE)
EVERY = [(slug, question) for slug, some in QUIZZES.items() for question in some]
NAMES = [question.id for _, question in EVERY]
# Pages that are no chapters and have questions all the same.
OTHERS = ("quickstart", "what-public-examples-give")
# A power of ten as one, a fraction as one, or digits that are no part of a name or of an index.
NUMBER = re.compile(r"10\^\{-?\d+\}|(?<![\w.])\d+/\d+(?!\w)|(?<![\w.])\d[\d,]*(?:\.\d+)?")
CODE = re.compile(r"\{\w+\}`[^`]*`|`[^`]*`")
# Expressions of the file ask for these by name.
CLASSROOM = {"delta": 1e-3, "rounds": 60, "clients": 480, "cohort": 120}


def texts(question: questions.Question) -> Iterator[str]:
    yield question.asks
    for answer in question.answers:
        yield answer.says
        yield answer.because


def numbers(question: questions.Question) -> set[str]:
    """Every number that the question's texts hold, as it is written."""
    said = " ".join(CODE.sub(" ", text) for text in texts(question))
    return {number.rstrip(",") for number in NUMBER.findall(said)}


@cache
def names() -> dict[str, Any]:
    """What the expressions of the file may use."""
    quickstart = fldp.calibrate(epsilon=8.0, **CLASSROOM)
    nine = fldp.explain_recipe(
        epsilon=1.0, delta=1e-5, rounds=15, local_epochs=2, batch_size=16, client_sizes=[5000] * 10
    )
    return {
        "fldp": fldp,
        "math": math,
        "norm": norm,
        "replace": replace,
        "gaussian_delta": gaussian_delta,
        "gaussian_epsilon": gaussian_epsilon,
        "gaussian_mu": gaussian_mu,
        "quickstart": quickstart,
        "z_quickstart": quickstart.noise_multiplier,
        "nine": nine,
    }


def value(written: str) -> float:
    return float(written.replace(",", ""))


def decimals(written: str) -> int:
    return len(written.partition(".")[2])


def rounds_to(found: float, written: str) -> bool:
    return round(found, decimals(written)) == value(written)


@cache
def outputs(slug: str) -> str:
    """What a chapter's stored outputs print."""
    cells = numbering.cells_of(HERE / "book" / f"{slug}.ipynb")
    return "\n".join(
        check_book.text_of(output) for cell in cells for output in cell.get("outputs", [])
    )


# The questions.


@pytest.mark.slow
def test_every_chapter_has_its_questions_where_its_exercises_begin() -> None:
    written = [chapter.slug for chapter in chapters.chapters(HERE)]
    assert set(QUIZZES) == {*written, *OTHERS}
    assert [slug for slug in QUIZZES if slug in written] == written, "not in the order of the book"
    for slug in QUIZZES:
        cells = numbering.cells_of(HERE / "book" / f"{slug}.ipynb")
        text = "\n".join(myst.markdown(cells))
        assert sum(found.name == "quiz" for found in myst.directives(text)) == 1, slug
        if slug in written:
            before, _, after = text.partition("```{quiz}\n```\n")
            assert "## Summary" in before, slug
            assert after.lstrip().startswith("## Exercises"), slug


@pytest.mark.parametrize(("slug", "question"), EVERY, ids=NAMES)
def test_every_number_is_given_computed_or_printed(slug: str, question: questions.Question) -> None:
    told = {*question.given, *question.computed, *question.printed}
    assert numbers(question) <= told, "without a source"
    assert told <= numbers(question), "a source for a number that no text holds"


COMPUTED = [
    pytest.param(question.computed, id=question.id) for _, question in EVERY if question.computed
]


@pytest.mark.slow
@pytest.mark.parametrize("computed", COMPUTED)
def test_computed_numbers_are_what_the_package_says(computed: dict[str, str]) -> None:
    for written, rule in computed.items():
        found = eval(rule, names())
        assert rounds_to(found, written), f"{written} is written, {rule} gives {found}"


# With these words a number may be below the truth.
BELOW = re.compile(r"more than|at least|above", re.IGNORECASE)
CLAIMED = [
    pytest.param(answer.says, rule, written, id=f"{question.id}-{written}")
    for _, question in EVERY
    for answer in question.answers
    for written, rule in question.computed.items()
    if answer.is_right and "epsilon" in rule and not rule.endswith("noise_multiplier")
    if written in NUMBER.findall(answer.says)
]


@pytest.mark.slow
@pytest.mark.parametrize(("says", "rule", "written"), CLAIMED)
def test_an_epsilon_in_a_right_answer_is_not_below_the_truth(
    says: str, rule: str, written: str
) -> None:
    assert value(written) >= eval(rule, names()) or BELOW.search(says), rule


@pytest.mark.parametrize(("slug", "question"), EVERY, ids=NAMES)
def test_printed_numbers_stand_in_the_chapters_outputs(
    slug: str, question: questions.Question
) -> None:
    for written, line in question.printed.items():
        assert line in outputs(slug), f"{slug} prints no line {line!r}"
        shown = [
            float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", line.replace(",", ""))
        ]
        # A share may be written in percent.
        assert any(rounds_to(n, written) or rounds_to(100 * n, written) for n in shown), line


@pytest.mark.slow
def test_texts_keep_to_the_voice_and_to_labels_that_exist() -> None:
    places, titles = numbering.places(HERE), twins.the_book().titles
    for _, question in EVERY:
        for text in texts(question):
            assert not check_book.BANNED.search(text), text
            assert text.count("$") % 2 == 0, text
            for role in myst.roles(text):
                known = titles if role.name == "doc" else places
                assert role.target in known, f"{question.id}: {role}"


def test_the_right_answer_has_no_place_and_no_length_of_its_own() -> None:
    where = Counter(question.right for _, question in EVERY)
    assert max(where.values()) <= len(EVERY) / 2, where
    longest = [
        max(question.answers, key=lambda answer: len(answer.says)).is_right for _, question in EVERY
    ]
    assert sum(longest) <= 0.6 * len(EVERY), f"the longest answer is right in {sum(longest)}"


# What the file may not be.

WHOLE = {
    "id": "one",
    "asks": "Which?",
    "answers": [
        {"right": "This.", "because": "So."},
        {"wrong": "That.", "because": "No."},
        {"wrong": "None.", "because": "No."},
    ],
}


def changed(**fields: Any) -> str:
    return yaml.safe_dump({"a": [{**WHOLE, **fields}, {**WHOLE, "id": "two"}]})


def test_a_whole_file_is_read() -> None:
    (one, two) = questions.parsed(changed())["a"]
    assert (one.id, one.right, two.id) == ("one", 0, "two")


FIRST, SECOND, THIRD = WHOLE["answers"]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answers": [FIRST, SECOND]}, "has 2 answers"),
        ({"answers": [FIRST, FIRST, SECOND]}, "2 right answers"),
        ({"answers": [SECOND, SECOND, THIRD]}, "0 right answers"),
        ({"answers": [FIRST, SECOND, {"wrong": "x"}]}, "must have 'because'"),
        ({"answers": [FIRST, SECOND, {"wrong": "x", "because": ""}]}, "must be a text"),
        ({"answers": [FIRST, SECOND, {"wrong": 8, "because": "x"}]}, "in quotation marks"),
        ({"id": "two"}, "stands twice"),
        ({"id": "Not A Name"}, "small letters"),
        ({"hint": "x"}, "else only"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        questions.parsed(changed(**fields))


def test_a_chapter_with_one_question_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 questions"):
        questions.parsed(yaml.safe_dump({"a": [WHOLE]}))


def test_a_wrong_number_and_one_without_a_source_are_seen() -> None:
    assert rounds_to(28.899, "28.9")
    assert rounds_to(9281.3, "9,281")
    assert not rounds_to(28.96, "28.9")
    (one, _) = questions.parsed(changed(asks="Is it 7?", given=[8]))["a"]
    assert numbers(one) == {"7"} != set(one.given)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"$\delta = 10^{-3}$ and 1,440 of 3.", {"10^{-3}", "1,440", "3"}),
        (r"$L_2$, `z = 4`, {doc}`a <chapter-7>`, 0.032, 1/480", {"0.032", "1/480"}),
        ("24, by 3.8.", {"24", "3.8"}),
    ],
)
def test_numbers_are_found(text: str, found: set[str]) -> None:
    (one, _) = questions.parsed(changed(asks=text))["a"]
    assert numbers(one) == found


# On the page, and in the notebook that is read alone.


@pytest.fixture(scope="module")
def document() -> Any:
    """A quiz as the directive makes it, without the page around it."""
    made = quiz.quiz("", *(quiz.nodes.paragraph("", words) for words in ("Check yourself", "How")))
    asked = QUIZZES["the-gaussian-mechanism"]
    for number, question in enumerate(asked, 1):
        one = quiz.quiz_question("", quiz.nodes.paragraph("", question.asks), number=number)
        for letter, answer in question.choices():
            choice = quiz.quiz_answer("", letter=letter, verdict=answer.verdict)
            choice += [quiz.quiz_says("", answer.says), quiz.quiz_because("", answer.because)]
            one += choice
        made += one
    return made


def test_formats_without_folds_have_the_questions_first_and_then_the_reasons(document: Any) -> None:
    shown = quiz.plain(document.deepcopy())
    kinds = [type(node).__name__ for node in shown]
    asked = len(QUIZZES["the-gaussian-mechanism"])
    assert kinds == ["paragraph", *["paragraph", "enumerated_list"] * (2 * asked)]
    text = " ".join(node.astext() for node in shown)
    for question in QUIZZES["the-gaussian-mechanism"]:
        for answer in question.answers:
            assert text.index(answer.says) < text.index(answer.because)
        assert text.index(question.asks) < text.index(questions.RIGHT)


def test_the_notebook_that_is_read_alone_folds_its_reasons() -> None:
    converter = plain.Converter("the-clip-norm", [], twins.the_book())
    shown = converter.text("```{quiz}\n```")
    visible, _, folded = shown.partition("<details>")
    for question in QUIZZES["the-clip-norm"]:
        for answer in question.answers:
            assert answer.says in visible
            assert answer.because in folded
    assert questions.RIGHT not in visible
    assert shown.endswith("</details>")


# For a learning platform. QTI 1.2's content models, of the elements that are used; each child's
# name is followed by a blank.

MODELS = {
    "questestinterop": "assessment ",
    "assessment": "(qtimetadata )*(section )+",
    "section": "(item )+",
    "item": "(itemmetadata )?(presentation )?(resprocessing )*(itemfeedback )*",
    "itemmetadata": "(qtimetadata )*",
    "qtimetadata": "(qtimetadatafield )+",
    "qtimetadatafield": "fieldlabel fieldentry ",
    "presentation": "(material |response_lid )+",
    "response_lid": "(material )?render_choice (material )?",
    "render_choice": "(material |response_label )*",
    "response_label": "(material )*",
    "material": "(mattext )+",
    "resprocessing": "outcomes (respcondition )+",
    "outcomes": "(decvar )+",
    "respcondition": "conditionvar (setvar )*(displayfeedback )*",
    "conditionvar": "(varequal )+",
    "itemfeedback": "(flow_mat |material )+",
    "flow_mat": "(flow_mat |material )+",
    **dict.fromkeys(("mattext", "fieldlabel", "fieldentry", "varequal", "setvar"), ""),
    **dict.fromkeys(("decvar", "displayfeedback"), ""),
}


def local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def faults(root: ET.Element) -> Iterator[str]:
    """Where an assessment breaks the rules of QTI 1.2."""
    space = {"q": quizzes.QTI}
    for element in root.iter():
        children = "".join(f"{local(child)} " for child in element)
        if not re.fullmatch(MODELS[local(element)], children):
            yield f"<{local(element)}> holds {children}"
    for item in root.iterfind(".//q:item", space):
        labels = [one.get("ident") for one in item.iterfind(".//q:response_label", space)]
        told = {one.get("ident") for one in item.iterfind("q:itemfeedback", space)}
        lid = item.find(".//q:response_lid", space)
        assert lid is not None
        if len(set(labels)) < len(labels):
            yield "two answers have one identifier"
        for equal in item.iterfind(".//q:varequal", space):
            if equal.text not in labels or equal.get("respident") != lid.get("ident"):
                yield f"no answer is {equal.text}"
        for shown in item.iterfind(".//q:displayfeedback", space):
            if shown.get("linkrefid") not in told:
                yield f"no feedback is {shown.get('linkrefid')}"
        scoring = item.findall(".//q:setvar", space)
        if [one.text for one in scoring] != [quizzes.FULL]:
            yield "not exactly one answer scores"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quizzes")
    assert quizzes.main([str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_the_package_keeps_the_rules_of_qti(exported: Path) -> None:
    with zipfile.ZipFile(exported / quizzes.QTI_FILE) as package:
        files = {name: package.read(name).decode() for name in package.namelist()}
    manifest = ET.fromstring(files.pop("imsmanifest.xml"))
    named = [file.get("href") for file in manifest.iter(f"{{{quizzes.PACKAGE}}}file")]
    assert sorted(named) == sorted(files)
    idents: list[str] = []
    for text in files.values():
        root = ET.fromstring(text)
        assert list(faults(root)) == []
        idents += [item.get("ident", "") for item in root.iter(f"{{{quizzes.QTI}}}item")]
    assert sorted(idents) == sorted(NAMES)


def test_a_package_that_breaks_a_rule_is_seen() -> None:
    text = quizzes.qti(quizzes.quizzes()[0])
    for old, new in [
        ("<conditionvar>", "<conditionvar><material><mattext/></material>"),
        ('respident="answer">A<', 'respident="answer">E<'),
        ('linkrefid="why-A"', 'linkrefid="why-E"'),
        ('response_label ident="B"', 'response_label ident="A"'),
        (">100</setvar>", ">50</setvar>"),
    ]:
        assert old in text
        assert list(faults(ET.fromstring(text.replace(old, new, 1)))), old


@pytest.mark.slow
def test_moodle_gets_one_right_answer_and_a_reason_for_each(exported: Path) -> None:
    root = ET.parse(exported / quizzes.MOODLE_FILE).getroot()
    categories = [q for q in root if q.get("type") == "category"]
    asked = [q for q in root if q.get("type") == "multichoice"]
    assert len(categories) == len(QUIZZES)
    assert [q.findtext("name/text") for q in asked] == NAMES
    for one in asked:
        scores = [answer.get("fraction") for answer in one.iter("answer")]
        assert sorted(scores, reverse=True) == [quizzes.FULL, *["0"] * (len(scores) - 1)]
        assert all(answer.findtext("feedback/text") for answer in one.iter("answer"))
        for text in one.iter("text"):
            said = text.text or ""
            assert not re.search(r"\{\w+\}`|\$", said), said
            assert said.count("\\(") == said.count("\\)")


@pytest.mark.slow
def test_the_same_quizzes_make_the_same_file(exported: Path, tmp_path: Path) -> None:
    quizzes.main([str(tmp_path)])
    for name in (quizzes.QTI_FILE, quizzes.MOODLE_FILE):
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()
