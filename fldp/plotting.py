"""The book's figures: one style, safe for colour-blind readers, readable in light and dark."""

from __future__ import annotations

import importlib
import io
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike as Array

from fldp._text import up
from fldp.plan import PrivacyPlan
from fldp.plan.drawn import amplified

if TYPE_CHECKING:
    from fldp.audit.findings import AuditResult
    from fldp.simulation.clients import Population

__all__ = [
    "CYCLE",
    "INK",
    "MARKERS",
    "PALETTE",
    "RATIO",
    "WIDTH",
    "Record",
    "accuracy_against_epsilon",
    "apply",
    "axes",
    "digits_grid",
    "error_band",
    "figure",
    "history",
    "plan",
    "population",
    "style",
    "trade_off",
]

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
# A grey with contrast on both pages, for text, axes and grid.
INK = "#6a727c"
MARKERS = "osD^vP"
# Inches: the width of the book's column. Height over width: close to the golden section.
WIDTH = 5.6
RATIO = 0.62
# How strongly a band is filled: a line on it must stay readable.
_BAND, _FAINT = 0.22, 0.15
# Height over width of one image in a grid, with a title above it.
_TITLED = 1.25
# The steepest slope that is drawn: beyond it a curve is a corner for any eye.
_STEEPEST = 500.0
# Points of a drawn curve, and bars of a histogram at most.
_POINTS, _BARS = 201, 30
# Rounds at which ε is computed for a plan's line: enough for a smooth one.
_KNOTS = 24
# Colours of a stored figure: nobody sees a difference to all of them.
_COLOURS = 256
# Inches of the two drawings of a population.
_WIDE = (8.0, 2.8)


class Record(Protocol):
    """What `history` draws: a training's accuracy and ε, a round each.

    Attributes
    ----------
    accuracy : sequence of float
        On validation data, a round each; empty without.
    epsilon : sequence of float or None
        What was spent after each round.

    Examples
    --------
    >>> import fldp
    >>> record: Record = fldp.History(None)
    >>> record.accuracy
    []
    """

    @property
    def accuracy(self) -> Sequence[float]:
        """On validation data; empty without."""
        ...

    @property
    def epsilon(self) -> Sequence[float | None]:
        """What was spent after each round."""
        ...


# matplotlib types the keys one by one.
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
    """Make the book's style the style of this process (a notebook's first cell).

    In a notebook, a figure gets twice the pixels at the same size, in 256 colours: sharp on
    today's screens, and no larger than before.

    Examples
    --------
    >>> with mpl.rc_context():  # what apply sets ends with the block
    ...     apply()
    ...     print(mpl.rcParams["figure.dpi"])
    110.0
    """
    mpl.rcParams.update(_STYLE)
    notebook = sys.modules.get("IPython")
    shell = notebook.get_ipython() if notebook else None
    if shell is not None and hasattr(shell, "kernel"):
        # Loading it puts its own way to draw in place, once.
        importlib.import_module("matplotlib_inline.backend_inline")
        shell.display_formatter.formatters["image/png"].for_type(Figure, _sharp)


