"""Records as models take them: a tensor, a tuple or a dict of tensors, with a row for each record.

An empty slice of records, `form`, says everything about them but their values: structure, shapes
and types. It stands for a population wherever nothing of its data may be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Records = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
# What torch makes a tensor of.
Array = Tensor | np.ndarray | Sequence[object]

# What the target is called in items that are dicts.
TARGETS = ("label", "labels", "target", "y")
# Kinds of numpy's types that are numbers: truth values, whole and real numbers.
_NUMBERS = "biuf"


def leaves(records: Records) -> list[Tensor]:
    """The tensors of records, in their order.

    Parameters
    ----------
    records : Records
        A tensor, or a tuple or dict of tensors.

    Returns
    -------
    list of Tensor
    """
    if isinstance(records, Tensor):
        return [records]
    return list(records.values() if isinstance(records, dict) else records)


def each(change: Callable[..., Tensor], records: Records, *others: Records) -> Records:
    """`change` of every tensor, in the same structure.

    Parameters
    ----------
    change : callable
        From a tensor (and those in its place in `others`) to a tensor.
    records, others : Records
        Of one structure.

    Returns
    -------
    Records

    Examples
    --------
    >>> each(torch.neg, (torch.ones(2), torch.zeros(2)))[0]
    tensor([-1., -1.])
    """
    rows = zip(leaves(records), *map(leaves, others), strict=True)
    changed = [change(*row) for row in rows]
    if isinstance(records, Tensor):
        return changed[0]
    if isinstance(records, dict):
        return dict(zip(records, changed, strict=True))
    return tuple(changed)


def count(records: Records) -> int:
    """How many records there are.

    Parameters
    ----------
    records : Records
        At least one tensor.

    Returns
    -------
    int
    """
    return len(leaves(records)[0])


def take(records: Records, index: Any) -> Records:
    """The records at `index`, whatever torch takes as one.

    Parameters
    ----------
    records : Records
        With n rows.
    index : Tensor, slice or int
        Of rows; leading dimensions of the result are its own.

    Returns
    -------
    Records
    """
    return each(lambda part: part[index], records)


def form(records: Records) -> Records:
    """The form of records: none of them, with structure, shapes and types.

    Parameters
    ----------
    records : Records
        With any number of rows.

    Returns
    -------
    Records
        With no rows.
    """
    return take(records, slice(0))


def call(model: Callable[..., Any], records: Records) -> Any:
    """The model on records: its one argument, or several by position or by name.

    Parameters
    ----------
    model : nn.Module or callable
        It is called as `model(x)`, `model(*x)` for a tuple or `model(**x)` for a dict.
    records : Records
        What it is called with.

    Returns
    -------
    object
        Whatever the model returns.
    """
    if isinstance(records, tuple):
        return model(*records)
    if isinstance(records, dict):
        return model(**records)
    return model(records)


def made_up(like: Records, rows: int = 2, phase: float = 0.0) -> Records:
    """Made-up records for trying a module: a fixed pattern, within (0, 1) or of zeros and ones.

    Parameters
    ----------
    like : Records
        The form of the records, on the device where they shall be.
    rows : int
        How many.
    phase : float
        Where the pattern begins: another phase makes other records.

    Returns
    -------
    Records
    """
    return each(lambda part: _pattern(part, rows, phase), like)


def _pattern(like: Tensor, rows: int, phase: float) -> Tensor:
    shape = like.shape[1:]
    angles = torch.arange(rows * shape.numel(), dtype=torch.float64) + 1 + phase
    # Between 0 and 1 a model may take them for pixels, shares or positive numbers.
    values = (torch.sin(angles).view(rows, *shape) + 1) / 2
    if not like.is_floating_point():
        # A vocabulary has at least two words.
        values = values > 1 / 2
    return values.to(like)


def same_form(one: Records, other: Records) -> bool:
    """Whether records have the same structure, types and shapes.

    Parameters
    ----------
    one, other : Records
        With any number of rows.

    Returns
    -------
    bool
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and list(one) != list(other):
        return False
    told = [[(part.shape[1:], part.dtype) for part in leaves(records)] for records in (one, other)]
    return told[0] == told[1]


def cast(records: Records, like: Records) -> Records:
    """Records of the types, and on the device, of a form.

    Parameters
    ----------
    records : Records
        With any number of rows.
    like : Records
        Of the same structure.

    Returns
    -------
    Records
    """
    return each(lambda part, wanted: part.to(wanted), records, like)


