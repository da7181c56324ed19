"""Clients keep to themselves: fresh modules, random numbers of their own, torch threads.

In a federation every client trains on a device of its own. A simulation runs them one after the
other in one process, where whatever one client leaves behind is there for the next: the update of
the next then depends on who came before, and no clip norm bounds that.
"""

from __future__ import annotations

import copy
import os
import random
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# numpy's legacy generator takes a seed in words of 32 bits.
_WORD = 2**32
# Where torch's own layers are written, and what of them runs in a forward pass.
_TORCH = os.path.dirname(nn.modules.__file__)
_RUN = ("forward", "_conv_forward", "__call__", "_call_impl", "_wrapped_call_impl")
# Where a module keeps what has names.
_NAMED = ("_parameters", "_buffers", "_modules")
# What an attribute of a simple layer is.
_VALUES = (bool, int, float, str, types.FunctionType, types.BuiltinFunctionType, torch.dtype)
# Where a module keeps its hooks.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with so many torch threads and restore the caller's setting afterwards.

    Small models lose by threads: on a busy machine two threads took 46 times as long as one.

    Parameters
    ----------
    count : int or None
        None leaves torch's setting alone.
    """
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def alone(device: torch.device) -> Iterator[Callable[[int], None]]:
    """A block whose random numbers and torch settings are its own.

    Yields `start(seed)`, for every client in turn: it seeds the global generators of torch, numpy
    and Python, and puts back gradient mode, autocast, default dtype, default device and threads,
    which the client before may have set. Afterwards everything is as the caller had it. torch's own
    generator keeps 32 bits of a seed: enough for dropout, too little for noise that protects
    anybody.

    Parameters
    ----------
    device : torch.device
        Where clients train: a graphics card has a generator of its own.
    """
    torch_state = torch.get_rng_state()
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    dtype = torch.get_default_dtype()
    count = torch.get_num_threads()
    gradients = torch.is_grad_enabled()
    place = torch.get_default_device()
    mixed = torch.is_autocast_enabled(device.type)

    def settle() -> None:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled(device.type, mixed)
        if torch.get_default_device() != place:
            # None takes a default away, which would slow every call down; the CPU is none.
            torch.set_default_device(None if place.type == "cpu" else place)
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def start(seed: int) -> None:
        settle()
        # torch.manual_seed would store a traceback for every device that has not been used yet.
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed % _WORD, seed // _WORD])  # noqa: NPY002 - clients' code may use it
        if on_device is not None:
            torch.cuda.manual_seed(seed)

    try:
        settle()
        with _without_advice(device):
            yield start
    finally:
        settle()
        torch.set_grad_enabled(gradients)
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


@contextmanager
def _without_advice(device: torch.device) -> Iterator[None]:
    """On a GPU: every client has weights of its own, which no user can lay side by side."""
    if device.type != "cuda":
        # Filters are the process's: what another thread puts there would be lost at the end.
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single")
        yield


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, with the hooks of parameters, and with functions that run the copy's own parts.

    `copy.deepcopy` forgets the hooks of a parameter, and leaves a function that was put on a module
    (a hook, another `forward`) with the parts of the first model that it holds.

    Parameters
    ----------
    model : nn.Module
        Any module.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        Where torch cannot make one.
    """
    return _copied(model, {}, _simple(model))


def _simple(model: nn.Module) -> list[nn.Module]:
    """torch's own layers that hold plain values and each other only, children before parents.

    A new object with the same values is their copy, at a tenth of what `copy.deepcopy` takes.
    """
    found = dict[int, nn.Module]()

    def visit(module: nn.Module) -> None:
        for child in module.children():
            visit(child)
        whole = all(id(child) in found for child in module.children())
        if whole and is_plain(module) and all(map(_is_value, _attributes(module).values())):
            found[id(module)] = module

    visit(model)
    return list(found.values())


def _attributes(module: nn.Module) -> dict[str, object]:
    return {name: v for name, v in vars(module).items() if name not in _NAMED + _HOOKS}


def _is_value(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_value, value))
    empty = isinstance(value, dict | set) and not value
    return empty or value is None or isinstance(value, _VALUES)


def _clone(module: nn.Module, memo: dict[int, Any]) -> None:
    twin = object.__new__(type(module))
    own = vars(twin)
    for name, value in vars(module).items():
        own[name] = value.copy() if isinstance(value, dict | list | set) else value
    for name in _NAMED:
        held = own[name]
        for key, value in held.items():
            held[key] = copy.deepcopy(value, memo)
    memo[id(module)] = twin


def _copied(model: nn.Module, memo: dict[int, Any], simple: list[nn.Module]) -> nn.Module:
    """A copy in which what `memo` has by its id stands for the original."""
    try:
        for module in simple:
            _clone(module, memo)
        found: nn.Module = copy.deepcopy(model, memo)
        done = {id(module) for module in simple}
        for module in model.modules():
            if id(module) not in done:
                _rebind(memo[id(module)], memo)
        for parameter in model.parameters():
            _hook(parameter, memo[id(parameter)], memo)
    except Exception as error:
        raise ValueError(
            f"the model cannot be copied ({type(error).__name__}: {error}), and every client needs "
            "its own: keep results of a forward pass, generators and open files out of its "
            "attributes, or build it anew"
        ) from None
    return found


def _rebind(module: Any, memo: dict[int, Any]) -> None:
    """Let the functions on a copied module hold the copies of what they held."""
    own = vars(module)
    for holder in (own, *(own[name] for name in _HOOKS)):
        for key, value in list(holder.items()):
            if isinstance(value, types.FunctionType) and value.__closure__:
                holder[key] = _rebound(value, memo)


