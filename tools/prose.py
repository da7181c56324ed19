"""What a chapter's text says, measured: sentences, questions to the reader, typed numbers.

Headings, tables, code and formulas are no sentences; a formula or a piece of code inside a sentence
counts as one word, as it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

import myst

# A sentence of so many words or fewer is short.
SHORT = 6
WORD = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")
# The end of a sentence: a mark, perhaps closed by a quotation or a bracket, before a capital, a
# number, an opening mark or what stands for a formula, code or a reference.
CLOSED = r"[\"”')\]]*"
END = re.compile(
    rf"[.?!]{CLOSED}\s+(?=[\"“‘'(\[]*(?:[A-ZΑ-Ω\d]|[ivx]+\)|x\b|code\b|reference\b|number\b))"
)
# No sentence ends here.
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|al|Fig|Eq|No|[A-Z])|^\d+|^\([ivx]+\))\.$")
# A paragraph that asks for an answer before the cell that gives it.
ASKED = re.compile(
    r"\bwrite (?:\w+ ){0,3}down\b|\bbefore (?:you (?:run|read on)|the (?:next )?cell)\b"
    r"|(?:^|[.?!:]\s+)(?:guess|predict|what do you expect)\b",
    re.IGNORECASE,
)
# An integer that claims a measurement, in words that only a measurement takes.
CLAIMED = re.compile(r"(?<![\w.,])(\d+)(?= ?%| percent\b| times (?:as|its|the)\b| in a hundred\b)")
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
# Inline tokens in these are no sentences.
ASIDE = ("heading_open", "th_open", "td_open")


def blocks(source: str) -> Iterator[str]:
    """Every paragraph and list item of a text, those inside directives too."""
    found = myst.tokens(source)
    for before, token in pairwise((None, *found)):
        assert token is not None
        part = myst.directive(token)
        if part is not None:
            if part.name not in myst.VERBATIM:
                yield from blocks(part.body)
        elif token.type == "inline" and (before is None or before.type not in ASIDE):
            yield " ".join(myst.said(token).split())


def sentences(source: str) -> Iterator[str]:
    """Every sentence of a text; words that no mark ends are none."""
    for block in blocks(source):
        start = 0
        for end in [match.end() for match in END.finditer(block)] + [len(block)]:
            whole = block[start:end].strip()
            if ABBREVIATION.search(whole) and end < len(block):
                continue
            start = end
            if whole.rstrip("\"”')]*").endswith((".", "?", "!", ":")):
                yield whole


def words(text: str) -> int:
    return len(WORD.findall(text))


def short_share(texts: Iterable[str]) -> float:
    """The share of short sentences, in percent."""
    lengths = [words(sentence) for text in texts for sentence in sentences(text)]
    lengths = [length for length in lengths if length > 0]
    if not lengths:
        return 0.0
    return 100 * sum(length <= SHORT for length in lengths) / len(lengths)


def questions(texts: Iterable[str]) -> int:
    """How many paragraphs ask for an answer that the reader is to write down first."""
    return sum(bool(ASKED.search(block)) for text in texts for block in blocks(text))


def unbound(said: str, known: str) -> Iterator[str]:
    """Claimed integers that no number in code or outputs rounds to, as it is or in percent."""
    values = [float(number.replace(",", "")) for number in NUMBER.findall(known)]
    rounded = {round(value) for value in values} | {round(100 * value) for value in values}
    for number in CLAIMED.findall(said):
        if int(number) not in rounded:
            yield number


def torn(source: str) -> list[str]:
    """Lines that Markdown takes for items of a list in the middle of a sentence or a formula.

    A line that begins with a number and a full stop, or with a sign and a blank, begins a list.

    Parameters
    ----------
    source : str
        The text of a cell or of a page.

    Returns
    -------
    list of str
    """
    lines = source.split("\n")
    found = []
    inside = -1  # the line at which the list ends that we are in
    for token in myst.tokens(source):
        part = myst.directive(token)
        if part is not None and part.name not in myst.VERBATIM:
            found += torn(part.body)
        if token.type not in ("bullet_list_open", "ordered_list_open") or token.map is None:
            continue
        first, last = token.map
        before = lines[first - 1].rstrip() if first else ""
        # A sentence may announce a list by a colon, and one list may follow another.
        if before and first > inside and not before.endswith(":"):
            found.append(lines[first])
        inside = max(inside, last)
    return found
