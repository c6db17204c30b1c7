"""The Frechet distance between two sets of images, each seen as a Gaussian in some feature space.

Distances are only comparable at equal sample counts and in the same features: n samples of N(0, I_d) are already about
d/n + d(d+1)/(4n) away from it. `frechet_samples` therefore returns its value together with both.
"""

import os
import warnings
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from .statistics import Statistics, load_statistics

__all__ = [
    "FewSamplesWarning",
    "FrechetDistance",
    "PixelFeatures",
    "frechet_distance",
    "frechet_samples",
    "gaussian_kl",
    "gaussian_statistics",
    "measured",
]


SINGULAR = 1e-13  # of the largest eigenvalue: rounding of float64 sums
UNKNOWN = "unknown features"  # of statistics from elsewhere


class FewSamplesWarning(UserWarning):
    """A set has fewer samples than features, so that its covariance is singular and the distance far too large."""


class PixelFeatures:
    """Images (N, C, H, W) to their pixels (N, C H W), float64; `clip` limits them to [0, 1] first, as a PNG would.

    8-bit images count as v/255.
    """

    def __init__(self, clip=False):
        self.clip, self.name = clip, "clipped pixels" if clip else "pixels"

    def __call__(self, images) -> torch.Tensor:
        pixels = images.flatten(1).to(torch.float64)
        pixels = pixels / 255 if images.dtype == torch.uint8 else pixels
        return pixels.clamp(0.0, 1.0) if self.clip else pixels


class FrechetDistance(float):
    """A Frechet distance that knows, and prints, the features and the two sample counts it was measured with.

    A count is None where statistics from elsewhere do not say it.
    """

    def __new__(cls, value, counts, features):
        self = super().__new__(cls, value)
        self.counts, self.features = tuple(counts), features
        return self

    def __str__(self):
        first, second = ("an unknown number of" if count is None else count for count in self.counts)
        return f"{float(self):.6g} ({self.features}, {first} against {second} samples)"


