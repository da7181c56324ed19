"""How the gradients of many clients are computed: three engines with one interface."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fldp._checks import choice
from fldp.simulation.inputs import Records, activations, call, each, made_up, take
from fldp.simulation.isolation import Template, Traits, alone, traits
from fldp.simulation.objective import Objective
from fldp.simulation.stacked import Stacked, Unsupported, Views

ENGINES = ("auto", "stacked", "vmap", "loop")

# Working set per chunk, in bytes: what stays in the last-level cache of a CPU, what fills a GPU.
_BUDGET = {"cpu": 12 << 20, "cuda": 1 << 30}

# Beyond so many clients to a chunk a kernel gains nothing.
_MOST_TOGETHER = 512
_BYTES = 4  # of a float32

# Above this many parameters the loop is as fast as `torch.func`, in less memory.
_VMAP_LIMIT = 100_000

# Clients that train by themselves and whose updates are handed on together, so that what is saved
# and restored around a client's random numbers is saved and restored once for so many.
TOGETHER = 16


class Engine(Protocol):
    """What computes gradients of a chunk of clients, a row of a matrix (c, d) each.

    A `single` engine trains one client at a time.
    """

    single: bool

    def renew(self) -> None:
        """Before a chunk of clients: they start from the model's own state, whatever others left.

        A chunk of a `single` engine is one client.
        """

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """Add `scale` times the gradient of each client's loss to `target`.

        Parameters
        ----------
        weights, target : mapping of str to Tensor
            Named views (c, *shape) of matrices (c, d), which may be one and the same.
        scale : float
            A factor on all gradients; minus the learning rate makes plain SGD of it.
        x : Records
            Records (c, B, ...).
        y : Tensor
            Targets (c, B, ...).
        share : Tensor
            (c, B): 1/n for each of a client's n records, and 0 on padding, which stands at the end;
            there is none where the loss cannot leave it out.
        """


def check_model(model: nn.Module) -> None:
    """Refuse statistics over a batch: they leave a client without being clipped.

    Parameters
    ----------
    model : nn.Module
        What is to be trained.

    Raises
    ------
    ValueError
        It names the first layer that keeps running statistics.
    """
    for name, module in model.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch or getattr(module, "track_running_stats", False):
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__}: its running statistics are client "
                "data outside the clipped update. Use nn.GroupNorm or nn.LayerNorm instead "
                "(opacus.validators.ModuleValidator.fix replaces the layers for you)"
            )


class Vmapped:
    """Any module that `torch.func` can batch over clients.

    Parameters
    ----------
    template : Template
        The model; a chunk of clients gets a copy.
    objective : Objective
        The loss.
    """

    single: bool = False

    def __init__(self, template: Template, objective: Objective) -> None:
        self._template = template
        self._objective = objective
        self.renew()

    def renew(self) -> None:
        """See `Engine.renew`."""
        model = self._template.lent()

        objective = self._objective

        def loss(p: dict[str, Tensor], x: Records, y: Tensor, share: Tensor) -> Tensor:
            out = call(partial(_with, model, p), x)
            if objective.pads:
                return objective.padded(out, y, share)
            return objective.mean(out, y)

        self._grad = vmap(grad(loss))

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """See `Engine.accumulate`."""
        found = self._grad(dict(weights), x, y, share)
        for name, part in found.items():
            target[name].add_(part, alpha=scale)


def _with(model: nn.Module, weights: dict[str, Tensor], *args: Tensor, **named: Tensor) -> Any:
    return functional_call(model, weights, args, named)


class Loop:
    """One client after the other on an ordinary module: for any model, and for large ones.

    Parameters
    ----------
    template : Template
        The model; every client gets a copy, unless nothing in it can move.
    objective : Objective
        The loss.
    """

    single: bool = True  # a layer may draw random numbers or move its own state

    def __init__(self, template: Template, objective: Objective) -> None:
        self._template = template
        self._objective = objective
        self._take()

    def renew(self) -> None:
        """See `Engine.renew`."""
        if not self._template.plain:
            self._take()

    def _take(self) -> None:
        self.model = self._template.lent()
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """See `Engine.accumulate`."""
        for i, count in enumerate((share > 0).sum(1).tolist()):
            for name, leaf in self.parameters.items():
                leaf.data = weights[name][i]
            with torch.enable_grad():
                found = call(self.model, take(x, (i, slice(count))))
                loss = self._objective.mean(found, y[i, :count])
                # A forward pass may freeze what it will not train any further.
                moving = {n: p for n, p in self.parameters.items() if p.requires_grad}
                parts = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
            for name, part in zip(moving, parts, strict=True):
                if part is not None:
                    target[name][i].add_(part, alpha=scale)


def choose(
    model: nn.Module,
    flat: Tensor,
    like: Records,
    targets: Tensor,
    objective: Objective,
    batch: int,
    name: str,
    extra: bool,
) -> tuple[Engine, int]:
    """The engine for a model, and how many clients to train at once.

    Stacked kernels where they exist; else `torch.func` while weights are small; else the loop, also
    for layers that draw random numbers or keep state. What is tried is tried on made-up records and
    on a copy: a record never reaches `model`.

    Parameters
    ----------
    model : nn.Module
        The prepared model.
    flat : Tensor
        Its trained parameters (d,).
    like : Records
        The form in which the model takes records.
    targets : Tensor
        The form of the targets.
    objective : Objective
        The loss.
    batch : int
        Records in a step.
    name : str
        "auto", or the engine to take.
    extra : bool
        Whether gradients are held beside the weights.

    Returns
    -------
    (Engine, int)

    Raises
    ------
    ValueError
        For an engine that cannot train this model, and where clients would reach one another.
    """
    choice("engine", name, ENGINES)
    # torch.func has no batched kernel for recurrent layers, and refuses to draw random numbers.
    drawn = any(_draws(module) for module in model.modules())
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    stacked = _stacked(model, like, objective, name, drawn or recurrent)
    if stacked is not None:
        return stacked, _together(flat, batch * stacked.activations, extra)
    template = Template(model)
    obstacle = _shared(traits(model, template, like), drawn)
    by_itself = recurrent or flat.numel() > _VMAP_LIMIT
    if name == "loop" or (name == "auto" and by_itself):
        return Loop(template, objective), TOGETHER
    with alone(flat.device):
        obstacle = obstacle or _obstacle(template, flat, like, targets, objective)
        if not obstacle:
            entries = batch * activations(template.fresh(), like)
            return Vmapped(template, objective), _together(flat, entries, extra)
    if name == "vmap":
        raise ValueError(f"engine is 'vmap', but {obstacle}: use engine='loop'")
    return Loop(template, objective), TOGETHER


def _draws(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def _stacked(
    model: nn.Module, like: Records, objective: Objective, name: str, unfit: bool
) -> Stacked | None:
    """Stacked kernels for `model`, or None; a ValueError where they were asked for by name."""
    if name in ("vmap", "loop") or (name == "auto" and unfit):
        return None
    try:
        return Stacked(model, like, objective)
    except Unsupported as reason:
        if name == "stacked":
            text = f"no stacked kernel for this model ({reason}): use engine='vmap'"
            raise ValueError(text) from None
        return None


def _together(flat: Tensor, activations: int, extra: bool) -> int:
    """How many clients' weights and activations stay within the budget."""
    # Weights and the product that is added to them; else also gradients, and what steers these.
    copies = 4 if extra else 2
    # Activations forward, and their derivatives backward.
    one = _BYTES * (copies * flat.numel() + 2 * activations)
    return max(1, min(_MOST_TOGETHER, _BUDGET[flat.device.type] // one))


def _shared(seen: Traits, drawn: bool) -> str:
    """Why clients cannot go through one module together; empty where they can."""
    if seen.failed:
        return f"the model does not run on made-up records ({seen.failed})"
    if seen.moved:
        return f"a training step moves {seen.moved[0]!r}, which clients would share"
    if seen.draws or drawn:
        return "the model draws random numbers, which clients would share"
    return ""


def _obstacle(
    template: Template, flat: Tensor, like: Records, targets: Tensor, objective: Objective
) -> str:
    """Why `torch.func` cannot batch this module, or nothing: tried on two clients of one record."""
    trained = {n: p for n, p in template.model.named_parameters() if p.requires_grad}
    weights = {n: p.detach().expand(2, *p.shape) for n, p in trained.items()}
    target = {n: torch.zeros_like(p) for n, p in weights.items()}
    x = each(lambda part: part.unsqueeze(1), made_up(like))
    y = targets.new_zeros(2, 1, *targets.shape[1:]).to(flat.device)
    share = flat.new_ones(2, 1)
    try:
        Vmapped(template, objective).accumulate(weights, target, 1.0, x, y, share)
    except Exception as error:  # whatever the module raises, the loop still runs it
        first_line = str(error).partition("\n")[0]
        return f"torch.func cannot batch this model ({type(error).__name__}: {first_line})"
    return ""
