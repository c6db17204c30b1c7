"""The Frechet distance between two sets of images, each seen as a Gaussian in some feature space.

Distances are only comparable at equal sample counts and in the same features: n samples of N(0, I_d) are already about
d/n + d(d+1)/(4n) away from it. `frechet_samples` therefore returns its value together with both.
"""

import torch

__all__ = ["PixelFeatures", "FrechetDistance", "frechet_distance", "frechet_samples", "gaussian_statistics"]


class PixelFeatures:
    """Images (N, C, H, W) to their pixels (N, C H W), float64; `clip` limits them to [0, 1] first, as a PNG would."""

    def __init__(self, clip=False):
        self.clip, self.name = clip, "clipped pixels" if clip else "pixels"

    def __call__(self, images) -> torch.Tensor:
        pixels = images.flatten(1).to(torch.float64)
        return pixels.clamp(0.0, 1.0) if self.clip else pixels


class FrechetDistance(float):
    """A Frechet distance that knows, and prints, the features and the two sample counts it was measured with."""

    def __new__(cls, value, counts, features):
        self = super().__new__(cls, value)
        self.counts, self.features = tuple(counts), features
        return self

    def __str__(self):
        return f"{float(self):.6g} ({self.features}, {self.counts[0]} against {self.counts[1]} samples)"


def gaussian_statistics(features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and unbiased covariance of the rows.

    Args:
        features: (n, D) real, n >= 2; images (n, C, H, W) count as their pixels.

    Returns:
        mean (D,) and covariance (D, D), float64.

    Raises:
        ValueError: fewer than two rows, or a value is not finite.
    """
    if features.dim() < 2 or len(features) < 2:
        raise ValueError(f"gaussian_statistics: features must be (n, D) with n >= 2, got {tuple(features.shape)}")
    rows = features.flatten(1).to(torch.float64)
    bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"gaussian_statistics: features must be finite, got {len(bad)} rows that are not: {bad[:8]}")
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / (len(rows) - 1)


def frechet_distance(mean1, covariance1, mean2, covariance2) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    The trace of (C1 C2)^(1/2) is that of (C1^(1/2) C2 C1^(1/2))^(1/2): the sum of the singular values of
    C1^(1/2) C2^(1/2), which loses no digits to a second square root. Singular covariances need no offset.

    Args:
        mean1, mean2: (D,); covariance1, covariance2: (D, D) symmetric positive semi-definite.

    Returns:
        The distance, computed in float64, at least 0.

    Raises:
        ValueError: shapes differ, a value is not finite, or a covariance is not symmetric positive semi-definite.
    """
    given = [torch.as_tensor(value, dtype=torch.float64) for value in (mean1, covariance1, mean2, covariance2)]
    mean1, covariance1, mean2, covariance2 = (value.to(given[0].device) for value in given)
    size, shapes = mean1.numel(), [tuple(value.shape) for value in given]
    if size == 0 or shapes != [(size,), (size, size)] * 2:
        raise ValueError(f"frechet_distance: shapes must be (D,), (D, D), (D,), (D, D), got {shapes}")
    roots = _root(covariance1, "covariance1"), _root(covariance2, "covariance2")
    if not bool((mean1 - mean2).isfinite().all()):
        raise ValueError("frechet_distance: means must be finite, got values that are not")
    cross = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2.0 * cross
    return max(distance.item(), 0.0)


def _root(covariance, name):
    """The symmetric square root; eigenvalues that are negative by rounding count as 0."""
    scale = covariance.abs().max()
    if not bool(scale.isfinite()) or not bool((covariance - covariance.T).abs().max() <= 1e-6 * scale):
        raise ValueError(f"frechet_distance: {name} must be finite and symmetric, got largest entry {scale:.3g}")
    values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
    if bool(values[0] < -1e-6 * scale * len(values)):
        raise ValueError(f"frechet_distance: {name} must be positive semi-definite, got eigenvalue {values[0]:.3g}")
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T


def frechet_samples(a, b, features=None) -> FrechetDistance:
    """Frechet distance between two sets of samples.

    Args:
        a, b: images (n, C, H, W) or features (n, D), n >= 2 each; the counts may differ.
        features: images -> (n, D), with a `name`; the pixels as they are by default.

    Returns:
        The distance; printing it also prints the features and the counts.

    Raises:
        ValueError: a set has fewer than two samples or the feature sizes differ, or a value is not finite.
    """
    features = PixelFeatures() if features is None else features
    rows = [features(samples) for samples in (a, b)]
    if rows[0].shape[1:] != rows[1].shape[1:]:
        raise ValueError(
            "frechet_samples: a and b must have the same features,"
            f" got {tuple(rows[0].shape[1:])} and {tuple(rows[1].shape[1:])}"
        )
    value = frechet_distance(*gaussian_statistics(rows[0]), *gaussian_statistics(rows[1]))
    return FrechetDistance(value, (len(a), len(b)), getattr(features, "name", type(features).__name__))
