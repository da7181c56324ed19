"""Gradients of many clients' models in one pass: one batched kernel per layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from fldp.simulation.inputs import Records
from fldp.simulation.interception import masked
from fldp.simulation.isolation import is_plain, oddities
from fldp.simulation.keyed import Masks
from fldp.simulation.objective import Objective

Views = Mapping[str, Tensor]
# A layer on stacked activations: (activations, all clients' parameters, how many clients).
Op = Callable[[Tensor, Views, int], Tensor]
# Its backward pass: (slope, target, scale, whether the slope below is needed) -> the slope below.
Back = Callable[[Tensor, Views, float, bool], Tensor | None]

# Up to so many entries of all clients' weights of one layer, two steps are faster than one.
_SMALL = 1 << 18
# Dimensions of a batch of feature vectors, and of images (records, channels, height, width).
_FEATURES, _IMAGES = 2, 4

# Layers of torch that treat every client's maps, or every entry, by itself: nothing to stack.
_POOLS = "MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d"
_ELEMENTWISE = (
    "ReLU LeakyReLU ELU SELU CELU GELU SiLU Mish Tanh Sigmoid Softplus Softsign Hardtanh ReLU6 "
    "Hardswish Identity"
)
_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)


class Unsupported(Exception):
    """The stacked kernels do not know a layer of this model: which."""


@dataclass(frozen=True)
class _Step:
    """Layers that are walked back at once: their parameters, and None for a Linear.

    `bare` says that a group norm on images stands where nothing before it is trained.
    """

    names: list[str]
    op: Op | None
    bare: bool = False


class Stacked:
    """Linear, Conv2d, pooling, norms, dropout and elementwise layers in `nn.Sequential`.

    Flat activations are (c, B, features). Images are (B, c * channels, h, w) in channels_last
    memory, so that one grouped convolution serves all clients. Linear layers have their backward
    written out, because it can add into `target` without holding a gradient; the layers between two
    of them are one autograd graph. None of these layers keeps state, so clients share nothing.

    Parameters
    ----------
    model : nn.Module
        The prepared model.
    like : Records
        The form in which the model takes records.
    objective : Objective
        The loss.

    Raises
    ------
    Unsupported
        For any other model, and for a loss of outputs that are not (records, labels).
    """

    name: str = "stacked"
    single: bool = False

    def __init__(self, model: nn.Module, like: Records, objective: Objective) -> None:
        if not isinstance(like, Tensor) or not like.is_floating_point():
            raise Unsupported("records that are not one tensor of real numbers")
        record = like.new_zeros(1, *like.shape[1:])
        _check(model, record)
        self._slope = _slope_of(objective)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
        self.steps = list[_Step]()
        layers = [layer for layer in _layers(model) if not _inert(layer)]
        self.activations = record.numel()  # of one record, in all layers
        if layers and _is_flatten(layers[0]):
            # Images that nobody looks at as such need not be laid out as such.
            record = layers.pop(0)(record)
        self.image = record.ndim == _IMAGES
        self.begin((), like.device)
        with torch.no_grad():
            for layer in layers:
                before = record.shape
                record = layer(record)
                self._add(layer, before)
                self.activations += record.numel()
        owned = [id(p) for layer in layers for p in layer.parameters()]
        if len(owned) != len(set(owned)):
            raise Unsupported("tied parameters")
        if record.ndim != _FEATURES:
            raise Unsupported(f"outputs of shape {tuple(record.shape[1:])}")

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """See `Engine.begin`."""
        self._masks = Masks(seeds, device)

    def turn(self, epoch: int, batch: int, first: int) -> None:
        """See `Engine.turn`."""
        self._masks.turn(epoch, batch, first)

    def renew(self) -> None:
        """Nothing to renew: no layer here keeps anything."""

    def _add(self, layer: nn.Module, before: torch.Size) -> None:
        names = [self.names[id(p)] for p in layer.parameters()]
        if type(layer) is nn.Linear and len(before) == _FEATURES:
            self.steps.append(_Step(names, None))
            return
        op = self._dropout(layer, before) or _op(layer, before, names)
        bare = type(layer) is nn.GroupNorm and _is_image(before)
        if self.steps and (first := self.steps[-1]).op is not None:
            # Layers between two Linear ones are one graph: torch walks it back in one call.
            self.steps.pop()
            bare = first.bare or (bare and all(name in self.frozen for name in first.names))
            self.steps.append(_Step(first.names + names, _chain(first.op, op), bare))
        else:
            self.steps.append(_Step(names, op, bare))

    def _dropout(self, layer: nn.Module, before: torch.Size) -> Op | None:
        """Dropout with the clients' own masks; None for any other layer."""
        image = _is_image(before)
        if type(layer) not in _DROPOUTS or (type(layer) is nn.Dropout2d and not image):
            return None
        assert isinstance(layer, nn.modules.dropout._DropoutNd)
        p = layer.p
        alpha = type(layer) is nn.AlphaDropout
        whole = type(layer) is nn.Dropout2d

        def run(h: Tensor, views: Views, c: int) -> Tensor:
            apart = h.unflatten(1, (c, -1)).transpose(0, 1) if image else h
            shape = tuple(apart.shape[1:])
            if whole:
                shape = (*shape[:2], 1, 1)
            found = masked(apart, self._masks, shape, p, alpha)
            return found.transpose(0, 1).flatten(1, 2) if image else found

        return None if p == 1 else run

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """See `Engine.accumulate`."""
        assert isinstance(x, Tensor)
        # Parameters that are not trained are one for all clients, and no part of the rows.
        p = dict(weights)
        for name, value in self.frozen.items():
            p[name] = value.expand(len(y), *value.shape)
        h = x if self.image else x.flatten(2)
        tape = list[Back]()
        if self.image:
            h = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        for step in self.steps:
            if step.op is None:
                h, back = _linear(h, p, step.names)
            else:
                h, back = _graph(step, h, p, target, len(y))
            tape.append(back)
        g: Tensor | None = self._slope(h, y, share)
        while tape:
            back = tape.pop()
            assert g is not None
            g = back(g, target, scale, bool(tape))


