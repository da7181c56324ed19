"""Write the version of every notebook that is read alone: ``python tools/colab.py [--check]``.

The chapters are MyST: boxes, cross-references and citations are directives and roles, which only
the book renders. Here each becomes plain Markdown, so that a notebook opened in Colab or JupyterLab
shows no raw directive. Code cells are copied unchanged. ``--check`` writes nothing and fails if a
file in ``colab/`` is not what its source gives.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).resolve().parent.parent
BOOK, OUT = HERE / "book", HERE / "colab"
FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:+-]+)\}[ \t]*(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):[ \t]*(?P<value>.*)$")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([\w./-]+?)\.(?:ipynb|md)(#[\w-]+)?\)")
ROLE = re.compile(r"\{(?P<name>[\w:+-]+)\}`(?P<text>[^`]+)`")
TITLES = {
    "prf:definition": "Definition", "prf:theorem": "Theorem", "prf:lemma": "Lemma",
    "prf:proposition": "Proposition", "prf:corollary": "Corollary", "prf:algorithm": "Algorithm",
    "prf:example": "Example", "prf:remark": "Remark", "prf:proof": "Proof", "exercise": "Exercise",
    "exercise-start": "Exercise", "solution": "Solution", "solution-start": "Solution",
    "note": "Note", "tip": "Tip", "warning": "Warning", "caution": "Caution",
    "important": "Note", "seealso": "See also", "hint": "Hint", "danger": "Danger",
}  # fmt: skip
DROPPED = {"solution-end", "exercise-end", "bibliography", "tableofcontents", "raw"}


def site() -> str:
    """The address of the published book, from the package's metadata."""
    metadata = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    return str(metadata["project"]["urls"]["Documentation"]).rstrip("/")


def bibliography() -> dict[str, tuple[str, str]]:
    """Key of each entry in the .bib file -> its (authors, year) in short."""
    entries = {}
    text = (BOOK / "references.bib").read_text(encoding="utf-8")
    for match in re.finditer(r"@\w+\{([^,\s]+),(.*?)\n\}", text, re.S):
        fields = {
            name.lower(): value.strip()
            for name, value in re.findall(r"(\w+)\s*=\s*[{\"](.*?)[}\"]\s*,?\s*\n", match[2] + "\n")
        }
        names = [
            re.sub(r"[{}\\'\"]", "", a.split(",")[0] if "," in a else a.split()[-1])
            for a in fields.get("author", match[1]).split(" and ")
        ]
        short = names[0] if len(names) == 1 else " and ".join(names)
        entries[match[1]] = (
            short if len(names) <= 2 else f"{names[0]} et al.",
            re.sub(r"\D", "", fields.get("year", "")),
        )
    return entries


def glued(cells: list[dict[str, Any]]) -> dict[str, str]:
    """Values that the notebook's own stored outputs bind to names."""
    values = {}
    for cell in cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for mime, data in output.get("data", {}).items():
                if name and mime.endswith("text/plain"):
                    values[name] = "".join(data).strip("'\"")
    return values


