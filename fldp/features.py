"""What a model may see of an image that no data set chose: gradients, pen strokes, a whitening.

A private model learns few numbers well. Fixed features are the numbers that it need not learn: they
are chosen before anybody's image is seen, so they cost no ε, whatever is trained on them. Here:
histograms of oriented gradients, pooled over a pyramid of grids, and a map fitted to *random pen
strokes*, images of nobody, that centres these features and evens out their scales.

Nothing here reads a data set. What is here all the same is prior knowledge: that digits are drawn
with a pen, and how MNIST's makers laid them out. A guarantee does not cover it, and need not: it
was known before any client was asked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fldp._checks import between, real, shown, whole

__all__ = ["Whitening", "oriented_gradients", "public", "strokes"]

# Images that are looked at together: what is made of a thousand takes some 50 MiB.
_CHUNK = 1000
# Standard deviation, in pixels, of the smoothing before differences are taken.
_SMOOTHING = 0.7
# Keeps the root of an empty cell's histogram, and a flat image's direction, finite.
_TINY = 1e-8
# How MNIST's makers laid a digit out, as shares of the frame's side: the larger side of the box
# that pen strokes span, and a pen's radius, which runs from the first to the second (LeCun et al.
# 1998 fit digits into 20 of 28 pixels and centre them by their mass; a pen adds its width).
_BOX = 17 / 28
_PENS = (1.7 / 28, 2.5 / 28)
# Strokes of one figure: cubic Bézier curves, each with so many points, with how often each is
# drawn, how often it goes on where the last one ended, and how narrow a figure may be.
_POINTS = 40
_DRAWN = (1.0, 0.8, 0.4)
_GOES_ON = 0.75
_NARROWEST = 0.45


def oriented_gradients(
    images: Tensor, *, bins: int = 8, grids: tuple[int, ...] = (7, 4, 2)
) -> Tensor:
    """Histograms of the directions of an image's gradients, over a pyramid of grids.

    Gradients of the smoothed image vote for the two nearest of `bins` signed directions (light to
    dark is not dark to light), with their magnitudes; votes are pooled into the cells of each grid,
    falling off linearly to the neighbours' centres. Of each histogram the square root counts; each
    grid's part is scaled to unit norm, and so is the whole. Every image is treated by itself.

    Parameters
    ----------
    images : Tensor
        (n, h, w) or (n, 1, h, w), in [0, 1].
    bins : int
        Directions, the first that of brightness growing to the right, at least 2.
    grids : tuple of int
        Cells along a side, for each level; h and w are multiples of each.

    Returns
    -------
    Tensor
        (n, bins · Σ grid²), float32: level by level, in each bin by bin, then row by row.

    Raises
    ------
    ValueError
        For what are no such images, and for a grid that does not divide their sides.

    References
    ----------
    Dalal and Triggs (2005), Histograms of oriented gradients for human detection; Lazebnik, Schmid
    and Ponce (2006) for the pyramid.

    Examples
    --------
    >>> edge = torch.zeros(1, 28, 28)
    >>> edge[:, :, 14:] = 1
    >>> found = oriented_gradients(edge, grids=(1,))
    >>> found.shape, int(found.argmax())
    (torch.Size([1, 8]), 0)
    """
    pictures = _checked(images)
    bins = whole("bins", bins, low=2)
    sides = pictures.shape[1:]
    for grid in grids:
        if not isinstance(grid, int) or grid < 1 or any(side % grid for side in sides):
            raise ValueError(
                f"a grid of {shown(grid)} does not divide images of {sides[0]} by {sides[1]}: give "
                "divisors of both sides"
            )
    if not grids:
        raise ValueError("grids is empty: give at least one number of cells along a side")
    parts = [_gradients(chunk, bins, grids) for chunk in pictures.split(_CHUNK)]
    return torch.cat(parts)


def _checked(images: Tensor) -> Tensor:
    """The images as (n, h, w), float32; ValueError for what are none."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images is {shown(images)}: give a tensor (n, h, w) or (n, 1, h, w)")
    flat = images
    if images.ndim == 4 and images.shape[1] == 1:
        flat = images[:, 0]
    if flat.ndim != 3 or not flat.numel():
        raise ValueError(f"images has shape {tuple(images.shape)}: give (n, h, w) or (n, 1, h, w)")
    if not flat.is_floating_point():
        raise ValueError(f"images is {images.dtype}: give floats in [0, 1], such as pixels / 255")
    # Written so that NaN is refused as well.
    if not (flat.min() >= 0 and flat.max() <= 1):
        raise ValueError("images has entries outside [0, 1]: give such as pixels / 255")
    return flat.float()