def _rebound(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    cells = function.__closure__ or ()
    if not any(_is_of(cell, memo) for cell in cells):
        return function
    kept = [
        types.CellType(copy.deepcopy(cell.cell_contents, memo)) if _is_of(cell, memo) else cell
        for cell in cells
    ]
    found = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        tuple(kept),
    )  # fmt: skip
    found.__kwdefaults__ = function.__kwdefaults__
    return found


def _is_of(cell: types.CellType, memo: dict[int, Any]) -> bool:
    """Whether a closure's cell holds a part of the model that was copied."""
    try:
        value = cell.cell_contents
    except ValueError:  # empty
        return False
    if isinstance(value, types.MethodType):
        value = value.__self__
    return isinstance(value, nn.Module | Tensor) and id(value) in memo


def _hook(parameter: Any, twin: Any, memo: dict[int, Any]) -> None:
    """Give a copied parameter the hooks of the first."""
    if twin is parameter:
        return
    for hook in (parameter._backward_hooks or {}).values():
        twin.register_hook(_free(hook, memo))
    for hook in (parameter._post_accumulate_grad_hooks or {}).values():
        twin.register_post_accumulate_grad_hook(_free(hook, memo))


def _free(hook: Any, memo: dict[int, Any]) -> Any:
    return _rebound(hook, memo) if isinstance(hook, types.FunctionType) else hook


def is_plain(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers as it comes: nothing in it moves by itself.

    Torch's layers keep what moves in a forward pass in buffers, which stand still in evaluation;
    hooks and patches may do anything, and an embedding with `max_norm` rescales its weight.

    Parameters
    ----------
    module : nn.Module
        One layer; its children are not looked at.

    Returns
    -------
    bool
    """
    return (
        type(module).__module__.startswith("torch.nn.modules.")
        and not isinstance(module, nn.modules.lazy.LazyModuleMixin)
        and (not module._buffers or is_frozen_norm(module))
        and not oddity(module)
        and _as_written(type(module))
        and not any(isinstance(value, Tensor) for value in vars(module).values())
        and getattr(module, "max_norm", None) is None
    )


def _as_written(layer: type) -> bool:
    """Whether a class of torch's runs torch's own code: nobody has patched it."""
    for name in _RUN:
        code = getattr(getattr(layer, name, None), "__code__", None)
        if code is not None and not code.co_filename.startswith(_TORCH):
            return False
    return True


def oddity(module: nn.Module) -> str:
    """What hangs on one module, or its parameters, that only an ordinary call of it serves.

    Parameters
    ----------
    module : nn.Module
        Its children are not looked at.

    Returns
    -------
    str
        Empty, or a part of a sentence: "hooks", say.
    """
    own = vars(module)
    if any(own[name] for name in _HOOKS):
        return "hooks"
    if any(name in own for name in _RUN) or own.get("_compiled_call_impl") is not None:
        return "a forward pass of its own"
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"hooks on its {name}"
        if type(parameter) is not nn.Parameter:
            return f"a {name} of type {type(parameter).__name__}"
    return ""


def oddities(model: nn.Module) -> str:
    """The first part of a model with an `oddity`, as a sentence; empty without one.

    Parameters
    ----------
    model : nn.Module
        A whole model.

    Returns
    -------
    str
    """
    if nn.modules.module._has_any_global_hook():
        return "torch has hooks for all modules"
    for name, module in model.named_modules():
        if found := oddity(module):
            return f"layer {name!r} has {found}" if name else f"the model has {found}"
    return ""


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether a module normalises with statistics that stand still: it is in evaluation mode.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    bool
    """
    norms = nn.modules.batchnorm._NormBase
    return isinstance(module, norms) and module.track_running_stats and not module.training


def is_all_plain(model: nn.Module) -> bool:
    """Whether one module object can serve clients in turn: `is_plain` for all of its parts.

    Parameters
    ----------
    model : nn.Module
        A whole model.

    Returns
    -------
    bool
    """
    return not oddities(model) and all(is_plain(module) for module in model.modules())


class Template:
    """A model as every client finds it, in training mode; it is copied and never run itself.

    Batch normalisation in evaluation mode stays so: its statistics are those that came with it.

    `plain` says that all of it is torch's own layers (`is_plain`), which one object can serve.

    Parameters
    ----------
    model : nn.Module
        Copied at once; a ValueError where torch cannot copy it.
    """

    def __init__(self, model: nn.Module) -> None:
        frozen = [name for name, module in model.named_modules() if is_frozen_norm(module)]
        self.model = copied(model).train()
        for name in frozen:
            self.model.get_submodule(name).eval()
        self.plain = is_all_plain(self.model)
        self._parts = _simple(self.model)

    def fresh(self) -> nn.Module:
        """A copy with everything that is the model's: weights, buffers, attributes, hooks."""
        return _copied(self.model, {}, self._parts)

    def lent(self) -> nn.Module:
        """A module for gradients at weights that the caller puts in: trained weights are shared.

        Everything else is a fresh copy, unless nothing in the module can move.
        """
        if self.plain:
            return self.model
        shared: dict[int, Any] = {
            id(p): nn.Parameter(p.detach())
            for p in self.model.parameters()
            if p.requires_grad and type(p) is nn.Parameter
        }
        return _copied(self.model, shared, self._parts)
