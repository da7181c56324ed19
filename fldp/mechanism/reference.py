"""The same release in slow motion: one parameter at a time, three steps, nothing hidden.

These functions are for reading, and for the tests that hold `aggregation` equal to them. Release
with `fldp.aggregate`: here nobody refuses a NaN, and sums round as floating-point sums do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fldp._moved import renamed
from fldp.mechanism.noise import check_scale, gaussian_

Update = Mapping[str, Tensor]


@renamed(norm="clip_norm")
def clip_each(updates: Sequence[Update], clip_norm: float) -> list[dict[str, Tensor]]:
    """Step 1: scale every update down to joint norm C, all parameters by one factor.

    Parameters
    ----------
    updates : sequence of mappings
        Tensors by name, one mapping a client.
    clip_norm : float
        C.

    Returns
    -------
    list of dict
        The clipped updates.

    Examples
    --------
    >>> update = {"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    >>> (one,) = clip_each([update], 1.0)
    >>> round(float(one["w"]), 4), round(float(one["b"]), 4)
    (0.6, 0.8)
    """
    clipped = []
    # In float64, as a reader would check it by hand.
    for update in updates:
        norm = sum(float((tensor.double() ** 2).sum()) for tensor in update.values()) ** 0.5
        factor = 1.0
        if norm > clip_norm:
            factor = clip_norm / norm
        clipped.append({name: tensor * factor for name, tensor in update.items()})
    return clipped


def add_up(updates: Sequence[Update]) -> dict[str, Tensor]:
    """Step 2: sum each parameter over the clients.

    Parameters
    ----------
    updates
        Clipped, as `clip_each` returns them; at least one.

    Returns
    -------
    dict
        The sum of each parameter, by name.

    Examples
    --------
    >>> add_up([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}])["w"]
    tensor([3.])
    """
    return {name: torch.stack([u[name] for u in updates]).sum(dim=0) for name in updates[0]}


def add_noise(
    total: Update, std: float, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Step 3: add N(0, std²) to each parameter of the sum.

    Parameters
    ----------
    total : mapping
        The sum, by name.
    std : float
        σ = z·C.
    generator : torch.Generator, optional
        None takes the noise from the operating system.

    Returns
    -------
    dict
        The noised sum of each parameter, by name.

    Examples
    --------
    >>> noised = add_noise({"w": torch.zeros(10_000)}, 2.0)["w"]
    >>> 1.8 < float(noised.std()) < 2.2
    True
    """
    return {name: gaussian_(tensor.clone(), std, generator) for name, tensor in total.items()}


@renamed(norm="clip_norm")
def private_mean(
    updates: Sequence[Update],
    *,
    clip_norm: float,
    noise_multiplier: float,
    denominator: float,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The three steps, then the division by a public number.

    Parameters
    ----------
    updates
        As for `clip_each`.
    clip_norm, noise_multiplier : float
        C and z.
    denominator : float
        A public number: m, never the realised count.
    generator : torch.Generator, optional
        As for `add_noise`.

    Returns
    -------
    dict
        The noised mean of each parameter, by name.

    Examples
    --------
    >>> updates = [{"w": torch.tensor([3.0, 4.0])}]
    >>> mean = private_mean(updates, clip_norm=1.0, noise_multiplier=1e-9,
    ...                     denominator=1)
    >>> [round(x, 4) for x in mean["w"].tolist()]
    [0.6, 0.8]
    """
    total = add_up(clip_each(updates, clip_norm))
    noisy = add_noise(total, noise_multiplier * clip_norm, generator)
    return {name: tensor / denominator for name, tensor in noisy.items()}


def laplace_(out: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Add independent Laplace noise of the given scale b (variance 2b²) to `out` in place.

    The scale S/ε makes a value of L1 sensitivity S ε-differentially private (Dwork et al. 2006). A
    Laplace variable is the difference of two exponentials, each half the squared length of a pair
    of standard normals. Not for a plan: plans account Gaussian noise.

    Parameters
    ----------
    out : Tensor
        Floating-point, of any shape.
    scale : float
        b.
    generator : torch.Generator, optional
        None takes the noise from the operating system.

    Returns
    -------
    Tensor
        `out`.

    Raises
    ------
    ValueError
        For a scale at which the noise would vanish or overflow in the dtype of `out`.

    Examples
    --------
    >>> x = laplace_(torch.zeros(10_000), 2.0)
    >>> 1.8 < float(x.abs().mean()) < 2.2
    True
    """
    check_scale(scale, out.dtype)
    for sign in (scale, -scale):
        first = gaussian_(torch.zeros_like(out), 1.0, generator)
        second = gaussian_(torch.zeros_like(out), 1.0, generator)
        out.add_(first.square_().add_(second.square_()), alpha=sign / 2)
    return out