def _sharp(fig: Figure) -> tuple[bytes, dict[str, int]]:
    """A PNG for a notebook, and the size at which it is shown."""
    drawn, full = io.BytesIO(), io.BytesIO()
    dpi = 2 * fig.dpi
    fig.savefig(full, format="png", dpi=dpi, bbox_inches="tight")
    pillow = importlib.import_module("PIL.Image")  # which matplotlib brings
    image = pillow.open(full)
    image.quantize(_COLOURS, method=pillow.Quantize.FASTOCTREE).save(
        drawn, "PNG", dpi=(dpi, dpi), optimize=True
    )
    return drawn.getvalue(), {"width": image.width // 2, "height": image.height // 2}


@contextmanager
def style() -> Iterator[None]:
    """The book's style for the figures made inside a `with` block.

    Yields
    ------
    None
        At the end of the block the style is what it was.

    Examples
    --------
    >>> with style():
    ...     print(mpl.rcParams["figure.dpi"])
    110.0
    """
    with mpl.rc_context(_STYLE):
        yield


def figure(
    rows: int = 1, columns: int = 1, width: float = WIDTH, ratio: float = RATIO, **options: Any
) -> tuple[Figure, Any]:
    """A figure of the book's width with its axes, in the book's style.

    Parameters
    ----------
    rows, columns : int
        How many axes stand below and beside one another.
    width : float
        Inches.
    ratio : float
        Height over width.
    **options
        Those of `matplotlib.pyplot.subplots`.

    Returns
    -------
    (Figure, Axes or array of Axes)

    Examples
    --------
    >>> fig, ax = figure()
    >>> round(float(fig.get_figwidth()), 1)
    5.6
    """
    with style():
        return plt.subplots(rows, columns, figsize=(width, width * ratio), **options)


def axes(ax: Axes | None = None) -> Axes:
    """The axes given, else new ones.

    Parameters
    ----------
    ax : Axes, optional
        None: new ones, in the book's style.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = axes()
    >>> axes(ax) is ax
    True
    """
    return ax if ax is not None else figure()[1]


def _order(ax: Axes) -> int:
    return len(ax.get_lines()) + len(ax.containers)


def error_band(
    ax: Axes,
    x: Sequence[float],
    runs: Array,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """A line for the mean of several runs, and a band of one standard deviation around it.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    x : sequence of float
        Where the runs were measured.
    runs : array
        (seeds, len(x)).
    label : str, optional
        For the legend. None: no entry.
    color : str, optional
        None: the next of the book's colours.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For runs of another shape.

    Examples
    --------
    >>> runs = np.array([[0.5, 0.6], [0.7, 0.8]])
    >>> ax = error_band(axes(), [1.0, 2.0], runs, label="runs")
    >>> len(ax.lines)
    1
    """
    values = np.asarray(runs, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(x):
        raise ValueError(f"runs has shape {values.shape}, expected (seeds, {len(x)})")
    mean = values.mean(axis=0)
    spread = values.std(axis=0, ddof=min(1, len(values) - 1))
    colour = color or CYCLE[_order(ax) % len(CYCLE)]
    ax.plot(x, mean, color=colour, label=label)
    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=_BAND, linewidth=0)
    return ax


def accuracy_against_epsilon(
    epsilons: Sequence[float],
    runs: Array,
    baseline: Array | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Accuracy over ε, with error bars over seeds.

    Parameters
    ----------
    epsilons : sequence of float
        Where the runs were made.
    runs : array
        Accuracies (len(epsilons), seeds).
    baseline : array, optional
        Accuracies without privacy (seeds,), drawn as a line with a band. None: no line.
    ax : Axes, optional
        None: new ones.
    label : str, optional
        For the legend. None: no entry.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For runs of another shape.

    Examples
    --------
    >>> ax = accuracy_against_epsilon([1.0, 8.0], np.array([[0.5, 0.6], [0.7, 0.8]]))
    >>> len(ax.containers)
    1
    """
    ax = axes(ax)
    values = np.asarray(runs, dtype=float)
    if values.shape[0] != len(epsilons):
        raise ValueError(f"runs has {values.shape[0]} rows for {len(epsilons)} epsilons")
    k = _order(ax)
    ax.errorbar(
        epsilons,
        values.mean(axis=1),
        yerr=values.std(axis=1, ddof=1),
        capsize=3,
        marker=MARKERS[k % len(MARKERS)],
        color=CYCLE[k % len(CYCLE)],
        label=label,
    )
    if baseline is not None:
        level = np.asarray(baseline, dtype=float)
        low = level.mean() - level.std()
        high = level.mean() + level.std()
        ax.axhline(level.mean(), color=PALETTE["grey"], linestyle="--", label="without privacy")
        ax.axhspan(low, high, color=PALETTE["grey"], alpha=_FAINT, linewidth=0)
    ax.set_xscale("log")
    ax.set_xticks(list(epsilons), [f"{e:g}" for e in epsilons])
    ax.minorticks_off()
    ax.set_xlabel("ε (client level)")
    ax.set_ylabel("accuracy")
    if baseline is not None or label:
        ax.legend()
    return ax


def digits_grid(images: Array, titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """Images side by side.

    Parameters
    ----------
    images : array
        (n, h, w), (n, 1, h, w), or (n, h · h) for square ones.
    titles : sequence of str
        Above the first images.
    columns : int
        Images to a row.

    Returns
    -------
    Figure

    Examples
    --------
    >>> len(digits_grid(np.zeros((3, 64)), columns=3).axes)
    3
    """
    pixels = np.asarray(images, dtype=float)
    if pixels.ndim == 2:
        side = round(pixels.shape[1] ** 0.5)
        pixels = pixels.reshape(-1, side, side)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    rows = -(-len(pixels) // columns)
    fig, grid = figure(rows, columns, ratio=rows / columns * (_TITLED if titles else 1.0))
    for k, ax in enumerate(np.atleast_1d(grid).ravel()):
        ax.axis("off")
        if k < len(pixels):
            ax.imshow(pixels[k], cmap="gray_r", interpolation="nearest")
            if k < len(titles):
                ax.set_title(titles[k])
    return fig


def plan(made: PrivacyPlan, ax: Axes | None = None) -> Axes:
    """ε over the rounds of a plan, also against who knows the cohorts where they are secret.

    Parameters
    ----------
    made : PrivacyPlan
        The plan.
    ax : Axes, optional
        None: new ones.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import fldp
    >>> made = fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=10, clients=480,
    ...                       cohort=120)
    >>> len(plan(made).lines) >= 2
    True
    """
    rounds = sorted({max(1, round(made.rounds * i / _KNOTS)) for i in range(1, _KNOTS + 1)})
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


def history(record: Record, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Accuracy over rounds of a training, with ε spent on a second axis below it.

    Parameters
    ----------
    record : History
        What `fldp.train` returns.
    ax : Axes, optional
        None: new ones.
    label : str, optional
        For the legend. None: no entry.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> run = SimpleNamespace(accuracy=[0.4, 0.6], epsilon=[1.0, 1.5], rounds=2)
    >>> ax = history(run)
    >>> len(ax.lines)
    1
    """
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


def population(people: Population, clients: int = 30) -> Figure:
    """Labels of the first clients, and the sizes of all.

    Parameters
    ----------
    people : Population
        Who holds which records.
    clients : int
        How many clients are drawn by their labels.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import fldp
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> len(population(people).axes) >= 2
    True
    """
    counts = people.label_counts()[:clients].numpy()
    base = counts.cumsum(1) - counts
    shades = plt.get_cmap("viridis")
    with style():
        fig, (left, right) = plt.subplots(1, 2, figsize=_WIDE)
        for label, (height, bottom) in enumerate(zip(counts.T, base.T, strict=True)):
            shade = shades(label / len(counts.T))
            left.bar(np.arange(len(counts)), height, bottom=bottom, color=shade)
        left.set(xlabel="client", ylabel="records (colour: label)")
        right.hist(people.sizes.numpy(), bins=min(_BARS, int(people.sizes.max())))
        right.set(xlabel="records of a client", ylabel="clients")
    return fig


def trade_off(found: AuditResult, ax: Axes | None = None, plan: PrivacyPlan | None = None) -> Axes:
    """An audit's measured curve, and those that its bound and the claim allow.

    Parameters
    ----------
    found : AuditResult
        What an audit found.
    ax : Axes, optional
        None: new ones.
    plan : PrivacyPlan, optional
        Whose whole trade-off curve is drawn too: the measured curve of a sound mechanism stays
        below it, up to sampling error. None: none is drawn.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from fldp.audit import from_scores
    >>> rng = np.random.default_rng(0)
    >>> found = from_scores(rng.normal(1, 1, 500), rng.normal(0, 1, 500), delta=1e-5)
    >>> len(trade_off(found).lines) >= 1
    True
    """
    ax = axes(ax)
    x = np.linspace(0, 1, _POINTS)
    ax.step(*found.curve, where="post", label="measured")
    values = {"lower bound": found.lower_bound, "claimed": found.claimed}
    if found.lower_bound is None:
        values = {"estimate": found.estimate, "claimed": found.claimed}
    for name, epsilon in values.items():
        if epsilon is not None:
            e = math.exp(min(epsilon, _STEEPEST))
            allowed = np.minimum(e * x + found.delta, 1 - (1 - found.delta - x) / e)
            ax.plot(x, allowed.clip(0, 1), "--", label=f"{name}: ε = {epsilon:.3g}")
    if plan is not None:
        from fldp.audit.limits import plan_curve

        promised = plan_curve(plan)
        ax.plot(x, [promised.forward(float(v)) for v in x], "-.", label="the plan's curve")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="lower right")
    return ax