class Converter:
    """MyST Markdown to plain Markdown, with what one notebook's cells know."""

    def __init__(self, cells: list[dict[str, Any]], labels: dict[str, str]) -> None:
        self.labels, self.glue, self.cited = labels, glued(cells), bibliography()

    def role(self, match: re.Match[str]) -> str:
        name, text = match["name"], match["text"]
        shown, _, target = text.partition(" <")
        target = target.rstrip(">") or shown
        if name == "term":
            return f"*{shown}*"
        if name.startswith("cite"):
            works = [self.cited[key.strip()] for key in text.split(",")]
            if name == "cite:t":
                return "; ".join(f"{authors} ({year})" for authors, year in works)
            return "[" + "; ".join(f"{authors} {year}" for authors, year in works) + "]"
        if name.startswith("glue"):
            key, _, form = text.partition(":")
            value = self.glue[key]
            return format(float(value), form) if form else value
        if name == "eq":
            return f"({target})"
        if name in ("ref", "numref", "prf:ref", "doc"):
            return shown if target != shown else self.labels.get(target, target)
        if name == "index":
            return ""
        return shown

    def inline(self, line: str) -> str:
        line = re.sub(r"^\(([\w:.-]+)\)=$", "", line)
        line = re.sub(r"(\$\$) \(([\w:.-]+)\)$", r"\1", line)
        line = LINK.sub(lambda m: f"]({site()}/book/{Path(m[1]).name}.html{m[2] or ''})", line)
        return ROLE.sub(self.role, line)

    def text(self, source: str) -> str:
        lines, out, position = source.split("\n"), [], 0
        while position < len(lines):
            match = FENCE.match(lines[position])
            if not match:
                out.append(self.inline(lines[position]))
                position += 1
                continue
            fence, body, position = match["fence"], [], position + 1
            while position < len(lines) and lines[position].strip() != fence:
                body.append(lines[position])
                position += 1
            position += 1
            options = {}
            while body and (option := OPTION.match(body[0])):
                options[option["key"]] = option["value"]
                body.pop(0)
            out.append(self.directive(match["name"], match["argument"], options, "\n".join(body)))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")

    def directive(self, name: str, argument: str, options: dict[str, str], body: str) -> str:
        inside, argument = self.text(body).strip("\n"), self.inline(argument)
        if name in DROPPED:
            return ""
        if name == "math":
            return f"$$\n{body.strip()}\n$$"
        if name == "code-block":
            return f"```{argument}\n{body}\n```"
        if name in ("figure", "image"):
            address = (
                argument
                if argument.startswith("http")
                else f"{site()}/_images/{Path(argument).name}"
            )
            return (
                f"![{options.get('alt', '')}]({address})\n\n*{inside}*"
                if inside
                else f"![]({address})"
            )
        if name.startswith("solution"):
            head = "Solution to " + self.labels.get(argument.strip(), "the exercise")
            if name == "solution":
                return f"<details><summary><b>{head}</b></summary>\n\n{inside}\n\n</details>"
            return f"**{head}**\n\n{inside}".rstrip()
        title = TITLES.get(name, "")
        if name in ("admonition", "dropdown", "margin", "topic", "card"):
            title, argument = argument, ""
        elif not title and name not in ("epigraph", "glossary", "div", "grid"):
            raise ValueError(f"tools/colab.py does not know the directive {name!r}: teach it")
        if argument:
            title = f"{title} ({argument.strip('() ')})"
        content = f"**{title}**\n\n{inside}" if title else inside
        return "\n".join(f"> {line}".rstrip() for line in content.split("\n"))


def labels_of(cells: list[dict[str, Any]]) -> dict[str, str]:
    """What a cross-reference to each label of the book may say without numbers."""
    found = {}
    pattern = re.compile(
        r"^[`:]{3,}\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>.*)\n(?::(?!label|name)[\w-]+:.*\n)*"
        r":(?:label|name): *(?P<label>\S+)",
        re.M,
    )
    for cell in cells:
        source = "".join(cell["source"])
        for match in pattern.finditer(source):
            kind = TITLES.get(match["name"], "the figure").lower()
            title = match["title"].strip("() ")
            found[match["label"]] = f"the {kind.removeprefix('the ')}" + (
                f" “{title}”" if title else ""
            )
        for label, heading in re.findall(r"^\(([\w:.-]+)\)=\n#+ (.+)$", source, re.M):
            found[label] = f"“{heading}”"
        figure = cell.get("metadata", {}).get("mystnb", {}).get("figure", {})
        if "name" in figure:
            found[figure["name"]] = "the figure"
    return found


def convert(path: Path, labels: dict[str, str]) -> str:
    """The text of the notebook that stands alone."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    converter = Converter(notebook["cells"], labels)
    address = f"{site()}/book/{path.stem}.html"
    cells: list[dict[str, Any]] = []

    def markdown(identifier: str, text: str) -> None:
        cells.append({"cell_type": "markdown", "id": identifier, "metadata": {},
                      "source": text.splitlines(keepends=True)})  # fmt: skip

    markdown(
        "fldp-origin",
        f"*This notebook is a chapter of a book; read it typeset at [{address}]({address}).*",
    )
    for number, cell in enumerate(notebook["cells"]):
        identifier = cell.get("id", f"cell-{number}")
        if cell["cell_type"] == "markdown":
            text = converter.text("".join(cell["source"]))
            if text:
                markdown(identifier, text)
            continue
        kept = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        cells.append({**cell, "id": identifier, "metadata": kept})
        caption = cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption")
        if caption:
            markdown(f"{identifier}-caption"[:64], f"*Figure. {converter.text(caption)}*")
    notebook["cells"] = cells
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks that are read alone.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    check = parser.parse_args(argv).check
    sources = sorted(BOOK.glob("*.ipynb"))
    labels: dict[str, str] = {}
    for path in sources:
        labels |= labels_of(json.loads(path.read_text(encoding="utf-8"))["cells"])
    stale = []
    OUT.mkdir(exist_ok=True)
    for path in sources:
        text, target = convert(path, labels), OUT / path.name
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                target.write_text(text, encoding="utf-8")
    for orphan in {p.name for p in OUT.glob("*.ipynb")} - {p.name for p in sources}:
        stale.append(orphan)
        if not check:
            (OUT / orphan).unlink()
    print(("Out of date: " if check else "Written: ") + (", ".join(stale) or "nothing"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
