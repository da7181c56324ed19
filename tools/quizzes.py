"""The quizzes for a learning platform: ``python tools/quizzes.py [FOLDER]``, or ``make quizzes``.

Two files, with the same questions, answers and reasons: `fldp-qti.zip` holds one quiz a chapter as
QTI 1.2, which Canvas, Blackboard, Brightspace and Sakai import; `fldp-moodle.xml` is Moodle's own
format, a category a chapter. Formulas stay LaTeX between \\( and \\), which both draw.
"""

from __future__ import annotations

import argparse
import html
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import twins
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from plain import HERE, Converter

sys.path.append(str(HERE / "book" / "_ext"))
import chapters
import questions
from questions import Question

OUT = HERE / "build" / "quizzes"
QTI_FILE, MOODLE_FILE = "fldp-qti.zip", "fldp-moodle.xml"
QTI = "http://www.imsglobal.org/xsd/ims_qtiasiv1p2"
PACKAGE = "http://www.imsglobal.org/xsd/imscp_v1p1"
# What a right answer scores: percent, in both formats.
FULL = "100"
# Moodle's usual price of another try at a question with three answers: a half.
PENALTY = "0.5"
# The one time that a zip's entries carry, so that the same quizzes make the same file.
TIME = (2026, 1, 1, 0, 0, 0)


class Quiz(NamedTuple):
    """A chapter's questions, under its title with its number."""

    slug: str
    title: str
    questions: tuple[Question, ...]


def quizzes() -> list[Quiz]:
    """Every quiz of the book, in its order."""
    titles = twins.the_book().titles
    numbers = {c.slug: f"{c.number:02} " for c in chapters.chapters(HERE)}
    return [
        Quiz(slug, f"{numbers.get(slug, '')}{titles[slug]}", some)
        for slug, some in questions.questions(HERE).items()
    ]


def _formula(latex: str, options: dict[str, Any]) -> str:
    return html.escape(rf"\({latex}\)")


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").use(dollarmath_plugin, renderer=_formula)


def written(slug: str, text: str) -> str:
    """A text of a chapter's quiz as HTML of one paragraph; links lead into the published book."""
    plain = Converter(slug, [], twins.the_book()).text(text)
    inline = _markdown().renderInline(plain)
    # The plugin wraps each formula in a class that only its own style sheet knows.
    return f"<p>{inline}</p>".replace('<span class="math inline">', "<span>")


