"""What an adversary reads from a model update or a model: images, labels, membership.

An attack that fails proves no safety: a better one may succeed. These show what an update gives
away without protection, and where the same attack dies with it. Each takes any update: in the
clear, clipped, or the mean of a noised release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fldp.neighbours import flat
from fldp.parameters import flatten, shapes, views

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Inversion:
    """Images (k, ...) read from updates, the attacker's own `scores` (k,), higher is surer, and the
    labels (k,) that were used or found; `history` is the mismatch over the iterations."""

    images: Tensor
    scores: Tensor
    labels: Tensor | None = None
    history: list[float] = field(default_factory=list, repr=False)

    def psnr(self, originals: Tensor) -> Tensor:
        """Peak signal-to-noise ratio in dB against the true images in [0, 1], shape (k,)."""
        gap = (self.images.clamp(0, 1) - originals.reshape(self.images.shape)).flatten(1)
        return -10 * gap.square().mean(1).clamp(min=1e-12).log10()

    def read(self, predict: Predict, truth: Tensor) -> float:
        """Share of the images whose label a classifier (images to labels) reads correctly."""
        return float((torch.as_tensor(predict(self.images)) == truth).double().mean())

    def plot(self, originals: Tensor | None = None, count: int = 8) -> Any:
        """The first `count` images, above them the originals if given; returns the figure."""
        from fldp.plotting import digits_grid

        rows = [] if originals is None else [originals[:count].reshape(self.images[:count].shape)]
        count = min(count, len(self.images))
        return digits_grid(torch.cat([*rows, self.images[:count].clamp(0, 1)]), columns=count)


def invert_linear(weight: Any, bias: Any) -> Inversion:
    """Read the input of a linear layer from the update of weight and bias; exact for one record.

    Every row of the weight's gradient is the input times that row's bias gradient: their quotient
    is the input itself, however many local steps were taken on it; several records come out as a
    weighted mean. `weight` (..., classes, f) and `bias` (..., classes) are updates of one or many
    clients; rows are combined by least squares, the best use of noisy ones.

    >>> x = torch.tensor([0.25, 1.0]); slope = torch.tensor([0.5, -0.5])
    >>> invert_linear(torch.outer(slope, x), slope).images
    tensor([[0.2500, 1.0000]])
    """
    w, b = torch.as_tensor(weight), torch.as_tensor(bias)
    if w.ndim < 2 or w.shape[:-1] != b.shape:
        raise ValueError(f"weight {tuple(w.shape)} and bias {tuple(b.shape)} do not fit")
    w, b = w.reshape(-1, *w.shape[-2:]), b.reshape(-1, b.shape[-1])
    power = b.square().sum(1)
    if bool((power == 0).any()):
        raise ValueError("a bias update is exactly zero: nothing was learned, nothing can be read")
    return Inversion((b[:, :, None] * w).sum(1) / power[:, None], power.sqrt())


def infer_labels(bias: Any, count: int = 1, lr: float | None = None) -> tuple[Tensor, Tensor]:
    """The labels in a client's data from its update of the last layer's bias: (labels, scores).

    Under cross-entropy a class gains bias in proportion to its share of the data less the mean
    predicted probability, so the largest entries are the labels. With one step at a known `lr` the
    counts themselves follow (for an untrained model); else the top `count` classes are returned.
    """
    scores = torch.as_tensor(bias).detach().flatten().double()
    if count < 1:
        raise ValueError(f"count is {count}: at least one label must be asked for")
    if lr is None:
        return scores.topk(min(count, len(scores))).indices, scores
    left = (scores / lr + 1 / len(scores)) * count
    found = []
    for _ in range(count):
        found.append(int(left.argmax()))
        left[found[-1]] -= 1
    return torch.tensor(found), scores


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of images (..., h, w): the prior."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def simulate(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int = 1) -> Tensor:
    """The update (d,) of `steps` full-batch steps of SGD on (x, y), differentiable in x and y.

    `y` holds class indices, or logits of shape (n, classes) for labels that are not known yet.
    """
    layout, start = shapes(model), flatten(model)
    now = start.clone().requires_grad_(True)
    target = y if y.ndim == 1 else y.softmax(-1)
    for _ in range(steps):
        loss = F.cross_entropy(functional_call(model, views(now, layout), (x,)), target)
        now = now - lr * torch.autograd.grad(loss, now, create_graph=True)[0]
    return now - start


def invert(
    model: nn.Module,
    update: Any,
    shape: tuple[int, ...],
    *,
    lr: float,
    steps: int = 1,
    labels: Tensor | None = None,
    prior: float = 1e-5,
    iterations: int = 300,
    restarts: int = 1,
    rate: float = 0.1,
    seed: int = 0,
) -> Inversion:
    """Search the images whose simulated local training gives `update` (Geiping et al. 2020).

    Minimises 1 - cosine between simulated and given update plus `prior` times the total variation,
    by Adam over images in [0, 1] of `shape` (n, channels, h, w). `model` holds the weights that the
    client started from; `lr` and `steps` are its full-batch local training; `labels` (n,) if known,
    else they are searched too. The best of `restarts` random starts is returned.
    """
    target = flat(update).float()
    if target.numel() != flatten(model).numel():
        raise ValueError(
            f"the update has {target.numel()} entries, the model {flatten(model).numel()}"
        )
    if not bool(torch.isfinite(target).all()) or not bool(target.any()):
        raise ValueError("the update is zero or not finite: there is nothing to read")
    rng, found = torch.Generator().manual_seed(seed), []
    for _ in range(max(1, restarts)):
        raw = (0.5 * torch.randn(shape, generator=rng)).requires_grad_(True)
        free = torch.zeros_like(model(raw.detach())).requires_grad_(labels is None)
        wanted = [raw, free] if labels is None else [raw]
        optimiser = torch.optim.Adam(wanted, lr=rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
        history = []
        for _ in range(iterations):
            guess = simulate(model, raw.sigmoid(), free if labels is None else labels, lr, steps)
            mismatch = 1 - F.cosine_similarity(guess, target, dim=0)
            history.append(float(mismatch.detach()))
            goal = mismatch + prior * total_variation(raw.sigmoid())
            for leaf, slope in zip(wanted, torch.autograd.grad(goal, wanted), strict=True):
                leaf.grad = slope
            optimiser.step()
            decay.step()
        classes = free.detach().argmax(1) if labels is None else labels
        scores = torch.full((shape[0],), 1 - history[-1])
        found.append(Inversion(raw.detach().sigmoid(), scores, classes, history))
    return min(found, key=lambda f: f.history[-1])


@dataclass(frozen=True)
class Membership:
    """Scores of records that were, and that were not, in the training data; higher says "was".

    `fldp.audit.from_scores` makes a bound of independent ones; records of one model are not.
    """

    members: np.ndarray
    others: np.ndarray

    def __post_init__(self) -> None:
        both = np.concatenate([self.members, self.others])
        if not len(self.members) or not len(self.others) or not np.isfinite(both).all():
            raise ValueError("finite scores of at least one member and one other record are needed")
        if np.ptp(both) == 0:
            raise ValueError("all scores are equal: the attack reads nothing")

    @property
    def auc(self) -> float:
        """Probability that a member scores above another record; 0.5 is a coin."""
        order = np.sort(self.others)
        below = np.searchsorted(order, self.members, "left").mean()
        return float(below + np.searchsorted(order, self.members, "right").mean()) / 2 / len(order)

    def tpr(self, fpr: float) -> float:
        """True positive rate at the threshold that has at most this false positive rate."""
        allowed = int(fpr * len(self.others))
        cut = np.sort(self.others)[::-1][min(allowed, len(self.others) - 1)]
        return float((self.members > cut).mean())

    def plot(self, ax: Any = None) -> Any:
        """True against false positive rates, on logarithmic axes; returns the axes."""
        from fldp.plotting import axes

        ax = axes(ax)
        rates = np.arange(1, len(self.others) + 1) / len(self.others)
        ax.step(rates, [self.tpr(r) for r in rates], label=f"AUC {self.auc:.3f}")
        ax.plot(rates, rates, ":", label="a coin")
        ax.set(
            xscale="log", yscale="log", xlabel="false positive rate", ylabel="true positive rate"
        )
        ax.legend()
        return ax


def record_losses(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """Cross-entropy of each record, shape (n,)."""
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none").double().cpu().numpy()


def membership(
    model: nn.Module, members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
) -> Membership:
    """Loss threshold on the global model (Yeom et al. 2018): members have the smaller losses."""
    return Membership(-record_losses(model, *members), -record_losses(model, *others))


def update_membership(
    model: nn.Module,
    update: Any,
    members: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
) -> Membership:
    """Membership in one client's data from its single update, by first-order likelihood.

    The score of a record is the inner product of the update with its own descent direction at
    `model`, the weights that the client started from, over that direction's norm.
    """
    target, layout, start = flat(update).float(), shapes(model), flatten(model)

    def loss(now: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, views(now, layout), (x[None],)), y[None])

    def scores(x: Tensor, y: Tensor) -> np.ndarray:
        slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(start, x, y)
        return (-(slopes @ target) / slopes.norm(dim=1).clamp(min=1e-12)).double().cpu().numpy()

    return Membership(scores(*members), scores(*others))


def likelihood_ratio(
    observed: Any, shadow_scores: Any, shadow_in: Any, truth: Any, floor: float = 1e-3
) -> Membership:
    """Likelihood ratio with shadow runs (LiRA, Carlini et al. 2022).

    `shadow_scores` (s, n): the score of every record in s shadow runs; `shadow_in` (s, n) says
    which records each run was trained on; `observed` (n,) are the scores in the attacked run or
    update, `truth` (n,) its members. Each record gets the log ratio of two fitted Gaussians.
    """
    scores, inside = np.asarray(shadow_scores, float), np.asarray(shadow_in, bool)
    seen, member = np.asarray(observed, float), np.asarray(truth, bool)
    if scores.shape != inside.shape or scores.shape[1:] != seen.shape or seen.shape != member.shape:
        raise ValueError("need scores and members (s, n), observed and truth (n,)")
    if min(inside.sum(0).min(), (~inside).sum(0).min()) < 2:
        raise ValueError("every record needs two shadow runs with and two without it: run more")
    log_ratio = np.zeros(len(seen))
    for group, sign in ((inside, 1.0), (~inside, -1.0)):
        values = np.where(group, scores, np.nan)
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0, ddof=1)
        std = np.maximum(std, floor)
        log_ratio += sign * (-np.log(std) - 0.5 * ((seen - mean) / std) ** 2)
    return Membership(log_ratio[member], log_ratio[~member])


def shadow_runs(
    run: Callable[[np.ndarray, int], Any], records: int, runs: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (runs, records) and members (runs, records): each record is in each run by a coin.

    `run(members, seed)` trains on the records that the Boolean mask selects and returns the scores
    of all records: `-record_losses` of a model, or the scores of one update.
    """
    inside = np.random.default_rng(seed).random((runs, records)) < 0.5
    scores = np.stack([np.asarray(run(mask, seed + i), float) for i, mask in enumerate(inside)])
    if scores.shape != inside.shape:
        raise ValueError(f"run returned {scores.shape[1:]} scores for {records} records")
    return scores, inside
