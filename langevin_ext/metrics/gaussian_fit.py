"""Kullback-Leibler divergence through fitted Gaussians, and what its sampling error must be."""

from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from .frechet import gaussian_kl, gaussian_statistics

__all__ = ["GaussianFitKL", "expected_gaussian_fit_kl", "gaussian_fit_kl"]


class GaussianFitKL(NamedTuple):
    """Divergences in nats, both ways.

    Attributes:
        forward: KL(a || b).
        reverse: KL(b || a).
    """

    forward: float
    reverse: float


def gaussian_fit_kl(a, b) -> GaussianFitKL:
    """Kullback-Leibler divergence of two laws, each taken for the Gaussian of its mean and covariance.

        KL(1 || 2) = (tr(C2^-1 C1) + (m2 - m1)^T C2^-1 (m2 - m1) - D + log det C2 - log det C1) / 2

    The comparison of Table 1 of arXiv:2603.11319: its numbers are KL(pi || fit) with 5000 samples in 50 dimensions
    (which way and how many is an inference from the numbers). Covariances are unbiased. The fit has a bias of about
    D (D + 3) / (4 n), which `expected_gaussian_fit_kl` gives exactly; only values of equal n are comparable.

    Args:
        a, b: samples (n, D) or (n, C, H, W), n > D + 2 (below, the expected divergence is infinite), which are fitted;
            or, for a law that is known, a pair (mean, covariance) of shapes (D,) and (D, D), symmetric positive
            definite.

    Returns:
        Both divergences, computed in float64.

    Raises:
        TypeError: a or b is neither a tensor nor a pair.
        ValueError: a set is too small, sizes differ, a value is not finite, or a covariance is not positive definite.
    """
    first, second = (_gaussian(side, which) for side, which in ((a, "a"), (b, "b")))
    return GaussianFitKL(gaussian_kl(*first, *second), gaussian_kl(*second, *first))


def expected_gaussian_fit_kl(n, law, reference) -> GaussianFitKL:
    """Expectation of `gaussian_fit_kl(samples, reference)` over n samples of a Gaussian law N(m, C), exactly.

        B = sum_{i=1..D} digamma((n - i) / 2) - D log((n - 1) / 2),   f = (n - 1) / (n - D - 2),   e = m - mu
        forward = (tr(S^-1 C) (1 + 1/n) + e^T S^-1 e - D + log det S - log det C - B) / 2
        reverse = (f (tr(C^-1 S) + e^T C^-1 e + D/n) - D + log det C - log det S + B) / 2

    for the reference N(mu, S): mean and inverse of a Wishart matrix and of its log determinant (Anderson 2003, "An
    introduction to multivariate statistical analysis", sections 7.2 to 7.7).

    Args:
        n: number of samples, above D + 2.
        law, reference: pairs (mean, covariance) of shapes (D,) and (D, D), symmetric positive definite.

    Returns:
        The expected divergences: forward KL(fit || reference), reverse KL(reference || fit).

    Raises:
        ValueError: n is too small, or as for `gaussian_fit_kl`.
    """
    (mean, covariance), (target_mean, target) = _gaussian(law, "law"), _gaussian(reference, "reference")
    d = mean.numel()
    _check_count("expected_gaussian_fit_kl: n", n, d)
    exact = gaussian_fit_kl((mean, covariance), (target_mean, target))
    degrees = torch.arange(n - 1, n - 1 - d, -1, dtype=torch.float64)
    b = (torch.digamma(degrees / 2) - torch.tensor((n - 1) / 2, dtype=torch.float64).log()).sum().item()
    f = (n - 1) / (n - d - 2)
    e = mean - target_mean
    spread = torch.linalg.solve(target, covariance).trace().item()
    inverse = torch.linalg.inv(covariance)
    quadratic = ((inverse @ target).trace() + e @ inverse @ e).item()
    return GaussianFitKL(
        exact.forward + (spread / n - b) / 2,
        exact.reverse + ((f - 1) * quadratic + f * d / n + b) / 2,
    )


def _gaussian(side, which):
    """Mean and covariance, float64, of samples or as given."""
    if isinstance(side, tuple | list) and len(side) == 2:
        mean, covariance = (torch.as_tensor(value, dtype=torch.float64) for value in side)
        return mean, covariance
    side = torch.as_tensor(side) if isinstance(side, np.ndarray) else side
    if not torch.is_tensor(side):
        raise TypeError(
            f"gaussian_fit_kl: {which} must be a tensor of samples or a pair (mean, covariance), "
            f"got {type(side).__name__}"
        )
    rows = side.flatten(1) if side.dim() > 1 else side[:, None]
    _check_count(f"gaussian_fit_kl: samples of {which}", len(rows), rows.shape[1])
    return gaussian_statistics(rows)


def _check_count(name, n, d):
    if isinstance(n, bool) or not isinstance(n, Integral) or n <= d + 2:
        raise ValueError(f"{name} must be more than D + 2 = {d + 2} for a fit in {d} dimensions, got {n}")
