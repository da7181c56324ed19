"""Local training by code of your own: any function that trains a model, whatever it leaves on it.

A function has the model in its hands: it may freeze or add layers, wrap the module, or return
another one. Every client gets a copy of its own, and only the model's trained weights are read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fldp._checks import check_takes, shown, whole
from fldp.mechanism.updates import as_tensor, load_
from fldp.simulation.algorithm import Algorithm, Task, one_by_one
from fldp.simulation.engines import in_turn
from fldp.simulation.isolation import Template

# What Opacus and torch's data parallelism put before all names of a module that they wrap.
_AROUND = ("_module.", "module.")
# What torch.compile puts before the names of a module, which may be any part of a model.
_COMPILED = "_orig_mod."
_WANTED = "train the model in place and return nothing, or return a module or a state dict of it"


@dataclass
class LocalFunction(Algorithm):
    """Any training code: `fn(model, x, y)` trains the torch model on a client's records.

    `fn` trains the model in place and returns nothing, or it returns what it trained: a module or
    a state dict (tensors or arrays by name) with the model's own parameters. The update is how far
    the trained parameters are from the global model; buffers, frozen parameters and layers that
    `fn` added are no part of it. Wrappers are seen through: those of Opacus' `make_private`, of
    `nn.DataParallel` and of `torch.compile`.

    Every client gets a copy of the model (and of `fn`, where that is an object): what `fn` leaves
    on them is there for nobody else. The global random numbers of torch, numpy and Python are
    seeded per client from the run's draws while `fn` runs, so results do not depend on the order.
    What `fn` keeps elsewhere, in a global, a class or a closure, is out of reach, and no account
    covers what clients share.

    Parameters
    ----------
    fn : callable
        `fn(model, x, y)`: x (n, ...) and y (n, ...) are a client's records and targets, x in the
        type that the model takes.
    threads : int, optional
        Torch threads while clients train, and of a whole `train`. None leaves torch's setting.

    Raises
    ------
    ValueError
        For what cannot be called so; where `fn` raises (its own exception is the cause); where it
        returns anything else, such as a loss; and where a trained parameter is missing.

    Examples
    --------
    >>> import fldp
    >>> people = fldp.clients.partition(*fldp.datasets.digits(), clients=100, seed=0)
    >>> def shrink(model, x, y):
    ...     return {name: 0.5 * weight for name, weight in model.state_dict().items()}
    >>> model = nn.Linear(64, 10, bias=False)
    >>> algorithm = LocalFunction(shrink)
    >>> (row,) = algorithm.updates(model, torch.ones(640), people, ids=[3])
    >>> row.unique()
    tensor([-0.5000])
    """

    # Of what the records are: a tensor, a tuple or a dict.
    fn: Callable[[nn.Module, Any, Tensor], nn.Module | Mapping[str, object] | None]
    threads: int | None = 1

    def __post_init__(self) -> None:
        check_takes("fn", self.fn, "(model, x, y)", 3)
        if self.threads is not None:
            self.threads = whole("threads", self.threads)

    def _trainer(self, task: Task, ids: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
        self.rehearse(task.model, task.flat, task.population)
        train = partial(self._one, Template(task.model), task)
        return partial(one_by_one, train, task, self.threads), in_turn(task.flat)

    def _one(self, template: Template, task: Task, client: int) -> Tensor:
        """The update (d,) of a client."""
        own = load_(template.fresh(), task.flat)
        x, y = task.records(client)
        fn = self._copied()
        try:
            returned = fn(own, x, y)
        except Exception as error:
            raise ValueError(
                f"fn raised {type(error).__name__} while it trained a client, as told above: "
                "repair fn; whether and how it fails is as private as the data"
            ) from error
        return _trained(own, returned, task) - task.flat

    def _copied(self) -> Callable[[nn.Module, Any, Tensor], object]:
        """An object's own copy: what it remembers of one client is there for nobody else."""
        try:
            return copy.deepcopy(self.fn)
        except Exception as error:
            raise ValueError(
                f"fn is {shown(self.fn)}, which cannot be copied ({type(error).__name__}: {error}),"
                " and every client needs its own: keep generators, locks and open files out of it"
            ) from error


def _trained(own: nn.Module, returned: object, task: Task) -> Tensor:
    """The trained parameters (d,) that user code returned, or left in `own`."""
    done = "left"
    found: object = own
    if returned is not None:
        done = "returned"
        found = returned
    if isinstance(found, nn.Module):
        found = dict(found.named_parameters(remove_duplicate=False))
    if not isinstance(found, Mapping):
        raise ValueError(f"fn returned an object of type {type(found).__name__}: {_WANTED}")
    given = {name: part for name, part in found.items() if isinstance(name, str)}
    names = [name for name, _, _ in task.layout]
    if not given.keys() >= set(names):
        given = dict(zip(_bare(list(given)), given.values(), strict=True))
        names = _bare(names)
    parts = []
    for (name, shape, _), key in zip(task.layout, names, strict=True):
        try:
            part = as_tensor(given[key], shape)
        except (KeyError, ValueError):
            raise ValueError(
                f"fn {done} no {name!r} of numbers of shape {tuple(shape)}: {_WANTED}, with all "
                "that is to be trained, and parametrizations undone"
            ) from None
        parts.append(part.reshape(-1).to(task.flat))
    return torch.cat(parts)


def _bare(names: list[str]) -> list[str]:
    """Names of parameters without what wrappers put before them."""
    bare = [name.replace(_COMPILED, "") for name in names]
    around = _wrapper(bare)
    while around:
        bare = [name.removeprefix(around) for name in bare]
        around = _wrapper(bare)
    return bare


def _wrapper(names: list[str]) -> str:
    """What a wrapper put before all of these names; empty where none did."""
    for around in _AROUND:
        if names and all(name.startswith(around) for name in names):
            return around
    return ""
