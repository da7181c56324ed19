"""Features that no data set chose: known values of each step, and that nothing is read."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fldp
from fldp.features import Whitening, oriented_gradients, public, strokes


def images(count: int = 4, size: int = 28, seed: int = 0) -> Tensor:
    return torch.rand(count, size, size, generator=torch.Generator().manual_seed(seed))


def test_an_edge_votes_for_the_direction_of_growing_brightness() -> None:
    right = torch.zeros(1, 28, 28)
    right[:, :, 14:] = 1
    for turns, direction in ((0, 0), (1, 6), (2, 4), (3, 2)):
        # Rows count downwards: a turn to the left goes against the angle.
        turned = torch.rot90(right, turns, (1, 2))
        # Beyond the frame is black, so that the rim of what is bright votes as well: look at the
        # middle of the picture by itself.
        inner = oriented_gradients(turned, grids=(7,))[0].view(8, 7, 7)[:, 3, 3]
        assert int(inner.argmax()) == direction, turns


def test_turning_an_image_turns_bins_and_cells() -> None:
    plain = oriented_gradients(images(), grids=(7,)).view(4, 8, 7, 7)
    turned = oriented_gradients(torch.rot90(images(), 1, (1, 2)), grids=(7,)).view(4, 8, 7, 7)
    expected = torch.rot90(plain, 1, (2, 3)).roll(-2, dims=1)
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_light_on_dark_is_not_dark_on_light() -> None:
    # The frame is black: inside it, and away from its edge, every direction is the opposite one.
    bright = torch.zeros(1, 28, 28)
    bright[:, 8:20, 8:20] = images(1, 12)
    dark = torch.ones(1, 28, 28) - bright

    def middle(found: Tensor) -> Tensor:
        cells = found.view(8, 7, 7)[:, 2:5, 2:5]
        return cells / cells.norm()

    one, other = (middle(oriented_gradients(x, grids=(7,))[0]) for x in (bright, dark))
    torch.testing.assert_close(other, one.roll(4, dims=0), atol=1e-4, rtol=0)


def test_every_image_is_treated_by_itself_and_has_unit_norm() -> None:
    found = oriented_gradients(images(5))
    assert found.shape == (5, 8 * (49 + 16 + 4))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(oriented_gradients(images(5)[3:4]), found[3:4])
    # A channel of one, and twice the precision, change nothing.
    torch.testing.assert_close(oriented_gradients(images(5).unsqueeze(1).double()), found)
    # A level has a third of the whole's square.
    levels = found.split([8 * 49, 8 * 16, 8 * 4], dim=1)
    for level in levels:
        torch.testing.assert_close(level.square().sum(1), torch.full((5,), 1 / 3))


def test_brightness_does_not_count_and_a_blank_image_is_finite() -> None:
    torch.testing.assert_close(
        oriented_gradients(images() / 2), oriented_gradients(images()), atol=1e-3, rtol=0
    )
    assert torch.isfinite(oriented_gradients(torch.zeros(1, 28, 28))).all()
    assert torch.isfinite(oriented_gradients(torch.ones(1, 28, 28))).all()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([[0.0]], "give a tensor"),
        (torch.zeros(28, 28), r"shape \(28, 28\)"),
        (torch.zeros(1, 3, 28, 28), r"shape \(1, 3, 28, 28\)"),
        (torch.zeros(0, 28, 28), "shape"),
        (torch.zeros(1, 28, 28, dtype=torch.uint8), "floats"),
        (torch.full((1, 28, 28), 255.0), "outside"),
        (torch.full((1, 28, 28), math.nan), "outside"),
        (torch.zeros(1, 30, 30), "does not divide images of 30 by 30"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        oriented_gradients(given)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"bins": 1}, "bins"), ({"grids": ()}, "empty"), ({"grids": (0,)}, "grid of 0")],
)
def test_settings_of_the_gradients_are_checked(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        oriented_gradients(images(), **options)


def test_strokes_are_the_same_for_everybody_and_laid_out_as_mnist() -> None:
    figures = strokes(200)
    assert figures.shape == (200, 28, 28)
    assert float(figures.min()) == 0.0
    assert float(figures.max()) == 1.0
    assert torch.equal(figures, strokes(200))
    assert not torch.equal(figures, strokes(200, generator=torch.Generator().manual_seed(1)))
    # The larger side of what is inked is near 20 of 28 pixels.
    inked = figures > 0.5
    sides = torch.maximum(inked.any(1).sum(1), inked.any(2).sum(1)).float()
    assert 19 <= float(sides.median()) <= 22
    # Centred by mass: means over figures are near the middle of the frame.
    rows = torch.arange(28.0)
    mass = figures.sum((1, 2))
    centres = (figures.sum(2) @ rows) / mass
    assert abs(float(centres.mean()) - 13.5) < 0.5
    assert strokes(2, size=8).shape == (2, 8, 8)


def test_how_many_strokes_and_how_large_is_checked() -> None:
    with pytest.raises(ValueError, match="count"):
        strokes(0)
    with pytest.raises(ValueError, match="size"):
        strokes(1, size=2)


def correlated(count: int = 4000, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(count, width, generator=generator) @ mixing + 1


def test_whitened_the_reference_has_the_identity_for_its_covariance() -> None:
    reference = correlated()
    public_map = Whitening(reference, directions=4, power=1.0, ridge=1e-9)
    moved = (reference - public_map.mean) @ public_map.matrix
    torch.testing.assert_close(moved.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.T @ moved / len(moved), torch.eye(4), atol=1e-3, rtol=0)


def test_power_nought_rotates_and_half_way_is_in_between() -> None:
    reference = correlated()
    rotation = Whitening(reference, directions=6, power=0.0).matrix
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(6), atol=1e-5, rtol=0)
    centred = reference - reference.mean(0)
    values = torch.linalg.eigvalsh((centred.T @ centred / len(centred)).double()).flip(0)
    half = Whitening(reference, directions=6, power=0.5, ridge=0.25).matrix
    expected = (values + 0.25 * values.mean()) ** -0.25
    torch.testing.assert_close(half.norm(dim=0).double(), expected, atol=1e-4, rtol=1e-4)


def test_the_map_ends_in_unit_norm_and_a_constant() -> None:
    reference = correlated()
    found = Whitening(reference, directions=3, constant=0.2)(correlated(5))
    assert found.shape == (5, 4)
    torch.testing.assert_close(found[:, :3].norm(dim=1), torch.ones(5))
    assert (found[:, 3] == 0.2).all()


def test_an_eigenvectors_free_sign_is_fixed() -> None:
    matrix = Whitening(correlated(), directions=6).matrix
    largest = matrix.gather(0, matrix.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Whitening(torch.zeros(3)), "reference"),
        (lambda: Whitening([[1.0]]), "reference"),  # type: ignore[arg-type]
        (lambda: Whitening(torch.full((3, 2), math.nan)), "finite"),
        (lambda: Whitening(torch.rand(1, 2), directions=2), "one row"),
        (lambda: Whitening(torch.rand(9, 2), directions=3), "at most"),
        (lambda: Whitening(torch.rand(9, 2), directions=2, power=1.5), "power"),
        (lambda: Whitening(torch.rand(9, 2), directions=2, ridge=0.0), "ridge"),
        (lambda: Whitening(torch.rand(9, 2), directions=2)(torch.rand(9, 3)), "3 columns"),
        (lambda: public(torch.rand(1, 28, 56), figures=10), "square"),
    ],
)
def test_misuse_of_the_map_is_refused(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_public_is_the_three_steps_and_reads_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> Any:
        raise AssertionError(f"something was read: {args}")

    for name in ("digits", "mnist", "fashion_mnist", "emnist", "cifar10", "schools", "load"):
        monkeypatch.setattr(fldp.datasets, name, refused)
    monkeypatch.setattr(builtins, "open", refused)
    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(torch, "load", refused)
    found = public(images(3), directions=20, figures=300)
    monkeypatch.undo()
    assert found.shape == (3, 21)
    by_hand = Whitening(oriented_gradients(strokes(300)), directions=20)
    torch.testing.assert_close(found, by_hand(oriented_gradients(images(3))))
    # An image's features do not depend on which others are there.
    torch.testing.assert_close(public(images(3)[:1], directions=20, figures=300), found[:1])
