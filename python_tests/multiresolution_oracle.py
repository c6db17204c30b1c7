"""Multi-resolution sampling of Gaussian data in plain float64 algebra: its law, and its path for given noise.

Independent of the sampler's loop and of its kernels: scores are matrices, upsampling is the matrix that torch's (or
Keys') interpolation gives, noise is drawn where a plan's counters say.
"""

import functools

import numpy as np
import torch
from torch.nn.functional import interpolate

from langevin_ext import noise
from langevin_ext.samplers.table import Upsample


def interpolation_matrix(size, mode) -> np.ndarray:
    """(2 size, size): torch's interpolation of the unit vectors; "bicubic-pil" by Keys' formula with a = -1/2."""
    if mode == "bicubic-pil":
        return keys_matrix(size, -0.5)
    unit = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(size, 1, size, 1)
    corners = {} if mode == "nearest" else {"align_corners": False}
    out = interpolate(unit, scale_factor=2, mode=mode, **corners)
    return out[:, 0, :, 0].T.numpy()


def keys_matrix(size, a) -> np.ndarray:
    """Cubic convolution (Keys 1981) at the centres of half pixels, indices clamped at the border."""

    def weight(t):
        t = abs(t)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        return near if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    matrix = np.zeros((2 * size, size))
    for out in range(2 * size):
        place = (out + 0.5) / 2 - 0.5
        for source in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[out, min(max(source, 0), size - 1)] += weight(place - source)
    return matrix


def upsampling_matrix(shape, mode) -> np.ndarray:
    """(4 D, D) for flattened images (C, H, W)."""
    channels, height, width = shape
    both = np.kron(interpolation_matrix(height, mode), interpolation_matrix(width, mode))
    return np.kron(np.eye(channels), both)


@functools.cache
def precision(field, sigma) -> np.ndarray:
    """(C + sigma^2 I)^-1."""
    cov = field.covariance().numpy()
    return np.linalg.inv(cov + sigma**2 * np.eye(len(cov)))


def law(stages, fields, mode="bicubic") -> np.ndarray:
    """Covariance of x after all stages, for exact scores of fields with mean 1/2 and the start U(0, 1)."""
    size = np.prod(fields[stages[0].model].shape)
    v = np.eye(size) / 12
    for stage in stages:
        if isinstance(stage, Upsample):
            matrix = upsampling_matrix(fields[stage.model - 1].shape, mode)
            v = matrix @ v @ matrix.T + stage.sigma**2 * np.eye(len(matrix))
        for row in stage.rows:
            a = np.eye(len(v)) - row.score_coef * precision(fields[stage.model], row.sigma)
            v = a @ v @ a.T + row.noise_coef**2 * np.eye(len(v))
    return v


def path(stages, fields, n, *, seed, first=0, mode="bicubic", pixels=None) -> np.ndarray:
    """The samples (n, D) of a run with exact scores, its noise drawn by the counters of the stages.

    `pixels`: (known (D,), mask bool (D,)) of each resolution, set after the first update of each level.
    """

    def z(size, step, stream):
        return noise.normal((n, size), seed, step=step, first=first, stream=stream).double().numpy()

    size = int(np.prod(fields[stages[0].model].shape))
    x = noise.uniform((n, size), seed, first=first, stream=noise.INIT).double().numpy()
    for stage in stages:
        known, mask = pixels[stage.model] if pixels else (0, np.zeros(x.shape[1], bool))
        if isinstance(stage, Upsample):
            matrix = upsampling_matrix(fields[stage.model - 1].shape, mode)
            x = x @ matrix.T + stage.sigma * z(len(matrix), stage.step, noise.RENOISE)
            if stage.paste_sigma is not None:
                y = known + np.float32(stage.paste_sigma) * z(len(matrix), stage.paste_step, noise.INPAINT)
                x = np.where(mask, y, x)
        for row in stage.rows:
            score = -(x - 0.5) @ precision(fields[stage.model], row.sigma)
            moved = x + row.score_coef * score + row.noise_coef * z(x.shape[1], row.step, noise.LANGEVIN)
            x = np.where(mask, x, moved)
            if row.paste:
                y = known + np.float32(row.sigma) * z(x.shape[1], row.paste_step, noise.INPAINT)
                x = np.where(mask, y, x)
    return x


def right_covariance(shape) -> np.ndarray:
    """W with tr(W V) the mean covariance of horizontal neighbours under V."""
    channels, height, width = shape
    shift = np.kron(np.eye(channels * height), np.eye(width, k=1))
    return (shift + shift.T) / 2 / (channels * height * (width - 1))