def gaussian_statistics(features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and unbiased covariance of the rows.

    Args:
        features: (n, D) real, n >= 2; images (n, C, H, W) count as their pixels.

    Returns:
        mean (D,) and covariance (D, D), float64.

    Raises:
        ValueError: fewer than two rows, or a value is not finite.
    """
    mean, centred = _centred(features)
    return mean, centred.T @ centred / (len(centred) - 1)


def _centred(features):
    """(mean, rows without it), float64."""
    if features.dim() < 2 or len(features) < 2:
        raise ValueError(f"gaussian_statistics: features must be (n, D) with n >= 2, got {tuple(features.shape)}")
    rows = features.flatten(1).to(torch.float64)
    bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"gaussian_statistics: features must be finite, got {len(bad)} rows that are not: {bad[:8]}")
    mean = rows.mean(0)
    return mean, rows - mean


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
    mean1, covariance1, mean2, covariance2 = _gaussians("frechet_distance", mean1, covariance1, mean2, covariance2)
    return _distance(mean1, _root(covariance1, "covariance1"), mean2, _root(covariance2, "covariance2"))


def _distance(mean1, root1, mean2, root2):
    """The distance from factors R (r, D) of the covariances, C = R^T R.

    The squared singular values of R1 R2^T are the eigenvalues of C1 C2: their sum is the trace of (C1 C2)^(1/2).
    """
    cross = torch.linalg.svdvals(root1 @ root2.T).sum()
    distance = (mean1 - mean2).square().sum() + root1.square().sum() + root2.square().sum() - 2.0 * cross
    return max(distance.item(), 0.0)


def gaussian_kl(mean1, covariance1, mean2, covariance2) -> float:
    """Kullback-Leibler divergence of N(m1, C1) from N(m2, C2); with fitted Gaussians the KL of arXiv:2603.11319.

        KL(1 || 2) = (tr(C2^-1 C1) + (m2 - m1)^T C2^-1 (m2 - m1) - D + log det C2 - log det C1) / 2

    Args:
        mean1, mean2: (D,); covariance1, covariance2: (D, D) symmetric positive definite. A covariance of n samples is
            so only from n = D + 1 on.

    Returns:
        The divergence in nats, computed in float64, at least 0.

    Raises:
        ValueError: shapes differ, a value is not finite, or a covariance is not symmetric positive definite.
    """
    mean1, covariance1, mean2, covariance2 = _gaussians("gaussian_kl", mean1, covariance1, mean2, covariance2)
    factor1, factor2 = _cholesky(covariance1, "covariance1"), _cholesky(covariance2, "covariance2")
    whitened = torch.linalg.solve_triangular(factor2, factor1, upper=False)
    shift = torch.linalg.solve_triangular(factor2, (mean2 - mean1)[:, None], upper=False)
    log_det = 2.0 * (factor2.diagonal().log().sum() - factor1.diagonal().log().sum())
    return max(0.5 * (whitened.square().sum() + shift.square().sum() - len(mean1) + log_det).item(), 0.0)


def _gaussians(name, *given):
    """The two means and covariances as float64 on one device, checked but for definiteness."""
    given = [torch.as_tensor(value, dtype=torch.float64) for value in given]
    given = [value.to(given[0].device) for value in given]
    size, shapes = given[0].numel(), [tuple(value.shape) for value in given]
    if size == 0 or shapes != [(size,), (size, size)] * 2:
        raise ValueError(f"{name}: shapes must be (D,), (D, D), (D,), (D, D), got {shapes}")
    if not bool(given[0].isfinite().all() and given[2].isfinite().all()):
        raise ValueError(f"{name}: means must be finite, got values that are not")
    for which, covariance in (("covariance1", given[1]), ("covariance2", given[3])):
        scale = covariance.abs().max()
        if not bool(scale.isfinite()) or not bool((covariance - covariance.T).abs().max() <= 1e-6 * scale):
            raise ValueError(f"{name}: {which} must be finite and symmetric, got largest entry {scale:.3g}")
    return given


def _root(covariance, which):
    """R with R^T R = C from its eigenvalues; those that are negative by rounding count as 0."""
    values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
    if bool(values[0] < -1e-6 * covariance.abs().max() * len(values)):
        raise ValueError(f"frechet_distance: {which} must be positive semi-definite, got eigenvalue {values[0]:.3g}")
    return values.clamp_min(0.0).sqrt()[:, None] * vectors.T


def _cholesky(covariance, which):
    covariance = 0.5 * (covariance + covariance.T)
    values = torch.linalg.eigvalsh(covariance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    # an eigenvalue that rounding alone has made positive would count as a dimension of its own
    if failed or values[0] <= SINGULAR * values[-1]:
        raise ValueError(
            f"gaussian_kl: {which} must be positive definite (more samples than features, none of them constant or a "
            f"combination of others), got eigenvalues from {values[0]:.3g} to {values[-1]:.3g}"
        )
    return factor


def frechet_samples(a, b, features=None) -> FrechetDistance:
    """Frechet distance between two sets of samples (Heusel et al. 2017, arXiv:1706.08500).

    Args:
        a, b: images (n, C, H, W) or features (n, D), n >= 2 each; or `Statistics`, or the path of a file of them. The
            counts may differ.
        features: images -> (n, D), with a `name`; the pixels as they are by default. Statistics are used as they are
            and must be of the same features.

    Returns:
        The distance; printing it also prints the features and the counts.

    Raises:
        ValueError: a set has fewer than two samples, the features differ, or a value is not finite.
        TypeError: a or b is neither a tensor nor statistics.
        OSError: a file of statistics cannot be read.

    Warns:
        FewSamplesWarning: a set has fewer samples than features.
    """
    return compare("frechet_samples", a, b, lambda: PixelFeatures() if features is None else features)


def compare(name, a, b, features) -> FrechetDistance:
    """The Frechet distance in the name of the public function `name`.

    `features()` makes the features; it is called at most once, and only if a or b is not statistics already.
    """
    sides = [load_statistics(side) if isinstance(side, (str, os.PathLike)) else side for side in (a, b)]
    for which, side in zip("ab", sides, strict=True):
        if not isinstance(side, (torch.Tensor, Statistics)):
            raise TypeError(
                f"{name}: {which} must be a tensor, Statistics or the path of some, got {type(side).__name__}"
            )
    if not all(isinstance(side, Statistics) for side in sides):
        features = features()
    first, second = (_known(side) if isinstance(side, Statistics) else _sampled(side, features) for side in sides)
    _check_alike(name, first, second)
    counts = first.about.get("count"), second.about.get("count")
    fewest, size = min((count for count in counts if count is not None), default=None), first.mean.numel()
    if fewest is not None and fewest < size:
        warnings.warn(
            f"{name}: {fewest} samples are fewer than the {size} features, so that their covariance is singular; the"
            f" distance is far too large and only comparable at equal counts",
            FewSamplesWarning,
            stacklevel=3,
        )
    value = _distance(first.mean, first.root, second.mean.to(first.mean), second.root.to(first.root))
    return FrechetDistance(value, counts, first.about.get("features") or second.about.get("features") or UNKNOWN)


def measured(images, features) -> Statistics:
    """The statistics of the images in these features, for a reference that is used many times or saved."""
    rows = features(images)
    return Statistics(*gaussian_statistics(rows), _about(rows, features))


class _Gaussian(NamedTuple):
    mean: torch.Tensor  # (D,)
    root: torch.Tensor  # (r, D), covariance root^T root
    about: dict


_roots: WeakKeyDictionary[Statistics, _Gaussian] = WeakKeyDictionary()


def _known(statistics):
    """From a mean and a covariance; its root is kept, since a reference is often compared with many times."""
    if statistics not in _roots:
        mean, covariance, *_ = _gaussians("Statistics", *[statistics.mean, statistics.covariance] * 2)
        _roots[statistics] = _Gaussian(mean, _root(covariance, "covariance"), statistics.provenance)
    return _roots[statistics]


def _sampled(samples, features):
    """From samples; up to D of them are a root of their singular covariance themselves, without rounding."""
    rows = features(samples)
    mean, centred = _centred(rows)
    if len(centred) <= centred.shape[1]:
        return _Gaussian(mean, centred / (len(centred) - 1) ** 0.5, _about(rows, features))
    return _Gaussian(mean, _root(centred.T @ centred / (len(centred) - 1), "covariance"), _about(rows, features))


def _about(rows, features):
    """What is known of features of samples, with keys of a provenance."""
    name = getattr(features, "name", type(features).__name__)
    return {"count": len(rows), "features": name, "weights": getattr(features, "sha256", None)}


def _check_alike(name, first, second):
    """Both are of the same features, as far as they say."""
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"{name}: a and b must have the same features, got {tuple(first.mean.shape)} and {tuple(second.mean.shape)}"
        )
    for key in ("features", "weights"):
        said = first.about.get(key), second.about.get(key)
        if None not in said and said[0] != said[1]:
            raise ValueError(f"{name}: a and b must have the same {key}, got {said[0]!r} and {said[1]!r}")
