"""Draw the book's drawings: ``python tools/drawings.py [FOLDER]``.

One style with the plots: no background, and ink that reads on a light and on a dark page. A drawing
is as narrow as a phone, so that its text is read there without zooming.
"""

from __future__ import annotations

import argparse
import html
import math
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "book" / "_static"
# Those of fldp.plotting; the ink is a grey with one contrast on white and on the dark page.
BLUE, ORANGE, GREEN, INK = "#2f7fc1", "#c96a12", "#1a8f6a", "#757d87"
WIDTH = 400
TEXT, SMALL = 15, 13.5
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
# Half the angle and the length of an arrow's head.
HEAD_ANGLE, HEAD = 0.42, 9.0


def text(x: float, y: float, words: str, **look: object) -> str:
    """A line of words; `anchor`, `fill`, `size` and `weight` as in SVG."""
    anchor, fill = look.get("anchor", "middle"), look.get("fill", INK)
    size, weight = look.get("size", TEXT), look.get("weight", 500)
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" '
        f'font-size="{size}" font-weight="{weight}">{html.escape(words)}</text>'
    )


def line(x: float, y: float, u: float, v: float, colour: str = INK, **look: object) -> str:
    dash = f' stroke-dasharray="{look["dash"]}"' if "dash" in look else ""
    return (
        f'<path d="M{x:.1f} {y:.1f} L{u:.1f} {v:.1f}" fill="none" stroke="{colour}" '
        f'stroke-width="{look.get("width", 2)}"{dash}/>'
    )


def head(u: float, v: float, angle: float, colour: str) -> str:
    """The tip of an arrow that arrives at (u, v) in a direction."""
    sides = [
        f"{u - HEAD * math.cos(angle + turn):.1f} {v - HEAD * math.sin(angle + turn):.1f}"
        for turn in (HEAD_ANGLE, -HEAD_ANGLE)
    ]
    return f'<path d="M{u:.1f} {v:.1f} L{sides[0]} L{sides[1]} z" fill="{colour}"/>'


def arrow(x: float, y: float, u: float, v: float, colour: str = INK, **look: object) -> str:
    angle = math.atan2(v - y, u - x)
    short = HEAD * 0.8
    shaft = line(x, y, u - short * math.cos(angle), v - short * math.sin(angle), colour, **look)
    return shaft + head(u, v, angle, colour)


def circle(x: float, y: float, r: float, colour: str = INK, **look: object) -> str:
    dash = f' stroke-dasharray="{look["dash"]}"' if "dash" in look else ""
    filled = f'fill="{colour}" fill-opacity="{look.get("fill", 0)}"'
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" {filled} stroke="{colour}" '
        f'stroke-width="{look.get("width", 2)}"{dash}/>'
    )


def box(x: float, y: float, w: float, h: float, colour: str = INK, **look: object) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" fill="{colour}" '
        f'fill-opacity="{look.get("fill", 0.08)}" stroke="{colour}" '
        f'stroke-width="{look.get("width", 2)}"/>'
    )


def eye(x: float, y: float, colour: str = ORANGE) -> str:
    """Who looks, at a place: a lens and a pupil."""
    lens = f"M{x - 13} {y} Q{x} {y - 15} {x + 13} {y} Q{x} {y + 15} {x - 13} {y} z"
    shape = (
        f'<path d="{lens}" fill="{colour}" fill-opacity="0.14" stroke="{colour}" stroke-width="2"/>'
    )
    return shape + f'<circle cx="{x}" cy="{y}" r="4.2" fill="{colour}"/>'


