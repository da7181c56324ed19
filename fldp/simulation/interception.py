"""What torch's functions are replaced by while clients train: dropout, recurrence, attention.

A model calls functions of torch, whatever its layers. Some of them draw random numbers, which must
be a client's own; some `torch.func` cannot batch over clients, or slowly. They are replaced where
torch lets one intercept calls, so that a user's own layers are served like torch's.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fldp.simulation import kernels, recurrent
from fldp.simulation.keyed import Masks

# A function on stacked tensors (c, ...), with one or several of them as a result.
Kernel = Callable[..., Any]
# What stands in for a function: (interception, function, arguments...).
Standin = Callable[..., Any]

# Fixed point of SELU: α' of Klambauer et al. (2017), section 3.
_ALPHA = 1.7580993408473766


class _Stacked(torch.autograd.Function):
    """Leaves torch.func's batching: the kernel sees all clients' tensors, in ordinary autograd."""

    generate_vmap_rule = False

    @staticmethod
    def forward(kernel: Kernel, anchor: Tensor, *parts: Tensor) -> Any:
        raise RuntimeError("clients are not batched here")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise RuntimeError("clients are not batched here")

    @staticmethod
    def vmap(info: Any, dims: Any, kernel: Kernel, anchor: Tensor, *parts: Tensor) -> Any:
        if dims[1] is None:
            raise RuntimeError("the model calls torch.func itself")
        rows = [
            part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)
            for part, dim in zip(parts, dims[2:], strict=True)
        ]
        found = kernel(*rows)
        return found, 0 if isinstance(found, Tensor) else (0,) * len(found)


class Interception(TorchFunctionMode):
    """A block in which a model's calls of torch are replaced where clients need it.

    Parameters
    ----------
    masks : Masks
        What dropout keeps.
    anchor : Tensor, optional
        Under `torch.func.vmap` over clients: a tensor that is batched. None: one client by itself.
    """

    def __init__(self, masks: Masks, anchor: Tensor | None = None) -> None:
        super().__init__()
        self.masks = masks
        self.anchor = anchor
        self.replaced = set[str]()

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        standin = _STANDINS.get(func)
        if standin is None:
            return func(*args, **(kwargs or {}))
        return standin(self, func, *args, **(kwargs or {}))

    @property
    def together(self) -> bool:
        """Whether clients are batched."""
        return self.anchor is not None

    def run(self, kernel: Kernel, *parts: Tensor) -> Any:
        """A kernel on the clients' stacked tensors; one client's own are a stack of one."""
        if self.anchor is not None:
            return _Stacked.apply(kernel, self.anchor, *parts)
        found = kernel(*(part.unsqueeze(0) for part in parts))
        return found.squeeze(0) if isinstance(found, Tensor) else [f.squeeze(0) for f in found]

    def dropped(self, x: Tensor, p: float, alpha: bool = False, shape: Any = None) -> Tensor:
        """Dropout with the clients' own masks.

        Parameters
        ----------
        x : Tensor
            Activations.
        p : float
            The chance that an entry is dropped.
        alpha : bool
            Whether as `nn.AlphaDropout` does it.
        shape : tuple of int, optional
            Of a mask that broadcasts. None: that of `x`.
        """
        self.replaced.add("dropout")
        if p == 1:
            return x * 0
        shape = tuple(x.shape if shape is None else shape)
        return self.run(partial(_masked, masks=self.masks, shape=shape, p=p, alpha=alpha), x)


def _masked(x: Tensor, masks: Masks, shape: tuple[int, ...], p: float, alpha: bool) -> Tensor:
    keep = masks.keep(len(x), shape, p)
    if not alpha:
        return x * keep.to(x.dtype).mul_(1 / (1 - p))
    # Dropped entries get the negative saturation; mean and variance stay (ibid., appendix).
    spread = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    return torch.where(keep, x, -_ALPHA) * spread + _ALPHA * spread * p


def _dropout(
    mode: Interception, func: Any, x: Tensor, p: float = 0.5, training: bool = True,
    inplace: bool = False, *, alpha: bool = False, dims: int | None = None, kept: int = 2,
) -> Tensor:  # fmt: skip
    """`dims`: of one record of a feature dropout, with its channels; `kept`: leading dimensions."""
    if not training or p == 0 or not 0 <= p <= 1:
        return func(x, p, training, inplace)
    shape = None
    if dims is not None:
        kept = 1 if x.ndim == dims else kept
        shape = (*x.shape[:kept], *[1] * (x.ndim - kept))
    found = mode.dropped(x, p, alpha, shape)
    return x.copy_(found) if inplace else found