def accepted(module: nn.Module, like: Records, weights: Tensor) -> Records:
    """The form in which a model takes records: real numbers as its weights, whole ones as they are.

    Whole numbers are words or categories to one model and measurements to another. Which, is tried
    on made-up records: where the module does not run on whole numbers and does on real ones, they
    are real.

    Parameters
    ----------
    module : nn.Module
        A copy that may be run.
    like : Records
        The form of the records as a population keeps them.
    weights : Tensor
        Of the type, and on the device, of the model's weights.

    Returns
    -------
    Records
        With no rows.
    """

    def real(part: Tensor) -> Tensor:
        return part.to(weights)

    def kept(part: Tensor) -> Tensor:
        return part.to(weights) if part.is_floating_point() else part.to(weights.device)

    as_given = each(kept, like)
    if all(part.is_floating_point() for part in leaves(like)) or _runs(module, as_given):
        return as_given
    as_real = each(real, like)
    return as_real if _runs(module, as_real) else as_given


def _runs(module: nn.Module, like: Records) -> bool:
    try:
        with torch.no_grad():
            call(module, made_up(like))
    except Exception:  # whatever a stranger's module raises
        return False
    return True


def activations(model: nn.Module, like: Records) -> int:
    """Entries of all layers' outputs for one record, tried on a made-up one; at least 1.

    Parameters
    ----------
    model : nn.Module
        It is run once, without gradients.
    like : Records
        The form in which it takes records.

    Returns
    -------
    int
    """
    found = [sum(part.shape[1:].numel() for part in leaves(like))]

    def note(module: nn.Module, given: object, out: object) -> None:
        if isinstance(out, Tensor):
            found.append(out.numel())

    handles = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            call(model, made_up(like, rows=1))
    finally:
        for handle in handles:
            handle.remove()
    return max(1, sum(found))


def as_records(values: Any, name: str = "x", finite: bool = True) -> Records:
    """Records in the form that a population keeps: real numbers in float32, whole ones in int64.

    Pixels in bytes and truth values become real numbers.

    Parameters
    ----------
    values : array, or tuple or dict of arrays
        Numbers (n, ...), with n the same for all.
    name : str
        For messages.
    finite : bool
        Whether NaN and infinity are refused.

    Returns
    -------
    Records

    Raises
    ------
    ValueError
        It says what is wrong with them.

    Examples
    --------
    >>> as_records({"ids": [[1, 2]], "weight": [0.5]})["ids"].dtype
    torch.int64
    """
    found: Records
    if isinstance(values, Mapping):
        parts = values.items()
        found = {str(key): _inputs(part, f"{name}[{key!r}]", finite) for key, part in parts}
    elif isinstance(values, tuple):
        found = tuple(_inputs(part, f"{name}[{i}]", finite) for i, part in enumerate(values))
    else:
        found = _inputs(values, name, finite)
    lengths = {len(part) for part in leaves(found)}
    if len(lengths) != 1:
        told = sorted(lengths) or "nothing"
        raise ValueError(f"{name} holds {told} records: give as many in each of its parts")
    return found


def _inputs(values: Any, name: str, finite: bool) -> Tensor:
    found = as_rows(values, name)
    if found.is_floating_point() or found.dtype in (torch.uint8, torch.bool):
        found = found.float()
        if finite:
            check_finite(found, name)
        return found
    return found.long()


def as_targets(values: Any, name: str = "y", finite: bool = True) -> Tensor:
    """Targets in the form that a population keeps: real numbers in float32, labels in int64.

    Parameters
    ----------
    values : array
        Numbers (n, ...).
    name : str
        For messages.
    finite : bool
        Whether NaN and infinity are refused.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        It says what is wrong with them.
    """
    found = as_rows(values, name)
    if not found.is_floating_point():
        return found.long()
    found = found.float()
    if finite:
        check_finite(found, name)
    return found


def as_rows(values: Any, name: str) -> Tensor:
    """`values` as a tensor with a row a record; ValueError where they are no numbers.

    Parameters
    ----------
    values : array
        A tensor, or what numpy reads: lists, arrays, columns of a data frame.
    name : str
        For messages.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        For words, objects, complex numbers, ragged lists and a single number.
    """
    if not isinstance(values, Tensor):
        values = _tensor(values, name)
    if values.is_complex() or values.layout != torch.strided or values.ndim < 1:
        raise ValueError(
            f"{name} is a {values.dtype} tensor of shape {tuple(values.shape)}: give "
            "real or whole numbers, a row for each record"
        )
    return values.detach()


