"""Gaussian data at one resolution, in coordinates in which its covariance is diagonal: its modes.

Dense: the eigenvectors of the covariance, any covariance, D = C H W at most `DENSE`. Stationary: cosines (DCT-II), of
any number. A field is diagonal in them if it is stationary after mirroring at its borders; of any other data they keep
the variance of each cosine and drop the covariances between them. Upsampling by two couples a cosine of frequency
(k, l) to the four of frequencies k or 2n - k and l or 2n - l, its aliases, and to no other, if it reads beyond the
borders what a mirror shows. Nearest and bilinear upsampling do just that; bicubic upsampling repeats the border pixel,
where the mirror shows the one beside it, with weight 0.035 (torch) or 0.023 (PIL): that is the approximation, and it
concerns the outermost rows and columns alone.
"""

import math
from dataclasses import dataclass, field

import torch

from ..samplers.upsampling import CUBIC, UPSAMPLERS

DENSE = 1024  # most values of an image whose covariance is kept as a matrix


def upsample_matrix(upsample, size, mirrored=False) -> torch.Tensor:
    """Twofold upsampling of one axis as a matrix (`F.interpolate`, align_corners=False); an image is the outer product.

        y[o] = sum_i w(s - i) x[i],   s = (o + 1/2) / 2 - 1/2

    Args:
        upsample: "bicubic" (Keys' kernel with a = -0.75, torch), "bicubic-pil" (a = -0.5), "bilinear" or "nearest".
        size: n, at least 1.
        mirrored: beyond a border are the pixels before it, in reverse, instead of the border pixel again and again.

    Returns:
        float64 (2n, n); the rows sum to 1.

    Raises:
        ValueError: there is no matrix of that name; a callable has none.
    """
    if upsample not in UPSAMPLERS:
        raise ValueError(
            f"tune: argument upsample must be one of {', '.join(UPSAMPLERS)}, whose effects are matrices, "
            f"got {upsample!r}"
        )
    matrix = torch.zeros(2 * size, size, dtype=torch.float64)
    for o in range(2 * size):
        source = (o + 0.5) / 2 - 0.5
        for i in range(math.floor(source) - 1, math.floor(source) + 3):
            matrix[o, _inside(i, size, mirrored)] += _weight(upsample, source - i)
    return matrix


def _weight(upsample, distance) -> float:
    """The kernel: Keys 1981, equation 4, for the bicubic ones."""
    t = abs(distance)
    if upsample == "nearest":
        return float(t < 0.5)
    if upsample == "bilinear":
        return max(1 - t, 0.0)
    a = CUBIC[upsample]
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def _inside(i, size, mirrored) -> int:
    """The pixel that is read at index i."""
    if not mirrored:
        return min(max(i, 0), size - 1)
    i %= 2 * size
    return i if i < size else 2 * size - 1 - i


def cosines(size) -> torch.Tensor:
    """The orthonormal DCT-II of one axis as a matrix (size, size), a row for each frequency."""
    k, i = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * k * (2 * i + 1) / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


@dataclass(frozen=True, eq=False)
class GaussianData:
    """N(mean, covariance) of images, in its modes.

    Attributes:
        shape: (C, H, W); D = C H W.
        mean: (D,) coordinates of the mean.
        spectrum: (D,) variance of each mode, at least 0.
        basis: (D, D), a column for each mode; None for cosines, the modes then being ordered as (colour, k, l).
        colours: (C, C), a column for each colour: combinations of the channels that the cosines are taken of.
    """

    shape: tuple[int, int, int]
    mean: torch.Tensor
    spectrum: torch.Tensor
    basis: torch.Tensor | None = None
    colours: torch.Tensor | None = None
    _couplings: dict = field(default_factory=dict, repr=False)

    @classmethod
    def dense(cls, shape, mean, covariance) -> "GaussianData":
        """From the mean (D,) and covariance (D, D) of flattened images."""
        spectrum, basis = torch.linalg.eigh(covariance.to(torch.float64))
        if spectrum[0] < -1e-9 * spectrum[-1].abs():
            raise ValueError(
                f"tune: covariance must be positive semi-definite, got the eigenvalue {spectrum[0].item():g}"
            )
        return cls(tuple(shape), mean.to(torch.float64) @ basis, spectrum.clamp(min=0), basis)

    @classmethod
    def stationary(cls, shape, mean, spectrum, colours=None) -> "GaussianData":
        """From the mean and the variances of the cosines of each colour, (C, H, W) or flattened."""
        colours = torch.eye(shape[0], dtype=torch.float64) if colours is None else colours
        image, spectrum = (values.flatten().to(torch.float64) for values in (mean, spectrum))
        return cls(
            tuple(shape), cls(tuple(shape), image, spectrum, None, colours).analyse(image), spectrum, None, colours
        )

    @property
    def blocks(self) -> torch.Tensor:
        """(number, size) indices of modes that may become correlated: all of them, or each cosine with itself."""
        modes = torch.arange(len(self.spectrum))
        return modes[:, None] if self.basis is None else modes[None]

    def analyse(self, x) -> torch.Tensor:
        """Coordinates (..., D) of flattened images (..., D)."""
        return self._turned(x, False) if self.basis is None else x @ self.basis

    def synthesise(self, y) -> torch.Tensor:
        """Flattened images (..., D) of coordinates (..., D)."""
        return self._turned(y, True) if self.basis is None else y @ self.basis.T

    def _turned(self, x, back):
        _, height, width = self.shape
        rows, columns, colours = cosines(height), cosines(width), self.colours.T
        if back:
            rows, columns, colours = rows.T, columns.T, colours.T
        images = x.reshape(-1, *self.shape)
        return torch.einsum("dc,kh,lw,nchw->ndkl", colours, rows, columns, images).reshape(x.shape)

    def coupling(self, high, upsample) -> "Coupling":
        """Upsampling from this resolution to that of `high`; made once."""
        key = (id(high), upsample)
        if key not in self._couplings:
            self._couplings[key] = Coupling(self, high, upsample)  # which keeps `high`, and so its id
        return self._couplings[key]

    def covariance(self) -> torch.Tensor:
        """(D, D) of the flattened images."""
        return self.synthesise(self.synthesise(torch.diag(self.spectrum)).T)


