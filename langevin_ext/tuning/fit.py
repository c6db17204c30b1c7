"""Gaussian data fitted to images: mean and covariance at each resolution."""

import itertools
import math

import torch
from torch.nn.functional import avg_pool2d

from ..data import ImageDataset
from ..scores import Gaussian
from .modes import DENSE, GaussianData, cosines

LARGEST_FIELD = 4096  # values of an exact field whose covariance is formed, 128 MB
CHUNK = 1024  # images at a time


def fit(data, shapes=None, *, stationary=None) -> list[GaussianData]:
    """Mean and covariance of images at each resolution, the images averaged over 2x2 pixels from one to the next.

    A dataset counts as what networks are trained on, its 8-bit values v dequantised to (v + U) / 256; a tensor as it
    is. The covariance divides by N.

    Args:
        data: `ImageDataset`, float tensor (N, C, H, W) with N >= 2, or an exact field, `scores.Gaussian` or
            `scores.GaussianField`, whose own mean and covariance are taken.
        shapes: (C, H, W) of each resolution, coarsest first, the last that of data; by default that and half of it.
        stationary: keep the variances of cosines instead of a matrix, see `GaussianData`; by default where an image has
            more than 1,024 values. Colours are then taken in the combinations in which the data's are uncorrelated.
            Distances are then those of a stationary field with these spectra: within 5 % for the exponential field of
            8x8 to 32x32, but not for pictures with a border that never changes (`glyphs`: 0.13 for 0.70 with HRS).

    Returns:
        `GaussianData` of each resolution, coarsest first.

    Raises:
        TypeError: data is none of these.
        ValueError: shapes do not double up to that of data, values are not finite, or an exact field is too large.
    """
    images = data.images if isinstance(data, ImageDataset) else data
    if not isinstance(data, ImageDataset | Gaussian) and not (torch.is_tensor(data) and data.is_floating_point()):
        raise TypeError(
            "tune: argument data must be a dataset of langevin_ext.data, a float tensor (N, C, H, W) or an exact "
            f"Gaussian field, got {str(data.dtype) + ' tensor' if torch.is_tensor(data) else type(data).__name__}"
        )
    if torch.is_tensor(images) and (images.dim() != 4 or len(images) < 2 or not images.isfinite().all()):
        raise ValueError(
            f"tune: argument data must hold at least two finite images (N, C, H, W), got {tuple(images.shape)}"
        )
    shapes = _shapes(shapes, tuple(images.shape[-3:]))
    size = math.prod(shapes[-1])
    stationary = size > DENSE if stationary is None else stationary
    if not stationary and size > DENSE:
        raise ValueError(f"tune: argument stationary must be True above {DENSE} values an image, got {size} values")
    if isinstance(data, Gaussian):
        return _of_field(data, shapes, stationary)
    return _of_images(images, shapes, stationary, 256 if isinstance(data, ImageDataset) else None)


def _shapes(shapes, finest) -> list[tuple[int, int, int]]:
    """The shapes, coarsest first, after checking that they double."""
    channels, height, width = finest
    if shapes is None:
        shapes = [(channels, height // 2, width // 2), finest]
    shapes = [tuple(int(size) for size in shape) for shape in shapes]
    doubles = all(high == (low[0], 2 * low[1], 2 * low[2]) for low, high in itertools.pairwise(shapes) if len(low) == 3)
    if not shapes or shapes[-1] != finest or not doubles or min(shapes[0]) < 1:
        raise ValueError(
            f"tune: argument shapes must double from one to the next up to that of data, {finest}, got {shapes}"
        )
    return shapes


def _of_images(images, shapes, stationary, levels) -> list[GaussianData]:
    """Fits to images; with `levels`, uint8 ones are dequantised: (v + U) / levels."""
    scale, shift, extra = (1.0, 0.0, 0.0) if levels is None else (1 / levels, 0.5 / levels, 1 / 12 / levels**2)
    fitted, colours = [], None
    for shape in reversed(shapes):
        factor = shapes[-1][1] // shape[1]
        if stationary:
            mean, spectrum, colours = _spectrum(images, shape, factor, colours)
            data = GaussianData.stationary(shape, scale * mean + shift, scale**2 * spectrum + extra, colours)
        else:
            mean, covariance = _moments(images, factor)
            identity = torch.eye(len(mean), dtype=torch.float64)
            data = GaussianData.dense(shape, scale * mean + shift, scale**2 * covariance + extra * identity)
        fitted.append(data)
    return fitted[::-1]


def _chunks(images, factor):
    """Float64 images, averaged over factor x factor pixels, a part at a time."""
    for part in images.split(CHUNK):
        yield avg_pool2d(part.to(torch.float64), factor) if factor > 1 else part.to(torch.float64)


def _moments(images, factor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of flattened images."""
    mean = sum(part.flatten(1).sum(0) for part in _chunks(images, factor)) / len(images)
    centred = ((part.flatten(1) - mean) for part in _chunks(images, factor))
    return mean, sum(rows.T @ rows for rows in centred) / len(images)


def _spectrum(images, shape, factor, colours) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (C, H, W), variances (C, H, W) of the cosines, and the colours they are taken of."""
    mean = sum(part.sum(0) for part in _chunks(images, factor)) / len(images)
    if colours is None:
        flat = ((part - mean).transpose(0, 1).flatten(1) for part in _chunks(images, factor))
        colours = torch.linalg.eigh(sum(rows @ rows.T for rows in flat))[1]
    rows, columns = cosines(shape[1]), cosines(shape[2])
    power = torch.zeros(shape, dtype=torch.float64)
    for part in _chunks(images, factor):
        power += torch.einsum("ce,kh,lw,nchw->nekl", colours, rows, columns, part - mean).square().sum(0)
    return mean, power / len(images), colours


def _of_field(field, shapes, stationary) -> list[GaussianData]:
    """The exact mean and covariance of a field and of its averages over 2x2 pixels."""
    size = math.prod(field.shape)
    if size > LARGEST_FIELD:
        raise ValueError(
            f"tune: argument data must have at most {LARGEST_FIELD} values an image if it is an exact field (draw "
            f"images of larger ones with its sample), got {field.shape}"
        )
    covariance = field.covariance()
    zero = torch.zeros(1, *field.shape, dtype=torch.float64)
    pull = field.at_sigma(zero, 1.0).flatten()  # (C + I)^-1 m
    mean = covariance @ pull + pull
    fitted: list[GaussianData] = []
    for shape in reversed(shapes):
        if fitted:
            finer = fitted[-1].shape
            mean, covariance = _pooled(mean[None], finer)[0], _pooled(_pooled(covariance, finer).T, finer)
        fitted.append(_of_moments(shape, mean, covariance, stationary))
    return fitted[::-1]


def _pooled(rows, shape) -> torch.Tensor:
    """Averages over 2x2 pixels of the flattened images (n, D) in the rows."""
    return avg_pool2d(rows.reshape(-1, *shape), 2).flatten(1)


def _of_moments(shape, mean, covariance, stationary) -> GaussianData:
    """Data with this mean (D,) and covariance (D, D); stationary keeps the variances of the cosines of each colour."""
    if not stationary:
        return GaussianData.dense(shape, mean, covariance)
    channels = covariance.reshape(shape[0], -1, shape[0], covariance.shape[1] // shape[0])
    colours = torch.linalg.eigh(channels.diagonal(dim1=1, dim2=3).sum(-1))[1]
    empty = GaussianData.stationary(shape, mean, torch.zeros(shape), colours)
    spectrum = empty.analyse(empty.analyse(covariance).T).diagonal()
    return GaussianData.stationary(shape, mean, spectrum, colours)
