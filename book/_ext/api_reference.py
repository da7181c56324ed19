"""What the API reference adds to the docstrings: sources, chapters, a table of names, the commands.

The pages `book/api-*.md` name what is public; everything else is read from the package.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fldp
from docutils import nodes
from sphinx import addnodes
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

from explained import EXPLAINED
from plain_text import line

ROOT = Path(fldp.__file__).resolve().parent.parent
# Packages that the book's environment lacks; `autodoc_mock_imports` in _config.yml says the same.
ABSENT = ["flwr"]
# Characters in a line of the commands' help: as many as fit into a box of the book.
COLUMNS = 82
# The parameters of a long signature, which Sphinx writes as a list of definitions without terms.
PARAMETERS = re.compile(r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', re.DOTALL)


def imported(module: str) -> Any:
    """A module of the package, also where what it is built on is in another environment."""
    with mock(ABSENT):
        return importlib.import_module(module)


def found(module: str, name: str) -> Any:
    """What `name`, which may hold dots, stands for in a module; None if there is no such thing."""
    value: Any = imported(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def lines_of(value: Any) -> tuple[Path, int, int] | None:
    """File, first and last line of a function, a class or a property of the package."""
    plain = getattr(value, "fget", None) or getattr(value, "__func__", value)
    plain = inspect.unwrap(plain) if callable(plain) else plain
    try:
        path = Path(inspect.getsourcefile(plain) or "").resolve()
        source, first = inspect.getsourcelines(plain)
    except (OSError, TypeError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    return path.relative_to(ROOT), first, first + len(source) - 1


class Sources:
    """From what a signature names to its lines in the repository, at the version's tag."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def __call__(self, domain: str, info: dict[str, str]) -> str | None:
        place = None
        if domain == "py" and info["module"].partition(".")[0] == fldp.__name__:
            place = lines_of(found(info["module"], info["fullname"]))
        if place is None:
            return None
        path, first, last = place
        file = quote(path.as_posix())
        return f"{self.repository}/blob/v{fldp.__version__}/{file}#L{first}-L{last}"


def know_sources(app: Any, config: Any) -> None:
    config.linkcode_resolve = Sources(str(config.html_theme_options["repository_url"]))


def as_called(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """How a class is made whose base is in another environment, which its stand-in would hide."""
    bases = [base.__module__.partition(".")[0] for base in getattr(obj, "__mro__", ())]
    if what != "class" or not set(ABSENT) & set(bases):
        return None
    own = signature_of(obj.__init__, bound_method=True)
    return stringify_signature(own, show_return_annotation=False, unqualified_typehints=True), ""


def add_chapter(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Below the docstring of a public name, the chapter that explains it."""
    chapter = EXPLAINED.get(name)
    if chapter is not None:
        lines += ["", f"**Explained in** :doc:`/book/{chapter}`.", ""]


class Names(SphinxDirective):
    """``{api-names} page``: what that page of the reference has, a line each."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = self.env.docname.rpartition("/")[0]
        page = f"{folder}/{self.arguments[0]}".lstrip("/")
        holder = nodes.container(classes=["fldp-names"])
        holder["fldp_page"] = page
        return [holder]


def entries(doctree: nodes.document) -> list[tuple[str, str, str]]:
    """Name, id and first sentence of what a page describes, in its order; no members."""
    listed = []
    for described in doctree.findall(addnodes.desc):
        signature = described.next_node(addnodes.desc_signature)
        if isinstance(described.parent, addnodes.desc_content) or signature is None:
            continue
        name = f"{signature['module']}.{signature['fullname']}"
        first = described.next_node(nodes.paragraph)
        listed.append((name, signature["ids"][0], "" if first is None else line(first)))
    return listed


def row(*cells: nodes.Node) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def fill_names(app: Any, doctree: nodes.document, docname: str) -> None:
    for holder in list(doctree.findall(nodes.container)):
        page = holder.get("fldp_page")
        if page is None:
            continue
        body = nodes.tbody()
        for name, anchor, words in entries(app.env.get_doctree(page)):
            where = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
            link = nodes.reference("", "", nodes.literal("", name), internal=True, refuri=where)
            body += row(link, nodes.Text(words))
        group = nodes.tgroup("", cols=2)
        group += [nodes.colspec(colwidth=40), nodes.colspec(colwidth=60)]
        group += nodes.thead("", row(nodes.Text("Name"), nodes.Text("What it is")))
        group += body
        holder += nodes.table("", group, classes=["colwidths-auto"])


class CommandLine(SphinxDirective):
    """``{command-line} name ...``: what `fldp --help` says, and each command's own help."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        blocks: list[nodes.Node] = []
        named = self.arguments[0].split() if self.arguments else []
        for words in [[], *([name] for name in named)]:
            asked = " ".join(["fldp", *words, "--help"])
            text = f"$ {asked}\n{helped(words)}"
            blocks.append(nodes.literal_block(text, text, language="text"))
        return [nodes.container("", *blocks, classes=["fldp-help"])]


def helped(words: list[str]) -> str:
    """What the program prints about itself, or about a command."""
    command = [sys.executable, "-m", "fldp", *words, "--help"]
    surroundings = os.environ | {"COLUMNS": str(COLUMNS), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


def as_lines(match: re.Match[str]) -> str:
    """The parameters of a signature as plain lines."""
    lines = match[2].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'{match[1]}<div class="fldp-params">{lines}</div>'


def mend(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    if context.get("body"):
        context["body"] = PARAMETERS.sub(as_lines, context["body"])


def setup(app: Any) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.linkcode")
    app.add_directive("api-names", Names)
    app.add_directive("command-line", CommandLine)
    # After the theme's options are known; the docstring is ours once its sections are read.
    app.connect("config-inited", know_sources, priority=900)
    app.connect("autodoc-process-signature", as_called)
    app.connect("autodoc-process-docstring", add_chapter, priority=900)
    app.connect("doctree-resolved", fill_names)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
