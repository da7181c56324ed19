"""What a trial on made-up records shows of a model, before it sees anybody's own."""

from __future__ import annotations

import math
import random
import types
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fldp.simulation.inputs import Records, call, each, leaves, made_up
from fldp.simulation.interception import Interception
from fldp.simulation.isolation import Template, alone, oddity
from fldp.simulation.keyed import Masks

# On an accelerator sums may be rounded in another order, from one run to the next.
_SLACK = 1e-4


@dataclass(frozen=True)
class Traits:
    """What a trial run shows of a module.

    `failed` says that it did not run on made-up records, `moved` names what a forward and backward
    pass changes in the module, `draws` says that it draws random numbers of its own, `replaced`
    that a function of torch must be replaced where it is called, such as dropout, and `mixes` that
    what it says of a record depends on the others in its batch.
    """

    failed: str = ""
    moved: tuple[str, ...] = ()
    draws: bool = False
    replaced: bool = False
    mixes: bool = False


@dataclass(frozen=True)
class _Trial:
    """Outputs by module, what moved, and whether something was drawn or replaced."""

    outputs: dict[str, Tensor]
    result: Tensor
    moved: tuple[str, ...]
    draws: bool
    replaced: bool


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
        It names the part whose output depends on what was run before, or a normalisation that
        makes zeros of everything.
    """
    asked = signature(model, like)
    before = _known.get(model)
    if before is not None and before[0] == asked:
        return before[1]
    found = _try(template, like)
    _known[model] = (asked, found)
    return found


def signature(model: nn.Module, like: Records) -> tuple[object, ...]:
    """What distinguishes a model, and the form of its records, from itself after a change.

    Parameters
    ----------
    model : nn.Module
        Any module.
    like : Records
        The form in which it takes records.

    Returns
    -------
    tuple
        To be compared.
    """
    parts = [(part.shape, part.dtype, part.device) for part in leaves(like)]
    features = tuple(part for module in model.modules() for part in _features(module))
    return (features, type(like), *parts)


def _try(template: Template, like: Records) -> Traits:
    device = leaves(like)[0].device
    one = made_up(like)
    # One record, another, the first again: whatever the other leaves behind shows in the third.
    with alone(device) as start:
        try:
            first = _trial(template, one, start)
            other = _other(template, like, start)
            again = _trial(template, one, start).outputs
        except _Empty as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # a module may refuse made-up records
            return Traits(failed=f"{type(error).__name__}: {error}".partition("\n")[0])
        mixes = not first.draws and _mixes(template, like, first, start)
    slack = 0.0 if device.type == "cpu" else _SLACK
    for name, value in first.outputs.items():
        same = name in again and value.shape == again[name].shape
        if not (same and torch.allclose(value, again[name], slack, 0.0, equal_nan=True)):
            raise ValueError(
                f"the output of {name!r} depends on what was run before it, through something "
                "outside the module (a closure, a class attribute, a global) or random numbers of "
                "its own: one client's update would depend on another's. Keep state in the "
                "module's buffers or attributes, and draw from torch's global generator"
            )
    draws = first.draws or other.draws
    return Traits("", first.moved or other.moved, draws, first.replaced or other.replaced, mixes)


def _other(template: Template, like: Records, start: Callable[[int], None]) -> _Trial:
    """A trial on records of both signs, where the model takes such: some layers draw for one."""
    records = made_up(like, phase=2.0)
    centred = each(lambda part: 2 * part - 1 if part.is_floating_point() else part, records)
    try:
        return _trial(template, centred, start)
    except Exception:  # a model may want pixels, or shares
        return _trial(template, records, start)


def _trial(template: Template, records: Records, start: Callable[[int], None]) -> _Trial:
    module = template.fresh()
    before = holdings(module)
    outputs = dict[str, Tensor]()
    start(0)
    drawn = random_state()
    parts = list(module.named_modules())
    handles = [part.register_forward_hook(_recorder(name, outputs)) for name, part in parts]
    handles += [
        part.register_forward_pre_hook(_sceptic(name, part))
        for name, part in parts
        if isinstance(part, nn.GroupNorm)
    ]
    mode = Interception(Masks([0], leaves(records)[0].device))
    with mode:
        result = call(module, records)
    for handle in handles:
        handle.remove()
    # What a module changes in its backward hooks counts as well.
    found = _floats(result)
    total = sum(t.sum() for t in found)
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()
    outputs["the model"] = torch.cat([t.detach().reshape(-1) for t in found])
    after = holdings(module)
    moved = tuple(n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n))
    said = found[0].detach()
    return _Trial(outputs, said, moved, drawn != random_state(), bool(mode.replaced))


def _mixes(template: Template, like: Records, first: _Trial, start: Callable[[int], None]) -> bool:
    """Whether a third record changes what the model says of the first two."""
    try:
        more = _trial(template, made_up(like, rows=3), start).result
    except Exception:  # of a model that takes so many records and no others
        return True
    two = first.result
    if more.ndim == 0 or more.shape[1:] != two.shape[1:] or len(more) != 3 or len(two) != 2:
        return True
    # Sums are rounded in another order where there are more records.
    slack = math.sqrt(torch.finfo(two.dtype).eps)
    gap = (more[:2] - two).double().norm()
    return bool(gap > slack * two.double().norm())


class _Empty(ValueError):
    """A layer makes zeros of whatever it is given."""


def _sceptic(name: str, layer: nn.GroupNorm) -> Callable[..., None]:
    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shape = given[0].shape
        if shape[1:].numel() == layer.num_groups:
            raise _Empty(
                f"layer {name!r} is a GroupNorm with {layer.num_groups} groups on records of shape "
                f"{tuple(shape[1:])}: one value a group, of which nothing is left when its mean is "
                f"taken off. Use nn.LayerNorm({shape[1]}), or fewer groups"
            )

    return hook


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
    if hasattr(value, "logits"):
        value = [value.logits]
    if isinstance(value, list | tuple):
        return [t for part in value for t in _floats(part)]
    # An object with scores, as language models return them.
    return _floats(getattr(value, "logits", []))


def random_state() -> tuple[object, ...]:
    """Where the global random numbers of torch, numpy and Python stand.

    Returns
    -------
    tuple
        To be compared.
    """
    ours = torch.get_rng_state().numpy().tobytes()
    return ours, random.getstate(), _told(np.random.get_state(), set())  # noqa: NPY002


def _features(module: nn.Module) -> Iterator[object]:
    yield id(module)
    yield type(module)
    yield module.training
    yield oddity(module)
    yield len(module._forward_hooks)
    yield len(module._forward_pre_hooks)
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


def kept_by(holder: object) -> object:
    """What an object holds; of a function nothing is seen but which it is.

    Parameters
    ----------
    holder : object
        A module, or any object.

    Returns
    -------
    object
        It compares equal as long as nothing in it has changed.
    """
    return holdings(holder) if isinstance(holder, nn.Module) else _told(holder, set())


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
