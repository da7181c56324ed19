"""Clients keep to themselves: fresh modules, random numbers of their own, torch threads.

In a federation every client trains on a device of its own. A simulation runs them one after the
other in one process, where whatever one client leaves behind is there for the next: the update of
the next then depends on who came before, and no clip norm bounds that.
"""

from __future__ import annotations

import copy
import random
import types
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fldp.simulation.inputs import Records, call, each, leaves, made_up

# numpy's legacy generator takes a seed in words of 32 bits.
_WORD = 2**32
# On an accelerator sums may be rounded in another order, from one run to the next.
_SLACK = 1e-4


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
    and Python, and puts back gradient mode, default dtype and threads, which the client before may
    have set. Afterwards everything is as the caller had it. torch's own generator keeps 32 bits of
    a seed: enough for dropout, too little for noise that protects anybody.

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

    def settle() -> None:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(True)
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
        yield start
    finally:
        settle()
        torch.set_grad_enabled(gradients)
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

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
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"the model cannot be copied ({type(error).__name__}: {error}), and every client needs "
            "its own: keep results of a forward pass, generators and open files out of its "
            "attributes, or build it anew"
        ) from None


def is_plain(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers as it comes: nothing in it moves by itself.

    Torch's layers keep what moves in a forward pass in buffers; hooks and an instance's own
    `forward` may do anything, and an embedding with `max_norm` rescales its weight.

    Parameters
    ----------
    module : nn.Module
        One layer; its children are not looked at.

    Returns
    -------
    bool
    """
    forward = (module._forward_hooks, module._forward_pre_hooks)
    backward = (module._backward_hooks, module._backward_pre_hooks)
    return (
        type(module).__module__.startswith("torch.nn.modules.")
        and not isinstance(module, nn.modules.lazy.LazyModuleMixin)
        and not module._buffers
        and not any(forward)
        and not any(backward)
        and "forward" not in vars(module)
        and getattr(module, "max_norm", None) is None
    )


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
    return all(is_plain(module) for module in model.modules())


class Template:
    """A model as every client finds it, in training mode; it is copied and never run itself.

    `plain` says that all of it is torch's own layers (`is_plain`), which one object can serve.

    Parameters
    ----------
    model : nn.Module
        Copied at once; a ValueError where torch cannot copy it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copied(model).train()
        self.plain = is_all_plain(model)

    def fresh(self) -> nn.Module:
        """A copy with everything that is the model's: weights, buffers, attributes, hooks."""
        return copied(self.model)

    def lent(self) -> nn.Module:
        """A module for gradients at weights that the caller puts in: trained weights are shared.

        Everything else is a fresh copy, unless nothing in the module can move.
        """
        if self.plain:
            return self.model
        shared: dict[int, object] = {
            id(p): nn.Parameter(p.detach()) for p in self.model.parameters() if p.requires_grad
        }
        return copy.deepcopy(self.model, shared)


@dataclass(frozen=True)
class Traits:
    """What a trial run shows of a module.

    `moved` names what a forward and backward pass changes in the module, `draws` says that it draws
    random numbers, `failed` that it did not run on made-up records.
    """

    moved: tuple[str, ...] = ()
    draws: bool = False
    failed: str = ""


_known: weakref.WeakKeyDictionary[nn.Module, tuple[object, Traits]] = weakref.WeakKeyDictionary()


def traits(model: nn.Module, template: Template, like: Records) -> Traits:
    """Try `model` on made-up records; a ValueError where one client would reach the next.

    Copies of a module start from the same state, and a run on other records in between must not
    show. Where it does, the module keeps something outside itself, in a closure, a class or a
    global, which no copy resets. Nothing of the trial stays: not in `model`, nor in the global
    random numbers.

    Parameters
    ----------
    model : nn.Module
        What is known of it is kept until it changes.
    template : Template
        Its template.
    like : Records
        The form in which it takes records.

    Returns
    -------
    Traits

    Raises
    ------
    ValueError
        It names the part whose output depends on what was run before.
    """
    if template.plain:
        return Traits()
    parts = [(part.shape, part.dtype, part.device) for part in leaves(like)]
    signature = (_outline(model), type(like), *parts)
    before = _known.get(model)
    if before is not None and before[0] == signature:
        return before[1]
    found = _try(template, like)
    _known[model] = (signature, found)
    return found


def _try(template: Template, like: Records) -> Traits:
    one = made_up(like)
    other = made_up(like, phase=2.0)
    device = leaves(like)[0].device
    # One record, another, the first again: whatever the other leaves behind shows in the third.
    with alone(device) as start:
        try:
            first, moved, draws = _trial(template, one, start)
            _trial(template, other, start)
            again, _, _ = _trial(template, one, start)
        except Exception as error:  # a module may refuse made-up records
            return Traits(failed=f"{type(error).__name__}: {error}")
    slack = 0.0 if device.type == "cpu" else _SLACK
    for name, value in first.items():
        same = name in again and value.shape == again[name].shape
        if not (same and torch.allclose(value, again[name], slack, 0.0, equal_nan=True)):
            raise ValueError(
                f"the output of {name!r} depends on what was run before it, through something "
                "outside the module (a closure, a class attribute, a global) or random numbers of "
                "its own: one client's update would depend on another's. Keep state in the "
                "module's buffers or attributes, and draw from torch's global generator"
            )
    return Traits(moved, draws)


def _trial(
    template: Template, record: Records, start: Callable[[int], None]
) -> tuple[dict[str, Tensor], tuple[str, ...], bool]:
    """Outputs by module, names of what moved, and whether random numbers were drawn."""
    module = template.fresh()
    before = holdings(module)
    outputs = dict[str, Tensor]()
    start(0)
    drawn = _random_state()
    parts = list(module.named_modules())
    handles = [part.register_forward_hook(_recorder(name, outputs)) for name, part in parts]
    result = call(module, each(torch.clone, record))
    for handle in handles:
        handle.remove()
    # What a module changes in its backward hooks counts as well.
    total = sum(t.sum() for t in _floats(result))
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()
    outputs["the model"] = torch.cat([t.detach().reshape(-1) for t in _floats(result)])
    after = holdings(module)
    moved = tuple(n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n))
    return outputs, moved, drawn != _random_state()