def _check(model: nn.Module, record: Tensor) -> None:
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn.modules."):
            continue
        raise Unsupported(f"{type(module).__name__}" + (f" ({name!r})" if name else ""))
    if found := oddities(model):
        raise Unsupported(f"this model: {found}")
    odd = [type(module).__name__ for module in model.modules() if not is_plain(module)]
    if odd:
        raise Unsupported(odd[0])
    if record.ndim not in (_FEATURES, _IMAGES):
        raise Unsupported(f"records of shape {tuple(record.shape[1:])}")
    if len({p.dtype for p in model.parameters()} | {record.dtype}) > 1:
        raise Unsupported("weights of several types")
    if record.dtype not in (torch.float32, torch.float64):
        # The rows that are trained are in single precision at least.
        raise Unsupported(f"weights in {record.dtype}")


def _linear(h: Tensor, p: Views, names: list[str]) -> tuple[Tensor, Back]:
    """A Linear layer (weight, and perhaps bias) of all clients, and its backward pass."""
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


def _graph(step: _Step, h: Tensor, p: Views, target: Views, c: int) -> tuple[Tensor, Back]:
    """Layers that are not Linear, differentiated by torch."""
    assert step.op is not None
    wanted = [n for n in step.names if n in target]
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        own = {n: p[n].detach().requires_grad_(n in target) for n in step.names}
        out = step.op(leaf, own, c)

    def back(g: Tensor, target: Views, scale: float, deeper: bool) -> Tensor | None:
        leaves = [own[n] for n in wanted]
        if not (leaves or deeper):
            return None
        # torch 2.13 crashes in the backward pass of a group norm on images that store their
        # channels last, where nothing asks for the slope below it.
        if deeper or step.bare:
            leaves.append(leaf)
        found = torch.autograd.grad(out, leaves, g)
        for name, part in zip(wanted, found, strict=False):
            target[name].add_(part, alpha=scale)
        return found[-1] if deeper else None

    return out.detach(), back


def _slope_of(objective: Objective) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The derivative of all clients' losses in the outputs (c, B, outputs)."""
    # Where padding cannot be left out there is none: every client's batch is whole.
    each = vmap(objective.padded if objective.pads else _whole(objective))

    def found(out: Tensor, y: Tensor, share: Tensor) -> Tensor:
        leaf = out.detach().requires_grad_()
        with torch.enable_grad():
            total = each(leaf, y, share).sum()
        return torch.autograd.grad(total, leaf)[0]

    def fast(out: Tensor, y: Tensor, share: Tensor) -> Tensor:
        # The fast one is of one label a record, none of them ignored.
        plain = not y.is_floating_point() and y.shape == out.shape[:-1]
        if not plain or bool((y < 0).any()):
            return found(out, y, share)
        return _slope(out, y, share)

    return fast if objective.classifies else found


def _whole(objective: Objective) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda out, y, share: objective.mean(out, y)


