"""What torch's functions are replaced by while clients train: dropout, recurrence, attention.

A model calls functions of torch, whatever its layers. Some of them draw random numbers, which must
be a client's own; some `torch.func` cannot batch over clients, or slowly. They are replaced where
torch lets one intercept calls, so that a user's own layers are served like torch's.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
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
        return self.run(partial(masked, masks=self.masks, shape=shape, p=p, alpha=alpha), x)


def masked(x: Tensor, masks: Masks, shape: tuple[int, ...], p: float, alpha: bool) -> Tensor:
    """Dropout of all clients.

    Parameters
    ----------
    x : Tensor
        Activations (c, ...).
    masks : Masks
        What is kept.
    shape : tuple of int
        Of one client's mask; it broadcasts.
    p : float
        The chance of an entry to be dropped, in (0, 1).
    alpha : bool
        Whether as `nn.AlphaDropout` does it.

    Returns
    -------
    Tensor
    """
    keep = masks.keep(len(x), shape, p)
    if not alpha:
        return x * keep.to(x.dtype).mul_(1 / (1 - p))
    # Dropped entries get the negative saturation; mean and variance stay (ibid., appendix).
    spread = 1 / math.sqrt((_ALPHA**2 * p + 1) * (1 - p))
    return torch.where(keep, x, -_ALPHA) * spread + _ALPHA * spread * p


def _dropout(
    mode: Interception,
    func: Any,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not _drops(p, training):
        return func(input, p, training, inplace)
    return _into(input, mode.dropped(input, p), inplace)


def _alpha_dropout(
    mode: Interception,
    func: Any,
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    if not _drops(p, training):
        return func(input, p, training, inplace)
    return _into(input, mode.dropped(input, p, alpha=True), inplace)


def _feature_dropout(
    dims: int | None,
    alpha: bool,
    mode: Interception,
    func: Any,
    input: Tensor,
    p: float = 0.5,
    training: bool | None = None,
    inplace: bool = False,
) -> Tensor:
    """Whole channels at once; with `dims` dimensions there is one record, of no leading one."""
    # torch's default is to train, save for alpha dropout.
    wanted = not alpha if training is None else training
    if not _drops(p, wanted):
        return func(input, p, wanted, inplace)
    kept = 1 if input.ndim == dims else 2
    shape = (*input.shape[:kept], *[1] * (input.ndim - kept))
    return _into(input, mode.dropped(input, p, alpha, shape), inplace)


def _drops(p: float, training: bool) -> bool:
    """Whether there is anything to draw; torch refuses what is no probability."""
    return training and 0 < p <= 1


def _into(x: Tensor, found: Tensor, inplace: bool) -> Tensor:
    return x.copy_(found) if inplace else found


def _recurrent(mode: Interception, func: Any, *args: Any) -> Any:
    """`torch.lstm`, `gru` and their kin, one layer after the other."""
    call = recurrent.Call(func, args)
    drops = call.layers > 1 and _drops(call.p, call.train)
    if (call.sizes and mode.together) or not (drops or mode.together):
        return func(*args)
    data = call.data
    ends = []
    for number in range(call.layers):
        if number and drops:
            data = mode.dropped(data, call.p)
        parts = call.layer(number)
        if mode.together:
            data, *last = mode.run(call.together, data, *parts)
        else:
            data, *last = call.alone(data, *parts)
        ends.append(last)
    return data, *(torch.cat(parts) for parts in zip(*ends, strict=True))


def _cell(
    mode: Interception,
    func: Any,
    input: Tensor,
    hx: Any,
    into: Tensor,
    across: Tensor,
    *biases: Tensor | None,
) -> Any:
    """One step of `nn.LSTMCell` and its kin."""
    if not mode.together:
        return func(input, hx, into, across, *biases)
    state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    first, second = biases or (None, None)
    given = _linear(mode, F.linear, input, into, first)
    moved = _linear(mode, F.linear, state[0], across, second)
    kind = func.__name__.removesuffix("_cell")
    found = recurrent.step(kind, given, moved if kind == "gru" else given + moved, state)
    return found if len(found) > 1 else found[0]


def _linear(
    mode: Interception, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if not mode.together:
        return func(input, weight, bias)
    given = (input, weight) if bias is None else (input, weight, bias)
    return mode.run(kernels.linear, *given)


def _matmul(mode: Interception, func: Any, input: Tensor, other: Tensor) -> Tensor:
    # A matrix of weights on its right serves all leading dimensions at once.
    if mode.together and isinstance(other, Tensor) and other.ndim == 2 and input.ndim >= 2:
        return mode.run(kernels.linear, input, other.mT)
    return func(input, other)


def _convolution(
    mode: Interception,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *settings: Any,
    **named: Any,
) -> Tensor:
    if not mode.together or input.ndim != weight.ndim:
        return func(input, weight, bias, *settings, **named)
    given = (input, weight) if bias is None else (input, weight, bias)
    return mode.run(partial(kernels.convolution, func, settings, named), *given)


def _attention(
    mode: Interception,
    func: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **named: Any,
) -> Tensor:
    settings = {"is_causal": is_causal, **named}
    if _drops(dropout_p, training=True):
        key = kernels.repeated(key, query, settings)
        value = kernels.repeated(value, query, settings)
        weights = kernels.attention_weights(query, key, attn_mask, settings)
        return mode.dropped(weights, dropout_p) @ value
    alike = query.shape[:-3] == key.shape[:-3] == value.shape[:-3]
    if not mode.together or not alike:
        return func(query, key, value, attn_mask, dropout_p, is_causal, **named)
    given = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    return mode.run(partial(kernels.attention, settings), *given)


def _multi_head(mode: Interception, func: Any, *args: Any, **named: Any) -> Any:
    """Written in Python: what it calls is intercepted in turn."""
    with mode:
        return _unguarded(func)(*args, **named)


@cache
def _unguarded(func: types.FunctionType) -> types.FunctionType:
    """The function without its own question whether somebody intercepts it: it would not end."""
    names = func.__globals__ | {"has_torch_function": lambda given: False}
    copied = types.FunctionType(func.__code__, names, func.__name__, func.__defaults__)
    copied.__kwdefaults__ = func.__kwdefaults__
    return copied


def _embedding(
    mode: Interception,
    func: Any,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if not mode.together:
        return func(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise RuntimeError("an embedding with these settings serves one client at a time")
    padding = None if padding_idx is None else padding_idx % len(weight)
    return mode.run(partial(kernels.embedding, padding=padding), input, weight)


def _look_up(
    mode: Interception,
    func: Any,
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`torch.embedding`, in which no word is padding where it says -1."""
    if not mode.together:
        return func(weight, indices, padding_idx, scale_grad_by_freq, sparse)
    padding = None if padding_idx < 0 else padding_idx
    settings = {"scale_grad_by_freq": scale_grad_by_freq, "sparse": sparse}
    return _embedding(mode, func, indices, weight, padding, **settings)


