"""Gradients of many clients' models in one pass: three engines with one interface.

`engine.accumulate(weights, target, scale, x, y, share)` adds `scale` times the gradient of each
client's weighted cross-entropy to `target`. Weights and target are named views (c, *shape) of a
matrix (c, d), one row per client; x is (c, B, ...), y and share are (c, B). `share` is 1/n for each
of a client's n records in the batch and 0 on padding, which stands at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Views = Mapping[str, Tensor]
Op = Callable[[Tensor, Views, int], Tensor]
Back = Callable[[Tensor, Views, float, bool], Tensor | None]

_ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Identity,
)  # fmt: skip
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Working set per chunk, in bytes: what stays in the last-level cache of a CPU, what fills a GPU.
_BUDGET = {"cpu": 12 << 20, "cuda": 1 << 30}


# Above this many parameters the loop is as fast as `torch.func`, in less memory.
_VMAP_LIMIT = 100_000


class Unsupported(Exception):
    """The stacked kernels do not know a layer of this model."""


def _inert(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0


class Stacked:
    """Linear, Conv2d, pooling, GroupNorm, LayerNorm and elementwise layers in `nn.Sequential`.

    Flat activations are (c, B, features). Images are (B, c * channels, h, w) in channels_last
    memory, so that one grouped convolution serves all clients. Linear layers have their backward
    written out, because it can add into `target` without holding a gradient; the layers between two
    of them are one autograd graph. Raises Unsupported for any other model.
    """

    random = False

    def __init__(self, model: nn.Module, record: Tensor) -> None:
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
        self.steps: list[tuple[list[str], Op | None]] = []  # None stands for Linear
        self.image = record.ndim == 4
        if record.ndim not in (2, 4):
            raise Unsupported(f"records of shape {tuple(record.shape[1:])}")
        layers = [m for m in _flatten(model) if not _inert(m)]
        with torch.no_grad():
            for layer in layers:
                if layer._forward_hooks or layer._forward_pre_hooks:
                    raise Unsupported("forward hooks")
                before, record = record.shape, layer(record)
                self._add(layer, before)
        owned = [id(p) for layer in layers for p in layer.parameters()]
        if record.ndim != 2 or len(owned) != len(set(owned)):
            raise Unsupported("tied parameters, or an output that is not (records, labels)")

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
            target[names[0]].baddbmm_(g.mT, h, alpha=scale)
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
    g = torch.softmax(logits, -1)
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
                h,
                c * groups,
                p[names[0]].flatten() if names else None,
                p[names[1]].flatten() if names else None,
                eps,
            )
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
    if parts:
        h = h * parts[0].unsqueeze(1)
    return h + parts[1].unsqueeze(1) if len(parts) == 2 else h


class Vmapped:
    """Any module that `torch.func` can batch over clients."""

    random = False

    def __init__(self, model: nn.Module) -> None:
        def loss(p: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
            out = functional_call(model, p, (x,))
            return (F.cross_entropy(out, y, reduction="none") * share).sum()

        self._grad = vmap(grad(loss))

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Tensor, y: Tensor, share: Tensor
    ) -> None:
        found = self._grad(dict(weights), x, y, share)
        for name, part in found.items():
            target[name].add_(part, alpha=scale)


class Loop:
    """One client after the other on an ordinary module: for any model, and for large ones."""

    random = True  # a layer may draw random numbers, which are then seeded per client

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Tensor, y: Tensor, share: Tensor
    ) -> None:
        leaves = list(self.parameters.values())
        for i, count in enumerate((share > 0).sum(1).tolist()):
            for name, leaf in self.parameters.items():
                leaf.data = weights[name][i]
            with torch.enable_grad():
                loss = F.cross_entropy(self.model(x[i, :count]), y[i, :count])
                found = torch.autograd.grad(loss, leaves, allow_unused=True)
            for name, part in zip(self.parameters, found, strict=True):
                if part is not None:
                    target[name][i].add_(part, alpha=scale)


def choose(
    model: nn.Module, flat: Tensor, record: Tensor, batch: int, name: str, extra: bool
) -> tuple[Any, int]:
    """The engine for `model` and how many clients to train at once.

    `record` is (1, ...), `batch` records make a step, `name` is "auto" or an engine, `extra` says
    that gradients are held beside the weights. Stacked kernels where they exist; else `torch.func`
    while weights are small; else the loop, also for layers that draw random numbers.
    """
    if name not in ("auto", "stacked", "vmap", "loop"):
        raise ValueError(f"engine is {name!r}; use 'auto', 'stacked', 'vmap' or 'loop'")
    record = record.to(flat)
    model = copy.deepcopy(model).train()
    random = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p for m in model.modules())
    if name == "loop" or (name == "auto" and random):
        return Loop(model), 1
    engine: Any = None
    if name in ("auto", "stacked"):
        try:
            engine = Stacked(model, record)
        except Unsupported as reason:
            if name == "stacked":
                text = f"no stacked kernel for this model ({reason}): use engine='vmap'"
                raise ValueError(text) from None
    if engine is None:
        if name == "auto" and (flat.numel() > _VMAP_LIMIT or not _batches(model, flat, record)):
            return Loop(model), 1
        engine = Vmapped(model)
    copies = 4 if extra else 2
    one = 4 * (copies * flat.numel() + 2 * batch * _activations(model, record))
    return engine, max(1, min(512, _BUDGET[flat.device.type] // one))


def _activations(model: nn.Module, record: Tensor) -> int:
    """Entries of all layers' outputs for one record."""
    found = [record.numel()]
    hooks = [
        m.register_forward_hook(
            lambda m, i, out: found.append(out.numel() if isinstance(out, Tensor) else 0)
        )
        for m in model.modules()
        if not list(m.children())
    ]
    with torch.no_grad():
        model(record)
    for hook in hooks:
        hook.remove()
    return sum(found)


def _batches(model: nn.Module, flat: Tensor, record: Tensor) -> bool:
    """Whether `torch.func` can batch this module: tried on two clients of one record."""
    weights = {n: p.detach().expand(2, *p.shape) for n, p in model.named_parameters()
               if p.requires_grad}  # fmt: skip
    target = {n: torch.zeros_like(p) for n, p in weights.items()}
    x, share = record.expand(2, *record.shape), flat.new_ones(2, 1)
    try:
        Vmapped(model).accumulate(weights, target, 1.0, x, share.long() * 0, share)
    except Exception:  # whatever the module raises, the loop still runs it
        return False
    return True
