"""How the gradients of many clients are computed: three engines with one interface.

`engine.renew()` before a chunk of clients: they start from the model's own state, whatever others
have left. A `single` engine trains one client at a time.

`engine.accumulate(weights, target, scale, x, y, share)` adds `scale` times the gradient of each
client's weighted cross-entropy to `target`. Weights and target are named views (c, *shape) of a
matrix (c, d), one row per client; x is (c, B, ...), y and share are (c, B). `share` is 1/n for each
of a client's n records in the batch and 0 on padding, which stands at the end.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fldp.simulation.isolation import Template, Traits, alone, traits
from fldp.simulation.stacked import Stacked, Unsupported, Views

# Working set per chunk, in bytes: what stays in the last-level cache of a CPU, what fills a GPU.
_BUDGET = {"cpu": 12 << 20, "cuda": 1 << 30}

# Above this many parameters the loop is as fast as `torch.func`, in less memory.
_VMAP_LIMIT = 100_000

# Clients of the loop whose updates are handed on together, so that what is saved and restored
# around a client's random numbers is saved and restored once for so many.
_TOGETHER = 16


def check_model(model: nn.Module) -> None:
    """Refuse statistics over a batch: they leave a client without being clipped."""
    for name, module in model.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch or getattr(module, "track_running_stats", False):
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__}: its running statistics are client "
                "data outside the clipped update. Use nn.GroupNorm or nn.LayerNorm instead "
                "(opacus.validators.ModuleValidator.fix replaces the layers for you)"
            )


class Vmapped:
    """Any module that `torch.func` can batch over clients."""

    single = False

    def __init__(self, template: Template) -> None:
        self._template = template
        self.renew()

    def renew(self) -> None:
        model = self._template.lent()

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

    single = True  # a layer may draw random numbers or move its own state

    def __init__(self, template: Template) -> None:
        self._template = template
        self._take()

    def renew(self) -> None:
        if not self._template.plain:
            self._take()

    def _take(self) -> None:
        self.model = self._template.lent()
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Tensor, y: Tensor, share: Tensor
    ) -> None:
        for i, count in enumerate((share > 0).sum(1).tolist()):
            for name, leaf in self.parameters.items():
                leaf.data = weights[name][i]
            with torch.enable_grad():
                loss = F.cross_entropy(self.model(x[i, :count]), y[i, :count])
                # A forward pass may freeze what it will not train any further.
                leaves = {n: p for n, p in self.parameters.items() if p.requires_grad}
                found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, found, strict=True):
                if part is not None:
                    target[name][i].add_(part, alpha=scale)


def choose(
    model: nn.Module, flat: Tensor, shape: tuple[int, ...], batch: int, name: str, extra: bool
) -> tuple[Any, int]:
    """The engine for `model` and how many clients to train at once.

    Records have `shape`, `batch` of them make a step, `name` is "auto" or an engine, `extra` says
    that gradients are held beside the weights. Stacked kernels where they exist; else `torch.func`
    while weights are small; else the loop, also for layers that draw random numbers or keep state.
    What is tried is tried on made-up records and on a copy: a record never reaches `model`.
    """
    if name not in ("auto", "stacked", "vmap", "loop"):
        raise ValueError(f"engine is {name!r}; use 'auto', 'stacked', 'vmap' or 'loop'")
    record = flat.new_zeros(1, *shape)
    # torch.func has no batched kernel for recurrent layers, and refuses to draw random numbers.
    drawn = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p]
    single = bool(drawn) or any(isinstance(m, nn.RNNBase) for m in model.modules())
    engine: Any = None
    activations = 0
    if name == "stacked" or (name == "auto" and not single):
        try:
            engine = Stacked(model, record)
            activations = engine.activations
        except Unsupported as reason:
            if name == "stacked":
                text = f"no stacked kernel for this model ({reason}): use engine='vmap'"
                raise ValueError(text) from None
    if engine is None:
        template = Template(model)
        obstacle = _shared(traits(model, template, shape, flat), bool(drawn))
        if name == "vmap" and obstacle:
            raise ValueError(f"engine is 'vmap', but {obstacle}: use engine='loop'")
        by_itself = single or bool(obstacle) or flat.numel() > _VMAP_LIMIT
        if name == "loop" or (name == "auto" and by_itself):
            return Loop(template), _TOGETHER
        with alone(flat.device):
            obstacle = _obstacle(template, flat, record)
            if obstacle and name == "vmap":
                raise ValueError(
                    f"engine is 'vmap', but torch.func cannot batch this model ({obstacle}): use "
                    "engine='loop'"
                )
            if obstacle:
                return Loop(template), _TOGETHER
            engine, activations = Vmapped(template), _activations(template, record)
    copies = 4 if extra else 2
    one = 4 * (copies * flat.numel() + 2 * batch * activations)
    return engine, max(1, min(512, _BUDGET[flat.device.type] // one))


def _shared(seen: Traits, drawn: bool) -> str:
    """Why clients cannot go through one module together; empty where they can."""
    if seen.failed:
        return f"the model does not run on made-up records ({seen.failed})"
    if seen.moved:
        return f"a training step moves {seen.moved[0]!r}, which clients would share"
    if seen.draws or drawn:
        return "the model draws random numbers, which clients would share"
    return ""


def _activations(template: Template, record: Tensor) -> int:
    """Entries of all layers' outputs for one record."""
    found = [record.numel()]
    model = template.fresh()
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda m, i, out: found.append(out.numel() if isinstance(out, Tensor) else 0)
            )
    with torch.no_grad():
        model(record)
    return sum(found)


def _obstacle(template: Template, flat: Tensor, record: Tensor) -> str:
    """Why `torch.func` cannot batch this module, tried on two clients of one record; or nothing."""
    trained = {n: p for n, p in template.model.named_parameters() if p.requires_grad}
    weights = {n: p.detach().expand(2, *p.shape) for n, p in trained.items()}
    target = {n: torch.zeros_like(p) for n, p in weights.items()}
    x, share = record.repeat(2, *[1] * record.ndim), flat.new_ones(2, 1)
    try:
        Vmapped(template).accumulate(weights, target, 1.0, x, share.long() * 0, share)
    except Exception as error:  # whatever the module raises, the loop still runs it
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""
