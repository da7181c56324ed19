"""What of a run's history tells why it does not learn, as figures; and where each begins to tell.

Released figures and private ones are kept apart: `Symptoms.reads_private` says which were read.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch.nn.utils import parameters_to_vector

from fldp.simulation.history import History

# Signal over noise of a whole run, both as lengths, at its best: every update of length C, all
# alike. Below 1 the noise is longer. Measured: digits, d = 650, 20 clients: 39 % at .5, 74 % at
# 1.6; 480 clients: 78 % at 4.0, 91 % at 32. EMNIST (199,210 parameters, the tutorial of TensorFlow
# Federated): 1.1 diverges, 1.5 costs ten points, 2.2 one to three. A wide network on digits, whose
# useful directions are few, lost nothing at 1.5: between 1 and 2 noise may cost, and need not.
DROWNED, FAINT = 1.0, 2.0
# Parameters of a linear model for 64 pixels and ten classes, the smallest of the book. Where the
# population carries fewer, the remedy is not another model.
SMALLEST_MODEL = 650
# A share of the contributions: half of them lost is a fault of the program, not of the noise; a
# twentieth costs as much as so many clients fewer.
MOST_LOST, SOME_LOST = 0.5, 0.05
# Digits: at C = 5 a fifth to a third is clipped in the first round, nobody later, and 92 % are
# right; at C = 10 nobody ever is, and noise for a length that no update has costs eight points.
NOBODY, EVERYBODY = 0.05, 0.95
# How many times the run's rounds its loss would take to halve: .3 to .6 in healthy runs, up to 5
# after four rounds, 6 at a thirtieth of a good rate, 16 and more at a hundredth.
SLOW = 10.0
# The net fall of the loss over the way that it went, up and down: .99 and more where steps are too
# short, below .25 where they lead nowhere.
STRAIGHT = 0.5
# All the clip norms of the run together over the length of the model. Below 1 a model whose loss
# falls steadily could not get far (.3 at a hundredth of a good clip norm, 1.8 to 33 elsewhere); and
# one whose loss goes up and down got farther than its steps (.3 to .7 at a server's rate of 10).
SHORT_REACH = 1.0
# By how much the last third of the rounds is better than the third before: .12 and more in
# four to eight rounds, at most .05 in healthy runs. Of a loss, which has no scale, the ratio: .59
# to .7 in runs whose accuracy was done.
UNFINISHED, UNFINISHED_LOSS = 0.1, 0.5
# Rounds after the best one, as a share of all: nothing came of two thirds of the budget.
WASTED = 2 / 3
# The same figure in a run that does move: .02 and less at ten times a good server's rate, .4 to 1
# in healthy runs, .15 and more where twenty clients make it noisy.
OVERSHOT = 0.05
# Points of accuracy that the noise may cost before it is worth a word.
COSTLY = 0.05
# A loss that fell at first and then stayed: in the last third of the rounds its mean moves by less
# than this share of what it had fallen by before, and that fall was so many times a late round's
# own way up or down. Regressions that explain a tenth of the variance and less, at their best from
# the tenth round on: at most .21, and 5 and more; where steps are too short .6 and more; where they
# lead nowhere there is no fall, or more comes after it.
SETTLED, FALL = 1 / 3, 3.0
# From here on a loss is as good as infinite: its mean would be.
LARGEST = 1e300
# A curve of fewer rounds than this tells nothing of its end.
FEWEST_ROUNDS = 4


class Symptoms:
    """The figures of a run that tell why it does not learn; empty where the history has none.

    Parameters
    ----------
    history : History
        Of the run.
    may_read : bool
        Whether its private figures may be read.
    """

    def __init__(self, history: History, may_read: bool) -> None:
        self.history = history
        kept = history.private
        private = kept if may_read else {}
        own = not history.loss
        self.loss = np.asarray(private.get("loss", []) if own else history.loss, dtype=float)
        metric = private.get("metric", []) if own else history.metric
        is_accuracy = history.measure == "accuracy"
        self.accuracy = np.asarray(metric if is_accuracy else [], dtype=float)
        # Clients' own records were the exam.
        self.is_own_exam = own and len(self.loss) > 0
        self.clipped = np.asarray(private.get("clipped_fraction", []), dtype=float)
        self.came = float(np.sum(private.get("cohort", [])))
        self.malformed = float(np.sum(private.get("malformed", [])))
        self.zero = float(np.sum(private.get("zero", [])))
        # Which rounds were skipped is public under distributed trust, wherever it is kept.
        self.skipped = 0.0
        if history.plan is not None and history.plan.trust == "distributed":
            self.skipped = float(np.sum(kept.get("skipped", [])))
        weights = [p.detach() for p in history.model.parameters() if p.requires_grad]
        self.d = sum(p.numel() for p in weights)
        self.length = float(parameters_to_vector(weights).norm()) if weights else math.nan

    @property
    def reads_private(self) -> bool:
        """Whether any private figure stands in it."""
        return self.history.plan is None or self.is_own_exam or len(self.clipped) > 0

    @property
    def third(self) -> int:
        """A third of the rounds, rounded up."""
        return math.ceil(len(self.loss) / 3)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether the loss is a number, a round each."""
        return np.abs(self.loss) < LARGEST

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a number, and every weight of the model."""
        is_model = not self.d or math.isfinite(self.length)
        return is_model and bool(self.finite.all())

    @property
    def has_curve(self) -> bool:
        """Whether its loss tells anything: long enough, with a zero that means something."""
        return len(self.loss) >= FEWEST_ROUNDS and bool((self.loss > 0).all())

    @property
    def nobody(self) -> bool:
        """Whether no round clipped more than a few updates."""
        return len(self.clipped) > 0 and float(self.clipped.max()) <= NOBODY

    @property
    def everybody(self) -> bool:
        """Whether nearly every update was clipped."""
        return len(self.clipped) > 0 and float(self.clipped.mean()) >= EVERYBODY

    def late(self, curve: NDArray[np.float64]) -> tuple[float, float]:
        """The means of the last third of the rounds and of as many before.

        Parameters
        ----------
        curve : array
            A value for each round.

        Returns
        -------
        (float, float)
            The second is NaN where there are no rounds before.
        """
        k = math.ceil(len(curve) / 3)
        before = curve[-2 * k : -k]
        return float(curve[-k:].mean()), float(before.mean()) if len(before) else math.nan

    @property
    def halving(self) -> float:
        """How many times its rounds the loss would take to halve, at the pace so far."""
        fall = math.log(self.loss[0] / self.late(self.loss)[0])
        return math.log(2) / fall if fall > 0 else math.inf

    @property
    def is_settled(self) -> bool:
        """Whether the loss fell at first and then stayed where it was."""
        after, before = self.late(self.loss)
        fall = float(self.loss[0]) - before
        jumps = float(np.abs(np.diff(self.loss[-self.third :])).mean())
        return abs(before - after) <= SETTLED * fall and fall >= FALL * jumps > 0

    @property
    def way(self) -> float:
        """How far the loss went, up and down."""
        return float(np.abs(np.diff(self.loss)).sum())

    @property
    def straightness(self) -> float:
        """The net fall of the loss over the way that it went, up and down."""
        return float(self.loss[0] - self.loss[-1]) / self.way if self.way > 0 else 1.0

    @property
    def reach(self) -> float:
        """All clip norms of the run together, over the length of the released model."""
        steps = float(np.sum(self.history.clip_norm))
        return steps / self.length if self.length else math.inf
