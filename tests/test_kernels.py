"""Kernels for many clients at once: each client gets what torch's function gives it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fldp.simulation import kernels

C = 3


def draw(*shape: int) -> Tensor:
    return torch.randn(C, *shape, dtype=torch.float64)


def every(function: Any, *parts: Tensor) -> Tensor:
    return torch.stack([function(*own) for own in zip(*parts, strict=True)])


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_linear(frozen: bool, biased: bool) -> None:
    torch.manual_seed(0)
    parts = [draw(2, 5, 4), draw(6, 4)] + [draw(6)] * biased
    if frozen:
        parts[1:] = [part[:1].expand_as(part) for part in parts[1:]]
    torch.testing.assert_close(kernels.linear(*parts), every(F.linear, *parts))


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("settings", [(2, 1, 1, 2), ((1, 2), 0, 2), ()])
def test_convolution(
    settings: tuple[Any, ...], biased: bool, frozen: bool, large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if large:
        monkeypatch.setattr(kernels, "_LARGE_IMAGES", 0)
    torch.manual_seed(0)
    groups = settings[3] if len(settings) == 4 else 1
    parts = [draw(2, 4, 7, 7), draw(6, 4 // groups, 2, 2)] + [draw(6)] * biased
    if frozen:
        parts[1:] = [part[:1].expand_as(part) for part in parts[1:]]

    def alone(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, *settings)

    found = kernels.convolution(F.conv2d, settings, {}, *parts)
    torch.testing.assert_close(found, every(alone, *parts))
    named = dict(zip(("stride", "padding", "dilation", "groups"), settings, strict=False))
    torch.testing.assert_close(kernels.convolution(F.conv2d, (), named, *parts), found)


@pytest.mark.parametrize("lead", [(2, 2), (2,), (3, 2, 2)])
@pytest.mark.parametrize("settings", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_attention(lead: tuple[int, ...], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    q, k, v = (draw(*lead, 5, 4) for _ in range(3))

    def alone(*parts: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*parts, **settings)

    torch.testing.assert_close(kernels.attention(settings, q, k, v), every(alone, q, k, v))
    weights = kernels.attention_weights(q, k, None, settings)
    torch.testing.assert_close(weights @ v, every(alone, q, k, v))


@pytest.mark.parametrize("shape", [(5, 5), (2, 1, 5, 5), (2, 2, 5, 5)])
@pytest.mark.parametrize("boolean", [True, False])
def test_masked_attention(shape: tuple[int, ...], boolean: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (draw(2, 2, 5, 4) for _ in range(3))
    mask = draw(*shape)
    if boolean:
        mask = mask > 0
        mask[..., 0, :] = False
    found = kernels.attention({}, q, k, v, mask)
    torch.testing.assert_close(found, every(F.scaled_dot_product_attention, q, k, v, mask))
    for i in range(C):
        weights = kernels.attention_weights(q[i], k[i], mask[i], {})
        torch.testing.assert_close(weights @ v[i], found[i])


def test_grouped_queries() -> None:
    torch.manual_seed(0)
    q, k, v = draw(2, 4, 5, 4), draw(2, 2, 5, 4), draw(2, 2, 5, 4)
    settings = {"enable_gqa": True}
    weights = kernels.attention_weights(q, kernels.repeated(k, q, settings), None, settings)
    found = weights @ kernels.repeated(v, q, settings)
    expected = every(lambda *p: F.scaled_dot_product_attention(*p, enable_gqa=True), q, k, v)
    torch.testing.assert_close(found, expected)


def test_group_norm() -> None:
    x = draw(2, 6, 3, 3)
    found = kernels.group_norm(2, 1e-5, x)
    torch.testing.assert_close(found, every(lambda part: F.group_norm(part, 2), x))
