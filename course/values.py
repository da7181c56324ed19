"""Values that travel between the grader and a submission, as JSON and nothing else.

Both sides use this module: the grader, which trusts nothing that comes back, and the worker in the
box. Never pickled, never evaluated: what is not in the table below is refused.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Those that numpy can hold, and bfloat16, which travels as the bits of an int16.
DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "bool"),
        *("uint8", "int8", "int16", "int32", "int64"),
    )
}
# Nobody nests deeper by hand; Python's own limit is far above.
DEEPEST = 20
# Floats hold integers exactly up to here; a larger one is no answer to any question.
LARGEST = 2**53


class Malformed(ValueError):
    """A value that cannot be sent, or an answer that is none."""


class Seed(int):
    """A number that arrives in the student's function as a `torch.Generator` with this seed."""


def _sent_tensor(value: torch.Tensor) -> dict[str, Any]:
    if value.layout != torch.strided:
        raise Malformed("a sparse tensor cannot be sent: use to_dense()")
    plain = value.detach().cpu().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise Malformed(f"a tensor of {name} cannot be sent: use float32")
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    raw = plain.numpy().tobytes()
    shape = list(value.shape)
    return {"tensor": base64.b64encode(raw).decode(), "dtype": name, "shape": shape}


def encode(
    value: Any, functions: list[Callable[..., Any]] | None = None, depth: int = 0
) -> dict[str, Any]:
    """A value as JSON can hold it.

    Parameters
    ----------
    value : object
        None, bool, int, float, str, a list or tuple (arrives as a list), a dict with str keys, a
        tensor, a numpy array or scalar (arrives as a tensor or a number), a `Seed`, or, with
        `functions`, a callable.
    functions : list, optional
        Where callables are put; each travels as its place there. None refuses callables.
    depth : int
        How deep in a list or dict this is.

    Returns
    -------
    dict

    Raises
    ------
    Malformed
        For everything else.

    Examples
    --------
    >>> decode(encode({"norm": 1.5, "parts": (1, None)}))
    {'norm': 1.5, 'parts': [1, None]}
    """
    if depth > DEEPEST:
        raise Malformed(f"lists in lists deeper than {DEEPEST} cannot be sent")
    if isinstance(value, torch.Generator):
        # It comes back only as an argument that nobody reads.
        return {"value": None}
    if isinstance(value, Seed):
        return {"seed": int(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": _plain(value)}
    if isinstance(value, torch.Tensor):
        return _sent_tensor(value)
    if isinstance(value, list | tuple):
        return {"list": [encode(item, functions, depth + 1) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[str(k), encode(v, functions, depth + 1)] for k, v in value.items()]}
    return _encode_other(value, functions)


def _encode_other(value: Any, functions: list[Callable[..., Any]] | None) -> dict[str, Any]:
    import numpy as np

    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, np.ndarray):
        return _sent_tensor(torch.from_numpy(np.ascontiguousarray(value)))
    if functions is not None and callable(value):
        functions.append(value)
        return {"function": len(functions) - 1}
    kind = type(value).__name__
    raise Malformed(f"a {kind} cannot be sent: return numbers, text, tensors, lists or dicts")


def _received_tensor(packed: Mapping[str, Any]) -> torch.Tensor:
    shape = packed.get("shape")
    text = packed["tensor"]
    # As text, since a list is no key.
    dtype = DTYPES.get(str(packed.get("dtype")))
    if dtype is None or not isinstance(shape, list) or not isinstance(text, str):
        raise Malformed("a tensor without type or shape")
    if not all(type(size) is int and 0 <= size <= LARGEST for size in shape):
        raise Malformed("a tensor of no possible shape")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a tensor whose content is no base64") from None
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise Malformed("a tensor whose content does not fill its shape")
    if not raw:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool:
        # A byte that is neither 0 nor 1 is no bool to torch.
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8).ne(0).reshape(shape)
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape).clone()


def decode(
    packed: Any, function: Callable[[int], Any] | None = None, depth: int = 0, seeds: bool = False
) -> Any:
    """The value that `encode` packed.

    Parameters
    ----------
    packed : object
        What came as JSON; nothing about it is presumed.
    function : callable, optional
        Gives the callable for a place in the sender's list; None refuses callables.
    depth : int
        How deep in a list or dict this is.
    seeds : bool
        Whether a seed becomes a generator; else it is refused.

    Raises
    ------
    Malformed
        Where it is not what `encode` writes.
    """
    if depth > DEEPEST or not isinstance(packed, dict):
        raise Malformed("no value")
    if "value" in packed:
        return _plain(packed["value"])
    if "tensor" in packed:
        return _received_tensor(packed)
    if isinstance(items := packed.get("list"), list):
        return [decode(item, function, depth + 1, seeds) for item in items]
    if isinstance(items := packed.get("dict"), list):
        return {_key(item): decode(item[1], function, depth + 1, seeds) for item in items}
    if seeds and type(packed.get("seed")) is int:
        return torch.Generator().manual_seed(packed["seed"])
    if function is not None and type(packed.get("function")) is int:
        return function(packed["function"])
    raise Malformed("no value")


def _plain(value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise Malformed("no value")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise Malformed("an integer beyond 2**53")
    return value


def _key(item: Any) -> str:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise Malformed("a dict without text for keys")
    return item[0]
