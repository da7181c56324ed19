"""The same release in slow motion: one parameter at a time, three steps, nothing hidden.

These functions are for reading, and for the tests that hold `aggregation` equal to them. Release
with `fldp.aggregate`: here nobody refuses a NaN, and sums round as floating-point sums do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fldp.mechanism.noise import check_scale, gaussian_

Update = Mapping[str, Tensor]


def clip_each(updates: Sequence[Update], norm: float) -> list[dict[str, Tensor]]:
    """Step 1: scale every update down to joint norm `norm`, all parameters by one factor."""
    clipped = []
    for update in updates:
        total = sum(float((tensor.double() ** 2).sum()) for tensor in update.values()) ** 0.5
        factor = min(1.0, norm / total) if total > 0 else 1.0
        clipped.append({name: tensor * factor for name, tensor in update.items()})
    return clipped


def add_up(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Step 2: sum each parameter over the clients."""
    return {name: torch.stack([u[name] for u in updates]).sum(dim=0) for name in updates[0]}


def add_noise(
    total: Update, std: float, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Step 3: add N(0, std²) to each parameter of the sum."""
    return {name: gaussian_(tensor.clone(), std, generator) for name, tensor in total.items()}


def private_mean(
    updates: Sequence[Update],
    *,
    norm: float,
    noise_multiplier: float,
    denominator: float,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The three steps, then the division by a public number.

    >>> mean = private_mean([{"w": torch.tensor([3.0, 4.0])}], norm=1.0, noise_multiplier=1e-9,
    ...                     denominator=1)
    >>> [round(x, 4) for x in mean["w"].tolist()]
    [0.6, 0.8]
    """
    noisy = add_noise(add_up(clip_each(updates, norm)), noise_multiplier * norm, generator)
    return {name: tensor / denominator for name, tensor in noisy.items()}


def laplace_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Add independent Laplace noise of the given scale b (variance 2b²) to `out` in place.

    The scale S/ε makes a value of L1 sensitivity S ε-differentially private (Dwork et al. 2006). A
    Laplace variable is the difference of two exponentials, each half the squared length of a pair
    of standard normals. Not for a plan: plans account Gaussian noise. ValueError for a scale at
    which the noise would vanish or overflow in the dtype of `out`.

    >>> x = laplace_(torch.zeros(10_000), 2.0)
    >>> 1.8 < float(x.abs().mean()) < 2.2
    True
    """
    check_scale(scale, out.dtype)
    for sign in (scale, -scale):
        a, b = (gaussian_(torch.zeros_like(out), 1.0, generator) for _ in range(2))
        out.add_(a.square_().add_(b.square_()), alpha=sign / 2)
    return out
