"""The reference names everything public, once, and its docstrings come out as they are meant."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import api_reference
import pytest
import yaml
from explained import CHAPTERS, EXPLAINED
from numpydoc.docscrape import NumpyDocString

import fldp
from fldp.cli import _parser

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((ROOT / "book").glob("api-*.md"))
SITE = ROOT / "_build" / "html" / "book"
# What fits into a box of the pages without scrolling; fldp.css says how large its letters are.
LONGEST = 82
ENTRY = re.compile(
    r"^\.\. (?:auto(function|class|exception)|py:(data)):: ([\w.]+)$"
    r"(?:\n   :members:(.*)$)?(?:\n   :exclude-members: (.*)$)?",
    re.MULTILINE,
)
SECTIONS = ("Parameters", "Returns", "Yields", "Raises", "Notes", "Attributes", "Extended Summary")


@dataclass(frozen=True)
class Entry:
    """A name on a page of the reference; `members` None: none are shown, "": all are."""

    page: str
    kind: str
    name: str
    members: str | None
    left_out: str

    def shown(self) -> Iterator[tuple[str, Any]]:
        """The members that are shown beside it: functions, and what properties call."""
        if self.members is None:
            return
        value = found(self.name)
        own = [name for name in vars(value) if not name.startswith("_")]
        named = [name.strip() for name in self.members.split(",") if name.strip()]
        for name in named or own:
            member = inspect.getattr_static(value, name, None)
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(member, FunctionType) and name not in self.left_out:
                yield f"{self.name}.{name}", member


def entries() -> list[Entry]:
    return [
        Entry(path.stem, kind or data, name, members, left_out)
        for path in PAGES
        for kind, data, name, members, left_out in read(path)
    ]


def read(path: Path) -> Iterator[tuple[str, str, str, str | None, str]]:
    for match in ENTRY.finditer(path.read_text(encoding="utf-8")):
        yield match[1] or "", match[2] or "", match[3], match[4], match[5] or ""


@cache
def found(name: str) -> Any:
    """What a full name stands for."""
    owner, _, last = name.rpartition(".")
    place: Any = fldp
    for part in owner.split(".")[1:]:
        try:
            place = getattr(place, part)
        except AttributeError:
            place = api_reference.imported(f"{place.__name__}.{part}")
    return getattr(place, last)


ENTRIES = entries()
DOCUMENTED = [entry for entry in ENTRIES if entry.kind != "data"]
CALLABLE = [entry for entry in DOCUMENTED if entry.kind != "exception"]


def is_listed(name: str) -> bool:
    """Whether a name is on a page, under this or another path to the same thing."""
    if any(entry.name == name for entry in ENTRIES):
        return True
    value = found(name)
    return callable(value) and any(found(entry.name) is value for entry in DOCUMENTED)


def faults(name: str, call: Any) -> list[str]:
    """What a docstring of the reference lacks, or what would not come out as it is meant."""
    text = inspect.getdoc(call) or ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            parsed = NumpyDocString(text)
        except (UserWarning, ValueError) as error:
            return [f"{name}: {error}"]
    wrong = [] if " ".join(parsed["Summary"]).strip() else ["it has no summary"]
    for section in SECTIONS:
        if ">>>" in str(parsed[section]):
            wrong.append(f"an example stands under {section}")
    for line in text.splitlines():
        if line.lstrip().startswith((">>>", "...")) and len(line.strip()) > LONGEST:
            wrong.append(f"a line of {len(line.strip())} characters: {line.strip()}")
    told = {
        one.strip("* ")
        for listed in (*parsed["Parameters"], *parsed["Attributes"])
        for one in listed.name.split(",")
    }
    wrong += [f"{one} is not documented" for one in arguments(call) if one not in told]
    returned = inspect.signature(call).return_annotation if inspect.isfunction(call) else "None"
    silent = not parsed["Returns"] and not parsed["Yields"]
    if arguments(call) and silent and str(returned) not in ("None", "<class 'inspect._empty'>"):
        wrong.append(f"it does not say what it returns: {returned}")
    return [f"{name}: {one}" for one in wrong]


def arguments(call: Any) -> list[str]:
    """What can be given to it by name."""
    try:
        asked = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return []
    if isinstance(call, type) and getattr(call, "_is_protocol", False):
        return []
    # What has no name for a caller is a list's own.
    named = [name for name, p in asked.items() if p.kind is not p.POSITIONAL_ONLY]
    return [name for name in named if name not in ("self", "cls")]


def test_no_name_stands_twice() -> None:
    named = Counter(entry.name for entry in ENTRIES)
    assert [name for name, times in named.items() if times > 1] == []
    values = Counter(id(found(entry.name)) for entry in CALLABLE)
    assert [e.name for e in CALLABLE if values[id(found(e.name))] > 1] == []


def public() -> Iterator[str]:
    """The names on the package's face, and on those of the modules that it names."""
    modules = [name for name in fldp.__all__ if isinstance(getattr(fldp, name), ModuleType)]
    for path in ("fldp", *(f"fldp.{name}" for name in modules)):
        for name in (fldp if path == "fldp" else found(path)).__all__:
            full = f"{path}.{name}"
            if name != "__version__" and not isinstance(found(full), ModuleType):
                yield full