def _recorder(name: str, outputs: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, given: object, output: object) -> None:
        for part in _floats(output)[:1]:
            outputs[name or "the model"] = part.detach().clone()

    return hook


def _floats(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for part in value for t in _floats(part)]
    # An object with scores, as language models return them.
    return _floats(getattr(value, "logits", []))


def _random_state() -> tuple[object, ...]:
    ours = torch.get_rng_state().numpy().tobytes()
    return ours, random.getstate(), _told(np.random.get_state(), set())  # noqa: NPY002


def _outline(model: nn.Module) -> tuple[object, ...]:
    """What distinguishes a model from itself after somebody has changed it."""
    return tuple(part for module in model.modules() for part in _features(module))


def _features(module: nn.Module) -> Iterator[object]:
    yield id(module)
    yield type(module)
    yield len(module._forward_hooks)
    yield len(module._forward_pre_hooks)
    yield "forward" in vars(module)
    for parameter in module._parameters.values():
        if parameter is not None:
            yield parameter.requires_grad


def holdings(model: nn.Module) -> dict[str, object]:
    """Everything a module holds, by name and comparable: buffers, attributes, hooks, flags.

    The values of trained weights are left out: they are what training is about.

    Parameters
    ----------
    model : nn.Module
        Any module.

    Returns
    -------
    dict of str to object
        Values that compare equal as long as nothing in them has changed.

    Examples
    --------
    >>> sorted(holdings(nn.Linear(2, 1)))[:3]
    ['_backward_hooks', '_backward_pre_hooks', '_buffers']
    """
    found: dict[str, object] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in vars(module).items():
            found[prefix + name] = tuple(value) if name in _NAMED else _told(value, set())
        for name, tensor in (module._buffers | module._parameters).items():
            if tensor is not None:
                found[prefix + name] = _told(tensor, set())
    return found


# Where a module keeps what has names; their contents are told one by one.
_NAMED = ("_parameters", "_buffers", "_modules")
# What code is made of: it is the same as long as it is the same object.
_CODE = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType, nn.Module)


def _told(value: object, seen: set[int]) -> object:
    """`value` as something that compares equal as long as nothing in it has changed."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, float):
        return repr(value)  # NaN is NaN
    if isinstance(value, Tensor):
        return _told_tensor(value)
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    if id(value) in seen:
        return "again"
    seen.add(id(value))
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _told_parts(value, seen)
    if isinstance(value, weakref.ReferenceType):
        return "a weak reference"
    if isinstance(value, _CODE) or not hasattr(value, "__dict__"):
        return (type(value).__qualname__, id(value))
    return (type(value).__qualname__, _told(vars(value), seen))


def _told_tensor(value: Tensor) -> tuple[object, ...]:
    if isinstance(value, nn.Parameter) and value.requires_grad:
        return ("trained", tuple(value.shape))
    entries = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return (tuple(value.shape), str(value.dtype), entries.numpy().tobytes())


def _told_parts(value: Collection[object], seen: set[int]) -> object:
    if isinstance(value, dict):
        return tuple((_told(k, seen), _told(v, seen)) for k, v in value.items())
    parts = (_told(part, seen) for part in value)
    return frozenset(parts) if isinstance(value, set | frozenset) else tuple(parts)
