"""The energy distance between two sets of points: a distance of laws from Euclidean distances alone."""

import math

import torch
from tqdm import tqdm

__all__ = ["energy_distance"]

CHUNK = 2**20  # distances held at a time by default


def energy_distance(a, b, *, unbiased=False, chunk=None) -> float:
    """Energy distance of two sets of samples (Szekely & Rizzo 2013, "Energy statistics", eq. 5 and 6.1).

        E = 2 mean_ij |a_i - b_j| - mean_ij |a_i - a_j| - mean_ij |b_i - b_j|

    It is 0 if and only if the two laws are equal, needs no bandwidth, and grows with the distance itself, not its
    square. The V-statistic takes the means over all pairs and is at least 0, but too large by E|a - a'| / n plus
    E|b - b'| / m on average; the U-statistic (`unbiased`) leaves the pairs i = j out and is negative about as often as
    positive for two sets of one law.

    Args:
        a, b: (n, D) and (m, D) points; images (n, C, H, W) count as their pixels. Time grows as (n + m)^2.
        unbiased: the U-statistic, for at least two points each, in place of the V-statistic.
        chunk: points of one set that are compared with all of the other at a time; changes memory alone, up to
            rounding. By default as many as make 2^20 distances.

    Returns:
        E, in the unit of the points, summed in float64; scipy.stats.energy_distance is its square root.

    Raises:
        ValueError: shapes do not fit, a set is too small, or a value is not finite.
    """
    a, b = (_points(points) for points in (a, b))
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 1 + bool(unbiased):
        raise ValueError(
            f"energy_distance: a and b must be (n, D) and (m, D) with at least {1 + bool(unbiased)} points each, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"energy_distance: chunk must be a positive integer, got {chunk!r}")
    n, m = len(a), len(b)
    pairs = (n * (n - 1), m * (m - 1)) if unbiased else (n * n, m * m)
    across, within_a, within_b = (_sum(*sides, chunk) for sides in ((a, b), (a, a), (b, b)))
    return 2 * across / (n * m) - within_a / pairs[0] - within_b / pairs[1]


def _points(points):
    points = torch.as_tensor(points)
    if points.dim() < 2 or 0 in points.shape or not points.isfinite().all():
        raise ValueError(
            f"energy_distance: a and b must be finite (n, D) or (n, C, H, W) points, got shape {tuple(points.shape)}"
        )
    return points.flatten(1).to(torch.float64)


def _sum(a, b, chunk):
    """sum_ij |a_i - b_j|"""
    parts = a.split(max(1, CHUNK // len(b)) if chunk is None else chunk)
    # the expansion |a|^2 + |b|^2 - 2 ab, the fast way, would leave equal points apart
    return math.fsum(
        torch.cdist(part, b, compute_mode="donot_use_mm_for_euclid_dist").sum().item()
        for part in tqdm(parts, desc="energy distance", disable=None, leave=False)
    )