def test_everything_public_is_in_the_reference() -> None:
    assert [name for name in public() if not is_listed(name)] == []


def test_what_a_public_name_returns_is_in_the_reference() -> None:
    classes: dict[str, type] = {}
    for module in pkgutil.walk_packages(fldp.__path__, "fldp."):
        # Flower is in another environment.
        if module.name != "fldp.__main__" and not module.name.startswith("fldp.flower"):
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            classes |= {name: c for name, c in members if c.__module__ == module.name}
    listed = {found(entry.name) for entry in CALLABLE if entry.kind == "class"}
    for entry in CALLABLE:
        for name, call in ((entry.name, found(entry.name)), *entry.shown()):
            if not inspect.isfunction(call):
                continue
            for word in re.findall(r"[A-Z]\w+", str(inspect.signature(call).return_annotation)):
                assert word not in classes or classes[word] in listed | INNER, f"{name}: {word}"


# Made and used inside the package: a round's sum; and a list that prints as a table.
INNER = {found("fldp.mechanism.summation.Sum"), found("fldp._text.Rows")}


def test_what_the_book_calls_is_in_the_reference() -> None:
    sources = [*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md"), ROOT / "README.md"]
    sources += (ROOT / "examples").rglob("*.py")
    used = {
        name
        for path in sources
        for name in re.findall(r"\bfldp(?:\.[a-z_]+)*\.[A-Za-z]\w+", path.read_text("utf-8"))
    }
    missing = []
    for name in sorted(used):
        try:
            value = found(name)
        except (AttributeError, ImportError):
            # A file, a data set of the examples, or a method of a class.
            continue
        if callable(value) and getattr(value, "__qualname__", "").count(".") == 0:
            missing += [] if is_listed(name) else [name]
    assert missing == []


@pytest.mark.parametrize("entry", DOCUMENTED, ids=lambda entry: entry.name)
def test_a_docstring_comes_out_as_it_is_meant(entry: Entry) -> None:
    assert faults(entry.name, found(entry.name)) == []
    for name, member in entry.shown():
        assert faults(name, member) == []


@pytest.mark.parametrize("entry", CALLABLE, ids=lambda entry: entry.name)
def test_every_entry_has_an_example(entry: Entry) -> None:
    assert NumpyDocString(inspect.getdoc(found(entry.name)))["Examples"]


def test_faults_of_a_docstring_are_seen() -> None:
    def call(one: int, two: int) -> int:
        """Do it.

        Parameters
        ----------
        one : int
            A number.

        >>> call(1, 2)
        3
        """
        return one + two

    wrong = " ".join(faults("call", call))
    assert "two is not documented" in wrong
    assert "an example stands under Parameters" in wrong
    assert "does not say what it returns" in wrong


def test_a_line_that_is_too_long_is_seen() -> None:
    def call() -> None:
        pass

    call.__doc__ = f"Do it.\n\nExamples\n--------\n>>> {'x' * LONGEST}\n"
    assert "a line of 86 characters" in faults("call", call)[0]
    call.__doc__ = "Do it.\n\nParameter\n---------\nExamples\n--------\n\nExamples\n--------\n"
    assert faults("call", call)


# What the entries link to.


def test_a_name_is_explained_where_its_chapter_says_it() -> None:
    named = {entry.name for entry in ENTRIES}
    for name, chapter in EXPLAINED.items():
        assert name in named, name
        text = (ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8")
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", text), f"{chapter} has no {name}"
    assert len(EXPLAINED) == sum(len(names.split()) for names in CHAPTERS.values())


def test_a_source_is_linked_at_the_release() -> None:
    sources = api_reference.Sources("https://example.org/fldp")
    address = sources("py", {"module": "fldp", "fullname": "PrivacyPlan.denominator"})
    match = re.fullmatch(r"https://example.org/fldp/blob/v([\d.]+)/(\S+)#L(\d+)-L\d+", address)
    assert match is not None
    assert match[1] == fldp.__version__
    lines = (ROOT / match[2]).read_text(encoding="utf-8").splitlines()
    assert "def denominator" in "".join(lines[int(match[3]) - 1 : int(match[3]) + 1])
    assert sources("py", {"module": "fldp.plotting", "fullname": "WIDTH"}) is None
    assert sources("py", {"module": "json", "fullname": "dumps"}) is None


def test_the_commands_are_those_of_the_program() -> None:
    text = (ROOT / "book" / "api-tools.md").read_text(encoding="utf-8")
    named = re.search(r"^```\{command-line\} (.+)$", text, re.MULTILINE)[1].split()
    assert named == [*_parser()._subparsers._group_actions[0].choices]


def test_a_long_signature_is_no_list_of_definitions() -> None:
    written = '<span class="sig-paren">(</span>\n\n<dl>\n<dd><em>a</em>, </dd>\n</dl>\n\n<span>)'
    mended = api_reference.PARAMETERS.sub(api_reference.as_lines, written)
    assert re.sub(r"\s+", " ", mended) == (
        '<span class="sig-paren">(</span> '
        '<div class="fldp-params"> <div><em>a</em>, </div> </div> <span>)'
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["calibrate"], ["report"]])
def test_the_help_fits_the_page(words: list[str]) -> None:
    lines = api_reference.helped(words).splitlines()
    assert lines[0].startswith("usage: fldp")
    assert max(map(len, lines)) <= api_reference.COLUMNS + 2


def test_a_class_built_on_what_is_not_here_is_shown_as_it_is_called() -> None:
    value = found("fldp.flower.Private")
    shown = api_reference.as_called(None, "class", "fldp.flower.Private", value, None, "", "")
    assert shown is not None
    assert shown[0].startswith("(strategy: ")
    assert "ledger: " in shown[0]
    plain = ("class", "fldp.PrivacyPlan", found("fldp.PrivacyPlan"), None, "", "")
    assert api_reference.as_called(None, *plain) is None


def test_what_the_reference_does_without_is_named_once() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["sphinx"]["config"]["autodoc_mock_imports"] == api_reference.ABSENT


# The built pages.

built = pytest.mark.skipif(
    not (SITE / "api-plan.html").exists(), reason="the book is not built: make book"
)


@built
@pytest.mark.slow
def test_the_pages_show_what_is_meant() -> None:
    for path in PAGES:
        text = (SITE / f"{path.stem}.html").read_text(encoding="utf-8")
        for entry in (entry for entry in DOCUMENTED if entry.page == path.stem):
            assert f'id="{entry.name}"' in text, entry.name
        for fields in re.findall(r'<dl class="field-list.*?</dl>', text, re.S):
            assert "&gt;&gt;&gt;" not in fields, path.name
        assert f"/blob/v{fldp.__version__}/fldp/" in text
    table = (SITE / "api.html").read_text(encoding="utf-8")
    assert [entry.name for entry in ENTRIES if f"#{entry.name}" not in table] == []
