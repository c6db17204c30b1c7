"""Exact scores of Gaussian data."""

import math

import torch

from .. import noise
from .field import Field

__all__ = ["Gaussian", "GaussianField"]


class Gaussian(Field):
    """The exact score of Gaussian data N(m, C).

        s(x, sigma) = -(C + sigma^2 I)^-1 (x - m)

    Args:
        mean: one number, (D,) or (C, H, W).
        variance: one number or (C, H, W), at least 0: independent pixels; 0 is a point mass. Either this or `cov`.
        cov: (D, D) covariance of the flattened sample.
        sigmas: (L,) strictly decreasing, kept in their dtype; 1 to 0.01 in ten levels by default.
        shape: (C, H, W); taken from `mean` or `cov` by default, a vector being (D, 1, 1).
    """

    def __init__(self, mean=0.0, *, variance=None, cov=None, sigmas=None, shape=None):
        if (variance is None) == (cov is None):
            raise ValueError("Gaussian: give one of the arguments variance and cov")
        mean = torch.as_tensor(mean, dtype=torch.float64)
        cov = None if cov is None else torch.as_tensor(cov, dtype=torch.float64)
        if shape is None:
            vector = (mean.numel() if cov is None else len(cov), 1, 1)
            shape = tuple(mean.shape) if mean.dim() == 3 else vector
        super().__init__(sigmas, shape)
        mean = mean.reshape(self.shape) if mean.numel() > 1 else mean.reshape(1, 1, 1).expand(self.shape)
        self._constants["mean"] = mean
        if cov is None:
            variance = torch.as_tensor(variance, dtype=torch.float64)
            variance = variance.reshape(self.shape) if variance.numel() > 1 else variance.reshape(1, 1, 1)
            if not (variance >= 0).all():
                raise ValueError(f"Gaussian: argument variance must be at least 0, got {variance.min().item()}")
            self._constants["spectrum"] = variance.expand(self.shape)
        else:
            spectrum, basis = _eigen(cov, math.prod(self.shape), "Gaussian: argument cov")
            self._constants.update(spectrum=spectrum.reshape(self.shape), basis=basis)

    def _turn(self, x, constants, back=False):
        """x in the eigenbasis of C, or back from it."""
        basis = constants.get("basis")
        if basis is None:
            return x
        return _apply(x.flatten(1), basis.T if back else basis).reshape(x.shape)

    def _score(self, x, sigma, constants):
        centred = self._turn(x - constants["mean"], constants)
        return self._turn(-centred / (constants["spectrum"] + sigma**2), constants, back=True)

    def sample(self, n, seed=0, first=0, dtype=torch.float32) -> torch.Tensor:
        """n draws from N(m, C): (n, C, H, W); draw i depends on (seed, first + i) alone."""
        z = noise.normal((n, *self.shape), seed, first=first, stream=noise.DATA).to(torch.float64)
        x = self._turn(z * self._constants["spectrum"].sqrt(), self._constants, back=True)
        return (self._constants["mean"] + x).to(dtype)

    def covariance(self) -> torch.Tensor:
        """C as a float64 (D, D) matrix."""
        unit = torch.eye(math.prod(self.shape), dtype=torch.float64).reshape(-1, *self.shape)
        rows = self._turn(self._turn(unit, self._constants) * self._constants["spectrum"], self._constants, back=True)
        return rows.flatten(1)


class GaussianField(Gaussian):
    """The exact score of a Gaussian random field with separable exponential correlation, channels independent.

        C[(r, c), (r', c')] = variance correlation^(|r - r'| + |c - c'|)

    Args:
        shape: (C, H, W).
        mean: one number.
        variance: of one pixel.
        correlation: of neighbours, in [0, 1).
        sigmas: (L,) strictly decreasing, kept in their dtype; 1 to 0.01 in ten levels by default.
    """

    def __init__(self, shape=(1, 8, 8), *, mean=0.5, variance=0.0625, correlation=0.9, sigmas=None):
        if not 0 <= correlation < 1:
            raise ValueError(f"GaussianField: argument correlation must be in [0, 1), got {correlation}")
        if not variance > 0:
            raise ValueError(f"GaussianField: argument variance must be positive, got {variance}")
        _, height, width = shape
        rows, columns = (_exponential(size, correlation) for size in (height, width))
        self._build(shape, mean, variance * rows, columns, sigmas)

    def _build(self, shape, mean, rows, columns, sigmas):
        """C = rows (x) columns: eigenvectors and eigenvalues are those of the two factors."""
        super().__init__(mean, variance=1.0, sigmas=sigmas, shape=shape)
        self._factors, self._mean = (rows, columns), mean
        spectrum_rows, basis_rows = _eigen(rows, shape[1], "GaussianField: rows")
        spectrum_columns, basis_columns = _eigen(columns, shape[2], "GaussianField: columns")
        spectrum = (spectrum_rows[:, None] * spectrum_columns).expand(self.shape)
        self._constants.update(spectrum=spectrum, basis_rows=basis_rows, basis_columns=basis_columns)

    def _turn(self, x, constants, back=False):
        rows, columns = constants["basis_rows"], constants["basis_columns"]
        x = _apply(x, columns.T if back else columns)
        return _apply(x.transpose(-1, -2), rows.T if back else rows).transpose(-1, -2)

    def pooled(self, factor=2) -> "GaussianField":
        """The field of the same images after factor x factor average pooling: cov P C P', with the same sigmas."""
        channels, height, width = self.shape
        if factor < 1 or height % factor or width % factor:
            raise ValueError(f"GaussianField.pooled: argument factor must divide {height} and {width}, got {factor}")
        rows, columns = (_pool(_pool(matrix, factor).T, factor) for matrix in self._factors)
        low = GaussianField.__new__(GaussianField)
        low._build((channels, height // factor, width // factor), self._mean, rows, columns, self.sigmas)
        return low


def _exponential(size, correlation):
    index = torch.arange(size, dtype=torch.float64)
    return correlation ** (index[:, None] - index).abs()


def _pool(matrix, factor):
    """Means of `factor` neighbouring rows."""
    return matrix.reshape(-1, factor, matrix.shape[1]).mean(1)


def _eigen(cov, size, name):
    """Eigenvalues and eigenvectors (columns) of a symmetric positive semi-definite matrix."""
    if tuple(cov.shape) != (size, size) or not torch.allclose(cov, cov.T, rtol=1e-9, atol=1e-12):
        raise ValueError(f"{name}: must be a symmetric {size} x {size} matrix, got shape {tuple(cov.shape)}")
    spectrum, basis = torch.linalg.eigh(cov)
    if spectrum[0] < -1e-9 * spectrum[-1].abs():
        raise ValueError(f"{name}: must be positive semi-definite, got the eigenvalue {spectrum[0].item():g}")
    return spectrum.clamp(min=0), basis


def _apply(x, matrix):
    """x @ matrix over the last dimension; term by term up to 64, so that no bit depends on the other samples."""
    if len(matrix) > 64:
        return x @ matrix
    columns = x.flatten(0, -2).T.contiguous()  # (D, rows): long inner loops
    total = matrix[0, :, None] * columns[0]
    for k in range(1, len(matrix)):
        total += matrix[k, :, None] * columns[k]
    return total.T.reshape(*x.shape[:-1], matrix.shape[1])
