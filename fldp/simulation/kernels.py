"""torch's functions for many clients at once: tensors with a leading dimension of c clients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# From this many entries of one client's records in a convolution, torch's own on each client is as
# fast as one with groups for all (measured on a CPU, kernels of 3 x 3).
_LARGE_IMAGES = 50_000


def shared(part: Tensor) -> bool:
    """Whether all clients have the same entries, because these were expanded.

    Parameters
    ----------
    part : Tensor
        (c, ...).

    Returns
    -------
    bool
    """
    return len(part) > 1 and part.stride(0) == 0


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of each client: one batched product.

    Parameters
    ----------
    x : Tensor
        (c, ..., inputs).
    weight, bias : Tensor
        (c, outputs, inputs) and (c, outputs).

    Returns
    -------
    Tensor
        (c, ..., outputs).
    """
    if shared(weight) and (bias is None or shared(bias)):
        return F.linear(x, weight[0], None if bias is None else bias[0])
    rows = x.reshape(len(x), -1, x.shape[-1])
    if bias is None:
        found = torch.bmm(rows, weight.mT)
    else:
        found = torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
    return found.view(*x.shape[:-1], weight.shape[1])


def convolution(
    function: Callable[..., Tensor],
    settings: tuple[Any, ...],
    named: dict[str, Any],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """A convolution of each client.

    Parameters
    ----------
    function : callable
        `F.conv1d`, `F.conv2d` or `F.conv3d`.
    settings, named : tuple and dict
        Its arguments behind the bias: stride, padding, dilation and groups.
    x : Tensor
        Images (c, B, channels, ...).
    weight, bias : Tensor
        (c, outputs, inputs, ...) and (c, outputs).

    Returns
    -------
    Tensor
        (c, B, outputs, ...).
    """
    c = len(x)
    if shared(weight) and (bias is None or shared(bias)):
        flat = x.flatten(0, 1)
        found = function(flat, weight[0], None if bias is None else bias[0], *settings, **named)
        return found.unflatten(0, (c, -1))
    if x[0].numel() >= _LARGE_IMAGES:
        biases = [None] * c if bias is None else bias.unbind()
        rows = zip(x.unbind(), weight.unbind(), biases, strict=True)
        return torch.stack([function(*own, *settings, **named) for own in rows])
    # Groups are the fourth setting: those of every client are groups of their own.
    options = dict(zip(("stride", "padding", "dilation", "groups"), settings, strict=False)) | named
    options["groups"] = c * options.get("groups", 1)
    beside = x.transpose(0, 1).flatten(1, 2)
    every = None if bias is None else bias.flatten()
    found = function(beside, weight.flatten(0, 1), every, **options)
    return found.unflatten(1, (c, -1)).transpose(0, 1)


def embedding(ids: Tensor, weight: Tensor, padding: int | None = None) -> Tensor:
    """`F.embedding` of each client: one look-up in all of their tables.

    torch.func has one as well, which reads the table of the next client where a word lies beyond
    its own, and moves the words that are padding.

    Parameters
    ----------
    ids : Tensor
        Words (c, ...).
    weight : Tensor
        Tables (c, words, width).
    padding : int, optional
        A word, from 0, whose row does not move.

    Returns
    -------
    Tensor
        (c, ..., width).

    Raises
    ------
    IndexError
        For a word that is not in its client's table, as torch's own.
    """
    c, words = weight.shape[:2]
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < words:
        raise IndexError("index out of range in self")
    begin = torch.arange(0, c * words, words, device=ids.device)
    places = ids + begin.view(c, *[1] * (ids.ndim - 1))
    found = F.embedding(places, weight.flatten(0, 1))
    if padding is None:
        return found
    return torch.where((ids == padding).unsqueeze(-1), found.detach(), found)


def group_norm(groups: int, eps: float, x: Tensor) -> Tensor:
    """The groups of each client's channels, (c, B, channels, ...), without factors and offsets."""
    return F.group_norm(x.flatten(0, 1).contiguous(), groups, eps=eps).view(x.shape)


def attention(
    settings: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`F.scaled_dot_product_attention` of all clients in one call, without dropout.

    Parameters
    ----------
    settings : dict
        Further arguments of torch's function.
    q, k, v : Tensor
        (c, ..., heads, T, width), with the same leading dimensions.
    mask : Tensor, optional
        (c, ...): what each client's mask is.

    Returns
    -------
    Tensor
    """
    lead = q.shape[:-2]
    if mask is not None:
        mask = _beside(mask, q)
        # The fused kernel takes four dimensions.
        mask = mask.expand(*lead[:-1], *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])
    first, second, third = (part.reshape(-1, *part.shape[-3:]) for part in (q, k, v))
    found = F.scaled_dot_product_attention(first, second, third, attn_mask=mask, **settings)
    return found.view(*lead, *found.shape[-2:])


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None, settings: dict[str, Any]
) -> Tensor:
    """The softmax in an attention, for what torch's fused kernel cannot do between it and v.

    Parameters
    ----------
    q, k : Tensor
        (..., heads, T, width) and (..., heads, S, width).
    mask : Tensor, optional
        Which entries count, or what is added to them.
    settings : dict
        Further arguments of torch's function.

    Returns
    -------
    Tensor
        (..., heads, T, S).
    """
    scale = settings.get("scale")
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = (q * factor) @ k.mT
    if settings.get("is_causal"):
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~past, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    # Rows that see nothing are zero, as in torch's own.
    return torch._safe_softmax(scores, -1)


def repeated(part: Tensor, like: Tensor, settings: dict[str, Any]) -> Tensor:
    """Keys or values (..., heads, S, width), each head as often as `enable_gqa` asks."""
    if not settings.get("enable_gqa"):
        return part
    return part.repeat_interleave(like.shape[-3] // part.shape[-3], -3)


def _beside(mask: Tensor, like: Tensor) -> Tensor:
    """A client's mask (c, ...) with as many dimensions as `like`."""
    missing = like.ndim - mask.ndim
    return mask.reshape(len(mask), *[1] * missing, *mask.shape[1:])
