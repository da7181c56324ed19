"""Which engine trains a model's clients, and why: a rule of the model alone, never a timing."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fldp._checks import choice
from fldp.simulation.engines import ENGINES, Engine, Loop, Vmapped, in_turn
from fldp.simulation.inputs import Records, activations, call, each, made_up
from fldp.simulation.isolation import Template, alone, oddities
from fldp.simulation.objective import Objective
from fldp.simulation.rehearsal import Traits, signature, traits
from fldp.simulation.stacked import Stacked, Unsupported

# Working set of a chunk in stacked kernels, in bytes: what stays in the last-level cache of a CPU,
# what fills a GPU.
_BUDGET = {"cpu": 12 << 20, "cuda": 1 << 30}
# The same of torch.func, whose cost is in calls: beyond, more clients to a call gain nothing.
_WIDE_BUDGET = {"cpu": 64 << 20, "cuda": 1 << 30}
# Beyond so many clients to a chunk a kernel gains nothing.
_MOST_TOGETHER = 512
# Where the loop is as fast as torch.func, measured on a CPU with 40 clients and batches of 10: MLPs
# from 300,000 parameters on (85,000 gain 1.5 to 2.5 times), residual networks with 6 MB of
# activations a client (1 MB gain 3 to 5 times).
_MOST_PARAMETERS = 200_000
_MOST_ACTIVATIONS = 4 << 20

# How far apart two engines' gradients may be, relative, in roots of the rounding unit.
_AGREED = 10


@dataclass(frozen=True)
class Choice:
    """An engine, how many clients it trains at once, and why it is this one.

    As a string it is a line for a history: "vmap: no stacked kernel for LSTM".
    """

    engine: Engine
    together: int
    why: str = ""

    def __str__(self) -> str:
        return f"{self.engine.name}: {self.why}" if self.why else self.engine.name


@dataclass(frozen=True)
class Case:
    """What an engine is chosen for.

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
    extra : bool
        Whether gradients are held beside the weights.
    """

    model: nn.Module
    flat: Tensor
    like: Records
    targets: Tensor
    objective: Objective
    batch: int
    extra: bool

    def together(self, entries: int, budgets: dict[str, int]) -> int:
        """How many clients' weights, and activations of so many entries a record, fit a budget."""
        # Weights and the product that is added to them; else also gradients, and what steers these.
        copies = 4 if self.extra else 2
        weights = copies * self.flat.numel() * self.flat.element_size()
        budget = budgets.get(self.flat.device.type, budgets["cuda"])
        return max(1, min(_MOST_TOGETHER, budget // (weights + self.activations(entries))))

    def activations(self, entries: int) -> int:
        """Bytes of a client's activations, and of their derivatives."""
        return 2 * self.batch * entries * self.flat.element_size()

    def too_large(self, entries: int) -> str:
        """Why a client of this model is as fast by itself; empty where it is not."""
        if self.flat.device.type != "cpu":
            return ""
        if self.flat.numel() > _MOST_PARAMETERS:
            return f"{self.flat.numel():,} parameters are as fast one client at a time"
        if self.activations(entries) > _MOST_ACTIVATIONS:
            return "activations of this size are as fast one client at a time"
        return ""


def choose(
    model: nn.Module,
    flat: Tensor,
    like: Records,
    targets: Tensor,
    objective: Objective,
    batch: int,
    name: str,
    extra: bool,
) -> Choice:
    """The engine for a model, and how many clients to train at once.

    Stacked kernels where they exist; else `torch.func`, where it gives the gradients of the loop on
    made-up records and a client is small; else the loop, also for layers that draw random numbers
    or keep state. What is tried is tried on made-up records and on a copy: a record never reaches
    `model`.

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
    Choice

    Raises
    ------
    ValueError
        For an engine that cannot train this model, and where clients would reach one another.
    """
    choice("engine", name, ENGINES)
    case = Case(model, flat, like, targets, objective, batch, extra)
    template = Template(model)
    seen = traits(model, template, like)
    loop = Loop(template, objective, seen.replaced or bool(seen.failed))
    if name == "loop":
        return Choice(loop, in_turn(flat), "asked for")
    lacking = ""
    if name in ("auto", "stacked"):
        try:
            return _stacked(case, template, loop)
        except Unsupported as reason:
            lacking = f"no stacked kernel for {reason}"
    if name == "stacked":
        raise ValueError(f"engine is 'stacked', but there is {lacking}: use engine='auto'")
    entries, obstacle = _obstacle(case, template, seen, loop)
    if obstacle and name == "vmap":
        raise ValueError(f"engine is 'vmap', but {obstacle}: use engine='loop'")
    if not obstacle and name == "auto":
        obstacle = case.too_large(entries)
    if obstacle:
        return Choice(loop, in_turn(flat), obstacle)
    together = case.together(entries, _WIDE_BUDGET)
    return Choice(Vmapped(template, objective), together, lacking or "asked for")


def _stacked(case: Case, template: Template, loop: Loop) -> Choice:
    """Stacked kernels; raises Unsupported where a layer, a type or the loss has none."""
    if any(p.dtype != case.flat.dtype for p in case.model.parameters()):
        raise Unsupported("weights of another type than the vector of the model")
    stacked = Stacked(case.model, case.like, case.objective)
    if odd := _once(case, "loss", lambda: _odd_loss(case, template, stacked, loop)):
        raise Unsupported(odd)
    return Choice(stacked, case.together(stacked.activations, _BUDGET))


def _obstacle(case: Case, template: Template, seen: Traits, loop: Loop) -> tuple[int, str]:
    """Entries of the activations of a record, and why `torch.func` cannot train this model."""
    if apart := _apart(case.model, seen):
        return 0, apart
    if _once(case, "draws", lambda: _draws(case, template)):
        return 0, "the loss draws random numbers, which clients would share"
    found: tuple[int, str] = _once(case, "torch.func", lambda: _tried(case, template, loop))
    return found


def _draws(case: Case, template: Template) -> bool:
    """Whether the loss draws random numbers; a ValueError where it keeps anything."""
    if case.objective.kind:
        return False
    with alone(case.flat.device):
        found = call(template.fresh(), made_up(case.like))
        y = case.targets.new_zeros(2, *case.targets.shape[1:]).to(case.flat.device)
        return case.objective.draws(found, y)


def _odd_loss(case: Case, template: Template, stacked: Stacked, loop: Loop) -> str:
    """Why this loss is not one for stacked kernels; empty where it is.

    The losses of torch that are taken apart entry by entry are known to be.
    """
    if case.objective.pads:
        return ""
    if _draws(case, template):
        return "a loss that draws random numbers"
    try:
        return "" if _agree(case, stacked, loop) else "this loss: torch.func gives other gradients"
    except Exception as error:  # whatever a stranger's loss raises where it is batched
        return f"this loss ({type(error).__name__})"


def _apart(model: nn.Module, seen: Traits) -> str:
    """Why clients cannot go through one module together; empty where they can."""
    if found := oddities(model):
        return found
    if seen.failed:
        return f"the model does not run on made-up records ({seen.failed})"
    if seen.moved:
        return f"a training step moves {seen.moved[0]!r}, which clients would share"
    if seen.draws:
        return "the model draws random numbers of its own, which clients would share"
    if seen.mixes:
        return "what the model says of a record depends on the others in its batch"
    return ""


# By model: what was asked, with the loss, which must stay the same object, and what was found.
_known: weakref.WeakKeyDictionary[nn.Module, dict[str, tuple[object, object, Any]]] = (
    weakref.WeakKeyDictionary()
)


def _once(case: Case, what: str, find: Callable[[], Any]) -> Any:
    """What `find` finds of a case; it is asked again only where model or loss are others."""
    asked = (
        signature(case.model, case.like),
        (case.targets.shape[1:], case.targets.dtype, case.flat.dtype),
    )
    held = _known.setdefault(case.model, {})
    before = held.get(what)
    if before is not None and before[0] == asked and before[1] is case.objective.loss:
        return before[2]
    found = find()
    held[what] = (asked, case.objective.loss, found)
    return found


def _tried(case: Case, template: Template, loop: Loop) -> tuple[int, str]:
    """Entries of the activations of a record, and why `torch.func` cannot train this module."""
    entries = 0
    try:
        engine = Vmapped(template, case.objective)
        found = "" if _agree(case, engine, loop) else "torch.func gives other gradients for it"
        with alone(case.flat.device):
            entries = activations(template.fresh(), case.like)
    except Exception as error:  # whatever the module raises, the loop still runs it
        first_line = str(error).partition("\n")[0]
        found = f"torch.func cannot batch this model ({type(error).__name__}: {first_line})"
    return entries, found


def _agree(case: Case, *engines: Engine) -> bool:
    """Whether engines give the same gradients for two made-up clients, one of a single record."""
    device = case.flat.device
    x = each(lambda part: part.unflatten(0, (2, 2)).contiguous(), made_up(case.like, rows=4))
    y = case.targets.new_zeros(2, 2, *case.targets.shape[1:]).to(device)
    share = case.flat.new_full((2, 2), 0.5)
    if case.objective.pads:
        each(lambda part: part[1, 1].copy_(part[1, 0]), x)
        share[1] = share.new_tensor([1.0, 0.0])
    trained = {n: p for n, p in case.model.named_parameters() if p.requires_grad}
    weights = {n: p.detach().expand(2, *p.shape).clone() for n, p in trained.items()}
    rows = []
    with alone(device) as start:
        for engine in engines:
            start(0)
            engine.begin((0, 1), device)
            target = {n: torch.zeros_like(p) for n, p in weights.items()}
            engine.accumulate(weights, target, 1.0, x, y, share)
            rows.append(torch.cat([part.double().reshape(-1) for part in target.values()]))
    first, second = rows
    slack = _AGREED * math.sqrt(torch.finfo(case.flat.dtype).eps)
    apart = (first - second).norm()
    # A model of infinite weights has the same gradients everywhere: none.
    return not bool(apart > slack * second.norm())
