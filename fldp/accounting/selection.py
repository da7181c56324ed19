"""The privacy cost of tuning: run a private training several times, publish the best.

To select is a release. A number of runs that is fixed beforehand is covered by composition alone,
which grows with it; a *random* number of runs, drawn from one of the distributions below, is
cheaper. The first two cost about two or three runs however many there are; the Poisson law, nearest
to a fixed number, costs more as its mean grows (Liu & Talwar 2019; Papernot & Steinke 2022).
"""

from __future__ import annotations

import math

import numpy as np

from fldp._checks import choice, real, shown
from fldp.accounting.divergences import privacy_curve, renyi
from fldp.accounting.events import Events
from fldp.accounting.gaussian import Array

DISTRIBUTIONS = ("geometric", "logarithmic", "poisson")
# The shape of the truncated negative binomial law that each is; the Poisson law has none.
_SHAPES = {"geometric": 1.0, "logarithmic": 0.0}
# Orders at which the divergences are taken, their ratio so small that the best is missed by less
# than 0.1 % of epsilon; beyond the last one a sampled round's quadrature gets long.
_ORDERS = 1 + np.geomspace(1e-3, 1e3, 200)
# Halvings of a bracket, far below the precision of a float.
_HALVINGS = 200


def selected_epsilon(
    events: Events,
    delta: float,
    mean_runs: float,
    distribution: str = "geometric",
    *,
    adjacency: str = "add-or-remove",
    group: int = 1,
) -> float:
    """Epsilon of publishing the best of a random number of runs, and of nothing else.

    Draw the number of runs, in secret, from `distribution`; for each run draw a candidate
    (learning rate, clip, rounds, ...) from a fixed list with fixed chances, and train with it;
    publish the model with the best score, and perhaps its candidate and its score (Papernot &
    Steinke 2022, Theorems 2 and 6; the conversion to epsilon is that of Canonne et al. 2020). How
    many runs there were, and what the others gave, stays secret.

    Parameters
    ----------
    events
        What *one* run spends, whichever candidate it has: as in :func:`fldp.accounting.epsilon_of`.
        A score that looks at private data is a release of that run and has its event here too; a
        score on public data needs none.
    delta
        In (0, 1).
    mean_runs
        How many runs there are on average, at least 1.
    distribution
        "geometric", "logarithmic" (skewed: often a single run, seldom very many) or "poisson"
        (concentrated; with chance exp(-mean_runs) there is no run, and something fixed beforehand
        is published). Other laws, a fixed number of runs first of all, are not covered.
    adjacency, group
        As in :func:`fldp.accounting.epsilon_of`.

    Returns
    -------
    float
        An upper bound; infinite where the events have no Rényi divergence.

    Raises
    ------
    ValueError
        For a fixed number of runs, for arguments out of range, and for events that do not fit.

    Examples
    --------
    >>> from fldp.accounting import Event, epsilon_of
    >>> run = [Event(4.0, rounds=2)]
    >>> round(epsilon_of(run, 1e-5), 2)
    1.36
    >>> [round(selected_epsilon(run, 1e-5, 10, name), 2) for name in DISTRIBUTIONS]
    [3.05, 2.55, 2.75]
    """
    if distribution == "fixed":
        raise ValueError(
            "distribution is 'fixed': the best of a fixed number of runs is covered by composition "
            "alone; give epsilon_of the events of all runs, or draw the number of runs from one of "
            f"{', '.join(DISTRIBUTIONS)}"
        )
    choice("distribution", distribution, DISTRIBUTIONS)
    delta = real("delta", delta, 1)
    runs = real("mean_runs", mean_runs)
    if runs < 1:
        raise ValueError(f"mean_runs is {shown(mean_runs)}: give at least 1")
    one_run = renyi(events, _ORDERS, adjacency=adjacency, group=group)
    conversion = np.log1p(-1 / _ORDERS) - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    if distribution != "poisson":
        selected = _negative_binomial(_ORDERS, one_run, runs, _SHAPES[distribution])
        return max(0.0, float((selected + conversion).min()))
    least = math.inf
    without = _poisson(_ORDERS, one_run, np.zeros_like(_ORDERS), runs) + conversion
    # A delta takes longer than a divergence: from the most promising order on, while it may help.
    for i in np.argsort(without):
        if without[i] >= least:
            break
        # The theorem asks for delta at this epsilon; an exact one is the smallest.
        epsilon = math.log1p(1 / (float(_ORDERS[i]) - 1))
        at = privacy_curve(events, epsilon, adjacency=adjacency, group=group)
        least = min(least, float(without[i]) + runs * float(at))
    return max(0.0, least)


def _poisson(orders: Array, one_run: Array, deltas: Array, runs: float) -> Array:
    """Theorem 6: Rényi divergences at `orders`; `deltas` belong to e^epsilon = 1 + 1/(order-1)."""
    return one_run + runs * deltas + math.log(runs) / (orders - 1)


def _negative_binomial(orders: Array, one_run: Array, runs: float, shape: float) -> Array:
    """Theorem 2: Rényi divergences at `orders`, with the best second order out of the same list."""
    log_gamma = _log_gamma(runs, shape)
    second = (1 - 1 / orders) * one_run - log_gamma / orders
    # at a second order of 1 the divergence itself drops out
    least = min(float(second.min()), -log_gamma)
    return one_run + (1 + shape) * least + math.log(runs) / (orders - 1)


def _log_gamma(runs: float, shape: float) -> float:
    """The logarithm of the law's parameter gamma, at which its mean is `runs`."""
    if shape == 1:
        return -math.log(runs)
    # the logarithmic law has the mean (1/gamma - 1) / log(1/gamma), which grows with log(1/gamma)
    low, high = 0.0, 2 * math.log(runs) + 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if math.expm1(middle) < runs * middle:
            low = middle
        else:
            high = middle
    # the larger one: an upper bound
    return -high
