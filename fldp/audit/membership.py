"""Was a record in the training data? Scores of those that were and were not, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike as Array
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fldp._checks import between, real, whole
from fldp._text import down, up
from fldp.audit.canaries import flat
from fldp.audit.scores import curve_of
from fldp.mechanism.updates import flatten, shapes, views

# Bisection steps on an interval of length 1: below any sampling error.
_HALVINGS = 40


@dataclass(frozen=True)
class Membership:
    """Scores of records that were, and that were not, in the training data; higher says "was".

    Intervals hold for records drawn at random from those that the attack is about; records of one
    model share that model, and say nothing about other trainings. `fldp.audit.from_scores` makes a
    bound of independent scores; records of one model are not.

    Parameters
    ----------
    members, others : array
        The scores of records that were in the training data, and of others; finite.

    Raises
    ------
    ValueError
        Where one of them is empty or not finite, or all scores are equal.

    Examples
    --------
    >>> found = Membership(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 2.5]))
    >>> round(found.auc, 2), found.tpr(1 / 3)
    (0.78, 1.0)
    """

    members: np.ndarray
    others: np.ndarray

    def __post_init__(self) -> None:
        for name in ("members", "others"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64).ravel())
        both = np.concatenate([self.members, self.others])
        if not len(self.members) or not len(self.others) or not np.isfinite(both).all():
            raise ValueError("finite scores of at least one member and one other record are needed")
        if np.ptp(both) == 0:
            raise ValueError("all scores are equal: the attack reads nothing")

    @property
    def auc(self) -> float:
        """Probability that a member scores above another record; 0.5 is a coin."""
        from sklearn.metrics import auc

        return float(auc(*curve_of(self.members, self.others)))

    def auc_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the AUC (Newcombe 2006, method 5): right also near 0 and 1.

        Parameters
        ----------
        confidence : float
            In (0, 1).

        Returns
        -------
        (float, float)
            The lower and the upper end.
        """
        from scipy.special import ndtri

        reach = float(ndtri((1 + real("confidence", confidence, 1)) / 2))
        seen, count = self.auc, (len(self.members) + len(self.others)) / 2

        def too_far(auc: float) -> bool:
            # Hanley and McNeil's variance for exponential scores, with equal numbers of both.
            spread = 1 + (count - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
            variance = auc * (1 - auc) * spread / (len(self.members) * len(self.others))
            return abs(seen - auc) > reach * math.sqrt(max(variance, 0.0))

        ends = []
        for outside in (0.0, 1.0):
            inside = seen
            if not too_far(outside):
                ends.append(outside)
                continue
            for _ in range(_HALVINGS):
                middle = (inside + outside) / 2
                if too_far(middle):
                    outside = middle
                else:
                    inside = middle
            ends.append(outside)
        return ends[0], ends[1]

    def _rank(self, fpr: float) -> int:
        """How many of the others may score above the threshold."""
        smallest = 1 / len(self.others)
        if not smallest * (1 - 1e-9) <= between("fpr", fpr):
            raise ValueError(
                f"fpr is {fpr!r}: with {len(self.others)} other records give a rate from "
                f"{smallest:.3g} to 1; lower rates need more records"
            )
        return int(fpr * len(self.others) + 1e-9)

    def tpr(self, fpr: float) -> float:
        """True positive rate at the threshold that has at most this false positive rate.

        Parameters
        ----------
        fpr : float
            From 1/(number of others), the smallest rate that they can show, to 1.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For a rate that so few others cannot show.
        """
        allowed = self._rank(fpr)
        if allowed >= len(self.others):
            return 1.0
        cut = np.sort(self.others)[::-1][allowed]
        return float((self.members > cut).mean())

    def tpr_interval(self, fpr: float, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the true positive rate at false positive rate `fpr`.

        The threshold is uncertain too: its rank is moved until its false positive rate is surely
        below, or above, `fpr` (Beta laws), and the true positive rate there has an exact binomial
        bound (Clopper-Pearson). Each of the four has a quarter of the error; on the safe side.

        Parameters
        ----------
        fpr : float
            As for `tpr`.
        confidence : float
            In (0, 1).

        Returns
        -------
        (float, float)
            The lower and the upper end.
        """
        from scipy.special import betaincinv

        self._rank(fpr)
        alpha = (1 - real("confidence", confidence, 1)) / 4
        descending, count = np.sort(self.others)[::-1], len(self.others)
        ranks = np.arange(count)
        largest = betaincinv(ranks + 1, count - ranks, 1 - alpha)
        smallest = betaincinv(ranks + 1, count - ranks, alpha)
        low, high = 0.0, 1.0
        below, above = ranks[largest <= fpr], ranks[smallest >= fpr]
        members = len(self.members)
        if len(below):
            hits = int((self.members > descending[below[-1]]).sum())
            low = float(betaincinv(hits, members - hits + 1, alpha)) if hits else 0.0
        if len(above):
            hits = int((self.members >= descending[above[0]]).sum())
            high = float(betaincinv(hits + 1, members - hits, 1 - alpha)) if hits < members else 1.0
        return low, high

    def statement(self, fpr: float = 0.1, confidence: float = 0.95) -> str:
        """What the attack achieved, in words, with its uncertainty.

        Parameters
        ----------
        fpr : float
            As for `tpr`.
        confidence : float
            In (0, 1).

        Returns
        -------
        str
        """
        low, high = self.auc_interval(confidence)
        least, most = self.tpr_interval(fpr, confidence)
        verdict = "better than a coin"
        if low <= 0.5 <= high:
            verdict = "not told apart from a coin, which is no proof of safety"
        elif high < 0.5:
            verdict = "worse than a coin: turn its scores round"
        auc, found, alarms = (f"{100 * value:.3g}" for value in (self.auc, self.tpr(fpr), fpr))
        auc_range = f"{down(100 * low, 3)} to {up(100 * high, 3)}"
        found_range = f"{down(100 * least, 3)} to {up(100 * most, 3)} %"
        return (
            "Of a record that was in and one that was not, the attack ranks the first higher in "
            f"{auc} of 100 cases ({auc_range} with {down(100 * confidence, 3)} % confidence): "
            f"{verdict}. At {alarms} false alarms in 100 it finds {found} % of the members "
            f"({found_range}); a coin would find {alarms} %. From {len(self.members)} members and "
            f"{len(self.others)} others."
        )

    def plot(self, ax: Any = None) -> Any:
        """True against false positive rates, on logarithmic axes; returns the axes.

        Parameters
        ----------
        ax : Axes, optional
            None: new ones.

        Returns
        -------
        Axes
        """
        from fldp.plotting import axes

        ax = axes(ax)
        ax.step(*curve_of(self.members, self.others), where="post", label=f"AUC {self.auc:.3f}")
        # From the smallest rate that the other records can show; logarithms know no zero.
        ends = (1 / len(self.others), 1.0)
        ax.plot(ends, ends, ":", label="a coin")
        ax.set(
            xscale="log", yscale="log", xlabel="false positive rate", ylabel="true positive rate"
        )
        ax.legend()
        return ax


def record_losses(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """Cross-entropy of each record.

    Parameters
    ----------
    model : nn.Module
        A classifier.
    x, y : Tensor
        Records (n, ...) and labels (n,).

    Returns
    -------
    numpy.ndarray
        (n,).

    Examples
    --------
    >>> record_losses(nn.Identity(), torch.zeros(1, 2), torch.tensor([0])).round(3)
    array([0.693])
    """
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none").double().cpu().numpy()


def membership(
    model: nn.Module, members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
) -> Membership:
    """Loss threshold on the global model (Yeom et al. 2018): members have the smaller losses.

    Parameters
    ----------
    model : nn.Module
        The attacked model.
    members, others : (Tensor, Tensor)
        (x, y) each: records that were, and that were not, in the training data. They should be
        alike in all else: what distinguishes them otherwise is read as membership.

    Returns
    -------
    Membership

    Examples
    --------
    >>> from torch import nn
    >>> sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> label = torch.tensor([0])
    >>> membership(nn.Identity(), (sure, label), (unsure, label)).auc
    1.0
    """
    return Membership(-record_losses(model, *members), -record_losses(model, *others))


def update_membership(
    model: nn.Module,
    update: object,
    members: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    *,
    per_label: bool = False,
) -> Membership:
    """Membership in one client's data from its single update, by first-order likelihood.

    The score of a record is the inner product of the update with its own descent direction at
    `model`, the weights that the client started from, over that direction's norm.

    An update tells which labels a client has, and so does this score: where the members' labels are
    not those of the others (label skew), the attack reads the label, and finds records of the same
    labels that never were in the update almost as surely. With `per_label=True` each score is
    ranked among the other records of its own label only.

    Parameters
    ----------
    model : nn.Module
        It holds the weights that the client started from.
    update : object
        The client's update, in any structure, in the clear or released.
    members, others : (Tensor, Tensor)
        (x, y) each.
    per_label : bool
        Replace each score by its rank among the others of its label.

    Returns
    -------
    Membership

    Raises
    ------
    ValueError
        For an update of another size, and a label of the members that no other record has.

    Examples
    --------
    >>> from fldp.audit.attacks import simulate
    >>> model = nn.Linear(20, 2)
    >>> nn.utils.vector_to_parameters(torch.zeros(42), model.parameters())
    >>> members = (torch.eye(20)[:10], torch.arange(10) % 2)
    >>> others = (torch.eye(20)[10:], torch.arange(10) % 2)
    >>> update = simulate(model, *members, lr=0.1)
    >>> update_membership(model, update, members, others).auc
    1.0
    """
    target = flat(update).float()
    layout = shapes(model)
    start = flatten(model)
    if target.numel() != start.numel():
        raise ValueError(f"the update has {target.numel()} entries, the model {start.numel()}")

    def loss(now: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, views(now, layout), (x[None],)), y[None])

    def scores(x: Tensor, y: Tensor) -> np.ndarray:
        slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(start, x, y)
        return (-(slopes @ target) / slopes.norm(dim=1).clamp(min=1e-12)).double().cpu().numpy()

    inside, outside = scores(*members), scores(*others)
    if per_label:
        labels = (members[1].cpu().numpy(), others[1].cpu().numpy())
        inside, outside = _within_labels(inside, outside, *labels)
    return Membership(inside, outside)


def _within_labels(
    inside: np.ndarray, outside: np.ndarray, inside_labels: np.ndarray, outside_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each score as the share of the others of its label that it exceeds; ties count half."""
    members = np.empty(len(inside))
    others = np.empty(len(outside))
    # Where labels differ between members and others, only ranks within one tell of membership.
    for label in np.unique(np.concatenate([inside_labels, outside_labels])):
        usual = np.sort(outside[outside_labels == label])
        if len(usual) == 0:
            raise ValueError(f"no other record has label {label}: per_label needs some of each")
        for shares, scores, labels in (
            (members, inside, inside_labels),
            (others, outside, outside_labels),
        ):
            own = scores[labels == label]
            below = np.searchsorted(usual, own)
            up_to = np.searchsorted(usual, own, "right")
            shares[labels == label] = (below + up_to) / 2 / len(usual)
    return members, others


def likelihood_ratio(
    observed: Array, shadow_scores: Array, shadow_in: Array, truth: Array, floor: float = 1e-3
) -> Membership:
    """Likelihood ratio with shadow runs (LiRA, Carlini et al. 2022).

    Each record gets the log ratio of two fitted Gaussians.

    Parameters
    ----------
    observed : array
        (n,) scores in the attacked run or update.
    shadow_scores : array
        (s, n) the score of every record in s shadow runs.
    shadow_in : array
        (s, n) which records each run was trained on, 0 or 1.
    truth : array
        (n,) the members of the attacked run, 0 or 1.
    floor : float
        The smallest standard deviation that is fitted, above 0.

    Returns
    -------
    Membership

    Raises
    ------
    ValueError
        For shapes that do not fit, scores that are not finite, and too few shadow runs.

    Examples
    --------
    >>> inside = np.arange(8)[:, None] % 2 == np.arange(4) % 2
    >>> shadow = inside + np.arange(8)[:, None] / 100
    >>> seen = np.array([1.0, 0.0, 1.0, 0.0])
    >>> likelihood_ratio(seen, shadow, inside, seen).auc
    1.0
    """
    real("floor", floor)
    scores = np.asarray(shadow_scores, float)
    inside = _bits("shadow_in", shadow_in)
    seen = np.asarray(observed, float)
    member = _bits("truth", truth)
    if scores.shape != inside.shape or scores.shape[1:] != seen.shape or seen.shape != member.shape:
        raise ValueError("need scores and members (s, n), observed and truth (n,)")
    if not (np.isfinite(scores).all() and np.isfinite(seen).all()):
        raise ValueError("scores must be finite: a shadow run or the attacked one diverged")
    if min(inside.sum(0).min(), (~inside).sum(0).min()) < 2:
        raise ValueError("every record needs two shadow runs with and two without it: run more")
    log_ratio = np.zeros(len(seen))
    # Each record is measured against the runs with it, and against those without it.
    for group, sign in ((inside, 1.0), (~inside, -1.0)):
        values = np.where(group, scores, np.nan)
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0, ddof=1)
        std = np.maximum(std, floor)
        log_ratio += sign * (-np.log(std) - 0.5 * ((seen - mean) / std) ** 2)
    return Membership(log_ratio[member], log_ratio[~member])


def _bits(name: str, values: Array) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1 (False and True), nothing else")
    return array.astype(bool)


def shadow_runs(
    run: Callable[[np.ndarray, int], object], records: int, runs: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (runs, records) and members (runs, records): each record is in each run by a coin.

    Parameters
    ----------
    run : callable
        `run(members, seed)` trains on the records that the Boolean mask selects and returns the
        scores of all records: `-record_losses` of a model, or the scores of one update.
    records, runs : int
        How many.
    seed : int
        Of the coins; run i is called with seed + i.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Scores and members.

    Raises
    ------
    ValueError
        Where `run` returns another number of scores.

    Examples
    --------
    >>> scores, inside = shadow_runs(lambda members, seed: members * 1.0, 5, 3)
    >>> scores.shape, bool((scores == inside).all())
    ((3, 5), True)
    """
    shape = (whole("runs", runs), whole("records", records))
    inside = np.random.default_rng(seed).random(shape) < 0.5
    scores = np.stack([np.asarray(run(mask, seed + i), float) for i, mask in enumerate(inside)])
    if scores.shape != inside.shape:
        raise ValueError(f"run returned {scores.shape[1:]} scores for {records} records")
    return scores, inside
