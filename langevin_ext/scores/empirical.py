"""The exact score of a finite set of points plus noise: what a network that memorised its training data has learned."""

import math

import torch

from .. import noise
from .field import Field

__all__ = ["Empirical"]

TERM_BY_TERM = 64  # values per sample up to which sums are made so that no bit depends on the batch
BLOCK = 2**17  # products held at a time on that way, small enough for a core's cache


class Empirical(Field):
    """The exact score of the empirical measure of n points convolved with a Gaussian (a kernel density).

        s(x, sigma) = sum_i p_i(x) (x_i - x) / v,   v = variance + sigma^2
        p_i(x) proportional to exp(-|x - x_i|^2 / (2 v))

    It is the minimiser of denoising score matching over all functions (Vincent 2011): the memoriser of
    arXiv:2603.11319. The points are gone through in chunks, with a running maximum of the exponents, so that memory is
    that of a chunk. Computed in float64. Up to 64 values per sample, sums are made term by term and a sample's bits do
    not depend on the batch it is in; beyond, distances and sums are matrix products, equal for all batches up to
    rounding only.

    Args:
        data: (n, D) or (n, C, H, W) floating points, n >= 1, all finite; kept in their dtype.
        sigmas: (L,) strictly decreasing, kept in their dtype; 1 to 0.01 in ten levels by default.
        variance: of the kernel without noise, at least 0; where it is 0, `at_sigma` needs a sigma above 0.
        chunk: points compared with a batch at a time; changes memory and speed, and the result by rounding.
        shape: (C, H, W); taken from `data` by default, a vector being (D, 1, 1).
    """

    def __init__(self, data, sigmas=None, variance=0.0, *, chunk=4096, shape=None):
        data = torch.as_tensor(data).detach()
        if data.dim() not in (2, 4) or 0 in data.shape or not data.is_floating_point() or not data.isfinite().all():
            raise ValueError(
                "Empirical: argument data must be (n, D) or (n, C, H, W), floating and finite, with at least one point,"
                f" got {data.dtype} {tuple(data.shape)}"
            )
        if not 0 <= variance < math.inf:
            raise ValueError(f"Empirical: argument variance must be at least 0, got {variance}")
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"Empirical: argument chunk must be a positive integer, got {chunk!r}")
        super().__init__(sigmas, shape or (data.shape[1:] if data.dim() == 4 else (data.shape[1], 1, 1)))
        if math.prod(self.shape) != data[0].numel():
            raise ValueError(
                f"Empirical: argument shape must hold the {data[0].numel()} values of a point, got {self.shape}"
            )
        self.variance, self.chunk = float(variance), chunk
        self.data = data.reshape(len(data), *self.shape)
        self._constants["points"] = data.reshape(len(data), -1)

    def _score(self, x, sigma, constants):
        v = (sigma**2 + self.variance).reshape(-1, 1)
        if not (v > 0).all():
            raise ValueError("Empirical: argument sigma must be positive for points without width, got 0")
        rows = x.flatten(1)
        highest = rows.new_full((len(rows), 1), -math.inf)  # running maximum of the exponents
        total = rows.new_zeros(len(rows), 1)  # sum of p_i, like the next over exp(highest)
        pulled = torch.zeros_like(rows)  # sum of p_i x_i
        for points in constants["points"].split(self.chunk):
            points = points.to(torch.float64)
            exponents = -_squared_distances(rows, points) / (2 * v)
            after = torch.maximum(highest, exponents.amax(1, keepdim=True))
            shrink, p = (highest - after).exp(), (exponents - after).exp()
            total = total * shrink + p.sum(1, keepdim=True)
            pulled = pulled * shrink + _weighted_sums(p, points)
            highest = after
        return ((pulled / total - rows) / v).reshape(x.shape)

    def sample(self, n, seed=0, first=0, dtype=torch.float32) -> torch.Tensor:
        """n draws, points with equal chances plus N(0, variance): (n, C, H, W); draw i depends on (seed, first + i)."""
        u = noise.words((n, 1), seed, step=1, first=first, stream=noise.DATA)[:, 0]
        points = self.data[(u * len(self.data)) >> 32].to(torch.float64)
        z = noise.normal((n, *self.shape), seed, first=first, stream=noise.DATA).to(torch.float64)
        return (points + math.sqrt(self.variance) * z).to(dtype)


def _squared_distances(rows, points):
    """|x_b - x_i|^2 as (B, c)."""
    if rows.shape[1] <= TERM_BY_TERM:
        return torch.cdist(rows, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    # about the points' mean, |x|^2 + |y|^2 - 2 x.y loses the fewest digits
    centre = points.mean(0)
    rows, points = rows - centre, points - centre
    squares = rows.square().sum(1, keepdim=True) + points.square().sum(1)
    return (squares - 2 * rows @ points.T).clamp_(min=0)


def _weighted_sums(p, points):
    """sum_i p_bi x_i as (B, D)."""
    if points.shape[1] > TERM_BY_TERM:
        return p @ points
    size = max(1, BLOCK // (len(points) * points.shape[1]))  # samples at a time; none of them meets another
    return torch.cat([(part[:, :, None] * points).sum(1) for part in p.split(size)])
