"""How the gradients of many clients are computed: three engines with one interface."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.parameter import is_lazy

from fldp.simulation.inputs import Records, call, take
from fldp.simulation.interception import Interception
from fldp.simulation.isolation import Template, is_frozen_norm
from fldp.simulation.keyed import Masks
from fldp.simulation.objective import Objective
from fldp.simulation.stacked import Views

ENGINES = ("auto", "stacked", "vmap", "loop")

# torch's own default for groups of channels.
_GROUPS = 32

# Clients that train by themselves and whose updates are handed on together, so that what is saved
# and restored around a client's random numbers is saved and restored once for so many.
_TOGETHER = 16
# Bytes of updates that wait to be handed on: rows of large models are not put together.
_WAITING = 64 << 20


def in_turn(flat: Tensor) -> int:
    """How many clients that train one by one are handed on together.

    Parameters
    ----------
    flat : Tensor
        The global model (d,).

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(_TOGETHER, _WAITING // (flat.numel() * flat.element_size())))


class Engine(Protocol):
    """What computes gradients of a chunk of clients, a row of a matrix (c, d) each.

    A `single` engine trains one client at a time.
    """

    name: str
    single: bool

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """Before the first step of a chunk: what is drawn from here on, as by dropout.

        Parameters
        ----------
        seeds : sequence of int
            A client's own seed each, in the order of its rows: see `Draws.seeds`.
        device : torch.device
            Where clients train.
        """

    def turn(self, epoch: int, batch: int, first: int) -> None:
        """Before each step: what it draws is a matter of its own.

        Parameters
        ----------
        epoch, batch : int
            Counted from 0; `batch` is that of a client's own in the epoch.
        first : int
            The chunk's first client that takes part; those behind it follow.
        """

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
    """Refuse what no client can train: statistics that move over batches, layers without a shape.

    Statistics that stand still, because their layer is in evaluation mode, are the model's own.

    Parameters
    ----------
    model : nn.Module
        What is to be trained.

    Raises
    ------
    ValueError
        It names the first such layer, and what to do.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__
        if any(is_lazy(parameter) for parameter in module._parameters.values()):
            raise ValueError(
                f"layer {name!r} is a {kind} whose weights have no shape yet: call the model once "
                "on a batch of public or made-up records"
            )
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        tracks = getattr(module, "track_running_stats", False)
        if tracks and not is_frozen_norm(module):
            raise ValueError(
                f"layer {name!r} is a {kind}: its running statistics are client "
                f"data outside the clipped update. Use {_instead(module)} instead, or keep the "
                "statistics that came with the model: call eval() on the layer"
            )
        if batch and not tracks:
            raise ValueError(
                f"layer {name!r} is a {kind} without running statistics: what it "
                "says of a record depends on the others in its batch, also in validation. Use "
                f"{_instead(module)} instead"
            )


def _instead(module: nn.Module) -> str:
    """A normalisation of single records, for as many channels."""
    channels = getattr(module, "num_features", 1)
    if isinstance(module, nn.BatchNorm1d | nn.InstanceNorm1d):
        # Of vectors, a group of few channels would keep little but their order.
        return f"nn.GroupNorm(1, {channels})"
    most = max(1, min(_GROUPS, channels // 2))
    groups = max(n for n in range(1, most + 1) if channels % n == 0)
    return f"nn.GroupNorm({groups}, {channels})"


def _nothing() -> None:
    """Stands in for a method of no use here."""


class _Whole(nn.Module):
    """A module whose recurrent layers use the weights that `functional_call` gives them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._recurrent = [m for m in model.modules() if isinstance(m, nn.RNNBase)]
        for layer in self._recurrent:
            # On a GPU they would lay their weights side by side, which batched ones cannot.
            layer.flatten_parameters = _nothing  # type: ignore[method-assign]

    def forward(self, records: Records) -> Any:
        for layer in self._recurrent:
            # They keep a list of their own.
            layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
        return call(self.model, records)


class Vmapped:
    """Any module that `torch.func` can batch over clients.

    The forward pass alone is batched: the sum of independent clients' losses has their gradients,
    in one ordinary backward pass.

    Parameters
    ----------
    template : Template
        The model; nothing in it may move.
    objective : Objective
        The loss.
    """

    name: str = "vmap"
    single: bool = False

    def __init__(self, template: Template, objective: Objective) -> None:
        self._objective = objective
        self.begin((), torch.device("cpu"))
        recurrent = any(isinstance(m, nn.RNNBase) for m in template.model.modules())
        model = template.fresh() if recurrent else template.lent()
        self._whole = _Whole(model)
        self._types = {n: p.dtype for n, p in model.named_parameters()}

    def renew(self) -> None:
        """Nothing to renew: only models in which nothing moves are trained here."""

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """See `Engine.begin`."""
        self._masks = Masks(seeds, device)

    def turn(self, epoch: int, batch: int, first: int) -> None:
        """See `Engine.turn`."""
        self._masks.turn(epoch, batch, first)

    def _loss(
        self, weights: dict[str, Tensor], x: Records, y: Tensor, share: Tensor, anchor: Tensor
    ) -> Tensor:
        with Interception(self._masks, anchor):
            found = functional_call(self._whole, weights, (x,))
        if self._objective.pads:
            return self._objective.padded(found, y, share)
        return self._objective.mean(found, y)

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """See `Engine.accumulate`."""
        with torch.enable_grad(), warnings.catch_warnings():
            # What torch.func batches by a loop of its own is not for a user to change.
            warnings.filterwarnings("ignore", "There is a performance drop")
            leaves = {
                f"model.{name}": part.detach().to(self._types[name]).requires_grad_()
                for name, part in weights.items()
            }
            # Batched whatever the model does: it carries the number of clients.
            anchor = torch.arange(len(y), device=y.device)
            losses = vmap(self._loss)(leaves, x, y, share, anchor)
            found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        for name, part in zip(weights, found, strict=True):
            if part is not None:
                target[name].add_(part, alpha=scale)


class Loop:
    """One client after the other on an ordinary module: for any model, and for large ones.

    Parameters
    ----------
    template : Template
        The model; every client gets a copy, unless nothing in it can move.
    objective : Objective
        The loss.
    intercepts : bool
        Whether functions that the model calls are to be replaced, as in other engines.
    """

    name: str = "loop"
    single: bool = True  # a layer may draw random numbers or move its own state

    def __init__(self, template: Template, objective: Objective, intercepts: bool) -> None:
        self._template = template
        self._objective = objective
        self._intercepts = intercepts
        self.begin((), torch.device("cpu"))
        self._take()

    def renew(self) -> None:
        """See `Engine.renew`."""
        if not self._template.plain:
            self._take()

    def begin(self, seeds: Sequence[int], device: torch.device) -> None:
        """See `Engine.begin`."""
        self._masks = Masks(seeds, device)
        self._turn = (0, 0, 0)

    def turn(self, epoch: int, batch: int, first: int) -> None:
        """See `Engine.turn`."""
        self._turn = (epoch, batch, first)

    def _take(self) -> None:
        self.model = self._template.lent()
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def accumulate(
        self, weights: Views, target: Views, scale: float, x: Records, y: Tensor, share: Tensor
    ) -> None:
        """See `Engine.accumulate`."""
        epoch, batch, first = self._turn
        for i, count in enumerate((share > 0).sum(1).tolist()):
            for name, leaf in self.parameters.items():
                leaf.data = weights[name][i].to(leaf.dtype)
            self._masks.turn(epoch, batch, first + i)
            mode = Interception(self._masks) if self._intercepts else nullcontext()
            with torch.enable_grad():
                with mode:
                    found = call(self.model, take(x, (i, slice(count))))
                loss = self._objective.mean(found, y[i, :count])
                parts = self._gradients(loss)
            for name, leaf in self.parameters.items():
                own = weights[name][i]
                # A forward pass may put other values in its weight's place.
                if leaf.dtype == own.dtype and leaf.data_ptr() != own.data_ptr():
                    own.copy_(leaf.detach())
            for name, part in parts.items():
                target[name][i].add_(part, alpha=scale)

    def _gradients(self, loss: Tensor) -> dict[str, Tensor]:
        # A forward pass may freeze what it will not train any further.
        moving = {n: p for n, p in self.parameters.items() if p.requires_grad}
        if any(p._post_accumulate_grad_hooks for p in moving.values()):
            # These hooks wait for a gradient to arrive in its parameter.
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            return {n: p.grad for n, p in moving.items() if p.grad is not None}
        parts = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
        found = zip(moving, parts, strict=True)
        return {name: part for name, part in found if part is not None}
