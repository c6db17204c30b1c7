"""Which mode of a mixture samples belong to."""

import math
from typing import NamedTuple

import torch

__all__ = ["ModeFractions", "mode_fractions"]

CHUNK = 2**20  # distances held at a time


class ModeFractions(NamedTuple):
    """Share of the samples at each mode.

    Attributes:
        fractions: (K,) float64, summing to 1.
        stderr: (K,) float64, standard errors sqrt(p (1 - p) / n).
        counts: (K,) int64.
    """

    fractions: torch.Tensor
    stderr: torch.Tensor
    counts: torch.Tensor


def mode_fractions(samples, means) -> ModeFractions:
    """Share of samples nearest to each of the means (NCSN, arXiv:1907.05600, Figure 3: how mixture weights come out).

        k(x) = argmin_k |x - m_k|,   p_k = share of the samples with k(x) = k,   stderr_k = sqrt(p_k (1 - p_k) / n)

    The standard error is that of n independent samples, estimated from p_k: it is 0 where p_k is 0 or 1, for which it
    says nothing (up to 3 / n of the law may then be elsewhere, at 95 %).

    Args:
        samples: (n, D) or (n, C, H, W), n >= 1, finite.
        means: (K, D) or (K, C, H, W), K >= 1. At equal distances the lower index counts.

    Returns:
        Fractions, standard errors and counts, in the order of the means.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    samples, means = torch.as_tensor(samples), torch.as_tensor(means)
    shapes = f"{tuple(samples.shape)} and {tuple(means.shape)}"
    if min(samples.dim(), means.dim()) < 2 or 0 in (samples.numel(), means.numel()):
        raise ValueError(f"mode_fractions: samples and means must be (n, D) and (K, D), not empty, got {shapes}")
    rows = samples.flatten(1)
    centres = means.flatten(1).to(rows.device, torch.float64)
    if rows.shape[1] != centres.shape[1]:
        raise ValueError(f"mode_fractions: samples and means must have points of one size, got {shapes}")
    if not bool(rows.isfinite().all() and centres.isfinite().all()):
        raise ValueError("mode_fractions: samples and means must be finite, got values that are not")
    counts = torch.zeros(len(centres), dtype=torch.int64, device=rows.device)
    for part in rows.split(max(1, CHUNK // len(centres))):
        distances = torch.cdist(part.to(torch.float64), centres, compute_mode="donot_use_mm_for_euclid_dist")
        counts += distances.argmin(1).bincount(minlength=len(centres))
    p = counts.to(torch.float64) / len(rows)
    return ModeFractions(p, (p * (1 - p)).sqrt() / math.sqrt(len(rows)), counts)
