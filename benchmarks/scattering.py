"""A scattering transform of two layers: features of 28 by 28 images that no data set chose.

Bruna and Mallat (2013), Invariant scattering convolution networks: an image is filtered with Morlet
wavelets of several scales and directions, rectified, and filtered again; the local means of what
comes out hardly change when the image is shifted or bent a little. Every filter is a formula.

`features` puts its square root beside `fldp.features.oriented_gradients`, and whitens both with the
same random pen strokes.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

import fldp

# Octaves and directions of the wavelets; the frame that 28 pixels and a margin of 2 fill.
SCALES, DIRECTIONS, FRAME, MARGIN = 2, 8, 32, 2
# Distance between two local means, and a wavelet's width and frequency at the finest scale.
STRIDE, WIDTH, FREQUENCY = 4, 0.8, 0.75 * math.pi
CHUNK = 500
# The map that the held-out images chose: kept directions, power, ridge; pen strokes.
KEPT, POWER, RIDGE, FIGURES = 400, 0.75, 5.65, 8000
_TINY = 1e-6


def _bump(
    width: float, *, angle: float = 0.0, frequency: float = 0.0, slant: float = 1.0
) -> Tensor:
    """A Gaussian times a wave on the frame, whose sides are joined; complex (frame, frame)."""
    around = range(-2 * FRAME, 3 * FRAME)
    down, across = np.mgrid[around.start : around.stop, around.start : around.stop]
    along = math.cos(angle) * down + math.sin(angle) * across
    beside = -math.sin(angle) * down + math.cos(angle) * across
    bell = np.exp(-(along**2 + (slant * beside) ** 2) / (2 * width**2) + 1j * frequency * along)
    # Five copies of the frame along each side, laid on top of each other.
    return torch.from_numpy(bell.reshape(5, FRAME, 5, FRAME).sum((0, 2)))


@functools.cache
def _wavelet(scale: int, direction: int) -> Tensor:
    """A Morlet wavelet in the Fourier domain, real: no mean, one direction, one scale."""
    shape = {
        "width": WIDTH * 2**scale,
        "angle": math.pi * direction / DIRECTIONS,
        "slant": 4 / DIRECTIONS,
    }
    wave = _bump(frequency=FREQUENCY / 2**scale, **shape)
    low = _bump(**shape)
    without_mean = wave - wave.sum() / low.sum() * low
    return (torch.fft.fft2(without_mean).real / low.sum().real).float()


def scattering(images: Tensor) -> Tensor:
    """Orders 0, 1 and 2 of images (n, 28, 28): (n, 81, 7, 7), nowhere much below 0."""
    return torch.cat([_scattered(chunk) for chunk in images.split(CHUNK)])


def _places() -> Tensor:
    """(7, frame): the weights of a Gaussian's local means along one side; 2 to a side make both."""
    line = torch.arange(FRAME, dtype=torch.float64)
    centres = torch.arange(STRIDE, FRAME - STRIDE + 1, STRIDE)
    away = (line - centres[:, None]).abs()
    # The frame's sides are joined; further round nothing is left of the bell.
    away = torch.minimum(away, FRAME - away)
    weights = torch.exp(-(away**2) / (2 * (WIDTH * 2 ** (SCALES - 1)) ** 2))
    return (weights / weights.sum(1, keepdim=True)).float()


def _scattered(images: Tensor) -> Tensor:
    filters = [
        torch.stack([_wavelet(scale, direction) for direction in range(DIRECTIONS)])
        for scale in range(SCALES)
    ]
    places = _places()

    def local_means(signal: Tensor) -> Tensor:
        return places @ signal @ places.T

    framed = pad(images, (MARGIN,) * 4)
    spectrum = torch.fft.fft2(framed).unsqueeze(1)
    fine, coarse = (torch.fft.ifft2(spectrum * bank).abs() for bank in filters)
    found = [local_means(framed).unsqueeze(1), local_means(fine), local_means(coarse)]
    for direction in range(DIRECTIONS):
        again = torch.fft.fft2(fine[:, direction, None]) * filters[1]
        found.append(local_means(torch.fft.ifft2(again).abs()))
    return torch.cat(found, 1)


def unwhitened(images: Tensor) -> Tensor:
    """Oriented gradients beside scattering's square root, each of unit norm: (n, 4521)."""
    waves = torch.sqrt(scattering(images).flatten(1).clamp_min(0) + _TINY)
    return torch.cat([fldp.features.oriented_gradients(images), normalize(waves)], 1)


def features(images: Tensor) -> Tensor:
    """`unwhitened`, then the map that pen strokes give: (n, 401)."""
    public = fldp.features.Whitening(
        unwhitened(fldp.features.strokes(FIGURES)), directions=KEPT, power=POWER, ridge=RIDGE
    )
    # All of 70,000 images before the map would take 1.3 GB.
    return torch.cat([public(unwhitened(chunk)) for chunk in images.split(CHUNK)])