def _gradients(images: Tensor, bins: int, grids: tuple[int, ...]) -> Tensor:
    """The features (n, d) of images (n, h, w), which are fine."""
    height, width = images.shape[1:]
    # Smoothing and differencing are linear along each side: products with two matrices.
    smooth_rows, slope_rows = _smoothing(height)
    smooth_columns, slope_columns = _smoothing(width)
    across = smooth_rows @ images @ slope_columns.T
    down = slope_rows @ images @ smooth_columns.T
    strength = torch.sqrt(across.square() + down.square() + _TINY**2)
    angle = torch.atan2(down, across) * (bins / (2 * math.pi))
    directions = torch.arange(bins, dtype=images.dtype).view(bins, 1, 1)
    distance = torch.remainder(angle.unsqueeze(1) - directions, bins)
    # Around the circle, the nearer way.
    distance = torch.minimum(distance, bins - distance)
    votes = strength.unsqueeze(1) * (1 - distance).clamp_min(0)
    parts = []
    for grid in grids:
        cells = _tents(height, grid) @ votes @ _tents(width, grid).T
        parts.append(normalize(torch.sqrt(cells + _TINY).flatten(1)))
    return normalize(torch.cat(parts, 1))


def _smoothing(side: int) -> tuple[Tensor, Tensor]:
    """Matrices (side, side): of a Gaussian's weights, and of the slope of what they smooth."""
    places = torch.arange(side, dtype=torch.float32)
    # Beyond the frame is black, one pixel of which the slope at the edge looks at.
    around = torch.arange(-1, side + 1, dtype=torch.float32)
    weights = torch.exp(-((around[:, None] - places) ** 2) / (2 * _SMOOTHING**2))
    whole_kernel = torch.arange(-side, side + 1, dtype=torch.float32)
    weights /= torch.exp(-(whole_kernel**2) / (2 * _SMOOTHING**2)).sum()
    return weights[1:-1], (weights[2:] - weights[:-2]) / 2


def _tents(side: int, grid: int) -> Tensor:
    """(grid, side): how much each place counts in each cell; 1 at the cell's centre."""
    cell = side // grid
    centres = torch.arange(grid) * cell + (cell - 1) / 2
    return (1 - (torch.arange(side) - centres[:, None]).abs() / cell).clamp_min(0)


def strokes(count: int, *, size: int = 28, generator: torch.Generator | None = None) -> Tensor:
    """Figures of random pen strokes: images of nobody, to fit public constants to.

    Each is one to three smooth curves, most of which go on where the last one ended, with a pen of
    random width. Scale, place and pen are those of MNIST's digits, which fill a box of 20 of 28
    pixels and are centred by their mass: *prior knowledge* of the layout, written down here by
    hand, and no statistic of anybody's images. With images of another layout a map fitted to these
    strokes is as free of ε, and of less use.

    Parameters
    ----------
    count : int
        How many.
    size : int
        Pixels along a side.
    generator : torch.Generator, optional
        Of the randomness, which is public. None: seed 0, so that everybody draws the same strokes.

    Returns
    -------
    Tensor
        (count, size, size), in [0, 1].

    Raises
    ------
    ValueError
        For a count or size that is none.

    Examples
    --------
    >>> figures = strokes(3)
    >>> figures.shape, float(figures.min()), float(figures.max())
    (torch.Size([3, 28, 28]), 0.0, 1.0)
    """
    count, size = whole("count", count), whole("size", size, low=4)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    points = _paths(count, generator)
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    extent = (high - low).amax(2, keepdim=True).clamp_min(_TINY)
    points = (points - low) / extent * (_BOX * size)
    points = points - points.mean(1, keepdim=True) + (size - 1) / 2
    thin, thick = (share * size for share in _PENS)
    pens = thin + (thick - thin) * torch.rand(count, 1, 1, generator=generator)
    places = torch.arange(size, dtype=torch.float32)
    drawn = []
    for path, pen in zip(points.split(_CHUNK), pens.split(_CHUNK), strict=True):
        across = (places - path[..., :1]) ** 2
        down = (places - path[..., 1:]) ** 2
        nearest = (down.unsqueeze(3) + across.unsqueeze(2)).amin(1).sqrt()
        # One pixel of grey at the edge of a stroke.
        drawn.append((pen - nearest).clamp(0, 1))
    return torch.cat(drawn)


