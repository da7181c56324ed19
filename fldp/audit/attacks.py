"""What an adversary reads from a model update or a model: images, labels, membership.

An attack that fails proves no safety: a better one may succeed. These show what an update gives
away without protection, and where the same attack dies with it. Each takes any update: in the
clear, clipped, or the mean of a noised release.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fldp._checks import between, real, whole
from fldp.audit.canaries import flat
from fldp.audit.membership import (
    Membership,
    likelihood_ratio,
    membership,
    record_losses,
    shadow_runs,
    update_membership,
)
from fldp.mechanism.updates import flatten, shapes, views
from fldp.simulation.clients import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Inversion",
    "Membership",
    "infer_labels",
    "invert",
    "invert_linear",
    "likelihood_ratio",
    "matched_filter",
    "membership",
    "record_losses",
    "shadow_runs",
    "simulate",
    "total_variation",
    "update_membership",
]

# In ten times a decimal logarithm.
_DECIBELS = 10
# A squared error below this counts as none.
_EXACT = 1e-12


@dataclass(frozen=True)
class Inversion:
    """Images that were read from updates.

    Parameters
    ----------
    images : Tensor
        (k, ...).
    scores : Tensor
        The attacker's own (k,), higher is surer.
    labels : Tensor, optional
        (k,) that were used or found; None: the attack knows of none.
    history : list of float
        The mismatch over the iterations.

    Examples
    --------
    >>> truth = torch.tensor([[0.0, 1.0]])
    >>> found = Inversion(images=truth.clone(), scores=torch.ones(1))
    >>> found.psnr(truth)
    tensor([120.])
    """

    images: Tensor
    scores: Tensor
    labels: Tensor | None = None
    history: list[float] = field(default_factory=list, repr=False)

    def psnr(self, originals: Tensor) -> Tensor:
        """Peak signal-to-noise ratio in dB, at most 120.

        Parameters
        ----------
        originals : Tensor
            The true images (k, ...) in [0, 1].

        Returns
        -------
        Tensor
            (k,).
        """
        gap = (self.images.clamp(0, 1) - originals.reshape(self.images.shape)).flatten(1)
        return -_DECIBELS * gap.square().mean(1).clamp(min=_EXACT).log10()

    def read(self, predict: Callable[[Tensor], Tensor], truth: Tensor) -> float:
        """Share of the images whose label a classifier reads correctly.

        Parameters
        ----------
        predict : callable
            From images (k, ...) to labels (k,).
        truth : Tensor
            The true labels (k,).

        Returns
        -------
        float
        """
        return float((torch.as_tensor(predict(self.images)) == truth).double().mean())

    def plot(self, originals: Tensor | None = None, count: int = 8) -> Figure:
        """Draw the first images.

        Parameters
        ----------
        originals : Tensor, optional
            The true images, drawn above them. None: none.
        count : int
            How many.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from fldp.plotting import digits_grid

        count = min(count, len(self.images))
        found = self.images[:count]
        rows = [found.clamp(0, 1)]
        if originals is not None:
            rows.insert(0, originals[:count].reshape(found.shape))
        return digits_grid(torch.cat(rows), columns=count)


def invert_linear(weight: Array, bias: Array) -> Inversion:
    """Read the input of a linear layer from the update of weight and bias; exact for one record.

    Every row of the weight's gradient is the input times that row's bias gradient: their quotient
    is the input itself, however many local steps were taken on it; several records come out as a
    weighted mean. Rows are combined by least squares, the best use of noisy ones.

    Parameters
    ----------
    weight : Tensor or array
        The updates (..., classes, f) of one or many clients.
    bias : Tensor or array
        (..., classes).

    Returns
    -------
    Inversion
        Images (clients, f).

    Raises
    ------
    ValueError
        For shapes that do not fit, and where nothing was learned.

    Examples
    --------
    >>> x = torch.tensor([0.25, 1.0]); slope = torch.tensor([0.5, -0.5])
    >>> invert_linear(torch.outer(slope, x), slope).images
    tensor([[0.2500, 1.0000]])
    """
    w = torch.as_tensor(weight)
    b = torch.as_tensor(bias)
    if w.ndim < 2 or w.shape[:-1] != b.shape:
        raise ValueError(f"weight {tuple(w.shape)} and bias {tuple(b.shape)} do not fit")
    w = w.reshape(-1, *w.shape[-2:])
    b = b.reshape(-1, b.shape[-1])
    power = b.square().sum(1)
    if bool((power == 0).any()):
        raise ValueError("a bias update is exactly zero: nothing was learned, nothing can be read")
    return Inversion((b[:, :, None] * w).sum(1) / power[:, None], power.sqrt())