def document(height: float, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" role="img" font-family="{FONT}">\n'
        f"<title>{html.escape(title)}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


@dataclass(frozen=True)
class Observer:
    """Who looks at a round; `sees` names what is drawn in its colour."""

    title: str
    sees: tuple[str, ...]
    words: tuple[str, str]


NOBODY = Observer(
    "A federated round: drawn clients send clipped updates, the server adds noise and releases "
    "the mean",
    (),
    ("Data stay with the clients; updates move.", "What is released goes to everybody."),
)
OBSERVERS = {
    "round": NOBODY,
    "round-server": Observer(
        "A federated round, seen by the server: every update in the clear",
        ("updates", "list", "release", "server"),
        (
            "The server sees every update as it was sent:",
            "under central trust ε is infinite against it.",
        ),
    ),
    "round-insider": Observer(
        "A federated round, seen by an observer who knows who took part: the list and the release",
        ("list", "release"),
        ("Who knows who took part sees no update,", "and no secret draw hides anybody from it."),
    ),
    "round-client": Observer(
        "A federated round, seen by another client: its own update and every release",
        ("own", "release", "next"),
        ("Another client sees its own update", "and, like everybody, the releases."),
    ),
    "round-public": Observer(
        "A federated round, seen by the public: the releases and nothing else",
        ("release",),
        ("The public sees the releases alone:", "not the updates, not who took part."),
    ),
}
# Where the clients stand; those with True were drawn in this round.
CLIENTS = ((52, True), (112, False), (172, True), (232, True), (292, False))
CLIENTS_Y, SERVER_Y, RELEASE_Y = 70, 196, 330


def federated_round(observer: Observer) -> str:
    """Clients above, the server between, the release below; what is seen is orange."""

    def ink(part: str, colour: str = INK) -> str:
        return ORANGE if part in observer.sees else colour

    def look(part: str) -> str:
        return eye_at[part] if part in observer.sees else ""

    eye_at = {
        "list": eye(356, 38),
        "updates": eye(262, 132),
        "own": eye(54, 142),
        "release": eye(330, RELEASE_Y + 20),
        "server": "",
        "next": "",
    }
    parts = [text(20, 24, "N clients, each with its own data", anchor="start", weight=600)]
    for number, (x, is_drawn) in enumerate(CLIENTS):
        colour = ink("own", BLUE) if number == 0 else BLUE
        parts.append(
            circle(x, CLIENTS_Y, 17, colour, fill=0.22)
            if is_drawn
            else circle(x, CLIENTS_Y, 17, INK, dash="4 4")
        )
    parts += [
        text(328, CLIENTS_Y + 2, "who took", anchor="start", size=SMALL, fill=ink("list")),
        text(328, CLIENTS_Y + 19, "part", anchor="start", size=SMALL, fill=ink("list")),
    ]
    for number, (x, is_drawn) in enumerate(CLIENTS):
        if is_drawn:
            part = "own" if number == 0 and "own" in observer.sees else "updates"
            end = 172 + (x - 172) * 0.55
            parts.append(arrow(x, CLIENTS_Y + 22, end, SERVER_Y - 4, ink(part)))
    parts += [
        text(282, 137, "Δw, one each", anchor="start", size=SMALL, fill=ink("updates")),
        box(62, SERVER_Y, 228, 74, ink("server", BLUE)),
        text(176, SERVER_Y + 22, "server", weight=600),
        text(176, SERVER_Y + 43, "clip each to C, sum,", size=SMALL),
        text(176, SERVER_Y + 61, "add noise z·C, divide by m", size=SMALL),
        arrow(172, SERVER_Y + 78, 172, RELEASE_Y - 4, ink("release")),
        box(62, RELEASE_Y, 228, 40, ink("release", GREEN)),
        text(176, RELEASE_Y + 25, "release: the new model", weight=600),
    ]
    back = ink("next")
    parts += [
        f'<path d="M62 {RELEASE_Y + 20} H14 V{CLIENTS_Y} H24" fill="none" stroke="{back}" '
        f'stroke-width="2"/>',
        head(33, CLIENTS_Y, 0.0, back),
        text(20, RELEASE_Y - 62, "next", anchor="start", size=SMALL, fill=back),
        text(20, RELEASE_Y - 46, "round", anchor="start", size=SMALL, fill=back),
    ]
    parts += [look(part) for part in eye_at]
    words = ORANGE if observer.sees else INK
    parts += [
        text(200, RELEASE_Y + 72, observer.words[0], fill=words, weight=600),
        text(200, RELEASE_Y + 92, observer.words[1], fill=words, weight=600),
    ]
    return document(RELEASE_Y + 106, observer.title, parts)


def clip_ball() -> str:
    """The ball of radius C: a short update is kept, a long one is cut in its own direction."""
    x, y, radius = 146, 190, 104
    parts = [
        circle(x, y, radius, BLUE, fill=0.1),
        circle(x, y, 3, INK, fill=1),
        line(x, y, x - radius, y, BLUE, dash="3 4"),
        text(x - radius / 2, y + 20, "C", fill=BLUE, weight=700),
    ]
    # Direction (degrees, upwards) and length in units of C.
    for degrees, length in ((62, 1.65), (6, 2.1), (-58, 0.6)):
        angle = -math.radians(degrees)
        step = radius * min(length, 1.0)
        u, v = x + step * math.cos(angle), y + step * math.sin(angle)
        if length > 1:
            far = radius * length
            parts.append(
                arrow(u, v, x + far * math.cos(angle), y + far * math.sin(angle), INK, dash="5 4")
            )
        parts.append(arrow(x, y, u, v, ORANGE if length > 1 else GREEN, width=3))
    parts += [
        text(246, 46, "as it came", anchor="start", size=SMALL),
        text(254, 120, "cut to C,", anchor="start", fill=ORANGE, weight=600),
        text(254, 138, "same direction", anchor="start", fill=ORANGE, weight=600),
        text(254, 254, "shorter than C:", anchor="start", fill=GREEN, weight=600),
        text(254, 272, "kept as it is", anchor="start", fill=GREEN, weight=600),
        text(200, 326, "the ball of radius C holds all that one client can add", size=SMALL),
    ]
    return document(342, "The ball of radius C, and three updates clipped to it", parts)


def noise_and_sum() -> str:
    """The sum of clipped updates, the noise around it, and the sum without one client."""
    start = (20.0, 238.0)
    # Steps of the clipped updates, head to tail; the last is the client in question.
    steps = ((20, -16), (25, -3), (15, -20), (25, -8), (17, -16), (24, -10), (18, -12), (16, -21))
    radius = 96
    parts, here = [], start
    for number, (dx, dy) in enumerate(steps):
        there = (here[0] + dx, here[1] + dy)
        is_last = number == len(steps) - 1
        parts.append(arrow(*here, *there, ORANGE if is_last else BLUE, width=2.4))
        without, here = here, there
    cloud = [
        circle(*without, radius, INK, dash="5 4"),
        circle(*here, radius, ORANGE, fill=0.08, dash="5 4"),
    ]
    angle = math.radians(-28)
    out = (here[0] + radius * math.cos(angle), here[1] + radius * math.sin(angle))
    labels = [
        arrow(*here, *out, GREEN, width=2.4),
        circle(*out, 4, GREEN, fill=1),
        text(out[0] + 10, out[1] - 8, "what is", anchor="start", fill=GREEN, weight=600),
        text(out[0] + 10, out[1] + 10, "released", anchor="start", fill=GREEN, weight=600),
        text(here[0] + 8, here[1] - 32, "noise", fill=GREEN, anchor="start", weight=600),
        text(20, 264, "clipped updates,", anchor="start", fill=BLUE, weight=600),
        text(20, 282, "one after the other", anchor="start", fill=BLUE, weight=600),
        text(254, 246, "one client:", anchor="start", fill=ORANGE, weight=600),
        text(254, 264, "at most C", anchor="start", fill=ORANGE, weight=600),
        line(258, 232, without[0] + 10, without[1] - 2, ORANGE, width=1, dash="2 3"),
        text(200, 314, "The two circles: noise around the sum", size=SMALL),
        text(200, 332, "with this client, and around the sum without it.", size=SMALL),
    ]
    return document(346, "The noise against the sum of the updates", cloud + parts + labels)


# A cohort of four in two worlds: (x of the first client, what stands above).
WORLDS = ((48, "you were drawn"), (244, "you were not"))
# A lottery's title, where its row stands, who takes the last place, and what follows.
LOTTERIES = (
    ("Every client has its own coin", 58, "", "the sum moves by one update: C"),
    ("Exactly four are drawn", 196, "another", "the sum moves by two: up to 2C"),
)


def displaced_client() -> str:
    """Who stands in a client's place when it was not drawn, under two lotteries."""
    parts = []
    for title, top, instead, so in LOTTERIES:
        parts.append(text(20, top - 30, title, anchor="start", weight=600))
        for left, world in WORLDS:
            is_drawn = left == WORLDS[0][0]
            parts.append(text(left + 54, top - 4, world, size=SMALL))
            parts += [
                circle(left + 36 * place, top + 22, 13, BLUE, fill=0.22) for place in (0, 1, 2)
            ]
            last, name = left + 36 * 3, "you" if is_drawn else instead
            if is_drawn:
                parts.append(circle(last, top + 22, 13, ORANGE, fill=0.5))
            elif instead:
                parts.append(circle(last, top + 22, 13, GREEN, fill=0.5))
            else:
                parts.append(circle(last, top + 22, 13, INK, dash="4 4"))
            colour = ORANGE if is_drawn else GREEN
            parts.append(text(last, top + 54, name, size=SMALL, fill=colour, weight=600))
        parts.append(text(200, top + 80, so, weight=600))
    return document(296, "The place of a client that was not drawn: empty, or taken", parts)


def told_and_run() -> str:
    """What the nine lines account, many small steps, above what they run, a few rounds."""
    left, right, told, run = 20, 380, 96, 222
    parts = [
        text(left, 26, "What the accountant is told", anchor="start", fill=ORANGE, weight=600),
        text(left, 46, "93,750 steps, noise in each", anchor="start", size=SMALL),
        text(left, told + 26, "each on 16 of 50,000 records", anchor="start", size=SMALL),
        text(left, 152, "What runs", anchor="start", fill=BLUE, weight=600),
        text(left, 172, "15 rounds, noise once in each", anchor="start", size=SMALL),
        text(left, run + 26, "each with all of every client", anchor="start", size=SMALL),
    ]
    ticks, rounds = 121, 15
    for tick in range(ticks):
        x = left + (right - left) * tick / (ticks - 1)
        parts.append(line(x, told - 32, x, told, ORANGE, width=1))
    wide = (right - left) / rounds
    for turn in range(rounds):
        parts.append(box(left + wide * turn + 3, run - 32, wide - 6, 32, BLUE, fill=0.3))
    return document(266, "93,750 steps that are accounted for, and 15 rounds that are run", parts)


# Of the flow chart: a question in two lines, who sees the answer, and where a yes leads.
CHECKS = (
    (
        "Is signal over noise",
        "of the run below 1?",
        "public",
        ("fewer parameters,", "or more clients"),
    ),
    (
        "Are half of the",
        "contributions malformed?",
        "private",
        ("train one client", "alone, by hand"),
    ),
    ("Is nobody clipped?", "", "private", ("a smaller C", "")),
    (
        "Does the loss fall, but",
        "hardly, and steadily?",
        "public",
        ("a larger server's rate", "(or a larger C)"),
    ),
    (
        "Does the loss stay, and",
        "go up and down?",
        "public",
        ("one local epoch, or a", "smaller clients' rate"),
    ),
    ("Does the loss leap,", "and never settle?", "public", ("a smaller server's", "rate")),
    (
        "Is accuracy still rising",
        "in the last rounds?",
        "public",
        ("longer steps first,", "then more rounds"),
    ),
)
CHECK_HIGH, CHECK_GAP = 52, 20


def checklist() -> str:
    """Questions from top to bottom; a yes leads to the right."""
    parts = [text(20, 24, "It does not learn", anchor="start", weight=600)]
    y = 38.0
    for first, second, seen_by, remedy in CHECKS:
        colour = ORANGE if seen_by == "private" else BLUE
        middle = y + CHECK_HIGH / 2
        parts.append(box(8, y, 192, CHECK_HIGH, colour))
        for row, words in enumerate(filter(None, (first, second))):
            up = middle + (5 if not second else -5 + 19 * row)
            parts.append(text(104, up, words, size=SMALL))
        parts += [
            arrow(200, middle, 236, middle),
            text(217, middle - 7, "yes", size=SMALL),
            box(238, y, 156, CHECK_HIGH, GREEN),
        ]
        for row, words in enumerate(filter(None, remedy)):
            up = middle + (5 if not remedy[1] else -5 + 19 * row)
            parts.append(text(316, up, words, size=SMALL))
        parts += [
            arrow(104, y + CHECK_HIGH, 104, y + CHECK_HIGH + CHECK_GAP),
            text(112, y + CHECK_HIGH + 15, "no", anchor="start", size=SMALL),
        ]
        y += CHECK_HIGH + CHECK_GAP
    parts += [
        text(20, y + 18, "Does it learn without noise, on stand-ins?", anchor="start", weight=600),
        text(
            20,
            y + 38,
            "If not, it is not the noise: look at data and labels.",
            anchor="start",
            size=SMALL,
        ),
        text(20, y + 66, "blue: released figures tell", anchor="start", size=SMALL, fill=BLUE),
        text(200, y + 66, "orange: private ones do", anchor="start", size=SMALL, fill=ORANGE),
    ]
    return document(
        y + 80, "Seven questions to a run that does not learn, and what to change", parts
    )


# Of the federation: where a node is connected, and whether its slot's coin came up.
NODES = ((52, True), (108, False), (164, True))
EMPTY = (220, 276)
NODES_Y, LINK_Y, APP_Y, MODEL_Y = 76, 182, 262, 446


def federation() -> str:
    """Slots above, the SuperLink and the server's app in the frame of who is trusted."""
    parts = [text(20, 24, "N slots: connected nodes take the first", anchor="start", weight=600)]
    for x, is_drawn in NODES:
        parts.append(circle(x, NODES_Y, 17, BLUE, fill=0.35 if is_drawn else 0.06))
    parts += [circle(x, NODES_Y, 17, INK, dash="4 4") for x in EMPTY]
    parts += [
        text(306, NODES_Y - 2, "nobody", anchor="start", size=SMALL),
        text(306, NODES_Y + 15, "there: zero", anchor="start", size=SMALL),
        *(arrow(x, NODES_Y + 22, x, LINK_Y - 4, BLUE) for x, is_drawn in NODES if is_drawn),
        text(178, NODES_Y + 50, "drawn by a coin for each slot;", anchor="start", size=SMALL),
        text(178, NODES_Y + 68, "replies come in the clear", anchor="start", size=SMALL),
        box(8, LINK_Y - 22, 384, 252, ORANGE, fill=0.05),
        box(28, LINK_Y, 216, 56, INK),
        text(136, LINK_Y + 23, "SuperLink", weight=600),
        text(136, LINK_Y + 43, "messages, database, logs", size=SMALL),
        arrow(386, LINK_Y + 28, 250, LINK_Y + 28, ORANGE),
        text(318, LINK_Y + 18, "a run brings code", size=SMALL, fill=ORANGE),
        text(318, LINK_Y + 46, "and is trusted", size=SMALL, fill=ORANGE),
        arrow(136, LINK_Y + 56, 136, APP_Y - 4),
        box(28, APP_Y, 216, 76, BLUE),
        text(136, APP_Y + 23, "ServerApp: Private", weight=600),
        text(136, APP_Y + 44, "clip each to C, sum,", size=SMALL),
        text(136, APP_Y + 62, "add noise z·C, divide by qN", size=SMALL),
        arrow(244, APP_Y + 38, 268, APP_Y + 38),
        box(270, APP_Y, 112, 76, INK),
        text(326, APP_Y + 23, "ledger", weight=600),
        text(326, APP_Y + 44, "on disk before", size=SMALL),
        text(326, APP_Y + 62, "the model is", size=SMALL),
        arrow(136, APP_Y + 76, 136, APP_Y + 100, GREEN),
        text(150, APP_Y + 94, "one reply: the noisy mean", anchor="start", size=SMALL, fill=GREEN),
        box(28, APP_Y + 102, 216, 34, GREEN),
        text(136, APP_Y + 124, "FedAvg, FedAdam, yours", weight=600),
        text(326, LINK_Y + 220, "trusted", anchor="start", fill=ORANGE, weight=600),
        arrow(136, APP_Y + 136, 136, MODEL_Y - 4, GREEN),
        box(28, MODEL_Y, 216, 40, GREEN),
        text(136, MODEL_Y + 25, "release: the new model", weight=600),
        eye(266, MODEL_Y + 20),
        text(286, MODEL_Y + 16, "ε holds against", anchor="start", size=SMALL, fill=ORANGE),
        text(286, MODEL_Y + 33, "who sees these", anchor="start", size=SMALL, fill=ORANGE),
    ]
    return document(
        MODEL_Y + 52,
        "A federation on Flower: nodes, SuperLink, the server's app, and who is trusted",
        parts,
    )


# Of the masks: where three clients stand, who adds and who takes away each mask, and the sum.
TRIANGLE = ((36, 76), (156, 76), (96, 172))
PAIRS = (("a", 0, 1), ("b", 1, 2), ("c", 2, 0))
# Of a client, from its centre to the sign at its end of a side, and from the side to the sign.
RADIUS, ALONG, BESIDE = 17, 36, 13


def masked_triangle(shift: float, missing: int | None) -> list[str]:
    """Three clients and the masks between them; those of a missing one meet nobody."""
    parts = []
    for name, adds, takes in PAIRS:
        (x, y), (u, v) = TRIANGLE[adds], TRIANGLE[takes]
        colour = ORANGE if missing in (adds, takes) else INK
        long = math.hypot(u - x, v - y)
        across, downwards = (u - x) / long, (v - y) / long
        rim = (RADIUS * across, RADIUS * downwards)
        parts.append(line(x + shift + rim[0], y + rim[1], u + shift - rim[0], v - rim[1], colour))
        ends = ((adds, f"+{name}", x, y, 1), (takes, f"−{name}", u, v, -1))
        for client, words, at, height, way in ends:
            if client != missing:
                left = at + way * ALONG * across + BESIDE * downwards + shift
                low = height + way * ALONG * downwards - BESIDE * across + 5
                parts.append(text(left, low, words, size=SMALL, fill=colour, weight=600))
    for number, (x, y) in enumerate(TRIANGLE):
        gone = number == missing
        look = {"dash": "4 4"} if gone else {}
        colour, fill = (INK, 0) if gone else (BLUE, 0.22)
        parts.append(circle(x + shift, y, RADIUS, colour, fill=fill, **look))
        parts.append(text(x + shift, y + 5, str(number)))
    return parts


def pairwise_masks() -> str:
    """All masks cancel on the left; on the right those of a client that is gone do not."""
    parts = [
        text(96, 24, "all three upload", weight=600),
        text(300, 24, "client 2 does not", weight=600),
        *masked_triangle(0, None),
        *masked_triangle(204, 2),
        box(8, 212, 176, 40, GREEN),
        text(96, 237, "sum: x₀ + x₁ + x₂"),
        box(212, 212, 176, 40, ORANGE),
        text(300, 237, "sum: x₀ + x₁ + b − c", fill=ORANGE),
    ]
    title = "Masks between three clients: they cancel in the sum, unless one client is gone"
    return document(262, title, parts)


# Of the noise tree: rounds, the first one's place, the next one's, levels from the leaves up.
ROUNDS, FIRST_LEAF, NEXT_LEAF = 8, 42, 45
TREE_Y = (236, 172, 108, 44)
# The nodes, as level and place, of the sum up to round 7 and of a client of round 3.
SUMMED = ((2, 0), (1, 2), (0, 6))
VISITED = ((0, 2), (1, 1), (2, 0), (3, 0))
NODE, RING = 12, 17


def leaf_or_node(level: int, place: int) -> tuple[float, float]:
    """Where a node stands: above the middle of its rounds."""
    wide = 2**level
    return FIRST_LEAF + NEXT_LEAF * (place * wide + (wide - 1) / 2), TREE_Y[level]


def noise_tree() -> str:
    """A binary tree over rounds: the nodes of one prefix sum, and those that hold one client."""
    parts = []
    for level in range(1, len(TREE_Y)):
        for place in range(ROUNDS >> level):
            x, y = leaf_or_node(level, place)
            for child in (2 * place, 2 * place + 1):
                u, v = leaf_or_node(level - 1, child)
                # From rim to rim: no line is seen inside a ring or a node.
                share = RING / math.hypot(u - x, v - y)
                across, downwards = share * (u - x), share * (v - y)
                parts.append(
                    line(x + across, y + downwards, u - across, v - downwards, INK, width=1.3)
                )
    for level in range(len(TREE_Y)):
        for place in range(ROUNDS >> level):
            x, y = leaf_or_node(level, place)
            is_summed = (level, place) in SUMMED
            colour, fill = (GREEN, 0.9) if is_summed else (INK, 0.15)
            parts.append(circle(x, y, NODE, colour, fill=fill))
            if (level, place) in VISITED:
                parts.append(circle(x, y, RING, ORANGE, width=2.4))
    for number in range(ROUNDS):
        x, y = leaf_or_node(0, number)
        parts.append(text(x, y + 36, str(number + 1), size=SMALL))
    parts += [
        text(20, 306, "filled: the sum up to round 7, three noises", anchor="start", fill=GREEN),
        text(20, 328, "ringed: a client of round 3, four nodes", anchor="start", fill=ORANGE),
    ]
    return document(342, "A tree over eight rounds, each node with noise of its own", parts)


def drawings() -> dict[str, str]:
    """Name of each file -> its text."""
    found = {f"{name}.svg": federated_round(observer) for name, observer in OBSERVERS.items()}
    return found | {
        "clip-ball.svg": clip_ball(),
        "noise-and-sum.svg": noise_and_sum(),
        "displaced-client.svg": displaced_client(),
        "told-and-run.svg": told_and_run(),
        "checklist.svg": checklist(),
        "federation.svg": federation(),
        "masks.svg": pairwise_masks(),
        "noise-tree.svg": noise_tree(),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the book's drawings.")
    parser.add_argument("folder", nargs="?", type=Path, default=OUT)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in drawings().items():
        (folder / name).write_text(drawn, encoding="utf-8")
    print(f"{len(drawings())} drawings written to {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
