"""Gradients of many clients' models in one pass: one batched kernel per layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp.simulation.isolation import is_plain

Views = Mapping[str, Tensor]
Op = Callable[[Tensor, Views, int], Tensor]
Back = Callable[[Tensor, Views, float, bool], Tensor | None]

_ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Identity,
)  # fmt: skip
_SMALL = 1 << 18  # entries of all clients' weights of one layer
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class Unsupported(Exception):
    """The stacked kernels do not know a layer of this model."""


def _inert(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0


class Stacked:
    """Linear, Conv2d, pooling, GroupNorm, LayerNorm and elementwise layers in `nn.Sequential`.

    Flat activations are (c, B, features). Images are (B, c * channels, h, w) in channels_last
    memory, so that one grouped convolution serves all clients. Linear layers have their backward
    written out, because it can add into `target` without holding a gradient; the layers between two
    of them are one autograd graph. Raises Unsupported for any other model. None of these layers
    keeps state, so clients share nothing.
    """

    single = False

    def __init__(self, model: nn.Module, record: Tensor) -> None:
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
        self.steps: list[tuple[list[str], Op | None]] = []  # None stands for Linear
        odd = [name for name, module in model.named_modules() if not is_plain(module)]
        if odd:
            raise Unsupported(f"{odd[0] or 'the model'!r} has hooks, or is not torch's own")
        self.image = record.ndim == 4
        if record.ndim not in (2, 4):
            raise Unsupported(f"records of shape {tuple(record.shape[1:])}")
        layers = [m for m in _flatten(model) if not _inert(m)]
        self.activations = record.numel()  # of one record, in all layers
        with torch.no_grad():
            for layer in layers:
                before, record = record.shape, layer(record)
                self._add(layer, before)
                self.activations += record.numel()
        owned = [id(p) for layer in layers for p in layer.parameters()]
        if record.ndim != 2 or len(owned) != len(set(owned)):
            raise Unsupported("tied parameters, or an output that is not (records, labels)")

    def renew(self) -> None:
        """Nothing to renew: no layer here keeps anything."""

    def _add(self, layer: nn.Module, before: torch.Size) -> None:
        names = [self.names[id(p)] for p in layer.parameters()]
        if type(layer) is nn.Linear and len(before) == 2:
            self.steps.append((names, None))
            return
        op = _op(layer, before, names)
        if self.steps and self.steps[-1][1] is not None:
            earlier, first = self.steps.pop()
            self.steps.append((earlier + names, _chain(first, op) if first else op))
        else:
            self.steps.append((names, op))

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Tensor, y: Tensor, share: Tensor
    ) -> None:
        p = dict(weights)
        for name, value in self.frozen.items():
            p[name] = value.expand(len(y), *value.shape)
        h, tape = x, list[tuple[list[str], Back]]()
        if self.image:
            h = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        for names, op in self.steps:
            run = _linear(h, p, names) if op is None else _graph(op, h, p, names, target, len(y))
            h, back = run
            tape.append((names, back))
        g: Tensor | None = _slope(h, y, share)
        while tape:
            names, back = tape.pop()
            assert g is not None
            g = back(g, target, scale, bool(tape))


def _linear(h: Tensor, p: Views, names: list[str]) -> tuple[Tensor, Back]:
    w = p[names[0]]

    def back(g: Tensor, target: Views, scale: float, deeper: bool) -> Tensor | None:
        below = torch.bmm(g, w) if deeper else None  # before w itself may change
        if names[0] in target:
            into = target[names[0]]
            if into.numel() > _SMALL:
                into.baddbmm_(g.mT, h, alpha=scale)
            else:  # small strided outputs are faster in two steps
                into.add_(torch.bmm(g.mT, h), alpha=scale)
        if names[-1] in target and len(names) == 2:
            target[names[1]].add_(g.sum(1), alpha=scale)
        return below

    if len(names) == 2:
        return torch.baddbmm(p[names[1]].unsqueeze(1), h, w.mT), back
    return torch.bmm(h, w.mT), back


def _graph(
    op: Op, h: Tensor, p: Views, names: list[str], target: Views, c: int
) -> tuple[Tensor, Back]:
    wanted = [n for n in names if n in target]
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        own = {n: p[n].detach().requires_grad_(n in target) for n in names}
        out = op(leaf, own, c)

    def back(g: Tensor, target: Views, scale: float, deeper: bool) -> Tensor | None:
        leaves = [own[n] for n in wanted] + ([leaf] if deeper else [])
        found = torch.autograd.grad(out, leaves, g) if leaves else ()
        for name, part in zip(wanted, found, strict=False):
            target[name].add_(part, alpha=scale)
        return found[-1] if deeper else None

    return out.detach(), back


def _flatten(model: nn.Module) -> list[nn.Module]:
    if type(model) is nn.Sequential:
        return [layer for child in model for layer in _flatten(child)]
    return [model]


def _chain(first: Op, second: Op) -> Op:
    return lambda h, p, c: second(first(h, p, c), p, c)


def _slope(logits: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """Derivative of the sum of weighted cross-entropies in the logits, (c, B, labels)."""
    g = logits.sub(logits.amax(-1, keepdim=True)).exp_()  # few labels: torch.softmax is slower
    g.div_(g.sum(-1, keepdim=True))
    g.scatter_add_(-1, y.unsqueeze(-1), torch.full_like(g[..., :1], -1.0))
    return g.mul_(share.unsqueeze(-1))


def _op(layer: nn.Module, before: torch.Size, names: list[str]) -> Op:
    """One layer, not Linear, on stacked activations; raises Unsupported."""
    kind, image = type(layer), len(before) == 4
    any_layer: Any = layer
    if kind in _ELEMENTWISE or _inert(layer):
        if getattr(layer, "inplace", False):
            any_layer = copy.copy(layer)
            any_layer.inplace = False
        return lambda h, p, c: any_layer(h)
    if kind in _POOLS and image and not getattr(layer, "return_indices", False):
        return lambda h, p, c: any_layer(h)
    if kind is nn.Conv2d and image and any_layer.padding_mode == "zeros":
        return lambda h, p, c: F.conv2d(
            h, p[names[0]].flatten(0, 1), p[names[1]].flatten() if len(names) == 2 else None,
            any_layer.stride, any_layer.padding, any_layer.dilation, c * any_layer.groups,
        )  # fmt: skip
    if kind is nn.Flatten and (any_layer.start_dim, any_layer.end_dim) == (1, -1):
        if not image:
            return lambda h, p, c: h
        return lambda h, p, c: h.unflatten(1, (c, -1)).flatten(2).transpose(0, 1)
    if kind is nn.Unflatten and not image and any_layer.dim == 1:
        shape = tuple(any_layer.unflattened_size)
        if len(shape) == 3:
            return lambda h, p, c: (
                h.unflatten(2, shape).transpose(0, 1).flatten(1, 2)
                .contiguous(memory_format=torch.channels_last)
            )  # fmt: skip
    if kind is nn.GroupNorm:
        groups, eps = any_layer.num_groups, any_layer.eps
        if image:
            return lambda h, p, c: F.group_norm(
                h, c * groups, p[names[0]].flatten() if names else None,
                p[names[1]].flatten() if names else None, eps,
            )  # fmt: skip
        return lambda h, p, c: _affine(
            F.group_norm(h.flatten(0, 1), groups, eps=eps).view_as(h), [p[n] for n in names]
        )
    if kind is nn.LayerNorm and tuple(any_layer.normalized_shape) == tuple(before[1:]):
        shape, eps = before[1:], any_layer.eps
        if not image:
            return lambda h, p, c: _affine(F.layer_norm(h, shape, eps=eps), [p[n] for n in names])
        return lambda h, p, c: _affine(
            F.layer_norm(h.unflatten(1, (c, -1)).transpose(0, 1), shape, eps=eps),
            [p[n] for n in names],
        ).transpose(0, 1).flatten(1, 2)  # fmt: skip
    raise Unsupported(f"{kind.__name__} on records of shape {tuple(before[1:])}")


def _affine(h: Tensor, parts: list[Tensor]) -> Tensor:
    """h (c, B, *shape) times and plus the clients' own factors and offsets (c, *shape)."""
    for i, part in enumerate(parts):
        h = h + part.unsqueeze(1) if i else h * part.unsqueeze(1)
    return h
