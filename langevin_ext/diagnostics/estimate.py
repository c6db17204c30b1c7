"""Means with standard errors, and how many of these are beyond chance."""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch

__all__ = ["Estimate", "Limits", "difference", "estimate", "quotient", "threshold"]


class Estimate(NamedTuple):
    """A mean and its standard error.

    Attributes:
        value: the mean; infinite where a chain diverged.
        stderr: its standard error, 0 where the value is exact.
    """

    value: float
    stderr: float = 0.0

    def beyond(self, bound) -> float:
        """(value - bound) / stderr: infinite where the value diverged or, without an error, differs from the bound."""
        distance = self.value - bound
        if math.isinf(distance) or self.stderr == 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / self.stderr

    def __str__(self):
        return f"{self.value:.4g} +- {self.stderr:.2g}"


class Limits(NamedTuple):
    """Standard errors beyond which a deviation counts, see `threshold`: of means over images and over chains."""

    images: float
    chains: float


def estimate(values) -> Estimate:
    """The mean of independent values (n,), n >= 2, and its standard error s / sqrt(n)."""
    values = values.to(torch.float64)
    if not values.isfinite().all():
        return Estimate(math.inf, math.inf)
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)))


def difference(a, b) -> Estimate:
    """a - b of independent estimates."""
    if math.isinf(a.value) or math.isinf(b.value):
        # both diverged: no difference can be seen
        return Estimate(0.0 if a.value == b.value else a.value if math.isinf(a.value) else -b.value, math.inf)
    return Estimate(a.value - b.value, math.hypot(a.stderr, b.stderr))


def quotient(above, below) -> Estimate:
    """mean(above) / mean(below) of paired values (n,), below positive; the error to first order (delta method)."""
    above, below = above.to(torch.float64), below.to(torch.float64)
    if not (above.isfinite().all() and below.isfinite().all()):
        return Estimate(math.inf, math.inf)
    scale = below.mean().clamp(min=torch.finfo(torch.float64).tiny)
    ratio = above.mean() / scale
    return Estimate(ratio.item(), estimate((above - ratio * below) / scale).stderr)


def threshold(alarm, tests, n) -> float:
    """Standard errors that an estimate may be off by chance.

    The two-sided quantile of Student's t for n values, at the level alarm / tests (Bonferroni): a score without error
    raises an alarm in at most a share `alarm` of diagnoses. By the expansion of t in 1/(n - 1) about the normal
    quantile, three terms (Abramowitz & Stegun 1964, 26.7.5).

    Args:
        alarm: share of false alarms, in (0, 1).
        tests: number of comparisons made.
        n: values in the estimate, at least 2.
    """
    z, v = NormalDist().inv_cdf(1 - alarm / (2 * max(tests, 1))), n - 1
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3