def _slope(logits: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """Derivative of the sum of weighted cross-entropies in the logits, (c, B, labels)."""
    g = logits.sub(logits.amax(-1, keepdim=True)).exp_()  # few labels: torch.softmax is slower
    g.div_(g.sum(-1, keepdim=True))
    # Softmax less one at the true label.
    g.scatter_add_(-1, y.unsqueeze(-1), torch.full_like(g[..., :1], -1.0))
    return g.mul_(share.unsqueeze(-1))


def _layers(model: nn.Module) -> list[nn.Module]:
    if type(model) is nn.Sequential:
        return [layer for child in model for layer in _layers(child)]
    return [model]


def _is_flatten(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)


def _inert(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0


def _chain(first: Op, second: Op) -> Op:
    return lambda h, p, c: second(first(h, p, c), p, c)


def _op(layer: nn.Module, before: torch.Size, names: list[str]) -> Op:
    """A layer, not Linear, on stacked activations; raises Unsupported.

    `before` is the shape of what goes in, for one record; `names` are those of the parameters.
    """
    make = _KERNELS.get(type(layer))
    op = make and make(layer, before, names)
    if op is None:
        what = type(layer).__name__
        if type(layer) in _KERNELS:
            what += f" with these settings on records of shape {tuple(before[1:])}"
        raise Unsupported(what)
    return op


def _is_image(shape: torch.Size) -> bool:
    return len(shape) == _IMAGES


def _elementwise(layer: nn.ReLU, before: torch.Size, names: list[str]) -> Op:
    # In place it would write into what the backward pass of the layer before still needs.
    if getattr(layer, "inplace", False):
        layer = copy.copy(layer)
        layer.inplace = False
    return lambda h, p, c: layer(h)


def _pool(layer: nn.MaxPool2d, before: torch.Size, names: list[str]) -> Op | None:
    if not _is_image(before) or getattr(layer, "return_indices", False):
        return None
    return lambda h, p, c: layer(h)


def _convolution(layer: nn.Conv2d, before: torch.Size, names: list[str]) -> Op | None:
    """One grouped convolution: each client's channels are groups of their own."""
    if not _is_image(before) or layer.padding_mode != "zeros":
        return None

    def run(h: Tensor, p: Views, c: int) -> Tensor:
        weight = p[names[0]].flatten(0, 1)
        bias = p[names[1]].flatten() if len(names) == 2 else None
        groups = c * layer.groups
        return F.conv2d(h, weight, bias, layer.stride, layer.padding, layer.dilation, groups)

    return run


def _flatten(layer: nn.Flatten, before: torch.Size, names: list[str]) -> Op | None:
    if not _is_flatten(layer):
        return None
    if not _is_image(before):
        return lambda h, p, c: h
    return lambda h, p, c: h.unflatten(1, (c, -1)).flatten(2).transpose(0, 1)


def _unflatten(layer: nn.Unflatten, before: torch.Size, names: list[str]) -> Op | None:
    """From features to images of (channels, height, width)."""
    shape = tuple(layer.unflattened_size)
    if _is_image(before) or layer.dim != 1 or len(shape) != _IMAGES - 1:
        return None

    def run(h: Tensor, p: Views, c: int) -> Tensor:
        images = h.unflatten(2, shape).transpose(0, 1).flatten(1, 2)
        return images.contiguous(memory_format=torch.channels_last)

    return run


def _group_norm(layer: nn.GroupNorm, before: torch.Size, names: list[str]) -> Op:
    """Each client's channels are groups of their own; its factors and offsets stand beside them."""

    def on_images(h: Tensor, p: Views, c: int) -> Tensor:
        weight, bias = (p[n].flatten() for n in names) if names else (None, None)
        return F.group_norm(h, c * layer.num_groups, weight, bias, layer.eps)

    def on_features(h: Tensor, p: Views, c: int) -> Tensor:
        normal = F.group_norm(h.flatten(0, 1), layer.num_groups, eps=layer.eps).view_as(h)
        return _affine(normal, [p[n] for n in names])

    return on_images if _is_image(before) else on_features


def _layer_norm(layer: nn.LayerNorm, before: torch.Size, names: list[str]) -> Op | None:
    """Normalised over a whole record; a part of its dimensions is not supported."""
    shape = before[1:]
    if tuple(layer.normalized_shape) != tuple(shape):
        return None

    def on_features(h: Tensor, p: Views, c: int) -> Tensor:
        normal = F.layer_norm(h, shape, eps=layer.eps)
        return _affine(normal, [p[n] for n in names])

    def on_images(h: Tensor, p: Views, c: int) -> Tensor:
        return (
            on_features(h.unflatten(1, (c, -1)).transpose(0, 1), p, c).transpose(0, 1).flatten(1, 2)
        )

    return on_images if _is_image(before) else on_features


def _affine(h: Tensor, parts: list[Tensor]) -> Tensor:
    """h (c, B, *shape) times and plus the clients' own factors and offsets (c, *shape)."""
    if parts:
        h = h * parts[0].unsqueeze(1)
    if len(parts) == 2:
        h = h + parts[1].unsqueeze(1)
    return h


# What makes a layer's kernel, by the layer's class; None where these settings have none. The layer
# is of that very class, which the table's type cannot say.
_Maker = Callable[[Any, torch.Size, list[str]], Op | None]
_KERNELS: dict[type[nn.Module], _Maker] = {
    nn.Conv2d: _convolution,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}
_KERNELS |= {getattr(nn, name): _pool for name in _POOLS.split()}
_KERNELS |= {getattr(nn, name): _elementwise for name in _ELEMENTWISE.split()}
