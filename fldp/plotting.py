"""The book's figures: one style, safe for colour-blind readers, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fldp._text import up
from fldp.plan import PrivacyPlan
from fldp.plan.statement import amplified

# Okabe and Ito's hues, moved until each has contrast 3:1 or more on white and on the dark page.
PALETTE = {
    "blue": "#2f7fc1",
    "orange": "#c96a12",
    "green": "#1a8f6a",
    "pink": "#b8609a",
    "purple": "#7d6bd0",
    "grey": "#7f868c",
}
CYCLE = list(PALETTE.values())
INK = "#7d8590"
MARKERS = "osD^vP"
WIDTH, RATIO = 5.6, 0.62

_STYLE: Any = {
    "figure.figsize": (WIDTH, WIDTH * RATIO),
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.transparent": True,
    "legend.frameon": False,
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "grid.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
    "image.cmap": "gray_r",
    "axes.prop_cycle": mpl.rcsetup.cycler(color=CYCLE),
}


def apply() -> None:
    """Make the book's style the style of this process (a notebook's first cell)."""
    mpl.rcParams.update(_STYLE)


@contextmanager
def style() -> Iterator[None]:
    """The book's style for the figures made inside a ``with`` block."""
    with mpl.rc_context(_STYLE):
        yield


def figure(
    rows: int = 1, columns: int = 1, width: float = WIDTH, ratio: float = RATIO, **options: Any
) -> tuple[Figure, Any]:
    """A figure of the book's width (inches) with its axes, in the book's style.

    >>> fig, ax = figure()
    >>> round(float(fig.get_figwidth()), 1)
    5.6
    """
    with style():
        return plt.subplots(rows, columns, figsize=(width, width * ratio), **options)


def axes(ax: Axes | None = None) -> Axes:
    """The axes given, else new ones."""
    return ax if ax is not None else figure()[1]


def _order(ax: Axes) -> int:
    return len(ax.get_lines()) + len(ax.containers)


def error_band(
    ax: Axes, x: Sequence[float], runs: Any, label: str | None = None, color: str | None = None
) -> Axes:
    """Mean of ``runs`` (seeds, len(x)) as a line, one standard deviation around it as a band."""
    values = np.asarray(runs, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(x):
        raise ValueError(f"runs has shape {values.shape}, expected (seeds, {len(x)})")
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
    colour = color or CYCLE[_order(ax) % len(CYCLE)]
    ax.plot(x, mean, color=colour, label=label)
    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.22, linewidth=0)
    return ax


def accuracy_against_epsilon(
    epsilons: Sequence[float],
    runs: Any,
    baseline: Any = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Accuracy over ε with error bars over seeds; ``runs`` has shape (len(epsilons), seeds).

    ``baseline``, accuracies without noise (seeds,), is drawn as a line with a band.
    """
    ax, values = axes(ax), np.asarray(runs, dtype=float)
    if values.shape[0] != len(epsilons):
        raise ValueError(f"runs has {values.shape[0]} rows for {len(epsilons)} epsilons")
    k = _order(ax)
    ax.errorbar(
        epsilons, values.mean(axis=1), yerr=values.std(axis=1, ddof=1), capsize=3,
        marker=MARKERS[k % len(MARKERS)], color=CYCLE[k % len(CYCLE)], label=label,
    )  # fmt: skip
    if baseline is not None:
        level = np.asarray(baseline, dtype=float)
        ax.axhline(level.mean(), color=PALETTE["grey"], linestyle="--", label="no noise")
        ax.axhspan(level.mean() - level.std(), level.mean() + level.std(),
                   color=PALETTE["grey"], alpha=0.15, linewidth=0)  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(list(epsilons), [f"{e:g}" for e in epsilons])
    ax.minorticks_off()
    ax.set_xlabel("ε (client level)")
    ax.set_ylabel("accuracy")
    if baseline is not None or label:
        ax.legend()
    return ax


def digits_grid(images: Any, titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """Images (n, h, w), (n, 1, h, w) or (n, 64) side by side, ``columns`` to a row."""
    pixels = np.asarray(images, dtype=float)
    if pixels.ndim == 2:
        side = round(pixels.shape[1] ** 0.5)
        pixels = pixels.reshape(-1, side, side)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    rows = -(-len(pixels) // columns)
    fig, grid = figure(rows, columns, ratio=rows / columns * (1.25 if titles else 1.0))
    for k, ax in enumerate(np.atleast_1d(grid).ravel()):
        ax.axis("off")
        if k < len(pixels):
            ax.imshow(pixels[k], cmap="gray_r", interpolation="nearest")
            if k < len(titles):
                ax.set_title(titles[k])
    return fig


def plan(made: PrivacyPlan, ax: Axes | None = None) -> Axes:
    """ε over the rounds of a plan, also against who knows the cohorts where they are secret."""
    points = 24  # enough for a smooth line
    rounds = sorted({max(1, round(made.rounds * i / points)) for i in range(1, points + 1)})
    sees = {
        "central": "who sees the models",
        "distributed": "who sees the sums and who took part",
        "local": "who sees the messages",
    }
    with style():
        ax = axes(ax)
        ax.plot([0, *rounds], [0, *map(made.epsilon, rounds)], label=sees[made.trust])
        if amplified(made):
            known = [replace(made, rounds=t).cohort_known()["epsilon"] for t in rounds]
            ax.plot([0, *rounds], [0, *known], "--", label="who also knows who took part")
        ax.axhline(made.target_epsilon, color="0.5", linewidth=1, label="target")
        ax.set(xlabel="rounds", ylabel=f"ε at δ = {up(made.delta)}", xlim=(0, None), ylim=(0, None))
        ax.legend()
    return ax


def history(record: Any, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Accuracy over rounds of a training history, with ε spent on a second axis below it."""
    ax = axes(ax)
    rounds = np.arange(1, len(record.accuracy) + 1)
    ax.plot(rounds, record.accuracy, color=CYCLE[_order(ax) % len(CYCLE)], label=label)
    ax.set_xlabel("round")
    ax.set_ylabel("accuracy")
    spent = [e for e in record.epsilon if e is not None]
    if spent and np.isfinite(spent[-1]) and spent[-1] > 0:
        ticks = sorted({1, len(spent) // 2, len(spent)} - {0})
        ax.set_xticks(ticks, [f"{t}\nε = {up(spent[t - 1], 3)}" for t in ticks])
    if label:
        ax.legend()
    return ax
