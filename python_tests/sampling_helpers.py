"""What the tests of sampling share: the laws of linear-Gaussian runs, read off a plan's rows, and a counting score."""

import numpy as np
import torch

from langevin_ext import noise
from langevin_ext.samplers.table import AFTER, BEFORE


class Counting:
    """A model that counts its evaluations, privately, as a fingerprint takes public attributes, and passes them on."""

    def __init__(self, model):
        self.model, self.sigmas, self.shape, self._calls = model, model.sigmas, model.shape, 0

    def __call__(self, x, level):
        self._calls += 1
        return self.model(x, level)

    @property
    def calls(self):
        return self._calls


def geometric(first, last, n):
    """The ladder in float64, for laws that are known to more digits than float32 sigmas give."""
    return torch.from_numpy(np.geomspace(first, last, n))


def variances(rows, data_variance, start):
    """Variance of x about the mean after each row, for data N(m, data_variance): V <- (1 - a / S)^2 V + b^2."""
    values, variance = [], start
    for row in rows:
        contraction = 1 - row.score_coef / (data_variance + row.sigma**2)
        variance = contraction**2 * variance + row.noise_coef**2
        values.append(variance)
    return values


def gaussian_law(rows, mean, cov, known=None, mask=None):
    """Mean and covariance of x after all rows, for data N(mean, cov) and the start U(0, 1), some pixels known or none.

    All in float64 numpy: mean (D,), cov (D, D), known (D,), mask bool (D,).
    """
    size = len(mean)
    mask = np.zeros(size, bool) if mask is None else mask
    unknown = np.diag((~mask).astype(float))
    m, v = np.full(size, 0.5), np.eye(size) / 12

    def paste(row):
        m[mask] = known[mask]
        v[mask, :], v[:, mask] = 0, 0
        v[mask, mask] = row.sigma**2

    for row in rows:
        if row.paste == BEFORE:
            paste(row)
        a = np.eye(size) - row.score_coef * unknown @ np.linalg.inv(cov + row.sigma**2 * np.eye(size))
        m = mean + a @ (m - mean)
        v = a @ v @ a.T + row.noise_coef**2 * unknown
        if row.paste == AFTER:
            paste(row)
    return m, v


def follow(score, levels, x, *, seed, first=0, known=None, mask=None, order="paper", denoise=None):
    """NCSN's Algorithm 1, or 2 with known pixels, written out on its own: float64, the noise that `sample` draws.

    Args:
        score: function of (x, i).
        levels: list of (sigma_i, step size, steps).
        x: (B, D) start.
        denoise: None, or the level to end with.
    """
    x, k = x.double().clone(), 0
    keep = torch.zeros_like(x, dtype=torch.bool) if mask is None else mask.expand_as(x)
    for i, (sigma, alpha, steps) in enumerate(levels):
        if known is not None:
            y = known + sigma * noise.normal(x.shape, seed, step=i, first=first, stream=noise.INPAINT).double()
            if order == "refresh":
                x = torch.where(keep, y, x)
        for _ in range(steps):
            z = noise.normal(x.shape, seed, step=k, first=first, stream=noise.LANGEVIN).double()
            moved = x + alpha / 2 * score(x, i) + alpha**0.5 * z
            x = moved if known is None else torch.where(keep, y, moved)
            k += 1
    if denoise is not None:
        x = torch.where(keep, x, x + levels[denoise][0] ** 2 * score(x, denoise))
    return x
