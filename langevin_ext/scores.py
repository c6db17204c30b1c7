"""Score fields: the gradient of log p_sigma, p_sigma the data's law convolved with N(0, sigma^2 I).

A field has `sigmas` (L,) strictly decreasing, `shape` (C, H, W), `field(x, level)` with level int64 (B,), and
`field.at_sigma(x, sigma)`. The exact fields here compute in float64, one sample at a time as far as rounding goes, so
that a sample's bits do not depend on the batch it is in; they return x.dtype. Vectors are images of shape (D, 1, 1).
"""

import math

import torch

from . import noise
from .schedules import check_sigmas, geometric_sigmas

__all__ = ["ScoreFunction", "Gaussian", "GaussianMixture", "GaussianField"]


class _Field:
    """What the fields share: the ladder, the shape, and their constants on the device of x."""

    def __init__(self, sigmas, shape):
        name = type(self).__name__
        self.sigmas = torch.as_tensor(geometric_sigmas(1, 0.01, 10) if sigmas is None else sigmas)
        check_sigmas(self.sigmas, f"{name}: argument sigmas")
        self.shape = tuple(int(size) for size in shape)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"{name}: argument shape must be (C, H, W), got {self.shape}")
        self._constants = {"sigmas": self.sigmas.to(torch.float64)}
        self._copies = {}

    def _on(self, device):
        """The constants on a device, copied to it once."""
        if device not in self._copies:
            self._copies[device] = {key: value.to(device) for key, value in self._constants.items()}
        return self._copies[device]

    def __call__(self, x, level) -> torch.Tensor:
        """score(x, sigmas[level]).

        Args:
            x: (B, C, H, W).
            level: int64 (B,) or one integer.
        """
        return self.at_sigma(x, self._on(x.device)["sigmas"][level])

    def at_sigma(self, x, sigma) -> torch.Tensor:
        """The score at any noise level.

        Args:
            x: (B, C, H, W).
            sigma: one number or (B,), at least 0.

        Returns:
            (B, C, H, W), dtype of x.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"{type(self).__name__}: x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1, 1, 1)
        return self._score(x.to(torch.float64), sigma, self._on(x.device)).to(x.dtype)

    def _score(self, x, sigma, constants) -> torch.Tensor:
        """The score of float64 x (B, C, H, W) at sigma (B or 1, 1, 1, 1)."""
        raise NotImplementedError


class ScoreFunction(_Field):
    """A plain function as a model: score(x, level) = fn(x, sigmas[level]).

    Args:
        fn: called as fn(x, sigma), x (B, C, H, W), sigma (B, 1, 1, 1) of x's dtype so that it broadcasts; returns the
            score, shaped like x.
        sigmas: (L,) strictly decreasing.
        shape: (C, H, W).
    """

    def __init__(self, fn, sigmas, shape):
        super().__init__(sigmas, shape)
        if not callable(fn):
            raise TypeError(f"ScoreFunction: argument fn must be callable, got {type(fn).__name__}")
        self.fn = fn

    def at_sigma(self, x, sigma) -> torch.Tensor:
        sigma = torch.as_tensor(sigma, device=x.device).to(x.dtype).reshape(-1, 1, 1, 1)
        return self.fn(x, sigma.expand(len(x), 1, 1, 1))


class Gaussian(_Field):
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


class GaussianMixture(_Field):
    """The exact score of a mixture of Gaussians with one variance, isotropic.

        s(x, sigma) = sum_k p_k(x) (m_k - x) / v,     p_k(x) proportional to w_k exp(-|x - m_k|^2 / (2 v))

    form="convolved": v = variance + sigma^2, the score of data plus noise. form="replaced": v = sigma^2, what the toy
    experiment released with NCSN (arXiv:1907.05600, figure 3) does: the components' width is the noise level itself.

    Args:
        means: (K, D) or (K, C, H, W).
        weights: (K,), positive; normalised.
        variance: of a component, at least 0.
        sigmas: (L,) strictly decreasing, kept in their dtype; 1 to 0.01 in ten levels by default.
        form: "convolved" or "replaced".
        shape: (C, H, W); taken from `means` by default.
    """

    def __init__(self, means, weights, variance=1.0, sigmas=None, *, form="convolved", shape=None):
        means = torch.as_tensor(means, dtype=torch.float64)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if means.dim() not in (2, 4) or weights.shape != means.shape[:1] or not (weights > 0).all():
            raise ValueError(
                "GaussianMixture: argument means must be (K, D) or (K, C, H, W) with K positive weights, "
                f"got shapes {tuple(means.shape)} and {tuple(weights.shape)}"
            )
        if form not in ("convolved", "replaced"):
            raise ValueError(f"GaussianMixture: argument form must be 'convolved' or 'replaced', got {form!r}")
        if not 0 <= variance < math.inf:
            raise ValueError(f"GaussianMixture: argument variance must be at least 0, got {variance}")
        super().__init__(sigmas, shape or (means.shape[1:] if means.dim() == 4 else (means.shape[1], 1, 1)))
        self.form = form
        self._constants["means"] = means.reshape(len(means), *self.shape)
        self._constants["weights"] = weights / weights.sum()
        self._constants["variance"] = torch.tensor(float(variance), dtype=torch.float64)

    def _score(self, x, sigma, constants):
        v = sigma**2 + constants["variance"] if self.form == "convolved" else sigma**2
        offsets = [mean - x for mean in constants["means"]]
        distances = torch.stack([offset.square().flatten(1).sum(1) for offset in offsets], dim=1)
        p = torch.softmax(constants["weights"].log() - distances / (2 * v.reshape(-1, 1)), dim=1)
        pulls = [p[:, k].reshape(-1, 1, 1, 1) * offset for k, offset in enumerate(offsets)]
        return sum(pulls[1:], pulls[0]) / v

    def sample(self, n, seed=0, first=0, dtype=torch.float32) -> torch.Tensor:
        """n draws from the mixture: (n, C, H, W); draw i depends on (seed, first + i) alone."""
        u = noise.uniform((n, 1), seed, step=1, first=first, stream=noise.DATA).to(torch.float64)
        component = (u > self._constants["weights"].cumsum(0)[:-1]).sum(1)
        z = noise.normal((n, *self.shape), seed, first=first, stream=noise.DATA).to(torch.float64)
        return (self._constants["means"][component] + self._constants["variance"].sqrt() * z).to(dtype)


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