def infer_labels(bias: Array, count: int = 1, lr: float | None = None) -> tuple[Tensor, Tensor]:
    """The labels in a client's data, from its update of the last layer's bias.

    Under cross-entropy a class gains bias in proportion to its share of the data less the mean
    predicted probability, so the largest entries are the labels. With one step at a known `lr` the
    counts themselves follow (for an untrained model); else the top classes are returned.

    Parameters
    ----------
    bias : Tensor or array
        The update (classes,).
    count : int
        How many labels are asked for.
    lr : float, optional
        The learning rate of the one step that was made. None: not known.

    Returns
    -------
    (Tensor, Tensor)
        Labels, and scores (classes,).

    Raises
    ------
    ValueError
        For a count below 1, and an update that is not finite.

    Examples
    --------
    >>> step = 0.1 * (torch.tensor([0.0, 1.0, 0.0]) - 1 / 3)  # one record of class 1
    >>> infer_labels(step, count=1, lr=0.1)[0]
    tensor([1])
    """
    scores = torch.as_tensor(bias).detach().flatten().double()
    if count < 1:
        raise ValueError(f"count is {count}: at least one label must be asked for")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the bias update is not finite: nothing can be read from it")
    if lr is None:
        return scores.topk(min(count, len(scores))).indices, scores
    # One full-batch step adds lr · (share of the class - mean predicted probability).
    left = (scores / real("lr", lr) + 1 / len(scores)) * count
    found = []
    for _ in range(count):
        found.append(int(left.argmax()))
        left[found[-1]] -= 1
    return torch.tensor(found), scores


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of images (..., h, w): the prior.

    Parameters
    ----------
    images : Tensor
        (..., h, w).

    Returns
    -------
    Tensor
        A number.

    Examples
    --------
    >>> total_variation(torch.ones(1, 8, 8)), total_variation(torch.eye(2))
    (tensor(0.), tensor(2.))
    """
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def simulate(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int = 1) -> Tensor:
    """The update of full-batch steps of SGD on some records, differentiable in them.

    Parameters
    ----------
    model : nn.Module
        It holds the weights that training starts from.
    x : Tensor
        Records (n, ...).
    y : Tensor
        Class indices (n,), or logits (n, classes) for labels that are not known yet.
    lr : float
        The learning rate.
    steps : int
        How many.

    Returns
    -------
    Tensor
        (d,).

    Raises
    ------
    ValueError
        For settings out of range, and records and labels of different length.

    Examples
    --------
    >>> x, y = torch.ones(3, 4), torch.tensor([0, 1, 1])
    >>> update = simulate(nn.Linear(4, 2), x, y, lr=0.1)
    >>> update.shape
    torch.Size([10])
    """
    real("lr", lr)
    whole("steps", steps)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} records but {len(y)} labels")
    layout = shapes(model)
    start = flatten(model)
    now = start.clone().requires_grad_(True)
    target = y if y.ndim == 1 else y.softmax(-1)
    for _ in range(steps):
        loss = F.cross_entropy(functional_call(model, views(now, layout), (x,)), target)
        now = now - lr * torch.autograd.grad(loss, now, create_graph=True)[0]
    return now - start


def invert(
    model: nn.Module,
    update: object,
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
    by Adam over images in [0, 1]. The best of several random starts is returned.

    Parameters
    ----------
    model : nn.Module
        It holds the weights that the client started from.
    update : object
        The client's update, in any structure.
    shape : tuple of int
        Of the images (n, channels, h, w).
    lr, steps
        The client's full-batch local training, see `simulate`.
    labels : Tensor, optional
        (n,) if known. None: they are searched too.
    prior : float
        The weight of the total variation; 0: none.
    iterations, restarts : int
        Steps of the search, and how many random starts it has.
    rate : float
        The search's learning rate at first; it falls to 0 along a cosine.
    seed : int
        Of the starts.

    Returns
    -------
    Inversion
        Its scores are the cosine that was reached.

    Raises
    ------
    ValueError
        For an update that does not fit the model, is zero or not finite.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> image, label = torch.rand(1, 1, 4, 4), torch.tensor([2])
    >>> update = simulate(model, image, label, lr=0.1)
    >>> found = invert(model, update, image.shape, lr=0.1, labels=label,
    ...                iterations=100)
    >>> float(found.scores) > 0.9
    True
    """
    target = flat(update).float()
    if target.numel() != flatten(model).numel():
        raise ValueError(
            f"the update has {target.numel()} entries, the model {flatten(model).numel()}"
        )
    if not bool(torch.isfinite(target).all()) or not bool(target.any()):
        raise ValueError("the update is zero or not finite: there is nothing to read")
    between("prior", prior, math.inf)
    real("rate", rate)
    whole("iterations", iterations)
    whole("restarts", restarts)
    generator = torch.Generator().manual_seed(seed)

    def search() -> Inversion:
        raw = (0.5 * torch.randn(shape, generator=generator)).requires_grad_(True)
        free = torch.zeros_like(model(raw.detach())).requires_grad_(labels is None)
        wanted = [raw, free] if labels is None else [raw]
        optimiser = torch.optim.Adam(wanted, lr=rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
        history = []
        # Images behind a sigmoid stay in [0, 1]; labels, where they are sought, are logits.
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
        return Inversion(raw.detach().sigmoid(), scores, classes, history)

    return min((search() for _ in range(restarts)), key=lambda found: found.history[-1])


def matched_filter(
    releases: Array, templates: Array, taken_part: Array | None = None
) -> tuple[Tensor, Tensor]:
    """Which template a client's update follows, from releases that contain it.

    The best reader of a sum with Gaussian noise: releases are added up, and each template is scored
    by its inner product with the sum less half of what it would contribute itself. An outsider adds
    up all rounds; someone who knows when the client took part adds up only those. Templates are,
    for instance, the mean clipped updates of public records of each label.

    Parameters
    ----------
    releases : array
        (T, d), or (n, T, d) for n clients: sums, or means times the public denominator.
    templates : array
        (k, d), what the client would contribute to a sum in a round it takes part in.
    taken_part : array, optional
        (T,) or (n, T) of 0 and 1: the rounds that are known to contain the client. None: all
        rounds are added up, and all are expected to contain it.

    Returns
    -------
    (Tensor, Tensor)
        The choices, a number or (n,), and the scores, (k,) or (n, k).

    Raises
    ------
    ValueError
        For shapes that do not fit.

    Examples
    --------
    >>> templates = torch.eye(3)
    >>> matched_filter(torch.tensor([[0.1, 0.9, -0.2]]), templates)[0]
    tensor(1)
    """
    seen = torch.as_tensor(releases).double()
    wanted = torch.as_tensor(templates).double()
    if seen.ndim not in (2, 3) or wanted.ndim != 2 or seen.shape[-1] != wanted.shape[-1]:
        raise ValueError(
            f"releases {tuple(seen.shape)} and templates {tuple(wanted.shape)} do not fit: give "
            "(T, d) or (n, T, d), and (k, d)"
        )
    weights = torch.ones(seen.shape[:-1], dtype=torch.float64)
    if taken_part is not None:
        weights = torch.as_tensor(taken_part).double()
        if weights.shape != seen.shape[:-1]:
            raise ValueError(f"taken_part must have the shape {tuple(seen.shape[:-1])}")
    total = (seen * weights[..., None]).sum(-2)
    # ‖template‖²/2 for each round that it is expected in: the log-likelihood, up to the noise.
    share = weights.sum(-1, keepdim=True) * wanted.square().sum(1) / 2
    scores = total @ wanted.T - share
    return scores.argmax(-1), scores