def _leaf(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    made = ET.SubElement(parent, tag, attributes)
    made.text = text
    return made


def _serial(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


# QTI 1.2.


def _material(parent: ET.Element, text: str) -> None:
    material = ET.SubElement(parent, "material")
    _leaf(material, "mattext", text, texttype="text/html")


def _told(item: ET.Element) -> None:
    """What Canvas reads: the kind of the question, and its points."""
    metadata = ET.SubElement(ET.SubElement(item, "itemmetadata"), "qtimetadata")
    for label, entry in (("question_type", "multiple_choice_question"), ("points_possible", "1")):
        field = ET.SubElement(metadata, "qtimetadatafield")
        _leaf(field, "fieldlabel", label)
        _leaf(field, "fieldentry", entry)


def _condition(parent: ET.Element, letter: str, go_on: bool) -> ET.Element:
    """What happens if this answer is chosen."""
    made = ET.SubElement(parent, "respcondition", {"continue": "Yes" if go_on else "No"})
    _leaf(ET.SubElement(made, "conditionvar"), "varequal", letter, respident="answer")
    return made


def _item(section: ET.Element, slug: str, question: Question) -> None:
    item = ET.SubElement(section, "item", ident=question.id, title=question.id)
    _told(item)
    shown = ET.SubElement(item, "presentation")
    _material(shown, written(slug, question.asks))
    asked = ET.SubElement(shown, "response_lid", ident="answer", rcardinality="Single")
    choice = ET.SubElement(asked, "render_choice")
    scored = ET.SubElement(item, "resprocessing")
    outcomes = ET.SubElement(scored, "outcomes")
    limits = {"varname": "SCORE", "vartype": "Decimal", "minvalue": "0", "maxvalue": FULL}
    ET.SubElement(outcomes, "decvar", limits)
    for letter, answer in question.choices():
        _material(ET.SubElement(choice, "response_label", ident=letter), written(slug, answer.says))
        told = _condition(scored, letter, go_on=True)
        ET.SubElement(told, "displayfeedback", feedbacktype="Response", linkrefid=f"why-{letter}")
        reason = ET.SubElement(item, "itemfeedback", ident=f"why-{letter}")
        because = f"{answer.verdict} {answer.because}"
        _material(ET.SubElement(reason, "flow_mat"), written(slug, because))
    right = _condition(scored, questions.LETTERS[question.right], go_on=False)
    _leaf(right, "setvar", FULL, action="Set", varname="SCORE")


def qti(quiz: Quiz) -> str:
    """A quiz as an assessment of QTI 1.2."""
    root = ET.Element("questestinterop", xmlns=QTI)
    assessment = ET.SubElement(root, "assessment", ident=f"fldp-{quiz.slug}", title=quiz.title)
    section = ET.SubElement(assessment, "section", ident="root_section")
    for question in quiz.questions:
        _item(section, quiz.slug, question)
    return _serial(root)


def manifest(slugs: Iterable[str]) -> str:
    """What a package holds, for whoever imports it."""
    root = ET.Element("manifest", xmlns=PACKAGE, identifier="fldp-quizzes")
    metadata = ET.SubElement(root, "metadata")
    _leaf(metadata, "schema", "IMS Content")
    _leaf(metadata, "schemaversion", "1.1.3")
    ET.SubElement(root, "organizations")
    resources = ET.SubElement(root, "resources")
    for slug in slugs:
        file = f"{slug}/{slug}.xml"
        kind = {"type": "imsqti_xmlv1p2", "identifier": f"fldp-{slug}", "href": file}
        ET.SubElement(ET.SubElement(resources, "resource", kind), "file", href=file)
    return _serial(root)


def pack(some: Iterable[Quiz], path: Path) -> None:
    """Write the package with every quiz."""
    files = {f"{quiz.slug}/{quiz.slug}.xml": qti(quiz) for quiz in some}
    files["imsmanifest.xml"] = manifest(name.partition("/")[0] for name in files)
    with zipfile.ZipFile(path, "w") as package:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, text)


# Moodle.


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    made = ET.SubElement(parent, tag, attributes)
    _leaf(made, "text", text)
    return made


def _moodle_question(root: ET.Element, slug: str, question: Question) -> None:
    made = ET.SubElement(root, "question", type="multichoice")
    _text(made, "name", question.id)
    _text(made, "questiontext", written(slug, question.asks), format="html")
    settings = {
        "defaultgrade": "1",
        "penalty": PENALTY,
        "single": "true",
        "shuffleanswers": "true",
        "answernumbering": "ABCD",
    }
    for tag, setting in settings.items():
        _leaf(made, tag, setting)
    for answer in question.answers:
        fraction = FULL if answer.is_right else "0"
        text = written(slug, answer.says)
        one = _text(made, "answer", text, fraction=fraction, format="html")
        because = f"{answer.verdict} {answer.because}"
        _text(one, "feedback", written(slug, because), format="html")


def moodle(some: Iterable[Quiz]) -> str:
    """All quizzes in Moodle's XML, a category each."""
    root = ET.Element("quiz")
    for quiz in some:
        category = ET.SubElement(root, "question", type="category")
        _text(category, "category", f"$course$/top/fldp/{quiz.title}")
        for question in quiz.questions:
            _moodle_question(root, quiz.slug, question)
    return _serial(root)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the quizzes for a learning platform.")
    parser.add_argument("folder", nargs="?", type=Path, default=OUT, help="default: build/quizzes")
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    some = quizzes()
    pack(some, folder / QTI_FILE)
    (folder / MOODLE_FILE).write_text(moodle(some), encoding="utf-8")
    asked = sum(len(quiz.questions) for quiz in some)
    print(f"{asked} questions of {len(some)} chapters: {folder / QTI_FILE}, {folder / MOODLE_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