class Coupling:
    """Upsampling in modes: the coordinates at one resolution to those at the next.

    Args:
        low, high: data of the two resolutions, both dense or both stationary, with equal colours.
        upsample: as for `upsample_matrix`.
    """

    def __init__(self, low: GaussianData, high: GaussianData, upsample):
        (channels, height, width), self.low, self.high = low.shape, low, high
        if high.shape != (channels, 2 * height, 2 * width):
            raise ValueError(
                f"tune: shapes must double from one resolution to the next, {low.shape} to "
                f"{(channels, 2 * height, 2 * width)}, got {high.shape}"
            )
        if (low.basis is None) != (high.basis is None):
            raise ValueError("tune: data must be dense at all resolutions or stationary at all, got both")
        if low.basis is None:
            self._gains, self._modes = _aliases(low.shape, upsample)
            return
        rows, columns = upsample_matrix(upsample, height), upsample_matrix(upsample, width)
        images = low.basis.T.reshape(-1, *low.shape)
        large = torch.einsum("ph,qw,nchw->ncpq", rows, columns, images).flatten(1)
        self._matrix = high.analyse(large).T.contiguous()

    def at(self, blocks) -> tuple[torch.Tensor, torch.Tensor]:
        """What becomes of blocks of modes.

        Args:
            blocks: (number, b) indices of modes of the low resolution.

        Returns:
            (number, b') indices of modes of the high one, and matrices (number, b', b) from those to these.
        """
        if self.low.basis is not None:
            return self.high.blocks, self._matrix[None]
        number, size = blocks.shape
        matrix = torch.zeros(number, size, 4, size, dtype=torch.float64)
        each = torch.arange(size)
        matrix[:, each, :, each] = self._gains[blocks].transpose(0, 1)
        return self._modes[blocks].reshape(number, 4 * size), matrix.reshape(number, 4 * size, size)


def _aliases(shape, upsample) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains (D, 4) of the four high modes, and their indices (D, 4), for each low mode (colour, k, l)."""
    channels, height, width = shape
    (rows, row_modes), (columns, column_modes) = (_axis_aliases(size, upsample) for size in (height, width))
    gains = torch.einsum("kp,lq->klpq", rows, columns).expand(channels, -1, -1, -1, -1)
    image = row_modes[:, None, :, None] * 2 * width + column_modes[None, :, None, :]
    modes = image + torch.arange(channels).reshape(-1, 1, 1, 1, 1) * 4 * height * width
    return gains.reshape(-1, 4), modes.reshape(-1, 4)


def _axis_aliases(size, upsample) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains (size, 2) and indices (size, 2) of the frequencies k and 2 size - k; 0 has no alias, its place is size."""
    k = torch.arange(size)
    alias = torch.where(k == 0, size, 2 * size - k)
    gains = cosines(2 * size) @ upsample_matrix(upsample, size, mirrored=True) @ cosines(size).T
    second = torch.where(k == 0, 0.0, gains[alias, k])
    return torch.stack([gains[k, k], second], 1), torch.stack([k, alias], 1)
