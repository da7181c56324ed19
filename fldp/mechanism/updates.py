"""Between a model's tensors and one flat vector, in both directions: the form that is summed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

Shapes = tuple[tuple[str, torch.Size, int], ...]
Slices = Sequence[tuple[str, int, int]]
# What batch normalisation keeps: statistics of the data, which no clip bounds.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# Bytes of a float64.
_DOUBLE = 8
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def shapes(model: nn.Module) -> Shapes:
    """Name, shape and size of every trainable parameter, in ``named_parameters`` order.

    Buffers and frozen parameters are not part of an update. A shared (tied) parameter counts once.

    Parameters
    ----------
    model : nn.Module
        Any module.

    Returns
    -------
    tuple of (str, torch.Size, int)

    Examples
    --------
    >>> shapes(nn.Linear(2, 3))
    (('weight', torch.Size([3, 2]), 6), ('bias', torch.Size([3]), 3))
    """
    return tuple((n, p.shape, p.numel()) for n, p in model.named_parameters() if p.requires_grad)


def flatten(model: nn.Module) -> Tensor:
    """A copy of the trainable parameters as one vector of shape (d,).

    Parameters
    ----------
    model : nn.Module
        A module with at least one trainable parameter, in the order of `shapes`.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Where nothing is trainable.

    Examples
    --------
    >>> flatten(nn.Linear(2, 3)).shape
    torch.Size([9])
    """
    parts = [p.detach().reshape(-1) for p in model.parameters() if p.requires_grad]
    if not parts:
        raise ValueError("the model has no trainable parameter: nothing to flatten")
    return torch.cat(parts)


def load_(model: nn.Module, flat: Tensor) -> nn.Module:
    """Write a vector into the trainable parameters, in place.

    Parameters
    ----------
    model : nn.Module
        The module that is written to; it is returned.
    flat : Tensor
        The vector (d,), in the order of `shapes`.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        Where d is not the model's.

    Examples
    --------
    >>> model = load_(nn.Linear(2, 1), torch.tensor([1.0, 2.0, 3.0]))
    >>> model.weight.tolist(), model.bias.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    parts = views(flat, shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(parts[name])
    return model


def views(flat: Tensor, layout: Sequence[tuple[str, torch.Size, int]]) -> dict[str, Tensor]:
    """Named views into a vector, or into the rows of a matrix; nothing is copied.

    Parameters
    ----------
    flat : Tensor
        Of shape (..., d); leading dimensions are kept.
    layout : sequence of (str, torch.Size, int)
        As `shapes` gives it.

    Returns
    -------
    dict of str to Tensor
        By name, in the layout's order.

    Raises
    ------
    ValueError
        When d differs from the layout's total.

    Examples
    --------
    >>> layout = shapes(nn.Linear(2, 1))
    >>> views(torch.arange(3.0), layout)["weight"]
    tensor([[0., 1.]])
    """
    total = sum(size for _, _, size in layout)
    if flat.shape[-1] != total:
        raise ValueError(f"the vector has {flat.shape[-1]} entries, the model needs {total}")
    parts = flat.split([size for _, _, size in layout], dim=-1)
    lead = flat.shape[:-1]
    return {n: p.view(lead + s) for (n, s, _), p in zip(layout, parts, strict=True)}


def as_tensor(value: object, shape: Sequence[int] | None = None) -> Tensor:
    """`value` as a dense, detached float32 or float64 tensor; ValueError when it cannot be one.

    Half precision, integers and booleans become float32. With `shape`, a value that says it has
    another one is refused before anything is allocated: a sparse or expanded tensor of a few bytes
    may claim to be gigabytes.
    """
    if _is_ready(value) and shape in (None, value.shape):
        return value
    value = plain(value)
    if shape is not None:
        _compare(value, tuple(shape))
    try:
        found = _numeric(value if isinstance(value, Tensor) else _from_array(value))
    except Exception as error:  # whatever a stranger's object raises when it is read
        raise ValueError(f"not a numeric tensor: {error}") from error
    if shape is not None:
        _compare(found, tuple(shape))
    return found


def _is_ready(value: object) -> TypeGuard[Tensor]:
    """Whether `value` needs no conversion: the case of every row of a simulation."""
    if type(value) is not Tensor or value.dtype != torch.float32 or value.requires_grad:
        return False
    return value.layout == torch.strided and not value.is_meta


def _from_array(value: object) -> Tensor:
    """What numpy can read as real numbers, in float32, or in float64 where it is at least that."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"dtype {array.dtype} is not a real number type")
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= _DOUBLE
    dtype = "float64" if wide else "float32"
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def _numeric(value: Tensor) -> Tensor:
    """`value` detached, dense, and in float32 or float64."""
    value = value.detach()
    if value.is_complex():
        raise TypeError("complex numbers are not model parameters")
    if value.is_nested or value.is_meta:
        raise TypeError("a nested or meta tensor has no values of one shape")
    if value.layout != torch.strided:
        value = _dense(value)
    if value.dtype in (torch.float32, torch.float64):
        return value
    return value.float()


def plain(value: Any) -> Any:
    """A tensor or an array without the methods of a subclass; anything else as it is.

    A subclass may answer every question as it likes: a norm of 0, another shape each time.
    """
    if type(value) in (Tensor, np.ndarray):
        return value
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if not isinstance(value, Tensor):
        return value
    # Its hook of `__torch_function__` would be asked otherwise.
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def _compare(value: object, shape: tuple[int, ...]) -> None:
    """ValueError when `value` states a shape, or a length, that is not the expected one."""
    if isinstance(value, Tensor) and value.is_nested:
        return  # without a shape to state; `as_tensor` refuses it
    if hasattr(value, "shape"):
        if tuple(value.shape) != shape:
            raise ValueError(f"it has shape {tuple(value.shape)}, expected {shape}")
        return
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not shape or len(value) != shape[0]:
            raise ValueError(f"it has {len(value)} entries, expected shape {shape}")
        # A list of a few bytes may hold another one a million times: look into it as well.
        if len(value):
            _compare(value[0], shape[1:])


def _dense(value: Tensor) -> Tensor:
    """A sparse tensor as a dense one, after a check of its indices, which torch does not make.

    Indices out of range write outside of the dense tensor, or end the process.
    """
    if value.layout == torch.sparse_coo:
        indices = value._indices()
        entries = value._values()
        _fewer(indices.shape[1], value)
        torch.sparse_coo_tensor(indices, entries, value.shape, check_invariants=True)
    elif value.layout in _COMPRESSED:
        by_rows = value.layout in (torch.sparse_csr, torch.sparse_bsr)
        if by_rows:
            ends = value.crow_indices()
            indices = value.col_indices()
        else:
            ends = value.ccol_indices()
            indices = value.row_indices()
        _fewer(indices.numel(), value)
        torch.sparse_compressed_tensor(
            ends, indices, value.values(), value.shape, layout=value.layout, check_invariants=True
        )
    return value.to_dense()


def _fewer(stored: int, value: Tensor) -> None:
    if stored > value.numel():
        raise ValueError(f"{stored} stored entries for {value.numel()} values")


def unpack(update: object) -> tuple[list[str], list[Any], Callable[[list[Tensor]], Any]]:
    """Names and leaves of an update, and the function that puts such leaves back together.

    An update is a tensor or array, a mapping of names to tensors (a state dict), a list of tensors,
    or a pair of modules (before, after) whose trainable parameters are subtracted.
    """
    if isinstance(update, Mapping):
        keys = list(update)
        return [str(k) for k in keys], list(update.values()), partial(_under, keys)
    if isinstance(update, (list, tuple)):
        if len(update) == 2 and all(isinstance(module, nn.Module) for module in update):
            before, after = update
            if shapes(before) != shapes(after):
                raise ValueError("the two modules of a (before, after) pair differ in structure")
            old = dict(before.named_parameters())
            new = dict(after.named_parameters())
            return unpack({n: new[n].detach() - old[n].detach() for n, _, _ in shapes(before)})
        return [f"[{i}]" for i in range(len(update))], list(update), list
    return [""], [update], itemgetter(0)


def _under(names: list[Any], leaves: list[Tensor]) -> dict[Any, Tensor]:
    return dict(zip(names, leaves, strict=True))


class Layout:
    """The structure that every update of a round must have: that of an update, or of a module.

    Buffers such as batch statistics are never part of it; an error names them when they are sent.

    Parameters
    ----------
    like
        An update (tensors by name, a list of them, or a flat tensor), or a module.
    flat
        True: `restore` leaves the vector flat, whatever structure the names tell to a clip.

    Raises
    ------
    ValueError
        For buffers, two tensors of one name, and updates without entries.
    """

    def __init__(self, like: object, flat: bool = False) -> None:
        self._flat = flat
        self._buffers: set[str] = set()
        if isinstance(like, nn.Module):
            self._buffers = {name for name, _ in like.named_buffers()}
            like = {n: p for n, p in like.named_parameters() if p.requires_grad}
        self.names, leaves, self._rebuild = unpack(like)
        # Whether the tensors have places instead of names, as in a list.
        self._numbered = self.names == [f"[{i}]" for i in range(len(self.names))]
        self._refuse_buffers(self.names)
        if len(set(self.names)) < len(self.names):
            raise ValueError("two tensors of the update have the same name")
        tensors = [as_tensor(leaf) for leaf in leaves]
        self._shapes = [t.shape for t in tensors]
        self._sizes = [t.numel() for t in tensors]
        self.total = sum(self._sizes)
        if self.total == 0:
            raise ValueError("the updates have no entries: nothing to aggregate")
        wide = all(t.dtype == torch.float64 for t in tensors)
        dtype = torch.float64 if wide else torch.float32
        self.empty = tensors[0].new_empty(0, dtype=dtype)
        ends = np.cumsum([0, *self._sizes]).tolist()
        self.slices: Slices = list(zip(self.names, ends[:-1], ends[1:], strict=True))

    @classmethod
    def of(cls, like: object) -> Layout:
        """The layout `like`, or that of an update or a module."""
        return like if isinstance(like, cls) else cls(like)

    @classmethod
    def of_rows(cls, model: nn.Module, flat: Tensor, width: int) -> Layout:
        """What a client of `model` sends in a simulation: rows (`width`,) by parameters.

        A width of twice d holds a second vector of the same structure, as SCAFFOLD sends one.
        """
        parts = {}
        vectors = flat.new_zeros(width).split(len(flat))
        for number, vector in enumerate(vectors):
            for name, part in views(vector, shapes(model)).items():
                key = name
                if number:
                    # The second vector's tensors need names of their own.
                    key = f"{name} ({number + 1})"
                parts[key] = part
        return cls(parts, flat=True)

    def _refuse_buffers(self, names: Sequence[str]) -> None:
        sent = [n for n in names if n in self._buffers or n.rsplit(".", 1)[-1] in _BUFFERS]
        if sent:
            raise ValueError(f"{sent} are buffers: send trainable parameters only")

    def rows(self, update: object, out: Tensor, one: bool = False) -> Tensor:
        """`update` as a matrix (c, d), one client per row; written to `out` (d,) if it has parts.

        With `one`, a matrix of several rows is refused. Raises ValueError that names the first
        tensor which differs. Shapes are compared before anything is allocated.
        """
        update = plain(update)
        if isinstance(update, (Tensor, np.ndarray)) and self._is_matrix(update):
            return self._matrix(update, one)
        parts = self.parts(update)
        return (torch.cat(parts, out=out) if len(parts) > 1 else parts[0]).unsqueeze(0)

    def parts(self, update: object) -> list[Tensor]:
        """The tensors of one update in this layout's order, each flat; nothing of them is copied.

        Raises ValueError that names the first tensor which differs.
        """
        parts = self._ready_parts(update)
        if parts:
            return parts
        names, leaves, _ = unpack(update)
        given = dict(zip(names, leaves, strict=True))
        for name, shape in zip(self.names, self._shapes, strict=True):
            label = f"tensor {name!r}" if name else "the update"
            if name not in given:
                self._refuse_buffers(names)
                raise ValueError(f"{label} of shape {tuple(shape)} is missing")
            try:
                part = as_tensor(given.pop(name), shape)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from error
            parts.append(part.reshape(-1).to(self.empty))
        if given:
            self._refuse_buffers(list(given))
            raise ValueError(f"tensor {next(iter(given))!r} is not part of this model's update")
        return parts

    def _ready_parts(self, update: object) -> list[Tensor]:
        """The same where nothing needs to be looked up or converted, as in most updates, or []."""
        leaves: list[Any] = []
        if (type(update) is dict or type(update) is OrderedDict) and list(update) == self.names:
            leaves = list(update.values())
        elif type(update) is list and self._numbered:
            leaves = update
        if len(leaves) != len(self.names):
            return []
        dtype, device = self.empty.dtype, self.empty.device
        parts = []
        for leaf, shape in zip(leaves, self._shapes, strict=True):
            if not _is_ready(leaf) or leaf.shape != shape:
                return []
            if leaf.dtype != dtype or leaf.device != device:
                return []
            # A tensor of our own, also of a vector: whoever sent it may give it another shape.
            parts.append(leaf.reshape(-1))
        return parts

    def _matrix(self, update: Tensor | np.ndarray, one: bool) -> Tensor:
        """One flat update (d,), or several (c, d), as a matrix of contiguous rows."""
        if one and update.ndim == 2 and len(update) != 1:
            raise ValueError(f"one client sent {len(update)} updates")
        matrix = as_tensor(update).to(self.empty).reshape(-1, self.total)
        if matrix.stride(-1) != 1:
            # The order in which a row is summed up must not depend on the other rows.
            matrix = matrix.contiguous()
        return matrix

    def _is_matrix(self, update: Tensor | np.ndarray) -> bool:
        """Whether an array is one flat update (d,), or several (c, d), of another structure."""
        if isinstance(update, Tensor) and update.is_nested:
            return False
        shape = tuple(update.shape)
        return self._shapes != [shape] and len(shape) in (1, 2) and shape[-1] == self.total

    def restore(self, flat: Tensor) -> Any:
        """The vector (d,) in the structure of the updates."""
        if self._flat:
            return flat
        parts = flat.split(self._sizes)
        return self._rebuild([p.reshape(s) for p, s in zip(parts, self._shapes, strict=True)])
