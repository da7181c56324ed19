"""The course's pages: every chapter and assignment in its place, sums that add up, whole links."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import chapters
import myst
import numbering
import pytest
import twins
import yaml

HERE = Path(__file__).resolve().parent.parent.parent
PAGES = ("teaching", "course-set-up", "assessment", "slides")
WRITTEN = {chapter.slug: chapter for chapter in chapters.chapters(HERE)}
ASSIGNMENTS = HERE / "assignments"
TITLES = (
    "Clip and noise",
    "Calibrate and account",
    "Break the recipe",
    "Train privately",
    "Design a deployment",
)
# What the page reckons for a chapter at home.
MINUTES_A_CHAPTER = 120
HOURS = re.compile(r"(\d+) h (\d\d)")
TIME = re.compile(r"about (\d+) minutes")
engine = pytest.mark.skipif(
    importlib.util.find_spec("course") is None, reason="the course's engine is not here"
)


def page(name: str) -> str:
    return (HERE / "book" / f"{name}.md").read_text(encoding="utf-8")


def table(name: str, label: str) -> list[list[str]]:
    """The cells of the first table after a label, without its head."""
    lines = page(name).partition(f"({label})=")[2].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    start = lines.index(rows[0])
    whole = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        whole.append([cell.strip() for cell in line.strip("|").split("|")])
    return whole[2:]


def slugs(text: str) -> list[str]:
    return [role.target for role in myst.roles(text) if role.name == "doc"]


def italics(text: str) -> list[str]:
    return re.findall(r"\*([^*]+)\*", text)


@dataclass(frozen=True)
class Week:
    """A row of a plan."""

    chapters: list[str]
    out: list[str]
    due: list[str]
    minutes: int


def weeks(label: str) -> list[Week]:
    found = []
    for _, _, taught, out, due, home in table("teaching", label):
        hours = HOURS.fullmatch(home)
        assert hours is not None, home
        minutes = 60 * int(hours[1]) + int(hours[2])
        found.append(Week(slugs(taught), italics(out), italics(due), minutes))
    return found


@dataclass(frozen=True)
class Share:
    """What the page says of an assignment."""

    minutes: int
    checks: float
    person: float
    percent: float


def shares() -> dict[str, Share]:
    found = {}
    for part, minutes, checks, person, percent in table("teaching", "course-points"):
        name = part.strip("*")
        number = float(percent.removesuffix(" %"))
        found[name] = Share(int(minutes or 0), float(checks or 0), float(person or 0), number)
    return found


PLANS = ("course-six-weeks", "course-four-weeks")


def folder(title: str) -> Path:
    return ASSIGNMENTS / title.lower().replace(" ", "-")


HERE_NOW = [title for title in TITLES if (folder(title) / "master.ipynb").exists()]


def opening(title: str) -> str:
    """What an assignment says at its beginning."""
    cells = json.loads((folder(title) / "master.ipynb").read_text(encoding="utf-8"))["cells"]
    return myst.source_of(cells[0])


def test_six_weeks_hold_every_chapter_once_and_every_assignment() -> None:
    plan = weeks("course-six-weeks")
    taught = [slug for week in plan for slug in week.chapters]
    assert sorted(taught) == sorted(WRITTEN)
    assert sorted(title for week in plan for title in week.out) == sorted(TITLES)


def test_four_weeks_name_what_they_leave_out() -> None:
    taught = [slug for week in weeks("course-four-weeks") for slug in week.chapters]
    section = page("teaching").partition("(course-four-weeks)=")[2].partition("| week")[0]
    assert sorted([*taught, *slugs(section)]) == sorted(WRITTEN)
    out = [title for week in weeks("course-four-weeks") for title in week.out]
    assert sorted([*out, *(title for title in italics(section))]) == sorted(TITLES)


@pytest.mark.parametrize("label", PLANS)
def test_nothing_is_taught_before_what_it_builds_on(label: str) -> None:
    known: set[str] = set()
    for week in weeks(label):
        known |= set(week.chapters)
        for slug in week.chapters:
            assert set(WRITTEN[slug].needs()) <= known, slug


@pytest.mark.parametrize("label", PLANS)
def test_what_is_handed_out_comes_due_later(label: str) -> None:
    plan = weeks(label)
    out = {title: number for number, week in enumerate(plan) for title in week.out}
    due = {title: number for number, week in enumerate(plan) for title in week.due}
    assert out.keys() == due.keys()
    assert all(out[title] < due[title] for title in out)


@pytest.mark.parametrize("label", PLANS)
def test_the_hours_at_home_add_up(label: str) -> None:
    told = shares()
    for number, week in enumerate(weeks(label), 1):
        due = sum(told[title].minutes for title in week.due)
        assert week.minutes == MINUTES_A_CHAPTER * len(week.chapters) + due, f"week {number}"


def test_the_shares_of_the_grade_add_up() -> None:
    told = shares()
    assert sum(share.percent for share in told.values()) == 100
    assert set(told) == {*TITLES, "the quizzes"}


def test_the_outcomes_hold_every_chapter_once_and_every_assignment() -> None:
    rows = table("teaching", "course-outcomes")
    assert sorted(slug for row in rows for slug in slugs(row[1])) == sorted(WRITTEN)
    assert {title for row in rows for title in italics(row[2])} == set(TITLES)


@engine
@pytest.mark.parametrize("title", HERE_NOW)
def test_points_and_minutes_are_those_of_the_assignment(title: str) -> None:
    from course import checks, rubric

    told = shares()[title]
    assignment = checks.load(folder(title).name)
    assert told.checks == assignment.points()
    assert told.person == sum(one.points for one in rubric.load(assignment))
    minutes = TIME.search(opening(title))
    if minutes is not None:
        assert told.minutes == int(minutes[1])


@pytest.mark.parametrize("label", PLANS)
@pytest.mark.parametrize("title", HERE_NOW)
def test_an_assignment_comes_due_when_what_it_needs_was_taught(title: str, label: str) -> None:
    plan = weeks(label)
    due = next((number for number, week in enumerate(plan) if title in week.due), None)
    if due is None:
        pytest.skip("not in this plan")
    text = " ".join(opening(title).split()).partition("You need**")[2].partition("**It ")[0]
    named = {slug for slug, one in WRITTEN.items() if one.title() in text} | set(slugs(text))
    assert named, "it names no chapter"
    taught = {slug for week in plan[: due + 1] for slug in week.chapters}
    assert named <= taught


@engine
@pytest.mark.slow
def test_the_worked_run_has_the_marks_of_the_twenty() -> None:
    from course import hostile

    rows = table("assessment", "assessment-run")
    cases = hostile.cases()
    assert [int(number) for number, *_ in rows] == list(range(1, len(cases) + 1))
    assert [float(mark) for _, _, mark, _ in rows] == [case.mark for case in cases]


@pytest.mark.slow
def test_the_pages_are_the_part_course_and_their_links_lead_somewhere() -> None:
    toc = yaml.safe_load((HERE / "_toc.yml").read_text(encoding="utf-8"))
    part = next(part for part in toc["parts"] if part["caption"] == "Course")
    assert [entry["file"] for entry in part["chapters"]] == [f"book/{name}" for name in PAGES]
    assert "numbered" not in part
    titles = twins.the_book().titles
    for name in PAGES:
        for role in myst.roles(page(name)):
            if role.name == "doc":
                assert role.target in titles, role


def test_every_make_target_that_a_page_names_is_there() -> None:
    makefile = (HERE / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    called = re.compile(r"(?:`|^)make ([a-z-]+)", re.M)
    named = {target for name in PAGES for target in called.findall(page(name))}
    assert named <= targets


# The link for a hub.


def hub_link(*values: str) -> str:
    """What the page's own function makes of four fields."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    text = page("course-set-up")
    start = text.index("  function hubLink")
    function = text[start : text.index("  var form", start)]
    call = f"{function}\nconsole.log(hubLink(...{json.dumps(values)}));"
    done = subprocess.run([node, "-e", call], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_hub_link_says_what_was_filled_in() -> None:
    made = hub_link("https://h.edu/", "https://g.com/a/kurs 1.git", "main & more", "week 1/é.ipynb")
    address = urlsplit(made)
    assert address.path == "/hub/user-redirect/git-pull"
    assert parse_qs(address.query, strict_parsing=True) == {
        "repo": ["https://g.com/a/kurs 1.git"],
        "branch": ["main & more"],
        "urlpath": ["lab/tree/kurs%201/week%201/%C3%A9.ipynb"],
    }


def test_the_hub_link_without_a_notebook_opens_the_folder() -> None:
    made = hub_link("https://h.edu", "https://g.com/a/b/", "main", "")
    assert parse_qs(urlsplit(made).query)["urlpath"] == ["lab/tree/b"]


# The slides.


@pytest.fixture(scope="module")
def some() -> Any:
    import slides

    return [
        slides.Deck(HERE / "book" / f"{slug}.ipynb")
        for slug in ("the-gaussian-mechanism", "quickstart")
    ]


@pytest.mark.slow
def test_a_deck_has_what_its_chapter_asks_shows_and_proves(some: Any) -> None:
    made = list(some[0].slides())
    kinds = [slide.kind for slide in made]
    cells = numbering.cells_of(HERE / "book" / "the-gaussian-mechanism.ipynb")
    text = "\n\n".join(myst.markdown(cells))
    found = [part.name for part in myst.directives(text)]
    drawn = sum(
        "figure" in c["metadata"].get("mystnb", {}) for c in cells if c["cell_type"] == "code"
    )
    boxes = ("definition", "theorem", "lemma", "proposition", "corollary")
    assert kinds.count("figure") == drawn + found.count("figure")
    assert kinds.count("box") == sum(found.count(f"prf:{name}") for name in boxes)
    assert (kinds[0], kinds.count("summary"), kinds.count("quiz")) == ("title", 1, 3)
    assert kinds.count("question") == 2
    boxed = [slide for slide in made if slide.kind == "box"]
    assert all("In plain words" in slide.body for slide in boxed)
    assert any("Definition 4.1" in slide.title for slide in boxed)


def test_a_deck_loads_nothing_and_says_what_its_figures_show() -> None:
    import slides

    text = slides.deck(HERE / "book" / "quickstart.ipynb")
    assert not re.search(r'(?:src|href)="(?!data:|https?://|#)', text)
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="http', text)
    for image in re.findall(r"<img[^>]*>", text):
        assert re.search(r'alt="[^"]{20,}"', image)
    for left in ("{{", "{glue", "{doc}", "{numref}", "{term}", "$"):
        assert left not in re.sub(r"data:[^\"]*", "", text), left


def test_notes_are_the_paragraphs_beside_a_figure(some: Any) -> None:
    figure = next(slide for slide in some[1].slides() if "What privacy costs" in slide.body)
    assert "Without privacy, 0.95 of the test images are read." in " ".join(figure.notes.split())


@pytest.mark.slow
def test_every_chapter_has_a_deck(tmp_path: Path) -> None:
    import slides

    assert slides.main(["--folder", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.html")} >= set(WRITTEN)
    with pytest.raises(SystemExit):
        slides.main(["no-such-chapter"])
