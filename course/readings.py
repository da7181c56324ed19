"""What a check does with an answer: read it as what it should be, or say what is wrong with it.

Every function here raises an `AssertionError` whose text a student may read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

# Text in a reason is cut here.
SHOWN = 60


def _named(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "nothing (None)" if value is None else f"a {type(value).__name__}: {cut}"


def number(value: Any, finite: bool = True) -> float:
    """A number, from a number or a tensor with one element.

    Parameters
    ----------
    value : object
        The answer.
    finite : bool
        Whether NaN and infinity are refused.

    Examples
    --------
    >>> number(2)
    2.0
    >>> number("2")
    Traceback (most recent call last):
    AssertionError: expected a number, got a str: '2'
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.dtype != torch.bool:
        value = value.item()
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    assert ok, f"expected a number, got {_named(value)}"
    assert not finite or math.isfinite(value), f"expected a finite number, got {value}"
    return float(value)


def tensor(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    finite: bool = True,
) -> torch.Tensor:
    """A tensor, of this shape and type where they are given; a list of numbers will do."""
    if isinstance(value, list) and all(isinstance(x, int | float) for x in value):
        value = torch.tensor(value, dtype=torch.float64)
    assert isinstance(value, torch.Tensor), f"expected a tensor, got {_named(value)}"
    if shape is not None:
        same = tuple(value.shape) == tuple(shape)
        assert same, f"expected shape {tuple(shape)}, got {tuple(value.shape)}"
    if dtype is not None:
        assert value.dtype == dtype, f"expected {dtype}, got {value.dtype}"
    assert not finite or bool(torch.isfinite(value).all()), "there is NaN or infinity in a tensor"
    return value


def tensors(value: Any, like: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """A list of tensors, of the shapes and in the number of `like` where it is given."""
    assert isinstance(value, list), f"expected a list of tensors, got {_named(value)}"
    if like is None:
        return [tensor(item) for item in value]
    assert len(value) == len(like), f"expected {len(like)} tensors, got {len(value)}"
    return [tensor(item, shape=other.shape) for item, other in zip(value, like, strict=True)]


def text(value: Any, most: int = 10_000) -> str:
    """Text of at most so many characters."""
    assert isinstance(value, str), f"expected text, got {_named(value)}"
    assert len(value) <= most, f"expected at most {most} characters, got {len(value)}"
    return value


def table(value: Any, keys: Iterable[str]) -> dict[str, Any]:
    """A dict with exactly these keys."""
    assert isinstance(value, dict), f"expected a dict, got {_named(value)}"
    wanted = set(keys)
    missing = sorted(wanted - value.keys())
    assert not missing, f"the dict lacks {', '.join(missing)}"
    more = sorted(value.keys() - wanted)
    assert not more, f"the dict has a key that nobody asked for: {more[0][:SHOWN]}"
    return value


def near(value: float, want: float, rtol: float = 1e-6, atol: float = 0.0) -> None:
    """Fails unless |value − want| ≤ rtol·|want| + atol; the text does not give `want` away."""
    close = abs(value - want) <= rtol * abs(want) + atol
    assert close, f"{value:.6g} is not the number that it should be"
