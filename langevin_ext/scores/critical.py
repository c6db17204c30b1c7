"""Exact scores of critically-damped Langevin diffusion (CLD; Dockhorn, Vahdat, Kreis 2022, arXiv:2112.07068).

What the reverse process needs is the score in the velocity, s(u, t) = grad_v log p_t(x, v), with p_t the law at time t
of data coupled with v_0 ~ N(0, gamma M); see `langevin_ext.processes`. A velocity model has `shape` (C, H, W) of the
data and `process`, a `CriticallyDamped`, and is called as model(u, t) with u (B, 2C, H, W), x then v. Like the fields
of `langevin_ext.scores` these compute in float64, one sample at a time as far as rounding goes.
"""

import math

import torch

from .. import noise
from ..processes import CriticallyDamped

__all__ = ["CriticalGaussian", "CriticalMixture"]


class CriticalMixture:
    """The exact velocity score of a mixture of Gaussians with one variance, isotropic, under CLD.

        p_t = sum_k w_k N(A (m_k, 0), S),     S the covariance of data of that variance at time t, for each pixel
        s(u, t) = sum_k p_k(u) (S_xv dx_k - S_xx dv_k) / det S,     (dx_k, dv_k) = u - A (m_k, 0)
        p_k(u) proportional to w_k exp(-(S_vv |dx_k|^2 - 2 S_xv dx_k . dv_k + S_xx |dv_k|^2) / (2 det S))

    Args:
        means: (K, D) or (K, C, H, W).
        weights: (K,), positive; normalised.
        variance: of a component, at least 0.
        process: `CriticallyDamped`, with its default constants by default.
        shape: (C, H, W); taken from `means` by default, a vector being (D, 1, 1).

    Raises:
        ValueError: shapes do not fit, or a weight or the variance is out of range.
    """

    def __init__(self, means, weights, variance=1.0, process=None, *, shape=None):
        name = type(self).__name__
        means = torch.as_tensor(means, dtype=torch.float64)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if means.dim() not in (2, 4) or weights.shape != means.shape[:1] or not (weights > 0).all():
            raise ValueError(
                f"{name}: argument means must be (K, D) or (K, C, H, W) with K positive weights, "
                f"got shapes {tuple(means.shape)} and {tuple(weights.shape)}"
            )
        if not 0 <= variance < math.inf:
            raise ValueError(f"{name}: argument variance must be at least 0, got {variance}")
        self.process = CriticallyDamped() if process is None else process
        default = means.shape[1:] if means.dim() == 4 else (means.shape[1], 1, 1)
        self.shape = tuple(int(size) for size in (shape or default))
        self.means, self.weights = means.reshape(len(means), *self.shape), weights / weights.sum()
        self.variance = float(variance)

    def __call__(self, u, t) -> torch.Tensor:
        """s(u, t).

        Args:
            u: (B, 2C, H, W), x then v.
            t: forward time, one number or (B,), positive where the data's variance is 0.

        Returns:
            (B, C, H, W), dtype of u.

        Raises:
            ValueError: u has another shape.
        """
        channels, height, width = self.shape
        if tuple(u.shape[1:]) != (2 * channels, height, width):
            wanted = f"(B, {2 * channels}, {height}, {width})"
            raise ValueError(f"{type(self).__name__}: u must have shape {wanted}, got {tuple(u.shape)}")
        t = torch.as_tensor(t, dtype=torch.float64, device=u.device).reshape(-1, 1, 1, 1)
        x, v = u.to(torch.float64).split(channels, dim=1)
        axx, _, avx, _ = self.process.mean_matrix(t)
        s = self.process.covariance(t, data_variance=self.variance)
        pulls, exponents = [], []
        for mean in self.means.to(u.device):
            dx, dv = x - axx * mean, v - avx * mean
            form = (s.vv * dx * dx - 2 * s.xv * dx * dv + s.xx * dv * dv) / (2 * s.det)
            exponents.append(form.flatten(1).sum(1))
            pulls.append((s.xv * dx - s.xx * dv) / s.det)
        p = torch.softmax(self.weights.to(u.device).log() - torch.stack(exponents, dim=1), dim=1)
        parts = [p[:, k].reshape(-1, 1, 1, 1) * pull for k, pull in enumerate(pulls)]
        return sum(parts[1:], parts[0]).to(u.dtype)

    def sample(self, n, seed=0, first=0, dtype=torch.float32) -> torch.Tensor:
        """n draws of the data: (n, C, H, W); draw i depends on (seed, first + i) alone (stream DATA)."""
        uniform = noise.uniform((n, 1), seed, step=1, first=first, stream=noise.DATA).to(torch.float64)
        component = (uniform > self.weights.cumsum(0)[:-1]).sum(1)
        z = noise.normal((n, *self.shape), seed, first=first, stream=noise.DATA).to(torch.float64)
        return (self.means[component] + math.sqrt(self.variance) * z).to(dtype)


class CriticalGaussian(CriticalMixture):
    """The exact velocity score of Gaussian data N(m, s^2 I) under CLD.

        s(u, t) = (S_xv (x - A_xx m) - S_xx (v - A_vx m)) / det S

    Args:
        mean: one number, (D,) or (C, H, W).
        variance: s^2, of each pixel, at least 0.
        process: `CriticallyDamped`, with its default constants by default.
        shape: (C, H, W); taken from `mean` by default.

    Raises:
        ValueError: the variance is out of range.
    """

    def __init__(self, mean=0.0, variance=1.0, process=None, *, shape=None):
        mean = torch.as_tensor(mean, dtype=torch.float64)
        if shape is None:
            shape = tuple(mean.shape) if mean.dim() == 3 else (mean.numel(), 1, 1)
        if mean.numel() > 1 and mean.numel() != math.prod(shape):
            raise ValueError(
                f"CriticalGaussian: argument mean must be one number or have shape {shape}, got {tuple(mean.shape)}"
            )
        mean = mean.reshape(shape) if mean.numel() > 1 else mean.reshape(1, 1, 1).expand(shape)
        super().__init__(mean[None], [1.0], variance, process)