def _paths(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, points, 2) of figures, x before y, of no particular scale."""
    curves = len(_DRAWN)
    corners = torch.rand(count, curves, 4, 2, generator=generator)
    for curve in range(1, curves):
        goes_on = torch.rand(count, generator=generator) < _GOES_ON
        corners[goes_on, curve, 0] = corners[goes_on, curve - 1, 3]
    t = torch.linspace(0, 1, _POINTS)
    bernstein = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    points = bernstein @ corners
    drawn = torch.rand(count, curves, generator=generator) < torch.tensor(_DRAWN)
    # What is not drawn lies under the first curve, which always is.
    points = torch.where(drawn[:, :, None, None], points, points[:, :1]).flatten(1, 2)
    narrow = _NARROWEST + (1 - _NARROWEST) * torch.rand(count, 1, generator=generator)
    points[..., 0] *= narrow
    return points


class Whitening:
    """A fixed map of features: centred, scales evened out, few directions kept, unit norm.

    Mean and covariance are those of `reference`, which must be public: features of `strokes`, say.
    A feature vector x becomes W (x - mean), where W's rows are the leading eigenvectors of the
    covariance, each divided by (eigenvalue + ridge · mean eigenvalue) to the half of `power`;
    that is scaled to unit norm, and a constant is put after it, which serves as an intercept.

    Guarantee: what it returns for an image is a function of that image and of `reference`. So the
    map costs no ε if `reference` is nobody's.

    Parameters
    ----------
    reference : Tensor
        Public features (n, d), at least 2 of them.
    directions : int
        How many eigenvectors are kept, at most d.
    power : float
        From 0, a rotation, to 1, which whitens: along each direction kept the reference has the
        same variance, if the ridge is small.
    ridge : float
        Added to the eigenvalues, in units of their mean, above 0: how little variance is noise.
    constant : float
        The last entry of every feature vector.

    Attributes
    ----------
    mean : Tensor
        (d,).
    matrix : Tensor
        (d, directions).

    Raises
    ------
    ValueError
        For a reference that is no such tensor, and for a setting out of range.

    Examples
    --------
    >>> public = Whitening(oriented_gradients(strokes(500)), directions=20)
    >>> public(oriented_gradients(torch.rand(2, 28, 28))).shape
    torch.Size([2, 21])
    """

    def __init__(
        self,
        reference: Tensor,
        *,
        directions: int = 150,
        power: float = 0.8,
        ridge: float = 0.5,
        constant: float = 0.1,
    ) -> None:
        features = _features("reference", reference)
        power = between("power", power)
        ridge = real("ridge", ridge)
        self.constant = between("constant", constant)
        directions = whole("directions", directions)
        if directions > features.shape[1]:
            raise ValueError(
                f"directions is {directions}, of features with {features.shape[1]} entries: keep "
                f"at most {features.shape[1]}"
            )
        if len(features) == 1:
            raise ValueError("reference has one row, which has no covariance: give many")
        self.mean = features.mean(0)
        centred = (features - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        # From the largest on; an eigenvector's sign is free, and libraries choose differently.
        vectors = vectors.flip(1)[:, :directions]
        largest = vectors.abs().argmax(0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()
        kept = values.flip(0)[:directions].clamp_min(0)
        scales = (kept + ridge * values.mean()) ** (-power / 2)
        self.matrix = (vectors * scales).float()

    def __call__(self, features: Tensor) -> Tensor:
        """The map.

        Parameters
        ----------
        features : Tensor
            (n, d), made as the reference was.

        Returns
        -------
        Tensor
            (n, directions + 1), float32.

        Raises
        ------
        ValueError
            For features of another shape.
        """
        given = _features("features", features)
        if given.shape[1] != len(self.mean):
            raise ValueError(
                f"features has {given.shape[1]} columns, the reference had {len(self.mean)}: make "
                "both in the same way"
            )
        unit = normalize((given - self.mean) @ self.matrix)
        return torch.cat([unit, torch.full((len(unit), 1), self.constant)], 1)


def _features(name: str, features: Tensor) -> Tensor:
    """`features` as float32 (n, d); ValueError for what are none."""
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.numel():
        told = tuple(features.shape) if isinstance(features, Tensor) else shown(features)
        raise ValueError(f"{name} is {told}: give features, a tensor (n, d)")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{name} has entries that are not finite: give numbers only")
    return features.float()


def public(images: Tensor, *, directions: int = 150, figures: int = 8000) -> Tensor:
    """Oriented gradients of images, whitened by pen strokes: features that no data set chose.

    The light version of the book's MNIST experiment: a linear model on them, without an intercept
    of its own, has 10 · (directions + 1) parameters, 1,510 at the default.

    Parameters
    ----------
    images : Tensor
        (n, 28, 28), or another size that 7, 4 and 2 divide, or with a channel: (n, 1, 28, 28); in
        [0, 1], bright on black, laid out as MNIST's.
    directions : int
        How many are kept.
    figures : int
        How many figures of pen strokes the map is fitted to.

    Returns
    -------
    Tensor
        (n, directions + 1), float32; all but the last entry, .1, have unit norm together.

    Raises
    ------
    ValueError
        For what are no such images.

    Examples
    --------
    >>> public(torch.rand(4, 28, 28), figures=500).shape
    torch.Size([4, 151])
    """
    found = oriented_gradients(images)
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError(f"images are {height} by {width}: give square ones, as pen strokes are")
    reference = oriented_gradients(strokes(figures, size=height))
    return Whitening(reference, directions=directions)(found)