def _tensor(values: Any, name: str) -> Tensor:
    """What numpy reads, as a tensor; ValueError where it is no numbers."""
    try:
        if isinstance(values, list) and values and all(isinstance(v, Tensor) for v in values):
            return torch.stack(values)
        given = np.asarray(values)
        array = _of_objects(given) if given.dtype.kind == "O" and given.ndim else given
    except Exception as error:  # ragged lists, and whatever a stranger's object raises
        raise ValueError(f"{name} cannot be read as numbers ({error})") from None
    if array.dtype.kind not in _NUMBERS:
        where = _odd_columns(values, given)
        raise ValueError(
            f"{name} is of type {array.dtype}, not of numbers{where}: turn words and categories "
            "into whole numbers from 0 (np.unique(..., return_inverse=True)), and fill what is "
            "missing"
        )
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}: whole numbers must be below 2^63")
    return torch.from_numpy(_native(array))


def _odd_columns(values: Any, array: np.ndarray) -> str:
    """The names of a data frame's columns that hold no numbers; empty for anything else."""
    if not hasattr(values, "columns") or array.ndim != 2:
        return ""
    named = zip(values.columns, array.T, strict=True)
    odd = [str(name) for name, column in named if _kind(column) not in _NUMBERS]
    return f" ({', '.join(odd)})"


def _kind(array: np.ndarray) -> str:
    """The kind of an array's entries, of objects as numpy reads them once more."""
    return (_of_objects(array) if array.dtype.kind == "O" else array).dtype.kind


def _of_objects(array: np.ndarray) -> np.ndarray:
    """An array of objects as numpy reads them once more, what is missing as NaN."""
    entries = [math.nan if is_missing(entry) else entry for entry in array.ravel().tolist()]
    read = np.array(entries)
    return read.reshape(array.shape + read.shape[1:])


def length(values: object) -> int | None:
    """How long something is; None where it has no length.

    Parameters
    ----------
    values : object
        Anything.

    Returns
    -------
    int or None
    """
    try:
        return len(values)  # type: ignore[arg-type]
    except Exception:  # a tensor of one number has the method and no length
        return None


def is_missing(value: object) -> bool:
    """Whether something is None, NaN, or what else does not equal itself.

    Parameters
    ----------
    value : object
        An entry of a list or of a column.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_missing(None), is_missing(math.nan), is_missing("")
    (True, True, False)
    """
    if value is None:
        return True
    try:
        return bool(value != value)
    except Exception:  # pandas' NA is neither equal nor unequal to anything; arrays are several
        return type(value).__name__ == "NAType"


def _native(array: np.ndarray) -> np.ndarray:
    """A writable array of a type that torch has."""
    kind = array.dtype.kind
    wanted = array.dtype.newbyteorder("=")
    if kind == "u" and array.dtype.itemsize > 1:
        wanted = np.dtype(np.int64)
    if kind == "f" and array.dtype.itemsize not in (2, 4, 8):
        wanted = np.dtype(np.float64)
    return np.require(array, wanted, ["C", "W"])


def check_finite(values: Tensor, name: str) -> None:
    """ValueError with the count where records hold NaN or infinity.

    Parameters
    ----------
    values : Tensor
        Real numbers (n, ...).
    name : str
        For the message.

    Raises
    ------
    ValueError
    """
    if bool(torch.isfinite(values).all()):
        return
    bad = int((~torch.isfinite(values.reshape(len(values), -1))).any(1).sum())
    raise ValueError(f"{bad} records of {name} hold NaN or infinity: remove or fill them first")


def collated(items: Sequence[Any]) -> tuple[Records, Tensor]:
    """Items of a Dataset as records and targets.

    Parameters
    ----------
    items : sequence
        At least one: pairs (x, y); or dicts with one of the names in `TARGETS`, the rest of which
        is x, a dict unless it is one entry alone.

    Returns
    -------
    (Records, Tensor)

    Raises
    ------
    ValueError
        For items that are no pairs, or of different shapes.
    """
    from torch.utils.data import default_collate

    try:
        x, y = default_collate([_pair(item) for item in items])
    except Exception as error:
        raise ValueError(
            f"items of the Dataset are not pairs (x, y) of one shape, or dicts with a "
            f"{TARGETS[0]!r} ({error}): give it a transform that makes them so"
        ) from error
    x = tuple(x) if isinstance(x, list) else x
    return as_records(x), as_targets(y)


def _pair(item: Any) -> tuple[Any, Any]:
    """An item as (x, y); lists of numbers as arrays, which torch would take apart."""
    if isinstance(item, Mapping):
        (target,) = [name for name in TARGETS if name in item]
        rest = {name: _whole(part) for name, part in item.items() if name != target}
        return rest if len(rest) != 1 else next(iter(rest.values())), _whole(item[target])
    x, y = item
    return _whole(x), np.asarray(y) if isinstance(y, tuple) else _whole(y)


def _whole(part: Any) -> Any:
    """A list of numbers as an array."""
    if isinstance(part, list) and not any(isinstance(entry, Tensor) for entry in part):
        return np.asarray(part)
    return part
