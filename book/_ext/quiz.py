"""``{quiz}``: a chapter's questions, from `book/quizzes.yml`, where the chapter says so.

Every answer is a fold of the browser's own: its reason is read by opening it, without JavaScript
and by the keyboard alone. In every other format the questions stand first, and the reasons below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from questions import ANSWERS, FILE, HOW, TITLE, Question, questions


class quiz(nodes.General, nodes.Element):
    """A chapter's questions."""


class quiz_question(nodes.General, nodes.Element):
    """One question: a paragraph, then its answers. Its `number` counts from 1."""


class quiz_answer(nodes.General, nodes.Element):
    """One answer: what it says, then its reason. It knows its letter, and whether it is right."""


class quiz_says(nodes.Part, nodes.TextElement):
    """What an answer says."""


class quiz_because(nodes.Part, nodes.TextElement):
    """Why it is right or not."""


class Quiz(SphinxDirective):
    """The questions of the chapter that the directive stands in."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / FILE))
        slug = Path(self.env.docname).name
        known = questions(root)
        if slug not in known:
            raise self.error(
                f"{FILE} has no questions for {slug}: write them, or take the directive out"
            )
        title = nodes.paragraph("", "", nodes.strong("", TITLE), classes=["fldp-quiz-title"])
        made = quiz("", title, nodes.paragraph("", HOW), ids=[f"quiz-{slug}"])
        for number, question in enumerate(known[slug], 1):
            made += self.question(number, question)
        return [made]

    def inline(self, text: str) -> list[nodes.Node]:
        """The nodes of a text of one line, which is read as the page's own Markdown is."""
        found, messages = self.state.inline_text(text, self.lineno)
        return [*found, *messages]

    def question(self, number: int, asked: Question) -> quiz_question:
        made = quiz_question("", number=number, ids=[f"quiz-{asked.id}"])
        shown = nodes.strong("", f"{number}.")
        made += nodes.paragraph("", "", shown, nodes.Text(" "), *self.inline(asked.asks))
        for letter, answer in asked.choices():
            one = quiz_answer("", letter=letter, verdict=answer.verdict, is_right=answer.is_right)
            one += quiz_says("", "", *self.inline(answer.says))
            # A reader's time is counted without what is folded away, as in a solution.
            one += quiz_because("", "", *self.inline(answer.because), classes=["solution"])
            made += one
        return made


def plain(made: quiz) -> list[nodes.Node]:
    """The same in nodes that every format knows: the questions, then the reasons."""
    title, _, *asked = made.children
    listed, reasons = [], []
    for question in asked:
        assert isinstance(question, quiz_question)
        words, *answers = question.children
        choices = nodes.enumerated_list(enumtype="upperalpha", prefix="", suffix=".")
        because = nodes.enumerated_list(enumtype="upperalpha", prefix="", suffix=".")
        for answer in answers:
            assert isinstance(answer, quiz_answer)
            says, reason = answer.children
            choices += nodes.list_item("", nodes.paragraph("", "", *says.children))
            verdict = nodes.strong("", answer["verdict"])
            because += nodes.list_item(
                "", nodes.paragraph("", "", verdict, nodes.Text(" "), *reason.children)
            )
        listed += [words, choices]
        reasons += [
            nodes.paragraph("", "", nodes.strong("", f"{ANSWERS} to {question['number']}")),
            because,
        ]
    return [title, *listed, *reasons]


def fall_back(app: Any, doctree: nodes.document, docname: str) -> None:
    """Only HTML has folds."""
    if app.builder.format == "html":
        return
    for made in list(doctree.findall(quiz)):
        made.replace_self(plain(made))


def open_quiz(translator: Any, node: quiz) -> None:
    translator.body.append(
        translator.starttag(node, "section", CLASS="fldp-quiz", **{"aria-label": TITLE})
    )


def close_quiz(translator: Any, node: quiz) -> None:
    translator.body.append("</section>\n")


def open_question(translator: Any, node: quiz_question) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="fldp-question"))


def close_question(translator: Any, node: quiz_question) -> None:
    translator.body.append("</div>\n")


def open_answer(translator: Any, node: quiz_answer) -> None:
    kind = "fldp-right" if node["is_right"] else "fldp-wrong"
    translator.body.append(translator.starttag(node, "details", CLASS=kind))


def close_answer(translator: Any, node: quiz_answer) -> None:
    translator.body.append("</details>\n")


def open_says(translator: Any, node: quiz_says) -> None:
    letter = node.parent["letter"]
    translator.body.append(f'<summary><span class="fldp-letter">{letter}.</span> <span>')


def close_says(translator: Any, node: quiz_says) -> None:
    translator.body.append("</span></summary>\n")


def open_because(translator: Any, node: quiz_because) -> None:
    translator.body.append(f"<p><strong>{node.parent['verdict']}</strong> ")


def close_because(translator: Any, node: quiz_because) -> None:
    translator.body.append("</p>\n")


def setup(app: Any) -> dict[str, bool]:
    app.add_node(quiz, html=(open_quiz, close_quiz))
    app.add_node(quiz_question, html=(open_question, close_question))
    app.add_node(quiz_answer, html=(open_answer, close_answer))
    app.add_node(quiz_says, html=(open_says, close_says))
    app.add_node(quiz_because, html=(open_because, close_because))
    app.add_directive("quiz", Quiz)
    app.connect("doctree-resolved", fall_back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
