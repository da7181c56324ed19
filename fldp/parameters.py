"""One flat vector for a model: the form in which updates are clipped, summed and released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Shapes = tuple[tuple[str, torch.Size, int], ...]


def shapes(model: nn.Module) -> Shapes:
    """Name, shape and size of every trainable parameter, in ``named_parameters`` order.

    Buffers and frozen parameters are not part of an update. A shared (tied) parameter counts once.

    >>> shapes(nn.Linear(2, 3))
    (('weight', torch.Size([3, 2]), 6), ('bias', torch.Size([3]), 3))
    """
    return tuple((n, p.shape, p.numel()) for n, p in model.named_parameters() if p.requires_grad)


def flatten(model: nn.Module) -> Tensor:
    """A copy of the trainable parameters as one vector of shape (d,)."""
    parts = [p.detach().reshape(-1) for p in model.parameters() if p.requires_grad]
    if not parts:
        raise ValueError("the model has no trainable parameter: nothing to flatten")
    return torch.cat(parts)


def load_(model: nn.Module, flat: Tensor) -> nn.Module:
    """Write the vector `flat` of shape (d,) into the trainable parameters; returns the model."""
    layout = shapes(model)
    parts = views(flat, layout)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(parts[name])
    return model


def views(flat: Tensor, layout: Sequence[tuple[str, torch.Size, int]]) -> Mapping[str, Tensor]:
    """Named views into `flat` of shape (..., d); leading dimensions are kept, nothing is copied.

    Raises ValueError when d differs from the layout's total.
    """
    total = sum(size for _, _, size in layout)
    if flat.shape[-1] != total:
        raise ValueError(f"the vector has {flat.shape[-1]} entries, the model needs {total}")
    parts = flat.split([size for _, _, size in layout], dim=-1)
    return {n: p.unflatten(-1, s) if len(s) else p.squeeze(-1)
            for (n, s, _), p in zip(layout, parts, strict=True)}  # fmt: skip