def _group_norm(
    mode: Interception,
    func: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *settings: Any,
) -> Tensor:
    """torch 2.13 crashes in the backward pass of a group norm on images that store their channels
    last, where the images themselves need no gradient.
    """
    if not mode.together:
        if not input.requires_grad:
            mode.replaced.add("group norm")
            input = input.contiguous()
        return func(input, num_groups, weight, bias, eps, *settings)
    found = mode.run(partial(kernels.group_norm, num_groups, eps), input)
    shape = (-1, *[1] * (input.ndim - 2))
    if weight is not None:
        found = found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


_STANDINS: dict[Any, Standin] = {
    F.dropout: _dropout,
    F.alpha_dropout: _alpha_dropout,
    # Two dimensions: (channels, length); four: (channels, depth, height, width).
    F.dropout1d: partial(_feature_dropout, 2, False),
    F.dropout2d: partial(_feature_dropout, None, False),
    F.dropout3d: partial(_feature_dropout, 4, False),
    F.feature_alpha_dropout: partial(_feature_dropout, None, True),
    F.linear: _linear,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head,
    F.embedding: _embedding,
    torch.embedding: _look_up,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
}
_STANDINS |= dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _recurrent)
_STANDINS |= dict.fromkeys(
    (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell), _cell
)
_STANDINS |= dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution)
_STANDINS |= dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), _matmul)
